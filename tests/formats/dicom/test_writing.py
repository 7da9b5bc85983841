"""Segmentations and structure sets that cpfnet writes, checked by dciodvfy, read by pydicom, dcmqi and plastimatch."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from scipy import ndimage
from skimage.color import rgb2lab

from cpfnet import formats, labels
from cpfnet.errors import OutputError
from cpfnet.image import Image, Segmentation
from cpfnet.planning import Code, LabelClass, Labels
from tests.synthetic import PRIVATE, shared, write_multiframe, write_photograph, write_series

LABELS = Labels(
    classes=(
        LabelClass(name="liver", values=1),
        LabelClass(name="GTV-1", values=2, colour="#00ff00"),
        LabelClass(
            name="无名",
            values=7,
            type=Code(value="39607008", meaning="Lung"),
            category=Code(value="91723000", meaning="Anatomical Structure"),
        ),
        LabelClass(name="never found", values=9),
    )
)
REGIONS = Labels(
    exclusive=False,
    classes=(LabelClass(name="whole tumour", values=(1, 2)), LabelClass(name="core", values=(2,))),
)
ALGORITHM = ("cpfnet liver 1a2b3c4d", "0.1")


def geometry(
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.7),
    degrees: tuple[float, float, float] = (0, 0, 0),
    origin: tuple[float, float, float] = (-101.5, 37.25, -420.125),
    flips: tuple[int, int, int] = (1, 1, 1),
    shear: float = 0.0,
) -> np.ndarray:
    """(depth, height, width) → LPS mm; axial, then turned about x, y and z; ``shear`` mm a slice along the columns."""
    turned = np.eye(3)
    for about, angle in enumerate(np.radians(degrees)):
        turn, first, second = np.eye(3), (about + 1) % 3, (about + 2) % 3
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        turned = turn @ turned
    out = np.eye(4)
    out[:3, :3] = turned[:, [2, 1, 0]] * spacing * np.array(flips)
    out[:3, 0] += shear * turned[:, 1]
    out[:3, 3] = origin
    return out


GRIDS = {
    "axial": geometry(),
    "coronal": geometry(degrees=(90, 0, 0)),
    "sagittal": geometry(degrees=(0, 90, 90)),
    "oblique": geometry(degrees=(17.3, -31.9, 12.1)),
    "flipped": geometry(flips=(-1, 1, -1)),
    "tilted gantry": geometry(shear=0.6),
    "single slice": geometry(degrees=(5, 0, 0)),
    "multi-frame": geometry(degrees=(0, 0, 20)),
}
RECTANGULAR = [grid for grid in GRIDS if grid != "tilted gantry"]
"""What ITK, and so dcmqi, has an image for; sheared stacks are judged by the positions of their frames."""


def pixels(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 1500, shape).astype(np.int16)


def source(folder: Path, grid: str) -> Image:
    """An image as cpfnet reads it."""
    array = pixels((1 if grid == "single slice" else 5, 22, 19))
    if grid == "multi-frame":
        write_multiframe(folder / "image.dcm", array, GRIDS[grid], order=[3, 0, 4, 1, 2])
    else:
        write_series(folder, array, GRIDS[grid])
    return formats.read(folder)


def painted(shape: tuple[int, ...], values: tuple[int, ...] = (1, 2, 7)) -> np.ndarray:
    """Blobs with holes, islands that touch at corners, pixels on the border; first and last slices stay empty."""
    rng = np.random.default_rng(5)
    out = rng.choice([0, *values], shape, p=[0.4, *(0.6 / len(values),) * len(values)]).astype(np.uint8)
    out[..., 4:12, 3:12] = values[0]
    out[..., 7:9, 5:8] = 0
    if len(shape) == 3 and shape[0] > 3:
        out[[0, -1]] = 0
    return out


def segmentation(image: Image, array: np.ndarray | None = None, definitions: Labels = LABELS) -> Segmentation:
    mask = painted(image.shape) if array is None else array
    return Segmentation(mask, image.affine, image.source, labels=definitions, algorithm=ALGORITHM)


def index_of(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """LPS mm ``(n, 3)`` → (depth, height, width) indices, which they must meet within 1e-3 mm."""
    index = np.linalg.solve(affine, np.c_[points, np.ones(len(points))].T)
    whole = np.rint(index)
    assert np.abs(affine @ whole - affine @ index)[:3].max(initial=0) < 1e-3
    return whole[:3].T.astype(int)


def voxels(image: sitk.Image) -> np.ndarray:
    """LPS mm ``(n, 3)`` of all voxels that are not 0."""
    index = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1]
    matrix = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    return np.asarray(index @ matrix.T + image.GetOrigin())


def on_grid(points: np.ndarray, image: Image) -> np.ndarray:
    """bool mask of the image's shape with these points."""
    assert image.affine is not None
    out = np.zeros(image.shape, dtype=bool)
    out[tuple(index_of(points, image.affine).T)] = True
    return out


