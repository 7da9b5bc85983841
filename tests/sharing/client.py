"""What calls cpfnet in a process of its own, since huggingface_hub reads its settings once, when it is imported."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

MESSAGES: list[str] = []


class _Keeps(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        MESSAGES.append(record.getMessage())


@dataclass
class Answer:
    value: Any
    error: str
    messages: list[str]


def begin(settings: dict[str, str]) -> None:
    os.environ.update(settings)
    logger = logging.getLogger("cpfnet")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Keeps())


def call(verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any], token: str | None) -> Answer:
    """``cpfnet.verb(…)``, as a user with a token."""
    import cpfnet

    os.environ.pop("HF_TOKEN", None)
    if token is not None:
        os.environ["HF_TOKEN"] = token
    MESSAGES.clear()
    try:
        return Answer(getattr(cpfnet, verb)(*arguments, **keywords), "", list(MESSAGES))
    except cpfnet.CpfnetError as error:
        return Answer(None, str(error), list(MESSAGES))


def opened(address: str) -> tuple[list[tuple[str, str]], list[str]]:
    """What `predict` opens an address to: of each Model the digest, and its folder's permissions; and the messages."""
    from cpfnet.inference.model_arguments import names_a_model, open_models

    assert names_a_model(address)
    MESSAGES.clear()
    found = [(model.digest, oct(model.folder.stat().st_mode & 0o777)) for model in open_models(address)]
    return found, list(MESSAGES)


def cache_of(name: str) -> str:
    """Where huggingface_hub keeps a repository."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return f"{constants.HF_HUB_CACHE}/{repo_folder_name(repo_id=name, repo_type='model')}"


def go_to(address: str) -> None:
    """Have huggingface_hub call another hub."""
    from huggingface_hub import constants

    constants.ENDPOINT = address
