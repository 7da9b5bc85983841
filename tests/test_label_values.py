"""Label values that differ from what was meant: read as what was meant, or refused with the value they are near to."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

import cpfnet
from cpfnet import formats
from cpfnet.data.checks.check import check
from cpfnet.data.dataset import load
from cpfnet.errors import DatasetError
from cpfnet.image import Image
from cpfnet.label_values import black_and_white, colours_of_blurred, correct_values, main_values, region_mask
from cpfnet.labels import encode, pack, round_to_integers
from cpfnet.planner.fingerprint import fingerprint
from cpfnet.planning import LabelClass, Labels
from tests.synthetic import blobs, make_images_dataset, make_volumes_dataset, write_raster

VESSEL = Labels(classes=(LabelClass(name="vessel", values=(255,)),))


def classes(count: int) -> np.ndarray:
    """A volume ``(x, y, z)`` that holds every class."""
    return np.random.default_rng(count).permutation(np.arange(12 * 11 * 10) % (count + 1)).reshape(12, 11, 10)


def scaled(path: Path, values: np.ndarray, stored: type, kind: type = np.float64) -> Path:
    """Floats that nibabel saves as integers with a scale of its own."""
    image = nibabel.Nifti1Image(values.astype(kind), np.eye(4))
    image.set_data_dtype(stored)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("stored", [np.int16, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("count", [1, 2, 4, 31, 117])
def test_integers_off_by_a_scale_are_the_integers(tmp_path: Path, count: int, stored: type, kind: type) -> None:
    truth = classes(count)
    path = scaled(tmp_path / "label.nii.gz", truth, stored, kind)
    held = np.asanyarray(nibabel.load(path).dataobj)
    label = formats.read_label(path)
    np.testing.assert_array_equal(label.array[0], truth.T)
    itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat64))
    np.testing.assert_array_equal(label.array[0], np.rint(itk))
    off = not np.array_equal(np.float32(held), truth)
    assert [note.split(" by up to")[0] for note in label.warnings] == ["values off whole numbers"] * off
    assert off == (label.array.dtype.kind in "iu" and stored != np.float32)
    assert (
        encode(label, Labels(classes=tuple(LabelClass(name=f"c{v}", values=(v,)) for v in range(1, count + 1)))).max()
        == count
    )


@pytest.mark.parametrize(("slope", "inter"), [(1.00001526, 0.0), (0.99999994, 0.0), (1.0, 1e-4), (-1.00001526, 0.0)])
def test_slopes_near_one(tmp_path: Path, slope: float, inter: float) -> None:
    stored = classes(104).astype(np.int16) * (1 if slope > 0 else -1)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(slope, inter)
    nibabel.save(image, tmp_path / "label.nii")
    label = formats.read_label(tmp_path / "label.nii")
    np.testing.assert_array_equal(label.array[0], classes(104).T)  # what is stored
    assert len(label.warnings) == 1


@given(st.integers(-1000, 1000), st.floats(-1, 1), st.sampled_from([np.float32, np.float64]))
def test_within_a_thousandth(number: int, share: float, kind: type) -> None:
    near = np.full((1, 2, 3), number + share * 0.00099, kind)
    whole = round_to_integers(near)
    assert whole is not None
    np.testing.assert_array_equal(whole[0], number)
    assert whole[1] == pytest.approx(abs(share) * 0.00099, abs=1e-4)
    assert pack(near).dtype.kind == "i"
    assert round_to_integers(near + kind(0.03)) is None


def test_negative_zero_infinities_and_nan() -> None:
    found = round_to_integers(np.array([[-0.0, -1e-7, 1.0]]))
    assert found is not None
    np.testing.assert_array_equal(found[0], [[0, 0, 1]])
    for bad in (np.nan, np.inf, 3e38):
        assert round_to_integers(np.array([[0.0, bad]])) is None


@pytest.mark.parametrize("odd", [0.988, 0.996, 1.02, 2.0041])
def test_farther_is_refused_by_all_and_says_near_what(tmp_path: Path, odd: float) -> None:
    root = make_volumes_dataset(tmp_path / "set", cases=5, shape=(20, 18, 8), classes=2)
    for path in (root / "labels").iterdir():
        image = nibabel.load(path)
        values = np.asarray(image.dataobj).astype(np.float32)
        nibabel.save(
            nibabel.Nifti1Image(np.where(values == round(odd), odd, values).astype(np.float32), image.affine), path
        )
    message = f"{odd:g} (near {round(odd)})"
    findings = [f for f in check(root) if f.severity == "error"]
    assert len(findings) == 5
    assert all(f.kind == "label-values" and message in f.what and "round" in f.fix for f in findings)
    with pytest.raises(DatasetError) as error:
        cpfnet.plan(root)
    assert message in error.value.what
    labels = Labels(classes=(LabelClass(name="a", values=(1,)), LabelClass(name="b", values=(2,))))
    path = root / "labels/case_00.nii.gz"
    with pytest.raises(DatasetError) as error:
        encode(formats.read_label(path), labels)
    assert message in error.value.what
    assert "round" in str(error.value.fix)


def test_a_data_set_of_scaled_labels_is_checked_planned_and_scored(tmp_path: Path) -> None:
    root = make_volumes_dataset(tmp_path / "set", cases=5, shape=(20, 18, 8), classes=2)
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for path in sorted((root / "labels").iterdir()):
        truth = np.asarray(nibabel.load(path).dataobj)
        scaled(predictions / path.name, truth, np.uint16)
        image = nibabel.Nifti1Image(truth.astype(np.float64), nibabel.load(path).affine)
        image.set_data_dtype(np.int16)
        nibabel.save(image, path)
        nibabel.save(
            nibabel.Nifti1Image(np.asanyarray(nibabel.load(predictions / path.name).dataobj), image.affine),
            predictions / path.name,
        )
    (finding,) = check(root)
    assert (finding.severity, finding.kind, len(finding.files)) == ("note", "reading-note", 5)
    assert "taken as integers" in finding.what
    assert [c.values for c in cpfnet.plan(root).labels.classes] == [(1,), (2,)]
    scores = cpfnet.evaluate(root, predictions)
    assert {row["dice"] for row in scores.rows} == {1.0}
    assert any("prediction: values off whole numbers" in note for note in scores.warnings)


def gif(path: Path, mask: np.ndarray, black: tuple[int, ...], white: tuple[int, ...]) -> Path:
    """A mask whose two colours stand in a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Pillow.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([*black, *white])
    picture.save(path)
    return path


