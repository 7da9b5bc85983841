"""No word about any patient is in anything that cpfnet prints or writes, except in the patient's own DICOM objects."""

from __future__ import annotations

import gzip
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cpfnet.cli.app import main
from tests.data.dicom_studies import scan, write_rtstruct, write_seg
from tests.synthetic import PRIVATE, write_photograph

INVALID = "19.3.1947"
"""A birth date against the rules: decoders like to quote what they refuse."""
MORE = {
    "PatientAddress": "Holzweg 4",
    "PatientComments": "mag Kuchen",
    "OperatorsName": "Operata^Olga",
    "PerformingPhysicianName": "Doktor^Dora",
    "StationName": "KELLER3",
    "ImageComments": "von Tante Frida",
    "OtherPatientIDs": "ZWEITE99",
}
NUMBERS = ("P-0815", "P-0816", "P-0817", "P-0818")
SECRETS = {
    part.casefold()
    for text in (*PRIVATE.values(), *MORE.values(), *NUMBERS, INVALID)
    for part in (text, *text.split("^"), *text.split())
    if len(part) > 3 and part != "Serie"  # which "series" holds
}

TINY = ["network.name=unet", "network.options={widths: [4, 4, 8, 8, 8]}", "network.weights=none"]
SHORT = ["training.samples=4", "training.batch=2", "training.epochs=1", "training.workers=2", "training.warmup=0"]


def invalid(_: int, header: pydicom.Dataset) -> None:
    quiet = pydicom.config.IGNORE
    header["PatientBirthDate"] = pydicom.DataElement("PatientBirthDate", "DA", INVALID, validation_mode=quiet)


def study(folder: Path, patient: str, seed: int, **options: object) -> list[Path]:
    return scan(folder / "ct", seed=seed, shape=(6, 40, 36), patient=patient, **MORE, **options)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``good``: studies to train on. ``bad``: everything that can be wrong with one."""
    root = tmp_path_factory.mktemp("work")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about the birth date
        for seed, patient in enumerate(NUMBERS):
            folder = root / "good" / f"case{seed}"
            files = study(folder, patient, seed)
            if seed % 2:
                write_seg(folder / "labels" / "seg.dcm", files)
            else:
                write_rtstruct(folder / "labels" / "rs.dcm", files)
        files = study(root / "bad" / "gap", "P-0815", 0)
        write_rtstruct(root / "bad" / "gap" / "rs.dcm", files)
        files[3].unlink()
        files = study(root / "bad" / "mixed", "P-0816", 1)
        dataset = pydicom.dcmread(files[2])
        dataset.Rows, dataset.PixelData = dataset.Rows // 2, dataset.PixelData[: len(dataset.PixelData) // 2]
        dataset.save_as(files[2])
        files = study(root / "bad" / "cut", "P-0817", 2)
        write_seg(root / "bad" / "cut" / "seg.dcm", files)
        files[2].write_bytes(files[2].read_bytes()[:-1000])
        files = study(root / "bad" / "lost", "P-0818", 3, study="b")
        write_rtstruct(root / "bad" / "lost" / "rs.dcm", files, {"Erikas Tumor": np.s_[2:5, 6:14, 5:12]})
        for file in files:
            file.unlink()
        study(root / "bad" / "date", "P-0815", 4, study="date", edit=invalid)
        study(root / "bad" / "mr", "P-0815", 5, study="mr", modality="MR", edit=invalid)
        write_photograph(root / "bad" / "photo.dcm", np.zeros((40, 40, 3), np.uint8), ImageComments="von Tante Frida")
    return root


def leaks(text: str) -> set[str]:
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text).casefold()
    return {secret for secret in SECRETS if secret in text}


def leaks_of(path: Path) -> set[str]:
    """What a file gives away; four letters come together by chance among compressed bytes, so those are unpacked."""
    content = path.read_bytes()
    return leaks((gzip.decompress(content) if path.suffix == ".gz" else content).decode("latin-1"))


@pytest.mark.slow
def test_nothing_private_is_said_or_written(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("COLUMNS", "300")
    assert len(SECRETS) > 20
    everything = ""

    def cpfnet(*arguments: str) -> int:
        """Exit code; what was printed, also by warnings, is searched."""
        nonlocal everything
        monkeypatch.setattr(sys, "argv", ["cpfnet", *arguments])
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with pytest.raises(SystemExit) as ended:
                main()
        printed = "".join(capfd.readouterr()) + "".join(str(one.message) for one in warned)
        assert leaks(printed) == set(), f"{arguments}\n{printed}"
        assert "Traceback" not in printed
        everything += printed
        return int(ended.value.code or 0)

    settings = [part for value in (*TINY, *SHORT) for part in ("--set", value)]
    assert cpfnet("check", "good") == 0, everything
    cpfnet("check", "good", "--json")
    cpfnet("check", "bad")
    assert cpfnet("plan", "good", "-o", "plan.yaml", *settings, "--preview", "preview.png") == 0, everything
    cpfnet("plan", "bad", "-o", "bad.yaml")
    assert cpfnet("train", "good", "-o", "model", "--plan", "plan.yaml", "--device", "cpu") == 0, everything
    cpfnet("train", "bad", "-o", "bad_model", "--plan", "plan.yaml", "--device", "cpu")
    for format in ("same", "dicom-labelmap", "rtstruct", "nifti"):
        also = ["--probabilities", "--overlays"] if format in ("same", "nifti") else []
        assert cpfnet("predict", "model", "good", "-o", f"masks_{format}", "--format", format, *also) == 0, everything
    assert cpfnet("predict", "model", "bad", "-o", "bad_forced", "--force") == 1
    assert cpfnet("predict", "model", "bad", "-o", "bad_masks") == 1
    for masks in ("masks_same", "masks_rtstruct", "model"):
        assert cpfnet("evaluate", "good", masks, "-o", f"scores_{masks}") == 0, everything
    cpfnet("evaluate", "bad", "masks_same", "-o", "bad_scores")

    inputs = {path for name in ("good", "bad") for path in (work / name).rglob("*")}
    written = [path for path in work.rglob("*") if path not in inputs]
    assert len(written) > 50
    for path in written:
        assert leaks(str(path.relative_to(work))) == set()
        if path.is_file() and path.suffix != ".dcm":
            assert leaks_of(path) == set(), path
        elif path.is_file():  # objects of the patient: what the standard asks for, and no more
            header = pydicom.dcmread(path, stop_before_pixels=True)
            assert header.PatientName == PRIVATE["PatientName"]
            rest = "\n".join(str(one) for one in header.iterall() if not str(one.keyword).startswith("Patient"))
            required = {PRIVATE[name].casefold() for name in ("StudyDate", "StudyTime", "AccessionNumber")}
            required |= {part.casefold() for part in PRIVATE["ReferringPhysicianName"].split("^")}
            assert leaks(rest) <= required | {PRIVATE["ReferringPhysicianName"].casefold()}, path
    assert (work / "masks_same" / "case0" / "ct.seg.dcm").is_file()
