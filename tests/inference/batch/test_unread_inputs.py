"""Files of kinds that are not read: named by suffix and count, wherever a folder or a pattern holds them."""

from pathlib import Path

import pytest

from tests import synthetic
from tests.inference.batch.test_dicom_inputs import EMPTY
from tests.inference.batch.test_run import images_model, picture, run


@pytest.fixture
def folder(tmp_path) -> Path:
    synthetic.write_raster(tmp_path / "in" / "a.png", picture()[0])
    for name in ("b.mgz", "deep/c.mgz", "d.MNC", "e.seg.mif", "f.heic", "g.nii.bz2", "h.img", "i.jpx", "j.unheard"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"\0 pixels of some kind")
    return tmp_path / "in"


def test_a_folder_names_what_it_holds_and_is_not_read(folder, tmp_path):
    said: list[str] = []
    (outcome,) = run(images_model(), [folder], tmp_path / "out", listen=said.append)
    assert outcome.status == "done"
    (text,) = said
    assert "2 files end in .mgz" in text
    for suffix in (".mnc", ".seg.mif", ".heic", ".nii.bz2", ".img", ".jpx", ".unheard"):
        assert f"1 in {suffix}" in text
    assert str(folder / "b.mgz") in text
    assert "convert" in text


def test_a_pattern_names_them_too(folder, tmp_path):
    said: list[str] = []
    image, deep = run(images_model(), [str(folder / "[a-d]*")], tmp_path / "out", listen=said.append)
    assert (image.status, deep.status) == ("done", "failed")
    assert "holds no image file; 1 file ends in .mgz" in deep.message
    assert len(said) == 1
    assert "1 file ends in .mgz and 1 in .mnc" in said[0]


def test_a_folder_without_any_image_says_what_is_there(folder, tmp_path):
    (folder / "a.png").unlink()
    said: list[str] = []
    (outcome,) = run(images_model(), [folder], tmp_path / "out", listen=said.append)
    assert outcome.status == "failed"
    assert "holds no image file; 2 files end in .mgz, 1 in .mnc" in outcome.message
    assert said == []


def test_a_file_given_by_name_fails(folder, tmp_path):
    outcomes = run(images_model(), [folder / "a.png", folder / "d.MNC"], tmp_path / "out")
    assert [o.status for o in outcomes] == ["done", "failed"]
    assert "unknown suffix '.MNC'" in outcomes[1].message


def test_what_stands_beside_images_as_a_rule_is_not_named(tmp_path):
    place = tmp_path / "in"
    synthetic.write_raster(place / "images" / "a.png", picture()[0])
    for name in (
        "README.md",
        "dataset.json",
        "list.CSV",
        "LICENSE",
        ".hidden.mgz",
        "masks/a.mgz",
        ".git/x.mgz",
        "v1.5",
    ):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(b"text")
    (outcome,) = run(images_model(), [place], tmp_path / "out")  # says nothing
    assert outcome.status == "done"


def test_results_in_the_input_folder_are_not_named(tmp_path):
    synthetic.write_raster(tmp_path / "in" / "a.png", picture()[0])
    (tmp_path / "in" / "out").mkdir()
    (tmp_path / "in" / "out" / "x.mgz").write_bytes(b"NRRD")
    run(images_model(), [tmp_path / "in"], tmp_path / "in" / "out")


def test_dicom_under_any_suffix_is_read_and_not_named(tmp_path):
    from tests.inference.batch.test_dicom_inputs import model

    synthetic.write_series(tmp_path / "in" / "pat", EMPTY, names="slice_{}.mri")
    (outcome,) = run(model(), [tmp_path / "in"], tmp_path / "out", force=True)
    assert outcome.status == "done"


def test_images_below_a_folder_with_images_of_its_own_are_named(tmp_path):
    for name in ("top", "p1/scan", "p2/scan", "p2/masks/scan", ".ipynb_checkpoints/top"):
        synthetic.write_raster(tmp_path / "in" / f"{name}.png", picture()[0])
    said: list[str] = []
    (outcome,) = run(images_model(), [tmp_path / "in"], tmp_path / "in" / "out", listen=said.append)
    assert outcome.path.name == "top.png"
    assert [text.partition(":")[0] for text in said] == ["Left out"]
    assert "2 images" in said[0]
    assert str(tmp_path / "in/p1/scan.png") in said[0]
    said.clear()
    everything = [tmp_path / "in", tmp_path / "in/p1", tmp_path / "in/p2"]
    assert len(run(images_model(), everything, tmp_path / "in" / "out", overwrite=True, listen=said.append)) == 3
    assert said == []
