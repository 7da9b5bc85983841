"""Power cuts: of what was not synced nothing need survive, and of what a record says everything does.

The calls themselves are real; what a disk keeps is written down as POSIX promises it: the content of a file as it was
when it was last synced, and the names in a folder as they were when the folder was. Two disks are tried: one that keeps
no more than that, and one that keeps every name at once, as ordered journals may, with nothing in what was not synced.
"""

import hashlib
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from cpfnet.files import replacing
from cpfnet.inference.batch import records
from cpfnet.model import Quality
from tests import synthetic
from tests.inference.batch.test_run import images_model, picture, tree
from tests.inference.oracle import oracle
from tests.predicting import predict_files


class Disk:
    """What would be there after a power cut, at any moment.

    Attributes:
        cuts: for each call that changed something, what each of the two disks would hold: path below the root → bytes.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch):
        self.root = root
        self.contents: dict[int, bytes] = {}
        self.folders = {root.stat().st_ino: self._names(root)}
        self.cuts: list[dict[str, bytes]] = []
        for name in ("fsync", "replace", "unlink"):
            patch.setattr(os, name, self._heard(getattr(os, name), sync=name == "fsync"))

    @staticmethod
    def _names(folder: Path | int) -> dict[str, tuple[int, bool]]:
        with os.scandir(folder) as entries:
            return {entry.name: (entry.inode(), entry.is_dir()) for entry in entries}

    def _heard(self, call, *, sync: bool):
        def one(*args, **more):
            result = call(*args, **more)
            if sync:
                status = os.fstat(args[0])
                if stat.S_ISDIR(status.st_mode):
                    self.folders[status.st_ino] = self._names(args[0])
                else:
                    self.contents[status.st_ino] = Path(f"/proc/self/fd/{args[0]}").read_bytes()
            self.cuts += [self.kept(), self.kept(names=True)]
            return result

        return one

    def kept(self, *, names: bool = False) -> dict[str, bytes]:
        """What a disk would hold now; with ``names``, the one that keeps every name at once."""
        found = {}

        def walk(folder: int, path: Path) -> None:
            now = (
                self._names(self.root / path) if names and (self.root / path).is_dir() else self.folders.get(folder, {})
            )
            for name, (inode, is_folder) in now.items():
                if is_folder:
                    walk(inode, path / name)
                else:
                    found[str(path / name)] = self.contents.get(inode, b"")

        walk(self.root.stat().st_ino, Path())
        return found


def put(folder: Path, shift: int) -> Path:
    for number in range(2):
        synthetic.write_raster(folder / f"case{number}" / "image.png", picture(number + shift)[0])
    return folder


@pytest.fixture
def images(tmp_path) -> Path:
    return put(tmp_path / "in", 0)


def run(images: Path, out: Path, **options):
    model = images_model(fitted={"quality": Quality(cases=5, lowest=0.9, found=())})
    options = {
        "overlays": True,
        "probabilities": True,
        "device": "cpu",
        "backend": oracle,
    } | options
    return predict_files([model], [images], out, **options)


def whole(kept: dict[str, bytes]) -> set[str]:
    """The results that the records which a disk kept say are there."""
    found = set()
    for path, content in kept.items():
        place = Path(path)
        if place.parts[:2] == records.FOLDER.parts and not place.name.startswith("."):
            record = records.Record.model_validate_json(content)
            name = str(place.relative_to(records.FOLDER)).removesuffix(".json")
            for pattern, digest in {} if record.writing else record.files.items():
                result = pattern.replace("*", name, 1)
                assert hashlib.sha256(kept[result]).hexdigest() == digest, result
                found.add(result)
    return found


def visible(files) -> set[str]:
    return {str(path) for path in files if not Path(path).name.startswith(".") and ".cpfnet" not in Path(path).parts}


def test_what_a_record_says_survives_a_cut_at_any_moment(images, tmp_path):
    expected = _made(images, tmp_path / "one")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(out, patch)
        assert {o.status for o in run(images, out)} == {"done"}
        end = disk.kept()
    assert visible(end) == visible(expected)
    assert {name: end[name] for name in expected} == expected
    assert len(disk.cuts) > 60
    for kept in disk.cuts:
        whole(kept)
        for name in visible(kept):  # nothing half there under its own name
            assert kept[name] == expected[name] or name == "quality.csv", name


def _made(images: Path, out: Path) -> dict[str, bytes]:
    run(images, out)
    return {name: (out / name).read_bytes() for name in tree(out)}


@pytest.mark.slow
def test_after_any_cut_the_run_goes_on_to_the_same_end(images, tmp_path):
    """Of a run over an earlier one of other patients, so that something may be taken for what it is not."""
    expected = _made(images, tmp_path / "one")
    out = tmp_path / "out"
    run(put(images, 5), out)
    put(images, 0)
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(out, patch)
        for path in [out, *out.rglob("*")]:  # of an earlier day: all on disk
            if path.is_dir():
                disk.folders[path.stat().st_ino] = disk._names(path)
            else:
                disk.contents[path.stat().st_ino] = path.read_bytes()
        assert {o.status for o in run(images, out, overwrite=True)} == {"done"}
    states = {tuple(sorted(kept.items())): kept for kept in disk.cuts}
    assert len(states) > 20
    for number, kept in enumerate(states.values()):
        place = tmp_path / f"cut{number}"
        for name, content in kept.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        outcomes = run(images, place, resume=True)
        assert {o.status for o in outcomes} == {"done"}, [o.message for o in outcomes]
        assert {name: (place / name).read_bytes() for name in visible(tree(place))} == expected


def test_folders_that_were_made_for_a_file_survive_with_it(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(tmp_path, patch)
        with replacing(tmp_path / "a" / "b" / "c.bin") as temporary:
            temporary.write_bytes(np.arange(9).tobytes())
    assert disk.kept() == {"a/b/c.bin": np.arange(9).tobytes()}


def test_a_folder_that_cannot_be_read_can_be_written_to(tmp_path):
    """Its names cannot be synced, and that is no failure."""
    folder = tmp_path / "letterbox"
    folder.mkdir(mode=0o333)
    try:
        with replacing(folder / "letter") as temporary:
            temporary.write_text("read me")
    finally:
        folder.chmod(0o777)
    assert (folder / "letter").read_text() == "read me"
