"""What a mask says, kept apart from how it is written: to write it in other formats, and to compare labels with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cpfnet import formats, labels
from cpfnet.data.case import placed
from cpfnet.data.sources.pseudonyms import patient_of
from cpfnet.formats import OutputFormat
from cpfnet.formats.writing import write
from cpfnet.image import Image, Segmentation
from cpfnet.planning import Plan
from cpfnet.serve.files import FileStore
from cpfnet.serve.job_files import only_image, readable, unpacked
from cpfnet.serve.jobs.job import Result

KEPT = Path(".labels.npz")


def keep(segmentation: Segmentation) -> None:
    """Write what it says to `KEPT`, in the current folder."""
    arrays = {"array": segmentation.array, "algorithm": np.array(segmentation.algorithm or ("", ""))}
    if segmentation.affine is not None:
        arrays["affine"] = segmentation.affine
    np.savez_compressed(KEPT, **arrays)  # type: ignore[arg-type]


def rewrite(
    files: FileStore, work: Path, plan: Plan, *, input: str, kept: str, name: str, format: OutputFormat
) -> Result:
    """The mask of an image in another format, without asking the network again.

    Args:
        files, work, input: see `unpacked`.
        plan: of the Model.
        kept: digest of what `keep` wrote.
        name: of the mask.
        format: but ``"same"``.

    Raises:
        CpfnetError: the format cannot hold it.
    """
    with unpacked(input, files, work):
        image = formats.read(readable(only_image(plan)))
        with np.load(files.path(kept)) as found:
            title, version = found["algorithm"].tolist()
            affine = found.get("affine")
            segmentation = Segmentation(
                found["array"], affine, image.source, labels=plan.labels, algorithm=(title, version)
            )
        path = write(segmentation, Path(".rewritten") / formats.stem(name), format=format)
        return Result(path.name, files.add(path))


def describe(files: FileStore, work: Path, plan: Plan, *, input: str) -> dict[str, object]:
    """What a case is to know of its image: its files, and its patient's pseudonym where DICOM tells of a patient.

    Args:
        files, work, input: see `unpacked`.
        plan: of the Model.
    """
    with unpacked(input, files, work):
        item = only_image(plan)
        patient = ""
        if formats.is_dicom(item.files[0]):
            from cpfnet.formats.dicom import one_series

            patient = patient_of([one_series(item.files)[0].study])
        return {"images": [str(file) for file in item.files], "patient": patient}


def check_label(
    files: FileStore, work: Path, plan: Plan, *, input: str, kept: str, label: str, name: str
) -> dict[str, object]:
    """Whether a label belongs to an image, and whether it is what a Model said, untouched.

    Args:
        files, work, input: see `unpacked`.
        plan: of the Model.
        kept: digest of what `keep` wrote.
        label, name: digest of its file, and what it is called.

    Raises:
        CpfnetError: it lies on another grid, or holds values that mean no class.
    """
    with unpacked(input, files, work):
        image = formats.read(readable(only_image(plan)))
        path = Path(".label") / name
        path.parent.mkdir()
        path.hardlink_to(files.path(label))
        said = labels.encode(placed(path, image, plan.labels), plan.labels, where=name)
        with np.load(files.path(kept)) as found:
            model = labels.encode(_as_label(found["array"]), plan.labels)
        return {"untouched": bool(np.array_equal(said, model))}


def _as_label(array: np.ndarray) -> Image:
    if array.size and array.max() >= labels.COLOURS:
        colours = np.where(array < labels.COLOURS, array * 0x010101, array)
        return Image(np.stack([colours >> shift & 255 for shift in (16, 8, 0)]).astype(np.uint8), None)
    return Image(array[None], None)
