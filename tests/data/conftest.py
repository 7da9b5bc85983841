"""Four clean data sets, one for each way to describe one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.synthetic import blobs, make_images_dataset, make_volumes_dataset, write_nifti, write_raster


def pictures(root: Path) -> Path:
    """images/ masks/ roi/ of PNG, 0/255."""
    return make_images_dataset(root, cases=8, size=(32, 36), roi=True)


def volumes(root: Path) -> Path:
    """images/ labels/ of NIfTI, two classes."""
    return make_volumes_dataset(root, cases=8, shape=(20, 18, 8), spacing=(1.0, 1.0, 2.0))


def nnunet(root: Path) -> Path:
    """imagesTr imagesTs labelsTr, two channels, dataset.json."""
    for number in range(10):
        folder, case = ("Tr", f"scan_{number:03d}") if number < 8 else ("Ts", f"scan_{number:03d}")
        image, mask = blobs(np.random.default_rng((3, number)), (8, 16, 18), 2)
        write_nifti(root / f"images{folder}" / f"{case}_0000.nii.gz", np.float32(100 * image))
        write_nifti(root / f"images{folder}" / f"{case}_0001.nii.gz", np.float32(50 - 20 * image))
        if folder == "Tr":
            write_nifti(root / "labelsTr" / f"{case}.nii.gz", mask)
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "edema": 1, "core": 2},
        "numTraining": 8,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def listed(root: Path) -> Path:
    """cases.csv with patients and splits, grey PNG, 0/255; two eyes a patient."""
    rows = []
    for number in range(16):
        image, mask = blobs(np.random.default_rng((5, number)), (32, 36))
        case, patient = f"p{number // 2}{'LR'[number % 2]}", f"p{number // 2}"
        write_raster(root / "scans" / f"{case}.png", np.uint8(255 * image))
        write_raster(root / "drawn" / f"{case}_vessel.png", np.uint8(255 * mask))
        split = "test" if number >= 14 else "train"
        rows.append([case, f"scans/{case}.png", f"drawn/{case}_vessel.png", patient, split])
    with (root / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["case", "image", "label", "patient", "split"], *rows])
    return root


BASES = {
    "pictures": (pictures, "."),
    "volumes": (volumes, "."),
    "nnunet": (nnunet, "."),
    "listed": (listed, "cases.csv"),
}


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Base → root of the unharmed data set."""
    return {name: make(tmp_path_factory.mktemp(name) / name) for name, (make, _) in BASES.items()}