SHADES = [
    ((4, 2, 4), (252, 254, 252)),
    ((0, 0, 0), (252, 254, 252)),
    ((4, 2, 4), (255, 255, 255)),
    ((4, 4, 4), (252, 252, 252)),
    ((0, 0, 0), (254, 254, 254)),
    ((16, 10, 0), (240, 245, 255)),
    ((30, 30, 30), (225, 225, 225)),
]


@pytest.mark.parametrize("suffix", [".gif", ".png", ".bmp", ".tif"])
@pytest.mark.parametrize(("black", "white"), SHADES)
def test_nearly_black_and_white_are_what_is_declared(
    tmp_path: Path, black: tuple[int, ...], white: tuple[int, ...], suffix: str
) -> None:
    truth = blobs(np.random.default_rng(4), (30, 33))[1] > 0
    path = gif(tmp_path / f"mask{suffix}", truth, black, white)
    for labels in (VESSEL, VESSEL.model_copy(update={"threshold": 127.0})):
        label = formats.read_label(path, labels=labels)
        np.testing.assert_array_equal(encode(label, labels), truth)
        changed = [
            shade for shade, plain in (("black", black == (0, 0, 0)), ("white", white == (255, 255, 255))) if not plain
        ]
        (note,) = label.warnings
        assert [shade for shade in ("black", "white") if f"nearly {shade}" in note] == changed
    np.testing.assert_array_equal(region_mask(formats.read_label(path)), truth)  # as a region of interest


def test_values_that_are_declared_stay_and_others_are_refused(tmp_path: Path) -> None:
    truth = np.eye(8)
    path = gif(tmp_path / "mask.gif", truth, (4, 2, 4), (252, 254, 252))
    own = Labels(background=("#040204",), classes=(LabelClass(name="vessel", values=("#fcfefc",)),))
    label = formats.read_label(path, labels=own)
    assert label.warnings == ()
    np.testing.assert_array_equal(encode(label, own), truth)
    for mask, labels in (
        (truth, VESSEL),  # 0 and 1: both nearly black
        (truth * 100, VESSEL),
        (truth * 254, Labels(classes=(LabelClass(name="vessel", values=(1,)),))),
        (np.full((8, 8), 4), VESSEL),  # a single grey may be the number of a class
    ):
        Pillow.fromarray(mask.astype(np.uint8)).save(tmp_path / "other.png")
        with pytest.raises(DatasetError, match="unexpected label values"):
            encode(formats.read_label(tmp_path / "other.png", labels=labels), labels)


