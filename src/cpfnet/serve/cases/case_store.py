"""Cases and the versions of their labels: what was recorded stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import IntegrityError

from cpfnet.errors import CpfnetError
from cpfnet.image import Assessment
from cpfnet.serve.cases.case import Case, Label
from cpfnet.serve.database import reading
from cpfnet.serve.schema import cases, labels


class Conflict(CpfnetError):
    """Somebody else was faster: the label that was edited is no longer the newest."""


class CaseStore:
    """The cases of a server, in the database of its jobs.

    Args:
        engine: from `open_database`.
        clock: seconds since 1970.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time):
        self.engine, self.clock = engine, clock

    def add(self, case: Case) -> tuple[Case, bool]:
        """Record a case, or find the one that has its id; returns it, and whether it is new."""
        row = asdict(case) | {"images": json.dumps(case.images), "quality": json.dumps(asdict(case.quality))}
        del row["labels"]
        row["created"] = self.clock()
        try:
            with self.engine.begin() as db:
                db.execute(cases.insert().values(row))
            new = True
        except IntegrityError:
            new = False
        found = self.get(case.id)
        assert found is not None  # cases are never deleted
        return found, new

    def get(self, id: str) -> Case | None:
        """A case with all versions of its label; None: there is none of this id."""
        with reading(self.engine) as db:
            return next(iter(_cases(db, id)), None)

    def each(self) -> Sequence[Case]:
        """All cases, in the order in which they came."""
        with reading(self.engine) as db:
            return _cases(db)

    def add_label(self, case: str, base: int, label: Label) -> Label:
        """Record a new version; once this returns, it survives a power cut.

        Args:
            case: id.
            base: the version that it was made from, which must be the newest; 0: there was none.
            label: its version and time are set here.

        Raises:
            Conflict: there is a newer one.
        """
        made = replace(label, version=base + 1, created=self.clock())
        newest = select(labels.c.version).where(labels.c.case == case).order_by(labels.c.version.desc()).limit(1)
        try:
            with self.engine.begin() as db:
                found = db.execute(newest).scalar_one_or_none() or 0
                if found != base:
                    raise _conflict(base, found)
                db.execute(labels.insert().values(asdict(made) | {"case": case}))
        except IntegrityError:  # at the same moment
            raise _conflict(base, base + 1) from None
        return made


def _conflict(base: int, newest: int) -> Conflict:
    return Conflict(
        f"the newest label of this case is version {newest}, not {base}",
        fix="fetch the newest one, and make the changes in it",
    )


def _cases(db: Connection, id: str | None = None) -> list[Case]:
    wanted, versions = select(cases).order_by(cases.c.number), select(labels).order_by(labels.c.version)
    if id is not None:
        wanted, versions = wanted.where(cases.c.id == id), versions.where(labels.c.case == id)
    found: dict[str, list[Label]] = {}
    for row in db.execute(versions):
        values: dict[str, Any] = dict(row._mapping)
        del values["number"]
        found.setdefault(values.pop("case"), []).append(Label(**values))
    result = []
    for row in db.execute(wanted):
        values = dict(row._mapping)
        del values["number"]
        values["images"] = tuple(json.loads(values["images"]))
        values["quality"] = Assessment(**json.loads(values["quality"]))
        result.append(Case(**values, labels=tuple(found.get(values["id"], ()))))
    return result