def dciodvfy(path: Path) -> list[str]:
    """Lines of the validator about errors; the test is skipped, saying so, where it is not installed."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    assert any("Segmentation" in line or "RTStructureSet" in line for line in lines)
    return [line for line in lines if line.startswith(("Error", "Warning"))]


def by_pydicom(path: Path, image: Image) -> dict[str, np.ndarray]:
    """Segment label → mask on the image's grid, by the plane position of every frame."""
    assert image.affine is not None
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    names = {item.SegmentNumber: item.SegmentLabel for item in dataset.SegmentSequence}
    shared_groups = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared_groups.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    spacing = np.array(shared_groups.PixelMeasuresSequence[0].PixelSpacing, dtype=float)
    np.testing.assert_allclose(orientation[3:] * spacing[0], image.affine[:3, 1], atol=1e-6)
    np.testing.assert_allclose(orientation[:3] * spacing[1], image.affine[:3, 2], atol=1e-6)
    found = {name: np.zeros(image.shape, dtype=dataset.pixel_array.dtype) for name in names.values()}
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        place = np.array([group.PlanePositionSequence[0].ImagePositionPatient], dtype=float)
        ((depth, *corner),) = index_of(place, image.affine)
        assert corner == [0, 0]
        if dataset.SegmentationType == "LABELMAP":
            for number, name in names.items():
                found[name][depth] = frame == number
        else:
            own = group if "SegmentIdentificationSequence" in group else shared_groups
            found[names[own.SegmentIdentificationSequence[0].ReferencedSegmentNumber]][depth] = frame
    return found


