"""DICOM segmentations as labels, on the grid of their image or their own; test files by highdicom, or like dcmqi's."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless, RLELossless

from cpfnet import formats, labels
from cpfnet.errors import DatasetError, FormatError
from cpfnet.formats.dicom.image.series import scan
from cpfnet.image import Image
from cpfnet.planning import LabelClass, Labels
from tests.formats.dicom.written_labels import Edit, write_plain_seg, write_seg
from tests.synthetic import PRIVATE, affine, orientations, shared, write_multiframe, write_photograph, write_series

SHAPE = (5, 9, 11)  # 99 pixels: frames of single bits begin inside bytes
NAMES = {1: "Liver", 2: "Spleen"}


def lps(matrix: np.ndarray) -> np.ndarray:
    """A NIfTI-like affine of `tests.synthetic.affine` in cpfnet's convention."""
    swapped = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
    return swapped[:, [2, 1, 0, 3]]


AXIAL = lps(affine((0.7, 0.8, 2.5), origin=(12.5, -40.25, 100.0), signs=(-1, -1, 1)))
OBLIQUE = lps(affine((0.7, 0.8, 2.5), origin=(12.5, -40.25, 100.0), degrees=(20, -35, 10), signs=(-1, -1, 1)))
DESCENDING = lps(affine((0.7, 0.8, 2.5), signs=(-1, -1, -1)))  # the first file is the uppermost slice
CORONAL = lps(affine((0.7, 0.8, 2.5), axes=(0, 2, 1), signs=(-1, -1, 1)))
TILTED = AXIAL + np.array([[0.0, 0, 0, 0], [0.7, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])  # the gantry's: sheared
GRIDS = {"axial": AXIAL, "oblique": OBLIQUE, "descending": DESCENDING, "coronal": CORONAL, "tilted": TILTED}


def masks(*numbers: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Random boolean ``(depth, height, width, segments)``; the middle slice is empty."""
    found = np.random.default_rng(sum(numbers) + len(numbers)).random((*shape, len(numbers))) < 0.4
    found[shape[0] // 2] = False
    return found


def of(label: Image, name: str) -> np.ndarray:
    """The mask of one structure."""
    assert label.meanings is not None
    return np.array([name in structures for structures in label.meanings])[label.array[0]]


def series(folder: Path, matrix: np.ndarray = AXIAL, shape: tuple[int, ...] = SHAPE, **options: object) -> list[Path]:
    return write_series(folder / "ct", np.zeros(shape, dtype=np.uint16), matrix, **options)  # type: ignore[arg-type]


def in_order(mask: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Slices as cpfnet orders them: ascending along rows × columns."""
    ascending = np.cross(matrix[:3, 2], matrix[:3, 1]) @ matrix[:3, 0] > 0
    return mask if ascending else mask[::-1]


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("grid", GRIDS)
def test_segments_lie_where_highdicom_put_them(tmp_path: Path, grid: str, kind: str) -> None:
    files = series(tmp_path, GRIDS[grid])
    truth = masks(1, 2)
    truth[..., 1] &= ~truth[..., 0]
    pixels = truth[..., 0] + 2 * truth[..., 1].astype(np.uint8) if kind == "LABELMAP" else truth.astype(np.uint8)
    pixels = pixels.astype(float) if kind == "FRACTIONAL" else pixels.astype(np.uint8)
    path = write_seg(tmp_path / "seg.dcm", files, NAMES, pixels, kind)
    image = formats.read(tmp_path / "ct")
    for given_image in (image, formats.read_header(tmp_path / "ct")):
        label = formats.read_label(path, given_image)
        assert label.array.shape == image.array.shape
        assert label.array.dtype == np.uint8
        np.testing.assert_array_equal(label.affine, image.affine)
        for number, name in NAMES.items():
            np.testing.assert_array_equal(of(label, name), in_order(truth[..., number - 1], GRIDS[grid]))
        assert label.source is not None
        assert label.source.warnings == ()


@pytest.mark.parametrize("fractions", ["PROBABILITY", "OCCUPANCY"])
def test_fractions_are_cut_at_the_declared_level(tmp_path: Path, fractions: str) -> None:
    files = series(tmp_path)
    share = np.random.default_rng(0).random((*SHAPE, 1))
    path = write_seg(tmp_path / "s.dcm", files, {1: "Liver"}, share, "FRACTIONAL", fractions=fractions)
    stored = np.around(share[..., 0] * 255) / 255
    image = formats.read_header(tmp_path / "ct")
    np.testing.assert_array_equal(of(formats.read_label(path, image), "Liver"), stored > 0.5)
    for level in (0.0, 0.25, 0.9):
        declared = Labels(classes=(LabelClass(name="liver", values=(1,)),), fraction=level)
        np.testing.assert_array_equal(of(formats.read_label(path, image, declared), "Liver"), stored > level)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_compressed_segmentations(tmp_path: Path, kind: str, syntax: str) -> None:
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg", reason="needs the dicom extra")
    shape = (3, 32, 40)
    files = series(tmp_path, shape=shape)
    truth = masks(1, shape=shape)
    pixels = truth.astype(float) if kind == "FRACTIONAL" else truth[..., 0].astype(np.uint8)
    path = write_seg(tmp_path / "s.dcm", files, {1: "Liver"}, pixels, kind, syntax=syntax)
    np.testing.assert_array_equal(
        of(formats.read_label(path, formats.read_header(tmp_path / "ct")), "Liver"), truth[..., 0]
    )


def test_numbers_with_gaps_and_overlaps_in_any_order_as_dcmqi_writes_them(tmp_path: Path) -> None:
    files = series(tmp_path, OBLIQUE)
    truth = masks(3, 7, 12)
    positions = [(OBLIQUE @ [k, 0, 0, 1])[:3] for k in range(SHAPE[0])]
    frames = [(n, truth[k, ..., i], positions[k]) for i, n in enumerate((3, 7, 12)) for k in (0, 1, 3, 4)]
    order = np.random.default_rng(1).permutation(len(frames))
    path = write_plain_seg(
        tmp_path / "s.dcm", files[0], {12: "c", 3: "a", 7: "b", 9: "never drawn"}, [frames[i] for i in order]
    )
    label = formats.read_label(path, formats.read_header(tmp_path / "ct"))
    for index, name in enumerate("abc"):
        np.testing.assert_array_equal(of(label, name), truth[..., index])
    assert label.meanings is not None
    assert frozenset({"never drawn"}) in label.meanings
    assert label.meanings[0] == frozenset()


def test_eight_hundred_combinations_of_overlapping_segments_stay_apart(tmp_path: Path) -> None:
    shape = (1, 32, 32)
    files = series(tmp_path, shape=shape)
    numbers = np.arange(1024).reshape(shape)
    names = {bit + 1: f"bit {bit}" for bit in range(10)}
    frames = [(bit + 1, (numbers[0] >> bit & 1).astype(bool), AXIAL[:3, 3]) for bit in range(10)]
    path = write_plain_seg(tmp_path / "s.dcm", files[0], names, frames)
    label = formats.read_label(path, formats.read_header(tmp_path / "ct"))
    assert label.array.dtype == np.uint16
    for bit in range(10):
        np.testing.assert_array_equal(of(label, f"bit {bit}"), numbers >> bit & 1)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_segmentation_is_read_as_it_was_written(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)))
    axes, signs = data.draw(st.sampled_from(list(orientations())))
    angles = data.draw(st.tuples(*[st.integers(-40, 40)] * 3))
    spacing = data.draw(st.tuples(*[st.sampled_from([0.3, 0.9765625, 1.0, 2.5, 7.0])] * 3))
    matrix = lps(affine(spacing, origin=(-123.456, 78.9, 1.5), axes=axes, signs=signs, degrees=angles))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    truth = rng.random((*shape, 3)) < rng.random()
    positions = [(matrix @ [k, 0, 0, 1])[:3] for k in range(shape[0])]
    frames = [(n + 1, truth[k, ..., n], positions[k]) for k in range(shape[0]) for n in range(3)]
    kept = [frames[i] for i in rng.permutation(len(frames)) if frames[i][1].any() or i == 0]
    with TemporaryDirectory() as name:
        files = series(Path(name), matrix, shape)
        path = write_plain_seg(Path(name, "s.dcm"), files[0], {1: "a", 2: "b", 3: "c"}, kept)
        label = formats.read_label(path, formats.read_header(Path(name, "ct")))
    for n, structure in enumerate("abc"):
        np.testing.assert_array_equal(of(label, structure), in_order(truth[..., n], matrix))


