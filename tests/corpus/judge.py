"""What is done with a mutant, and what counts as right."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cpfnet import formats
from cpfnet.data import dataset
from cpfnet.errors import CpfnetError
from cpfnet.image import Image
from cpfnet.planning import Plan
from tests.synthetic import PRIVATE


class Defect(Exception):
    """What must not be."""


def fingerprint(*parts: Any) -> str:
    """Equal for equal values; affines count to a millionth of a millimetre."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray) and part.shape == (4, 4):
            part = np.round(part, 6) + 0.0
        digest.update(
            repr((part.shape, part.dtype.str)).encode() + part.tobytes()
            if isinstance(part, np.ndarray)
            else repr(part).encode()
        )
    return digest.hexdigest()


def _header_fits(header: formats.Header, image: Image) -> None:
    for name in ("shape", "channels", "modality"):
        if getattr(header, name) != getattr(image, name):
            raise Defect(f"header and image differ in {name}: {getattr(header, name)} and {getattr(image, name)}")
    if header.dtype != image.array.dtype:
        raise Defect(f"header promises {header.dtype}, the image holds {image.array.dtype}")
    if (header.affine is None) != (image.affine is None) or (
        header.affine is not None and not np.allclose(header.affine, image.affine, equal_nan=True)
    ):
        raise Defect(f"header and image lie elsewhere: {header.affine} and {image.affine}")


def image(target: Path) -> str:
    """The header alone, the image, and the same as a label."""
    try:
        header = formats.read_header(target)
    except CpfnetError:
        with contextlib.suppress(CpfnetError):
            formats.read(target)
            raise Defect("the header is refused, the image is read") from None
        raise
    with contextlib.suppress(CpfnetError):
        formats.read_label(target)
    found = formats.read(target)
    _header_fits(header, found)
    return fingerprint(found.array, found.affine, found.channels, found.modality)


def label(target: Path) -> str:
    """A segmentation or structure set, on the grid of the series beside it."""
    found = formats.read_label(target, formats.read_header(target.parent / "series"))
    return fingerprint(found.array, found.affine, [sorted(names) for names in found.meanings or ()])


def declared(target: Path) -> str:
    """A DATASET, in any of its forms."""
    found = dataset.load(target)
    for case in found.cases:
        if "/" in case.id or case.id in ("", ".", "..") or any(c < " " or c == "\x7f" for c in case.id):
            raise Defect(f"the case id {case.id!r} is no file name")
    return fingerprint(
        [(c.id, c.patient, sorted(c.labels), c.split, c.fold) for c in found.cases], found.labels, found.channels
    )


def plan(target: Path) -> str:
    return Plan.load(target).hash


def model(target: Path) -> str:
    """A Model folder, and the network that it describes."""
    from cpfnet.model import Model

    state = Model.load(target).network().state_dict()
    return fingerprint(*((key, value.numpy()) for key, value in state.items()))


def weights(target: Path) -> str:
    """A weight file by itself."""
    from cpfnet.network.pretrained.load import read_state_dict

    state = read_state_dict(target)
    return fingerprint(*((key, tuple(value.shape), value.dtype) for key, value in sorted(state.items())))


_DICOM = (
    "cpfnet.formats.raster",
    "cpfnet.formats.metaimage",
    "cpfnet.formats.nifti",
    "cpfnet.formats.nrrd",
    "cpfnet.formats.dicom.read_label",
    "skimage.draw",
    "skimage.measure",
)
_TORCH = ("cpfnet.model", "cpfnet.network.zoo", "cpfnet.network.pretrained.load", "safetensors.torch")
LIBRARIES = {"image": _DICOM, "label": _DICOM, "dataset": _DICOM, "model": _TORCH, "weights": _TORCH}
"""What each use loads."""

USES: dict[str, Callable[[Path], str]] = {
    "image": image,
    "label": label,
    "dataset": declared,
    "plan": plan,
    "model": model,
    "weights": weights,
}


def refusal(error: CpfnetError, target: Path) -> str:
    """The message of a refusal; it names the file, in words that any terminal shows.

    Raises:
        Defect: it does not.
    """
    text = str(error)
    names = {target.name, *(path.name for path in target.rglob("*"))} if target.is_dir() else {target.name}
    shown = {
        form
        for name in names
        for form in (name, ascii(name)[1:-1], os.fsencode(name).decode("utf-8", "backslashreplace"))
    }
    if not any(name in text for name in shown):
        raise Defect(f"the file is not named: {text}")
    private = [value for key, value in PRIVATE.items() if "Time" not in key and value in text]
    if private:
        raise Defect(f"the message gives away {private}: {text}")
    if not error.what.strip() or len(text) > 4000:
        raise Defect(f"the message is empty or endless ({len(text)} characters): {text[:200]}")
    text.encode("utf-8", "surrogateescape")
    return text
