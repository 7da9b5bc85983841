"""NIfTI (.nii, .nii.gz; .hdr with .img beside it; NIfTI-1 and -2), through nibabel.

The affine is nibabel's choice: the sform if its code is set, else the qform, else only the pixel sizes. It is then
converted from RAS to LPS, from the header's unit to mm, and from stored (x, y, z) to array order (z, y, x). Where sform
and qform disagree, other programs may choose the qform.

Stored values are scaled by the header's slope and intercept. Integers stay integers if both are whole numbers; NaN is
kept. A fourth axis holds channels (as in the Medical Segmentation Decathlon); RGB voxels are three channels.
"""

from __future__ import annotations

import gzip
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from cpfnet.errors import FormatError, OutputError
from cpfnet.formats.file_types import Header, check_expansion, decoding, exact_labels
from cpfnet.image import RGB, Image, Segmentation, Source, geometry_difference, is_flat

# nibabel reports header repairs (a qfac of 0 …) and later errors on stderr, in the middle of progress bars.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", category=UserWarning, module="nibabel")

_TO_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # NIfTI codes of metre, millimetre, micrometre; 0 is taken for mm
_GZIP_LIMIT = 1032  # deflate cannot shrink data further than this
_FURTHEST = 2**26  # bytes before the voxels: header extensions hold some text, no gigabytes
_BEHIND = 2**16  # number of bytes behind the voxels that are read
_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def _swap(affine: np.ndarray) -> np.ndarray:
    """(x, y, z) → RAS from (depth, height, width) → LPS, and the reverse: it is the same exchange."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine[:, [2, 1, 0, 3]]


def _unpacked(path: Path) -> Any:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _voxels(path: Path) -> Path:
    """The file of the voxels: of a header (.hdr) the one beside it.

    Raises:
        FormatError: it is not there.
    """
    if path.suffix.lower() != ".hdr":
        return path
    beside = [path.with_suffix(suffix) for suffix in (".img", ".IMG", ".img.gz")]
    if found := next((file for file in beside if file.is_file()), None):
        return found
    raise FormatError(
        f"has no {beside[0].name} beside it, which holds its voxels", where=path, fix="copy it into the same folder"
    )


def files(path: Path) -> tuple[Path, ...]:
    """The header, and the file of its voxels, if that is another one."""
    return tuple(dict.fromkeys((path, _voxels(path))))


def _raw(path: Path) -> Any:
    """The header as stored: nibabel would silently change a voxel size of zero into 1 mm."""
    with _unpacked(path) as file:
        start = file.read(nibabel.Nifti2Header.sizeof_hdr)
    kind = nibabel.Nifti2Header if start[4:8] in (b"n+2\0", b"ni2\0") else nibabel.Nifti1Header
    return kind(start[: kind.sizeof_hdr], check=False)


def _open(path: Path) -> Any:
    raw = _raw(path)
    if bytes(raw["magic"])[:3] in (b"n+1", b"n+2", b"ni1") and not raw["vox_offset"] <= _FURTHEST:
        raise FormatError(
            f"claims that its voxels begin at byte {raw['vox_offset']:g}; up to {_FURTHEST} is read",
            fix="save it again without header extensions",
        )
    second = isinstance(raw, nibabel.Nifti2Header)
    pair = path.suffix.lower() == ".hdr"
    if pair and bytes(raw["magic"])[:3] not in (b"ni1", b"ni2"):
        if int(raw["sizeof_hdr"]) not in (348, 0x5C010000):  # in either byte order
            raise ValueError("it does not begin as one")
        raise FormatError(
            "is a header of ANALYZE, which does not say left from right",
            where=path,
            fix="convert it to NIfTI with a program that knows how it was made",
        )
    voxels = _voxels(path)
    # Not by name: nibabel looks for c0.nii where the file is c0.Nii.
    parts = {"image": nibabel.FileHolder(filename=str(voxels))}
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    if pair:
        kind = nibabel.Nifti2Pair if second else nibabel.Nifti1Pair
        parts["header"] = nibabel.FileHolder(filename=str(path))
    with np.errstate(invalid="ignore"):  # infinite positions; judged in _affine
        image = kind.from_file_map(parts, mmap=False)
    shape, dtype = image.shape, image.get_data_dtype()
    if not 2 <= len(shape) <= 5 or min(shape) < 1 or (len(shape) == 5 and shape[3] != 1):
        raise FormatError(
            f"has the shape {'×'.join(map(str, shape))}; expected (x, y), (x, y, z) or (x, y, z, channels)",
            where=path,
            fix="store one volume a file",
        )
    if dtype.kind == "c":
        raise FormatError("holds complex numbers", where=path, fix="store magnitude and phase as channels")
    size, expected = voxels.stat().st_size, math.prod(shape) * dtype.itemsize
    if expected > size * (_GZIP_LIMIT if voxels.suffix.lower() == ".gz" else 1):
        raise FormatError(
            f"is cut short: {'×'.join(map(str, shape))} voxels of {dtype} are {expected} bytes, the file has {size}",
            where=path,
            fix="copy or export the file again",
        )
    surplus = size - int(image.dataobj.offset) - expected
    if voxels.suffix.lower() != ".gz" and surplus > 0:  # compressed files are checked at the end of reading
        raise _too_long(image, f"{surplus} bytes stand behind them", path)
    sizes = np.asarray(raw["pixdim"][1 : min(len(shape), 3) + 1], dtype=float)
    if not raw["sform_code"] and (not np.isfinite(sizes).all() or (sizes <= 0).any()):
        raise FormatError(
            f"has the voxel size {sizes.tolist()} mm", where=path, fix="correct pixdim in its header, or set an sform"
        )
    return image


def _stored(image: Any, path: Path) -> np.ndarray:
    """The voxels before scaling. No bytes may follow them; reading to the end also checks gzip's checksum."""
    proxy = image.dataobj
    spec = (image.shape, image.get_data_dtype(), proxy.offset, 1.0, 0.0)
    with _unpacked(_voxels(path)) as file:
        array = nibabel.arrayproxy.ArrayProxy(file, spec, mmap=False).get_unscaled()
        if surplus := file.read(_BEHIND):
            more = "" if len(surplus) < _BEHIND else " or more"
            raise _too_long(image, f"{len(surplus)}{more} bytes stand behind them", path)
    return array


