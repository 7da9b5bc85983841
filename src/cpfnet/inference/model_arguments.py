"""From what a user names where a Model is asked for to the Models: the one place that knows all the kinds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from cpfnet.data.case import Dataset
from cpfnet.errors import CpfnetError
from cpfnet.inference.configurations import Configurations, is_configurations
from cpfnet.inference.cross_validation import CrossValidation, fold_name, is_cross_validation
from cpfnet.model import Model, is_model
from cpfnet.sharing.local_folder import folder_of, is_elsewhere, local_folder

logger = logging.getLogger(__name__)

ModelArgument = Model | CrossValidation | Configurations | str | PathLike[str]
"""A Model, the folds of a cross-validation, those of the better configuration, or where they lie: a folder, a ZIP file
of `cpfnet.pack`, or ``hf://OWNER/NAME[@REVISION]``."""


def names_a_model(argument: str | PathLike[str]) -> bool:
    """Is this the place of a Model, whole or not, rather than an input? `open_models` says what is missing."""
    if is_elsewhere(argument) or is_model(Path(argument)):
        return True
    return is_cross_validation(argument) or is_configurations(argument)


def open_models(arguments: ModelArgument | Sequence[ModelArgument]) -> list[Model]:
    """The Models that are meant, in the order given; several average their probabilities.

    A cross-validation stands for the Models of its folds, which decide with what was fitted on the cases of all;
    configurations stand for the better one, or both.

    Args:
        arguments: one, or several.

    Raises:
        CpfnetError: one is no Model, or a damaged one.
    """
    return [model for one in each_of(arguments) for model in _open(one)]


def each_of(arguments: ModelArgument | Sequence[ModelArgument]) -> Sequence[ModelArgument]:
    """Several as they are, and one by itself as a list of it."""
    single = isinstance(arguments, (Model, CrossValidation, Configurations, str, PathLike))
    return [arguments] if single else arguments  # type: ignore[return-value,list-item]


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


def folder_of_models(argument: ModelArgument) -> Path:
    """The folder that holds a Model, or all Models of an ensemble: `open_models` takes it for the same.

    Raises:
        CpfnetError: it lies nowhere, or cannot be had.
    """
    return argument.folder if isinstance(argument, (CrossValidation, Configurations)) else folder_of(argument)


def folder_to_share(argument: ModelArgument) -> Path:
    """The folder that holds the files of a Model or of a cross-validation, to be handed on.

    Raises:
        CpfnetError: a cross-validation that has not ended, or lacks a fold: nobody could open it; two of them; or it
            lies nowhere.
    """
    folder = folder_of_models(argument)
    found = _several(folder)
    if isinstance(found, Configurations):
        if len(found.chosen) > 1:
            raise CpfnetError(
                "stands for two cross-validations, and one is handed on at a time",
                where=folder,
                fix=f"give one of them, such as {found.chosen[0].folder}",
            )
        return found.chosen[0].folder
    return folder


def _open(argument: ModelArgument) -> list[Model]:
    if isinstance(argument, Model):
        return [argument]
    if isinstance(argument, (CrossValidation, Configurations)):
        return argument.ensemble()
    folder = local_folder(argument)
    several = _several(folder)
    if isinstance(several, Configurations):
        logger.info(several.brief())
    return [Model.load(folder)] if several is None else several.ensemble()


def _several(folder: str | PathLike[str]) -> CrossValidation | Configurations | None:
    """What lies in a folder that stands for several Models; None: it does not."""
    if is_configurations(folder):
        return Configurations.load(folder)
    return CrossValidation.load(folder) if is_cross_validation(folder) else None


def default_split(argument: object, dataset: Dataset) -> str | None:
    """The split that is scored unless another is named: of a cross-validation its own cases, out of fold.

    Args:
        argument: as `open_models` takes it.
        dataset: whose labelled cases are scored.

    Returns:
        ``"val"``; None for any other Model, and on data of which no fold has seen a case.
    """
    found = _several(argument) if isinstance(argument, (str, PathLike)) else argument
    if not isinstance(found, (CrossValidation, Configurations)):
        return None
    known = {case for fold in found.folds for case in fold}
    return "val" if any(case.labels and case.id in known for case in dataset.cases) else None
