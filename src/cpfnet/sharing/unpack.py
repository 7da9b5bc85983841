"""Read a Model from a ZIP file that anybody may have made."""

from __future__ import annotations

import shutil
import stat
import zlib
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo, is_zipfile

from cpfnet.errors import CpfnetError
from cpfnet.model import PARTS
from cpfnet.sharing.contents import is_shared, models_in
from cpfnet.text import brief, printable

_ENCRYPTED = 0x1
_MOST = 5 * 1000  # entries: the files of a thousand Models
_RATIO, _ALLOWANCE = 20, 2**26
"""Weights shrink by a tenth, text to a tenth: what grows by more than the ratio, and the allowance, is a bomb."""
_AGAIN = "have the Model packed again where it lies, by  cpfnet pack MODEL"


def is_zipped_model(path: Path) -> bool:
    """Is this a ZIP file with parts of a Model, rather than one of images? Only its list of contents is read."""
    try:
        if path.suffix.lower() != ".zip" or not path.is_file() or not is_zipfile(path):
            return False
        with ZipFile(path) as archive:
            return any(name.rpartition("/")[2] in PARTS[1:] for name in archive.namelist())
    except (OSError, BadZipFile, ValueError, NotImplementedError):
        return False


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a Model, and check it by its own hashes.

    Args:
        archive: a ZIP file.
        folder: an empty folder that nobody else can read or write.

    Raises:
        CpfnetError: it is damaged, holds anything besides a Model, or more than it could; nothing is unpacked unless
            all names and sizes are good.
    """
    try:
        with ZipFile(archive) as opened:
            entries = opened.infolist()
            if refused := _refused(entries, archive.stat().st_size):
                raise CpfnetError(f"is no Model as `cpfnet pack` writes it: {refused}", where=archive, fix=_AGAIN)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as source, target.open("xb") as written:
                    shutil.copyfileobj(source, written, 2**20)
                if target.stat().st_size != entry.file_size:
                    raise BadZipFile(f"{entry.filename} is shorter than the archive says")
    except (BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise CpfnetError(f"is damaged: {printable(str(error))}", where=archive, fix="copy it again") from None
    except OSError as error:
        raise CpfnetError(
            f"cannot be unpacked into {folder.parent}: {error.strerror or error}",
            where=archive,
            fix="free some space there, or set TMPDIR to another folder",
        ) from None
    try:
        models_in(folder)
    except CpfnetError as error:
        raise type(error)(f"{Path(error.where or '').name}: {error.what}", where=archive, fix=_AGAIN) from None


def _refused(entries: list[ZipInfo], size: int) -> str | None:
    """Why an archive's entries are not unpacked; None where they are those of a Model."""
    names = [entry.orig_filename for entry in entries]  # as written: zipfile cuts them at a NUL
    if len(names) > _MOST:
        return f"it has {len(names)} entries"
    if strange := [name for name in names if not is_shared(name)]:
        return f"it holds {brief(strange)}"
    if len(set(names)) < len(names):
        return "it holds a name twice"
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            return f"{entry.filename} is no file but a link or a device"
        if entry.flag_bits & _ENCRYPTED:
            return f"{entry.filename} is encrypted"
        if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            return f"{entry.filename} is compressed in a way that is not read"
    if sum(entry.compress_size for entry in entries) > size:
        return "its entries overlap"
    if sum(entry.file_size for entry in entries) > _RATIO * size + _ALLOWANCE:
        return "it would grow more than any Model does"
    return None
