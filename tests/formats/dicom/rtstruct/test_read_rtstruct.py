"""Structure sets as labels: contours in patient coordinates, drawn onto the slices of their image."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from skimage.measure import find_contours

from cpfnet import formats, labels
from cpfnet.errors import DatasetError, FormatError
from cpfnet.formats import Header
from cpfnet.image import Image
from cpfnet.planning import LabelClass, Labels
from tests.formats.dicom.seg.test_read_seg import AXIAL, GRIDS, in_order, of
from tests.formats.dicom.written_labels import Edit, write_rtstruct
from tests.synthetic import PRIVATE, shared, write_nifti, write_photograph, write_series

SHAPE = (5, 16, 19)
BOX = np.s_[3:11, 4:15]


def series(folder: Path, matrix: np.ndarray = AXIAL) -> tuple[Path, Header]:
    """One file of a series, and the image's header."""
    files = write_series(folder / "ct", np.zeros(SHAPE, dtype=np.uint16), matrix)
    return files[0], formats.read_header(folder / "ct")


def in_patient(index: float, outline: np.ndarray, matrix: np.ndarray = AXIAL) -> np.ndarray:
    """(row, column) outline on a slice, which may lie between slices → LPS mm."""
    points = np.column_stack([np.full(len(outline), index), outline, np.ones(len(outline))])
    return (points @ matrix.T)[:, :3]


def box(low: float = 2.5, high: float = 10.5, left: float = 3.5, right: float = 14.5) -> np.ndarray:
    """Half-way between pixel centres: covers `BOX`."""
    return np.array([(low, left), (low, right), (high, right), (high, left)])


def blob(seed: int) -> np.ndarray:
    """A random volume of several components with holes, none of which touches the border."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:, 2:-2, 2:-2] = rng.random((SHAPE[0], SHAPE[1] - 4, SHAPE[2] - 4)) < 0.6
    return mask


def traced(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of a slice, holes on their own, none through a pixel centre."""
    return find_contours(mask.astype(float), 0.5, fully_connected="high")


@pytest.mark.parametrize("grid", GRIDS)
def test_traced_masks_come_back_with_their_holes(tmp_path: Path, grid: str) -> None:
    matrix = GRIDS[grid]
    file, image = series(tmp_path, matrix)
    truth = {"lesion": blob(0), "organ": blob(1)}
    rois = [
        (name, [in_patient(k, outline, matrix) for k, mask in enumerate(masks) for outline in traced(mask)])
        for name, masks in truth.items()
    ]
    label = formats.read_label(write_rtstruct(tmp_path / "rs.dcm", file, rois), image)
    assert label.array.shape == (1, *SHAPE)
    np.testing.assert_array_equal(label.affine, image.affine)
    for name, mask in truth.items():
        np.testing.assert_array_equal(of(label, name), in_order(mask, matrix))
    assert label.source is not None
    assert label.source.warnings == ()


def drawn(tmp_path: Path, contours: list[np.ndarray], **options: object) -> tuple[np.ndarray, tuple[str, ...]]:
    """The mask of one ROI, and the notes."""
    file, image = series(tmp_path)
    label = formats.read_label(write_rtstruct(tmp_path / "rs.dcm", file, [("GTV-1", contours)], **options), image)  # type: ignore[arg-type]
    assert label.source is not None
    return of(label, "GTV-1"), label.source.warnings


def expected(*slices: int) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    for index in slices:
        mask[index][BOX] = True
    return mask


def test_contours_between_slices_go_to_the_nearest(tmp_path: Path) -> None:
    mask, notes = drawn(tmp_path, [in_patient(1.4, box()), in_patient(-0.49, box()), in_patient(4.4, box())])
    np.testing.assert_array_equal(mask, expected(0, 1, 4))
    assert notes == ("'GTV-1': contours between slices, drawn on the nearest: 3",)


def test_of_several_planes_near_a_slice_only_the_nearest_counts(tmp_path: Path) -> None:
    mask, notes = drawn(tmp_path, [in_patient(2.3, box(4.5, 9.5)), in_patient(2, box()), in_patient(1.6, box(6.5))])
    np.testing.assert_array_equal(mask, expected(2))
    assert notes == ("'GTV-1': contours left out for others that lie nearer to the same slice: 2",)


