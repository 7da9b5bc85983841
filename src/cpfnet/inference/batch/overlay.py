"""A picture of a Segmentation on its Image: boundary lines in the classes' colours, one PNG to leaf through."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cpfnet import labels, preprocessing
from cpfnet.files import replacing
from cpfnet.image import Image, Segmentation
from cpfnet.planning import Percentiles, Plan
from cpfnet.preprocessing import intensity, spatial
from cpfnet.report.figures import line_colours

SHORTEST = 384
"""Pixels: smaller pictures are enlarged to about this, so that lines stay thin beside them."""


def write_overlay(image: Image, segmentation: Segmentation, plan: Plan, path: Path, *, overwrite: bool = False) -> Path:
    """Write one PNG: the image, or three slices of a volume side by side.

    Volumes are shown in the Plan's orientation, with square pixels.
    The slices lie at a quarter, half and three quarters of what was segmented; where nothing was, of the volume.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    from PIL import Image as Pillow
    from skimage.segmentation import find_boundaries

    trace = preprocessing.trace_of(image, plan)
    count = len(plan.labels.classes)
    # A set of regions with a value of its own has the colour of its last one.
    sets = np.unique(np.concatenate([np.eye(count, dtype=bool), labels.membership(plan.labels)]), axis=0)
    sets = sets[sets.any(axis=1)]
    last = count - sets[:, ::-1].argmax(axis=1)
    codes = np.zeros(segmentation.array.shape, dtype=np.uint8)
    for code, value in zip(last, labels.decode(last if plan.labels.exclusive else sets.T, plan.labels), strict=True):
        codes[segmentation.array == value] = code
    pixels, codes = trace.orient(image.array), trace.orient(codes)
    pairs: list[tuple[np.ndarray, np.ndarray]]
    if codes.ndim == 2:
        pairs = [(pixels, codes)]
    else:
        used = np.flatnonzero(codes.any(axis=(1, 2)))
        first, last = (used[0], used[-1]) if used.size else (0, len(codes) - 1)
        depths = sorted({round(first + (last - first) * share) for share in (0.25, 0.5, 0.75)})
        pairs = [(pixels[:, depth], codes[depth]) for depth in depths]

    panels = []
    for picture, mask in pairs:
        height, width = mask.shape[-2:]
        if trace.spacing is not None:
            height = max(1, round(height * trace.spacing[1] / trace.spacing[2]))
        times = max(1, round(SHORTEST / max(height, width)))
        size = (height * times, width * times)
        colour = picture.dtype == np.uint8 and len(picture) == 3
        planes = [
            p.astype(np.float32) / 255 if colour else intensity.normalise(p, Percentiles())
            for p in (picture if colour else picture[:1])
        ]
        panel = np.stack([spatial.resample(p, size) for p in planes], axis=-1).repeat(3 // len(planes), axis=-1)
        panel = np.rint(255 * np.clip(panel, 0, 1)).astype(np.uint8)
        mask = spatial.resample_codes(mask, size)
        lines = find_boundaries(mask, mode="inner")
        for code, line in enumerate(line_colours(count), start=1):
            panel[lines & (mask == code)] = list(bytes.fromhex(line[1:]))
        panels.append(panel)
    with replacing(path, overwrite=overwrite) as temporary:
        Pillow.fromarray(np.concatenate(panels, axis=1)).save(temporary, format="png")
    return path
