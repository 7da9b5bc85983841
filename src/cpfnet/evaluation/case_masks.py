"""One case to score, with its files as code maps on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpfnet import formats, labels
from cpfnet.errors import DatasetError
from cpfnet.formats import Header
from cpfnet.formats.file_types import RASTER_SUFFIXES
from cpfnet.image import Image, Segmentation, geometry_difference
from cpfnet.label_values import region_mask
from cpfnet.messages import label_messages
from cpfnet.planning import Labels


@dataclass(frozen=True)
class Item:
    """One case to score.

    Attributes:
        case: id, unique among the items.
        prediction: a written label map, a Segmentation, or None where there is none.
        truth: reader → label file.
        roi: mask of the evaluation region (non-zero counts), if any.
        patient: whose case it is; the bootstrap draws patients. Default: the case.
        images: the case's image files, for pictures in the report.
        probabilities: file with one plane a class (background first, or without it), for AUC; default: those
            of a Segmentation.
    """

    case: str
    prediction: Path | Segmentation | None
    truth: dict[str, Path]
    roi: Path | None = None
    patient: str | None = None
    images: tuple[Path, ...] = ()
    probabilities: Path | None = None


@dataclass(frozen=True)
class CaseMasks:
    """A case's code maps on the truth's grid.

    Attributes:
        prediction: codes, ``([depth,] height, width)``.
        truth: reader → codes, IGNORED where not annotated.
        roi: bool, or None where everything counts.
        probability: class plane → ``([depth,] height, width)``, without the background's; None if there is none.
        affine: of the truth; None where the format knows no millimetres.
        warnings: messages about what was repaired or assumed while reading.
    """

    prediction: np.ndarray
    truth: dict[str, np.ndarray]
    roi: np.ndarray | None
    probability: np.ndarray | None
    affine: np.ndarray | None
    warnings: tuple[str, ...] = ()


def _header(item: Item) -> Header | None:
    files = [*item.images, *item.truth.values()] + ([item.prediction] if isinstance(item.prediction, Path) else [])
    pictures = all(formats.suffix_of(file) in RASTER_SUFFIXES for file in files)  # those lie on each other as they are
    return formats.read_header(item.images) if item.images and not pictures else None


def _agree(what: str, image: Image, reference: Image, other: str, case: str) -> None:
    difference = geometry_difference(image.shape, image.affine, reference.shape, reference.affine)
    if difference:
        raise DatasetError(
            f"{what} and {other} do not lie on one grid: {difference}",
            where=case,
            fix=f"give the {what} in the size and geometry of the {other}",
        )


def check_on_grid(masks: CaseMasks, image: Header, item: Item) -> None:
    """Check that masks lie on their image's grid, where its predictions will lie.

    Raises:
        DatasetError: they do not (both geometries).
    """
    truth = next(iter(masks.truth.values()))
    difference = geometry_difference(truth.shape, masks.affine, image.shape, image.affine)
    if difference:
        raise DatasetError(
            f"label and image do not lie on one grid: {difference}",
            where=item.case,
            fix="give the label in the size and geometry of the image; `cpfnet check` lists all such files",
        )


def load_masks(item: Item, definitions: Labels, image: Image | Header | None = None) -> CaseMasks:
    """Read an item's files onto one grid; a missing prediction becomes an empty one.

    Args:
        item: the case.
        definitions: the Plan's labels.
        image: of the case, if it was read already; default: its header is read where labels need it to
            be placed (volumes and DICOM).

    Raises:
        CpfnetError: something is missing, unreadable, on another grid (both values), or holds unknown values.
    """
    if not item.truth:
        raise DatasetError("has no label to score against", where=item.case, fix="add a label, or leave the case out")
    image = image or _header(item)
    read = {reader: formats.read_label(path, image, definitions) for reader, path in item.truth.items()}
    (first, reference), *others = read.items()
    name = "label" if not others else f"label of reader {first!r}"
    for reader, other in others:
        _agree(f"label of reader {reader!r}", other, reference, name, item.case)
    truth = {reader: labels.encode(label, definitions, where=str(item.truth[reader])) for reader, label in read.items()}

    prediction = item.prediction
    absent = prediction is None or (isinstance(prediction, Path) and not prediction.exists())
    predicted = None
    if prediction is None or absent:
        codes = np.zeros(reference.shape, dtype=np.uint8)
    else:
        source = str(prediction) if isinstance(prediction, Path) else item.case
        predicted = (
            Image(prediction.array[None], prediction.affine)
            if isinstance(prediction, Segmentation)
            else formats.read_label(prediction, image, definitions.model_copy(update={"interpolate_contours": False}))
        )
        _agree("prediction", predicted, reference, name, item.case)
        codes = labels.encode_prediction(predicted, definitions, where=source)

    roi: np.ndarray | None = None
    if item.roi is not None:
        region = formats.read_label(item.roi, image)
        _agree("region of interest", region, reference, name, item.case)
        roi = region_mask(region)
    planes = None
    if item.probabilities is not None:
        planes = formats.read_map(item.probabilities, image)
    elif isinstance(prediction, Segmentation):
        planes = prediction.probabilities
    count = len(definitions.classes)
    if planes is not None:
        if planes.shape[1:] != reference.shape or len(planes) not in (count, count + definitions.exclusive):
            expected = "×".join(map(str, (definitions.outputs, *reference.shape)))
            raise DatasetError(
                f"the probability map is {'×'.join(map(str, planes.shape))}; the label and its classes need {expected}",
                where=item.case,
                fix=f"give one plane a class on the grid of the {name}",
            )
        planes = planes[-count:]
    warnings = (
        *(image.source.warnings if image and image.source else ()),
        *(n for label in read.values() for n in label_messages(label, definitions)),
        *(f"prediction: {warning}" for warning in (predicted.warnings if predicted else ())),
    )
    return CaseMasks(codes, truth, roi, planes, reference.affine, tuple(dict.fromkeys(warnings)))