def _too_long(image: Any, what: str, path: Path) -> FormatError:
    """The error for surplus bytes: they shift all voxels behind them, and nobody knows where they were inserted."""
    shape, dtype = "×".join(map(str, image.shape)), image.get_data_dtype()
    return FormatError(
        f"is longer than its header says: {shape} voxels of {dtype}, and {what}, so that they may be shifted",
        where=path,
        fix="copy or export the file again; if it is whole in a viewer, save it anew from there",
    )


def _affine(image: Any) -> np.ndarray:
    finite = np.isfinite(image.affine).all()
    affine = _swap(np.where(finite, image.affine, 0))
    affine[:3] *= _TO_MM.get(int(image.header["xyzt_units"]) & 7, 1.0)
    if not finite or is_flat(affine):
        raise FormatError(
            f"its affine is not finite or has no volume: {image.affine.tolist()}",
            fix="correct sform, qform and pixdim in its header",
        )
    return affine


def _scaled_dtype(stored: np.dtype, slope: float, inter: float) -> np.dtype:
    """The dtype that holds ``stored · slope + inter``, known from the header alone."""
    if (slope, inter) == (1.0, 0.0):
        return np.dtype(np.float64) if stored.kind == "f" and stored.itemsize > 8 else stored.newbyteorder("=")
    if stored.kind in "iu" and float(slope).is_integer() and float(inter).is_integer():
        ends = [int(end) * int(slope) + int(inter) for end in (np.iinfo(stored).min, np.iinfo(stored).max)]
        limits = np.iinfo(np.int32)
        if limits.min <= min(ends) and max(ends) <= limits.max:
            return np.dtype(np.int32)
    return np.dtype(np.float64 if stored.itemsize > 4 else np.float32)


def _header(image: Any) -> Header:
    shape, stored = image.shape, image.get_data_dtype()
    planes = (*shape, 1)[:3][::-1]
    if stored.names:
        return Header(planes, _affine(image), RGB, np.dtype(np.uint8))
    channels = tuple(f"channel{i}" for i in range(shape[-1] if len(shape) > 3 else 1))
    return Header(planes, _affine(image), channels, _scaled_dtype(stored, image.dataobj.slope, image.dataobj.inter))


def read_header(path: Path) -> Header:
    """Geometry, channels and dtype without the voxels."""
    with decoding(path):
        return _header(_open(path))


