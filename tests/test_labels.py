"""File values → codes → classes, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from cpfnet import labels as lb
from cpfnet.errors import DatasetError
from cpfnet.image import Image
from cpfnet.labels import IGNORED
from cpfnet.planning import COLOURS, LabelClass, Labels

BRATS = {
    "exclusive": False,
    "classes": [
        {"name": "whole", "values": [1, 2, 4]},
        {"name": "core", "values": [1, 4]},
        {"name": "enhancing", "values": [4]},
    ],
}

GREY = st.integers(-1000, 70_000)
COLOUR = st.integers(0, COLOURS - 1).map(lambda c: f"#{c:06x}")


def one(values: object = 1, **more: object) -> Labels:
    return Labels.model_validate({"classes": [{"name": "a", "values": values}], **more})


def grey(values: object, dtype: object = np.int32) -> Image:
    return Image(np.array([[values]], dtype=dtype))


def rgb(*colours: str) -> Image:
    channels = [[int(c[1:][i : i + 2], 16) for c in colours] for i in (0, 2, 4)]
    return Image(np.array(channels, dtype=np.uint8)[:, None])


@st.composite
def exclusive(draw: st.DrawFn, values: st.SearchStrategy = GREY) -> Labels:
    """Any exclusive labels: several values a class, background of several, perhaps ignored ones."""
    pool = draw(
        st.lists(values, min_size=2, max_size=14, unique=True).map(lambda v: list(dict.fromkeys(map(_plain, v))))
    )
    if len(pool) < 2:
        pool = [0, 1]
    cuts = sorted(draw(st.lists(st.integers(1, len(pool)), max_size=4)))
    groups = [g for g in (pool[a:b] for a, b in zip([0, *cuts], [*cuts, len(pool)], strict=True)) if g]
    if len(groups) == 1:
        groups = [groups[0][:1], groups[0][1:]]
    ignore = groups.pop() if len(groups) > 2 and draw(st.booleans()) else []
    return Labels.model_validate(
        {
            "background": groups[0],
            "ignore": ignore,
            "classes": [{"name": f"c{i}", "values": g} for i, g in enumerate(groups[1:])],
        }
    )


def _plain(value: int | str) -> int | str:
    """A value as the Plan holds it."""
    return LabelClass(name="x", values=(value,)).values[0]


def _file(draw: st.DataObject, labels: Labels) -> tuple[np.ndarray, Image]:
    """Codes and a label file with these codes, drawn from all values that mean them."""
    means = {0: labels.background, **{i + 1: c.values for i, c in enumerate(labels.classes)}}
    if labels.ignore:
        means[IGNORED] = labels.ignore
    pixels = draw.draw(
        st.lists(st.sampled_from([(k, v) for k, vs in means.items() for v in vs]), min_size=1, max_size=40)
    )
    codes = np.array([[k for k, _ in pixels]], dtype=np.uint8)
    if any(isinstance(v, str) for _, v in pixels):
        return codes, rgb(*[v if isinstance(v, str) else f"#{v:02x}{v:02x}{v:02x}" for _, v in pixels])
    return codes, grey([v for _, v in pixels])


@given(exclusive(), st.data())
def test_every_file_value_becomes_the_code_of_its_class(labels: Labels, data: st.DataObject) -> None:
    codes, image = _file(data, labels)
    np.testing.assert_array_equal(lb.encode(image, labels), codes)


@given(exclusive(COLOUR), st.data())
def test_colours_too(labels: Labels, data: st.DataObject) -> None:
    codes, image = _file(data, labels)
    np.testing.assert_array_equal(lb.encode(image, labels), codes)


@given(st.one_of(exclusive(), exclusive(COLOUR)), st.data())
def test_written_predictions_read_back(labels: Labels, data: st.DataObject) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=3, max_side=6))
    predicted = data.draw(arrays.arrays(np.int64, shape, elements=st.integers(0, len(labels.classes))))
    file = lb.decode(predicted, labels)
    assert set(np.unique(file)) <= {
        lb.number_of(v) for v in (labels.background[0], *(c.written for c in labels.classes))
    }
    assert lb.classes_present(file, labels) == tuple((predicted == k + 1).any() for k in range(len(labels.classes)))
    if file.max() < COLOURS:
        np.testing.assert_array_equal(lb.encode_prediction(Image(file[None]), labels), predicted)
        np.testing.assert_array_equal(lb.encode(Image(file[None]), labels), predicted)


@given(st.permutations([1, 2, 3, 4]), st.data())
def test_predictions_read_back_when_written_values_are_swapped(written: list[int], data: st.DataObject) -> None:
    labels = Labels.model_validate(
        {"classes": [{"name": f"c{i}", "values": [i + 1], "write": w} for i, w in enumerate(written)]}
    )
    predicted = data.draw(arrays.arrays(np.int64, (3, 5), elements=st.integers(0, 4)))
    file = lb.decode(predicted, labels)
    np.testing.assert_array_equal(lb.encode_prediction(Image(file[None]), labels), predicted)


@given(st.data())
def test_nested_regions_survive_writing(data: st.DataObject) -> None:
    """A label map holds nested regions: what is read back belongs to the same regions."""
    labels = Labels.model_validate(BRATS)
    depth = data.draw(arrays.arrays(np.int64, (4, 6), elements=st.integers(0, 3)))
    regions = np.stack([depth > 0, depth > 1, depth > 2])
    file = lb.decode(regions, labels)
    back = lb.membership(labels)[lb.encode_prediction(Image(file[None]), labels)]
    np.testing.assert_array_equal(np.moveaxis(back, -1, 0), regions)
    assert lb.classes_present(file, labels) == tuple(regions.any(axis=(1, 2)))


def test_regions_share_values() -> None:
    labels = Labels.model_validate(BRATS)
    table = lb.membership(labels)
    truth = {0: (0, 0, 0), 2: (1, 0, 0), 1: (1, 1, 0), 4: (1, 1, 1)}
    codes = lb.encode(grey(list(truth)), labels)[0]
    np.testing.assert_array_equal(table[codes], np.array(list(truth.values()), bool))
    assert [c.written for c in labels.classes] == [2, 1, 4]
    assert labels.outputs == 3
    assert not table[0].any()
    assert not table[IGNORED].any()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([("core", [1]), ("whole", [1, 2])], "outermost"),
        ([("a", [1]), ("b", [1])], "outermost"),
    ],
)
def test_regions_from_the_inside_out_are_refused(classes: list, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Labels.model_validate({"exclusive": False, "classes": [{"name": n, "values": v} for n, v in classes]})


def test_region_written_as_a_value_of_an_inner_one_is_refused() -> None:
    broken = {**BRATS, "classes": [{**BRATS["classes"][0], "write": 4}, *BRATS["classes"][1:]]}  # type: ignore[index,misc]
    with pytest.raises(ValidationError, match=r"can be written as \[2\], not as 4"):
        Labels.model_validate(broken)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64, bool])
def test_any_stored_type(dtype: type) -> None:
    np.testing.assert_array_equal(lb.encode(grey([0, 1, 1], dtype), one()), [[0, 1, 1]])


def test_0_255() -> None:
    labels = one(255)
    np.testing.assert_array_equal(lb.encode(grey([0, 255], np.uint8), labels), [[0, 1]])
    written = lb.decode(np.array([[0, 1]]), labels)
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(written, [[0, 255]])


@pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (256, np.uint16), (70_000, np.int32), (-1, np.int32)])
def test_written_type_is_the_smallest_that_fits(value: int, dtype: type) -> None:
    assert lb.decode(np.array([[0, 1]]), one(value)).dtype == dtype


@pytest.mark.parametrize("value", [1, 255, 256, -1])
def test_values_may_take_the_place_of_classes(value: int) -> None:
    classes = np.random.default_rng(0).integers(0, 2, (3, 4, 5), np.uint8)
    expected, place = lb.decode(classes, one(value)), classes.copy()
    written = lb.decode(place, one(value), overwrite=True)
    np.testing.assert_array_equal(written, expected)
    assert written.dtype == expected.dtype
    assert np.shares_memory(written, place) == (expected.dtype == np.uint8)


def test_grey_rgb_is_grey() -> None:
    """A 0/255 mask saved as RGB, with or without alpha, is the grey one."""
    plane = np.array([[0, 255, 255]], dtype=np.uint8)
    for channels in (3, 4):
        np.testing.assert_array_equal(lb.encode(Image(np.stack([plane] * channels)), one(255)), [[0, 1, 1]])
    assert one("#FFFFFF") == one(255)


def test_alpha_does_not_count() -> None:
    array = np.array([[[255, 0]], [[0, 0]], [[0, 0]], [[7, 9]]], dtype=np.uint8)
    np.testing.assert_array_equal(lb.encode(Image(array), one("#ff0000")), [[1, 0]])


def test_soft_mask() -> None:
    labels = one(255, threshold=127, ignore=[128])
    np.testing.assert_array_equal(lb.encode(grey([0, 127, 128, 129, 255]), labels), [[0, 0, IGNORED, 1, 1]])
    np.testing.assert_array_equal(lb.encode(grey([0.2, 0.7], np.float32), one(1, threshold=0.5)), [[0, 1]])
    np.testing.assert_array_equal(lb.encode_prediction(grey([0, 255]), labels), [[0, 1]])


def test_background_of_several_values_is_written_as_the_first() -> None:
    labels = one(5, background=[3, 0])
    np.testing.assert_array_equal(lb.encode(grey([0, 3, 5]), labels), [[0, 0, 1]])
    np.testing.assert_array_equal(lb.decode(np.array([[0, 1]]), labels), [[3, 5]])


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([0, 1, 7, 7], np.uint8, r"unexpected label values 7 on 50.00% .* known are 0, 1"),
        ([0, -1], np.int16, "unexpected label values -1"),
        ([0, 0.5], np.float32, "unexpected label values 0.5"),
        ([0, np.nan], np.float32, "from nan to nan; expected finite numbers"),
        ([0, np.inf], np.float32, "expected finite numbers"),
        ([0, 2**63], np.uint64, "from 0 to 9223372036854775808"),
        ([0, COLOURS + 1], np.int32, "expected finite numbers"),
    ],
)
def test_unexpected_values_are_named_with_their_share(values: list, dtype: type, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        lb.encode(grey(values, dtype), one(), where="case_07.png")
    assert caught.value.where == "case_07.png"
    assert caught.value.fix


def test_unexpected_colours_are_named_as_colours() -> None:
    with pytest.raises(DatasetError, match=r"unexpected label values #00ff00 on 50.00%.* known are 0, #ff0000"):
        lb.encode(rgb("#ff0000", "#00ff00"), one("#ff0000"))


def test_nan_in_a_soft_mask_is_not_background() -> None:
    with pytest.raises(DatasetError, match="finite"):
        lb.encode(grey([0, np.nan], np.float64), one(1, threshold=0.5))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4, 4), np.uint8), "2 channels of uint8"),
        (np.zeros((3, 4, 4), np.uint16), "3 channels of uint16"),
    ],
)
def test_what_is_no_label_file(array: np.ndarray, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        lb.encode(Image(array), one(), where="x.tif")
    assert caught.value.where == "x.tif"


def test_253_classes_are_the_most() -> None:
    def many(count: int) -> Labels:
        return Labels.model_validate({"classes": [{"name": f"c{i}", "values": [i]} for i in range(1, count + 1)]})

    assert lb.encode(grey([253]), many(253)).item() == 253
    with pytest.raises(ValidationError, match="at most 253"):
        many(254)


def test_empty_slice() -> None:
    assert lb.encode(Image(np.zeros((1, 0, 5), np.uint8)), one()).shape == (0, 5)


@given(st.integers(-COLOURS, COLOURS - 1) | COLOUR)
def test_packed_values_name_themselves(value: int | str) -> None:
    plain = _plain(value)
    assert lb.value_of(lb.number_of(plain)) == plain


def test_a_prediction_in_other_values_is_told_which_to_write() -> None:
    labels = Labels(classes=(LabelClass(name="lesion", values=(255,)),))
    with pytest.raises(DatasetError, match="unexpected label values 1 ") as caught:
        lb.encode_prediction(grey([0, 1]), labels, where="a.png")
    assert caught.value.where == "a.png"
    assert "lesion 255" in str(caught.value.fix)


def structures(numbers: object, *meanings: set[str]) -> Image:
    return Image(np.array([[numbers]], np.uint8), meanings=tuple(map(frozenset, meanings)))


def named(**more: object) -> Labels:
    tumour = {"name": "Tumour", "values": [1], "names": ["GTV*", "gross [a]"]}
    return Labels.model_validate({"classes": [tumour, {"name": "lung", "values": [2], "names": ["lung_?"]}], **more})


@pytest.mark.parametrize("name", ["tumour", " TUMOUR ", "GTV-1", "gtv", "Gross [A]"])
def test_structures_mean_a_class_by_its_name_and_its_patterns(name: str) -> None:
    codes = lb.encode(structures([0, 1, 2, 0], set(), {name}, {"Lung_L"}), named())
    np.testing.assert_array_equal(codes, [[0, 1, 2, 0]])


@pytest.mark.parametrize("name", ["tumours", "PTV-GTV", "gross a", "lung_", "lung_LL"])
def test_other_structures_are_background(name: str) -> None:
    codes = lb.encode(structures([1, 2, 3], set(), {name}, {"GTV"}, {name, "GTV"}), named())
    np.testing.assert_array_equal(codes, [[0, 1, 1]])


def test_structures_of_no_class_at_all_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"\(Heart\) is one of the classes \(Tumour, lung\)") as caught:
        lb.encode(structures([0, 1], set(), {"Heart"}), named(), where="rs.dcm")
    assert caught.value.where == "rs.dcm"
    assert not lb.encode(structures([0, 0], set()), named()).any()  # nothing is drawn: nothing is wrong


def test_several_structures_make_one_class() -> None:
    codes = lb.encode(structures([1, 2, 3], set(), {"GTV-1"}, {"GTV-2"}, {"GTV-1", "GTV-2"}), named())
    np.testing.assert_array_equal(codes, [[1, 1, 1]])


@pytest.mark.parametrize(("rule", "code"), [("first", 1), ("last", 2)])
def test_overlapping_structures_of_exclusive_classes(rule: str, code: int) -> None:
    label = structures([0, 1, 1, 2], set(), {"GTV", "lung_r"}, {"lung_r"})
    with pytest.raises(DatasetError, match=r"Tumour and lung overlap on 2 pixels \(GTV, lung_r\)"):
        lb.encode(label, named())
    np.testing.assert_array_equal(lb.encode(label, named(overlap=rule)), [[0, code, code, 2]])


def test_an_exclusive_class_has_the_structures_of_its_own_name() -> None:
    """Whatever the patterns of others, and without asking for an order."""
    labels = Labels.model_validate(
        {
            "classes": [
                {"name": "Lung", "values": [1], "names": ["Lung*"]},
                {"name": "lung tumour", "values": [2]},
                {"name": "other", "values": [3], "names": ["*"]},
            ],
            "overlap": "last",
        }
    )
    label = structures([0, 1, 2, 3], set(), {"Lung"}, {"LUNG tumour "}, {"Heart"})
    np.testing.assert_array_equal(lb.encode(label, labels), [[0, 1, 2, 3]])
    np.testing.assert_array_equal(lb.encode_prediction(label, labels), [[0, 1, 2, 3]])


def test_a_name_of_two_exclusive_classes_is_refused_as_such() -> None:
    label = structures([1, 1], set(), {"lung_gtv"})
    labels = named()
    both = labels.classes[0].model_copy(update={"names": ("*gtv",)}), labels.classes[1]
    wide = both[1].model_copy(update={"names": ("lung*",)})
    with pytest.raises(DatasetError, match=r"one name means both Tumour and lung on 2 pixels \(lung_gtv\)") as caught:
        lb.encode(label, labels.model_copy(update={"classes": (both[0], wide)}))
    assert "narrow the patterns" in str(caught.value.fix)


def test_classes_that_no_structure_means_are_told() -> None:
    drawn = structures([0, 1], set(), {"GTV"}, {"lung_r"})  # lung_r was looked for, and has no pixel
    assert lb.missing_classes(drawn, named()) == ()
    (note,) = lb.missing_classes(structures([0, 1], set(), {"GTV"}), named())
    assert "'lung'" in note
    assert lb.missing_classes(grey([0, 1]), named()) == ()


def test_a_region_drawn_outside_of_those_around_it_is_refused() -> None:
    labels = Labels.model_validate({**BRATS, "classes": [*BRATS["classes"][:2]]})
    with pytest.raises(DatasetError, match=r"region core lies outside all others on 1 pixels \(core\)"):
        lb.encode(structures([0, 1, 2], set(), {"core"}, {"whole", "core"}), labels)


def test_an_overlap_without_a_pixel_is_none() -> None:
    assert lb.encode(structures([1], set(), {"GTV"}, {"GTV", "lung_r"}), named()).item() == 1


def test_overlapping_structures_of_regions() -> None:
    labels = Labels.model_validate({**BRATS, "classes": [*BRATS["classes"][:2]]})
    codes = lb.encode(structures([0, 1, 2], set(), {"whole"}, {"whole", "core"}), labels)
    np.testing.assert_array_equal(lb.membership(labels)[codes[0]], [[False, False], [True, False], [True, True]])
    with pytest.raises(DatasetError, match="a file value in `values` of both"):
        lb.encode(
            structures([1], set(), {"whole", "core"}),
            Labels.model_validate(
                {"exclusive": False, "classes": [{"name": "whole", "values": [1]}, {"name": "core", "values": [2]}]}
            ),
        )


class TestPredictionsWithNames:
    """As DICOM segmentations of predictions come back."""

    def test_exclusive_classes_by_their_names(self):
        labels = Labels(classes=[{"name": "liver", "values": [5]}, {"name": "GTV", "values": [9], "names": ["GTV-*"]}])
        back = lb.encode_prediction(structures([0, 1, 2], set(), {"GTV"}, {"liver"}), labels)
        np.testing.assert_array_equal(back, [[0, 2, 1]])
        back = lb.encode_prediction(structures([0, 1], set(), {"gtv-1"}), labels)
        np.testing.assert_array_equal(back, [[0, 2]])

    def test_a_region_has_the_predictions_of_its_own_name(self):
        """Though a pattern for drawn structures of the inner one matches it, too."""
        outer = {"name": "gtv whole", "values": [1, 2]}
        labels = Labels.model_validate(
            {"exclusive": False, "classes": [outer, {"name": "core", "values": [2], "names": ["gtv*"]}]}
        )
        back = lb.encode_prediction(structures([0, 1, 2], set(), {"gtv whole"}, {"core", "gtv whole"}), labels)
        np.testing.assert_array_equal(lb.membership(labels)[back[0]], [[False, False], [True, False], [True, True]])

    @pytest.mark.parametrize("inner", [{"core"}, {"core", "tumour"}])
    def test_an_inner_region_lies_in_the_outer_one_painted_over_or_not(self, inner):
        labels = Labels(
            classes=[{"name": "tumour", "values": [1, 2]}, {"name": "core", "values": [2]}], exclusive=False
        )
        back = lb.encode_prediction(structures([0, 1, 2], set(), {"tumour"}, inner), labels)
        np.testing.assert_array_equal(lb.membership(labels)[back], [[[0, 0], [1, 0], [1, 1]]])

    def test_names_of_nothing_that_is_looked_for(self):
        labels = Labels(classes=[{"name": "liver", "values": [5]}])
        with pytest.raises(DatasetError, match=r"none of its structures \(heart\)"):
            lb.encode_prediction(structures([0, 1], set(), {"heart"}), labels)


@pytest.mark.parametrize("both", [3, 2])
def test_regions_that_are_not_nested_are_written_with_the_value_of_both(both: int) -> None:
    alone = 5 - both
    labels = Labels.model_validate(
        {"exclusive": False, "classes": [{"name": "a", "values": [1, both]}, {"name": "b", "values": [2, 3]}]}
    )
    assert [c.written for c in labels.classes] == [1, alone]
    planes = np.array([[[False, True, True, False]], [[False, False, True, True]]])
    values = lb.decode(planes, labels)
    np.testing.assert_array_equal(values, [[0, 1, both, alone]])
    codes = lb.encode_prediction(Image(values[None]), labels)
    np.testing.assert_array_equal(np.moveaxis(lb.membership(labels)[codes], -1, 0), planes)


@given(st.integers(2, 4), st.data())
def test_every_set_of_regions_with_a_value_comes_back(count: int, data: st.DataObject) -> None:
    sets = [frozenset({k}) for k in range(count)]
    more = st.frozensets(st.integers(0, count - 1), min_size=2)
    sets += sorted(data.draw(st.sets(more, max_size=5)), key=sorted)
    order = data.draw(st.permutations(range(len(sets))))
    values = {group: 10 + number for group, number in zip(sets, order, strict=True)}
    classes = [{"name": f"r{k}", "values": sorted(v for g, v in values.items() if k in g)} for k in range(count)]
    labels = Labels.model_validate({"exclusive": False, "classes": classes})
    planes = np.array([[[k in group for group in sets]] for k in range(count)])
    np.testing.assert_array_equal(lb.decode(planes, labels), [[values[group] for group in sets]])
