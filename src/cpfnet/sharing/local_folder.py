"""A folder of this machine for a Model that is no folder: a ZIP file, or one on a hub."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from os import PathLike
from pathlib import Path

from cpfnet.errors import CpfnetError
from cpfnet.model import Model
from cpfnet.sharing.address import HubAddress, is_hub_address
from cpfnet.sharing.unpack import is_zipped_model, unpack


def is_elsewhere(argument: str | PathLike[str]) -> bool:
    """Is this a Model in a ZIP file or on a hub, whose folder is a private copy that goes with the process?"""
    return is_hub_address(argument) or is_zipped_model(Path(argument))


def local_folder(argument: str | PathLike[str]) -> Path:
    """The folder that holds a Model's files.

    Args:
        argument: a folder, a ZIP file of `pack`, or ``hf://OWNER/NAME[@REVISION]``. Of the latter two a private copy is
            made, checked, and removed when the process ends; the same one is given when asked again.

    Raises:
        CpfnetError: the ZIP file or the hub's files are not those of a Model, or the hub cannot be reached.
    """
    path = Path(argument)
    if is_hub_address(argument):
        return _downloaded(HubAddress.parse(path.as_posix()))
    if is_zipped_model(path):
        status = path.stat()
        return _unpacked(path.absolute(), status.st_mtime_ns, status.st_size)
    return path


def folder_of(model: Model | str | PathLike[str]) -> Path:
    """The folder that holds a Model's files, given it or where it lies.

    Raises:
        CpfnetError: as `local_folder`; or it was never saved.
    """
    if not isinstance(model, Model):
        return local_folder(model)
    if model.folder is None:
        raise CpfnetError("this Model lies in no folder", fix="save it first: model.save(folder)")
    return model.folder


def name_of(model: Model | str | PathLike[str]) -> str:
    """What to call a copy of a Model: as its folder, its ZIP file or its name on a hub."""
    if isinstance(model, Model):
        return folder_of(model).resolve().name
    if is_hub_address(model):
        return HubAddress.parse(Path(model).as_posix()).repository.partition("/")[2]
    return Path(model).resolve().name.removesuffix(".zip")


@cache
def _unpacked(archive: Path, changed: int, size: int) -> Path:
    folder = _private_folder()
    unpack(archive, folder)
    return folder


@cache
def _downloaded(address: HubAddress) -> Path:
    from cpfnet.sharing.download import download

    folder = _private_folder()
    download(address, folder)
    return folder


def _private_folder() -> Path:
    """An empty folder that only its owner can enter; removed when this process, and none it forks, ends."""
    folder = Path(tempfile.mkdtemp(prefix="cpfnet-model-"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