def by_dcmqi(path: Path, folder: Path) -> dict[int, np.ndarray]:
    """Segment number (of a label map 0: any) → LPS mm of its voxels."""
    tool = shutil.which("segimage2itkimage")
    if tool is None:
        pytest.skip("dcmqi is not installed")
    folder.mkdir()
    done = subprocess.run(
        [tool, "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {int(file.stem): voxels(sitk.ReadImage(file)) for file in folder.glob("*.nrrd")}


def by_plastimatch(path: Path, images: Path, folder: Path) -> dict[str, np.ndarray]:
    """Region name → LPS mm of its voxels."""
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch is not installed")
    command = ["plastimatch", "convert", "--input", path, "--referenced-ct", images]
    subprocess.run([*command, "--output-prefix", folder, "--prefix-format", "nrrd"], capture_output=True, check=True)
    return {file.stem: voxels(sitk.ReadImage(file)) for file in folder.glob("*.nrrd")}


@pytest.mark.parametrize("grid", GRIDS)
def test_binary_segmentation_is_valid_and_equal_for_others(tmp_path: Path, grid: str) -> None:
    image = source(tmp_path / "image", grid)
    made = segmentation(image)
    path = formats.write(made, tmp_path / "case", format="dicom-seg")
    assert path.name == "case.seg.dcm"
    assert dciodvfy(path) == []
    frames = by_pydicom(path, image)
    assert list(frames) == [c.name for c in LABELS.classes]
    for c in LABELS.classes:
        np.testing.assert_array_equal(frames[c.name], made.array == c.written)


@pytest.mark.parametrize("grid", RECTANGULAR)
def test_binary_segmentation_is_equal_for_dcmqi(tmp_path: Path, grid: str) -> None:
    image = source(tmp_path / "image", grid)
    made = segmentation(image)
    found = by_dcmqi(formats.write(made, tmp_path / "case", format="dicom-seg"), tmp_path / "dcmqi")
    assert set(found) in ({1, 2, 3}, {1, 2, 3, 4})  # the last has no frames
    for number, c in enumerate(LABELS.classes, start=1):
        if number in found:
            np.testing.assert_array_equal(on_grid(found[number], image), made.array == c.written)


@pytest.mark.parametrize("grid", GRIDS)
def test_label_map_is_equal_for_others(tmp_path: Path, grid: str) -> None:
    image = source(tmp_path / "image", grid)
    made = segmentation(image)
    path = formats.write(made, tmp_path / "case", format="dicom-labelmap")
    assert pydicom.dcmread(path).SegmentationType == "LABELMAP"
    frames = by_pydicom(path, image)
    for c in LABELS.classes:
        np.testing.assert_array_equal(frames[c.name], made.array == c.written)
    if grid in RECTANGULAR:
        (points,) = by_dcmqi(path, tmp_path / "dcmqi").values()
        np.testing.assert_array_equal(on_grid(points, image), made.array > 0)


@pytest.mark.parametrize("grid", GRIDS)
def test_structure_set_is_valid_and_encloses_the_same_pixels(tmp_path: Path, grid: str) -> None:
    image = source(tmp_path / "image", grid)
    assert image.affine is not None
    made = segmentation(image)
    path = formats.write(made, tmp_path / "case", format="rtstruct")
    assert path.name == "case.rtstruct.dcm"
    assert dciodvfy(path) == []
    dataset = pydicom.dcmread(path)
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == [c.name for c in LABELS.classes]
    headers = image.source.details["headers"]  # type: ignore[union-attr]
    centres = np.argwhere(np.ones(image.shape[1:]))
    for c, drawn in zip(LABELS.classes, dataset.ROIContourSequence, strict=True):
        united = np.zeros(image.shape, dtype=bool)
        odd = np.zeros(image.shape, dtype=bool)
        for contour in drawn.get("ContourSequence", ()):
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            assert contour.NumberOfContourPoints == len(points)
            index = np.linalg.solve(image.affine, np.c_[points, np.ones(len(points))].T)[:3].T
            depth = int(np.rint(index[0, 0]))
            assert np.abs(index[:, 0] - depth).max() < 1e-2
            inside = Polygon(index[:, 1:]).contains_points(centres).reshape(image.shape[1:])
            united[depth] |= inside
            odd[depth] ^= inside
            (reference,) = contour.ContourImageSequence
            frame = reference.get("ReferencedFrameNumber", 1) - 1
            (header,) = (h for h in headers if h.SOPInstanceUID == reference.ReferencedSOPInstanceUID)
            groups = header.get("PerFrameFunctionalGroupsSequence")
            plane = groups[frame].PlanePositionSequence[0] if groups else header
            ((at, *_),) = index_of(np.array([plane.ImagePositionPatient], dtype=float), image.affine)
            assert at == depth
        np.testing.assert_array_equal(united, made.array == c.written)
        np.testing.assert_array_equal(odd, made.array == c.written)


@pytest.mark.parametrize("grid", ["axial", "coronal", "sagittal", "oblique", "flipped"])
def test_structure_set_is_equal_for_plastimatch(tmp_path: Path, grid: str) -> None:
    """Plastimatch makes grids of its own for multi-frame objects and single slices, and straightens sheared stacks."""
    image = source(tmp_path / "image", grid)
    made = segmentation(image)
    path = formats.write(made, tmp_path / "case", format="rtstruct")
    found = by_plastimatch(path, tmp_path / "image", tmp_path / "out")
    assert len(found) == 3
    for name, points in found.items():
        value = {"liver": 1, "GTV-1": 2}.get(name, 7)
        np.testing.assert_array_equal(on_grid(points, image), made.array == value)


@pytest.mark.parametrize("grid", ["axial", "oblique", "flipped", "single slice"])
def test_nifti_lies_where_the_segmentation_lies(tmp_path: Path, grid: str) -> None:
    image = source(tmp_path / "image", grid)
    made = segmentation(image, (painted(image.shape) == 1).astype(np.uint8))
    seg = formats.write(made, tmp_path / "case", format="dicom-seg")
    nifti = nibabel.load(formats.write(made, tmp_path / "case", format="nifti"))
    index = np.argwhere(np.asarray(nifti.dataobj))
    points = index @ nifti.affine[:3, :3].T + nifti.affine[:3, 3]
    points = points * (-1, -1, 1)  # RAS → LPS
    theirs = by_dcmqi(seg, tmp_path / "dcmqi")[1]
    assert len(theirs) == len(points) == np.count_nonzero(made.array)
    distance = np.linalg.norm(points[:, None] - theirs[None], axis=2)
    assert distance.min(axis=1).max() < 1e-3
    assert distance.min(axis=0).max() < 1e-3


@st.composite
def grids(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int, int], list[int]]:
    """Affine, shape and an order of slices."""
    angle = st.one_of(st.sampled_from([0, 90, 180]), st.floats(-180, 180))
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(8, 11)))
    scale = draw(st.sampled_from([0.02, 1, 3]))  # microscopes and whole bodies
    spacing = tuple(scale * s for s in draw(st.tuples(*(st.floats(0.2, 4),) * 3)))
    affine = geometry(
        spacing=spacing,
        degrees=draw(st.tuples(angle, angle, angle)),
        origin=draw(st.tuples(*(st.floats(-1500, 1500),) * 3)),
        flips=draw(st.tuples(*(st.sampled_from([1, -1]),) * 3)),
        shear=spacing[0] * draw(st.sampled_from([0, 0, 0.2])),
    )
    return affine, shape, draw(st.permutations(range(shape[0])))


