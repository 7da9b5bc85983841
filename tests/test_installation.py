"""The doctor sees what is there, and survives what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cpfnet.installation import Check, doctor


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CPFNET_CACHE", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path


def by_name() -> dict[str, Check]:
    return {check.name: check for check in doctor()}


def test_a_sound_installation(caches: Path) -> None:
    before = sorted(caches.rglob("*"))
    checks = by_name()
    assert [check for check in checks.values() if check.status == "missing"] == []
    for check in checks.values():
        assert check.detail
        assert (check.fix is None) == (check.status == "ok")
    assert "TIFF (LZW)" in checks["formats"].detail
    assert "JPEG 2000" in checks["DICOM"].detail
    assert checks["ImageNet weights"].status == "limited"
    assert "--weights none" in str(checks["ImageNet weights"].fix)
    assert json.loads(json.dumps(checks["torch"].as_dict()))["status"] == "ok"
    assert sorted(caches.rglob("*")) == before  # nothing is left behind


def test_a_damaged_weight_file_is_named(caches: Path) -> None:
    file = caches / "TORCH_HOME" / "hub" / "checkpoints" / "resnet34-333f7ec4.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not whole")
    check = by_name()["ImageNet weights"]
    assert check.status == "limited"
    assert str(file) in check.detail


def test_a_cache_that_cannot_be_written(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (caches / "file").write_text("in the way")
    monkeypatch.setenv("CPFNET_CACHE", str(caches / "file" / "cache"))
    check = by_name()["cache"]
    assert check.status == "missing"
    assert "CPFNET_CACHE" in str(check.fix)


def test_without_torch_nilearn_and_decoders(caches: Path) -> None:
    """In an interpreter where none can be imported or found, the rest is still told."""
    script = """
import json, sys
from importlib import metadata
real = metadata.version
def version(name):
    if name in ("torch", "nilearn"):
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
for module in ("torch", "gdcm", "openjpeg", "pylibjpeg"):
    sys.modules[module] = None
from cpfnet.installation import doctor
print(json.dumps([check.as_dict() for check in doctor()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["torch"]["status"] == "limited"
    assert "predicts with exported Models only" in checks["torch"]["detail"]
    assert "cpfnet[train]" in checks["torch"]["fix"]
    assert checks["backends"]["status"] == "ok"
    assert "PyTorch" not in checks["backends"]["detail"]
    assert checks["libraries"]["status"] == "ok"
    assert checks["demo"]["status"] == "limited"
    assert "cpfnet[demo]" in checks["demo"]["fix"]
    assert {checks[name]["status"] for name in ("Python", "CPU", "memory", "formats", "cache")} == {"ok"}
    assert checks["DICOM"]["status"] == "limited"
    assert "no decoder for lossless JPEG, HTJ2K" in checks["DICOM"]["detail"]
    assert "cpfnet[dicom]" in checks["DICOM"]["fix"]
