"""A Model as a ZIP file: the same bytes for the same Model, and no harm from anybody's."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from safetensors.torch import save

import cpfnet
from cpfnet.inference.model_arguments import names_a_model, open_models
from cpfnet.sharing.contents import check_nothing_else, shared_files, without_case_names
from cpfnet.sharing.pack import pack
from cpfnet.sharing.unpack import unpack
from tests.inference.oracle import bright, make_model

FILES = ["card.md", "fitted.yaml", "metrics.json", "plan.yaml", "weights.safetensors"]


def saved(folder: Path) -> Path:
    model = make_model(source="images", values=(1, 2))
    model.state = {"sharpness": torch.tensor([100.0])}
    model.metrics = {"cases": {"train": ["smith_john"], "validation": []}}
    return model.save(folder)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return cpfnet.pack(saved(tmp_path / "model"), tmp_path / "model.zip")


def test_the_same_model_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "model", tmp_path / "later")
    for path in (tmp_path / "later").iterdir():
        os.utime(path, (2e9, 2e9))
        path.chmod(0o600)
    again = cpfnet.pack(tmp_path / "later", tmp_path / "later.zip")
    assert again.read_bytes() == packed.read_bytes()
    assert cpfnet.pack(packed, tmp_path / "repacked.zip").read_bytes() == packed.read_bytes()
    with ZipFile(packed) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == FILES
        for name in FILES:
            if name != "metrics.json":
                assert archive.read(name) == (tmp_path / "model" / name).read_bytes()
        assert b"smith_john" not in archive.read("metrics.json")
    with pytest.raises(cpfnet.CpfnetError, match="exists already"):
        cpfnet.pack(tmp_path / "model", packed)
    with pytest.raises(cpfnet.CpfnetError, match=r"known by its suffix, \.zip"):
        cpfnet.pack(tmp_path / "model", tmp_path / "model.tar")


def test_a_zip_predicts_as_its_folder_does(packed: Path, tmp_path: Path) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 10:30] = 2
    Picture.fromarray(bright(mask, 2)).save(tmp_path / "image.png")
    assert names_a_model(packed)
    options = cpfnet.PredictorOptions(device="cpu", backend="torch")
    found = cpfnet.predict(packed, tmp_path / "image.png", options)
    assert (found.array == mask).all()
    (model,) = open_models(packed)
    assert model.folder is not None
    assert stat.S_IMODE(model.folder.stat().st_mode) == 0o700
    assert model.digest == open_models(tmp_path / "model")[0].digest
    with pytest.raises(cpfnet.CpfnetError, match=r"say where to write it \(-o\)"):
        cpfnet.export(packed, "onnx")


def test_evaluating_says_that_a_shared_model_names_no_cases(packed: Path, tmp_path: Path) -> None:
    for place, content in (("images", bright(np.eye(40, dtype=np.uint8), 2)), ("masks", np.eye(40, dtype=np.uint8))):
        (tmp_path / "data" / place).mkdir(parents=True)
        Picture.fromarray(content).save(tmp_path / "data" / place / "smith_john.png")
    options = cpfnet.PredictorOptions(device="cpu")
    shared = cpfnet.evaluate(tmp_path / "data", packed, options).warnings
    own = cpfnet.evaluate(tmp_path / "data", tmp_path / "model", options).warnings
    assert "does not name the cases it was trained on" in shared[0]
    assert "1 of 1 cases carry the names of cases that the model was trained on" in own[0]


def test_the_private_copy_goes_with_the_process(packed: Path, tmp_path: Path) -> None:
    program = (
        "import os, sys; from cpfnet.sharing.local_folder import local_folder; folder = local_folder(sys.argv[1]);"
        "assert (folder / 'plan.yaml').is_file() and local_folder(sys.argv[1]) == folder;"
        "os.fork() or sys.exit(); os.wait(); print((folder / 'plan.yaml').is_file())"
    )
    place = tmp_path / "temporary"
    place.mkdir()
    run = [sys.executable, "-c", program, str(packed)]
    done = subprocess.run(run, env=os.environ | {"TMPDIR": str(place)}, capture_output=True, text=True, timeout=60)
    assert (done.stdout, list(place.iterdir())) == ("True\n", []), done.stderr


def test_zips_of_images_are_no_models(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.writestr("study/1.dcm", b"")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04")
    assert not any(names_a_model(tmp_path / name) for name in ("study.zip", "broken.zip", "none.zip"))


def rewritten(source: Path, target: Path, change: Callable[[ZipFile, dict[str, bytes]], None]) -> Path:
    with ZipFile(source) as old, ZipFile(target, "w") as new:
        change(new, {name: old.read(name) for name in old.namelist()})
    return target


def adds(name: str, content: bytes = b"x", mode: int = 0) -> Callable[[ZipFile, dict[str, bytes]], None]:
    def change(new: ZipFile, files: dict[str, bytes]) -> None:
        for one, held in files.items():
            new.writestr(one, held)
        entry = ZipInfo(name)
        entry.filename = name  # as an attacker writes it
        entry.external_attr = mode << 16
        new.writestr(entry, content)

    return change


def swells(new: ZipFile, files: dict[str, bytes]) -> None:
    for one, held in files.items():
        new.writestr(one, held if one != "card.md" else bytes(2**27), ZIP_DEFLATED)


def links(new: ZipFile, files: dict[str, bytes]) -> None:
    entry = ZipInfo("card.md")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    new.writestr(entry, "/etc/passwd")
    for one in ("plan.yaml", "fitted.yaml", "weights.safetensors"):
        new.writestr(one, files[one])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (adds("/etc/cron.d/x"), "it holds /etc/cron.d/x"),
        (adds("../x"), r"it holds \.\./x"),
        (adds("fold-1/../../x"), "it holds fold-1"),
        (adds("fold-0\\card.md"), "it holds fold-0"),
        (adds("C:card.md"), "it holds C:card.md"),
        (adds("exports/network.onnx"), "it holds exports/network.onnx"),
        (adds("model.zip", b"PK\x05\x06" + bytes(18)), "it holds model.zip"),
        (adds("fold-1/", mode=stat.S_IFDIR), "it holds fold-1/"),
        (adds("card.md"), "it holds a name twice"),
        (adds("fold-1/card.md", mode=stat.S_IFIFO), "is no file but a link or a device"),
        (links, r"card\.md is no file but a link"),
        (swells, "it would grow more than any Model does"),
    ],
)
def test_what_an_attacker_writes_is_refused_before_anything_is_unpacked(
    packed: Path, tmp_path: Path, change: Callable[[ZipFile, dict[str, bytes]], None], says: str
) -> None:
    evil = rewritten(packed, tmp_path / "evil.zip", change)
    (tmp_path / "place").mkdir()
    assert names_a_model(evil)
    with pytest.raises(cpfnet.CpfnetError, match=says):
        unpack(evil, tmp_path / "place")
    assert list((tmp_path / "place").iterdir()) == []
    with pytest.raises(cpfnet.CpfnetError, match=says):
        open_models(evil)


def patched(packed: Path, target: Path, field: int, value: bytes) -> Path:
    """The archive with a field of the last central directory entry, the weights', changed."""
    content = bytearray(packed.read_bytes())
    start = content.rfind(b"PK\x01\x02") + field
    content[start : start + len(value)] = value
    target.write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        (8, b"\x01\x00", "weights.safetensors is encrypted"),
        (10, b"\x0e\x00", "compressed in a way that is not read"),
        (20, b"\xff\xff\xff\x7f", "its entries overlap"),
        (24, b"\xff\xff\xff\x7f", "it would grow more than any Model does"),
        (24, b"\xff\x00\x00\x00", "is shorter than the archive says|Bad CRC|is damaged"),
        (24, b"\x03\x00\x00\x00", "is damaged"),
        (16, b"\x00\x00\x00\x00", "is damaged: Bad CRC-32"),
        (42, b"\x00\x00\x00\x00", "is damaged"),
    ],
)
def test_lies_in_the_list_of_contents_are_found(
    packed: Path, tmp_path: Path, field: int, value: bytes, says: str
) -> None:
    evil = patched(packed, tmp_path / "evil.zip", field, value)
    with pytest.raises(cpfnet.CpfnetError, match=says):
        open_models(evil)


