"""Grey pictures stored in one channel or in three equal ones give the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

import cpfnet
from cpfnet.data.dataset import load
from cpfnet.errors import DatasetError, InputRefused
from cpfnet.image import GREY, RGB, Image
from cpfnet.planner.fingerprint import fingerprint
from tests import synthetic


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """The same grey pictures: all stored in red, green and blue, and half of them in grey."""
    coloured, mixed = tmp_path / "a" / "set", tmp_path / "b" / "set"
    for root in (coloured, mixed):
        synthetic.make_images_dataset(root, cases=6, channels=1)
        for number, file in enumerate(sorted((root / "images").iterdir())):
            if root is coloured or number % 2:
                Pillow.open(file).convert("RGB").save(file)
    return coloured, mixed


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_there_and_back(seed: int, dtype: type) -> None:
    grey = np.random.default_rng(seed).integers(0, 255, (1, 5, 7)).astype(dtype)
    image = Image(grey, channels=GREY)
    coloured = image.to_channels(RGB)
    assert coloured.channels == RGB
    assert all((plane == grey[0]).all() for plane in coloured.array)
    back = coloured.to_channels(GREY)
    assert back.channels == GREY
    np.testing.assert_array_equal(back.array, grey)
    assert back.array.dtype == dtype


@pytest.mark.parametrize(
    ("channels", "names"), [(RGB, GREY), (("t1",), RGB), (GREY, ("t1", "t2", "t3")), (RGB, ("t1",))]
)
def test_what_would_change_the_picture_is_left(channels: tuple[str, ...], names: tuple[str, ...]) -> None:
    image = Image(np.arange(len(channels) * 4, dtype=np.uint8).reshape(-1, 2, 2), channels=channels)
    assert image.to_channels(names) is image


def test_a_mixed_set_is_good_and_planned_for_as_if_all_were_coloured(sets: tuple[Path, Path]) -> None:
    coloured, mixed = sets
    (finding,) = cpfnet.check(mixed)
    assert (finding.severity, finding.kind, len(finding.files)) == ("note", "channels", 3)
    assert "3 of 6 pictures are stored in grey" in finding.what
    assert fingerprint(load(mixed)) == fingerprint(load(coloured))


def test_it_is_converted_as_if_all_were_coloured(sets: tuple[Path, Path], tmp_path: Path) -> None:
    written = []
    for root in sets:
        out = tmp_path / f"out-{root.parent.name}"
        cpfnet.convert(root, out, to="nnunet")
        written.append({str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file()})
    assert written[0] == written[1]


def test_a_grey_picture_among_photographs_in_colour_is_another_kind_of_image(tmp_path: Path) -> None:
    root = synthetic.make_images_dataset(tmp_path / "set", cases=4)
    settings = ["network.name=unet", "network.options={widths: [4, 4, 4, 4, 8]}", "spatial.patch=[32, 32]"]
    settings += ["training.epochs=1", "training.samples=4", "training.batch=2"]
    model = cpfnet.train(root, tmp_path / "m", settings=settings, device="cpu")
    file = root / "images" / "case_00.png"
    Pillow.open(file).convert("L").save(file)
    assert ("error", "channels") in {(f.severity, f.kind) for f in cpfnet.check(root)}
    with pytest.raises(DatasetError, match="stored in grey, and others have colours"):
        cpfnet.plan(root)
    with pytest.raises(InputRefused, match=r"3 channels \(red, green, blue\), and this image has 1"):
        cpfnet.predict(model, file, cpfnet.PredictorOptions(device="cpu"))


def test_a_grey_picture_among_channels_that_are_no_colours_is_an_error(tmp_path: Path) -> None:
    synthetic.make_images_dataset(tmp_path, cases=4, channels=1)
    (tmp_path / "dataset.yaml").write_text("channels: [first, second, third]\n")
    for file in sorted((tmp_path / "images").iterdir())[1:]:
        Pillow.open(file).convert("RGB").save(file)
    assert ("error", "channels") in {(f.severity, f.kind) for f in cpfnet.check(tmp_path)}


def test_training_and_prediction_take_both(sets: tuple[Path, Path], tmp_path: Path) -> None:
    settings = ["network.name=unet", "network.options={widths: [4, 4, 4, 4, 8]}", "spatial.patch=[32, 32]"]
    settings += ["training.epochs=1", "training.samples=4", "training.batch=2"]
    weights, masks = [], []
    for root in sets:
        model = cpfnet.train(root, tmp_path / f"model-{root.parent.name}", settings=settings, device="cpu")
        weights.append((model.folder / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1]
    for root in sets:
        scan = cpfnet.read(root / "images" / "case_00.png")
        assert len(scan.array) == (3 if root is sets[0] else 1)
        masks.append(cpfnet.predict(model, scan, cpfnet.PredictorOptions(device="cpu")).array)
    np.testing.assert_array_equal(masks[0], masks[1])


def test_a_grey_model_takes_grey_stored_in_three_channels_and_no_colours(tmp_path: Path) -> None:
    synthetic.make_images_dataset(tmp_path / "set", cases=4, channels=1)
    settings = ["network.name=unet", "network.options={widths: [4, 4, 4, 4, 8]}", "spatial.patch=[32, 32]"]
    settings += ["training.epochs=1", "training.samples=4", "training.batch=2"]
    model = cpfnet.train(tmp_path / "set", tmp_path / "m", settings=settings, device="cpu")
    scan = cpfnet.read(tmp_path / "set" / "images" / "case_00.png")
    copy = scan.to_channels(RGB)
    expected = cpfnet.predict(model, scan, cpfnet.PredictorOptions(device="cpu")).array
    np.testing.assert_array_equal(cpfnet.predict(model, copy, cpfnet.PredictorOptions(device="cpu")).array, expected)
    tinted = Image(np.stack([*copy.array[:2], copy.array[2] // 2]), channels=RGB)
    with pytest.raises(InputRefused, match=r"has 1 channels? \(grey\).*has 3"):
        cpfnet.predict(model, tinted, cpfnet.PredictorOptions(device="cpu"))
