"""DICOM series in folders and archives, multi-frame objects, segmentations and structure sets."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import RLELossless

from tests.corpus.mutant import ANY, OTHER, REFUSED, SAME, Mutant, harmed
from tests.formats.dicom.written_labels import write_rtstruct, write_seg
from tests.synthetic import phantom, write_multiframe, write_photograph, write_series

FAMILIES = ("DICOM", "DICOM, ZIP", "SEG", "RTSTRUCT")
_REFUSED = frozenset({REFUSED})
_READ = frozenset({SAME, OTHER})

_VOLUME = phantom((8, 10, 12))[0].astype(np.int16)
_SLICE = "series/slice_003.dcm"


def _series(folder: Path) -> Path:
    write_series(folder / "series", _VOLUME)
    return folder / "series"


def _packed(folder: Path) -> Path:
    write_series(folder / "series", _VOLUME, syntax=RLELossless)
    return folder / "series"


def _multiframe(folder: Path) -> Path:
    return write_multiframe(folder / "volume.dcm", _VOLUME)


def _photograph(folder: Path) -> Path:
    return write_photograph(folder / "photo.dcm", np.stack([_VOLUME[0].astype(np.uint8)] * 3, axis=-1))


def _zip(folder: Path) -> Path:
    path = folder / "study.zip"
    path.write_bytes(_zipped())
    return path


@cache
def _slices() -> tuple[bytes, ...]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return tuple(path.read_bytes() for path in sorted(_series(Path(folder)).iterdir()))


@cache
def _zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(_slices()):
            archive.writestr(zipfile.ZipInfo(f"series/{number:03d}.dcm"), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _seg(kind: str, folder: Path) -> Path:
    sources = write_series(folder / "series", _VOLUME)
    mask = np.zeros((8, 10, 12, 2), np.uint8)
    mask[2:5, 3:6, 4:8, 0], mask[4:7, 6:9, 2:5, 1] = 1, 1
    pixels = mask.astype(np.float64) * 0.75 if kind == "FRACTIONAL" else mask
    return write_seg(folder / "label.dcm", sources, {1: "liver", 2: "lesion"}, pixels, kind)


_RING = np.array([[2.0, 2, 3], [8, 2, 3], [8, 7, 3], [2, 7, 3]])


def _rtstruct(folder: Path, edit: Callable[[Any], object] | None = None) -> Path:
    sources = write_series(folder / "series", _VOLUME)
    rois = [("liver", [_RING, _RING + np.array([0, 0, 1])]), ("lesion", [_RING / 2 + np.array([2, 2, 0.5])])]
    return write_rtstruct(folder / "label.dcm", sources[0], rois, instances=sources, edit=edit)


def set_raw(data: bytes, keyword: str, value: bytes | None) -> bytes:
    """An explicit little-endian object whose first element of this name holds these bytes; None takes it out."""
    tag, vr = tag_for_keyword(keyword) or 0, dictionary_VR(tag_for_keyword(keyword) or 0)
    start = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()[:2])
    (length,) = struct.unpack_from("<H", data, start + 6)
    if value is None:
        return data[:start] + data[start + 8 + length :]
    value += b" " * (len(value) % 2) if vr in ("DS", "IS", "CS") else b"\0" * (len(value) % 2)
    return data[: start + 6] + struct.pack("<H", len(value)) + value + data[start + 8 + length :]


def _us(*numbers: int) -> list[bytes]:
    return [struct.pack("<H", number) for number in numbers]


_VALUES: dict[str, list[bytes | None]] = {
    "ImagePositionPatient": [
        None,
        b"",
        b"NaN\\0\\0",
        b"0\\0\\inf",
        b"0\\0\\1e400",
        b"0\\0",
        b"0\\0\\3\\4",
        b"a\\b\\c",
        b"0\\0\\1e30",
        b"0\\0\\-1e30",
    ],
    "ImageOrientationPatient": [
        None,
        b"",
        b"0\\0\\0\\0\\0\\0",
        b"NaN\\0\\0\\0\\1\\0",
        b"1\\0\\0\\1\\0\\0",
        b"1\\0\\0\\0\\1",
        b"2\\0\\0\\0\\2\\0",
        b"1e30\\0\\0\\0\\1e30\\0",
    ],
    "PixelSpacing": [
        None,
        b"",
        b"0\\0",
        b"-1\\-1",
        b"NaN\\NaN",
        b"inf\\inf",
        b"1",
        b"1\\1\\1",
        b"1e-30\\1e-30",
        b"1e30\\1e30",
        b"\xff\xfe",
    ],
    "SliceThickness": [None, b"", b"0", b"-1", b"NaN", b"x"],
    "Rows": [None, b"", *_us(0, 1, 9, 11, 65535)],
    "Columns": [None, b"", *_us(0, 1, 65535)],
    "BitsAllocated": [None, b"", *_us(0, 1, 7, 8, 12, 32, 64, 65535)],
    "BitsStored": [None, *_us(0, 1, 17, 65535)],
    "HighBit": [None, *_us(0, 3, 99)],
    "SamplesPerPixel": [None, *_us(0, 2, 3, 65535)],
    "PixelRepresentation": [None, *_us(0, 7)],
    "PhotometricInterpretation": [None, b"", b"MONOCHROME1", b"PALETTE COLOR", b"RGB", b"YBR_FULL", b"NONSENSE"],
    "RescaleSlope": [None, b"", b"0", b"-1", b"NaN", b"inf", b"1e308", b"1e-300", b"0.1", b"x"],
    "RescaleIntercept": [None, b"", b"NaN", b"inf", b"1e308", b"x", b"0.5"],
    "SOPInstanceUID": [None, b"", b"1.2.3", b"x" * 200, b"../../outside/evil"],
    "SeriesInstanceUID": [None, b"", b"1.2.3", b"../../outside/evil"],
    "StudyInstanceUID": [None, b"", b"1.2.3"],
    "FrameOfReferenceUID": [None, b"", b"1.2.3"],
    "SOPClassUID": [None, b"", b"1.2.3", b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.840.10008.5.1.4.1.1.481.3"],
    "TransferSyntaxUID": [
        None,
        b"",
        b"1.2.3",
        b"1.2.840.10008.1.2",
        b"1.2.840.10008.1.2.2",
        b"1.2.840.10008.1.2.1.99",
        b"1.2.840.10008.1.2.4.50",
        b"1.2.840.10008.1.2.4.90",
        b"1.2.840.10008.1.2.4.80",
        b"1.2.840.10008.1.2.5",
        b"1.2.840.10008.1.2.4.100",
    ],
    "Modality": [None, b"", b"XX", b"SEG", b"\x1b[31m"],
    "InstanceNumber": [None, b"", b"x", b"-1", b"999999999999999999999"],
    "PatientID": [None, b"", b"../../outside", b"\xff\xfe\xfd"],
    "ImageType": [None, b"", b"DERIVED\\SECONDARY\\LOCALIZER"],
}


def _with(keyword: str, value: bytes | None, every: bool, folder: Path) -> Path:
    """A series in which one slice, or every slice, has another value."""
    series = folder / "series"
    series.mkdir()
    for number, data in enumerate(_slices()):
        harm = every or number == 3
        (series / f"slice_{number:03d}.dcm").write_bytes(set_raw(data, keyword, value) if harm else data)
    return series


def _in_slice(change: Callable[[bytes], bytes], folder: Path) -> Path:
    target = _series(folder)
    (folder / _SLICE).write_bytes(change((folder / _SLICE).read_bytes()))
    return target


def _before_pixels(data: bytes, more: bytes) -> bytes:
    at = data.rindex(b"\xe0\x7f\x10\x00OW")
    return data[:at] + more + data[at:]


def _nested(depth: int, tag: bytes = b"\x99\x00\x10\x00") -> bytes:
    begin = tag + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return begin * depth + end * depth


def _element(tag: int, vr: bytes, length: int, value: bytes = b"") -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + b"\0\0" + struct.pack("<I", length) + value


def _pixel_length(length: int, data: bytes) -> bytes:
    at = data.rindex(b"\xe0\x7f\x10\x00OW") + 8
    return data[:at] + struct.pack("<I", length) + data[at + 4 :]


_IN_SLICE: dict[str, Callable[[bytes], bytes]] = {
    "100 sequences deep": lambda d: _before_pixels(d, _nested(100)),
    "5,000 sequences deep": lambda d: _before_pixels(d, _nested(5_000)),
    "200,000 sequences deep": lambda d: _before_pixels(d, _nested(200_000)),
    "5,000 sequences deep, never closed": lambda d: _before_pixels(d, _nested(5_000)[: 5_000 * 20]),
    "100,000 private elements": lambda d: _before_pixels(
        d, b"".join(_element(0x00990000 | n % 65536, b"UN", 2, b"xx") for n in range(100_000))
    ),
    "element of 4 GiB": lambda d: _before_pixels(d, _element(0x00991010, b"OB", 2**32 - 2)),
    "text of 4 GiB": lambda d: _before_pixels(d, _element(0x00991010, b"UT", 2**32 - 2)),
    "undefined length without an end": lambda d: _before_pixels(d, _element(0x00991010, b"OB", 2**32 - 1)),
    "VR that does not exist": lambda d: _before_pixels(d, b"\x99\x00\x10\x00ZZ\0\0\x04\0\0\0abcd"),
    "VR of null bytes": lambda d: _before_pixels(d, b"\x99\x00\x10\x00\0\0\0\0\x04\0\0\0abcd"),
    "item outside a sequence": lambda d: _before_pixels(d, b"\xfe\xff\x00\xe0\xff\xff\xff\xff"),
    "end of a sequence outside one": lambda d: _before_pixels(d, b"\xfe\xff\xdd\xe0\0\0\0\0"),
    "pixels of length 0": partial(_pixel_length, 0),
    "pixels of odd length": partial(_pixel_length, 239),
    "pixels of 4 GiB": partial(_pixel_length, 2**32 - 2),
    "pixels of undefined length": partial(_pixel_length, 2**32 - 1),
    "pixels left out": lambda d: d[: d.rindex(b"\xe0\x7f\x10\x00OW")],
    "no preamble": lambda d: d[132:],
    "file meta left out": lambda d: (
        d[:132] + d[d.index(b"\x08\x00\x05\x00") if b"\x08\x00\x05\x00CS" in d else d.index(b"\x08\x00\x08\x00CS") :]
    ),
    "length of the file meta absurd": lambda d: d[:140] + b"\xff\xff\xff\xff" + d[144:],
    "an HTML page": lambda d: b"<!DOCTYPE html><html><body>403</body></html>",
    "a Git LFS pointer": lambda d: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "preamble only": lambda d: bytes(128) + b"DICM",
    "deflated bomb of 2 GiB": lambda d: _deflated(d, 2**31),
    "deflated noise": lambda d: _deflated_header(d) + bytes(range(1, 250)),
}


def _deflated_header(data: bytes) -> bytes:
    end = 144 + struct.unpack_from("<I", data, 140)[0]
    meta = set_raw(data[:end], "TransferSyntaxUID", b"1.2.840.10008.1.2.1.99")
    return meta[:140] + struct.pack("<I", len(meta) - 144) + meta[144:]


def _deflated(data: bytes, size: int) -> bytes:
    squeeze = zlib.compressobj(9, wbits=-15)
    parts = [squeeze.compress(_element(0x00091010, b"OB", size))]
    parts += [squeeze.compress(bytes(2**20)) for _ in range(size // 2**20)]
    return _deflated_header(data) + b"".join([*parts, squeeze.flush()])


def _beside(change: Callable[[Path], object], folder: Path) -> Path:
    target = _series(folder)
    change(target)
    return target


def _rename(old: str, new: bytes, series: Path) -> None:
    os.rename(series / old, os.fsencode(series) + b"/" + new)  # noqa: PTH104


def _remove(series: Path, *names: str) -> None:
    for name in names:
        (series / name).unlink()


def _copy(series: Path, count: int) -> None:
    for number in range(count):
        (series / f"copy_{number}.dcm").write_bytes(_slices()[3])


_FOLDERS: dict[str, tuple[Callable[[Path], object], frozenset[str]]] = {
    "a slice missing": (lambda s: _remove(s, "slice_003.dcm"), _REFUSED),
    "first slice missing": (lambda s: _remove(s, "slice_000.dcm"), _READ),
    "all slices but one missing": (
        lambda s: _remove(s, *(f"slice_{n:03d}.dcm" for n in range(1, 8))),
        _READ | _REFUSED,
    ),
    "no slice": (lambda s: _remove(s, *(f"slice_{n:03d}.dcm" for n in range(8))), _REFUSED),
    "a slice 500 times": (lambda s: _copy(s, 500), frozenset({SAME, REFUSED})),
    "a link to its own folder": (lambda s: (s / "loop").symlink_to(s), frozenset({SAME})),
    "a link to the folder above": (lambda s: (s / "loop").symlink_to(".."), frozenset({SAME})),
    "a link to itself": (lambda s: (s / "self.dcm").symlink_to("self.dcm"), frozenset({SAME, REFUSED})),
    "a link to nowhere": (lambda s: (s / "gone.dcm").symlink_to("nowhere"), frozenset({SAME, REFUSED})),
    "a link to an endless device": (lambda s: (s / "zero.dcm").symlink_to("/dev/zero"), frozenset({SAME, REFUSED})),
    "a pipe": (lambda s: os.mkfifo(s / "pipe.dcm"), frozenset({SAME, REFUSED})),
    "a folder called as a slice": (lambda s: (s / "slice_008.dcm").mkdir(), frozenset({SAME})),
    "an empty file": (lambda s: (s / "empty.dcm").touch(), frozenset({SAME, REFUSED})),
    "a text": (lambda s: (s / "readme.txt").write_text("hello"), frozenset({SAME})),
    "a text called as a slice": (lambda s: (s / "text.dcm").write_text("hello"), frozenset({SAME, REFUSED})),
    "names that are not UTF-8": (lambda s: _rename("slice_003.dcm", b"sl\xffice\xfe.dcm", s), frozenset({SAME})),
    "names of control characters": (lambda s: _rename("slice_003.dcm", b"\x1b[31mred\n.dcm", s), frozenset({SAME})),
    "a name of 250 letters": (lambda s: _rename("slice_003.dcm", b"x" * 250, s), frozenset({SAME})),
    "a slice in a folder 40 levels deep": (lambda s: _deep(s), frozenset({SAME})),
    "1,000 files of noise": (
        lambda s: [(s / f"{n}.bin").write_bytes(bytes([n % 256]) * 200) for n in range(1000)],
        frozenset({SAME}),
    ),
}


def _deep(series: Path) -> None:
    below = series.joinpath(*["d"] * 40)
    below.mkdir(parents=True)
    (series / "slice_003.dcm").rename(below / "slice_003.dcm")


def _archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return out.getvalue()


def _archives() -> Iterator[tuple[str, Callable[[Path], Path], frozenset[str]]]:
    slices = [(f"s/{number:03d}.dcm", data) for number, data in enumerate(_slices())]
    same = frozenset({SAME})

    def plain(data: bytes) -> Callable[[Path], Path]:
        return partial(_write_zip, data)

    for words, prefix in (
        ("above", "../outside/"),
        ("far above", "../" * 30 + "tmp/evil/"),
        ("absolute", "/tmp/evil/"),
        ("of Windows", "C:\\evil\\"),
        ("above, of Windows", "..\\..\\outside\\"),
    ):
        hidden = prefix.startswith("..\\")  # a name that begins with a dot, where backslashes part nothing
        yield (
            f"members {words}",
            plain(_archive(*((prefix + name[2:], data) for name, data in slices))),
            _REFUSED if hidden else same,
        )
    link = zipfile.ZipInfo("s/link")
    link.external_attr = 0o120777 << 16
    out = io.BytesIO(_archive(*slices))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    yield "a member that is a link", plain(out.getvalue()), same
    yield "no member", plain(_archive()), _REFUSED
    yield "an archive in an archive", plain(_archive(("inner.zip", _zipped()))), _REFUSED
    yield "the same name twice", plain(_twice(slices)), frozenset({SAME, REFUSED})
    yield (
        "encrypted by its flags",
        plain(_zipped().replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0")),
        _REFUSED,
    )
    yield (
        "unknown compression",
        plain(_zipped().replace(b"PK\x01\x02\x14\x03\x14\0\0\0\x08", b"PK\x01\x02\x14\x03\x14\0\0\0\x63")),
        _REFUSED,
    )
    yield "names of null bytes", plain(_zipped().replace(b"003.dcm", b"0\x003.dcm"[:7])), frozenset({SAME, REFUSED})
    yield "names that are not UTF-8", plain(_zipped().replace(b"003.dcm", b"\xff\xfe3.dcm"[:7])), same
    yield (
        "100,001 members",
        _endless,
        _REFUSED,
    )
    yield "a bomb of 4 GiB", _zip_bomb, _REFUSED
    yield "overlapping members", plain(_overlapping()), _REFUSED | _READ
    yield "sizes that lie", plain(_lying()), _REFUSED
    yield "a comment of 64 KiB", plain(_zipped()[:-2] + b"\xff\xff" + b"c" * 65535), same
    yield "directory beyond the end", plain(_zipped()[:-6] + b"\xff\xff\xff\x7f\0\0"), _REFUSED


def _twice(slices: list[tuple[str, bytes]]) -> bytes:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _archive(*slices, *slices)


def _write_zip(data: bytes, folder: Path) -> Path:
    path = folder / "study.zip"
    path.write_bytes(data)
    return path


def _endless(folder: Path) -> Path:
    members = ((str(number), b"") for number in range(100_001))
    return _write_zip(_archive(*members, compression=zipfile.ZIP_STORED), folder)


def _zip_bomb(folder: Path) -> Path:
    path = folder / "study.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("a.dcm", "w", force_zip64=True) as member,
    ):
        member.write(_slices()[0][:-240])
        for _ in range(4096):
            member.write(bytes(2**20))
    return path


def _overlapping() -> bytes:
    """A thousand names for one and the same member."""
    data = _archive(("a.dcm", _slices()[0]))
    at = data.index(b"PK\x01\x02")
    entry, count = data[at : data.index(b"PK\x05\x06")], 1000
    entries = entry * count
    return data[:at] + entries + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(entries), at, 0)


def _lying() -> bytes:
    """Members that claim 16 bytes, and hold more."""
    data = bytearray(_zipped())
    at = -1
    while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
        data[at + 24 : at + 28] = struct.pack("<I", 16)
    return bytes(data)


_SEG: dict[str, list[bytes | None]] = {
    "NumberOfFrames": [None, b"", b"0", b"-1", b"1", b"7", b"500", b"999999999", b"x"],
    "Rows": [None, *_us(0, 1, 11, 65535)],
    "Columns": [None, *_us(0, 13, 65535)],
    "BitsAllocated": [None, *_us(0, 8, 16, 65535)],
    "BitsStored": _us(0, 9)[:2],
    "SegmentationType": [None, b"", b"NONSENSE", b"LABELMAP", b"FRACTIONAL"],
    "SegmentNumber": [None, *_us(0, 77, 65535)],
    "SegmentLabel": [None, b"", b"\x1b[31m", b"x" * 5000],
    "ReferencedSegmentNumber": [None, *_us(0, 77)],
    "ImagePositionPatient": _VALUES["ImagePositionPatient"],
    "ImageOrientationPatient": _VALUES["ImageOrientationPatient"],
    "PixelSpacing": _VALUES["PixelSpacing"],
    "FrameOfReferenceUID": [None, b"", b"1.2.3"],
    "SeriesInstanceUID": [None, b"", b"1.2.3"],
    "SOPClassUID": [None, b"1.2.3", b"1.2.840.10008.5.1.4.1.1.481.3", b"1.2.840.10008.5.1.4.1.1.2"],
}  # fmt: skip


def _label_with(make: Callable[[Path], Path], keyword: str, value: bytes | None, folder: Path) -> Path:
    """Lengths of the sequences around the element stay as they were: what grows damages them, too."""
    path = make(folder)
    path.write_bytes(set_raw(path.read_bytes(), keyword, value))
    return path


def _contour(value: bytes, made: Any) -> None:
    item = made.ROIContourSequence[0].ContourSequence[0]
    tag = Tag(tag_for_keyword("ContourData") or 0)
    item._dict[tag] = RawDataElement(tag, "UN", len(value), value, 0, False, True)


def _contours() -> Iterator[tuple[str, bytes]]:
    for words in (b"NaN", b"inf", b"-inf", b"1e400", b"1e30", b"x", b"", b" ", b"1,5", b"0x10", b"\xff\xfe", b"1_0"):
        name = ascii(words.decode("latin-1"))
        yield f"coordinate {name}", b"2\\2\\3\\8\\2\\3\\8\\7\\" + words + b"\\2\\7\\3"
    yield "no coordinates", b""
    yield "a lone point", b"2\\2\\3"
    yield "two points", b"2\\2\\3\\8\\2\\3"
    yield "coordinates that are no triples", b"2\\2\\3\\8\\2\\3\\8\\7\\3\\2\\7"
    yield "a thousand times the same point", b"\\".join([b"2\\2\\3"] * 1000)
    yield "all points on a line", b"2\\2\\3\\8\\2\\3\\5\\2\\3"
    yield "between slices", b"2\\2\\3.4\\8\\2\\3.4\\8\\7\\3.4"
    yield "across slices", b"2\\2\\0\\8\\2\\7\\8\\7\\3"
    yield "beyond the last slice", b"2\\2\\30\\8\\2\\30\\8\\7\\30"
    yield "outside the image", b"200\\2\\3\\800\\2\\3\\800\\7\\3"
    yield (
        "a star of 10,001 crossings",
        b"\\".join(f"{6 + 4 * np.cos(n * 2.5):.4f}\\{5 + 4 * np.sin(n * 2.5):.4f}\\3".encode() for n in range(10_001)),
    )
    yield "coordinates of 10,000 digits", b"2\\2\\3\\8\\2\\3\\8\\7\\3" + b"0" * 10_000
    yield "10⁷ points", b"\\".join([b"2\\2\\3\\8\\2\\3\\8\\7\\3\\2\\7\\3"] * 2_500_000)


def _many_contours(count: int, made: Any) -> None:
    roi = made.ROIContourSequence[0]
    roi.ContourSequence = [roi.ContourSequence[0]] * count


def _structures() -> Iterator[tuple[str, Callable[[Any], object]]]:
    yield "20,000 copies of a contour", partial(_many_contours, 20_000)
    yield "no structures", lambda made: setattr(made, "StructureSetROISequence", [])
    yield "no contours", lambda made: setattr(made, "ROIContourSequence", [])
    yield (
        "contours of a structure that is not there",
        lambda made: setattr(made.ROIContourSequence[0], "ReferencedROINumber", 99),
    )
    yield "all contours of one structure", lambda made: setattr(made.ROIContourSequence[1], "ReferencedROINumber", 1)
    yield "number twice", lambda made: setattr(made.StructureSetROISequence[1], "ROINumber", 1)
    yield "name twice", lambda made: setattr(made.StructureSetROISequence[1], "ROIName", "liver")
    yield "no name", lambda made: setattr(made.StructureSetROISequence[1], "ROIName", "")
    yield "1,000 structures", lambda made: _many_structures(made, 1000)
    yield (
        "another frame of reference",
        lambda made: setattr(made.ReferencedFrameOfReferenceSequence[0], "FrameOfReferenceUID", "1.2.3"),
    )
    yield "another series", lambda made: _other_series(made)
    yield "no references", lambda made: delattr(made, "ReferencedFrameOfReferenceSequence")
    yield (
        "geometric type of nonsense",
        lambda made: setattr(made.ROIContourSequence[0].ContourSequence[0], "ContourGeometricType", "NONSENSE"),
    )
    yield (
        "points only",
        lambda made: setattr(made.ROIContourSequence[0].ContourSequence[0], "ContourGeometricType", "POINT"),
    )
    yield (
        "number of points lies",
        lambda made: setattr(made.ROIContourSequence[0].ContourSequence[0], "NumberOfContourPoints", 10**9),
    )


def _other_series(made: Any) -> None:
    study = made.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    study.RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"


def _many_structures(made: Any, count: int) -> None:
    from copy import deepcopy

    for number in range(3, count):
        roi, contours = deepcopy(made.StructureSetROISequence[0]), deepcopy(made.ROIContourSequence[0])
        roi.ROINumber, roi.ROIName, contours.ReferencedROINumber = number, f"roi {number}", number
        made.StructureSetROISequence.append(roi)
        made.ROIContourSequence.append(contours)


def mutants(seed: int) -> Iterator[Mutant]:
    yield from harmed("DICOM", "a slice", _SLICE, _series, seed)
    yield from harmed("DICOM", "a slice, RLE", _SLICE, _packed, seed)
    yield from harmed("DICOM", "multi-frame", "volume.dcm", _multiframe, seed)
    yield from harmed("DICOM", "photograph", "photo.dcm", _photograph, seed)
    for keyword, values in _VALUES.items():
        for value in values:
            shown = "left out" if value is None else ascii(value.decode("latin-1"))[:40]
            for every, words in ((False, "a slice"), (True, "all slices")):
                yield Mutant(
                    "DICOM", f"{keyword} of {words} {shown}", partial(_with, keyword, value, every), sound=_series
                )
    for words, change in _IN_SLICE.items():
        yield Mutant("DICOM", words, partial(_in_slice, change), sound=_series)
    for words, (beside, may) in _FOLDERS.items():
        yield Mutant("DICOM", words, partial(_beside, beside), may=may, sound=_series)
    yield from harmed("DICOM, ZIP", "series", "study.zip", _zip, seed)
    for words, make, may in _archives():
        yield Mutant("DICOM, ZIP", words, make, may=may, sound=_zip)
    for kind in ("BINARY", "FRACTIONAL"):
        make = partial(_seg, kind)
        yield from harmed("SEG", kind, "label.dcm", make, seed, use="label")
        for keyword, values in _SEG.items():
            for value in values:
                shown = "left out" if value is None else ascii(value.decode("latin-1"))[:40]
                yield Mutant(
                    "SEG", f"{kind}: {keyword} {shown}", partial(_label_with, make, keyword, value), "label", ANY, make
                )
    yield from harmed("RTSTRUCT", "two structures", "label.dcm", _rtstruct, seed, use="label")
    for words, value in _contours():
        yield Mutant("RTSTRUCT", words, partial(_rtstruct, edit=partial(_contour, value)), "label", ANY, _rtstruct)
    for words, edit in _structures():
        yield Mutant("RTSTRUCT", words, partial(_rtstruct, edit=edit), "label", ANY, _rtstruct)
