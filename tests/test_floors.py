"""Importing stays light: what must work without torch does not load it, and help answers at once."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "monai", "lightning_fabric"}


def loaded_by(code):
    program = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "cpfnet",
        "cpfnet.formats",
        "cpfnet.preprocessing",
        "cpfnet.data.dataset",
        "cpfnet.data.check",
        "cpfnet.inference.predictor",
        "cpfnet.inference.run",
        "cpfnet.evaluation.run",
        "cpfnet.model",
        "cpfnet.verbs",
    ],
)
def test_importing_a_room_does_not_load_torch(module):
    assert not loaded_by(f"import {module}") & HEAVY


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_neither_torch_nor_numpy(option):
    loaded = loaded_by(
        f"from typer.testing import CliRunner\nfrom cpfnet.cli import app\nCliRunner().invoke(app, ['{option}'])"
    )
    assert not loaded & {*HEAVY, "numpy", "scipy", "pydantic"}


def test_predicting_a_picture_waits_for_no_library_that_it_does_not_need():
    loaded = loaded_by("import cpfnet.cli, cpfnet.inference.run")
    assert not loaded & {*HEAVY, "scipy", "skimage", "nibabel", "pydicom", "highdicom", "matplotlib", "onnxruntime"}