@pytest.mark.parametrize(("named", "warned"), [(2, False), (1, True), (None, False)])
def test_positions_decide_where_contours_name_another_slice(tmp_path: Path, named: int | None, warned: bool) -> None:
    folder = series(tmp_path)[0].parent
    files = {pydicom.dcmread(file).ImagePositionPatient[2]: file for file in folder.iterdir()}
    uids = [pydicom.dcmread(files[at]).SOPInstanceUID for at in sorted(files)]

    def edit(made: pydicom.Dataset) -> None:
        reference = pydicom.Dataset()
        reference.ReferencedSOPInstanceUID = "1.2.3" if named is None else uids[named]
        made.ROIContourSequence[0].ContourSequence[0].ContourImageSequence = [reference]

    mask, notes = drawn(tmp_path, [in_patient(2, box())], edit=edit, instances=list(files.values()))
    np.testing.assert_array_equal(mask, expected(2))
    assert notes == (
        ("'GTV-1': contours that name the image of another slice, drawn where they lie: 1",) if warned else ()
    )


def test_a_contour_that_stands_twice_does_not_undo_itself(tmp_path: Path) -> None:
    mask, notes = drawn(tmp_path, [in_patient(2, box())] * 2)
    np.testing.assert_array_equal(mask, expected(2))
    assert notes == ("'GTV-1': contours that stand twice in a plane, taken once: 1",)


def test_contours_that_cross_are_said(tmp_path: Path) -> None:
    mask, notes = drawn(tmp_path, [in_patient(2, box(2.5, 10.5)), in_patient(2, box(6.5, 12.5))])
    assert mask[2, 3:7, 4:15].all()
    assert not mask[2, 7:11].any()
    assert notes == ("'GTV-1': contours that cross, what lies in two of them left out (even–odd): 2",)


def test_closed_contours_that_are_to_be_combined_by_exclusive_or(tmp_path: Path) -> None:
    contours = [in_patient(2, box()), in_patient(2, box(5.5, 8.5, 6.5, 9.5))]
    mask, notes = drawn(tmp_path, contours, kind="CLOSEDPLANAR_XOR")
    truth = expected(2)
    truth[2, 6:9, 7:10] = False
    np.testing.assert_array_equal(mask, truth)
    assert notes == ()


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", "OPEN_NONPLANAR"])
def test_points_and_open_lines_enclose_nothing(tmp_path: Path, kind: str) -> None:
    mask, notes = drawn(tmp_path, [in_patient(2, box())], kind=kind)
    assert not mask.any()
    assert notes == (f"'GTV-1': contours of type {kind}, which enclose nothing, ignored: 1",)


def test_two_points_enclose_nothing(tmp_path: Path) -> None:
    mask, notes = drawn(tmp_path, [in_patient(2, box())[:2], in_patient(3, box())])
    np.testing.assert_array_equal(mask, expected(3))
    assert notes == ("'GTV-1': contours of fewer than 3 points, which enclose nothing, ignored: 1",)


def test_a_roi_without_contours_is_empty_and_said(tmp_path: Path) -> None:
    mask, notes = drawn(tmp_path, [])
    assert not mask.any()
    assert notes == ("'GTV-1' has no contours",)
    mask, notes = drawn(tmp_path, [], edit=lambda made: delattr(made.ROIContourSequence[0], "ContourSequence"))
    assert notes == ("'GTV-1' has no contours",)


def test_what_reaches_over_the_edge_is_cut_off_and_said(tmp_path: Path) -> None:
    mask, notes = drawn(tmp_path, [in_patient(2, box(-4.5, 3.5, -2.5, 40)), in_patient(3, box())])
    truth = expected(3)
    truth[2, :4] = True
    np.testing.assert_array_equal(mask, truth)
    assert notes == ("'GTV-1': 50.0% of its contour points lie outside the image: cut off",)


def test_contours_of_a_roi_may_stand_in_several_lists(tmp_path: Path) -> None:
    file, image = series(tmp_path)
    rois = [("GTV-1", [in_patient(1, box())]), ("other", [in_patient(2, box())])]
    edit: Edit = lambda made: made.ROIContourSequence[1].update({"ReferencedROINumber": 1})  # noqa: E731
    label = formats.read_label(write_rtstruct(tmp_path / "rs.dcm", file, rois, edit=edit), image)
    np.testing.assert_array_equal(of(label, "GTV-1"), expected(1, 2))