@settings(max_examples=40, deadline=None)
@given(grids(), st.sampled_from(["dicom-seg", "dicom-labelmap", "rtstruct"]), st.integers(0, 2**32 - 1))
def test_written_and_read_is_the_identity(
    grid: tuple[np.ndarray, tuple[int, int, int], list[int]], kind: formats.OutputFormat, seed: int
) -> None:
    affine, shape, order = grid
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_series(folder / "image", pixels(shape), affine, names=[f"{n}.dcm" for n in order])
        image = formats.read(folder / "image")
        mask = rng.choice(np.uint8([0, 1, 2, 7]), image.shape)
        path = formats.write(segmentation(image, mask), folder / "case", format=kind)
        back = formats.read_label(path, image, LABELS)
    codes = labels.encode(back, LABELS)
    np.testing.assert_array_equal(codes, np.uint8([0, 1, 2, 0, 0, 0, 0, 3])[mask])


@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-labelmap", "rtstruct"])
@pytest.mark.parametrize("grid", ["axial", "single slice", "multi-frame"])
def test_nothing_found_is_a_valid_object(tmp_path: Path, grid: str, kind: formats.OutputFormat) -> None:
    image = source(tmp_path / "image", grid)
    made = segmentation(image, np.zeros(image.shape, np.uint8))
    path = formats.write(made, tmp_path / "case", format=kind)
    if kind != "dicom-labelmap":
        assert dciodvfy(path) == []
    back = formats.read_label(path, image, LABELS)
    assert not labels.encode(back, LABELS).any()


def test_nested_regions_become_overlapping_segments(tmp_path: Path) -> None:
    image = source(tmp_path / "image", "oblique")
    mask = painted(image.shape, (1, 2))
    made = segmentation(image, mask, REGIONS)
    path = formats.write(made, tmp_path / "case", format="dicom-seg")
    assert dciodvfy(path) == []
    frames = by_pydicom(path, image)
    np.testing.assert_array_equal(frames["whole tumour"], mask > 0)
    np.testing.assert_array_equal(frames["core"], mask == 2)
    for written in (path, formats.write(made, tmp_path / "case", format="rtstruct")):
        back = formats.read_label(written, image, REGIONS)
        np.testing.assert_array_equal(labels.encode(back, REGIONS), np.where(mask == 2, 2, mask))
    with pytest.raises(OutputError, match="overlap") as caught:
        formats.write(made, tmp_path / "map", format="dicom-labelmap")
    assert "dicom-seg" in str(caught.value.fix)
    assert not (tmp_path / "map.seg.dcm").exists()


def test_segments_say_what_they_are(tmp_path: Path) -> None:
    image = source(tmp_path / "image", "axial")
    first, second = (
        pydicom.dcmread(formats.write(segmentation(image), tmp_path / name, format="dicom-seg")) for name in "ab"
    )
    assert first.SOPInstanceUID != second.SOPInstanceUID
    liver, tumour, unnamed, _ = first.SegmentSequence
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert tumour.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert unnamed.SegmentLabel == "无名"
    assert unnamed.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lung"
    assert liver.SegmentAlgorithmType == "AUTOMATIC"
    (algorithm,) = liver.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ALGORITHM
    lightness, a, b = tumour.RecommendedDisplayCIELabValue  # 16-bit code of PS3.3, C.10.7.1.1
    expected = rgb2lab([0.0, 1.0, 0.0])
    np.testing.assert_allclose((lightness / 65535 * 100, a / 257 - 128, b / 257 - 128), expected, atol=0.05)
    colours = {tuple(item.RecommendedDisplayCIELabValue) for item in first.SegmentSequence}
    assert len(colours) == len(LABELS.classes)
    tracked = [(item.TrackingID, item.TrackingUID) for item in first.SegmentSequence]
    assert len(set(tracked)) == len(LABELS.classes)
    assert tracked == [(item.TrackingID, item.TrackingUID) for item in second.SegmentSequence]


