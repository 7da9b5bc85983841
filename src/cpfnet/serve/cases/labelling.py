"""Keeping cases and their labels: checked, recorded, and then told in the lists of the data set."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from cpfnet.data.dataset_yaml import Declaration
from cpfnet.errors import CpfnetError
from cpfnet.planning import Plan
from cpfnet.serve.cases.case import Case, Label
from cpfnet.serve.cases.dataset import write_dataset
from cpfnet.serve.files import read_manifest
from cpfnet.serve.store import Store
from cpfnet.settings import read_yaml


class OtherTask(CpfnetError):
    """Labels of several tasks do not make one data set."""


class Labelling:
    """The cases of a server whose Models have one task.

    Args:
        store: cases and files.
        plans: of the Models.
    """

    def __init__(self, store: Store, plans: Sequence[Plan]):
        self.store, self.plan = store, plans[0]
        self._lock = threading.Lock()
        self._reason = "the Models of this server have different labels or channels" if _differ(plans) else ""
        own = store.folder / "dataset.yaml"
        if not self._reason and own.is_file():
            told = read_yaml(Declaration, own)
            names = tuple(channel.name for channel in self.plan.channels)
            if (told.labels, told.channels) != (self.plan.labels, names):
                self._reason = "the cases of this store have other labels or channels than its Models"
        if not self._reason and store.cases.each():  # an earlier server may have been stopped between two steps
            self.tell()

    def check(self) -> None:
        """Raises: OtherTask: no case can be kept here."""
        if self._reason:
            raise OtherTask(self._reason, fix="serve the Models of one task, with a store of their own (--store)")

    def keep(self, case: Case) -> tuple[Case, bool]:
        """Record a case; returns it, and whether it is new.

        Raises:
            FileNotFoundError: its job was deleted meanwhile, with its files.
        """
        files = self.store.files
        files.claim([case.input, case.kept])
        files.claim(read_manifest(files.path(case.input)).values())
        found, new = self.store.cases.add(case)
        if new:
            self.tell()
        return found, new

    def label(self, case: Case, base: int, label: Label) -> Label:
        """Record a new version of a case's label.

        Raises:
            Conflict: there is a newer one than the one that it was made from.
        """
        made = self.store.cases.add_label(case.id, base, label)
        self.tell()
        return made

    def tell(self) -> None:
        """Bring the lists of the data set up to date."""
        with self._lock:
            write_dataset(self.store.folder, self.store.files, self.store.cases.each(), self.plan)


def _differ(plans: Sequence[Plan]) -> bool:
    def task(plan: Plan) -> tuple[object, ...]:
        return plan.labels, tuple(channel.name for channel in plan.channels), plan.modality, plan.source

    return any(task(plan) != task(plans[0]) for plan in plans)
