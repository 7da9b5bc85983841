"""Versions of labels are added, never changed, and which one counts follows from them alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cpfnet.image import Assessment
from cpfnet.serve.cases.case import Case, Label, counting, split_of
from cpfnet.serve.cases.case_store import CaseStore, Conflict
from cpfnet.serve.database import open_database

CASE = Case("case-1", "1" * 64, ("a.png",), "p", None, "m" * 64, "k" * 64, Assessment(0.5, 0.7), 0.0)
LABEL = Label(0, "", "accepted", False, "m" * 64, "a.png", "d" * 64, 0.0)


@pytest.fixture
def store(database: str) -> Iterator[CaseStore]:
    engine = open_database(database)
    made = CaseStore(engine, clock=lambda: 7.0)
    made.add(CASE)
    yield made
    engine.dispose()


def test_a_case_is_recorded_once_as_it_was(store: CaseStore) -> None:
    again, new = store.add(replace(CASE, patient="other"))
    assert (again, new) == (replace(CASE, created=7.0), False)
    assert store.each() == [again]
    assert store.get("case-2") is None


def test_versions_follow_one_another(store: CaseStore) -> None:
    first = store.add_label("case-1", 0, LABEL)
    second = store.add_label("case-1", 1, replace(LABEL, state="draft", model=None))
    found = store.get("case-1")
    assert found is not None
    assert (
        found.labels
        == (first, second)
        == (
            replace(LABEL, version=1, created=7.0),
            replace(LABEL, version=2, created=7.0, state="draft", model=None),
        )
    )
    for base in (0, 1, 3):
        with pytest.raises(Conflict, match=f"version 2, not {base}"):
            store.add_label("case-1", base, LABEL)


def test_of_two_people_who_edit_the_same_one_is_told(store: CaseStore) -> None:
    ended: list[object] = []

    def edit(author: str) -> None:
        try:
            ended.append(store.add_label("case-1", 0, replace(LABEL, author=author)))
        except Conflict as error:
            ended.append(error)

    threads = [threading.Thread(target=edit, args=(author,)) for author in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(one).__name__ for one in ended) == ["Conflict"] * 5 + ["Label"]
    found = store.get("case-1")
    assert found is not None
    assert len(found.labels) == 1


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ("", None),
        ("d", None),
        ("a", 1),
        ("aa", 2),
        ("ad", 1),
        ("r", None),
        ("ar", None),
        ("ara", 3),
        ("u", None),
        ("au", None),
        ("ua", 2),
    ],
)
def test_which_label_counts(versions: str, expected: int | None) -> None:
    """a: accepted, d: draft, r: rejected, u: accepted, as the Model made it."""
    states = {"a": "accepted", "u": "accepted", "d": "draft", "r": "rejected"}
    labels = [
        replace(LABEL, version=number, state=states[letter], untouched=letter == "u")  # type: ignore[arg-type]
        for number, letter in enumerate(versions, 1)
    ]
    found = counting(labels)
    assert [label.version for label in found.values()] == ([] if expected is None else [expected])
    other = replace(LABEL, author="other", version=99)
    assert counting([*labels, other]) == {**found, "other": other}


def test_a_fifth_of_the_patients_is_test() -> None:
    share = sum(split_of(f"patient-{number}") == "test" for number in range(5000)) / 5000
    assert share == pytest.approx(0.2, abs=0.02)
