"""Fractional segmentations as probabilities: one plane a segment (DICOM PS3.3, C.8.20.2.3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cpfnet.errors import CpfnetError, FormatError, redacted_message
from cpfnet.formats.dicom.attributes import quiet, text
from cpfnet.formats.dicom.frame_geometry import own_grid, place_on_slices, planes_of
from cpfnet.formats.dicom.image.datasets import Archives
from cpfnet.formats.dicom.image.functional_groups import frames_of
from cpfnet.formats.dicom.read_label import labels_at
from cpfnet.formats.dicom.referenced_images import check_belongs, segments
from cpfnet.formats.dicom.seg.read import segment_of, stored_frames
from cpfnet.formats.file_types import Header
from cpfnet.image import Image


def read_map(path: Path, image: Image | Header | None = None) -> np.ndarray:
    """The probabilities that `seg.write.write_map` wrote.

    Args:
        path: the file.
        image: the image whose grid the planes shall have; None: their own grid.

    Returns:
        float32 ``(segments, [depth,] height, width)`` in 0…1, in the order of the segmentation; slices without a frame
        are 0.

    Raises:
        FormatError: it is not fractional, does not belong to the image or lie on its grid, or is damaged.
    """
    with Archives() as archives, quiet():
        try:
            items = labels_at(path, archives)
            item = items[0] if len(items) == 1 else None
            maximum = "" if item is None else text(item.header, "MaximumFractionalValue")
            kind = "" if item is None else text(item.header, "SegmentationType")
            if item is None or kind != "FRACTIONAL" or not maximum.isdecimal() or not int(maximum):
                raise FormatError("is no fractional segmentation", fix="give the probabilities that `predict` wrote")
            named = segments(item.header)
            if image is not None:
                check_belongs(item.header, image)
            frames = frames_of(item)
            planes = planes_of(frames, image)
            grid = image or own_grid(planes)
            numbers = list(named)
            out = np.zeros((len(numbers), *(1, *grid.shape)[-3:]), dtype=np.float32)
            places = place_on_slices(planes, list(range(len(frames))), grid)
            for frame, place, array in zip(frames, places, stored_frames(frames, archives), strict=True):
                values = place.on_whole_slice(array / np.float32(maximum), grid.shape)
                out[numbers.index(segment_of(frame, named)), place.slice] = values
            return out.reshape(len(numbers), *grid.shape)
        except CpfnetError as error:
            raise type(error)(error.what, where=path, fix=error.fix) from error
        except Exception as error:  # pydicom decodes on access, and raises anything on damaged values
            raise FormatError(f"is damaged: {redacted_message(error)}", where=path, fix="write it again") from error
