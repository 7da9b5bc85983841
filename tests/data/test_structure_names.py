"""Undeclared names of structures become classes: spellings together, nothing drawn over something else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from cpfnet.data.dataset_yaml import Declaration
from cpfnet.data.structure_names import MOST_NAMES, classes_of
from cpfnet.errors import DatasetError
from cpfnet.planning import Labels

HERE = Path("set")


def propose(*cases: dict[str, int]) -> tuple[Labels, str]:
    return classes_of(cases, [{} for _ in cases], HERE)


def test_each_name_is_a_class_numbered_from_1() -> None:
    labels, _ = propose({"Lung": 50, "GTV-1": 3}, {"Lung": 40})
    assert [(c.name, c.values, c.names) for c in labels.classes] == [("GTV-1", (1,), ()), ("Lung", (2,), ())]


def test_spellings_of_one_name_are_one_class_called_as_most_are() -> None:
    labels, why = propose({"GTV-1": 3}, {"gtv_1": 3}, {"GTV 1": 2}, {"GTV-1": 4}, {" gtv-1 ": 1})
    (gtv,) = labels.classes
    assert gtv.name == "GTV-1"
    assert gtv.names == ("GTV 1", "gtv_1")
    assert all(gtv.means(name) for name in ("GTV-1", "gtv_1", "GTV 1", " gtv-1 "))
    assert "GTV-1 also as GTV 1, gtv_1" in why


def test_what_is_never_drawn_and_what_means_background_is_no_class() -> None:
    labels, _ = propose({"liver": 9, "isocentre": 0, "Background": 90})
    assert [c.name for c in labels.classes] == ["liver"]


def test_a_star_in_a_name_is_no_pattern() -> None:
    labels, _ = propose({"Lung-": 5, "Heart": 1}, {"Lung*": 5, "Lung-": 5}, {"LUNG_": 1, "Lung-": 1})
    lung = next(c for c in labels.classes if c.name == "Lung-")
    assert not lung.means("Lung left")


def test_nothing_drawn_is_refused() -> None:
    with pytest.raises(DatasetError, match="no structure is drawn"):
        propose({"liver": 0}, {})


def test_too_many_are_refused_with_an_example() -> None:
    with pytest.raises(DatasetError, match=f"{MOST_NAMES + 1} different") as refused:
        propose({f"part {i}": 5 for i in range(MOST_NAMES + 1)})
    assert "labels:" in str(refused.value.fix)


def test_overlap_is_refused_and_the_fix_is_a_declaration_that_orders_them() -> None:
    with pytest.raises(DatasetError, match="liver and Tumour-1 on 12 pixels") as refused:
        classes_of(
            [{"Tumour-1": 12, "liver": 400}, {"TUMOUR 1": 7}, {"Tumour-1": 2}],
            [{frozenset({"Tumour-1", "liver"}): 12, frozenset({"Tumour-1", "TUMOUR 1"}): 3}, {}, {}],
            HERE,
        )
    line = re.search("`(labels: .*)`", str(refused.value.fix))
    assert line is not None
    labels = Declaration.model_validate(YAML(typ="safe").load(line[1])).labels
    assert labels is not None
    assert [c.name for c in labels.classes] == ["liver", "Tumour-1"]
    assert labels.overlap == "last"
    assert labels.classes[1].means("TUMOUR 1")