def read(path: Path) -> Image:
    """``(channels, depth = z, height = y, width = x)``; a single slice keeps a depth of 1."""
    with decoding(path):
        image = _open(path)
        header = _header(image)
        voxels = math.prod(header.shape) * len(header.channels)
        decoded = math.prod(image.shape) * image.get_data_dtype().itemsize
        same = image.get_data_dtype() == header.dtype
        check_expansion(
            _voxels(path).stat().st_size, decoded, decoded + (0 if same else voxels * header.dtype.itemsize)
        )
        stored = _stored(image, path)
        slope, inter = image.dataobj.slope, image.dataobj.inter
        if stored.dtype.names:
            if math.prod(image.shape) != math.prod(header.shape):
                raise FormatError("has colour voxels and a fourth axis", fix="store one volume a file")
            stored = np.stack([stored[name] for name in "RGB"], axis=-1)
        array = stored.reshape(*header.shape[::-1], len(header.channels)).T
        if (slope, inter) != (1.0, 0.0):
            # In float64, so that values are rounded to float32 once, at the end; plane by plane, to save memory.
            scaled = np.empty(array.shape, header.dtype)
            for plane, values in zip(
                scaled.reshape(-1, *array.shape[-2:]), array.reshape(-1, *array.shape[-2:]), strict=True
            ):
                plane[...] = values.astype(np.float64) * float(slope) + float(inter)
            array = scaled
        array = np.require(array, header.dtype, ["C", "W"])
        details = {"header": image.header.copy(), "shape": image.shape[:3], "affine": header.affine}
        return Image(array, header.affine, header.channels, source=Source(files(path), "nifti", details))


def _save(array: np.ndarray, segmentation: Segmentation, path: Path, where: Path, intent: str) -> None:
    """Write ``([depth,] height, width[, planes])``, voxels possibly RGB, with the header geometry of the source."""
    source, spatial = segmentation.source, segmentation.array.shape
    stored = array.reshape(*(1, *spatial)[-3:], *array.shape[len(spatial) :]).swapaxes(0, 2)
    if source is not None and source.format == "nifti" and _same_grid(segmentation, source):
        header = source.details["header"].copy()
        header.extensions.clear()  # may hold the patient's data, and belong to the image
        if array.ndim == len(spatial):
            stored = stored.reshape(source.details["shape"])
        affine = None  # keeps sform, qform, their codes and pixdim
    else:
        if segmentation.affine is None and len(spatial) == 3:
            raise OutputError(
                f"a label map of {'×'.join(map(str, spatial))} without an affine cannot be placed in the patient",
                where=where,
                fix="keep the `affine` of the image in the Segmentation",
            )
        header = nibabel.Nifti1Header()
        header.set_xyzt_units("mm")
        # A picture without millimetres: one pixel becomes 1 mm, and viewers show it upright.
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) if segmentation.affine is None else _swap(segmentation.affine)
        header.set_qform(affine, code="unknown")
        header.set_sform(affine, code="aligned" if segmentation.affine is None else "scanner")
    header.set_data_dtype(stored.dtype)
    header.set_intent(intent)
    header["cal_min"] = header["cal_max"] = 0
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    nibabel.save(kind(stored, affine, header), path)


def _same_grid(segmentation: Segmentation, source: Source) -> bool:
    shape = (*source.details["shape"], 1)[:3][::-1]
    difference = geometry_difference(segmentation.array.shape, segmentation.affine, shape, source.details["affine"])
    return difference is None


def write(segmentation: Segmentation, path: Path, *, where: Path) -> None:
    """The label map in the source's shape, axis order, sform and qform; colours become RGB voxels."""
    array = exact_labels(segmentation.array, where)
    if array.ndim > segmentation.array.ndim:
        array = np.ascontiguousarray(array).view(_RGB)[..., 0]
    _save(array, segmentation, path, where, "label")


def write_image(image: Image, path: Path, *, where: Path) -> None:
    """The values with a new header, which holds the geometry and nothing else of the source."""
    array = np.moveaxis(image.array, 0, -1) if len(image.array) > 1 else image.array[0]
    _save(array, Segmentation(image.array[0], image.affine), path, where, "none")


def write_map(
    array: np.ndarray, segmentation: Segmentation, path: Path, names: tuple[str, ...], *, where: Path
) -> None:
    """float32 planes along a fourth axis; a single plane has three axes. NIfTI has no place for their names."""
    _save(np.moveaxis(array, 0, -1) if len(array) > 1 else array[0], segmentation, path, where, "none")


def read_map(path: Path) -> np.ndarray:
    """``(planes, depth, height, width)``."""
    return read(path).array
