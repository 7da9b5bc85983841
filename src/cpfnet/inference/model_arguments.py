"""From what a user names where a Model is asked for to the Models: the one place that knows all the kinds."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from cpfnet.model import Model, is_model
from cpfnet.sharing.local_folder import is_elsewhere, local_folder

ModelArgument = Model | str | PathLike[str]
"""A Model, or where one lies: a folder, a ZIP file of `cpfnet.pack`, or ``hf://OWNER/NAME[@REVISION]``."""


def names_a_model(argument: str | PathLike[str]) -> bool:
    """Is this the place of a Model, whole or not, rather than an input? `open_models` says what is missing."""
    return is_elsewhere(argument) or is_model(Path(argument))


def open_models(arguments: ModelArgument | Sequence[ModelArgument]) -> list[Model]:
    """The Models that are meant, in the order given; several average their probabilities.

    Args:
        arguments: one, or several.

    Raises:
        CpfnetError: one is no Model, or a damaged one.
    """
    several = [arguments] if isinstance(arguments, (Model, str, PathLike)) else list(arguments)
    return [one if isinstance(one, Model) else Model.load(local_folder(one)) for one in several]
