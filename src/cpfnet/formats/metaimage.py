"""MetaImage (.mha; .mhd with its voxels beside it), the format of ITK, read and written without another package.

The header is lines ``Key = Value`` and ends with ``ElementDataFile``; its definition:
https://itk.org/Wiki/MetaIO/Documentation. Directions and positions are LPS, as in ITK. What says of itself that the
patient lies otherwise (AnatomicalOrientation) counts in ITK for nothing, and here for a message.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cpfnet.errors import FormatError, OutputError
from cpfnet.formats.file_types import Header, decoding, exact_labels
from cpfnet.formats.raw_voxels import StoredVoxels, data_file, planes
from cpfnet.image import Image, Segmentation, Source, is_flat

_LONGEST = 2**16  # bytes of a header
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_WRITTEN = {code: name for name, code in _TYPES.items() if name not in ("MET_LONG", "MET_ULONG")}
_ALIASES = {
    "rotation": "transformmatrix",
    "orientation": "transformmatrix",
    "position": "offset",
    "origin": "offset",
}
_LPS = "RAI"  # MetaImage names the side that an axis comes from
_RECTANGULAR = 1e-4  # rounding of a DICOM header; a gantry tilt of a degree is 0.017
_AGAIN = "export it again, from the program that wrote it"


@dataclass(frozen=True)
class Layout:
    """What a header says of its image.

    Attributes:
        voxels: where they are.
        channels: their axis in ``voxels.shape``; None: there is one channel.
        affine: of a volume, where it has millimetres.
        plane: the header lines that place a picture.
        warnings: what was assumed.
    """

    voxels: StoredVoxels
    channels: int | None
    affine: np.ndarray | None
    plane: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def header(self) -> Header:
        """As `read_header` gives it."""
        shape = tuple(n for axis, n in enumerate(self.voxels.shape) if axis != self.channels)
        count = 1 if self.channels is None else self.voxels.shape[self.channels]
        names = tuple(f"channel{i}" for i in range(count))
        return Header(shape, self.affine, names, self.voxels.dtype.newbyteorder("="))


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's values by their names in lower case, and the bytes up to the voxels."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while line := file.readline(_LONGEST):
            name, equals, value = line.decode("utf-8", "replace").partition("=")
            key = name.strip().lower()
            if not fields and key not in ("objecttype", "ndims", "comment", "objectsubtype"):
                raise ValueError("it does not begin as one")
            if not line.strip():
                continue
            if not equals or file.tell() > _LONGEST:
                raise FormatError(f"has a header line that is not understood: {name.strip():.80}", fix=_AGAIN)
            key = _ALIASES.get(key, key)
            if key in fields:
                raise FormatError(f"says {name.strip()!r} twice in its header", fix=_AGAIN)
            fields[key] = value.strip()
            if key == "elementdatafile":
                return fields, file.tell()
    raise FormatError("its header does not say 'ElementDataFile'", fix=_AGAIN)


def _numbers(fields: dict[str, str], key: str, count: int) -> np.ndarray | None:
    if key not in fields:
        return None
    try:
        values = np.array([float(word) for word in fields[key].split()])
    except ValueError:
        raise FormatError(f"its {key} are no numbers: {fields[key]:.80}", fix=_AGAIN) from None
    if len(values) != count:
        raise FormatError(f"gives {len(values)} numbers as {key}; expected are {count}", fix=_AGAIN)
    return values


def _integer(fields: dict[str, str], key: str, default: int) -> int:
    value = fields.get(key, str(default))
    if not re.fullmatch(r"[-+]?\d{1,18}", value):
        raise FormatError(f"its {key} is no integer: {value:.80}", fix=_AGAIN)
    return int(value)


def _flag(fields: dict[str, str], key: str) -> bool:
    return fields.get(key, "").lower() in ("true", "1", "t", "y", "yes")


def _layout(path: Path) -> Layout:
    """What the header says, checked.

    Raises:
        FormatError: it says too little or what cannot be, or its voxels are not what it says.
    """
    fields, end = _fields(path)
    if missing := [key for key in ("ndims", "dimsize", "elementtype") if key not in fields]:
        raise FormatError(f"its header does not say {missing[0]!r}", fix=_AGAIN)
    if (kind := fields.get("objecttype", "Image").lower()) != "image":
        raise FormatError(f"holds a {kind:.40}, not an image", fix="give the image")
    axes, channels = _integer(fields, "ndims", 0), _integer(fields, "elementnumberofchannels", 1)
    sizes = [int(n) if n.isdecimal() else 0 for n in fields["dimsize"].split()]
    if len(sizes) != axes or min(sizes, default=0) < 1 or channels < 1:
        raise FormatError(f"has {axes} axes of the sizes {fields['dimsize']:.80}, {channels} channels", fix=_AGAIN)
    if axes not in (2, 3, 4) or (axes == 4 and channels > 1):
        raise FormatError(
            f"has {axes} axes and {channels} channels; expected are (x, y), (x, y, z) or (x, y, z, channels)",
            fix="store one image a file",
        )
    shape = (*sizes[::-1], channels) if channels > 1 else tuple(sizes[::-1])
    voxels = _voxels(path, fields, shape, end)
    for key, nothing in (("slope", 1.0), ("offset", 0.0)):
        scale = _numbers(fields, f"elementtointensityfunction{key}", 1)
        if scale is not None and scale[0] != nothing:
            raise FormatError(f"scales its values ({scale[0]:g}), which ITK leaves out", fix="save the scaled values")
    moved = channels > 1 or not voxels.dtype.isnative or voxels.encoding == "text"
    voxels.check(copies=1 + moved)
    axis = axes if channels > 1 else 0 if axes == 4 else None
    if axes == 2:
        kept = (("transformmatrix", "TransformMatrix"), ("offset", "Offset"), ("elementspacing", "ElementSpacing"))
        return Layout(voxels, axis, None, tuple(f"{name} = {fields[key]}" for key, name in kept if key in fields))
    return Layout(voxels, axis, *_placed(fields, axes))


def _placed(fields: dict[str, str], axes: int) -> tuple[np.ndarray | None, tuple[str, ...], tuple[str, ...]]:
    """The affine, no lines of a picture, and what was assumed."""
    spacing = _numbers(fields, "elementspacing", axes)
    if spacing is None:
        spacing = _numbers(fields, "elementsize", axes)
    if spacing is None:
        lost = "its header gives no ElementSpacing: its Offset and TransformMatrix are left out"
        return None, (), (lost,) if {"offset", "transformmatrix"} & fields.keys() else ()
    matrix, offset = _numbers(fields, "transformmatrix", axes * axes), _numbers(fields, "offset", axes)
    warnings = []
    if matrix is None and fields.get("anatomicalorientation", _LPS).upper() not in (_LPS, "???", ""):
        warnings.append(
            f"its AnatomicalOrientation {fields['anatomicalorientation']!r:.20} has no matrix (TransformMatrix): "
            "axes are taken as left, posterior, superior, as ITK does"
        )
    if offset is None:
        warnings.append("its header gives no position (Offset): taken as 0, 0, 0")
        offset = np.zeros(axes)
    turn = np.eye(3) if matrix is None else matrix.reshape(axes, axes)[:3, :3].T  # a row for each axis
    unit = fields.get("distanceunits", "").lower()
    if unit not in ("", "?", "mm"):
        raise FormatError(f"its DistanceUnits are {unit!r:.40}, which ITK takes for mm", fix="save it in mm")
    affine = np.eye(4)
    with np.errstate(invalid="ignore", over="ignore"):
        affine[:3, :3], affine[:3, 3] = (turn * spacing[:3])[:, ::-1], offset[:3]
    if not np.isfinite(affine).all() or is_flat(affine) or (spacing <= 0).any():
        raise FormatError(
            f"its affine is not finite or has no volume: {affine.tolist()}",
            fix="correct TransformMatrix, Offset and ElementSpacing in its header",
        )
    return affine + 0.0, (), tuple(warnings)  # without negative zeros


def _voxels(path: Path, fields: dict[str, str], shape: tuple[int, ...], end: int) -> StoredVoxels:
    kind = fields["elementtype"].upper().removesuffix("_ARRAY")
    if kind not in _TYPES:
        raise FormatError(f"holds voxels of type {kind!r:.40}, which are not read", fix="save it as numbers")
    big = _flag(fields, "binarydatabyteordermsb") or _flag(fields, "elementbyteordermsb")
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if big else "<")
    name, place, offset = fields["elementdatafile"], path, end
    if name.upper().split(" ")[0] == "LIST" or re.search(r"%\d*d", name):
        raise FormatError("has its voxels in several files", fix="save it as one file, .mha")
    if name.upper() != "LOCAL":
        place, offset = data_file(path, name), 0
    if not _flag({"binarydata": "True"} | fields, "binarydata"):
        return StoredVoxels(place, offset, shape, dtype, "text")
    found = StoredVoxels(place, offset, shape, dtype, "zlib" if _flag(fields, "compresseddata") else "raw")
    before = _integer(fields, "headersize", 0)
    if before == -1 and found.encoding == "raw":  # the voxels end where the file ends
        return replace(found, offset=max(offset, place.stat().st_size - found.size))
    if before < 0:
        raise FormatError(f"has a HeaderSize of {before}", fix=_AGAIN)
    return replace(found, offset=offset + before)


def read_header(path: Path) -> Header:
    """Geometry, channels and dtype without the voxels."""
    with decoding(path):
        return _layout(path).header


def files(path: Path) -> tuple[Path, ...]:
    """The header, and the file of its voxels, if that is another one."""
    with decoding(path):
        return tuple(dict.fromkeys((path, _layout(path).voxels.path)))


def read(path: Path) -> Image:
    """``(channels, [depth,] height, width)``; a picture has no affine, and a volume without voxel size has none."""
    with decoding(path):
        found = _layout(path)
        array = planes(found.voxels.read(), found.channels)
        paths = tuple(dict.fromkeys((path, found.voxels.path)))
        source = Source(paths, "metaimage", {"plane": found.plane}, found.warnings)
        return Image(array, found.affine, found.header.channels, source=source)


def _written(numbers: np.ndarray) -> str:
    return " ".join(repr(float(number)) for number in numbers)


def _place(segmentation: Segmentation, where: Path) -> list[str]:
    """The lines that place a mask or map: from its affine, or as its picture was."""
    source, affine = segmentation.source, segmentation.affine
    if affine is not None:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        turn = (affine[:3, :3] / spacing)[:, ::-1]
        if abs(turn.T @ turn - np.eye(3)).max() > _RECTANGULAR:
            raise OutputError(
                "has axes that are not at right angles, which ITK does not read", where=where, fix="write it as .nii.gz"
            )
        return [
            f"TransformMatrix = {_written(turn.T.ravel())}",
            f"Offset = {_written(affine[:3, 3])}",
            f"ElementSpacing = {_written(spacing[::-1])}",
        ]
    same = source is not None and source.format == "metaimage" and segmentation.array.ndim == 2
    return list(source.details["plane"]) if same and source is not None else []


def _save(array: np.ndarray, lines: list[str], path: Path, channels: int = 1) -> None:
    """Write ``([depth,] height, width[, channels])``."""
    sizes = array.shape[:-1] if channels > 1 else array.shape
    packed = zlib.compress(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data, 1)
    head = [
        "ObjectType = Image",
        f"NDims = {len(sizes)}",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {len(packed)}",
        *lines,
        f"DimSize = {' '.join(map(str, sizes[::-1]))}",
        *([f"ElementNumberOfChannels = {channels}"] if channels > 1 else []),
        f"ElementType = {_WRITTEN[array.dtype.newbyteorder('=').str[1:]]}",
        "ElementDataFile = LOCAL",
    ]
    path.write_bytes(("\n".join(head) + "\n").encode() + packed)


def write(segmentation: Segmentation, path: Path, *, where: Path) -> None:
    """The label map where its image lies."""
    array = exact_labels(segmentation.array, where)
    if array.ndim > segmentation.array.ndim:
        raise OutputError("colours cannot be told from channels in MetaImage", where=where, fix="write it as nrrd")
    _save(array, _place(segmentation, where), path)


def write_image(image: Image, path: Path, *, where: Path) -> None:
    """The values with a new header, which holds the geometry and nothing else of the source."""
    if image.array.dtype.newbyteorder("=").str[1:] not in _WRITTEN:
        raise OutputError(f"{image.array.dtype} does not fit into MetaImage", where=where, fix="write it as .nii.gz")
    _planes(image.array, Segmentation(np.zeros(image.shape, np.uint8), image.affine, image.source), path, where)


def write_map(
    array: np.ndarray, segmentation: Segmentation, path: Path, names: tuple[str, ...], *, where: Path
) -> None:
    """float32 planes as channels. MetaImage has no place for their names."""
    _planes(array, segmentation, path, where)


def _planes(array: np.ndarray, segmentation: Segmentation, path: Path, where: Path) -> None:
    lines = _place(segmentation, where)
    _save(np.moveaxis(array, 0, -1) if len(array) > 1 else array[0], lines, path, len(array))


def read_map(path: Path) -> np.ndarray:
    """``(planes, [depth,] height, width)``."""
    return read(path).array