@pytest.mark.parametrize("shade", [0, 64, 120, 127, 128, 200, 255])
def test_of_colours_a_threshold_takes_the_brightest_channel(shade: int) -> None:
    picture = Image(np.array([[[shade, 3]], [[9, 0]], [[0, 0]]], np.uint8))
    soft = VESSEL.model_copy(update={"threshold": 127.0})
    assert encode(picture, soft).tolist() == [[int(shade > 127), 0]]


def test_an_empty_mask_in_a_colour_is_background(tmp_path: Path) -> None:
    path = gif(tmp_path / "mask.gif", np.zeros((8, 9)), (4, 2, 4), (252, 254, 252))
    assert not encode(formats.read_label(path, labels=VESSEL), VESSEL).any()
    assert not region_mask(formats.read_label(path)).any()


@given(st.integers(0, 255), st.integers(0, 255))
def test_two_greys(low: int, high: int) -> None:
    """By hand: a pair is black and white where one is at most 32 and the other at least 223."""
    found = black_and_white(np.array([[[low, high], [low, low]]], np.uint8))
    assert (found is not None) == ((low <= 32 and high >= 223) or (high <= 32 and low >= 223))


@pytest.mark.parametrize("mixed", [False, True])
def test_undeclared_masks_in_two_colours_are_one_class(tmp_path: Path, mixed: bool) -> None:
    root = make_images_dataset(tmp_path / "set", cases=6, size=(32, 36))
    for number, path in enumerate(sorted((root / "masks").iterdir())):
        if not mixed or number % 2:
            gif(path.with_suffix(".gif"), np.array(Pillow.open(path)) > 0, (4, 2, 4), (252, 254, 252))
            path.unlink()
    (finding,) = check(root)
    assert (finding.severity, finding.kind) == ("note", "label-values")
    assert "#040204, #fcfefc" in finding.what
    labels = fingerprint(load(root)).labels
    assert (labels.background, [c.values for c in labels.classes]) == ((0,), [(255,)])


def test_other_pairs_keep_their_values(tmp_path: Path) -> None:
    root = make_images_dataset(tmp_path / "set", cases=6, size=(32, 36))
    for path in (root / "masks").iterdir():
        Pillow.fromarray((np.array(Pillow.open(path)) > 0).astype(np.uint8) * 254).save(path)
    assert check(root) == []
    assert fingerprint(load(root)).labels.classes[0].values == (254,)


COLOURS = {
    "green": [(0, 0, 0), (0, 255, 64)],
    "blue on white": [(255, 255, 255), (0, 0, 255)],
    "yellow on purple": [(128, 0, 128), (255, 255, 0)],
    "three": [(0, 0, 0), (255, 0, 0), (0, 255, 0)],
    "three greys": [(0, 0, 0), (128, 128, 128), (255, 255, 255)],
}


def smoothed(path: Path, colours: list[tuple[int, ...]]) -> None:
    """A mask in these colours, shrunk as drawing programs do."""
    mask = np.array(Pillow.open(path))
    numbers = np.unique(mask, return_inverse=True)[1].reshape(mask.shape)
    large = np.kron(np.array(colours, np.uint8)[numbers], np.ones((3, 3, 1), np.uint8))
    picture = Pillow.fromarray(large).resize((mask.shape[1] + 9, mask.shape[0] + 7), Pillow.Resampling.BILINEAR)
    picture.resize(mask.shape[::-1], Pillow.Resampling.BILINEAR).save(path)


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("name", COLOURS)
def test_soft_edges_between_main_colours_are_named_by_all(tmp_path: Path, name: str, declared: bool) -> None:
    colours = COLOURS[name]
    root = make_images_dataset(tmp_path / "set", cases=6, size=(96, 112), classes=len(colours) - 1)
    for path in (root / "masks").iterdir():
        smoothed(path, colours)
    shown = [str(c[0]) if len(set(c)) == 1 else f"#{bytes(c).hex()}" for c in colours]
    if declared:
        lines = ", ".join(f"c{k}: '{v}'" if "#" in v else f"c{k}: {v}" for k, v in enumerate(shown))
        (root / "dataset.yaml").write_text(f"labels: {{{lines}}}\n".replace("c0", "background"))
    errors = [f for f in check(root) if f.severity == "error"]
    assert len(errors) == 6
    for finding in errors:
        assert (finding.kind, finding.fix[:5]) == ("soft-label", "write" if name == "green" else "expor")
        assert "soft edges" in finding.what
        assert all(value in finding.what for value in shown)
        assert ("convert it to grey" in finding.fix) == (len(colours) == 2 and name != "green")
    with pytest.raises(DatasetError) as error:
        cpfnet.plan(root)
    assert ("unexpected label values" if declared else "soft edges") in error.value.what


