"""What comes in is kept whole, under safe names, within limits; what attacks ends in a sentence."""

from __future__ import annotations

import json
import socket
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpfnet.serve.files import read_manifest
from cpfnet.serve.http.upload import LONGEST, clean
from cpfnet.serve.options import Limits
from tests.inference.oracle import make_model
from tests.serve.http.doors import Answer, Door, door, form, zipped

LIMITS = Limits(body=100_000, files=5, unpacked=200_000, queue=1_000, free_disk=1, wait=1, silence=0.5)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with door(tmp_path_factory.mktemp("upload") / "store", [make_model()], LIMITS) as made:
        yield made


def kept(door: Door, answer: Answer) -> dict[str, bytes]:
    """The files of the job that was made."""
    assert answer.status == 202, answer.body
    job = door.store.jobs.get(answer.json["id"])
    assert job is not None
    listed = read_manifest(door.store.files.path(job.request.input))
    return {name: door.store.files.path(digest).read_bytes() for name, digest in listed.items()}


def temporary(door: Door) -> list[Path]:
    return [path for path in door.store.files.folder.iterdir() if path.is_file() and path.name != ".lock"]


def refused(door: Door, answer: Answer, status: int, word: str) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= answer.json.keys()
    assert word in answer.json["detail"]
    assert str(door.store.folder) not in answer.body.decode()
    assert temporary(door) == []


class TestFiles:
    def test_a_raw_body_is_one_file(self, here: Door) -> None:
        assert kept(here, here.client.raw("name=a.png", b"pixels")) == {"a.png": b"pixels"}

    def test_a_form_brings_several(self, here: Door) -> None:
        files = {"1.dcm": b"one", "2.dcm": b"two\r\n--\r\n", "3.dcm": b""}
        assert kept(here, here.client.send("", files)) == files

    def test_a_zip_is_its_files(self, here: Door) -> None:
        inside = {"a/x.dcm": b"one", "b/x.dcm": b"two", "__MACOSX/._x": b"", "a/.DS_Store": b""}
        for answer in (here.client.raw("name=s.zip", zipped(inside)), here.client.send("", {"s.zip": zipped(inside)})):
            assert kept(here, answer) == {"1/x.dcm": b"one", "2/x.dcm": b"two"}

    def test_a_full_path_is_a_name(self, here: Door) -> None:
        """As MONAI Label's client sends it."""
        assert kept(here, here.client.send("", {"/home/me/scans/a.png": b"p"})) == {"a.png": b"p"}

    def test_the_same_again_is_the_same_job(self, here: Door) -> None:
        first, again = (here.client.raw("name=again.png", b"same").json["id"] for _ in range(2))
        other = here.client.raw("name=again.png&tta=true", b"same").json["id"]
        assert first == again != other

    @settings(max_examples=50)
    @given(name=st.text(max_size=150))
    def test_names_are_file_names(self, name: str) -> None:
        safe = clean(name)
        assert safe
        assert not safe.startswith(".")
        assert not {*"/\\:\0\r\n\"'<>"} & {*safe}
        assert len(safe.encode()) <= LONGEST
        assert clean(safe) == safe

    @pytest.mark.parametrize(
        ("name", "safe"),
        [
            ("a b.nii.gz", "a b.nii.gz"),
            ("../../etc/passwd", "passwd"),
            ("C:\\x\\Ä?.png", "Ä_.png"),
            ("...", "file"),
            ("x" * 300 + ".nii.gz", "x" * (LONGEST - 7) + ".nii.gz"),
            ("a\r\nSet-Cookie: x.png", "a__Set-Cookie_ x.png"),
        ],
    )
    def test_such_as(self, name: str, safe: str) -> None:
        assert clean(name) == safe


