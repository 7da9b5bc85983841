"""Slices that a structure skips: found where a person would expect a contour, and nowhere else; filled by shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cpfnet
from cpfnet import formats
from cpfnet.contour_gaps import Gap, find_gaps, interpolate_gaps
from cpfnet.data.checks.check import check
from cpfnet.image import Image
from cpfnet.planning import LabelClass, Labels
from tests.formats.dicom.seg.test_read_seg import AXIAL, of
from tests.formats.dicom.written_labels import write_rtstruct, write_seg
from tests.synthetic import affine, blobs, make_volumes_dataset, write_nifti, write_series

FILL = Labels(classes=(LabelClass(name="tumour", values=(1,)),), interpolate_contours=True)
CENTRE = 16.3, 17.4
RADII = np.array([0, 0, *np.linspace(12, 4, 13), 0, 0])
"""Of a cone, by slice: 2 to 14 hold it."""


def cone(radii: np.ndarray = RADII, centre: tuple[float, float] = CENTRE) -> np.ndarray:
    y, x = np.indices((32, 34))
    return np.array([np.hypot(y - centre[0], x - centre[1]) < radius for radius in radii])


def without(mask: np.ndarray, *slices: int) -> np.ndarray:
    out = mask.copy()
    out[list(slices)] = 0
    return out


def along(axis: int, mask: np.ndarray, *, spacing: float = 3.0) -> Image:
    """A label of values whose slices, ``spacing`` times as thick as wide, lie along an axis of the array."""
    steps = np.ones(3)
    steps[axis] = spacing
    matrix = np.zeros((4, 4))
    for row, column in ((2, 0), (1, 1), (0, 2)):  # depth towards the head, as in axial volumes
        matrix[row, column] = steps[column]
    matrix[3, 3] = 1
    return Image(np.ascontiguousarray(np.moveaxis(mask, 0, axis))[None].astype(np.uint8), matrix)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("missing", [(3, 5, 7, 9, 11, 13), (8,), (3,), (13,), (6, 7, 8), (4, 5, 8, 9, 12)])
def test_missing_contours_are_named(axis: int, missing: tuple[int, ...]) -> None:
    (gap,) = find_gaps(along(axis, without(cone(), *missing)))
    assert (gap.axis, gap.slices, gap.length) == (axis, missing, 13)
    assert f"{len(missing)} of 13 slices between first and last" in str(gap)


@pytest.mark.parametrize("axis", [0, 1])
def test_voxels_as_long_as_wide_are_looked_at_along_every_axis(axis: int) -> None:
    (gap,) = find_gaps(along(axis, without(cone(), 7, 8), spacing=1.0))
    assert (gap.axis, gap.slices) == (axis, (7, 8))


def test_halves_of_a_paired_organ_are_no_gap() -> None:
    both = cone(np.array([0, 0, 4, 8, 9, 9, 9, 8, 0, 0, 0, 8, 9, 9, 9, 8, 4]))
    assert find_gaps(along(2, both, spacing=1.0)) == ()  # from left to right
    (striped,) = find_gaps(along(2, without(cone(), 3, 5, 7, 9), spacing=1.0))
    assert striped.slices == (3, 5, 7, 9)


def test_pieces_that_do_not_overlap_are_pieces() -> None:
    apart = cone(np.where(np.arange(17) < 7, 5, 0), (8, 8)) | cone(np.where(np.arange(17) > 9, 5, 0), (24, 26))
    assert find_gaps(along(0, apart)) == ()


def test_round_pieces_above_each_other_are_pieces() -> None:
    ball = np.sqrt(np.clip(30 - (np.arange(17) - 5.0) ** 2 * 2, 0, None))
    other = np.sqrt(np.clip(30 - (np.arange(17) - 13.0) ** 2 * 2, 0, None))
    assert find_gaps(along(0, cone(ball) | cone(other))) == ()


@pytest.mark.parametrize("kept", [(2, 14), (3, 8, 13), (2, 14, 3)])
def test_slices_drawn_far_apart_are_one_structure(kept: tuple[int, ...]) -> None:
    """However far: single slices are no parts. Two neighbours are one; then a gap may not be longer than the part."""
    found = find_gaps(along(0, without(cone(np.full(17, 9.0)), *(k for k in range(17) if k not in kept))))
    missing = tuple(k for k in range(min(kept), max(kept)) if k not in kept)
    assert [gap.slices for gap in found] == ([] if 3 in kept and 2 in kept else [missing])


def test_another_structure_in_the_place_is_no_gap() -> None:
    label = cone().astype(np.uint8)
    label[8] *= 2  # a core that fills the whole of one slice
    assert find_gaps(along(0, label)) == ()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_ellipsoids_have_no_gaps(seed: int, thick: bool) -> None:
    _, mask = blobs(np.random.default_rng(seed), (14, 30, 32), 2)
    assert find_gaps(along(0, mask, spacing=2.0 if thick else 1.0)) == ()


def test_classes_are_named_as_declared_and_unannotated_slices_are_none() -> None:
    labels = Labels(classes=(LabelClass(name="tumour", values=(7,)),), ignore=(255,))
    label = along(0, 7 * without(cone(), 8).astype(np.uint8))
    (gap,) = find_gaps(label, labels)
    assert gap.name == "tumour"
    label.array[0, 8] = 255
    assert find_gaps(label, labels) == ()
    (soft,) = find_gaps(
        replace(label, array=np.where(label.array == 7, 200, 0).astype(np.uint8)),
        Labels(classes=(LabelClass(name="lesion", values=(255,)),), threshold=127),
    )
    assert (soft.name, soft.slices) == ("lesion", (8,))


def test_pictures_and_photographs_have_none() -> None:
    assert find_gaps(Image(np.ones((1, 8, 9), np.uint8))) == ()
    assert find_gaps(Image(np.random.default_rng(0).random((1, 5, 8, 9), np.float32))) == ()


def discs(mask: np.ndarray) -> np.ndarray:
    """The radius of a disc of the same area, by slice."""
    return np.sqrt(mask.sum(axis=(1, 2)) / np.pi)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("missing", [(3, 5, 7, 9, 11, 13), (8,), (5, 6, 7)])
def test_a_cone_is_filled_to_a_cone(axis: int, missing: tuple[int, ...]) -> None:
    label = along(axis, without(cone(), *missing))
    filled = interpolate_gaps(label, FILL)
    got = np.moveaxis(filled.array[0], axis, 0) > 0
    kept = [index for index in range(17) if index not in missing]
    np.testing.assert_array_equal(got[kept], cone()[kept])
    np.testing.assert_allclose(discs(got), RADII, atol=0.5)  # pixels
    assert ((got ^ cone()).sum(axis=(1, 2)) <= np.pi * RADII).all()  # half a pixel along the edge
    assert find_gaps(filled, FILL) == ()
    assert interpolate_gaps(label, FILL.model_copy(update={"interpolate_contours": False})) is label
    assert interpolate_gaps(label, None) is label


def test_a_shifted_cylinder_is_filled_half_way_and_others_keep_their_voxels() -> None:
    mask = np.zeros((5, 32, 34), np.uint8)
    mask[0:2] = cone(np.full(17, 9.0), (16, 13))[:2]
    mask[3:5] = cone(np.full(17, 9.0), (16, 17))[:2]
    mask[2, 14:18, 14:16] = 2
    labels = Labels(
        classes=(LabelClass(name="a", values=(1,)), LabelClass(name="b", values=(2,))), interpolate_contours=True
    )
    got = interpolate_gaps(along(0, mask), labels).array[0, 2]
    np.testing.assert_array_equal(got == 2, mask[2] == 2)
    columns = np.nonzero(got == 1)[1]
    assert columns.mean() == pytest.approx(15, abs=0.2)


def contours(mask: np.ndarray) -> list[np.ndarray]:
    """Of each slice the circle that it is, in LPS mm."""
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    out = []
    for index, radius in enumerate(RADII):
        if mask[index].any():
            circle = np.column_stack(
                [np.full(60, index), CENTRE[0] + radius * np.sin(turn), CENTRE[1] + radius * np.cos(turn), np.ones(60)]
            )
            out.append((circle @ AXIAL.T)[:, :3])
    return out


def study(folder: Path, kind: str, mask: np.ndarray) -> Path:
    files = write_series(folder / "ct", np.random.default_rng(0).integers(0, 900, mask.shape).astype(np.uint16), AXIAL)
    if kind == "seg":
        write_seg(folder / "label.dcm", files, {1: "GTV-1", 2: "lung"}, np.stack([mask, mask], -1).astype(np.uint8))
    else:
        write_rtstruct(folder / "label.dcm", files[0], [("GTV-1", contours(mask)), ("lung", contours(cone()))])
    return folder


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_of_dicom_each_structure_is_named(tmp_path: Path, kind: str) -> None:
    folder = study(tmp_path, kind, without(cone(), 4, 6))
    image = formats.read_header(folder / "ct")
    found = find_gaps(formats.read_label(folder / "label.dcm", image))
    expected = Gap("GTV-1", 0, ((3, 5), (5, 7)), 13)
    assert found == ((expected, replace(expected, name="lung")) if kind == "seg" else (expected,))


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_of_dicom_one_structure_is_filled_over_another(tmp_path: Path, kind: str) -> None:
    folder = study(tmp_path, kind, without(cone(), 4, 6))
    labels = Labels(
        classes=(LabelClass(name="GTV-1", values=(1,)), LabelClass(name="lung", values=(2,))),
        overlap="first",
        interpolate_contours=True,
    )
    label = formats.read_label(folder / "label.dcm", formats.read_header(folder / "ct"), labels)
    np.testing.assert_allclose(discs(of(label, "GTV-1")), RADII, atol=0.5)
    if kind == "rtstruct":
        whole = formats.read_label(folder / "label.dcm", formats.read_header(folder / "ct"))
        np.testing.assert_array_equal(of(label, "lung"), of(whole, "lung"))
    assert "'GTV-1': 2 slices without contour interpolated" in label.warnings


def striped(root: Path) -> Path:
    """Volumes on which every second slice is drawn; one is whole."""
    make_volumes_dataset(root, cases=5, shape=(34, 32, 17), spacing=(1.0, 1.0, 3.0), classes=1)
    for number, path in enumerate(sorted((root / "labels").iterdir())):
        mask = without(cone(), *(range(3, 14, 2) if number else ()))
        write_nifti(path, mask.astype(np.uint8), affine((1.0, 1.0, 3.0)))
    return root


def test_check_plan_and_convert_say_it_and_the_fix_fills(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = striped(tmp_path / "set")
    found = [f for f in check(root) if f.kind == "contour-gap"]
    assert [(f.severity, f.where) for f in found] == [("warning", f"labels/case_0{n}.nii.gz") for n in range(1, 5)]
    assert "6 of 13 slices between first and last have no contour (3, 5, 7, 9, 11, 13," in found[0].what
    cpfnet.plan(root)
    assert any("case_01, case_02, case_03, case_04: 'value 1': 6 of 13 slices" in line for line in caplog.messages)
    caplog.clear()
    cpfnet.convert(root, tmp_path / "raw", to="csv")
    assert any("'foreground': 6 of 13 slices" in line for line in caplog.messages)

    line = found[0].fix.split("write `")[1].split("`")[0]
    (root / "dataset.yaml").write_text(f"{line}\n")
    assert not any(f.kind == "contour-gap" for f in check(root))
    cpfnet.convert(root, tmp_path / "filled", to="csv")
    for path in sorted((tmp_path / "filled").glob("labels/*")):
        np.testing.assert_allclose(discs(formats.read_label(path).array[0] > 0), RADII, atol=0.5)


def test_predictions_are_scored_as_they_are(tmp_path: Path) -> None:
    root = striped(tmp_path / "set")
    (root / "dataset.yaml").write_text("labels: {tumour: 1, interpolate_contours: true}\n")
    scores = cpfnet.evaluate(root, predictions=root / "labels")
    dice = [row["dice"] for row in scores.rows if row["class"] == "tumour"]
    assert dice[0] == 1
    assert max(dice[1:]) < 0.75
