"""Names of results: the path of the input below what was given, whatever lies beside it; never one name for two."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpfnet.inference.batch.inputs import collect
from cpfnet.inference.batch.result_names import Name, below, distinct
from tests import synthetic
from tests.inference.batch.test_dicom_inputs import EMPTY, digest, zipped
from tests.inference.batch.test_run import images_model, picture, run, tree


def touch(root: Path, *names: str) -> None:
    for name in names:
        synthetic.write_raster(root / name, np.zeros((4, 4), np.uint8))


def names(*inputs: Path | str, modality: str = "other", **more) -> dict[str, str]:
    """File or folder → name, both as text; errors are asserted not to be there."""
    items = collect(inputs, channels=1, modality=modality, **more)
    assert all(item.error is None for item in items), items
    return {str(item.path): item.name for item in items}


PARTS = st.sampled_from(["a", "b", "image", "scan", "images", "overlays", "probabilities", "case.1"])
FILES = st.builds(lambda folders, stem: (*folders, stem), st.lists(PARTS, max_size=3), PARTS)


@given(st.lists(FILES, unique=True, min_size=1, max_size=12), st.integers(0, 3))
def test_names_are_distinct_whatever_the_folders(paths, depth):
    given = ("data", "in")
    found = distinct([Name((*given, *path), max(len(path) - depth, 1)) for path in paths], [".png"] * len(paths))
    assert len(set(found)) == len(paths)
    for path, name in zip(paths, found, strict=True):
        assert "/".join(("", *given, *path)).endswith(f"/{name}")


@given(st.lists(FILES, unique=True, min_size=2, max_size=12))
def test_what_lies_beside_in_the_given_folder_has_no_part_in_a_name(paths):
    """Two inputs of one given folder never share the path below it, so that none grows by another."""
    ways = [Name(("data", "in", *path), len(path)) for path in paths]
    alone = [distinct([way], [".png"])[0] for way in ways]
    assert distinct(ways, [".png"] * len(ways)) == alone


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c/d", "c/e", "f/g/h"]), unique=True, min_size=1))
def test_a_series_is_called_the_same_whoever_stands_beside_it(tmp_path_factory, folders):
    root = tmp_path_factory.mktemp("studies")
    for number, folder in enumerate(folders):
        synthetic.write_series(root / folder, EMPTY[:2], patient=str(number))
    assert set(names(root, modality="ct").values()) == set(folders)


def test_a_picture_keeps_the_folders_below_what_was_given(tmp_path):
    touch(tmp_path, "in/case0/image.png", "in/case1/image.png", "in/case1/deep/other.png")
    found = names(tmp_path / "in")
    assert sorted(found.values()) == ["case0/image", "case1/deep/other", "case1/image"]
    assert names(tmp_path / "in" / "case0" / "image.png") == {str(tmp_path / "in/case0/image.png"): "image"}
    outcomes = run(
        images_model(),
        [synthetic.write_raster(tmp_path / "in/case0/image.png", picture()[0]).parents[1]],
        tmp_path / "out",
    )
    assert [o.status for o in outcomes].count("done") == 1
    assert tree(tmp_path / "out") == ["case0/image.png"]


def test_one_case_is_called_as_beside_others(tmp_path):
    touch(tmp_path, "in/case0/image.png")
    assert list(names(tmp_path / "in").values()) == ["case0/image"]


@pytest.mark.parametrize("folder", ["overlays", "probabilities", "uncertainty"])
def test_no_input_takes_the_place_of_anothers_map(tmp_path, folder):
    touch(tmp_path, f"in/{folder}/x.png", "in/x/x.png")
    assert sorted(names(tmp_path / "in").values()) == [f"in/{folder}/x", "x/x"]


def test_one_stem_in_two_formats_is_told_apart(tmp_path):
    touch(tmp_path, "a.png", "a.tif", "b.png")
    assert sorted(names(tmp_path).values()) == ["a_png", "a_tif", "b"]


def test_two_folders_with_the_same_files_inside(tmp_path):
    touch(tmp_path, "x/in/a.png", "y/in/a.png", "x/in/b.png")
    assert sorted(names(tmp_path / "x", tmp_path / "y").values()) == ["in/b", "x/in/a", "y/in/a"]
    assert sorted(names(str(tmp_path / "*" / "in" / "a.png")).values()) == ["x/in/a", "y/in/a"]


def test_what_nothing_tells_apart_is_refused_and_the_others_are_done(tmp_path):
    for name in ("case_0000.png", "case_0001.png", "case.png", "other.png"):
        synthetic.write_raster(tmp_path / "in" / name, picture()[0])
    outcomes = run(images_model(channels=2), [tmp_path / "in"], tmp_path / "out")
    messages = {o.path.name: o.message for o in outcomes}
    assert "would be called case_png, and so would that of" in messages["case.png"]
    assert "would be called case_png, and so would that of" in messages["case_0000.png"]
    assert "called" not in messages["other.png"]
    assert tree(tmp_path / "out") == []


class TestSeries:
    def test_alone_or_among_others_a_folder_gives_it_its_name(self, tmp_path):
        synthetic.write_series(tmp_path / "in" / "A", EMPTY, patient="a")
        assert list(names(tmp_path / "in", modality="ct").values()) == ["A"]
        synthetic.write_series(tmp_path / "in" / "B", EMPTY, patient="b")
        assert sorted(names(tmp_path / "in", modality="ct").values()) == ["A", "B"]
        assert list(names(tmp_path / "in" / "A", modality="ct").values()) == ["A"]

    def test_a_third_series_in_one_folder_renames_no_other(self, tmp_path):
        for series in "12":
            synthetic.write_series(tmp_path / "pat", EMPTY, series=series, names=f"{series}_{{}}")
        two = names(tmp_path, modality="ct")
        synthetic.write_series(tmp_path / "pat", EMPTY, series="3", names="3_{}")
        synthetic.write_series(tmp_path / "pat" / "below", EMPTY, series="4")
        assert set(two.values()) < set(names(tmp_path, modality="ct").values())
        assert "pat/below" in names(tmp_path, modality="ct").values()

    def test_a_file_that_is_a_series_has_its_own_name(self, tmp_path):
        for name in ("in/x/ap.dcm", "in/x/lateral.dcm", "in/y/ap.dcm"):
            synthetic.write_photograph(tmp_path / name, EMPTY[0].astype(np.uint8), series=name)
        assert sorted(names(tmp_path / "in").values()) == ["x/ap", "x/lateral", "y/ap"]

    def test_archives_are_called_as_files(self, tmp_path):
        for patient in "ab":
            synthetic.write_series(tmp_path / patient, EMPTY, patient=patient)
            zipped(tmp_path / "in" / patient / "study.zip", tmp_path / patient)
        assert sorted(names(tmp_path / "in", modality="ct").values()) == ["a/study", "b/study"]
        assert list(names(tmp_path / "in" / "a" / "study.zip", modality="ct").values()) == ["study"]

    def test_a_series_named_by_its_uid_is_called_as_among_others(self, tmp_path):
        for series in "12":
            synthetic.write_series(tmp_path / "pat", EMPTY, series=series, names=f"{series}_{{}}")
        uid = synthetic.dicom_uid("P-0815", "study", "1")
        one = names(tmp_path / "pat" / f"series={uid}", modality="ct")
        assert list(one.values()) == [f"pat-{digest(uid)}"]
        assert set(one.values()) < set(names(tmp_path / "pat", modality="ct").values())


def test_the_rule_itself(tmp_path):
    given = tmp_path / "in"
    assert str(below(given, given / "case0", "image")) == "case0/image"
    assert str(below(given, given, "image")) == "image"
    assert str(below(given, given / "a" / "b")) == "a/b"
    assert str(below(given, given)) == "in"