class TestLimits:
    def test_a_large_body(self, here: Door) -> None:
        refused(here, here.client.raw("name=a.png", b"x" * 100_001), 413, "larger than 100000 bytes")

    def test_a_large_body_that_does_not_say_so(self, here: Door) -> None:
        answer = raw(
            here, b"Transfer-Encoding: chunked\r\n\r\n" + 2 * (b"ea60\r\n" + b"x" * 60_000 + b"\r\n") + b"0\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 413")

    @pytest.mark.parametrize("packed", [False, True])
    def test_many_files(self, here: Door, packed: bool) -> None:
        files = {f"{n}.dcm": b"x" for n in range(6)}
        files = {"all.zip": zipped(files)} if packed else files
        refused(here, here.client.send("", files), 413, "more than 5 files")

    def test_a_zip_bomb(self, here: Door) -> None:
        refused(here, here.client.raw("name=a.zip", zipped({"a": b"\0" * 300_000})), 413, "more than 200000 bytes")

    def test_a_zip_that_lies_about_its_size(self, here: Door) -> None:
        bomb = bytearray(zipped({"a": b"\0" * 300_000}))
        for at in (bomb.find(b"PK\3\4") + 22, bomb.find(b"PK\1\2") + 24):
            bomb[at : at + 4] = struct.pack("<I", 10)
        answer = here.client.raw("name=a.zip", bytes(bomb))
        assert answer.status in (413, 422), answer.body

    def test_a_zip_with_an_endless_directory(self, here: Door) -> None:
        archive = bytearray(zipped({"a": b"x"}))
        at = archive.find(b"PK\5\6")
        archive[at + 12 : at + 16] = struct.pack("<I", 90_000)
        assert here.client.raw("name=a.zip", b"PK\3\4" + b"x" * 90_000 + bytes(archive)).status == 422

    def test_a_full_queue(self, tmp_path: Path) -> None:
        with door(tmp_path / "store", [make_model()], Limits(queue=1)) as one:
            assert one.client.raw("name=a.png", b"1").status == 202
            answer = one.client.raw("name=a.png", b"2")
            assert (answer.status, answer.headers["retry-after"]) == (429, "10")
            assert one.client.raw("name=a.png", b"1").status == 202

    def test_a_full_disk(self, tmp_path: Path) -> None:
        with door(tmp_path / "store", [make_model()], Limits(free_disk=2**60)) as one:
            refused(one, one.client.raw("name=a.png", b"1"), 507, "nearly full")

    def test_a_sender_that_falls_silent(self, here: Door) -> None:
        assert raw(here, b"Content-Length: 100\r\n\r\nhalf", end=False).startswith(b"HTTP/1.1 408")
        assert temporary(here) == []

    def test_waiting_ends(self, here: Door) -> None:
        assert here.client.raw("name=w.png&wait=3600", b"waits").json["state"] == "queued"


def raw(door: Door, rest: bytes, *, end: bool = True, line: bytes = b"POST /api/v1/jobs?name=a.png") -> bytes:
    """What comes back for bytes that no proper client would send."""
    with socket.create_connection(("127.0.0.1", door.client.port), timeout=30) as one:
        found = b""
        try:
            one.sendall(line + f" HTTP/1.1\r\nHost: 127.0.0.1:{door.client.port}\r\n".encode() + rest)
            if end:
                one.shutdown(socket.SHUT_WR)
            while chunk := one.recv(65536):
                found += chunk
                if b"\r\n\r\n" in found and not end:
                    break
        except OSError:  # it was cut off
            pass
        return found