def test_enhanced_image_of_many_frames(tmp_path: Path) -> None:
    path = write_multiframe(tmp_path / "ct.dcm", np.zeros(SHAPE, dtype=np.uint16), OBLIQUE, order=[3, 0, 4, 1, 2])
    image = formats.read_header(path)
    truth = masks(1)
    positions = [(OBLIQUE @ [k, 0, 0, 1])[:3] for k in range(SHAPE[0])]
    source = series(tmp_path, OBLIQUE)[0]
    seg = write_plain_seg(
        tmp_path / "s.dcm", source, {1: "Liver"}, [(1, truth[k, ..., 0], positions[k]) for k in (4, 0, 1, 2, 3)]
    )
    np.testing.assert_array_equal(of(formats.read_label(seg, image), "Liver"), truth[..., 0])


def test_slices_that_stand_a_little_unevenly(tmp_path: Path) -> None:
    positions = [AXIAL[:3, 3] + [0, 0, z] for z in (0, 2.52, 5, 7.48, 10)]

    def uneven(index: int, header: pydicom.Dataset) -> None:
        header.ImagePositionPatient = positions[index].tolist()

    files = series(tmp_path, edit=uneven)
    truth = masks(1)
    seg = write_plain_seg(
        tmp_path / "s.dcm", files[0], {1: "Liver"}, [(1, truth[k, ..., 0], positions[k]) for k in range(5)]
    )
    np.testing.assert_array_equal(
        of(formats.read_label(seg, formats.read_header(tmp_path / "ct")), "Liver"), truth[..., 0]
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_without_an_image_it_has_a_grid_of_its_own(tmp_path: Path, grid: str) -> None:
    matrix = GRIDS[grid]
    files = series(tmp_path, matrix)
    truth = masks(1)
    positions = [(matrix @ [k, 0, 0, 1])[:3] for k in range(SHAPE[0])]
    frames = [(1, truth[k, ..., 0], positions[k]) for k in (3, 1, 4)]  # the empty slice in the middle is left out
    label = formats.read_label(write_plain_seg(tmp_path / "s.dcm", files[0], {1: "Liver"}, frames))
    assert label.shape == (4, *SHAPE[1:])
    indices = np.argwhere(of(label, "Liver"))
    expected = np.add(np.argwhere(truth[1:, ..., 0]), [1, 0, 0])
    assert label.affine is not None
    world = indices @ label.affine[:3, :3].T + label.affine[:3, 3]
    truly = expected @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(world[np.lexsort(world.T)], truly[np.lexsort(truly.T)], atol=1e-4)
    assert np.cross(label.affine[:3, 2], label.affine[:3, 1]) @ label.affine[:3, 0] > 0


def test_a_single_frame_without_an_image_is_as_deep_as_its_slice(tmp_path: Path) -> None:
    files = series(tmp_path)
    label = formats.read_label(
        write_plain_seg(tmp_path / "s.dcm", files[0], {1: "a"}, [(1, np.ones(SHAPE[1:]), AXIAL[:3, 3])])
    )
    assert label.shape == (1, *SHAPE[1:])
    assert label.spacing == pytest.approx((2.5, 0.8, 0.7))


def test_segmentation_of_a_photograph(tmp_path: Path) -> None:
    photo = write_photograph(tmp_path / "photo.dcm", np.zeros((8, 9), dtype=np.uint8))
    drawn = np.eye(8, 9, dtype=bool)

    def unplaced(made: pydicom.Dataset) -> None:
        for frame in made.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence, frame.PlaneOrientationSequence, frame.PixelMeasuresSequence
        del made.FrameOfReferenceUID

    source = series(tmp_path)[0]
    path = write_plain_seg(tmp_path / "s.dcm", source, {1: "naevus"}, [(1, drawn, (0, 0, 0))], edit=unplaced)
    for image in (formats.read(photo), None):
        label = formats.read_label(path, image)
        assert label.affine is None
        np.testing.assert_array_equal(of(label, "naevus"), drawn)


def test_segments_are_chosen_by_name(tmp_path: Path) -> None:
    files = series(tmp_path)
    truth = masks(1, 2)
    path = write_seg(tmp_path / "s.dcm", files, NAMES, truth.astype(np.uint8))
    image = formats.read_header(tmp_path / "ct")
    declared = Labels(classes=(LabelClass(name="organ", values=(1,), names=("SPL*",)),))
    label = formats.read_label(path, image, declared)
    assert label.meanings == (frozenset(), frozenset({"Spleen"}))
    np.testing.assert_array_equal(labels.encode(label, declared), truth[..., 1])
    with pytest.raises(DatasetError, match=r"Liver, Spleen.*\(kidney\)") as raised:
        formats.read_label(path, image, Labels(classes=(LabelClass(name="kidney", values=(1,)),)))
    assert raised.value.where == str(path)


def test_segments_of_one_name_are_taken_together_and_said(tmp_path: Path) -> None:
    files = series(tmp_path)
    truth = masks(1, 2)
    path = write_seg(tmp_path / "s.dcm", files, {1: "Lesion", 2: "Lesion"}, truth.astype(np.uint8))
    label = formats.read_label(path, formats.read_header(tmp_path / "ct"))
    np.testing.assert_array_equal(of(label, "Lesion"), truth.any(axis=-1))
    assert label.source is not None
    assert label.source.warnings == ("2 segments are named 'Lesion': taken together",)


def test_palette_of_a_label_map_is_only_for_display(tmp_path: Path) -> None:
    files = series(tmp_path)
    truth = masks(1)[..., 0]

    def coloured(made: pydicom.Dataset) -> None:
        made.PhotometricInterpretation = "PALETTE COLOR"
        for colour in ("Red", "Green", "Blue"):
            setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 8])
            setattr(made, f"{colour}PaletteColorLookupTableData", bytes([0, 250, 3, 4]))

    path = write_seg(tmp_path / "s.dcm", files, {1: "Liver"}, truth.astype(np.uint8), "LABELMAP", edit=coloured)
    np.testing.assert_array_equal(of(formats.read_label(path, formats.read_header(tmp_path / "ct")), "Liver"), truth)


