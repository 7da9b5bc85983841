"""NRRD (.nrrd; .nhdr with its voxels beside it), the format of 3D Slicer, read and written without another package.

The header is text: fields (``sizes: 3 4 5``) and pairs of a key and a value (``Segment0_Name:=liver``), in UTF-8. Its
definition: http://teem.sourceforge.net/nrrd/format.html. Axes are those with a direction in space, slowest last; one
further axis holds channels, wherever it stands.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cpfnet.errors import FormatError, OutputError
from cpfnet.formats.file_types import Header, decoding, exact_labels
from cpfnet.formats.raw_voxels import Encoding, StoredVoxels, data_file, planes
from cpfnet.image import RGB, Image, Segmentation, Source, is_flat

_LONGEST = 2**22  # bytes of a header: Slicer's have some kilobytes a segment
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: np.dtype(code) for code, names in _TYPES.items() for name in names}
_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw",
    **dict.fromkeys(("gz", "gzip"), "gzip"),
    **dict.fromkeys(("bz2", "bzip2"), "bzip2"),
    **dict.fromkeys(("txt", "text", "ascii"), "text"),
}
_LPS, _AS_LPS = np.eye(3), "how its axes lie in the patient is not said: taken as left, posterior, superior"
_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), _LPS),
    **dict.fromkeys(("right-anterior-superior", "ras"), np.diag([-1.0, -1.0, 1.0])),
    **dict.fromkeys(("left-anterior-superior", "las"), np.diag([1.0, -1.0, 1.0])),
}
_BARE_SPACES = ("3d-right-handed", "3dr", "3d-left-handed", "3dl", "scanner-xyz")
_TO_MM = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "µm": 1e-3}
_SPATIAL = ("domain", "space")
_COLOURS = {"rgb-color": 3, "rgba-color": 4}
_NONE = ("none", "???")
_AGAIN = "export it again, from the program that wrote it"


@dataclass(frozen=True)
class Text:
    """The text of a header.

    Attributes:
        fields: by their names in lower case without blanks (both ``data file`` and ``datafile`` are allowed).
        pairs: keys and values.
        end: bytes up to the voxels.
    """

    fields: dict[str, str]
    pairs: dict[str, str]
    end: int


@dataclass(frozen=True)
class Layout:
    """What a header says of its image.

    Attributes:
        voxels: where they are.
        channels: their axis in ``voxels.shape``; None: there is one channel.
        names: of the channels as they are read.
        affine: of a volume, where it has millimetres.
        alpha: the last channel is one.
        plane: the header lines that place a picture, as they stand.
        warnings: what was assumed.
    """

    voxels: StoredVoxels
    channels: int | None
    names: tuple[str, ...]
    affine: np.ndarray | None
    alpha: bool = False
    plane: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial, slowest first."""
        return tuple(n for axis, n in enumerate(self.voxels.shape) if axis != self.channels)


def text_of(path: Path) -> Text:
    """The header's lines, taken apart.

    Raises:
        FormatError: it is no NRRD, or a line is not understood.
    """
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    with path.open("rb") as file:
        if not re.match(rb"NRRD\d{4}\s*\n", file.readline(32)):
            raise ValueError("it does not begin as one")
        read = 0
        while line := file.readline(_LONGEST + 1):
            read += len(line)
            if read > _LONGEST:
                raise FormatError(f"has a header of more than {_LONGEST} bytes", fix=_AGAIN)
            words = line.decode("utf-8", "replace").rstrip()
            if not words:
                break
            if not words.startswith("#"):
                _add(words, fields, pairs)
        return Text(fields, pairs, file.tell())


