"""What this installation can do, and how to fix what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from cpfnet.errors import is_out_of_memory

GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One part of the installation.

    Attributes:
        name: of the part.
        status: ``"ok"``; ``"limited"``: cpfnet works, but slower or with less; ``"missing"``: it needs something that
            is not there.
        detail: what was found.
        fix: what to do about it; None where there is nothing to do.
    """

    name: str
    status: Literal["ok", "limited", "missing"]
    detail: str
    fix: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def doctor() -> list[Check]:
    """Check this installation; nothing is downloaded, and no file stays behind.

    A part that is broken is reported and never stops the others.
    """
    checks = []
    for name, check in _CHECKS.items():
        try:
            checks.append(check(name))
        except Exception as error:  # a broken library raises anything, and is what this command is for
            module = getattr(error, "name", None) if isinstance(error, ImportError) else None
            fix = _install(module.split(".")[0]) if module else "install cpfnet again, into a new virtual environment"
            if is_out_of_memory(error):
                fix = "close other programs, or allow this one more memory (ulimit -v)"
            checks.append(Check(name, "missing", f"{type(error).__name__}: {error}", fix))
    return checks


def _install(*requirements: str) -> str:
    return f"{sys.executable} -m pip install " + " ".join(f'"{requirement}"' for requirement in requirements)


def _python(name: str) -> Check:
    return Check(name, "ok", f"{platform.python_version()} in {sys.prefix}")


def _platform(name: str) -> Check:
    return Check(name, "ok", f"{platform.system()} {platform.release()}, {platform.machine()}")