def test_from_an_archive(tmp_path: Path) -> None:
    files = series(tmp_path)
    truth = masks(1)
    path = write_seg(tmp_path / "s.dcm", files, {1: "Liver"}, truth.astype(np.uint8))
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for file in (*files, path):
            made.write(file, f"inside/{file.name}")
    (found,) = scan(archive).labels
    image = formats.read_header(archive)
    for reference in (archive, found.path):
        np.testing.assert_array_equal(of(formats.read_label(reference, image), "Liver"), truth[..., 0])
    with pytest.raises(FormatError, match="no DICOM segmentation or structure set, only the image itself"):
        formats.read_label(files[0], image)


# --- what is refused
# ---------------------------------------------------------------------------------------------------


def _moved(made: pydicom.Dataset) -> None:
    position = made.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0]
    position.ImagePositionPatient = [
        float(v) + shift for v, shift in zip(position.ImagePositionPatient, (0.01, 0, 0), strict=True)
    ]


def _between(made: pydicom.Dataset) -> None:
    position = made.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0]
    position.ImagePositionPatient = [*position.ImagePositionPatient[:2], float(position.ImagePositionPatient[2]) + 0.5]


def _beyond(made: pydicom.Dataset) -> None:
    position = made.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
    position.ImagePositionPatient = [*position.ImagePositionPatient[:2], float(position.ImagePositionPatient[2]) + 7.5]