def _add(line: str, fields: dict[str, str], pairs: dict[str, str]) -> None:
    name, colon, value = line.partition(":")
    if not colon:
        raise FormatError(f"has a header line without a colon: {line:.80}", fix=_AGAIN)
    if value.startswith("="):
        if name in pairs:
            raise FormatError(f"says {name!r:.80} twice in its header", fix=_AGAIN)
        pairs[name] = re.sub(r"\\([n\\])", lambda m: "\n" if m[1] == "n" else "\\", value[1:])
        return
    key = name.strip().lower().replace(" ", "")
    if key in fields:
        raise FormatError(f"says {name.strip()!r} twice in its header", fix=_AGAIN)
    fields[key] = value.strip()


def _numbers(text: str, what: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        raise FormatError(f"its {what} are no numbers: {text:.80}", fix=_AGAIN) from None


def _integer(fields: dict[str, str], name: str, default: int = 0) -> int:
    value = fields.get(name, str(default))
    if not re.fullmatch(r"[-+]?\d{1,18}", value):
        raise FormatError(f"its {name} is no integer: {value:.80}", fix=_AGAIN)
    return int(value)


def _vector(text: str) -> np.ndarray | None:
    if text in _NONE:
        return None
    return np.array(_numbers(text[1:-1].replace(",", " "), "vectors"))


def _vectors(text: str, what: str) -> list[np.ndarray | None]:
    """``none (1,0,0) (0,1,0)``; None for "none"."""
    parts = re.findall(r"\([^()]*\)|\S+", text)
    if any(not re.fullmatch(r"\([^()]*\)", part) and part not in _NONE for part in parts):
        raise FormatError(f"its {what} are no vectors: {text:.80}", fix=_AGAIN)
    return [_vector(part) for part in parts]


def _one_each(values: list[Any], axes: int, what: str) -> list[Any]:
    if len(values) != axes:
        raise FormatError(f"has {axes} axes and {len(values)} {what}", fix=_AGAIN)
    return values


def layout(path: Path, text: Text) -> Layout:
    """What the header says, checked.

    Raises:
        FormatError: it says too little or what cannot be, or its voxels are not what it says.
    """
    fields = text.fields
    if missing := [name for name in ("type", "dimension", "sizes", "encoding") if name not in fields]:
        raise FormatError(f"its header does not say {missing[0]!r}", fix=_AGAIN)
    axes = _integer(fields, "dimension")
    sizes = _one_each([int(n) if n.isdecimal() else 0 for n in fields["sizes"].split()], axes, "sizes")
    if min(sizes, default=0) < 1:
        raise FormatError(f"has the sizes {fields['sizes']:.80}", fix=_AGAIN)
    kinds = [
        kind.lower()
        for kind in _one_each(fields["kinds"].split() if "kinds" in fields else ["???"] * axes, axes, "kinds")
    ]
    directions = _directions(fields, axes)
    spatial = _spatial(kinds, directions, axes)
    others = [axis for axis in range(axes) if axis not in spatial]
    if len(spatial) not in (2, 3) or len(others) > 1:
        raise FormatError(
            f"has {len(spatial)} axes in space and {len(others)} others ({fields['sizes']}); expected are a picture or "
            "a volume, with one further axis for channels",
            fix="store one image a file",
        )
    kind = kinds[others[0]] if others else ""
    if kind == "complex":
        raise FormatError("holds complex numbers", fix="store magnitude and phase as channels")
    voxels = _voxels(path, text, tuple(sizes[::-1]))
    count = sizes[others[0]] if others else 1
    colour = kind in _COLOURS and count == _COLOURS[kind] and voxels.dtype == np.uint8
    affine, warnings = (
        _affine(fields, [directions[a] for a in spatial], spatial, axes) if len(spatial) == 3 else (None, ())
    )
    voxels.check(copies=1 + (bool(others) or not voxels.dtype.isnative or voxels.encoding == "text"))
    return Layout(
        voxels,
        axes - 1 - others[0] if others else None,
        RGB if colour else tuple(f"channel{i}" for i in range(count)),
        affine,
        colour and count == 4,
        _plane(fields, [directions[a] for a in spatial], spatial, axes) if len(spatial) == 2 else (),
        warnings,
    )


def _directions(fields: dict[str, str], axes: int) -> list[np.ndarray | None]:
    if "spacedirections" not in fields:
        return [None] * axes
    found = _one_each(_vectors(fields["spacedirections"], "space directions"), axes, "space directions")
    rows = [row for row in found if row is not None]
    if len({len(row) for row in rows}) > 1 or not all(np.isfinite(row).all() for row in rows):
        raise FormatError(
            f"its space directions are not finite, or not all in one space: {fields['spacedirections']:.200}",
            fix="correct them in its header",
        )
    return found


def _spatial(kinds: list[str], directions: list[np.ndarray | None], axes: int) -> list[int]:
    """The axes in space, fastest first: those with a direction, else those that the kinds name, else up to three."""
    placed = [axis for axis, row in enumerate(directions) if row is not None]
    named = [axis for axis, kind in enumerate(kinds) if kind in _SPATIAL]
    if placed and named and placed != named:
        raise FormatError(f"its kinds ({' '.join(kinds)}) do not fit its space directions", fix=_AGAIN)
    plain = [axis for axis, kind in enumerate(kinds) if kind in _NONE]
    return placed or named or (plain if len(plain) <= 3 else [])


def _unit(fields: dict[str, str], spatial: list[int], axes: int) -> float:
    """Millimetres of what space directions, or spacings, count in."""
    text = fields.get("spaceunits") or fields.get("units", "")
    if not re.fullmatch(r'(\s*("[^"]*"|none|\?\?\?))*\s*', text):
        raise FormatError(f"its units are not in quotation marks: {text:.80}", fix='give millimetres, "mm"')
    each = re.findall(r'"([^"]*)"|none|\?\?\?', text)
    if "spaceunits" not in fields and len(each) == axes:
        each = [each[axis] for axis in spatial]  # the others count channels, or seconds
    factors = {_TO_MM.get(unit) for one in each if (unit := one.strip().lower())} or {1.0}
    if len(factors) > 1 or None in factors:
        raise FormatError(f"its units are not known, or not the same: {text:.80}", fix='give millimetres, "mm"')
    return factors.pop() or 1.0


def _affine(
    fields: dict[str, str], rows: list[np.ndarray | None], spatial: list[int], axes: int
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Array order (depth, height, width) → LPS mm; and what was assumed for it."""
    space, warnings, affine = fields.get("space", "").lower(), [], np.eye(4)
    if space in _SPACES:
        turn = _SPACES[space]
    elif not space or space in _BARE_SPACES:
        turn = _LPS
    else:
        raise FormatError(
            f"lies in the space {space!r:.80}, which is not known", fix="save it in a space of the patient"
        )
    if any(row is None for row in rows):
        if "spacings" not in fields:
            return None, ()
        given = _one_each(_numbers(fields["spacings"], "spacings"), axes, "spacings")
        columns = np.diag([given[axis] for axis in spatial])
    else:
        columns = np.stack([row for row in rows if row is not None], axis=1)
        if len(columns) != 3:
            raise FormatError(f"is a volume in a space of {len(columns)} dimensions", fix=_AGAIN)
    if not space or space in _BARE_SPACES:
        warnings.append(_AS_LPS)
    origin = _vectors(fields.get("spaceorigin", ""), "space origin")
    if not origin:
        warnings.append("its header gives no position (space origin): taken as 0, 0, 0")
        origin = [np.zeros(3)]
    place = origin[0]
    if len(origin) != 1 or place is None or len(place) != 3:
        raise FormatError(f"its space origin is no point: {fields['spaceorigin']:.80}", fix=_AGAIN)
    affine[:3, :3], affine[:3, 3] = turn @ columns[:, ::-1], turn @ place
    affine[:3] *= _unit(fields, spatial, axes)
    if not np.isfinite(affine).all() or is_flat(affine):
        raise FormatError(
            f"its affine is not finite or has no volume: {affine.tolist()}",
            fix="correct space directions, space origin and spacings in its header",
        )
    return affine + 0.0, tuple(warnings)  # without negative zeros


def _plane(fields: dict[str, str], rows: list[np.ndarray | None], spatial: list[int], axes: int) -> tuple[str, ...]:
    """The lines that place a picture, for its mask."""
    kept = [("space", "space"), ("spacedimension", "space dimension")]
    lines = [f"{name}: {fields[key]}" for key, name in kept if key in fields]
    if lines and all(row is not None for row in rows):
        lines.append(f"space directions: {' '.join(_written(row) for row in rows if row is not None)}")
        lines += [f"space origin: {fields['spaceorigin']}"] if "spaceorigin" in fields else []
        lines += [f"space units: {fields['spaceunits']}"] if "spaceunits" in fields else []
        return tuple(lines)
    if "spacings" in fields:
        given = _one_each(_numbers(fields["spacings"], "spacings"), axes, "spacings")
        return (f"spacings: {' '.join(repr(given[axis]) for axis in spatial)}",)
    return ()


def _voxels(path: Path, text: Text, shape: tuple[int, ...]) -> StoredVoxels:
    fields = text.fields
    kind, encoding = fields["type"].lower(), fields["encoding"].lower()
    if kind not in _DTYPES:
        raise FormatError(f"holds voxels of type {kind!r:.80}, which are not read", fix="save it as numbers")
    if encoding not in _ENCODINGS:
        raise FormatError(f"has the encoding {encoding!r:.80}, which is not read", fix="save it as raw or gzip")
    dtype, endian = _DTYPES[kind], fields.get("endian", "").lower()
    if dtype.itemsize > 1 and _ENCODINGS[encoding] != "text":
        if endian not in ("little", "big"):
            raise FormatError("its header does not say its byte order (endian)", fix="add `endian: little` to it")
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    name, place, offset = fields.get("datafile", ""), path, text.end
    if name.upper().startswith("LIST") or re.search(r"%\d*d", name):
        raise FormatError("has its voxels in several files", fix="save it as one file, .nrrd")
    if name:
        place, offset = data_file(path, name), 0
    with place.open("rb") as file:
        file.seek(offset)
        for _ in range(_integer(fields, "lineskip")):
            if not file.readline():
                break
        offset = file.tell()
    skip, codec = _integer(fields, "byteskip"), _ENCODINGS[encoding]
    found = StoredVoxels(place, offset, shape, dtype, codec, skip)
    if skip == -1 and codec == "raw":  # the voxels end where the file ends
        return StoredVoxels(place, max(offset, place.stat().st_size - found.size), shape, dtype, codec)
    return found


def _header(found: Layout) -> Header:
    return Header(found.shape, found.affine, found.names, found.voxels.dtype.newbyteorder("="))


def read_header(path: Path) -> Header:
    """Geometry, channels and dtype without the voxels."""
    with decoding(path):
        return _header(layout(path, text_of(path)))


def files(path: Path) -> tuple[Path, ...]:
    """The header, and the file of its voxels, if that is another one."""
    with decoding(path):
        return tuple(dict.fromkeys((path, layout(path, text_of(path)).voxels.path)))


def read(path: Path) -> Image:
    """``(channels, [depth,] height, width)``; a picture has no affine, and a volume without voxel size has none."""
    with decoding(path):
        found = layout(path, text_of(path))
        array = planes(found.voxels.read(), found.channels)
        if found.alpha:
            from cpfnet.formats.pixel_types import without_alpha

            array = np.ascontiguousarray(np.moveaxis(without_alpha(np.moveaxis(array, 0, -1)), -1, 0))
        details = {"plane": found.plane}
        paths = tuple(dict.fromkeys((path, found.voxels.path)))
        return Image(array, found.affine, found.names, source=Source(paths, "nrrd", details, found.warnings))


def _written(vector: np.ndarray) -> str:
    return f"({','.join(repr(float(number)) for number in vector)})"


def space_lines(segmentation: Segmentation, ahead: int = 0) -> list[str]:
    """The lines that place a mask or map: from its affine, or as its picture was.

    Args:
        segmentation: what is written.
        ahead: axes before those in space.
    """
    if (affine := segmentation.affine) is None:
        plane = segmentation.source.details.get("plane", ()) if segmentation.source is not None else ()
        same = segmentation.array.ndim == 2
        lines = list(plane) if same and segmentation.source is not None and segmentation.source.format == "nrrd" else []
    else:
        lines = [
            "space: left-posterior-superior",
            f"space directions: {' '.join(_written(affine[:3, axis]) for axis in (2, 1, 0))}",
            f"space origin: {_written(affine[:3, 3])}",
        ]
    blank = {"space directions: ": "none ", "spacings: ": "nan "}
    for start, word in blank.items():
        lines = [line.replace(start, start + word * ahead, 1) if line.startswith(start) else line for line in lines]
    return lines


def save(array: np.ndarray, kinds: list[str], lines: list[str], path: Path) -> None:
    """Write a file.

    Args:
        array: slowest axis first.
        kinds: one an axis, fastest first.
        lines: further header lines.
        path: the file; nothing is written beside it.
    """
    names = _TYPES[array.dtype.newbyteorder("=").str[1:]]
    head = [
        "NRRD0005",
        f"type: {names[1] if names[0] == 'uchar' else names[0]}",
        f"dimension: {array.ndim}",
        f"sizes: {' '.join(map(str, array.shape[::-1]))}",
        f"kinds: {' '.join(kinds)}",
        "endian: little",
        "encoding: gzip",
        *lines,
    ]
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    with path.open("wb") as file:
        file.write(("\n".join(head) + "\n\n").encode())
        _pack(little, file)


def _pack(array: np.ndarray, file: BinaryIO) -> None:
    with gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:  # without name and time: equal masks are equal files
        for plane in array if array.ndim > 2 else array[None]:
            packed.write(np.ascontiguousarray(plane).data)


def write(segmentation: Segmentation, path: Path, *, where: Path) -> None:
    """The label map where its image lies; colours become RGB voxels."""
    array = exact_labels(segmentation.array, where)
    domain = ["domain"] * segmentation.array.ndim
    colour = array.ndim > segmentation.array.ndim
    save(array, ["RGB-color", *domain] if colour else domain, space_lines(segmentation, int(colour)), path)


def write_image(image: Image, path: Path, *, where: Path) -> None:
    """The values with a new header, which holds the geometry and nothing else of the source."""
    if image.array.dtype.newbyteorder("=").str[1:] not in _TYPES:
        raise OutputError(f"{image.array.dtype} does not fit into NRRD", where=where, fix="write it as .nii.gz")
    one = Segmentation(np.zeros(image.shape, np.uint8), image.affine, image.source)
    if len(image.array) == 1:
        save(image.array[0], ["domain"] * len(image.shape), space_lines(one), path)
        return
    kind = "RGB-color" if image.channels == RGB and image.array.dtype == np.uint8 else "list"
    save(np.moveaxis(image.array, 0, -1), [kind, *["domain"] * len(image.shape)], space_lines(one, 1), path)


def write_map(
    array: np.ndarray, segmentation: Segmentation, path: Path, names: tuple[str, ...], *, where: Path
) -> None:
    """float32 planes along the fastest axis; a single plane has none."""
    domain = ["domain"] * segmentation.array.ndim
    if len(array) == 1:
        save(array[0], domain, space_lines(segmentation), path)
        return
    save(np.moveaxis(array, 0, -1), ["list", *domain], space_lines(segmentation, 1), path)


def read_map(path: Path) -> np.ndarray:
    """``(planes, [depth,] height, width)``."""
    return read(path).array
