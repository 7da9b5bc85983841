"""What makes no volume is refused by name, or repaired aloud."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cpfnet import formats
from cpfnet.errors import FormatError
from cpfnet.image import Segmentation
from tests.synthetic import PRIVATE, dicom_uid, write_multiframe, write_photograph, write_series

STORED = np.arange(6 * 4 * 5, dtype=np.int16).reshape(6, 4, 5)
SIDEWAYS = [0, 1, 0, 0, 0, -1]


def _refused(folder: Path) -> str:
    """The message of `read`, which says the same as that of `read_header` and gives nothing private away."""
    with pytest.raises(FormatError) as caught:
        formats.read(folder)
    with pytest.raises(FormatError) as header:
        formats.read_header(folder)
    assert str(header.value) == str(caught.value)
    assert caught.value.where is not None
    assert caught.value.fix is not None
    assert not [value for value in (*PRIVATE.values(), "P-0815", "Muster", "Erika") if value in str(caught.value)]
    return caught.value.what


def test_missing_slices(tmp_path):
    paths = write_series(tmp_path, STORED)
    paths[2].unlink()
    assert _refused(tmp_path) == (
        "1 slice missing: 2 mm between slice_001.dcm (InstanceNumber 2) and slice_003.dcm (InstanceNumber 4), "
        "elsewhere 1 mm"
    )
    paths[3].unlink()
    assert _refused(tmp_path).startswith("2 slices missing: 3 mm between slice_001.dcm")


def test_uneven_spacing(tmp_path):
    heights = [0, 1, 2, 3.5, 4.9, 6]
    write_series(tmp_path, STORED, edit=lambda i, d: d.update({"ImagePositionPatient": [0, 0, heights[i]]}))
    what = _refused(tmp_path)
    assert "not evenly spaced" in what
    assert "1.5 mm between slice_002.dcm (InstanceNumber 3) and slice_003.dcm (InstanceNumber 4)" in what


@pytest.mark.parametrize(("away", "fits"), [(0.009, True), (0.018, True), (0.021, False)])
def test_spacing_may_be_off_by_a_hundredth_or_a_tenth_of_a_millimetre(tmp_path, away, fits):
    def edit(index, dataset):
        dataset.ImagePositionPatient = [0, 0, 5 * (index + away * (index == 2))]

    write_series(tmp_path, STORED, np.diag([5.0, 1, 1, 1])[:, [2, 1, 0, 3]], edit=edit)
    if fits:
        image = formats.read(tmp_path)
        assert image.spacing[0] == pytest.approx(5)
        message = "slices lie up to 0.09 mm from even spacing, as rounded positions do: taken as even"
        assert image.source.warnings == ((message,) if away > 0.01 else ())
    else:
        assert "not evenly spaced" in _refused(tmp_path)


@pytest.mark.parametrize("spacing", [1.25, 2.25])
@pytest.mark.parametrize("format", ["dicom-seg", "rtstruct"])
def test_positions_of_one_decimal(tmp_path, spacing, format):
    """Labels that are written come back on the slices that they were drawn on."""
    stored = np.random.default_rng(0).integers(0, 1500, (20, 8, 9)).astype(np.int16)

    def edit(index, dataset):
        dataset.ImagePositionPatient = [0, 0, round(index * spacing, 1)]

    write_series(tmp_path / "ct", stored, edit=edit)
    image = formats.read(tmp_path / "ct")
    assert "taken as even" in image.source.warnings[0]
    mask = (image.array[0] > 0).astype(np.uint8)
    path = formats.write(Segmentation(mask, image.affine, image.source), tmp_path / "mask", format=format)
    label = formats.read_label(path, image)
    np.testing.assert_array_equal(label.array[0] > 0, mask)
    assert label.source.warnings == ()


@pytest.mark.parametrize("scale", [0.01, 0.5])
def test_uneven_by_a_tenth_of_a_thin_slice(tmp_path, scale):
    heights = np.array([0, 1, 2.12, 3, 4, 5]) * scale
    write_series(
        tmp_path,
        STORED,
        edit=lambda i, d: d.update({"ImagePositionPatient": [0, 0, heights[i]], "PixelSpacing": [scale, scale]}),
    )
    assert "not evenly spaced" in _refused(tmp_path)


def test_slices_drawn_aside(tmp_path):
    def edit(index, dataset):
        dataset.ImagePositionPatient = [0.5 * (index == 3), 0, index]

    write_series(tmp_path, STORED, edit=edit)
    assert "up to 0.5 mm from their place" in _refused(tmp_path)


def test_doubled_slices(tmp_path):
    write_series(tmp_path, STORED)
    write_series(
        tmp_path,
        STORED[:1],
        edit=lambda i, d: d.update({"SOPInstanceUID": "1.2.3", "InstanceNumber": 7}),
        names="x.dcm",
    )
    assert _refused(tmp_path) == (
        "1 slice of 6 occurs more than once; for example slice_000.dcm (InstanceNumber 1), x.dcm (InstanceNumber 7)"
    )


def test_several_frames_of_reference_are_said(tmp_path):
    uids = ["1.2.3", "1.2.4", None]
    write_series(tmp_path, STORED[:3], edit=lambda index, header: setattr(header, "FrameOfReferenceUID", uids[index]))
    image = formats.read(tmp_path)
    assert image.shape[0] == 3
    assert image.source.warnings == ("its slices name 2 frames of reference: taken for one, by their positions",)


def test_the_same_object_twice_is_taken_once_and_said(tmp_path):
    paths = write_series(tmp_path, STORED)
    (tmp_path / "copies").mkdir()
    shutil.copy(paths[1], tmp_path / "copies" / "again.dcm")
    image = formats.read(tmp_path)
    assert image.shape == (6, 4, 5)
    assert len(image.source.warnings) == 1
    assert "copies of files" in image.source.warnings[0]
    assert "(InstanceNumber 2)" in image.source.warnings[0]


def test_one_uid_for_two_objects(tmp_path):
    write_series(tmp_path, STORED, SOPInstanceUID="1.2.3")
    assert (
        "slice_001.dcm (InstanceNumber 2) and slice_000.dcm (InstanceNumber 1) have the same SOPInstanceUID"
        in _refused(tmp_path)
    )


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("EchoTime", (12.0, 80.0)),
        ("TemporalPositionIdentifier", (1, 2, 3)),
        ("DiffusionBValue", (0.0, 1000.0)),
        ("AcquisitionNumber", (1, 2)),
    ],
)
def test_several_images_at_one_position(tmp_path, keyword, values):
    for number, value in enumerate(values):
        write_series(
            tmp_path / str(number),
            STORED,
            edit=lambda i, d, n=number: d.update({"SOPInstanceUID": dicom_uid(n, i)}),
            modality="MR",
            **{keyword: value},
        )
    what = _refused(tmp_path)
    shown = ", ".join(map(str, values))
    assert f"{len(values)} images at one position, told apart by {keyword} ({shown})" in what
    assert "slice_000.dcm" in what


def test_times_of_day_stay_private(tmp_path):
    for number, time in enumerate(("111213", "141516")):
        write_series(
            tmp_path / str(number),
            STORED,
            edit=lambda i, d, n=number: d.update({"SOPInstanceUID": dicom_uid(n, i)}),
            AcquisitionTime=time,
        )
    what = _refused(tmp_path)
    assert "AcquisitionTime (2 values)" in what
    assert "111213" not in what


def test_a_localizer_inside_is_left_out_and_said(tmp_path):
    write_series(tmp_path, STORED)
    localizer = {
        "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
        "ImageOrientationPatient": SIDEWAYS,
        "SOPInstanceUID": "1.2.3",
    }
    write_series(tmp_path, np.zeros((1, 9, 9), np.int16), names="scout.dcm", **localizer)
    image = formats.read(tmp_path)
    assert image.shape == (6, 4, 5)
    assert image.source.warnings == ("localizer images were left out: scout.dcm (InstanceNumber 1)",)


def test_a_localizer_in_disguise_is_refused(tmp_path):
    write_series(tmp_path, STORED)
    other = {"ImageOrientationPatient": SIDEWAYS, "SOPInstanceUID": "1.2.3"}
    write_series(tmp_path, STORED[:1], names="scout.dcm", **other)
    what = _refused(tmp_path)
    assert "2 orientations" in what
    assert "[0.0, 1.0, 0.0, 0.0, 0.0, -1.0] in scout.dcm (InstanceNumber 1)" in what


def test_mixed_sizes_and_pixel_spacings(tmp_path):
    write_series(tmp_path / "a", STORED)
    write_series(tmp_path / "a", np.zeros((1, 8, 9), np.int16), names="large.dcm", SOPInstanceUID="1.2.3")
    assert "2 sizes (Rows × Columns): 4×5 in slice_000.dcm" in _refused(tmp_path / "a")
    assert "8×9 in large.dcm" in _refused(tmp_path / "a")
    write_series(tmp_path / "b", STORED, edit=lambda i, d: d.update({"PixelSpacing": [1, 1 + (i == 3)]}))
    assert "2 PixelSpacings" in _refused(tmp_path / "b")
    assert "[1.0, 2.0] mm in slice_003.dcm" in _refused(tmp_path / "b")


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_missing_geometry(tmp_path, keyword):
    write_series(tmp_path, STORED, edit=lambda i, d: d.pop(keyword) if i == 4 else None)
    assert _refused(tmp_path) == f"1 of 6 slices have no {keyword}: slice_004.dcm (InstanceNumber 5)"


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("ImagePositionPatient", [0, 0], "expected 3 finite numbers"),
        ("ImagePositionPatient", ["0", "0", "NaN"], "expected 3 finite numbers"),
        ("ImagePositionPatient", ["0", "0", "1e999"], "expected 3 finite numbers"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "no two unit vectors at right angles"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0], "no two unit vectors at right angles"),
        ("PixelSpacing", [0, 1], r"is [0.0, 1.0] mm"),
        ("PixelSpacing", [1, -1], r"is [1.0, -1.0] mm"),
        ("RescaleSlope", 0, "RescaleSlope of slice_002.dcm (InstanceNumber 3) is 0"),
        ("RescaleSlope", "1e308", "RescaleSlope 1e+308 and RescaleIntercept -1024 of slice_002.dcm"),
        ("RescaleIntercept", "-1e30", "lead beyond all values"),
    ],
)
def test_impossible_geometry(tmp_path, keyword, value, words):
    import pydicom

    def edit(index, dataset):
        if index == 2:
            raw = "\\".join(map(str, value if isinstance(value, list) else [value])).encode()
            dataset[keyword] = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag(keyword), "DS", len(raw), raw, 0, False, True
            )

    write_series(tmp_path, STORED, edit=edit)
    what = _refused(tmp_path)
    assert words in what
    assert "slice_002.dcm" in what


def test_slices_beside_each_other(tmp_path):
    write_series(tmp_path, STORED, edit=lambda i, d: d.update({"ImagePositionPatient": [9 * i, 0, 0.1 * i]}))
    assert "lie beside rather than behind each other" in _refused(tmp_path)


def test_grey_and_coloured_slices(tmp_path):
    write_series(tmp_path, np.zeros((3, 4, 5), np.uint8))
    colours = {"SOPInstanceUID": "1.2.3", "ImagePositionPatient": [0, 0, 3]}
    write_series(tmp_path, np.zeros((1, 4, 5, 3), np.uint8), names="x.dcm", **colours)
    assert "partly grey, partly coloured" in _refused(tmp_path)


def test_films_are_refused(tmp_path):
    film = np.zeros((4, 5), np.uint8)
    write_photograph(tmp_path / "a.dcm", film, modality="US", NumberOfFrames=12)
    assert "a.dcm (InstanceNumber 1) holds 12 frames and no position for each" in _refused(tmp_path)


def test_multiframe_objects_of_several_echoes(tmp_path):
    def edit(dataset):
        for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            item = type(dataset)()
            item.EffectiveEchoTime = float(10 + number % 2)
            frame.MREchoSequence = [item]
            frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, number // 2]

    write_multiframe(tmp_path / "a.dcm", STORED, modality="MR", edit=edit)
    what = _refused(tmp_path)
    assert "2 images at one position, told apart by EffectiveEchoTime (10.0, 11.0)" in what
    assert "a.dcm (InstanceNumber 1), frame 1" in what


def test_multiframe_objects_of_several_stacks(tmp_path):
    def edit(dataset):
        for frame in dataset.PerFrameFunctionalGroupsSequence[3:]:
            frame.FrameContentSequence[0].StackID = "2"
            frame.PlanePositionSequence[0].ImagePositionPatient[2] += 100

    write_multiframe(tmp_path / "a.dcm", STORED, edit=edit)
    assert "StackID (1, 2)" in _refused(tmp_path)


def test_multiframe_objects_that_lie_about_their_frames(tmp_path):
    write_multiframe(tmp_path / "a.dcm", STORED, edit=lambda d: d.update({"NumberOfFrames": 2_000_000_000}))
    assert "promises 2000000000 frames (NumberOfFrames) and describes 6" in _refused(tmp_path)