def _twice(made: pydicom.Dataset) -> None:
    frames = made.PerFrameFunctionalGroupsSequence
    frames[1].PlanePositionSequence = frames[0].PlanePositionSequence


def _mirrored(made: pydicom.Dataset) -> None:
    for frame in made.PerFrameFunctionalGroupsSequence:
        frame.PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def _other_spacing(made: pydicom.Dataset) -> None:
    for frame in made.PerFrameFunctionalGroupsSequence:
        frame.PixelMeasuresSequence[0].PixelSpacing = [0.7, 0.8]


def _unplaced(made: pydicom.Dataset) -> None:
    del made.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence


def _of_another_study(made: pydicom.Dataset) -> None:
    made.FrameOfReferenceUID = "1.2.3.4"


def _of_another_series(made: pydicom.Dataset) -> None:
    made.FrameOfReferenceUID = "1.2.3.4"
    referred = pydicom.Dataset()
    referred.SeriesInstanceUID = "1.2.3.5"
    made.ReferencedSeriesSequence = [referred]


REFUSED: dict[str, tuple[Edit, str]] = {
    "moved": (_moved, r"do not lie on a slice of the image, such as frame 2.*0\.01429 voxels"),
    "between slices": (_between, "do not lie on a slice of the image, such as frame 2"),
    "beyond the image": (_beyond, "'Liver' lies on slice 7, too; the image has the slices 0 to 4"),
    "twice": (_twice, "frames 1 and 2 show the same segment on the same slice"),
    "mirrored": (_mirrored, r"do not lie on a slice.*directions"),
    "other spacing": (_other_spacing, r"spacing \[2.5, 0.7, 0.8\] mm.*against.*spacing \[2.5, 0.8, 0.7\]"),
    "unplaced": (_unplaced, "1 of its 4 frames have no position"),
    "of another frame of reference": (_of_another_study, r"frame of reference 1\.2\.3\.4, the image lies in"),
    "of another series": (_of_another_series, r"refers to the series 1\.2\.3\.5, the image is"),
    "other size": (
        lambda made: made.update({"Rows": 11, "Columns": 9}),
        "frames of 11×9 pixels, the image slices of 9×11",
    ),
    "fewer frames described": (
        lambda made: made.PerFrameFunctionalGroupsSequence.pop(),
        "promises 4 frames.*describes 3",
    ),
    "fewer frames promised": (lambda made: made.update({"NumberOfFrames": 3}), "promises 3 frames.*describes 4"),
    "no frames": (lambda made: made.update({"NumberOfFrames": 400}), "promises 400 frames"),
    "cut short": (
        lambda made: made.update({"PixelData": made.PixelData[:20]}),
        "frame 2 has pixels up to byte 25, and there are 20",
    ),
    "no pixels": (lambda made: delattr(made, "PixelData"), "describes 4 frames and holds no pixels"),
    "no type": (lambda made: delattr(made, "SegmentationType"), "segmentation type none; known are BINARY"),
    "unknown type": (lambda made: made.update({"SegmentationType": "SOFT"}), "segmentation type SOFT"),
    "fractional without maximum": (
        lambda made: made.update({"SegmentationType": "FRACTIONAL"}),
        "MaximumFractionalValue missing",
    ),
    "unknown segment": (
        lambda made: made.SegmentSequence[0].update({"SegmentNumber": 5}),
        r"frame 1 shows segment 1, described are \[5\]",
    ),
    "segment without number": (
        lambda made: delattr(made.SegmentSequence[0], "SegmentNumber"),
        "a segment has the number ''",
    ),
    "segments with one number": (
        lambda made: made.SegmentSequence.append(made.SegmentSequence[0]),
        "a segment has number 1, as another one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, case: str) -> None:
    edit, message = REFUSED[case]
    files = series(tmp_path)
    frames = [(1, np.ones(SHAPE[1:]), (AXIAL @ [k, 0, 0, 1])[:3]) for k in (0, 1, 3, 4)]
    path = write_plain_seg(tmp_path / "s.dcm", files[0], {1: "Liver"}, frames, edit=edit)
    with pytest.raises(FormatError, match=message) as raised:
        formats.read_label(path, formats.read_header(tmp_path / "ct"))
    assert raised.value.where == str(path)
    assert raised.value.fix
    assert not any(str(value) in str(raised.value) for value in PRIVATE.values())


def test_pixels_of_segments_that_are_not_described(tmp_path: Path) -> None:
    files = series(tmp_path)
    path = write_seg(
        tmp_path / "s.dcm",
        files,
        NAMES,
        masks(1)[..., 0] * np.uint8(2),
        "LABELMAP",
        edit=lambda made: made.SegmentSequence.pop(),
    )
    with pytest.raises(FormatError, match=r"pixels of segment 2, described are \[1\]"):
        formats.read_label(path, formats.read_header(tmp_path / "ct"))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    files = series(tmp_path)
    path = write_seg(tmp_path / "s.dcm", files, NAMES, masks(1, 2).astype(np.uint8))
    image = formats.read_header(tmp_path / "ct")
    whole = path.read_bytes()
    for end in np.linspace(1, len(whole) - 3, 40, dtype=int):
        path.write_bytes(whole[:end])
        with pytest.raises(FormatError) as raised:
            formats.read_label(path, image)
        assert raised.value.where == str(path)


# --- warnings
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "note"),
    [
        (lambda made: delattr(made, "FrameOfReferenceUID"), "refers to no image: matched by position alone"),
        (
            lambda made: made.update({"ReferencedSeriesSequence": [pydicom.Dataset()]})
            or made.ReferencedSeriesSequence[0].update({"SeriesInstanceUID": "1.2.3"}),
            "refers to other series (1.2.3) than the image",
        ),
    ],
)  # fmt: skip
def test_matches_that_rest_on_position_are_said(tmp_path: Path, edit: Edit, note: str) -> None:
    files = series(tmp_path)
    path = write_plain_seg(tmp_path / "s.dcm", files[0], {1: "a"}, [(1, np.ones(SHAPE[1:]), AXIAL[:3, 3])], edit=edit)
    label = formats.read_label(path, formats.read_header(tmp_path / "ct"))
    assert label.source is not None
    (message,) = label.source.warnings
    assert note in message
    assert of(label, "a").sum() == SHAPE[1] * SHAPE[2]


