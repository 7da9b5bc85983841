"""From pixel data to values: decoding, unused bits, MONOCHROME1, rescaling, padding and colour.

Sources: DICOM PS3.3, C.7.6.3 and C.11.1. Decoders are pydicom's: NumPy and Pillow read uncompressed, RLE, deflated and
8-bit JPEG objects; others need the plug-ins of ``cpfnet[dicom]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut

from cpfnet.errors import CpfnetError, FormatError, redacted_message
from cpfnet.formats.dicom.attributes import quiet, text
from cpfnet.formats.dicom.image.datasets import Archives, read_object
from cpfnet.formats.dicom.image.functional_groups import Frame
from cpfnet.formats.dicom.image.pixel_description import GREY, Storage, check_declared_size, refuse_surplus, storage_of
from cpfnet.formats.dicom.image.slice_stack import Stack, size_of
from cpfnet.formats.dicom.image.transfer_syntax import check_codestreams, decoder_of, syntax_of, undecodable
from cpfnet.image import RGB

_LARGEST = 1e27
"""Of slope and intercept: 32 stored bits times this still fit into float32."""


@dataclass(frozen=True)
class Values:
    """The values that the pixels of a stack become.

    Attributes:
        colour: three channels red, green, blue uint8; else one.
        dtype: of the array.
        unit: ``"HU"``, another RescaleType or PET's Units, or "".
        warnings: messages about what was assumed.
        numbers: values are those of labels, not of measurements: no padding is replaced.
    """

    colour: bool
    dtype: np.dtype
    unit: str
    warnings: tuple[str, ...]
    numbers: bool = False

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return RGB if self.colour else ("channel0",)


def _scale(frame: Frame) -> tuple[float, float]:
    slope, intercept = frame.number_or("RescaleSlope", 1.0), frame.number_or("RescaleIntercept", 0.0)
    if slope == 0:
        raise FormatError(f"RescaleSlope of {frame.name} is 0", fix="correct the attribute, or export the series again")
    if not max(abs(slope), abs(intercept)) < _LARGEST:
        raise FormatError(
            f"RescaleSlope {slope:g} and RescaleIntercept {intercept:g} of {frame.name} lead beyond all values",
            fix="correct the attributes, or export the series again",
        )
    return slope, intercept


def _table(frame: Frame) -> bool:
    """Are its values looked up in a table rather than rescaled?"""
    return bool(frame.object.header.get("ModalityLUTSequence"))


def values_of(stack: Stack, *, numbers: bool = False) -> Values:
    """The values that the pixels of ``stack`` become, as the headers describe them.

    Args:
        stack: the slices.
        numbers: as in `Values`.

    Integers stay integers if slopes and intercepts are whole numbers (in the stored dtype if these change nothing, else
    int16 or int32); otherwise they become float32.

    Raises:
        FormatError: a header promises something impossible, something that its file cannot hold,
            or something unsupported.
    """
    objects = {id(frame.object): frame for frame in stack.frames}
    storages = {key: storage_of(frame) for key, frame in objects.items()}
    for key, frame in objects.items():
        check_declared_size(frame, storages[key])
    first = stack.frames[0]
    kinds = {storage.photometric not in GREY for storage in storages.values()}
    if len(kinds) > 1:
        raise FormatError("its slices are partly grey, partly coloured", fix="put each kind into a folder of its own")
    if kinds == {True}:
        return Values(True, np.dtype(np.uint8), "", ())
    scales = {(id(frame.object), *_scale(frame)) for frame in stack.frames}
    ends = [slope * end + intercept for key, slope, intercept in scales for end in storages[key].limits]
    whole = all(slope.is_integer() and intercept.is_integer() for _, slope, intercept in scales)
    modality = text(first.object.header, "Modality")
    units = {str(frame.value("RescaleType") or "") for frame in stack.frames} - {""}
    unit = text(first.object.header, "Units") or (units.pop() if len(units) == 1 else "")
    warnings = []
    if modality == "CT":
        unit = unit or "HU"
        if any(frame.value("RescaleIntercept") is None for frame in stack.frames) and not any(
            map(_table, stack.frames)
        ):
            warnings.append("CT without RescaleSlope and RescaleIntercept: stored values are taken for HU")
    if any(_inverted(storage, "") != _inverted(storage, unit) for storage in storages.values()):
        warnings.append("MONOCHROME1, which tells how to show it: HU were not turned over")
    if (presentation := text(first.object.header, "PixelPresentation")) in ("COLOR", "MIXED"):
        warnings.append(f"PixelPresentation is {presentation}: values that stand for colours are read as greys")
    changed = {(slope, intercept) for _, slope, intercept in scales} != {(1.0, 0.0)}
    stored = {(storage.signed, max(storage.allocated, 8)) for storage in storages.values()}
    if any(map(_table, stack.frames)) or not whole:
        dtype = np.dtype(np.float32)
    elif not changed and len(stored) == 1:
        ((signed, bits),) = stored
        dtype = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    else:
        fits = [d for d in ("int16", "int32") if np.iinfo(d).min <= min(ends) and max(ends) <= np.iinfo(d).max]
        dtype = np.dtype(fits[0] if fits else "float32")
    return Values(False, dtype, unit, tuple(warnings), numbers)


def _bits(packed: bytes, frames: Sequence[Frame]) -> Iterator[np.ndarray]:
    """Frames of one bit a pixel, packed without gaps (PS3.5, 8.1.1): frames may begin inside a byte, where pydicom
    loses pixels."""
    rows, columns = size_of(frames[0])
    for frame in frames:
        byte, bit = divmod(frame.number * rows * columns, 8)
        end = byte + math.ceil((bit + rows * columns) / 8)
        if end > len(packed):
            raise FormatError(
                f"{frame.name} has pixels up to byte {end}, and there are {len(packed)}", fix="copy or export it again"
            )
        bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8)[byte:end], bitorder="little")
        yield bits[bit : bit + rows * columns].reshape(rows, columns)


def stored_values(header: pydicom.Dataset, frames: Sequence[Frame], storage: Storage) -> Iterator[np.ndarray]:
    """Stored values of frames of one object, ``(rows, columns[, 3])``, colours as RGB."""
    dicom_object = frames[0].object
    if not hasattr(header, "PixelData"):
        if hasattr(header, "FloatPixelData") or hasattr(header, "DoubleFloatPixelData"):
            raise FormatError(
                f"{dicom_object.name} holds floating-point pixels, as parametric maps do",
                fix="export it as an image or NIfTI",
            )
        raise FormatError(f"{dicom_object.name} has no pixel data", fix="copy or export it again")
    decoder, plugin = decoder_of(dicom_object)
    if storage.allocated == 1 and not plugin:
        yield from _bits(header.PixelData, frames)
        return
    header.file_meta.TransferSyntaxUID = syntax_of(header)
    if plugin:
        check_codestreams(header, dicom_object.name)
    shifted = storage.high != storage.stored - 1
    arrays = decoder.iter_array(
        header,
        indices=[frame.number for frame in frames],
        raw=False,
        decoding_plugin=plugin,
        correct_unused_bits=not shifted,
    )
    for array, _ in arrays:
        if shifted:
            values = array.view(f"u{array.dtype.itemsize}") >> (storage.high + 1 - storage.stored)
            unused = 8 * array.dtype.itemsize - storage.stored
            array = (values << unused).view(array.dtype) >> unused
        yield array


def _padding(frame: Frame, storage: Storage) -> tuple[int, int] | None:
    """The range of stored values that mean "no measurement" (PS3.3, C.7.5.1.1.2); None if there is none."""
    if (value := frame.numbers("PixelPaddingValue", 1)) is None:
        return None
    ends = [int(value[0]), int(frame.number_or("PixelPaddingRangeLimit", float(value[0])))]
    # Some writers give a negative value as its unsigned bits, and the reverse.
    span = 2**storage.allocated
    low, high = (-(span // 2), span // 2) if storage.signed else (0, span)
    ends = [end - span if end >= high else end + span if end < low else end for end in ends]
    return min(ends), max(ends)


def _inverted(storage: Storage, unit: str) -> bool:
    """Are values inverted, so that what is shown bright is large? MONOCHROME1 says how to show them; HU stay HU."""
    return storage.photometric == "MONOCHROME1" and unit != "HU"


def _grey(array: np.ndarray, frame: Frame, storage: Storage, values: Values) -> tuple[np.ndarray, np.ndarray | None]:
    """Values of one frame, and where they are padding."""
    dtype, inverted = values.dtype, _inverted(storage, values.unit)
    ends = None if values.numbers else _padding(frame, storage)
    padded = None if ends is None else (array >= ends[0]) & (array <= ends[1])
    if _table(frame):
        header = frame.object.header
        looked_up = apply_modality_lut(array, header).astype(dtype)
        bits = int(header.ModalityLUTSequence[0].LUTDescriptor[2])
        return 2**bits - 1 - looked_up if inverted else looked_up, padded
    if inverted:
        array = np.subtract(sum(storage.limits), array, dtype=np.int64)
    slope, intercept = _scale(frame)
    if (slope, intercept) == (1.0, 0.0):
        return array.astype(dtype, copy=False), padded
    # In float64 or int64, so that values are rounded once, at the end.
    if dtype.kind == "i":
        return (array.astype(np.int64) * int(slope) + int(intercept)).astype(dtype), padded
    return (array * np.float64(slope) + intercept).astype(dtype), padded


def _rgb(array: np.ndarray, header: pydicom.Dataset, storage: Storage) -> np.ndarray:
    if storage.photometric == "PALETTE COLOR":
        low, high = storage.limits
        every = apply_color_lut(np.arange(low, high + 1), header)[..., :3]
        array = apply_color_lut(array, header)[..., :3]
        if every.max() > 255:  # else, by a common mistake, a table of 16-bit entries holds 8 bits
            array = array >> 8
    return array.astype(np.uint8)


def decode(stack: Stack, values: Values, archives: Archives) -> np.ndarray:
    """``(channels, [depth,] height, width)`` in the dtype of ``values``.

    Padding becomes the smallest value measured anywhere in the image.

    Raises:
        FormatError: pixel data are damaged, cut short, or compressed in a way that no installed decoder supports.
    """
    shape = (len(stack.frames), *size_of(stack.frames[0]))
    array = np.empty((len(values.channels), *shape), dtype=values.dtype)
    padded: dict[int, np.ndarray] = {}
    smallest: list[Any] = []
    places = sorted(enumerate(stack.frames), key=lambda item: (item[1].object.name, id(item[1].object)))
    for _, group in groupby(places, key=lambda item: id(item[1].object)):
        members = sorted(group, key=lambda item: item[1].number)
        frames = [frame for _, frame in members]
        dicom_object = frames[0].object
        try:
            with quiet():
                storage = storage_of(frames[0])
                whole = read_object(dicom_object.location, archives, pixels=True)
                if whole is None:
                    raise FormatError("changed while it was read")
                refuse_surplus(frames[0], storage, len(whole.header.get("PixelData", b"")))
                decoded = stored_values(whole.header, frames, storage)
                for (index, frame), plane in zip(members, decoded, strict=True):
                    if values.colour:
                        array[:, index] = np.moveaxis(_rgb(plane, whole.header, storage), -1, 0)
                        continue
                    array[0, index], mask = _grey(plane, frame, storage, values)
                    if mask is None or not mask.any():
                        smallest.append(array[0, index].min())
                        continue
                    padded[index] = mask
                    if not mask.all():
                        smallest.append(array[0, index][~mask].min())
        except CpfnetError:
            raise
        except MemoryError:
            raise FormatError("does not fit into memory", fix="free memory") from None
        except Exception as error:  # decoders raise anything on damaged bytes
            raise undecodable(dicom_object.name, dicom_object.header, redacted_message(error)) from error
    if smallest:
        for index, mask in padded.items():
            array[0, index][mask] = min(smallest)
    return array if stack.affine is not None else array[:, 0]
