"""Small cases and data sets for the tests, made on the spot and learnable in a few steps.

Files are written with Pillow, nibabel and pydicom directly, never through `cpfnet.formats`, so that tests judge it
from outside. Arrays stand in cpfnet's order, ``([depth,] height, width)``; only `write_nifti` turns them to NIfTI's
(x, y, z).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    """Path of real data beside the checkout; the test is skipped, saying so, where they are absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"real data {name} not present in ../shared/data")
    return path


def blobs(rng: np.random.Generator, shape: tuple[int, ...], classes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image and its mask: one or two ellipsoids a class, each class brighter than the one before.

    Args:
        rng: all randomness.
        shape: ``([depth,] height, width)``.
        classes: structures beside the background.

    Returns:
        float32 image, about 0…1, and uint8 mask with 0 … classes; every class is present (shapes of at least 8).
    """
    size = np.array(shape, dtype=float)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    mask = np.zeros(shape, dtype=np.uint8)
    for number in range(classes, 0, -1):  # the first class is drawn last, so none is wholly covered by a larger one
        for _ in range(int(rng.integers(1, 3))):
            centre = size * rng.uniform(0.25, 0.75, len(shape))
            radius = np.maximum(size * rng.uniform(0.12, 0.2, len(shape)), 1.0)
            mask[(((grid - centre) / radius) ** 2).sum(axis=-1) <= 1] = number
    for number in range(1, classes + 1):
        if not (mask == number).any():
            mask[(slice(0, 2),) * (len(shape) - 1) + (slice(2 * number, 2 * number + 2),)] = number
    image = 0.2 + 0.6 * mask.astype(np.float32) / max(classes, 1)
    image += rng.normal(0, 0.06, shape).astype(np.float32)
    return np.clip(ndimage.gaussian_filter(image, 0.5), 0, 1).astype(np.float32), mask


def phantom(shape: tuple[int, ...] = (14, 18, 23)) -> tuple[np.ndarray, np.ndarray]:
    """An asymmetric image with landmarks: no flip or swap of axes maps it, or its mask, onto itself.

    Args:
        shape: ``([depth,] height, width)``, each at least 8.

    Returns:
        float32 image (a ramp of its own slope along each axis, plus 1,000 in the landmarks' centres) and uint8 mask:
        1 an arm along each axis from one corner (of other lengths), 2 a box near the opposite corner, 3 one voxel
        off the centre.
    """
    ndim = len(shape)
    axes = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij")
    image = sum(slope * axis for slope, axis in zip((11.0, 3.0, 1.0)[-ndim:], axes, strict=True))
    image = np.asarray(image, dtype=np.float32)
    mask = np.zeros(shape, dtype=np.uint8)
    for axis, share in zip(range(ndim), (0.4, 0.55, 0.75)[-ndim:], strict=True):
        arm: list[slice] = [slice(1, 3)] * ndim
        arm[axis] = slice(1, max(3, round(share * shape[axis])))
        mask[tuple(arm)] = 1
    mask[tuple(slice(n - 4 - i, n - 2 + i % 2) for i, n in enumerate(shape))] = 2
    spot = tuple(n // 2 + 1 + i for i, n in enumerate(shape))
    mask[spot] = 3
    image[spot] += 1000
    image[(2,) * ndim] += 500
    return image, mask


def affine(
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    degrees: tuple[float, float, float] = (0.0, 0.0, 0.0),
    axes: tuple[int, int, int] = (0, 1, 2),
    signs: tuple[int, int, int] = (1, 1, 1),
) -> np.ndarray:
    """A NIfTI affine, (x, y, z) voxel indices → RAS mm.

    Args:
        spacing: mm along the stored axes x, y, z.
        origin: RAS mm of voxel (0, 0, 0).
        degrees: rotations about R, A, S, applied in this order (an oblique scan).
        axes, signs: stored axis n runs along world axis ``axes[n]`` in direction ``signs[n]``.
    """
    matrix = np.zeros((3, 3))
    for stored, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        matrix[world, stored] = sign * spacing[stored]
    for about, angle in enumerate(np.radians(degrees)):
        turn, (first, second) = np.eye(3), ((about + 1) % 3, (about + 2) % 3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = matrix, origin
    return out


def orientations() -> Iterator[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """All 48 (axes, signs) for `affine`."""
    for axes in itertools.permutations((0, 1, 2)):
        for signs in itertools.product((1, -1), repeat=3):
            yield axes, signs  # type: ignore[misc]


def write_raster(path: Path, array: np.ndarray, **options: object) -> Path:
    """Write ``(height, width)`` or ``(height, width, 3|4)`` uint8 (grey: uint16 too) by the suffix of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(array).save(path, **options)
    return path


def write_nifti(
    path: Path, array: np.ndarray, affine_ras: np.ndarray | None = None, *, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> Path:
    """Write ``([channels,] depth, height, width)`` as NIfTI (x, y, z[, channel]).

    Args:
        path: ends in .nii or .nii.gz.
        array: three axes, or four with channels first.
        affine_ras: (x, y, z) → RAS mm; default: ``spacing`` (mm along x, y, z) on the diagonal.
        spacing: see ``affine_ras``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    matrix = affine(tuple(spacing)) if affine_ras is None else affine_ras  # type: ignore[arg-type]
    stored = np.moveaxis(array, 0, -1).swapaxes(0, 2) if array.ndim == 4 else array.transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored), matrix), path)
    return path


def make_images_dataset(
    root: Path,
    cases: int = 6,
    size: tuple[int, int] = (64, 64),
    *,
    channels: int = 3,
    classes: int = 1,
    suffix: str = ".png",
    mask_suffix: str = ".png",
    roi: bool = False,
    seed: int = 0,
) -> Path:
    """``images/ masks/ [roi/]`` with files ``case_00``, ``case_01`` …

    Args:
        root: the data set's folder, made if need be.
        cases: how many.
        size: (height, width).
        channels: 1 (grey) or 3 (RGB, each channel another mixture of the same structures).
        classes: masks hold 0/255 for one class, else 0, 1, 2 …
        suffix, mask_suffix: formats.
        roi: add a disc, 0/255, as region of interest.
        seed: of all randomness.

    Returns:
        ``root``.
    """
    for number in range(cases):
        rng = np.random.default_rng((seed, number))
        image, mask = blobs(rng, size, classes)
        if channels == 3:
            image = np.stack([image, 0.9 * image + 0.05, 1 - 0.7 * image], axis=-1)
        name = f"case_{number:02d}"
        write_raster(root / "images" / f"{name}{suffix}", np.uint8(np.rint(255 * image)))
        write_raster(root / "masks" / f"{name}{mask_suffix}", np.uint8(255 * mask) if classes == 1 else mask)
        if roi:
            rows, columns = np.ogrid[: size[0], : size[1]]
            disc = ((rows - size[0] / 2) / size[0]) ** 2 + ((columns - size[1] / 2) / size[1]) ** 2 <= 0.23
            write_raster(root / "roi" / f"{name}{mask_suffix}", np.uint8(255 * disc))
    return root


def make_volumes_dataset(
    root: Path,
    cases: int = 4,
    shape: tuple[int, int, int] = (40, 36, 12),
    spacing: tuple[float, float, float] = (1.0, 1.0, 2.0),
    classes: int = 2,
    *,
    channels: int = 1,
    full: float = 400.0,
    affine_ras: np.ndarray | None = None,
    seed: int = 0,
) -> Path:
    """NIfTI ``images/ labels/`` with files ``case_00.nii.gz`` …, int16 images of about 0…``full``, labels 0 … classes.

    Args:
        root: the data set's folder, made if need be.
        cases: how many.
        shape: NIfTI's (x, y, z).
        spacing: mm along x, y, z.
        classes: structures beside the background.
        channels: more than 1: a fourth NIfTI axis.
        full: intensity of the brightest structure.
        affine_ras: geometry in place of ``spacing``.
        seed: of all randomness.

    Returns:
        ``root``.
    """
    for number in range(cases):
        rng = np.random.default_rng((seed, number))
        image, mask = blobs(rng, shape[::-1], classes)
        image = np.int16(np.rint(full * image))
        if channels > 1:
            image = np.stack([image // (c + 1) for c in range(channels)])
        name = f"case_{number:02d}.nii.gz"
        write_nifti(root / "images" / name, image, affine_ras, spacing=spacing)
        write_nifti(root / "labels" / name, mask, affine_ras, spacing=spacing)
    return root


_SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "OP": "1.2.840.10008.5.1.4.1.1.77.1.5.1",
    "XC": "1.2.840.10008.5.1.4.1.1.77.1.4",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}
_OF_MODALITY: dict[str, dict[str, object]] = {  # types 1 and 2 of the image modules
    "CT": {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "KVP": 120, "RescaleSlope": 1, "RescaleIntercept": -1024},
    "MR": {
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "RepetitionTime": 500,
        "EchoTime": 12,
        "EchoTrainLength": 1,
    },
    "PT": {
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "Units": "BQML",
        "CountsSource": "EMISSION",
        "SeriesType": ["STATIC", "IMAGE"],
        "CollimatorType": "NONE",
        "CorrectedImage": ["DECY", "ATTN"],
        "DecayCorrection": "START",
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    },
}
PRIVATE = {
    "PatientName": "Muster^Erika",
    "PatientBirthDate": "19470811",
    "AccessionNumber": "ACC4711",
    "InstitutionName": "Sankt Nirgendwo",
    "ReferringPhysicianName": "Haus^Gregor",
    "StudyDescription": "Verdacht auf Fernweh",
    "SeriesDescription": "Serie von Erika",
    "StudyDate": "20190302",
    "StudyTime": "101112",
}
"""What `write_series` puts into headers and cpfnet must never show (the PatientID is ``patient`` of `write_series`)."""


def dicom_uid(*parts: object) -> str:
    """The same UID for the same parts."""
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def _dataset(array: np.ndarray, modality: str, patient: str, study: str, series: str, index: int) -> pydicom.Dataset:
    """One instance with everything but its geometry: ``array`` is ``([frames,] height, width[, 3])``."""
    colour = array.shape[-1] == 3 and array.ndim > 2
    dataset = pydicom.Dataset()
    for keyword, value in PRIVATE.items():
        setattr(dataset, keyword, value)
    dataset.SOPClassUID = _SOP_CLASSES[modality]
    dataset.SOPInstanceUID = dicom_uid(patient, study, series, index)
    dataset.StudyInstanceUID = dicom_uid(patient, study)
    dataset.SeriesInstanceUID = dicom_uid(patient, study, series)
    dataset.FrameOfReferenceUID = dicom_uid(patient, study, "frame of reference")
    dataset.update({"Modality": modality, "PatientID": patient, "PatientSex": "F", "StudyID": "1", "SeriesNumber": 1})
    dataset.update({"InstanceNumber": index + 1, "AcquisitionNumber": 1, "Manufacturer": "cpfnet tests"})
    dataset.update({"PositionReferenceIndicator": "", "PatientPosition": "HFS", "Laterality": ""})
    for keyword, value in _OF_MODALITY.get(modality, {"ImageType": ["ORIGINAL", "PRIMARY"]}).items():
        setattr(dataset, keyword, value)
    bits = array.dtype.itemsize * 8
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = array.shape[-3:-1] if colour else array.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    return dataset


def _save_dicom(path: Path, dataset: pydicom.Dataset, array: np.ndarray, syntax: str) -> None:
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    native = not pydicom.uid.UID(syntax).is_compressed
    dataset.file_meta.TransferSyntaxUID = syntax if native else ExplicitVRLittleEndian
    dataset.PixelData = array.astype(array.dtype.newbyteorder("<")).tobytes() + b"\0" * (array.nbytes % 2)
    dataset["PixelData"].VR = "OB" if array.dtype.itemsize == 1 else "OW"
    if not native:
        dataset.compress(syntax, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _decimals(numbers: Iterable[float]) -> list[pydicom.valuerep.DSfloat]:
    """Decimal strings, which hold 16 characters."""
    return [pydicom.valuerep.DSfloat(float(number), auto_format=True) for number in numbers]


def write_series(
    folder: Path,
    array: np.ndarray,
    affine_lps: np.ndarray | None = None,
    *,
    modality: str = "CT",
    patient: str = "P-0815",
    study: str = "study",
    series: str = "series",
    names: str | Sequence[str] = "slice_{:03d}.dcm",
    syntax: str = ExplicitVRLittleEndian,
    edit: Callable[[int, pydicom.Dataset], None] | None = None,
    **attributes: object,
) -> list[Path]:
    """Write a series of one object a slice, whose headers satisfy dciodvfy for CT and MR.

    Args:
        folder: made if need be.
        array: ``(depth, height, width)`` stored integers, or ``(depth, height, width, 3)`` uint8 colours.
        affine_lps: as `cpfnet.image.Image` has it, (depth, height, width) indices → LPS mm; default: 1 mm axial. None
            of its slices need be in ascending order.
        modality: a key of the SOP classes above. CT has the intercept -1024.
        patient: the PatientID; with ``study`` and ``series``, all UIDs are made from these names.
        names: of the files, a pattern or one each.
        syntax: transfer syntax UID; compressed ones go through pydicom's encoders.
        edit: called with the slice number and its header before writing.
        attributes: header attributes of every slice; None deletes one.

    Returns:
        The files, in the order of ``array``.
    """
    matrix = np.eye(4)[:, [2, 1, 0, 3]] if affine_lps is None else affine_lps
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    paths = []
    for index, pixels in enumerate(array):
        dataset = _dataset(pixels, modality, patient, study, series, index)
        dataset.ImagePositionPatient = _decimals((matrix @ [index, 0, 0, 1])[:3])
        dataset.ImageOrientationPatient = _decimals([*(matrix[:3, 2] / spacing[2]), *(matrix[:3, 1] / spacing[1])])
        dataset.PixelSpacing = _decimals(spacing[1:])
        dataset.SliceThickness = _decimals(spacing[:1])[0]
        for keyword, value in attributes.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        if edit is not None:
            edit(index, dataset)
        paths.append(folder / (names.format(index) if isinstance(names, str) else names[index]))
        _save_dicom(paths[-1], dataset, pixels, syntax)
    return paths


def write_photograph(path: Path, array: np.ndarray, *, modality: str = "XC", **attributes: object) -> Path:
    """Write one ``(height, width)`` or ``(height, width, 3)`` picture without position: a photograph, a radiograph."""
    unplaced = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"))
    unplaced |= {"FrameOfReferenceUID": None, "PositionReferenceIndicator": None}
    series = str(attributes.pop("series", path.name))
    pictured = {"PatientOrientation": "", "AcquisitionContextSequence": [], "LossyImageCompression": "00"}
    options = {**unplaced, **pictured, **attributes}
    return write_series(path.parent, array[None], modality=modality, series=series, names=[path.name], **options)[0]  # type: ignore[arg-type]


def write_multiframe(
    path: Path,
    array: np.ndarray,
    affine_lps: np.ndarray | None = None,
    *,
    modality: str = "CT",
    patient: str = "P-0815",
    study: str = "study",
    series: str = "series",
    order: Sequence[int] | None = None,
    shared: bool = True,
    syntax: str = ExplicitVRLittleEndian,
    edit: Callable[[pydicom.Dataset], None] | None = None,
) -> Path:
    """Write an enhanced CT or MR object, a frame a slice; functional groups about the acquisition are left out.

    Args:
        path: the file.
        array, affine_lps, modality, patient, study, series, syntax: as in `write_series`.
        order: slice numbers in the order of the frames.
        shared: pixel measures, orientation and value transformation stand in the shared functional groups, else in
            those of every frame.
        edit: called with the header before writing.
    """
    matrix = np.eye(4)[:, [2, 1, 0, 3]] if affine_lps is None else affine_lps
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    order = list(range(len(array))) if order is None else list(order)
    pixels = array[order]
    dataset = _dataset(pixels, modality, patient, study, series, 0)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1" if modality == "CT" else "1.2.840.10008.5.1.4.1.1.4.1"
    for keyword in ("RescaleSlope", "RescaleIntercept", "AcquisitionNumber"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.update({"NumberOfFrames": len(pixels), "ContentDate": "20190302", "ContentTime": "101112"})
    dataset.update({"PixelPresentation": "MONOCHROME", "VolumetricProperties": "VOLUME", "AcquisitionNumber": 1})
    dataset.update(
        {"VolumeBasedCalculationTechnique": "NONE", "BurnedInAnnotation": "NO", "PresentationLUTShape": "IDENTITY"}
    )
    dataset.update({"LossyImageCompression": "00", "AcquisitionDateTime": "20190302101112", "AcquisitionDuration": 1.0})
    dataset.update({"DeviceSerialNumber": "1", "ManufacturerModelName": "tests", "SoftwareVersions": "1"})

    def group(**items: object) -> pydicom.Dataset:
        out = pydicom.Dataset()
        for keyword, value in items.items():
            setattr(out, keyword, value)
        return out

    def common() -> pydicom.Dataset:
        scale = (1, -1024, "HU") if modality == "CT" else (1, 0, "US")
        return group(
            PixelMeasuresSequence=[
                group(PixelSpacing=_decimals(spacing[1:]), SliceThickness=_decimals(spacing[:1])[0])
            ],
            PlaneOrientationSequence=[
                group(ImageOrientationPatient=_decimals([*(matrix[:3, 2] / spacing[2]), *(matrix[:3, 1] / spacing[1])]))
            ],
            PixelValueTransformationSequence=[
                group(RescaleSlope=scale[0], RescaleIntercept=scale[1], RescaleType=scale[2])
            ],
        )

    dataset.SharedFunctionalGroupsSequence = [common() if shared else pydicom.Dataset()]
    frames = []
    for index in order:
        frame = pydicom.Dataset() if shared else common()
        place = group(StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[1, index + 1])
        place.update({"FrameAcquisitionNumber": 1, "TemporalPositionIndex": 1})
        frame.FrameContentSequence = [place]
        frame.PlanePositionSequence = [group(ImagePositionPatient=_decimals((matrix @ [index, 0, 0, 1])[:3]))]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    organisation = dicom_uid(patient, study, series, "dimensions")
    dataset.DimensionOrganizationSequence = [group(DimensionOrganizationUID=organisation)]
    dataset.DimensionIndexSequence = [
        group(
            DimensionIndexPointer=pydicom.tag.Tag(keyword),
            FunctionalGroupPointer=pydicom.tag.Tag("FrameContentSequence"),
            DimensionOrganizationUID=organisation,
        )
        for keyword in ("StackID", "InStackPositionNumber")
    ]
    if edit is not None:
        edit(dataset)
    _save_dicom(path, dataset, pixels, syntax)
    return path
