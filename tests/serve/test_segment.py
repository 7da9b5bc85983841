"""Volumes and DICOM series: the mask that predict writes, and the same in every format that can hold it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import cpfnet
from cpfnet import formats
from cpfnet.errors import CpfnetError
from cpfnet.formats import OutputFormat
from cpfnet.inference.predictor import Predictor
from cpfnet.model import Model
from cpfnet.serve.files import manifest
from cpfnet.serve.jobs.job import LABELS, Job, Request, Result
from cpfnet.serve.jobs.options import JobOptions
from cpfnet.serve.label_maps import check_label, rewrite
from cpfnet.serve.segment import segment
from cpfnet.serve.store import Store, StoreOptions, serving
from tests.inference.oracle import bright, make_model, oracle
from tests.synthetic import phantom, write_nifti, write_series

MASK = phantom((5, 34, 36))[1]
OBLIQUE = np.array([[0.6, -0.4, 0, -10], [0.3, 0.8, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
OPTIONS = cpfnet.PredictorOptions(backend=oracle, device="cpu")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with serving(StoreOptions(tmp_path / "store")) as made:
        yield made


def done(store: Store, model: Model, folder: Path, **options: str) -> Job:
    """What became of a job over the files of a folder."""
    with store.files.adding() as batch:
        listed = {path.name: batch.add([path.read_bytes()]) for path in folder.iterdir()}
        digest = batch.add([manifest(listed)])
    job, _ = store.jobs.submit(Request(digest, "m", JobOptions(**options).as_json()))
    claim = store.jobs.claim("m", "w")
    assert claim is not None
    shares: list[float] = []
    before = Path.cwd()
    predictor = Predictor([model], OPTIONS)
    ending = segment(claim, store, predictor, most_voxels=10**6, progress=shares.append)
    assert (ending.state, Path.cwd()) == ("done", before), ending.message
    assert shares == sorted(shares)
    assert shares[-1] == 1
    store.jobs.finish(claim, ending)
    found = store.jobs.get(job.id)
    assert found is not None
    return found


def nifti(folder: Path) -> Path:
    write_nifti(folder / "scan.nii.gz", bright(MASK, 3), OBLIQUE)
    return folder


def dicom(folder: Path) -> Path:
    write_series(folder, bright(MASK, 3).astype(np.int16) + 1024, modality="CT")
    return folder


@pytest.mark.parametrize("make", [nifti, dicom])
def test_every_format_says_what_predict_says(store: Store, tmp_path: Path, make: object) -> None:
    image = make(tmp_path / "in")  # type: ignore[operator]
    model = make_model(values=(2, 5, 9), slices="axial", modality="ct" if make is dicom else "other")
    job = done(store, model, image)

    def rewritten(format: OutputFormat) -> Result:
        kept, name = job.results[LABELS].digest, job.results["mask"].name
        given = {"input": job.request.input, "kept": kept, "name": name}
        return rewrite(store.files, store.work, model.plan, **given, format=format)

    written = set()
    for format in get_args(OutputFormat):
        output, out = cpfnet.OutputOptions(format=format), tmp_path / format
        (outcome,) = cpfnet.predict_files(model, [image], out, OPTIONS, output)
        if format == "same":
            found = job.results["mask"]
        elif outcome.status != "done":
            with pytest.raises(CpfnetError):
                rewritten(format)
            continue
        else:
            found = rewritten(format)
        assert outcome.output is not None
        assert formats.suffix_of(found.name) == formats.suffix_of(outcome.output)
        copy = tmp_path / "copies" / format / found.name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(store.files.path(found.digest).read_bytes())
        if found.name.endswith(".dcm"):  # numbered anew each time
            mine, theirs = (formats.read_label(path, formats.read_header(image)) for path in (copy, outcome.output))
            np.testing.assert_array_equal(mine.array, theirs.array)
            assert mine.meanings == theirs.meanings
        else:
            assert copy.read_bytes() == outcome.output.read_bytes()
        written.add(format)
    assert written >= {"same", "nifti", "nrrd", "seg-nrrd", "mha", "tiff"}
    assert (make is dicom) == (written >= {"dicom-seg", "dicom-labelmap", "rtstruct"})
    assert [*store.work.iterdir()] == []


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (MASK[:3], "does not lie on its image's grid"),
        (np.where(MASK == 3, 77, MASK), "77"),
        (np.select([n == MASK for n in (1, 2, 3)], [2, 5, 9]), ""),
        (np.zeros_like(MASK), None),
    ],
)
def test_a_label_is_compared_with_its_image_and_with_what_the_model_said(
    store: Store, tmp_path: Path, label: np.ndarray, words: str | None
) -> None:
    model = make_model(values=(2, 5, 9), slices="axial")
    job = done(store, model, nifti(tmp_path / "in"))
    path = write_nifti(tmp_path / "label.nii.gz", label.astype(np.uint8), OBLIQUE)
    given = {"input": job.request.input, "kept": job.results[LABELS].digest, "name": "label.nii.gz"}
    given["label"] = store.files.add(path)
    if words:
        with pytest.raises(CpfnetError, match=words):
            check_label(store.files, store.work, model.plan, **given)
    else:
        assert check_label(store.files, store.work, model.plan, **given) == {"untouched": words is not None}
    assert [*store.work.iterdir()] == []
