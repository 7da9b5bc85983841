"""Geometry from file to file: preprocessing, prediction and writing, voxel by voxel, read by other libraries."""

import nibabel
import numpy as np
import pytest
import SimpleITK

from cpfnet import formats, labels, preprocessing
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.predictor import Predictor
from tests import synthetic
from tests.inference.oracle import bright, make_model, oracle
from tests.predicting import predict_files

VALUES = (7, 100, 255)

WAYS = {
    "axial slices": {"slices": "axial"},
    "coronal stacks": {"slices": "coronal", "mode": "2.5d", "neighbours": 1},
    "sagittal slices": {"slices": "sagittal"},
    "stored slices": {},
    "3-D": {"slices": "axial", "mode": "3d"},
}

GEOMETRIES = {
    "anisotropic": {"spacing": (0.6, 1.1, 3.0), "origin": (-31.5, 12.25, 80)},
    "oblique": {"spacing": (0.6, 1.1, 3.0), "origin": (-31.5, 12.25, 80), "degrees": (12, -7, 23)},
}


def file_values(mask: np.ndarray) -> np.ndarray:
    return np.array([0, *VALUES], np.uint8)[mask]


def assert_lines_up(written, image_file, expected):
    """``written`` holds ``expected`` on the very grid of ``image_file``, say nibabel and SimpleITK."""
    result, source = nibabel.load(written), nibabel.load(image_file)
    np.testing.assert_array_equal(np.asarray(result.dataobj).transpose(2, 1, 0), expected)
    np.testing.assert_allclose(result.affine, source.affine, atol=1e-5)
    assert result.get_sform(coded=True)[1] == source.get_sform(coded=True)[1]
    result, source = SimpleITK.ReadImage(written), SimpleITK.ReadImage(image_file)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(result), expected)
    assert result.GetSize() == source.GetSize()
    for name in ("Origin", "Spacing", "Direction"):
        np.testing.assert_allclose(getattr(result, f"Get{name}")(), getattr(source, f"Get{name}")(), atol=1e-5)


@pytest.mark.parametrize(("way", "geometry"), [("axial slices", "anisotropic"), *((way, "oblique") for way in WAYS)])
def test_phantom_comes_back_voxel_exact_in_all_48_orientations(tmp_path, way, geometry):
    _, mask = synthetic.phantom((10, 12, 15))
    model = make_model(values=VALUES, **WAYS[way])
    predictor = Predictor([model], PredictorOptions(backend=oracle))
    for number, (axes, signs) in enumerate(synthetic.orientations()):
        affine = synthetic.affine(axes=axes, signs=signs, **GEOMETRIES[geometry])
        image_file = synthetic.write_nifti(tmp_path / f"{number}.nii", bright(mask, 3), affine)
        label_file = synthetic.write_nifti(tmp_path / f"{number}_label.nii", file_values(mask), affine)

        # What training does: the label on the network's grid fits the image there.
        array, trace = preprocessing.apply(formats.read(image_file), model.plan)
        codes = preprocessing.apply_codes(labels.encode(formats.read_label(label_file), model.plan.labels), trace)
        np.testing.assert_array_equal(np.rint(array[0] * 3), codes)

        # What prediction does.
        written = formats.write(predictor.predict(formats.read(image_file)), tmp_path / f"{number}_out.nii")
        assert_lines_up(written, image_file, file_values(mask))


def test_files_in_all_48_orientations_through_torch(tmp_path):
    """The whole command's way, with a network in torch and compressed files."""
    _, mask = synthetic.phantom((10, 12, 15))
    for number, (axes, signs) in enumerate(synthetic.orientations()):
        affine = synthetic.affine(axes=axes, signs=signs, **GEOMETRIES["oblique"])
        synthetic.write_nifti(tmp_path / "in" / f"case_{number}.nii.gz", bright(mask, 3), affine)
    model = make_model(values=VALUES, slices="axial", mode="3d")
    outcomes = predict_files([model], [tmp_path / "in"], tmp_path / "out", device="cpu", listen=pytest.fail)
    assert [outcome.path.name for outcome in outcomes] == [f"case_{number}.nii.gz" for number in range(48)]
    for outcome in outcomes:
        assert outcome.status == "done", outcome.message
        assert_lines_up(outcome.output, outcome.path, file_values(mask))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.4, 0.9, 0.8)])
@pytest.mark.parametrize("way", ["axial slices", "coronal stacks", "3-D"])
def test_resampled_predictions_lie_on_the_sources_grid_in_their_place(tmp_path, way, spacing):
    """With resampling the contour may move by a fraction of a voxel, but never the structure."""
    ijk = np.indices((20, 40, 44)).transpose(1, 2, 3, 0)
    mm = np.array([2.0, 1.0, 0.8])
    ball = (((ijk - (8, 24, 17)) * mm) ** 2).sum(-1) < 11**2
    affine = synthetic.affine((0.8, 1.0, 2.0), degrees=(10, 5, -8), axes=(1, 0, 2), signs=(1, -1, -1))
    image_file = synthetic.write_nifti(tmp_path / "image.nii.gz", bright(ball, 1), affine)
    model = make_model(values=(1,), spacing=spacing, **WAYS[way])
    written = formats.write(
        Predictor([model], PredictorOptions(backend=oracle)).predict(formats.read(image_file)), tmp_path / "out.nii.gz"
    )
    found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(written)) > 0
    np.testing.assert_allclose(nibabel.load(written).affine, nibabel.load(image_file).affine, atol=1e-5)
    assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) > 0.95
    np.testing.assert_allclose(np.argwhere(found).mean(0), np.argwhere(ball).mean(0), atol=0.25)
