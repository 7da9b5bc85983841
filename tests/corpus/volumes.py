"""NIfTI, plain and compressed; NRRD and MetaImage."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from tests.corpus.mutant import OTHER, REFUSED, SAME, Mutant, file, harmed
from tests.formats.headers import META, NRRD
from tests.synthetic import affine, phantom

FAMILIES = ("NIfTI", "NIfTI, gzip", "NRRD", "MetaImage")
_REFUSED = frozenset({REFUSED})
_READ = frozenset({SAME, OTHER})
_ANY = _REFUSED | _READ


def _bytes(array: np.ndarray, matrix: np.ndarray, kind: Any = nibabel.Nifti1Image, **header: Any) -> bytes:
    image = kind(array, matrix)
    for key, value in header.items():
        image.header[key] = value
    return image.to_bytes()


def _sound() -> dict[str, bytes]:
    volume = phantom((9, 11, 13))[0].T
    oblique = affine((0.8, 0.9, 2.5), origin=(-80, 40, 10), degrees=(10, -20, 5))
    scaled = nibabel.Nifti1Image(volume.astype(np.int16), oblique)
    scaled.header.set_slope_inter(2, -1024)
    swapped = nibabel.Nifti1Header(endianness=">")
    return {
        "int16": _bytes(volume.astype(np.int16), oblique),
        "scaled": scaled.to_bytes(),
        "NIfTI-2, uint8": _bytes(volume.astype(np.uint8), oblique, nibabel.Nifti2Image),
        "float32, big-endian": nibabel.Nifti1Image(volume.astype(np.float32), oblique, swapped).to_bytes(),
    }


def header(**fields: Any) -> bytes:
    """A header of 4×4×4 voxels of int16 with these fields as they are, and its voxels."""
    own = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).header
    own["vox_offset"] = 352
    own["magic"] = b"n+1"
    for name, value in fields.items():
        own[name] = value
    return own.binaryblock + bytes(4) + bytes(128)


def _pixdim(*values: float) -> list[float]:
    return [1.0, *values, *(1.0,) * (7 - len(values))]


def _dim(*sizes: int) -> list[int]:
    return [len(sizes), *sizes, *(1,) * (7 - len(sizes))]


def _crafted() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    for sizes in (
        (10_000,) * 3,
        (32767,) * 3,
        (32767,) * 7,
        (-4, 4, 4),
        (0, 4, 4),
        (4, 4, 4, 32767),
        (4, 4, 4, 0),
        (4,),
        (4, 4, 4, 2, 3),
        (32767, 32767, 1),
    ):
        yield f"claims {'×'.join(map(str, sizes))} voxels", header(dim=_dim(*sizes)), _REFUSED
    for count in (0, 8, -1, 32767):
        yield f"{count} axes", header(dim=[count, *(4,) * 7]), _REFUSED
    flat = {"sform_code": 0, "qform_code": 0}
    for number in (0.0, -1.0, np.nan, np.inf, -np.inf, 1e30, 1e-30):
        may = _ANY if number in (-1.0, 1e30, 1e-30) else _REFUSED
        yield f"spacing {number} without a form", header(pixdim=_pixdim(1.0, number, 1.0), **flat), may
        yield (
            f"spacing {number} with a qform",
            header(pixdim=_pixdim(1.0, number, 1.0), sform_code=0, qform_code=1),
            may,
        )
    for number in (np.nan, np.inf, 1e38):
        yield (
            f"position {number} in the sform",
            header(sform_code=1, srow_x=[1, 0, 0, number]),
            _ANY if number == 1e38 else _REFUSED,
        )
        yield (
            f"position {number} in the qform",
            header(sform_code=0, qform_code=1, qoffset_x=number),
            _ANY if number == 1e38 else _REFUSED,
        )
        yield (
            f"direction {number} in the sform",
            header(sform_code=1, srow_x=[number, 0, 0, 0]),
            _ANY if number == 1e38 else _REFUSED,
        )
        yield f"quaternion {number}", header(sform_code=0, qform_code=1, quatern_b=number), _REFUSED
    yield "quaternion longer than one", header(sform_code=0, qform_code=1, quatern_b=0.9, quatern_c=0.9), _REFUSED
    yield (
        "singular sform",
        header(sform_code=1, srow_x=[1, 0, 0, 0], srow_y=[1, 0, 0, 0], srow_z=[0, 0, 1, 0]),
        _REFUSED,
    )
    yield "sform of zeros", header(sform_code=1, srow_x=[0] * 4, srow_y=[0] * 4, srow_z=[0] * 4), _REFUSED
    yield (
        "sform nearly singular",
        header(sform_code=1, srow_x=[1, 1, 0, 0], srow_y=[0, 1e-7, 0, 0], srow_z=[0, 0, 1, 0]),
        _REFUSED,
    )
    yield (
        "voxels of a nanometre",
        header(sform_code=1, srow_x=[1e-6, 0, 0, 0], srow_y=[0, 1e-6, 0, 0], srow_z=[0, 0, 1e-6, 0]),
        OTHER,
    )
    yield (
        "sform sheared to a needle",
        header(sform_code=1, srow_x=[1, 1e7, 0, 0], srow_y=[0, 1, 0, 0], srow_z=[0, 0, 1, 0]),
        _ANY,
    )
    for code in (0, 1, 32, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 12345, -1):
        may = _ANY if code in (256, 512) else _REFUSED
        yield f"datatype {code}", header(datatype=code), may
    yield "bits that contradict the datatype", header(bitpix=64), _ANY
    for slope, inter in ((np.nan, 0), (np.inf, 0), (1, np.nan), (1, np.inf), (0, 5), (1e38, 1e38), (-1, 0), (1e-45, 0)):
        yield f"slope {slope}, intercept {inter}", header(scl_slope=slope, scl_inter=inter), _ANY
    for offset in (-1.0, 0.0, 1.0, 353.0, 1e9, 1e30, np.nan, np.inf):
        yield f"voxels at byte {offset}", header(vox_offset=offset), _ANY if offset in (0.0, 1.0) else _REFUSED
    yield "magic of a pair", header(magic=b"ni1"), _ANY
    yield "no magic", header(magic=b""), _REFUSED
    yield "header size 0", header(sizeof_hdr=0), _ANY
    yield "units that do not exist", header(xyzt_units=255), _ANY
    yield "metres", header(xyzt_units=1), _ANY
    extension = header(vox_offset=352 + 2**20)[:348] + b"\1\0\0\0" + (2**31 - 16).to_bytes(4, "little") + bytes(4 + 200)
    yield "extension of 2 GiB", extension, _REFUSED
    yield "extension of no size", header(vox_offset=400)[:348] + b"\1\0\0\0" + bytes(48) + bytes(128), _ANY
    yield (
        "extension of negative size",
        header(vox_offset=400)[:348] + b"\1\0\0\0" + b"\xf0\xff\xff\xff" + bytes(44) + bytes(128),
        _ANY,
    )
    second = nibabel.Nifti2Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).header
    for sizes in ((2**62, 4, 4), (2**62, 2**62, 2**62), (10**6, 10**6, 1), (-(2**62), 4, 4)):
        own = second.copy()
        own["dim"], own["vox_offset"] = _dim(*sizes), 544
        yield f"NIfTI-2 claims {'×'.join(map(str, sizes))} voxels", own.binaryblock + bytes(132), _REFUSED


def _stream(head: bytes, size: int, level: int, name: str, folder: Path) -> Path:
    """A gzip file of ``head`` and then ``size`` zeros, written piece by piece."""
    path, piece = folder / name, bytes(2**20)
    squeeze = zlib.compressobj(level, wbits=31)
    with path.open("wb") as out:
        out.write(squeeze.compress(head))
        for left in range(size, 0, -len(piece)):
            out.write(squeeze.compress(piece[:left]))
        out.write(squeeze.flush())
    return path


def _compressed() -> Iterator[tuple[str, Any, frozenset[str]]]:
    small = header(dim=_dim(4, 4, 4))
    yield "4 GiB of zeros behind a small volume", partial(_stream, small, 2**32, 9, "bomb.nii.gz"), _ANY
    yield (
        "bomb of 3 GiB that keeps its word",
        partial(_stream, header(dim=_dim(1200, 1200, 1118))[:352], 1200 * 1200 * 1118 * 2, 9, "bomb.nii.gz"),
        _REFUSED,
    )
    yield (
        "bomb of 2 GiB, fast compression",
        partial(_stream, header(dim=_dim(1024, 1024, 1024))[:352], 2**31, 1, "bomb.nii.gz"),
        _REFUSED,
    )
    yield (
        "blank volume of 200 MiB",
        partial(_stream, header(dim=_dim(512, 512, 400))[:352], 512 * 512 * 400 * 2, 9, "blank.nii.gz"),
        _READ,
    )
    yield (
        "voxels in 3 GiB",
        partial(_stream, header(vox_offset=3 * 2.0**30)[:352], 3 * 2**30 + 200, 9, "bomb.nii.gz"),
        _ANY,
    )
    extension = header(vox_offset=float(2**31))[:348] + b"\1\0\0\0" + (2**31 - 352).to_bytes(4, "little") + b"\6\0\0\0"
    yield "extension of 2 GiB that is there", partial(_stream, extension, 2**31 + 200, 9, "bomb.nii.gz"), _ANY
    yield "compressed twice", gzip.compress(gzip.compress(small)), _REFUSED
    yield "wrong checksum", gzip.compress(small)[:-8] + bytes(8), _REFUSED
    yield "wrong length at its end", gzip.compress(small)[:-4] + b"\xff" * 4, _REFUSED
    yield "in two members", gzip.compress(small[:200]) + gzip.compress(small[200:]), _READ
    yield (
        "in 5,000 members of a byte",
        b"".join(gzip.compress(small[i : i + 1]) for i in range(len(small))) + gzip.compress(b"") * 5000,
        _READ,
    )
    yield "unknown compression", b"\x1f\x8b\x07" + gzip.compress(small)[3:], _REFUSED
    yield "endless file name in its header", b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 10**6, _REFUSED
    yield "not compressed at all", small, _REFUSED
    yield "compressed, named .nii", partial(_plain, gzip.compress(small)), _REFUSED | _READ


def _plain(data: bytes, folder: Path) -> Path:
    path = folder / "volume.nii"
    path.write_bytes(data)
    return path


_META = META | {"ElementDataFile": "LOCAL"}
_VOXELS = np.arange(60, dtype="<i2").tobytes()
_WORDS = ("", "-1", "0", "1e9", "99999999999999999999", "nan nan nan", "(nan,0,0) (0,1,0) (0,0,1)", "none", "a" * 10**5)
_PLACES = ("/dev/zero", "/etc/passwd", "../volume.raw", "gone.raw", "LIST", "a%03d.raw 1 9 1", "volume.nrrd", ".")


def _nrrd(voxels: bytes = _VOXELS, **fields: str) -> bytes:
    lines = [f"{key}: {value}" for key, value in (NRRD | {k.replace("_", " "): v for k, v in fields.items()}).items()]
    return ("\n".join(["NRRD0005", *lines]) + "\n\n").encode() + voxels


def _meta(voxels: bytes = _VOXELS, **fields: str) -> bytes:
    own = {**_META, **fields}
    own["ElementDataFile"] = own.pop("ElementDataFile")  # the last one
    return ("\n".join(f"{key} = {value}" for key, value in own.items()) + "\n").encode() + voxels


def _texts() -> Iterator[tuple[str, str, str, bytes]]:
    """Of formats whose header is text: family, file, what was done, and its content."""
    for key in NRRD:
        for word in _WORDS:
            yield "NRRD", "volume.nrrd", f"{key}: {word:.40}", _nrrd(**{key: word})
    for key in _META:
        for word in _WORDS:
            yield "MetaImage", "volume.mha", f"{key} = {word:.40}", _meta(**{key: word})
    for place in _PLACES:
        yield "NRRD", "volume.nhdr", f"voxels in {place}", _nrrd(data_file=place)
        yield "MetaImage", "volume.mhd", f"voxels in {place}", _meta(ElementDataFile=place)
    huge = "2000000000 2000000000 2000000000"
    for encoding in ("gzip", "bzip2", "txt", "raw"):
        yield "NRRD", "volume.nrrd", f"claims {huge} voxels, {encoding}", _nrrd(sizes=huge, encoding=encoding)
    yield "MetaImage", "volume.mha", f"claims {huge} voxels", _meta(DimSize=huge, CompressedData="True")
    zeros = gzip.compress(bytes(2**24), mtime=0)
    yield "NRRD", "volume.nrrd", "16 MiB behind its voxels", _nrrd(zeros, encoding="gzip")
    yield "NRRD", "volume.nrrd", "16 MiB before its voxels", _nrrd(zeros, encoding="gzip", byte_skip=str(2**24))
    yield (
        "MetaImage",
        "volume.mha",
        "16 MiB behind its voxels",
        _meta(zlib.compress(bytes(2**24)), CompressedData="True"),
    )
    yield "NRRD", "volume.nrrd", "a header without end", b"NRRD0005\n" + b"# text\n" * 2**22
    yield "MetaImage", "volume.mha", "a header without end", b"ObjectType = Image\n" + b"Comment = a\n" * 2**18


def _text_mutants(seed: int) -> Iterator[Mutant]:
    sound = {
        ("NRRD", "raw"): ("volume.nrrd", _nrrd()),
        ("NRRD", "gzip"): ("volume.nrrd", _nrrd(gzip.compress(_VOXELS, mtime=0), encoding="gzip")),
        ("MetaImage", "raw"): ("volume.mha", _meta()),
        ("MetaImage", "zlib"): ("volume.mha", _meta(zlib.compress(_VOXELS), CompressedData="True")),
    }
    for (family, what), (name, data) in sound.items():
        # A header that is cut short inside a number may still be one: only the voxels have a length.
        yield from harmed(family, what, name, file(name, data), seed, text=True)
    for family, name, words, data in _texts():
        may = _REFUSED if "voxels in" in words or "claims" in words or "header without" in words else _ANY
        yield Mutant(family, words, file(name, data), may=may)


def mutants(seed: int) -> Iterator[Mutant]:
    yield from _text_mutants(seed)
    for what, data in _sound().items():
        yield from harmed("NIfTI", what, "volume.nii", file("volume.nii", data), seed)
    for words, data, may in _crafted():
        yield Mutant("NIfTI", words, file("volume.nii", data), may=may)
    for what in ("int16", "scaled"):
        squeezed = gzip.compress(_sound()[what], mtime=0)
        yield from harmed("NIfTI, gzip", what, "volume.nii.gz", file("volume.nii.gz", squeezed), seed)
    for words, data, may in _crafted():
        if "claims" in words or "byte" in words or "extension" in words:
            yield Mutant("NIfTI, gzip", words, file("volume.nii.gz", gzip.compress(data, mtime=0)), may=may)
    for words, content, may in _compressed():
        make = file("volume.nii.gz", content) if isinstance(content, bytes) else content
        yield Mutant("NIfTI, gzip", words, make, may=may)