def test_a_damaged_part_is_named_with_its_archive(packed: Path, tmp_path: Path) -> None:
    def other(new: ZipFile, files: dict[str, bytes]) -> None:
        for one, held in files.items():
            new.writestr(one, held[:-1] + b"\x01" if one == "weights.safetensors" else held)

    evil = rewritten(packed, tmp_path / "other.zip", other)
    with pytest.raises(cpfnet.CpfnetError, match=r"other\.zip: weights\.safetensors: are damaged, or those of another"):
        open_models(evil)


@settings(max_examples=50)
@given(st.binary(max_size=200), st.integers(0, 3000))
def test_any_damage_is_one_error_or_none(packed_bytes: bytes, new: bytes, at: int) -> None:
    content = bytearray(packed_bytes)
    content[at : at + len(new)] = new
    with tempfile.TemporaryDirectory() as folder:
        path, place = Path(folder) / "model.zip", Path(folder) / "place"
        path.write_bytes(content)
        place.mkdir()
        with suppress(cpfnet.CpfnetError):  # and no other
            unpack(path, place)
        assert {one.name for one in place.iterdir()} <= set(FILES)


@pytest.fixture(scope="module")
def packed_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("packed")
    return cpfnet.pack(saved(folder / "model"), folder / "model.zip").read_bytes()