@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct"])
def test_references_lead_to_the_images(tmp_path: Path, kind: formats.OutputFormat) -> None:
    image = source(tmp_path / "image", "axial")
    written = pydicom.dcmread(formats.write(segmentation(image), tmp_path / "case", format=kind))
    header = pydicom.dcmread(tmp_path / "image" / "slice_000.dcm")
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "AccessionNumber"):
        assert written[keyword].value == header[keyword].value
    assert written.SeriesInstanceUID != header.SeriesInstanceUID
    if kind == "dicom-seg":
        (series,) = written.ReferencedSeriesSequence
        referenced = series.ReferencedInstanceSequence
    else:
        (frame,) = written.ReferencedFrameOfReferenceSequence
        (study,) = frame.RTReferencedStudySequence
        (series,) = study.RTReferencedSeriesSequence
        referenced = series.ContourImageSequence
    assert series.SeriesInstanceUID == header.SeriesInstanceUID
    uids = {pydicom.dcmread(file).SOPInstanceUID for file in (tmp_path / "image").iterdir()}
    assert {item.ReferencedSOPInstanceUID for item in referenced} == uids


SECRETS = {
    **{k: PRIVATE[k] for k in ("InstitutionName", "StudyDescription", "SeriesDescription")},
    "InstitutionAddress": "Irrweg 7",
    "StationName": "ROENTGEN3",
    "OperatorsName": "Helfer^Hans",
    "PerformingPhysicianName": "Arzt^Anna",
    "PatientAge": "071Y",
    "PatientWeight": "61.75",
    "PatientSize": "1.625",
    "PatientAddress": "Hintergasse 3",
    "OtherPatientIDs": "KK-998877",
    "PatientComments": "Kommentar",
    "AdditionalPatientHistory": "Vorgeschichte",
    "ProtocolName": "Protokoll",
    "ManufacturerModelName": "Apparat",
    "DeviceSerialNumber": "SN31415",
    "AcquisitionDate": "20190304",
    "ContentDate": "20190305",
}