def link(name: str, target: bytes) -> dict[Any, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return {info: target}


class TestAttacks:
    @pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "..\\x.png", "C:/x.png", "a/../../x.png"])
    def test_names_that_lead_out_of_a_zip(self, here: Door, name: str) -> None:
        refused(here, here.client.raw("name=a.zip", zipped({name: b"x"})), 422, "lead out of it")

    def test_links_in_a_zip(self, here: Door) -> None:
        refused(here, here.client.raw("name=a.zip", zipped(link("a.png", b"/etc/passwd"))), 422, "links")

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_zip_that_is_compressed_otherwise(self, here: Door, method: int) -> None:
        """Python's readers of these fail in ways of their own where the content is damaged."""
        packed = zipfile.ZipInfo("a.png")
        packed.compress_type = method
        refused(here, here.client.raw("name=a.zip", zipped({packed: b"x" * 100})), 422, "compressed in a way")

    def test_a_zip_in_a_zip(self, here: Door) -> None:
        refused(here, here.client.raw("name=a.zip", zipped({"b.zip": zipped({"a": b"x"})})), 422, "another ZIP")

    def test_two_files_of_one_name(self, here: Door) -> None:
        files = {"x/a?.png": b"1", "x/a*.png": b"2"}
        refused(here, here.client.raw("name=a.zip", zipped(files)), 422, "two files are called a_.png")

    def test_half_a_body_makes_no_job(self, here: Door) -> None:
        before = len([*here.store.jobs.each()])
        raw(here, b"Content-Length: 100\r\n\r\nhalf")
        kind, body = form({"a.png": b"x" * 100})
        cut = here.client.ask("POST", "/api/v1/jobs", body[:-60], content_type=kind)
        refused(here, cut, 400, "ends before its end")
        assert len([*here.store.jobs.each()]) == before

    def test_a_huge_header(self, here: Door) -> None:
        found = raw(here, b"X: " + b"x" * 200_000 + b"\r\n\r\n", line=b"GET /")
        assert not found or found.startswith(b"HTTP/1.1 4")  # cut off before it was read to its end
        assert here.client.get("/health/live").status == 200

    def test_a_header_in_a_name(self, here: Door) -> None:
        answer = here.client.raw("name=a%0d%0aX-Evil:%201.png", b"h")
        assert "x-evil" not in answer.headers
        assert [*kept(here, answer)] == ["a__X-Evil_ 1.png"]

    @pytest.mark.parametrize("id", ["../../jobs.sqlite", "..%2f..%2fjobs.sqlite", "%00", "' OR 1=1 --", "x" * 5000])
    def test_ids_lead_nowhere_else(self, here: Door, id: str) -> None:
        for path in (f"/api/v1/jobs/{id}", f"/api/v1/jobs/{id}/result"):
            assert here.client.get(path.replace(" ", "%20")).status in (404, 405)

    def test_a_field_that_is_no_file(self, here: Door) -> None:
        body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nx\r\n--b--\r\n'
        answer = here.client.ask("POST", "/api/v1/jobs", body, content_type="multipart/form-data; boundary=b")
        refused(here, answer, 422, "a field that is no file")

    @pytest.mark.parametrize(
        "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x"]
    )
    def test_forms_that_are_none(self, here: Door, kind: str) -> None:
        refused(here, here.client.ask("POST", "/api/v1/jobs", b"nothing", content_type=kind), 400, "form")

    @pytest.mark.parametrize(
        ("query", "status", "word"),
        [
            ("", 422, "no name"),
            ("name=a.png&model=other", 404, "no such Model"),
            ("name=a.png&format=exe", 422, "format"),
            ("name=a.png&priority=1000000", 422, "priority"),
            ("name=a.png&wait=-1", 422, "wait"),
            ("name=a.png&wait=nan", 422, "wait"),
        ],
    )
    def test_options_that_cannot_be(self, here: Door, query: str, status: int, word: str) -> None:
        refused(here, here.client.raw(query, b"x"), status, word)

    def test_what_is_not_done_has_no_result(self, here: Door) -> None:
        id = here.client.raw("name=q.png", b"q").json["id"]
        refused(here, here.client.get(f"/api/v1/jobs/{id}/result"), 409, "the job is queued")
        assert here.client.ask("DELETE", f"/api/v1/jobs/{id}").status == 204
        assert here.client.get(f"/api/v1/jobs/{id}").json["state"] == "cancelled"
        assert here.client.ask("DELETE", f"/api/v1/jobs/{id}").status == 204
        assert here.client.get(f"/api/v1/jobs/{id}").status == 404


WORDS = st.sampled_from(
    ["jobs", "models", "..", "%2e%2e", "result", "events", "openapi.json", "metrics", "api", "v1", "é"]
)
TEXT = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW"]),
    path=st.one_of(
        st.lists(WORDS, max_size=5).map(lambda words: "/" + "/".join(words)),
        st.sampled_from(["/", "/health/live", "/metrics", "/api/v1/jobs", "/api/v1/models", "/api/v1/jobs/x/result"]),
    ),
    query=st.dictionaries(
        st.sampled_from(["name", "model", "format", "wait", "tta", "priority", "token"]), TEXT, max_size=4
    ),
    headers=st.dictionaries(
        st.sampled_from(["content-type", "range", "cookie", "authorization", "if-match", "accept", "origin", "expect"]),
        st.one_of(
            TEXT, st.sampled_from(["multipart/form-data; boundary=b", "bytes=0-,0-", "100-continue", "Bearer x"])
        ),
        max_size=3,
    ),
    body=st.one_of(st.none(), st.binary(max_size=300), st.just(zipped({"a.png": b"x"})), st.just(form({"a": b""})[1])),
)
def test_whatever_comes_nothing_fails(here: Door, method: str, path: str, query: Any, headers: Any, body: Any) -> None:
    answer = here.client.ask(method, f"{quote(path, safe='/%')}?{urlencode(query)}", body, **headers)
    assert answer.status < 500
    if answer.status >= 400 and method != "HEAD":
        json.loads(answer.body)