def test_rois_of_one_name_are_taken_together_and_said(tmp_path: Path) -> None:
    file, image = series(tmp_path)
    rois = [("GTV", [in_patient(1, box())]), ("GTV", [in_patient(1, box()), in_patient(2, box())])]
    label = formats.read_label(write_rtstruct(tmp_path / "rs.dcm", file, rois), image)
    np.testing.assert_array_equal(of(label, "GTV"), expected(1, 2))
    assert label.source is not None
    assert label.source.warnings == ("2 ROIs are named 'GTV': taken together",)


def test_rois_are_chosen_by_name_and_pattern(tmp_path: Path) -> None:
    file, image = series(tmp_path)
    sagittal = in_patient(0, box()) @ np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]])
    rois = [("Ring", [sagittal]), ("gtv_boost", [in_patient(1, box())]), ("Lung", [in_patient(1, box(right=9.5))])]
    path = write_rtstruct(tmp_path / "rs.dcm", file, rois)
    declared = Labels(
        classes=(LabelClass(name="tumour", values=(1,), names=("GTV*",)), LabelClass(name="lung", values=(2,))),
        overlap="first",
    )
    label = formats.read_label(path, image, declared)  # the ring, which cannot be drawn, is not asked for
    codes = labels.encode(label, declared)
    np.testing.assert_array_equal(codes == 1, expected(1))
    assert not (codes == 2).any()
    assert of(label, "Lung").sum() == 8 * 6
    with pytest.raises(DatasetError, match=r"none of its structures \(Ring, gtv_boost, Lung\).*\(heart\)"):
        formats.read_label(path, image, Labels(classes=(LabelClass(name="heart", values=(1,)),)))


def test_an_image_from_elsewhere_is_matched_by_position(tmp_path: Path) -> None:
    file, header = series(tmp_path)
    path = write_rtstruct(tmp_path / "rs.dcm", file, [("GTV-1", [in_patient(2, box())])])
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AXIAL[:, [2, 1, 0, 3]]
    nifti = write_nifti(tmp_path / "ct.nii.gz", np.zeros(SHAPE, dtype=np.int16), matrix)
    label = formats.read_label(path, formats.read(nifti))
    np.testing.assert_array_equal(of(label, "GTV-1"), expected(2))
    assert label.source is not None
    assert label.source.warnings == ("the image is no DICOM series: matched by position alone",)
    assert header.affine is not None


# --- what is refused
# ---------------------------------------------------------------------------------------------------


def _data(made: pydicom.Dataset, values: list[object]) -> None:
    made.ROIContourSequence[0].ContourSequence[0].ContourData = values


def _series(made: pydicom.Dataset) -> None:
    frame = made.ReferencedFrameOfReferenceSequence[0]
    frame.FrameOfReferenceUID = made.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"
    frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.4"