@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-labelmap", "rtstruct", "nifti"])
def test_nothing_private_goes_along(
    tmp_path: Path, kind: formats.OutputFormat, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def private(_: int, header: pydicom.Dataset) -> None:
        header.add_new(0x00091001, "LO", "Privatsache")
        header.add_new(0x00090010, "LO", "Hersteller")

    extra = {k: v for k, v in SECRETS.items() if k not in PRIVATE}
    write_series(tmp_path / "image", pixels((2, 8, 8)), edit=private, **extra)
    image = formats.read(tmp_path / "image")
    caplog.set_level(logging.DEBUG)
    path = formats.write(segmentation(image), tmp_path / "case", format=kind)
    content = path.read_bytes()
    for secret in (*SECRETS.values(), "Privatsache", "Hersteller"):
        assert secret.encode() not in content, secret
    if kind != "nifti":
        assert not [e.tag for e in pydicom.dcmread(path).iterall() if e.tag.is_private]
    heard = caplog.text + "".join(capfd.readouterr())
    for value in (*PRIVATE.values(), "P-0815"):
        assert value not in heard
        if kind == "nifti":
            assert value.encode() not in content


def test_breaches_of_the_source_stay_there(tmp_path: Path) -> None:
    def damage(_: int, header: pydicom.Dataset) -> None:
        with pydicom.config.disable_value_validation():
            header.PatientSex, header.PatientBirthDate, header.PatientName = "weiblich", "11.8.47", "Müller^Jürgen"
        header.SpecificCharacterSet = "ISO_IR 100"
        header.FrameOfReferenceUID = ""
        del header.StudyID, header.StudyTime

    with pydicom.config.disable_value_validation():
        write_series(tmp_path / "image", pixels((2, 8, 8)), edit=damage)
    image = formats.read(tmp_path / "image")
    uids = set()
    for kind in ("dicom-seg", "rtstruct"):
        path = formats.write(segmentation(image), tmp_path / "case", format=kind)  # type: ignore[arg-type]
        assert [line for line in dciodvfy(path) if line.startswith("Error")] == []
        written = pydicom.dcmread(path)
        assert (written.PatientSex, written.PatientBirthDate) == ("", "")
        assert str(written.PatientName) == "Müller^Jürgen"
        uids.add(written.FrameOfReferenceUID)
    assert len(uids) == 1


BREACHES = {  # neither cut nor fixed: half an identifier is that of somebody else
    "PatientName": ["N" * 65, "A^B^C^D^E^F", "A=B=C=D"],
    "PatientID": ["1" * 65, "12\\34", "12\x1b34"],
    "PatientBirthDate": ["1947", "19471301", "19470230", "19470811-", "1947.08.11"],
    "PatientSex": ["weiblich", "m"],
    "StudyDate": ["ANONYM"],
    "StudyTime": ["25", "10:11:12", "1011-1012", "101112.1234567"],
    "StudyID": ["Untersuchung 12345"],
    "AccessionNumber": ["ACC-4711-0815-XYZ"],
    "ReferringPhysicianName": ["H" * 70],
}


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct"])
def test_identifiers_that_dicom_does_not_allow_stay_empty_and_are_told(
    tmp_path: Path, kind: formats.OutputFormat, number: int
) -> None:
    values = {keyword: found[number] for keyword, found in BREACHES.items() if number < len(found)}
    with pydicom.config.disable_value_validation():
        write_series(tmp_path / "image", pixels((2, 8, 8)), PositionReferenceIndicator="P" * 65, **values)
    image = formats.read(tmp_path / "image")
    (note,) = image.warnings
    assert note == f"DICOM does not allow what is in {', '.join(values)}: left empty in DICOM that is written"
    path = formats.write(segmentation(image), tmp_path / "case", format=kind)
    assert [line for line in dciodvfy(path) if line.startswith("Error")] == []
    written = pydicom.dcmread(path)
    for keyword in BREACHES:
        assert (str(written[keyword].value) == "") == (keyword in values), keyword


def test_identifiers_that_dicom_just_allows_are_taken_over_as_they_are(tmp_path: Path) -> None:
    values = {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "N" * 64 + "=山田\u3000太郎^花=やまだ",
        "PatientID": "#" * 64,
        "PatientBirthDate": "20000229",
        "StudyTime": "235960.123456",
        "StudyID": "S" * 16,
        "AccessionNumber": "A" * 16,
    }
    write_series(tmp_path / "image", pixels((2, 8, 8)), **values)
    image = formats.read(tmp_path / "image")
    assert image.warnings == ()
    for kind in ("dicom-seg", "rtstruct"):
        written = pydicom.dcmread(formats.write(segmentation(image), tmp_path / "case", format=kind))  # type: ignore[arg-type]
        assert {keyword: str(written[keyword].value) for keyword in values} == values


def test_pictures_without_position(tmp_path: Path) -> None:
    write_photograph(tmp_path / "image.dcm", pixels((22, 19)).astype(np.uint8))
    image = formats.read(tmp_path / "image.dcm")
    made = segmentation(image)
    path = formats.write(made, tmp_path / "case")
    assert path.name == "case.seg.dcm"
    assert dciodvfy(path) == []
    written = pydicom.dcmread(path)
    for frame, group in zip(written.pixel_array, written.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(frame, made.array == LABELS.classes[number - 1].written)
    back = formats.read_label(path, image, LABELS)
    np.testing.assert_array_equal(labels.encode(back, LABELS), np.uint8([0, 1, 2, 0, 0, 0, 0, 3])[made.array])
    with pytest.raises(OutputError, match="no position"):
        formats.write(made, tmp_path / "case", format="rtstruct")


def test_probabilities_are_fractions(tmp_path: Path) -> None:
    image = source(tmp_path / "image", "oblique")
    planes = np.random.default_rng(1).dirichlet(np.ones(5), image.shape).astype(np.float32)
    planes = np.moveaxis(planes, -1, 0)
    planes[1:, 0] = 0
    names = ("background", *(c.name for c in LABELS.classes))
    path = formats.write_map(planes, segmentation(image), tmp_path / "case", names=names)
    assert path.name == "case.seg.dcm"
    assert dciodvfy(path) == []
    written = pydicom.dcmread(path)
    assert (written.SegmentationType, written.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    frames = by_pydicom(path, image)
    for c, plane in zip(LABELS.classes, planes[1:], strict=True):
        np.testing.assert_allclose(frames[c.name] / written.MaximumFractionalValue, plane, atol=0.5 / 255 + 1e-6)
    with pytest.raises(OutputError, match="uncertainty"):
        formats.write_map(planes[0], segmentation(image), tmp_path / "other", names=["uncertainty"])
    nifti = formats.write_map(planes, segmentation(image), tmp_path / "case", names=names, format="nifti")
    np.testing.assert_array_equal(formats.read_map(nifti), planes)


def test_values_without_labels_are_structures(tmp_path: Path) -> None:
    image = source(tmp_path / "image", "axial")
    mask = np.zeros(image.shape, np.int32)
    mask[1, 3:6, 3:6], mask[2, 2, 2] = 300, -4
    path = formats.write(Segmentation(mask, image.affine, image.source), tmp_path / "case")
    frames = by_pydicom(path, image)
    np.testing.assert_array_equal(frames["label 300"], mask == 300)
    np.testing.assert_array_equal(frames["label -4"], mask == -4)


def moved(image: Image) -> np.ndarray:
    assert image.affine is not None
    affine = image.affine.copy()
    affine[0, 3] += 0.5
    return affine


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda image: Segmentation(painted(image.shape), image.affine), "unknown"),
        (lambda image: Segmentation(painted(image.shape), moved(image), image.source), "grid"),
        (lambda image: Segmentation(painted((5, 22, 18)), image.affine, image.source), "5×22×18"),
    ],
)
@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct"])
def test_refused(
    tmp_path: Path, kind: formats.OutputFormat, change: Callable[[Image], Segmentation], found: str
) -> None:
    image = source(tmp_path / "image", "axial")
    with pytest.raises(OutputError, match=found) as caught:
        formats.write(change(image), tmp_path / "case", format=kind)
    assert "nifti" in str(caught.value.fix)
    assert [entry.name for entry in tmp_path.iterdir()] == ["image"]