def test_references_outweigh_the_frame_of_reference(tmp_path: Path) -> None:
    files = series(tmp_path)
    path = write_seg(tmp_path / "s.dcm", files, {1: "a"}, masks(1).astype(np.uint8), edit=_of_another_study)
    label = formats.read_label(path, formats.read_header(tmp_path / "ct"))
    assert label.source is not None
    (message,) = label.source.warnings
    assert message.startswith("refers to this image, but names another frame of reference (1.2.3.4 against")


def test_another_time_point_of_the_same_series_is_not_the_image(tmp_path: Path) -> None:
    files = series(tmp_path)
    path = write_seg(tmp_path / "s.dcm", files, {1: "a"}, masks(1).astype(np.uint8), edit=_of_another_study)
    renamed = write_series(
        tmp_path / "later",
        np.zeros(SHAPE, dtype=np.uint16),
        AXIAL,
        edit=lambda index, header: header.update({"SOPInstanceUID": f"1.2.3.{index}"}),
    )
    with pytest.raises(FormatError, match=r"refers to the instances .* and 4 more, the image is 1\.2\.3\.0 and 4 more"):
        formats.read_label(path, formats.read_header(renamed[0].parent))


# --- real objects
# ------------------------------------------------------------------------------------------------------


def test_liver_equals_its_nrrd() -> None:
    nrrd = pytest.importorskip("nrrd")
    truth, _ = nrrd.read(str(shared("DicomSeg/liver_seg.nrrd")))
    image = formats.read_header(shared("DicomSeg/ct-3slice"))
    label = formats.read_label(shared("DicomSeg/liver.dcm"), image)
    np.testing.assert_array_equal(of(label, "Liver"), truth.transpose(2, 1, 0) > 0)
    own = formats.read_label(shared("DicomSeg/liver.dcm"))
    np.testing.assert_array_equal(own.array, label.array)
    np.testing.assert_allclose(own.affine, image.affine, atol=1e-5)


def test_overlapping_segments_equal_those_that_highdicom_reads() -> None:
    path = shared("DicomSeg/partial_overlaps.dcm")
    image = formats.read_header(shared("DicomSeg/ct-3slice"))
    label = formats.read_label(path, image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = highdicom.seg.segread(path)
        sources = [header.SOPInstanceUID for header in image.source.details["headers"]]  # type: ignore[union-attr]
        truth = reader.get_pixels_by_source_instance(sources, ignore_spatial_locations=True)
    for number, name in enumerate(("GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE")):
        np.testing.assert_array_equal(of(label, name), truth[..., number])
    assert label.meanings is not None
    present = {label.meanings[number] for number in np.unique(label.array)}
    assert frozenset({"GREEN", "ORANGE", "PURPLE"}) in present
