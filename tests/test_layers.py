"""Importing stays light: what must work without torch does not load it, and help answers at once."""

import subprocess
import sys

import pytest

import cpfnet

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
        "cpfnet.data.checks.check",
        "cpfnet.inference.predictor",
        "cpfnet.inference.batch.run",
        "cpfnet.serve.server",
        "cpfnet.evaluation.evaluate",
        "cpfnet.metrics",
        "cpfnet.model",
        "cpfnet.api",
    ],
)
def test_importing_a_room_does_not_load_torch(module):
    assert not loaded_by(f"import {module}") & HEAVY


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_neither_torch_nor_numpy(option):
    loaded = loaded_by(
        f"from typer.testing import CliRunner\nfrom cpfnet.cli.app import app\nCliRunner().invoke(app, ['{option}'])"
    )
    assert not loaded & {*HEAVY, "numpy", "scipy", "pydantic"}


def test_predicting_a_picture_waits_for_no_library_that_it_does_not_need():
    loaded = loaded_by("import cpfnet.cli.app, cpfnet.inference.batch.run")
    assert not loaded & {*HEAVY, "scipy", "skimage", "nibabel", "pydicom", "highdicom", "matplotlib", "onnxruntime"}


def test_a_shell_that_completes_waits_for_nothing_heavy():
    asked = {"_CPFNET_COMPLETE": "complete_bash", "COMP_WORDS": "cpfnet predict --o", "COMP_CWORD": "2"}
    loaded = loaded_by(
        f"import os\nos.environ.update({asked})\nsys.argv = ['cpfnet']\nfrom cpfnet.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert "typer" in loaded
    assert not loaded & (HEAVY | {"numpy", "scipy", "rich"})


def test_the_package_lists_its_public_names_alone():
    public = {
        "check",
        "plan",
        "train",
        "predict",
        "read",
        "write",
        "Image",
        "Segmentation",
        "Plan",
        "Model",
        "CPFNet",
        "CPFNetHR",
        "GuideCPFNet",
        "load_imagenet",
        "__version__",
    }
    assert public <= {*dir(cpfnet)}
    assert {name for name in dir(cpfnet) if name.startswith("_")} == {"__version__"}
    assert not {"Any", "TYPE_CHECKING", "annotations", "import_module", "api"} & {*dir(cpfnet)}
    assert all(hasattr(cpfnet, name) for name in dir(cpfnet))
