"""From what a user names where a Model is asked for to the Models: the one place that knows all the kinds."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from cpfnet.errors import CpfnetError
from cpfnet.inference.cross_validation import CrossValidation, fold_name, is_cross_validation
from cpfnet.model import Model, is_model
from cpfnet.sharing.local_folder import folder_of, is_elsewhere, local_folder

ModelArgument = Model | CrossValidation | str | PathLike[str]
"""A Model, the folds of a cross-validation, or where they lie: a folder, a ZIP file of `cpfnet.pack`, or
``hf://OWNER/NAME[@REVISION]``."""


def names_a_model(argument: str | PathLike[str]) -> bool:
    """Is this the place of a Model, whole or not, rather than an input? `open_models` says what is missing."""
    return is_elsewhere(argument) or is_model(Path(argument)) or is_cross_validation(argument)


def open_models(arguments: ModelArgument | Sequence[ModelArgument]) -> list[Model]:
    """The Models that are meant, in the order given; several average their probabilities.

    A cross-validation stands for the Models of its folds, which decide with what was fitted on the cases of all.

    Args:
        arguments: one, or several.

    Raises:
        CpfnetError: one is no Model, or a damaged one.
    """
    single = isinstance(arguments, (Model, CrossValidation, str, PathLike))
    several: Sequence[ModelArgument] = [arguments] if single else arguments  # type: ignore[assignment,list-item]
    return [model for one in several for model in _open(one)]


def open_model(argument: ModelArgument) -> Model:
    """The one Model that is meant, where an ensemble will not do.

    Raises:
        CpfnetError: it is the cross-validation's of several folds, no Model, or a damaged one.
    """
    models = _open(argument)
    if len(models) > 1:
        place = models[0].folder
        raise CpfnetError(
            f"is an ensemble of {len(models)} folds, and one Model is asked for",
            where=None if place is None else place.parent,
            fix=f"give the folder of one of them, such as {place or fold_name(0)}",
        )
    return models[0]


def folder_to_share(argument: ModelArgument) -> Path:
    """The folder that holds the files of a Model or of a cross-validation, to be handed on.

    Raises:
        CpfnetError: a cross-validation that has not ended, or lacks a fold: nobody could open it; or it lies nowhere.
    """
    folder = argument.folder if isinstance(argument, CrossValidation) else folder_of(argument)
    if is_cross_validation(folder):
        CrossValidation.load(folder)
    return folder


def _open(argument: ModelArgument) -> list[Model]:
    if isinstance(argument, Model):
        return [argument]
    if isinstance(argument, CrossValidation):
        return argument.ensemble()
    folder = local_folder(argument)
    return CrossValidation.load(folder).ensemble() if is_cross_validation(folder) else [Model.load(folder)]
