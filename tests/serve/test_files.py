"""Files under the hash of their content: whole or not at all, once, and gone only when nothing refers to them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpfnet.errors import CpfnetError
from cpfnet.serve.files import FileStore, manifest, read_manifest
from cpfnet.serve.jobs.job import Ending, Request
from cpfnet.serve.server import Cleaning
from cpfnet.serve.store import StoreOptions, serving

DAY = 86_400


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def there(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def age(files: FileStore, digest: str, seconds: float) -> None:
    status = files.path(digest).stat()
    os.utime(files.path(digest), (status.st_atime - seconds, status.st_mtime - seconds))


def test_a_file_lies_under_the_hash_of_its_content(files: FileStore) -> None:
    with files.adding() as batch:
        digests = [batch.add([b"one ", b"file"]), batch.add([b"one file"]), batch.add([])]
    assert digests == [hashlib.sha256(content).hexdigest() for content in (b"one file", b"one file", b"")]
    assert files.path(digests[0]).read_bytes() == b"one file"
    assert there(files.folder) == sorted({*digests})


def test_it_lies_there_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    files = FileStore(Path())
    monkeypatch.chdir("elsewhere")
    with files.adding() as batch:
        digest = batch.add([b"x"])
    files.claim([digest])
    assert files.path(digest).read_bytes() == b"x"
    assert not any((tmp_path / "elsewhere").iterdir())


def test_what_is_broken_off_leaves_nothing(files: FileStore) -> None:
    def broken_off() -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), files.adding() as batch:
        batch.add(broken_off())
    assert there(files.folder) == []


def test_a_file_added_again_is_not_changed_for_its_readers_but_is_young_again(files: FileStore) -> None:
    with files.adding() as batch:
        digest = batch.add([b"x"])
    age(files, digest, DAY)
    before = files.path(digest).stat()
    with files.adding() as batch:
        batch.add([b"x"])
    after = files.path(digest).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert files.sweep(set) == 0


def test_only_what_is_old_and_wanted_by_nobody_goes(files: FileStore) -> None:
    with files.adding() as batch:
        old, wanted, young = (batch.add([name]) for name in (b"old", b"wanted", b"young"))
    age(files, old, DAY)
    age(files, wanted, DAY)
    assert files.sweep(lambda: {wanted}) == 1
    assert there(files.folder) == sorted([wanted, young])


def test_a_store_wants_the_inputs_of_its_jobs(tmp_path: Path) -> None:
    with serving(StoreOptions(tmp_path / "store")) as store:
        with store.files.adding() as batch:
            image, other = batch.add([b"image"]), batch.add([b"other"])
            listed = batch.add([manifest({"a.png": image})])
        assert read_manifest(store.files.path(listed)) == {"a.png": image}
        store.jobs.submit(Request(listed, "m"))
        assert store.wanted() == {image, listed}
        for digest in (image, other, listed):
            age(store.files, digest, DAY)
        assert store.files.sweep(store.wanted) == 1
        assert store.files.path(image).exists()


def test_finished_jobs_go_after_their_time(tmp_path: Path) -> None:
    with serving(StoreOptions(tmp_path / "store")) as store:
        with store.files.adding() as batch:
            listed = batch.add([manifest({})])
        for model in ("m", "waits"):
            store.jobs.submit(Request(listed, model))
        claim = store.jobs.claim("m", "w")
        assert claim is not None
        store.jobs.finish(claim, Ending("done"))
        with Cleaning(store, retention=0):
            while len([*store.jobs.each()]) > 1:
                time.sleep(0.01)
        assert [job.request.model for job in store.jobs.each()] == ["waits"]


class TestFolder:
    def test_it_is_for_its_owner_alone(self, tmp_path: Path) -> None:
        with serving(StoreOptions(tmp_path / "new" / "store")):
            assert (tmp_path / "new" / "store").stat().st_mode & 0o777 == 0o700

    def test_one_server_at_a_time(self, tmp_path: Path) -> None:
        options = StoreOptions(tmp_path / "store")
        with serving(options), pytest.raises(CpfnetError, match="another server uses this store"), serving(options):
            pass

    def test_what_others_may_read_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "open").mkdir(mode=0o755)
        with pytest.raises(CpfnetError, match="others than its owner"), serving(StoreOptions(tmp_path / "open")):
            pass

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "scan.nii").write_bytes(b"x")
        tmp_path.chmod(0o700)
        with pytest.raises(CpfnetError, match="is no store, and not empty"), serving(StoreOptions(tmp_path)):
            pass
        assert there(tmp_path) == ["scan.nii"]

    def test_what_an_earlier_server_was_at_is_done_again(self, tmp_path: Path) -> None:
        options = StoreOptions(tmp_path / "store")
        with serving(options) as store:
            job, _ = store.jobs.submit(Request("0" * 64, "m"))
            store.jobs.claim("m", "w")
            (store.work / "half").mkdir()
        with serving(options) as store:
            found = store.jobs.get(job.id)
            assert found is not None
            assert (found.state, found.attempts) == ("queued", 0)
            assert [*store.work.iterdir()] == []
