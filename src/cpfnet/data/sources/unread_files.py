"""Images and masks of formats that are not read: found by their suffix, so that nothing is skipped in silence."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path

from cpfnet import formats
from cpfnet.data.finding import Finding, shown
from cpfnet.formats.file_types import RASTER_SUFFIXES, VOLUME_SUFFIXES
from cpfnet.text import natural, printable

VOLUMES = (
    *(".img", ".mgz", ".mgh", ".mnc", ".mif", ".vtk", ".vti", ".par"),
    *(".npy", ".npz", ".mat", ".h5", ".hdf5"),
)  # fmt: skip
PICTURES = (
    *(".j2c", ".jpf", ".jpx", ".jxl", ".jxr", ".heic", ".heif", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".psd", ".xcf", ".svg", ".eps", ".dng", ".cr2", ".nef", ".arw"),
    *(".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".bif", ".czi", ".lif", ".nd2", ".oib", ".vsi"),
)  # fmt: skip
KIND = "unread-format"
_LOOKED_INTO = 10_000
_ENDINGS = (".seg", ".label", ".labels", ".mask")
"""Parts of a name that belong to the suffix where another follows, as in ``liver.seg.mif``."""
_HEADERS = {".img": ".hdr", ".img.gz": ".hdr"}
"""Voxels whose header lies beside them, which is read: the two are one image."""
_PACKED = (".gz", ".bz2", ".xz", ".zst")


def unread_suffix(path: Path) -> str:
    """The suffix, in lower case, of an image in a format that is not read, compressed or not; "" of any other file."""
    name = path.name.lower()
    if formats.suffix_of(name):
        return ""
    packed = next((ending for ending in _PACKED if name.endswith(ending)), "")
    inner = name.removesuffix(packed)
    images = (*VOLUMES, *PICTURES, *((*VOLUME_SUFFIXES, *RASTER_SUFFIXES) if packed else ()))
    suffix = max((s for s in images if inner.endswith(s) and inner != s), key=len, default="")
    before = inner.removesuffix(suffix)
    ending = next((e for e in _ENDINGS if suffix and before.endswith(e) and before != e), "")
    return ending + suffix + packed if suffix else ""


def _is_volume(path: Path) -> bool:
    suffix = unread_suffix(path)
    return any(part in suffix for part in (*VOLUMES, *VOLUME_SUFFIXES))


def bare(path: Path) -> str:
    """The name without the suffix of an image, whether it is read or not."""
    suffix = unread_suffix(path)
    return path.name[: -len(suffix)] if suffix else formats.stem(path)


def unread_in(folder: Path, stems: Collection[str] = ()) -> list[Path]:
    """Such files in a folder, in natural order; and others that are no images, called as one of ``stems``."""
    return _only_firsts(
        entry for entry in folder.iterdir() if _counts(entry) or (_is_called(entry, stems) and entry.is_file())
    )


def _is_called(path: Path, stems: Collection[str]) -> bool:
    """Has it one of these names, before a suffix or suffixes that are none of an image, or without one?"""
    name = path.name
    ends = [index for index, letter in enumerate(name) if letter == "."] + [len(name)]
    return not formats.suffix_of(path) and any(name[:end] in stems for end in ends)


def unread_below(folder: Path) -> list[Path]:
    """Such files in a folder or below, among its first 10,000."""
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in sorted(names))
    return _only_firsts(path for path in islice(files, _LOOKED_INTO) if _counts(path, folder))


def _counts(path: Path, below: Path | None = None) -> bool:
    parts = path.relative_to(below).parts if below else (path.name,)
    return bool(unread_suffix(path)) and not any(part.startswith(".") for part in parts) and path.is_file()


def _only_firsts(paths: Iterable[Path]) -> list[Path]:
    """In natural order, without voxels whose header lies beside them."""
    found = sorted(paths, key=lambda path: natural(printable(str(path))))
    return [path for path in found if not _has_header(path)]


def _has_header(path: Path) -> bool:
    suffix = _HEADERS.get(unread_suffix(path))
    return suffix is not None and path.with_name(bare(path) + suffix).is_file()


def counted(paths: Sequence[Path]) -> str:
    """``4 files end in .seg.nrrd and 1 in .heic``."""
    counts = Counter(unread_suffix(path) or path.suffix.lower() or "no suffix" for path in paths).most_common()
    (first, count), *others = counts
    most = f"{count} file{'s end' if count > 1 else ' ends'} in {first}"
    parts = [most, *(f"{n} in {suffix}" for suffix, n in others)]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def unread_fix(paths: Sequence[Path], root: Path) -> str:
    """What to do about such files, with the first one's new name; "" where there are none."""
    if not paths:
        return ""
    kinds = {_is_volume(path) if unread_suffix(path) else None for path in paths}
    to = "NIfTI" if kinds == {True} else "PNG" if kinds == {False} else "NIfTI (volumes) or PNG (pictures)"
    first = paths[0]
    name = bare(first) if unread_suffix(first) else formats.stem(Path(first.stem))
    new = first.with_name(name + (".nii.gz" if _is_volume(first) else ".png"))
    what, more = ("it", "") if len(paths) == 1 else ("them", " and so on")
    return f"convert {what} to {to}: `{shown(first, root)}` to `{shown(new, root)}`{more}"


def unread_finding(paths: Sequence[Path], root: Path, what: str) -> Finding:
    """An error for a folder's files that would be images or masks.

    Args:
        paths: these files, of one folder.
        root: of the dataset.
        what: what they are taken for, ``"images"`` or ``"masks"``.
    """
    alone = len(paths) == 1
    where = shown(paths[0] if alone else paths[0].parent, root)
    which = "it is" if alone else f"these {what} are"
    text = f"{counted(paths)}, which is no format that is read: {which} left out"
    files = tuple(shown(path, root) for path in paths)
    return Finding("error", KIND, where, text, unread_fix(paths, root), files=files)
