"""Which cases train, validate and test: the dataset's own splits, else folds; a patient is never parted."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import numpy as np

from cpfnet.data.case import Case, Dataset, add_labels, dataset_warnings
from cpfnet.errors import DatasetError
from cpfnet.planning import Plan
from cpfnet.text import counted, natural

logger = logging.getLogger(__name__)


def by_patient(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """Patient → cases, both in natural order."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda c: (natural(c.patient), natural(c.id))):
        groups[case.patient].append(case)
    return groups


def folds(cases: Iterable[Case], count: int, seed: int) -> list[tuple[list[Case], list[Case]]]:
    """Cross-validation that never parts a patient; the same for the same cases, count and seed.

    Where the dataset numbers its own folds, these are taken. Fewer patients than ``count`` make as many folds as there
    are patients; a single patient validates what it trains on.

    Args:
        cases: those to train and validate on.
        count: folds wanted.
        seed: shuffles the patients.

    Returns:
        One (train, val) a fold; folds hold as nearly the same number of cases as the patients allow.
    """
    cases = list(cases)
    groups = by_patient(cases)
    number: dict[str, int] = {}
    if len(groups) < 2:
        return [(cases, cases)]
    if all(case.fold is not None for case in cases) and len({case.fold for case in cases}) > 1:
        number = {case.id: case.fold for case in cases if case.fold is not None}
    else:
        names = list(groups)
        np.random.default_rng(seed).shuffle(names)
        names.sort(key=lambda name: -len(groups[name]))  # stable: large patients first, the rest stays shuffled
        sizes = [0] * min(count, len(groups))
        for name in names:
            smallest = sizes.index(min(sizes))
            sizes[smallest] += len(groups[name])
            number |= {case.id: smallest for case in groups[name]}
    return [
        ([c for c in cases if number[c.id] != k], [c for c in cases if number[c.id] == k])
        for k in sorted(set(number.values()))
    ]


def split(dataset: Dataset, plan: Plan, fold: int | Literal["all"] | None = None) -> tuple[list[Case], list[Case]]:
    """Cases to train on and cases to validate on; how they were chosen is logged.

    Test cases and unlabelled cases are in neither. Without ``fold`` the dataset's own ``val`` split validates, if it
    has one, else fold 0; with ``"all"`` nothing validates.

    Raises:
        DatasetError: no labelled case to train on, none among those declared to validate, or no such fold.
    """
    for message in dataset_warnings(dataset):
        logger.warning(message)
    pool = [case for case in dataset.cases if case.split != "test"]
    if len(pool) < len(dataset.cases):
        logger.info(f"{counted(len(dataset.cases) - len(pool), 'case')} of the test split kept apart")
    labelled = to_learn_from(dataset)
    own = [case for case in labelled if case.split == "val"]
    train = [case for case in labelled if case.split != "val"]
    declared = [case.id for case in pool if case.split == "val"]
    if declared and not own and fold is None:
        raise DatasetError(
            f"none of the cases that shall validate ({', '.join(declared):.200}) has a label",
            where=dataset.root,
            fix="label one of them, name others as `val`, or choose a fold (--fold)",
        )
    if own and fold is None:
        logger.info(f"the dataset's own split: {counted(len(train), 'case')} train, {len(own)} validate")
        return train, own
    if own:
        logger.info("a fold was asked for: the dataset's own val split joins the training cases")
    if fold == "all":
        logger.info(f"all {counted(len(labelled), 'case')} train, none validates")
        return labelled, []
    parts = folds(labelled, plan.folds.count, plan.folds.seed)
    patients = len(by_patient(labelled))
    if patients == 1:
        logger.warning(
            f"one patient ({counted(len(labelled), 'case')}): validation is on the training data and tells nothing "
            "about others"
        )
    elif patients < plan.folds.count and len(parts) == patients:
        logger.warning(f"{plan.folds.count} folds asked for, but only {patients} patients: {patients} folds")
    elif len(parts) != plan.folds.count:
        logger.info(f"the dataset's own {len(parts)} folds are used, not {plan.folds.count}")
    chosen = 0 if fold is None else fold
    if not 0 <= chosen < len(parts):
        raise DatasetError(
            f"no fold {chosen}; there are {len(parts)}", where=dataset.root, fix=f"choose 0 … {len(parts) - 1}"
        )
    train, val = parts[chosen]
    if patients > 1:
        logger.info(f"fold {chosen} of {len(parts)}: {counted(len(train), 'case')} train, {len(val)} validate")
    return train, val


def to_learn_from(dataset: Dataset) -> list[Case]:
    """The labelled cases that are not kept apart for the test; folds are made of them.

    Raises:
        DatasetError: there are none, or all of them are to validate.
    """
    labelled = [case for case in dataset.cases if case.split != "test" and case.labels]
    if all(case.split == "val" for case in labelled):
        raise DatasetError(
            f"no labelled case to train on ({len(dataset.cases)} cases, {len(labelled)} of them for validation)",
            where=dataset.root,
            fix=f"{add_labels(dataset)}; `cpfnet check` says which are missing",
        )
    return labelled
