"""Labels where they belong: on the grid of their image."""

from __future__ import annotations

from pathlib import Path

from cpfnet import formats
from cpfnet.errors import DatasetError
from cpfnet.formats.orientation import drawn_as_stored
from cpfnet.image import Image, geometry_difference
from cpfnet.planning import Labels


def placed(path: Path, image: Image, labels: Labels | None = None) -> Image:
    """Read a label or region of interest.

    Args:
        path: the file.
        image: that it was drawn on.
        labels: as for `formats.read_label`.

    Raises:
        DatasetError: it lies on another grid (the difference).
        FormatError: as `formats.read_label`.
    """
    label = formats.read_label(path, image, labels)
    difference = geometry_difference(image.shape, image.affine, label.shape, label.affine)
    if reason := drawn_as_stored(image.shape, _tag(image), label.shape, _tag(label)):
        raise DatasetError(
            reason,
            where=path,
            mend="turn the mask as viewers show its image; `cpfnet check` lists all such files",
        )
    if difference:
        raise DatasetError(
            f"does not lie on its image's grid: {difference} (the image first)",
            where=path,
            mend="make it on the image's own grid; `cpfnet check` lists all such files",
        )
    return label


def _tag(image: Image) -> int:
    return 1 if image.source is None else image.source.details.get("orientation", 1)
