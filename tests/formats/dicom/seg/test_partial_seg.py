"""Segmentations without what their image knows (OHIF), with frames cut out of its slices, or without pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet import formats
from cpfnet.data.checks.check import check
from cpfnet.errors import FormatError
from tests.data.dicom_studies import SHAPE as STUDY
from tests.data.dicom_studies import scan
from tests.formats.dicom.seg.test_read_seg import AXIAL, GRIDS, NAMES, OBLIQUE, SHAPE, in_order, masks, of, series
from tests.formats.dicom.written_labels import Edit, write_plain_seg, write_seg
from tests.synthetic import shared

MEASURES, ORIENTATION, POSITION = "PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence"


def groups(made: pydicom.Dataset) -> list[pydicom.Dataset]:
    return [*made.get("SharedFunctionalGroupsSequence", ()), *made.PerFrameFunctionalGroupsSequence]


def without(*sequences: str) -> Edit:
    def edit(made: pydicom.Dataset) -> None:
        for group in groups(made):
            for sequence in sequences:
                group.pop(sequence, None)

    return edit


def emptied(made: pydicom.Dataset) -> None:
    for group in groups(made):
        if MEASURES in group:
            group.PixelMeasuresSequence = []


def blank(made: pydicom.Dataset) -> None:
    for group in groups(made):
        if MEASURES in group:
            group.PixelMeasuresSequence = [pydicom.Dataset()]


def only_thickness(made: pydicom.Dataset) -> None:
    for group in groups(made):
        if MEASURES in group:
            del group.PixelMeasuresSequence[0].PixelSpacing


def unshared(made: pydicom.Dataset) -> None:
    del made.SharedFunctionalGroupsSequence


def numbered(made: pydicom.Dataset) -> None:
    """Slices of one frame each, counted through as if they were frames of one object."""
    without(MEASURES, POSITION)(made)
    for number, group in enumerate(made.PerFrameFunctionalGroupsSequence, start=1):
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = number


LEFT_OUT: dict[str, Edit] = {
    "no measures": without(MEASURES),
    "measures of no item": emptied,
    "measures of an empty item": blank,
    "no spacing": only_thickness,
    "nothing shared": unshared,
    "no orientation": without(ORIENTATION),
    "frames counted through": numbered,
    "only references": without(MEASURES, ORIENTATION, POSITION),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("left_out", LEFT_OUT)
def test_what_frames_lack_is_taken_from_their_image(tmp_path: Path, grid: str, left_out: str) -> None:
    files = series(tmp_path, GRIDS[grid])
    truth = masks(1, 2)
    path = write_seg(tmp_path / "s.dcm", files, NAMES, truth.astype(np.uint8), edit=LEFT_OUT[left_out])
    label = formats.read_label(path, formats.read_header(tmp_path / "ct"))
    for number, name in NAMES.items():
        np.testing.assert_array_equal(of(label, name), in_order(truth[..., number - 1], GRIDS[grid]))
    (note,) = label.warnings
    assert note.startswith("has no ")
    assert note.endswith("taken from its image")


def test_without_the_image_nothing_is_made_up(tmp_path: Path) -> None:
    files = series(tmp_path)
    path = write_seg(tmp_path / "s.dcm", files, NAMES, masks(1, 2).astype(np.uint8), edit=without(MEASURES))
    with pytest.raises(FormatError, match=r"has no PixelSpacing: its frames have no place of their own(.|\n)*series"):
        formats.read_label(path)


def test_a_real_segmentation_without_measures_equals_its_nrrd(tmp_path: Path) -> None:
    nrrd = pytest.importorskip("nrrd")
    made = pydicom.dcmread(shared("DicomSeg/liver.dcm"))
    without(MEASURES)(made)
    made.save_as(tmp_path / "ohif.dcm")
    truth, _ = nrrd.read(str(shared("DicomSeg/liver_seg.nrrd")))
    label = formats.read_label(tmp_path / "ohif.dcm", formats.read_header(shared("DicomSeg/ct-3slice")))
    drawn = of(label, "Liver")
    assert [np.array_equal(a, b) for a, b in zip(drawn, truth.transpose(2, 1, 0) > 0, strict=True)] == [True] * 3
    assert drawn.any(axis=(1, 2)).all()


def test_a_position_that_nothing_tells_is_not_guessed(tmp_path: Path) -> None:
    source = series(tmp_path)[0]
    path = write_plain_seg(
        tmp_path / "s.dcm", source, {1: "a"}, [(1, np.ones(SHAPE[1:]), AXIAL[:3, 3])], edit=without(POSITION)
    )  # which names no instance
    with pytest.raises(FormatError, match=r"no positions|no ImagePositionPatient"):
        formats.read_label(path, formats.read_header(tmp_path / "ct"))


def test_spacing_of_frames_of_another_size_is_not_guessed(tmp_path: Path) -> None:
    source = series(tmp_path)[0]
    path = write_plain_seg(
        tmp_path / "s.dcm", source, {1: "a"}, [(1, np.ones((4, 5)), AXIAL[:3, 3])], edit=without(MEASURES)
    )
    with pytest.raises(FormatError, match="has no PixelSpacing"):
        formats.read_label(path, formats.read_header(tmp_path / "ct"))


@pytest.fixture(scope="module", params=["axial", "oblique", "tilted"])
def placed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp(request.param)
    series(folder, GRIDS[request.param])
    return folder, GRIDS[request.param]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_frames_cut_out_of_the_slices_lie_where_their_positions_say(placed, data: st.DataObject) -> None:
    folder, matrix = placed
    truth = np.zeros(SHAPE, dtype=bool)
    _, height, width = SHAPE
    rows, columns = data.draw(st.integers(1, height + 3)), data.draw(st.integers(1, width + 3))
    frames = []
    for depth in sorted(data.draw(st.sets(st.integers(0, SHAPE[0] - 1), min_size=1))):
        row, column = data.draw(st.integers(-3, height - 1)), data.draw(st.integers(-3, width - 1))
        mask = np.random.default_rng(depth).random((rows, columns)) < 0.5
        for r, c in np.ndindex(rows, columns):
            if 0 <= row + r < height and 0 <= column + c < width:
                truth[depth, row + r, column + c] = mask[r, c]
            else:
                mask[r, c] = False
        frames.append((1, mask, (matrix @ [depth, row, column, 1])[:3]))
    path = write_plain_seg(folder / "s.dcm", next(iter(sorted((folder / "ct").iterdir()))), {1: "a"}, frames)
    label = formats.read_label(path, formats.read_header(folder / "ct"))
    np.testing.assert_array_equal(of(label, "a"), truth)


def test_frames_between_pixels_or_beyond_the_image_are_refused(tmp_path: Path) -> None:
    source = series(tmp_path, OBLIQUE)[0]
    image = formats.read_header(tmp_path / "ct")
    for place, words in (
        ((0, 0.4, 2), "do not lie on a slice"),
        ((0, 7, 2), "outside its image"),
        ((0, -1, 2), "outside its image"),
    ):
        frame = (1, np.ones((4, 5)), (OBLIQUE @ [*place, 1])[:3])
        path = write_plain_seg(tmp_path / "s.dcm", source, {1: "a"}, [frame])
        with pytest.raises(FormatError, match=rf"frames of 4×5 pixels, the image slices of 9×11|{words}") as raised:
            formats.read_label(path, image)
        assert words in str(raised.value)


def test_a_segmentation_without_its_pixels_says_so(tmp_path: Path) -> None:
    files = series(tmp_path)
    image = formats.read_header(tmp_path / "ct")
    for lost in (["PixelData"], ["PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored"]):

        def edit(made: pydicom.Dataset, lost: list[str] = lost) -> None:
            for keyword in lost:
                delattr(made, keyword)

        path = write_seg(tmp_path / "s.dcm", files, NAMES, masks(1, 2).astype(np.uint8), edit=edit)
        for drawn_on in (image, None):
            with pytest.raises(FormatError, match="describes 8 frames and holds no pixels") as raised:
                formats.read_label(path, drawn_on)
            assert "archive" in (raised.value.fix or "")


@pytest.mark.parametrize("attribute", ["Rows", "Columns", "NumberOfFrames"])
@pytest.mark.parametrize("value", [0, 1, 2])
def test_a_damaged_size_is_not_taken_for_frames_that_were_cut_out(tmp_path: Path, attribute: str, value: int) -> None:
    path = write_seg(
        tmp_path / "s.dcm",
        series(tmp_path),
        NAMES,
        masks(1, 2).astype(np.uint8),
        edit=lambda made: made.update({attribute: value}),
    )
    with pytest.raises(FormatError):
        formats.read_label(path, formats.read_header(tmp_path / "ct"))


def test_a_segmentation_in_which_nothing_was_drawn_is_an_empty_label(tmp_path: Path) -> None:
    def nothing(made: pydicom.Dataset) -> None:
        made.NumberOfFrames = 0
        del made.PerFrameFunctionalGroupsSequence, made.PixelData

    path = write_seg(tmp_path / "s.dcm", series(tmp_path), NAMES, masks(1, 2).astype(np.uint8), edit=nothing)
    label = formats.read_label(path, formats.read_header(tmp_path / "ct"))
    assert label.shape == SHAPE
    assert not label.array.any()
    assert label.meanings is not None
    assert set().union(*label.meanings) == {"Liver", "Spleen"}
    assert label.warnings == ("holds no frame: all its segments are empty",)


def test_check_takes_segmentations_of_ohif(tmp_path: Path) -> None:
    for number in range(3):
        files = scan(tmp_path / f"p{number}" / "ct", seed=number, patient=f"p{number}")
        truth = np.zeros((*STUDY, 1), np.uint8)
        truth[2:5, 6:14, 5:12] = 1
        write_seg(tmp_path / f"p{number}" / "seg.dcm", files, {1: "Liver"}, truth, edit=without(MEASURES))
    found = check(tmp_path)
    assert not [finding for finding in found if finding.severity == "error"]
    (message,) = [finding for finding in found if "PixelSpacing" in finding.what]
    assert len(message.files) == 3
