"""Which file answers for a format."""

from __future__ import annotations

import pytest

from cpfnet.serve.http.jobs import _result
from cpfnet.serve.jobs.job import Job, Request, Result


@pytest.mark.parametrize(
    ("asked", "name", "format", "is_there"),
    [
        ("same", "a.nii.gz", "nifti", True),
        ("same", "a.nii.gz", "nrrd", False),
        ("seg-nrrd", "a.seg.nrrd", "seg-nrrd", True),
        ("seg-nrrd", "a.seg.nrrd", "nrrd", False),  # though the name ends so
        ("nrrd", "a.nrrd", "seg-nrrd", False),
        ("dicom-seg", "a.seg.dcm", "dicom-labelmap", False),  # both are called so
    ],
)
def test_the_mask_stands_for_its_own_format_alone(asked: str, name: str, format: str, is_there: bool) -> None:
    mask = Result(name, "d" * 64)
    asked_for = Request("i" * 64, "m" * 64, {"format": asked})
    job = Job("id", asked_for, "done", 0, 1.0, 0, 0.0, 0.0, 0.0, "", {}, {"mask": mask})
    assert _result(job, format) == (mask if is_there else None)