@pytest.mark.parametrize("declared", [False, True])
def test_one_colour_on_black_is_read_as_the_fix_says(tmp_path: Path, declared: bool) -> None:
    root = make_images_dataset(tmp_path / "set", cases=6, size=(96, 112))
    for path in (root / "masks").iterdir():
        smoothed(path, COLOURS["green"])
    if declared:
        (root / "dataset.yaml").write_text("labels: {tumour: '#00ff40'}\n")
    line = check(root)[0].fix.split("`")[1]
    assert line == f"labels: {{{'tumour' if declared else 'foreground'}: 255, threshold: 127}}"
    (root / "dataset.yaml").write_text(line)
    assert check(root) == []
    labels = fingerprint(load(root)).labels
    for path in (root / "masks").iterdir():
        green = np.array(Pillow.open(path))[..., 1]
        np.testing.assert_array_equal(encode(formats.read_label(path, labels=labels), labels), green > 127)


@pytest.mark.parametrize("name", ["green", "yellow on purple"])
def test_two_colours_converted_to_grey_are_read(tmp_path: Path, name: str) -> None:
    root = make_images_dataset(tmp_path / "set", cases=6, size=(96, 112))
    for path in (root / "masks").iterdir():
        smoothed(path, COLOURS[name])
        Pillow.open(path).convert("L").save(path)
    (finding,) = check(root)
    assert (finding.severity, finding.kind) == ("warning", "soft-label")
    assert fingerprint(load(root)).labels.threshold is not None


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(0, 10**6))
def test_classes_have_no_main_colours(count: int, seed: int) -> None:
    """Labels of many classes, small ones too, are not taken for soft edges."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 10**4, count)
    counts[0] = 10**5
    numbers = np.sort(rng.choice(256, count, replace=False))
    packed = np.repeat(numbers, counts)[None]
    assert colours_of_blurred(packed, numbers, counts) == ()


def test_photographs_have_no_main_colours() -> None:
    rng = np.random.default_rng(0)
    numbers, counts = np.unique(rng.normal(120, 40, (200, 200)).clip(0, 255).astype(int), return_counts=True)
    assert main_values(numbers, counts) == ()


@pytest.mark.parametrize("count", [64, 65, 90])
def test_check_and_plan_agree_on_how_many_classes_are_too_many(tmp_path: Path, count: int) -> None:
    root = make_images_dataset(tmp_path / "set", cases=4, size=(40, 44))
    for path in (root / "masks").iterdir():
        numbers = np.arange(40 * 44) * count // (40 * 44)
        Pillow.fromarray(numbers.reshape(40, 44).astype(np.uint8)).save(path)
    errors = [f for f in check(root) if f.severity == "error"]
    assert bool(errors) == (count > 64)
    if errors:
        assert f"holds {count} different values" in errors[0].what
        with pytest.raises(DatasetError, match="more than 64"):
            fingerprint(load(root))
    else:
        assert len(fingerprint(load(root)).labels.classes) == 63


def test_values_that_are_few_in_each_label_and_many_together(tmp_path: Path) -> None:
    root = make_images_dataset(tmp_path / "set", cases=8, size=(40, 44))
    for number, path in enumerate(sorted((root / "masks").iterdir())):
        values = np.arange(40 * 44) * 12 // (40 * 44) + 12 * number
        Pillow.fromarray(np.where(values % 12, values, 0).reshape(40, 44).astype(np.uint8)).save(path)
    (finding,) = [f for f in check(root) if f.severity == "error"]
    assert "more than 64 different values" in finding.what
    assert not any(f.kind == "label-values" and f.severity == "warning" for f in check(root))
    with pytest.raises(DatasetError, match="more than 64 different values"):
        fingerprint(load(root))


def test_nothing_drawn_at_all_is_an_error_of_both(tmp_path: Path) -> None:
    root = make_images_dataset(tmp_path / "set", cases=5, size=(32, 36))
    for path in (root / "masks").iterdir():
        Pillow.fromarray(np.zeros((32, 36), np.uint8)).save(path)
    (finding,) = [f for f in check(root) if f.severity == "error"]
    assert "nothing to learn" in finding.what
    with pytest.raises(DatasetError, match="nothing to learn"):
        fingerprint(load(root))


def test_an_image_without_source_is_settled_too() -> None:
    label = correct_values(Image(np.array([[[0.99999994, 2.0]]], np.float32)))
    np.testing.assert_array_equal(label.array, [[[1, 2]]])


def test_a_region_of_interest_in_two_colours(tmp_path: Path) -> None:
    plain = make_images_dataset(tmp_path / "plain", cases=5, size=(32, 36), roi=True)
    root = make_images_dataset(tmp_path / "set", cases=5, size=(32, 36), roi=True)
    for path in (root / "roi").iterdir():
        gif(path.with_suffix(".gif"), np.array(Pillow.open(path)) > 0, (4, 2, 4), (252, 254, 252))
        path.unlink()
    findings = check(root)
    assert {f.severity for f in findings} == {"note"}
    assert "taken as outside" in findings[0].what
    for path in (plain / "masks").iterdir():
        moved = np.roll(np.array(Pillow.open(path)), 5, axis=1)
        write_raster(tmp_path / "predictions" / path.name, moved)
    found, expected = (
        [row["dice"] for row in cpfnet.evaluate(one, tmp_path / "predictions").rows] for one in (root, plain)
    )
    assert found == expected
    cpfnet.convert(root, tmp_path / "raw", to="csv")
    for path in sorted((tmp_path / "raw/roi").iterdir()):
        (original,) = (plain / "roi").glob(f"{path.name.split('.')[0]}.*")
        np.testing.assert_array_equal(np.array(Pillow.open(path)) > 0, np.array(Pillow.open(original)) > 0)


@pytest.mark.parametrize("highest", [1, 2, 3])
def test_noise_around_integers_moves_no_threshold_into_the_background(tmp_path: Path, highest: int) -> None:
    """One class is read above half of it; what lies between several is no edge, and refused by check and plan."""
    root = make_volumes_dataset(tmp_path, cases=5, shape=(40, 36, 12), classes=2 if highest == 2 else 1)
    truths = {}
    for number, path in enumerate(sorted((root / "labels").iterdir())):
        volume = nibabel.load(path)
        truth = np.asarray(volume.dataobj) * (3 if highest == 3 else 1)
        noise = np.random.default_rng(number).normal(0, 3e-3, truth.shape)
        truths[path] = np.transpose(truth)
        nibabel.save(nibabel.Nifti1Image((truth + noise).astype(np.float32), volume.affine), path)
    if highest == 2:
        assert "error" in {f.severity for f in check(root)}
        with pytest.raises(DatasetError):
            cpfnet.plan(root)
        return
    assert "error" not in {f.severity for f in check(root)}
    labels = cpfnet.plan(root).labels
    for path, truth in truths.items():
        np.testing.assert_array_equal(encode(formats.read_label(path, labels=labels), labels), truth > 0)


@pytest.mark.parametrize(
    "colours", [("#010001", "#040204", "#feffff"), ("#000000", "#fefefe", "#fafbfc"), ("#000000", "#020102", "#fcfefc")]
)
def test_more_than_two_nearly_black_or_white_are_asked_about(tmp_path: Path, colours: tuple[str, ...]) -> None:
    root = make_images_dataset(tmp_path / "set", cases=6, size=(96, 112), classes=2)
    table = np.array([tuple(bytes.fromhex(colour[1:])) for colour in colours], np.uint8)
    truths = {}
    for path in sorted((root / "masks").iterdir()):
        picture = table[np.unique(np.array(Pillow.open(path)), return_inverse=True)[1].reshape(96, 112)]
        truths[path] = picture[..., 0] > 127
        Pillow.fromarray(picture).save(path)
    (finding,) = check(root)
    assert (finding.severity, finding.kind) == ("warning", "label-values")
    assert "nearly black or nearly white" in finding.what
    (root / "dataset.yaml").write_text(finding.fix.split("`")[1])
    assert check(root) == []
    labels = fingerprint(load(root)).labels
    for path, truth in truths.items():
        np.testing.assert_array_equal(encode(formats.read_label(path, labels=labels), labels), truth)
