"""Ids of cases tell them apart and tell nothing else."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet.data.sources.pseudonyms import case_ids, patient_of

UID = "1.2.826.0.1.3680043.8.498.{}"
names = st.sampled_from(["a", "b", "CT", "a_b", "ä b", "1.2.840.113619.2.55.3", "1.2.840.113619.2.55.4", "x\udcff"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(names, max_size=4).map(tuple), min_size=1, max_size=12))
def test_ids_are_unique_printable_and_always_the_same(folders: list[tuple[str, ...]]) -> None:
    uids = [UID.format(number) for number in range(len(folders))]
    ids = case_ids(folders, uids, "root")
    assert len(set(ids)) == len(ids)
    assert all(one and one.isprintable() and "/" not in one and "1.2.840" not in one for one in ids)
    backwards = case_ids(folders[::-1], uids[::-1], "root")
    assert backwards[::-1] == ids


def test_only_folders_that_tell_apart_are_named() -> None:
    folders = [("DICOM", "p1", "CT", "a"), ("DICOM", "p2", "CT", "a"), ("DICOM", "p2", "CT", "b")]
    assert case_ids(folders, ["1", "2", "3"], "root") == ["p1", "p2_a", "p2_b"]
    assert case_ids([("DICOM", "p1")], ["1"], "root") == ["DICOM"]
    assert case_ids([()], ["1"], "root") == ["root"]
    two = case_ids([("p",), ("p",)], ["1", "2"], "root")
    assert all(re.fullmatch("p-[0-9a-f]{8}", one) for one in two)
    assert len(set(two)) == 2


def test_patient_does_not_depend_on_the_order_of_studies() -> None:
    assert patient_of(["1.2", "1.10"]) == patient_of(["1.10", "1.2"]) != patient_of(["1.2"])