def _libraries(name: str) -> Check:
    """Compare the requirements of cpfnet with what is installed; with torch, also those for training."""
    from packaging.requirements import Requirement

    required = [Requirement(text) for text in metadata.requires("cpfnet") or []]
    extra = "" if _version("torch") is None else "train"
    missing, shown = [], []
    for requirement in (r for r in required if r.marker is None or r.marker.evaluate({"extra": extra})):
        version = _version(requirement.name)
        if version is None:
            missing.append((requirement, "not installed"))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append((requirement, f"{version} is installed"))
        if requirement.name in ("monai", "lightning-fabric", "nibabel", "numpy"):
            shown.append(f"{requirement.name} {version}")
    if missing:
        detail = "; ".join(f"needs {requirement}, {state}" for requirement, state in missing)
        return Check(name, "missing", detail, _install(*(str(requirement) for requirement, _ in missing)))
    purpose = "it needs" if extra else "that predicting needs"
    return Check(name, "ok", f"cpfnet {metadata.version('cpfnet')}, {', '.join(shown)} and all others {purpose}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_units() -> dict[str, bool]:
    """The CPU units that matter to a network, and whether this CPU has them; empty: unknown."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        flags = set(next((x for x in info.read_text().splitlines() if x.startswith(("flags", "Features"))), "").split())
        return {
            "AVX2": "avx2" in flags,
            "AVX-512": "avx512f" in flags,
            "AVX-512 BF16": "avx512_bf16" in flags,
            "AMX BF16": "amx_bf16" in flags,
        }
    if _version("torch") is None:
        return {}
    import torch

    level = torch.backends.cpu.get_cpu_capability()
    return {
        "AVX2": level in ("AVX2", "AVX512"),
        "AVX-512": level == "AVX512",
        "AVX-512 BF16": torch.cpu._is_avx512_bf16_supported(),
        "AMX BF16": torch.cpu._is_amx_tile_supported(),
    }


def _cpu(name: str) -> Check:
    from cpfnet.cores import cores_in_words

    known = _cpu_units()
    if not known:
        return Check(name, "ok", cores_in_words())
    units = [unit for unit, available in known.items() if available]
    fast = any("BF16" in unit for unit in units)
    bf16 = "computes in bf16" if fast else "no bf16 units: training on it takes fp32"
    return Check(name, "ok", f"{cores_in_words()}, {', '.join(units) or 'no AVX2'}; {bf16}")


def _memory(name: str) -> Check:
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f}"
    if memory.available < 4 * GIB:
        return Check(
            name, "limited", detail, "close other programs, or train with --set training.batch=1 and a small patch"
        )
    return Check(name, "ok", detail)


def _torch(name: str) -> Check:
    if _version("torch") is None:
        detail = "not installed: predicts with exported Models only, and cannot train or export"
        return Check(name, "limited", detail, _install("cpfnet[train]"))
    import torch

    return Check(name, "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _cuda(name: str) -> Check:
    if _version("torch") is None:
        return Check(name, "ok", "not used without torch; exported Models run on the CPU")
    import torch

    if torch.cuda.is_available():
        devices = []
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            precision = "bf16" if device.major >= 8 else "fp16"
            devices.append(f"{device.name}, {device.total_memory / GIB:.0f} GiB, computes in {precision}")
        return Check(name, "ok", "; ".join(devices))
    if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs only"
        return Check(
            name,
            "limited",
            f"an NVIDIA driver is here, but torch {torch.__version__} ({build}) sees no device",
            "install the build of torch that fits the driver: https://pytorch.org/get-started/locally",
        )
    return Check(name, "ok", "no device; everything runs on the CPU")


def _formats(name: str) -> Check:
    """Write a small picture in each format and read it with the reader that all commands use."""
    import nibabel
    import numpy as np
    from PIL import Image as Picture

    from cpfnet import formats

    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    works: list[str] = []
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for title, suffix, options in (
            ("PNG", ".png", {}),
            ("JPEG", ".jpg", {"quality": 100}),
            ("BMP", ".bmp", {}),
            ("GIF", ".gif", {}),
            ("TIFF (LZW)", ".tif", {"compression": "tiff_lzw"}),
            ("TIFF (deflate)", ".tiff", {"compression": "tiff_adobe_deflate"}),
            ("NIfTI", ".nii.gz", {}),
        ):
            file = Path(folder) / f"picture{suffix}"
            try:
                if title == "NIfTI":
                    nibabel.save(nibabel.Nifti1Image(grey[..., None], np.eye(4)), file)
                else:
                    Picture.fromarray(grey).save(file, **options)
                same = sorted(formats.read(file).shape)[-2:] == [8, 8]
                (works if same else broken).append(title)
            except Exception as error:  # whatever a codec raises, the others are still tried
                broken.append(f"{title} ({error})")
    if broken:
        detail = f"cannot read {', '.join(broken)}; reads {', '.join(works)}"
        return Check(name, "missing", detail, _install("pillow", "tifffile", "nibabel"))
    return Check(name, "ok", f"reads {', '.join(works)}")


def _dicom(name: str) -> Check:
    """Which compressed DICOM objects can be decoded; uncompressed ones always are."""
    from pydicom import uid
    from pydicom.pixels import get_decoder

    syntaxes = {
        "RLE": uid.RLELossless,
        "JPEG": uid.JPEGBaseline8Bit,
        "lossless JPEG": uid.JPEGLosslessSV1,
        "JPEG-LS": uid.JPEGLSLossless,
        "JPEG 2000": uid.JPEG2000,
        "HTJ2K": uid.HTJ2K,
    }
    missing = [title for title, syntax in syntaxes.items() if not get_decoder(syntax).is_available]
    reads = ", ".join(["uncompressed", *(title for title in syntaxes if title not in missing)])
    if missing:
        return Check(name, "limited", f"reads {reads}; no decoder for {', '.join(missing)}", _install("cpfnet[dicom]"))
    return Check(name, "ok", f"reads {reads}")


def _backends(name: str) -> Check:
    """What can run a network, the fastest on a CPU first."""
    versions = {
        "OpenVINO": _version("openvino"),
        "ONNX Runtime": _version("onnxruntime"),
        "PyTorch": _version("torch"),
    }
    detail = ", ".join(f"{title} {version}" for title, version in versions.items() if version) or "none"
    if versions["OpenVINO"] or versions["ONNX Runtime"]:
        return Check(name, "ok", detail)
    if versions["PyTorch"]:
        return Check(name, "limited", f"{detail}; slow on a CPU", _install("cpfnet[runtime]"))
    return Check(name, "missing", "none, so that nothing can be predicted", _install("cpfnet[runtime]"))


def _weights(name: str) -> Check:
    if _version("torch") is None:
        return Check(name, "ok", "not used without torch: training begins from them")
    from cpfnet.network.pretrained.store import verify

    files = verify()
    good = [f"{file.path} ({file.encoder}, {file.place})" for file in files if file.problem is None]
    bad = [f"{file.path}: {file.problem}" for file in files if file.problem is not None]
    detail = "; ".join([*good, *bad]) or "none here"
    if good:
        return Check(name, "ok", detail)
    fix = "cpfnet weights download, or cpfnet weights import FILE; or plan and train from scratch with --weights none"
    return Check(name, "limited", detail, fix)


def _cache(name: str) -> Check:
    from cpfnet.network.pretrained.store import cache_folder

    folder = cache_folder().parent
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        fix = "set CPFNET_CACHE to a folder that you may write to"
        return Check(name, "missing", f"{folder} cannot be written: {error.strerror}", fix)
    return _space(name, folder, place, fix="free some space, or set CPFNET_CACHE to a folder on another disk")


def _disk(name: str) -> Check:
    return _space(name, Path.cwd(), Path.cwd(), fix="free some space, or work in a folder on another disk")


def _space(name: str, folder: Path, place: Path, *, fix: str) -> Check:
    free = shutil.disk_usage(place).free
    detail = f"{folder}, {free / GIB:.1f} GiB free"
    if not os.access(place, os.W_OK):
        return Check(name, "limited", f"{folder} cannot be written", "work in a folder that you may write to")
    return Check(name, "limited", detail, fix) if free < 2 * GIB else Check(name, "ok", detail)


def _demo(name: str) -> Check:
    version = _version("nilearn")
    if version is None:
        return Check(
            name, "limited", "nilearn, whose data `cpfnet demo` uses, is not installed", _install("cpfnet[demo]")
        )
    return Check(name, "ok", f"nilearn {version} brings the data of `cpfnet demo`")


_CHECKS: dict[str, Callable[[str], Check]] = {
    "Python": _python,
    "platform": _platform,
    "libraries": _libraries,
    "CPU": _cpu,
    "memory": _memory,
    "torch": _torch,
    "CUDA": _cuda,
    "backends": _backends,
    "formats": _formats,
    "DICOM": _dicom,
    "ImageNet weights": _weights,
    "cache": _cache,
    "working folder": _disk,
    "demo": _demo,
}