def test_fewer_pixels_than_a_byte_has_bits(tmp_path: Path) -> None:
    write_series(tmp_path / "image", pixels((2, 2, 3)))
    made = segmentation(formats.read(tmp_path / "image"))
    with pytest.raises(OutputError, match="8 pixels"):
        formats.write(made, tmp_path / "case")


def test_existing_files_stay(tmp_path: Path) -> None:
    image = source(tmp_path / "image", "axial")
    path = formats.write(segmentation(image), tmp_path / "case.seg.dcm")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        formats.write(segmentation(image), tmp_path / "case")
    assert path.read_bytes() == before
    assert formats.write(segmentation(image), tmp_path / "case", overwrite=True) == path
    assert formats.write(segmentation(image), tmp_path / "other.dcm").name == "other.seg.dcm"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AbdomenCT/dicom", "DicomSeg/ct-3slice", "LungCT/pat_1"])
def test_real_series(tmp_path: Path, name: str) -> None:
    """Also those with empty UIDs and character set."""
    folder = shared(name)
    with pydicom.config.disable_value_validation():
        image = formats.read(folder)
    assert image.affine is not None
    mask = np.zeros(image.shape, np.uint8)
    centre = image.shape[0] // 2
    waves = ndimage.gaussian_filter(np.random.default_rng(0).random(image.shape[1:]), 12)
    mask[max(centre - 2, 0) : centre + 2] = np.digitize(waves, [0.5, 0.51]) * 3 % 8  # 0, 3, 6
    mask = np.choose(mask // 3, np.uint8([0, 1, 7]))
    mask[:, 200:260, 210:280] = 2
    made = segmentation(image, mask)
    seg = formats.write(made, tmp_path / "case", format="dicom-seg")
    rtstruct = formats.write(made, tmp_path / "case", format="rtstruct")
    expected = np.uint8([0, 1, 2, 0, 0, 0, 0, 3])[mask]
    for path in (seg, rtstruct):
        assert [line for line in dciodvfy(path) if line.startswith("Error")] == []
        back = formats.read_label(path, image, LABELS)
        np.testing.assert_array_equal(labels.encode(back, LABELS), expected)
    points = by_dcmqi(seg, tmp_path / "dcmqi")
    np.testing.assert_array_equal(on_grid(points[2], image), mask == 2)