REFUSED: dict[str, tuple[np.ndarray, Edit | None, str]] = {
    "beyond the last slice": (
        in_patient(4.6, box()),
        None,
        r"a contour of 'GTV-1' lies at slice 4\.60 .* the image has the slices 0 to 4",
    ),
    "before the first slice": (in_patient(-3, box()), None, r"lies at slice -3\.00"),
    "across slices": (
        np.add(in_patient(2, box()), [[0, 0, 2.5], [0, 0, 0], [0, 0, 0], [0, 0, 0]]),
        None,
        r"its points reach from slice 2\.00 to 3\.00",
    ),
    "beside the image": (in_patient(2, box() + 300), None, "all of 'GTV-1' lies outside the image"),
    "impossible coordinates": (in_patient(2, box()) * [[1e30, 1, 1]], None, "impossible coordinates"),
    "infinite": (in_patient(2, box()), lambda made: _data(made, ["1e999"] * 9), "impossible coordinates"),
    "incomplete triple": (
        in_patient(2, box()),
        lambda made: _data(made, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        "no triples of numbers",
    ),
    "another series": (in_patient(2, box()), _series, r"refers to the series 1\.2\.4, the image is"),
    "no structures": (
        in_patient(2, box()),
        lambda made: delattr(made, "StructureSetROISequence"),
        "has no StructureSetROISequence",
    ),
    "no contours": (
        in_patient(2, box()),
        lambda made: delattr(made, "ROIContourSequence"),
        "has no ROIContourSequence",
    ),
    "another frame of reference": (
        in_patient(2, box()),
        lambda made: made.StructureSetROISequence[0].update({"ReferencedFrameOfReferenceUID": "1.2.5"}),
        r"'GTV-1' is drawn in the frame of reference 1\.2\.5, the image lies in",
    ),
    "unknown type": (
        in_patient(2, box()),
        lambda made: made.ROIContourSequence[0].ContourSequence[0].update({"ContourGeometricType": "ROUND"}),
        "ContourGeometricType 'ROUND'",
    ),
    "ROI without number": (
        in_patient(2, box()),
        lambda made: delattr(made.StructureSetROISequence[0], "ROINumber"),
        "a ROI has the number ''",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, case: str) -> None:
    contour, edit, message = REFUSED[case]
    file, image = series(tmp_path)
    path = write_rtstruct(tmp_path / "rs.dcm", file, [("GTV-1", [contour])], edit=edit)
    with pytest.raises(FormatError, match=message) as raised:
        formats.read_label(path, image)
    assert raised.value.where == str(path)
    assert raised.value.fix
    assert not any(str(value) in str(raised.value) for value in PRIVATE.values())


def test_contours_need_an_image_in_the_patient(tmp_path: Path) -> None:
    file, _ = series(tmp_path)
    path = write_rtstruct(tmp_path / "rs.dcm", file, [("GTV-1", [in_patient(2, box())])])
    photograph = write_photograph(tmp_path / "photo.dcm", np.zeros((8, 9), dtype=np.uint8))
    for image in (None, formats.read(photograph)):
        with pytest.raises(FormatError, match="contours need an image with positions in the patient"):
            formats.read_label(path, image)


def _delimited(made: pydicom.Dataset) -> None:
    """Sequences without a length, ended by delimiters."""
    for element in made.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True


@pytest.mark.parametrize("edit", [None, _delimited])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, edit: Edit | None) -> None:
    file, image = series(tmp_path)
    contours = [in_patient(k, box()) for k in range(5)]
    path = write_rtstruct(tmp_path / "rs.dcm", file, [("GTV-1", contours)], edit=edit)
    whole = path.read_bytes()
    np.testing.assert_array_equal(of(formats.read_label(path, image), "GTV-1"), expected(*range(5)))
    for end in np.linspace(1, len(whole) - 9, 80, dtype=int):
        path.write_bytes(whole[:end])
        with pytest.raises(FormatError) as raised:
            formats.read_label(path, image)
        assert raised.value.where == str(path)


# --- real studies
# ------------------------------------------------------------------------------------------------------


def real(patient: str) -> tuple[Path, Image]:
    folder = shared(f"LungCT/{patient}")
    (path,) = folder.glob("DCM_RS_*")
    return path, formats.read_label(path, formats.read_header(folder))


def test_lung_tumour_equals_the_mask_of_its_authors() -> None:
    _, label = real("pat_1")
    truth = np.asarray(nibabel.load(shared("LungCT/pat_1_nifti/mask/mask.nii.gz")).dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(of(label, "GTV-1"), truth > 0)


@pytest.mark.parametrize("patient", ["pat_1", "pat_2", "pat_3"])
def test_lung_tumours_agree_with_plastimatch(tmp_path: Path, patient: str) -> None:
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch is not installed")
    path, label = real(patient)
    command = ["plastimatch", "convert", "--input", path, "--output-prefix", tmp_path, "--prefix-format", "nii"]
    subprocess.run([*command, "--referenced-ct", path.parent], check=True, capture_output=True)
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "GTV-1.nii")) > 0
    ours = of(label, "GTV-1")
    assert label.spacing is not None
    assert ours.sum() * np.prod(label.spacing) > 1000  # over 1 ml
    assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) >= 0.99
    assert (ours != theirs).sum() <= 0.005 * ours.sum()