def test_the_folds_of_a_cross_validation_travel_together(tmp_path: Path) -> None:
    for fold in (0, 1):
        saved(tmp_path / "cv" / f"fold-{fold}")
    saved(tmp_path / "cv" / "fold-1" / "first_stage" / "0123456789abcdef")
    for name in ("plan.yaml", "fitted.yaml"):
        shutil.copy(tmp_path / "cv" / "fold-0" / name, tmp_path / "cv" / name)
    files = shared_files(tmp_path / "cv")
    places = ("fold-0", "fold-1", "fold-1/first_stage/0123456789abcdef")
    assert list(files) == sorted([*(f"{place}/{one}" for place in places for one in FILES), "fitted.yaml", "plan.yaml"])
    check_nothing_else(tmp_path / "cv")
    (tmp_path / "cv" / places[2] / "scan.png").touch()
    (tmp_path / "cv" / "fold-1" / "first_stage" / "notes.txt").touch()
    with pytest.raises(
        cpfnet.CpfnetError, match=r"logs: fold-1/first_stage/\w+/scan\.png, fold-1/first_stage/notes\.txt;"
    ):
        check_nothing_else(tmp_path / "cv")
    packed = pack(tmp_path / "cv", tmp_path / "cv.zip")  # `cpfnet.pack` would ask what was fitted on the folds
    (tmp_path / "place").mkdir()
    unpack(packed, tmp_path / "place")
    found = {path.relative_to(tmp_path / "place").as_posix() for path in (tmp_path / "place").rglob("*.*")}
    assert found == set(files)


def test_a_saving_that_was_cut_short_is_ended_first(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    (folder / ".new").mkdir()
    (folder / "fitted.yaml").rename(folder / ".new" / "fitted.yaml")
    with pytest.raises(cpfnet.CpfnetError, match="its saving was cut short"):
        cpfnet.pack(folder, tmp_path / "x.zip")
    cpfnet.Model.load(folder).save(folder)
    assert cpfnet.pack(folder, tmp_path / "x.zip").is_file()


def test_weights_that_are_none_are_not_handed_on(tmp_path: Path) -> None:
    for content, says in (
        (b"\x80\x04pickle", "is no safetensors file"),
        (save({"a": torch.zeros(1)}, metadata={"patient": "smith"}), "carries text besides the tensors: patient"),
    ):
        folder = saved(tmp_path / says[:5])
        (folder / "weights.safetensors").write_bytes(content)
        fitted = (folder / "fitted.yaml").read_text().splitlines()
        digest = sha256(content).hexdigest()
        fitted = [f"weights_hash: {digest}" if line.startswith("weights_hash") else line for line in fitted]
        (folder / "fitted.yaml").write_text("\n".join(fitted))
        with pytest.raises(cpfnet.CpfnetError, match=says):
            cpfnet.pack(folder, tmp_path / "x.zip")


def test_scores_stay_and_names_go_and_once_is_enough() -> None:
    metrics = {
        "cases": {"train": ["a", "b"], "validation": ["c"]},
        "validation": {"dice": 0.5, "classes": {"x": 0.5}, "cases": {"c": {"x": 0.5}}},
        "history": [{"epoch": 1}],
        "remark": "of c",
    }
    once = without_case_names(metrics)
    assert without_case_names(once) == once
    assert once == {
        "cases": {"train": [], "validation": [], "withheld": {"train": 2, "validation": 1}},
        "validation": {"dice": 0.5, "classes": {"x": 0.5}},
        "history": [{"epoch": 1}],
    }
    assert json.dumps(without_case_names({})) == "{}"
