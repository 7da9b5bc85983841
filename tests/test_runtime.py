"""The installation without torch: it predicts what torch predicts, and says clearly what it cannot do."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow

import cpfnet
from cpfnet.model import Model
from tests.inference.torch_backend.test_onnx_graph import trained
from tests.synthetic import blobs, make_images_dataset, write_nifti, write_raster

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
WITHOUT = ("torch", "monai", "lightning_fabric", "lightning", "safetensors", "matplotlib", "jinja2", "onnx")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with ``cpfnet[runtime]`` at the tested versions."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "env", symlinks=True)
    interpreter = folder / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter), "--disable-pip-version-check"]
    limits = ["--quiet", "--constraint", str(ROOT / "constraints.txt")]
    reach = [*pip, "download", *limits, "--no-deps", "--dest", str(folder), "typer"]
    if subprocess.run(reach, capture_output=True).returncode:
        pytest.skip("no package index can be reached to install from")
    # Compiling all modules takes longer than compiling those that are used.
    install = [*pip, "install", *limits, "--no-compile", f"{ROOT}[runtime]"]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return interpreter


def run(python: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Exported, of a network that only this process knows."""
    model = trained(tmp_path_factory.mktemp("images") / "model", values=(1, 2), channels=3)
    cpfnet.export(model, "onnx")
    return model


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Model:
    model = trained(tmp_path_factory.mktemp("volumes") / "model", values=(1, 2), mode="3d")
    cpfnet.export(model, "onnx")
    return model


def test_nothing_heavy_is_installed(python: Path, tmp_path: Path) -> None:
    program = f"from importlib.util import find_spec; print([m for m in {WITHOUT} if find_spec(m)])"
    assert run(python, "-c", program, cwd=tmp_path).stdout.strip() == "[]"


def test_a_picture_is_segmented_as_with_torch(python: Path, images: Model, tmp_path: Path) -> None:
    grey = (255 * blobs(np.random.default_rng(0), (70, 90))[0]).astype(np.uint8)
    path = write_raster(tmp_path / "in" / "a.png", np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1))
    done = run(python, "-m", "cpfnet", "predict", images.folder, path, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = np.asarray(Pillow.open(tmp_path / "out" / "a.png"))
    expected = cpfnet.predict(images, path, cpfnet.PredictorOptions(backend="torch", device="cpu")).array
    assert len(np.unique(expected)) > 1
    assert np.mean(found == expected) >= 0.999


def test_a_volume_is_segmented_as_with_torch(python: Path, volumes: Model, tmp_path: Path) -> None:
    array = 255 * blobs(np.random.default_rng(0), (40, 44, 48), 2)[0]
    path = write_nifti(tmp_path / "in" / "a.nii.gz", array, spacing=(0.8, 0.9, 1.5))
    done = run(
        python, "-m", "cpfnet", "predict", volumes.folder, path, "-o", "out", "--backend", "openvino", cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = nibabel.load(tmp_path / "out" / "a.nii.gz")
    assert np.allclose(written.affine, nibabel.load(path).affine)
    expected = cpfnet.predict(volumes, path, cpfnet.PredictorOptions(backend="torch", device="cpu")).array
    assert len(np.unique(expected)) > 1
    assert np.mean(np.asarray(written.dataobj).transpose(2, 1, 0) == expected) >= 0.999


@pytest.mark.parametrize(
    "command",
    [
        "train data -o trained",
        "export MODEL --to bundle",
        "predict MODEL data/images/case_00.png -o out --backend torch",
        "check data --html page.html",
        "plan data -o plan.yaml --preview samples.png",
    ],
)
def test_what_needs_more_says_what_to_install(python: Path, images: Model, tmp_path: Path, command: str) -> None:
    make_images_dataset(tmp_path / "data")
    words = [str(images.folder) if word == "MODEL" else word for word in command.split()]
    done = run(python, "-m", "cpfnet", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert "which is not installed" in done.stderr
    assert 'pip install "cpfnet[train]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


@pytest.mark.parametrize(
    "name", ["cpfnet.CPFNet", "cpfnet.train('data', out='model')", "cpfnet.Model.load(MODEL).network()"]
)
def test_python_says_so_too(python: Path, images: Model, tmp_path: Path, name: str) -> None:
    make_images_dataset(tmp_path / "data")
    program = f"""
import cpfnet
MODEL = {str(images.folder)!r}
try:
    {name}
except cpfnet.CpfnetError as error:
    print(error)
"""
    done = run(python, "-c", program, cwd=tmp_path)
    assert 'which is not installed\n  → pip install "cpfnet[train]"' in done.stdout, done.stderr


def test_masks_are_scored_by_a_plan_made_here(python: Path, tmp_path: Path) -> None:
    data = make_images_dataset(tmp_path / "data")
    done = run(python, "-m", "cpfnet", "evaluate", data, data / "masks", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1.000" in done.stdout


def test_the_doctor_tells_what_it_can_do(python: Path, tmp_path: Path) -> None:
    done = run(python, "-m", "cpfnet", "doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert "predicts with exported Models only" in checks["torch"]["detail"]
    assert "OpenVINO" in checks["backends"]["detail"]
    assert "PyTorch" not in checks["backends"]["detail"]
    assert checks["libraries"]["status"] == "ok"
