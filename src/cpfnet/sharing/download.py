"""Fetch a Model from a hub: each file by the hub's hashes, all of them by the Model's own."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock
from pydantic import Field

import cpfnet
from cpfnet.errors import CpfnetError, OutputError
from cpfnet.files import check_free, check_writable, sha256
from cpfnet.model import PARTS
from cpfnet.planning import Strict
from cpfnet.settings import write_yaml
from cpfnet.sharing.address import HubAddress
from cpfnet.sharing.contents import CONFIG, ORIGIN, README, is_shared, models_in
from cpfnet.sharing.hub_bars import bars
from cpfnet.sharing.hub_errors import TIMEOUT, explained
from cpfnet.text import brief, counted, file_size

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

logger = logging.getLogger(__name__)

_SHA256 = re.compile("[0-9a-f]{64}")


class Origin(Strict):
    """Where a Model came from."""

    hub: str
    repository: str
    revision: str | None = Field(None, description="as it was asked for; null: the main branch")
    commit: str = Field(description="whose files these are, byte for byte")


def pull(address: HubAddress, out: Path) -> Path:
    """Fetch a Model into a new folder, whole or not at all.

    Args:
        address: where from.
        out: the folder to make. ``origin.yaml`` in it names the commit.

    Returns:
        ``out``.

    Raises:
        CpfnetError: as `download`.
        OutputError: ``out`` exists, or cannot be written.
    """
    from huggingface_hub import constants

    check_free(out, fix="choose another folder (-o)")
    check_writable(out.parent)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".pull-", dir=out.parent) as temporary:
            folder = Path(temporary) / "model"
            folder.mkdir()
            commit = download(address, folder)
            origin = Origin(
                hub=constants.ENDPOINT, repository=address.repository, revision=address.revision, commit=commit
            )
            write_yaml(origin, folder / ORIGIN)
            folder.rename(out)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=error.filename or out,
            fix="choose a folder you may write to, with free space",
        ) from None
    return out


def download(address: HubAddress, folder: Path) -> str:
    """Fetch a Model's files through the hub's cache.

    What has arrived of the weights stays in the cache when the connection is cut, and the next call continues there.

    Args:
        address: where from. Without a connection, a commit that is in the cache is taken from there.
        folder: an empty one, for the files.

    Returns:
        The commit.

    Raises:
        CpfnetError: no such Model or revision, no access, no connection, a file with another hash than the hub says
            (it is removed), or no Model.
    """
    with explained(address), bars():
        commit = _fetch(address, folder) or _from_cache(address, folder)
    _check_complete([name.relative_to(folder).as_posix() for name in folder.rglob("*")], address)
    models_in(folder)
    return commit


def _fetch(address: HubAddress, folder: Path) -> str | None:
    """The files by way of the hub; None where it cannot be reached, and the cache may have them."""
    import httpx2
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    api = HfApi(library_name="cpfnet", library_version=cpfnet.__version__)
    try:
        info = api.model_info(address.repository, revision=address.revision, files_metadata=True, timeout=TIMEOUT)
    except (httpx2.ConnectError, httpx2.TimeoutException, OfflineModeIsEnabled):
        if address.is_pinned and _snapshot(address) is not None:
            return None
        raise
    commit = str(info.sha)
    listed = [one for one in info.siblings or () if _is_wanted(one.rfilename)]
    _check_complete([one.rfilename for one in listed], address)
    size = file_size(sum(one.size or 0 for one in listed))
    logger.info("%s is commit %s: %s, %s", address, commit, counted(len(listed), "file"), size)
    if not address.is_pinned:
        pinned = HubAddress(address.repository, commit)
        logger.warning("%s may mean other files tomorrow; %s means these for ever", address, pinned)
    for one in listed:
        if one.lfs is not None:
            _fetch_large(address, commit, one)
        cached = Path(hf_hub_download(address.repository, one.rfilename, revision=commit))
        copy = _copy(cached, folder / one.rfilename)
        if not _has_hash(copy, one):
            _remove_with_links(cached)
            raise _wrong(one.rfilename, address)
    return commit


def _from_cache(address: HubAddress, folder: Path) -> str:
    """The files as they were fetched before; the Model's own hashes tell whether they still are."""
    snapshot = _snapshot(address)
    assert snapshot is not None
    logger.info("%s: no connection, so taken from %s", address, snapshot)
    for path in snapshot.rglob("*"):
        if path.is_file() and _is_wanted(name := path.relative_to(snapshot).as_posix()):
            _copy(path, folder / name)
    return str(address.revision)


def _snapshot(address: HubAddress) -> Path | None:
    """A commit's files in the hub's cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    place = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=address.repository, repo_type="model")
    snapshot = place / "snapshots" / str(address.revision)
    return snapshot if snapshot.is_dir() else None


def _fetch_large(address: HubAddress, commit: str, file: RepoSibling) -> None:
    """Put a large file where the hub's library looks for it; unlike the library, go on with what arrived before."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    assert file.lfs is not None
    digest, size = file.lfs.sha256, file.lfs.size
    if not _SHA256.fullmatch(digest):  # it becomes the name of a file
        raise _wrong(file.rfilename, address)
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=address.repository, repo_type="model") / "blobs"
    blob, part = blobs / digest, blobs / f"{digest}.part"
    blobs.mkdir(parents=True, exist_ok=True)
    with FileLock(blobs / f".{digest}.lock"):
        if blob.exists():
            return
        if part.exists() and part.stat().st_size > size:
            part.unlink()
        with part.open("ab") as stream:
            http_get(
                hf_hub_url(address.repository, file.rfilename, revision=commit),
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers(library_name="cpfnet", library_version=cpfnet.__version__),
                expected_size=size,
                displayed_filename=file.rfilename,
            )
        if sha256(part) != digest:
            part.unlink()
            raise _wrong(file.rfilename, address)
        part.replace(blob)


def _is_wanted(name: str) -> bool:
    return is_shared(name) or name in (README, CONFIG)


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, target))


def _has_hash(path: Path, file: RepoSibling) -> bool:
    """Is it the file that the hub lists: large ones by their SHA-256, others by git's own?"""
    if file.lfs is not None:
        return sha256(path) == file.lfs.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == file.blob_id


def _wrong(name: str, address: HubAddress) -> CpfnetError:
    return CpfnetError(
        f"{name} is not what the hub lists: it has another hash; it was removed", where=str(address), fix="run it again"
    )


def _check_complete(names: list[str], address: HubAddress) -> None:
    """Refuse what is no Model before it is fetched.

    Raises:
        CpfnetError: so it is.
    """
    missing = [part for part in PARTS if not any(name.rpartition("/")[2] == part for name in names)]
    if missing:
        raise CpfnetError(
            f"is no Model of cpfnet: it has no {brief(missing)}", where=str(address), fix="give the address of one"
        )


def _remove_with_links(path: Path) -> None:
    """Remove a file of the cache with all that it links to, so that it is fetched again."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)
