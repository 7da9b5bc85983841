"""Send a Model to a hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import cpfnet
from cpfnet.errors import CpfnetError, OutputError
from cpfnet.sharing.address import HubAddress
from cpfnet.sharing.contents import (
    CONFIG,
    README,
    Content,
    check_nothing_else,
    is_shared,
    left_out,
    models_in,
    shared_files,
)
from cpfnet.sharing.hub_bars import bars
from cpfnet.sharing.hub_errors import TIMEOUT, explained, no_token
from cpfnet.sharing.model_card import check_licence, config, readme, title
from cpfnet.text import file_size, printable

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

logger = logging.getLogger(__name__)


def push(
    folder: Path, address: HubAddress, *, public: bool = False, licence: str | None = None, overwrite: bool = False
) -> HubAddress:
    """Send a Model, as one commit.

    Args:
        folder: of a Model, or of a cross-validation; nothing else may lie in it.
        address: where to; made if need be.
        public: everybody may see it; else it is private, and stays so.
        licence: of the weights; None: none is stated.
        overwrite: replace a Model that is there; the hub keeps the earlier one in its history.

    Returns:
        The address, with the commit.

    Raises:
        CpfnetError: the folder holds more than a Model, or a damaged one; no token, or the hub refuses.
        OutputError: a Model is there already, or more people can see it than was asked for.
    """
    from huggingface_hub import HfApi, get_token

    if address.revision is not None:
        raise CpfnetError(
            "names a revision, and a Model is sent to the main branch", where=str(address), fix="leave it out"
        )
    check_licence(licence)
    check_nothing_else(folder)
    files, models = shared_files(folder), models_in(folder)
    files[README] = readme(folder, models, address.repository, licence).encode()
    files[CONFIG] = config(models).encode()
    api = HfApi(library_name="cpfnet", library_version=cpfnet.__version__)
    with explained(address), bars():
        if get_token() is None:
            raise no_token(address)
        there = _found(api, address)
        if there is not None:
            _check_target(there, address, public, overwrite)
        _tell(folder, files, address, public, licence, models[0].plan.network.weights)
        if there is None:
            api.create_repo(address.repository, private=not public)
            there = api.model_info(address.repository, timeout=TIMEOUT)
            _check_target(there, address, public, overwrite)
        commit = _commit(api, address, files, there, title(models[0]))
    return HubAddress(address.repository, commit)


def _found(api: HfApi, address: HubAddress) -> ModelInfo | None:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return api.model_info(address.repository, timeout=TIMEOUT)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None


def _check_target(there: ModelInfo, address: HubAddress, public: bool, overwrite: bool) -> None:
    """Refuse a repository that others can see, or that holds a Model.

    Raises:
        OutputError: so it is.
    """
    if public and there.private:
        raise OutputError(
            "is private, and its earlier versions would become public with it",
            where=str(address),
            fix="leave out --public, choose another name, or make it public on its page first",
        )
    if not public and not there.private:
        raise OutputError(
            "is public, so that everybody would see the Model",
            where=str(address),
            fix="choose another name, or add --public",
        )
    held = [one.rfilename for one in there.siblings or ()]
    if not overwrite and any(is_shared(name) or name in (README, CONFIG) for name in held):
        raise OutputError(
            "holds a Model, or a card, already",
            where=str(address),
            fix="choose another name, or add --overwrite: the earlier one stays in its history",
        )


def _tell(
    folder: Path, files: dict[str, Content], address: HubAddress, public: bool, licence: str | None, weights: str
) -> None:
    """Say what is sent, before it is."""
    from huggingface_hub import constants

    sizes = {name: len(one) if isinstance(one, bytes) else one.stat().st_size for name, one in files.items()}
    listed = ", ".join(f"{name} ({file_size(size)})" for name, size in sizes.items())
    logger.info(
        "Sending to %s/%s, %s, %s: %s",
        constants.ENDPOINT,
        address.repository,
        "PUBLIC" if public else "private",
        f"licence {licence}" if licence else "no licence stated",
        listed,
    )
    if kept := left_out(folder):
        logger.info("Not sent: %s", ", ".join(kept))
    if weights not in ("imagenet", "none"):
        logger.warning("plan.yaml, which is sent, names the file %s", printable(weights))


def _commit(api: HfApi, address: HubAddress, files: dict[str, Content], there: ModelInfo, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    held = [one.rfilename for one in there.siblings or ()]
    gone = [name for name in held if is_shared(name) and name not in files]  # of a Model that had more parts
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    operations += [CommitOperationDelete(name, is_folder=False) for name in gone]
    operations += [CommitOperationAdd(name, content) for name, content in files.items()]
    done = api.create_commit(address.repository, operations, commit_message=message, parent_commit=there.sha)
    return done.oid
