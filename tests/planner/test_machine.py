"""Which device is planned for: by what the drivers' tools answer (scripts on PATH), and by what PyTorch was built
for."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import psutil
import pytest

import cpfnet
from cpfnet.errors import PlanError
from cpfnet.planner import machine
from cpfnet.planner.costs import GIB
from cpfnet.planner.machine import Memory, build_of, bytes_of
from tests import synthetic

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tools are shell scripts here")

RTX = "NVIDIA GeForce RTX 4090, GPU-aaaa, 23000, 24564, 8.9"
SMALL = "NVIDIA GeForce GTX 1060, GPU-bbbb, 5900, 6144, 6.1"
SECOND = "NVIDIA GeForce RTX 4090, GPU-cccc, 11000, 24564, 8.9"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, and no PyTorch."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(machine, "torch_folder", lambda: None)
    return folder


def says(tools: Path, query: str, listing: str = "", name: str = "nvidia-smi") -> None:
    script = tools / name
    script.write_text(
        f"#!/bin/sh\nif [ \"$1\" = -L ]; then cat <<'END'\n{listing}\nEND\nelse cat <<'END'\n{query}\nEND\nfi\n"
    )
    script.write_text(script.read_text().replace("cat", "/bin/cat"))
    script.chmod(0o755)


def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "version.py").write_text(version)
    monkeypatch.setattr(machine, "torch_folder", lambda: folder)


CPU_BUILD = "__version__ = '2.13.0'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
CUDA_BUILD = "__version__ = '2.13.0+cu126'\ncuda: Optional[str] = '12.6'\nhip: Optional[str] = None\n"
ROCM_BUILD = "__version__ = '2.13.0+rocm6.4'\ncuda: Optional[str] = None\nhip: Optional[str] = '6.4.43482'\n"


def test_without_a_tool_there_is_main_memory(tools: Path) -> None:
    found = Memory.found()
    assert found.device == "cpu"
    assert 0 < found.bytes <= psutil.virtual_memory().total
    assert "no GPU found" in str(found)


def test_the_one_that_trains_counts_not_the_one_with_most_memory(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(tools, f"{SECOND}\n{RTX}")
    found = Memory.found()
    assert (found.device, found.bytes, found.name) == ("cuda", 11000 * 2**20, "NVIDIA GeForce RTX 4090")
    assert "free on NVIDIA GeForce RTX 4090" in str(found)
    assert Memory.found("cuda:1").bytes == 23000 * 2**20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert Memory.found().bytes == 23000 * 2**20
    with pytest.raises(PlanError, match=r"no device 'cuda:1' here: 1 GPU found(.|\n)*--memory 24GiB"):
        Memory.found("cuda:1")


def test_cuda_counts_from_the_fastest_unless_told_otherwise(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(tools, f"{SMALL}\n{RTX}")
    assert Memory.found().bytes == 23000 * 2**20
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert Memory.found().bytes == 5900 * 2**20


@pytest.mark.parametrize(
    ("visible", "free"),
    [("GPU-cc", 11000), ("1,0", 11000), ("0,1", 23000), ("", None), ("-1", None), ("9,0", None), ("GPU-none", None)],
)
def test_what_the_environment_hides_is_not_there(
    tools: Path, monkeypatch: pytest.MonkeyPatch, visible: str, free: int | None
) -> None:
    says(tools, f"{RTX}\n{SECOND}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = Memory.found()
    assert (found.device, found.bytes // 2**20 if free else None) == ("cuda" if free else "cpu", free)


@pytest.mark.parametrize("unknown", ["[N/A]", "[Not Supported]", "[Insufficient Permissions]"])
def test_a_gpu_that_shares_the_main_memory_is_a_gpu(tools: Path, unknown: str) -> None:
    says(tools, f"NVIDIA GB10, GPU-dddd, {unknown}, {unknown}, 12.1", "GPU 0: NVIDIA GB10 (UUID: GPU-dddd)")
    found = Memory.found()
    assert (found.device, found.name) == ("cuda", "NVIDIA GB10")
    assert 0 < found.bytes <= psutil.virtual_memory().total


def test_of_a_divided_gpu_one_part_trains(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = """GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-eeee)
  MIG 3g.40gb     Device  0: (UUID: MIG-1111-22)
  MIG 1g.10gb+me  Device  1: (UUID: MIG-3333-44)"""
    says(tools, "NVIDIA A100-SXM4-80GB, GPU-eeee, [N/A], [N/A], 8.0", listing)
    assert (Memory.found().device, Memory.found().bytes) == ("cuda", 40 * 10**9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-3333")
    assert (Memory.found().bytes, Memory.found().name) == (10 * 10**9, "MIG 1g.10gb+me")


@pytest.mark.parametrize(
    "answer", ["", "No devices were found", "Failed to initialize NVML: Driver/library version mismatch"]
)
def test_an_answer_without_a_gpu_is_none(tools: Path, answer: str) -> None:
    says(tools, answer)
    assert Memory.found().device == "cpu"


def test_a_tool_that_fails_is_none(tools: Path) -> None:
    says(tools, RTX)
    (tools / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert Memory.found().device == "cpu"


def test_amd(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    card = (
        '"VRAM Total Memory (B)": "25753026560", "VRAM Total Used Memory (B)": "1073741824", '
        '"Card Series": "RX 7900 XTX"'
    )
    says(tools, f'{{"card0": {{{card}}}}}', name="rocm-smi")
    built(tmp_path, monkeypatch, ROCM_BUILD)
    found = Memory.found()
    assert (found.device, found.bytes, found.name) == ("cuda", 25753026560 - 1073741824, "RX 7900 XTX")
    assert not caplog.records
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "")
    assert Memory.found().device == "cpu"


@pytest.mark.parametrize(
    ("gpu", "wheel"),
    [(RTX, "cu126"), (SMALL, "cu126"), ("NVIDIA GeForce RTX 5090, GPU-ffff, 31000, 32607, 12.0", "cu130")],
)
def test_a_pytorch_for_cpus_beside_a_gpu_is_said_with_the_command(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gpu: str, wheel: str
) -> None:
    says(tools, gpu)
    built(tmp_path, monkeypatch, CPU_BUILD)
    with caplog.at_level(logging.WARNING, "cpfnet"):
        assert Memory.found().device == "cpu"
    (said,) = caplog.messages
    assert gpu.split(",")[0] in said
    assert "was built for a CPU alone" in said
    assert f"-m pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/{wheel}" in said
    assert Memory.found("cuda").device == "cuda"  # who asks for it plans for it
    caplog.clear()
    assert Memory.found("cpu").device == "cpu"
    assert not caplog.records  # who asks for the CPU knows


@pytest.mark.parametrize(
    ("version", "build"),
    [
        (CPU_BUILD, "cpu"),
        (CUDA_BUILD, "cuda"),
        (ROCM_BUILD, "rocm"),
        ("cuda = '11.8'\n", "cuda"),
        ("from torch_version import *\n", None),
    ],
)
def test_what_pytorch_was_built_for(tmp_path: Path, version: str, build: str | None) -> None:
    (tmp_path / "version.py").write_text(version)
    assert build_of(tmp_path) == build
    assert build_of(tmp_path / "nowhere") is None


def test_the_installed_pytorch_says_what_it_was_built_for() -> None:
    import torch

    folder = machine.torch_folder()
    assert folder is not None
    assert build_of(folder) == ("cuda" if torch.version.cuda else "rocm" if torch.version.hip else "cpu")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * GIB),
        ("24", 24 * GIB),
        (" 7.5 gib", 7.5 * GIB),
        ("16GB", 16e9),
        ("512MiB", 512 * 2**20),
        ("8g", 8 * GIB),
    ],
)
def test_amounts_of_memory(text: str, size: float) -> None:
    assert bytes_of(text) == int(size)


@pytest.mark.parametrize("text", ["", "much", "0", "-3GiB", "24 parsecs", "nan", "1e999"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(PlanError, match=r"--memory: .* is no amount of memory"):
        bytes_of(text)


def test_another_machine_is_planned_for(tools: Path) -> None:
    assert Memory.given("24GiB") == Memory(24 * GIB, "cuda", origin="given")
    assert "24 GiB free on the GPU that is planned for" in str(Memory.given("24GiB"))
    assert Memory.given("64", "cpu").device == "cpu"
    with pytest.raises(PlanError, match="unknown device 'tpu'"):
        Memory.given("24GiB", "tpu")
    with pytest.raises(PlanError, match="unknown device 'cuda:x'"):
        Memory.found("cuda:x")


def test_what_is_trained_without_a_plan_is_planned_for_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AskedFor(Exception):
        pass

    def found(device: str) -> Memory:
        raise AskedFor(device)

    monkeypatch.setattr(Memory, "found", found)
    data = synthetic.make_images_dataset(tmp_path / "data", 4, (40, 40))
    with pytest.raises(AskedFor, match=r"^cpu$"):
        cpfnet.train(data, tmp_path / "model", device="cpu", progress=False)
