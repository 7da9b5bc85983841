"""Who may come in, and who may not."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpfnet.errors import CpfnetError
from cpfnet.serve.http.models import named
from cpfnet.serve.http.page import page
from cpfnet.serve.options import Limits, ServeOptions
from cpfnet.serve.worker_pool import WorkerPool
from tests.inference.oracle import make_model
from tests.serve.http.doors import TOKEN, Door, door

MODELS = "/api/v1/models"


@pytest.fixture(scope="module")
def open_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with door(tmp_path_factory.mktemp("gate") / "store", [make_model()]) as made:
        yield made


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with door(tmp_path_factory.mktemp("gate") / "store", [make_model()], require_token=True) as made:
        yield made


def test_a_script_of_this_machine_may_come_in(open_door: Door) -> None:
    answer = open_door.client.get(MODELS)
    assert answer.status == 200
    assert answer.json[0]["labels"] == [{"name": f"class {n}", "value": n, "colour": None} for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:80", "0.0.0.0", ""]
)
def test_under_another_name_nobody_comes_in(open_door: Door, host: str) -> None:
    for path in (MODELS, "/health/live", "/"):
        answer = open_door.client.get(path, host=host)
        assert answer.status == 421
        assert "evil" not in answer.body.decode()


def test_two_names_are_none(open_door: Door) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", open_door.client.port)
    connection.putrequest("GET", MODELS)
    connection.putheader("Host", "evil.example")
    connection.endheaders()
    assert connection.getresponse().status >= 400
    connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},  # another port of this machine
    ],
)
def test_pages_of_others_do_nothing_even_with_the_token(open_door: Door, headers: dict[str, str]) -> None:
    for more in ({}, {"authorization": f"Bearer {TOKEN}"}, {"cookie": f"cpfnet-{open_door.client.port}={TOKEN}"}):
        assert open_door.client.get(MODELS, **headers, **more).status == 403
        assert open_door.client.ask("POST", "/api/v1/jobs?name=a.png", b"x", **headers, **more).status == 403


def test_the_opened_address_gives_a_browser_its_cookie(open_door: Door) -> None:
    client, own = open_door.client, {"sec_fetch_site": "none"}
    assert client.get("/", **own).status == 401
    assert client.get("/?token=guessed", **own).status == 401
    answer = client.get(f"/?token={TOKEN}", **own)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=strict"} <= {*attributes}
    assert client.get("/", cookie=cookie, **own).status == 200
    origin = {"origin": f"http://127.0.0.1:{client.port}", "sec_fetch_site": "same-origin"}
    assert client.get(MODELS, cookie=cookie, **origin).status == 200
    assert client.get(MODELS, **origin).status == 401


def test_where_scripts_need_the_token_it_is_asked_for(closed: Door) -> None:
    client = closed.client
    answer = client.get(MODELS)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "open the address that the server printed" in answer.json["hint"]
    assert client.get(MODELS, authorization=f"Bearer {TOKEN}").status == 200
    for wrong in ("Bearer guessed", "Basic Zm9v", "Bearer", "Bearer \xff"):
        assert client.get(MODELS, authorization=wrong).status == 401
    assert client.get("/health/live").status == 200


def test_a_wrong_token_is_refused_where_none_is_needed(open_door: Door) -> None:
    assert open_door.client.get(MODELS, authorization="Bearer guessed").status == 401


def test_every_answer_closes_the_browser_to_what_is_not_ours(open_door: Door) -> None:
    for path in ("/", MODELS, "/nothing", "/api/v1/jobs/none"):
        headers = open_door.client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_names_of_classes_are_text_on_the_page() -> None:
    name = "<script>alert(1)</script>"
    model = make_model(change=lambda plan: plan.with_settings({"name": name}))
    text = page(named([(Path(), [model])]), "http://127.0.0.1:1")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_other_machines_are_kept_out(host: str) -> None:
    with pytest.raises(CpfnetError, match="can be reached from other machines"):
        ServeOptions(host=host)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["bodies=1"], "'bodies' is no limit"),
        (["files=many"], "'many' is no number"),
        (["wait=-1"], "no number from 0"),
        (["wait=nan"], "no number from 0"),
        (["files"], "no number from 0"),
    ],
)
def test_limits_that_cannot_be(texts: list[str], words: str) -> None:
    with pytest.raises(CpfnetError, match=words):
        Limits.given(texts)


def test_limits_are_changed_one_by_one() -> None:
    assert Limits.given(["files=50000", "wait=1.5"]) == Limits(files=50_000, wait=1.5)


def test_a_database_that_is_gone_is_a_state_of_the_server(tmp_path: Path) -> None:
    with door(tmp_path / "store", [make_model()]) as one:
        with one.store.jobs.engine.begin() as db:
            db.exec_driver_sql("ALTER TABLE cpfnet_jobs RENAME TO gone")
        for answer in (one.client.get("/health/ready"), one.client.get("/metrics"), one.client.raw("name=a.png", b"x")):
            assert (answer.status, answer.headers["retry-after"]) == (503, "10")
            assert answer.json["detail"] == "the job store does not answer"
            assert "gone" not in answer.body.decode()
        assert one.client.get("/health/live").status == 200


def test_health_and_figures(open_door: Door, tmp_path: Path) -> None:
    assert open_door.client.get("/health/live").json == {"status": "live"}
    assert open_door.client.get("/health/ready").json == {"status": "ready"}
    open_door.client.raw("name=figures.png", b"x")
    open_door.client.ask("PUT", "/api/v1/cases/none/labels?name=a.png", b"x")
    open_door.client.ask("BREW", "/")
    text = open_door.client.get("/metrics").body.decode()
    assert 'cpfnet_jobs{model="oracle",state="queued"} 1.0' in text
    assert 'cpfnet_http_requests_total{method="GET",status="200"}' in text
    assert 'cpfnet_http_requests_total{method="PUT",status="404"} 1.0' in text
    assert 'cpfnet_http_requests_total{method="other",status="405"} 1.0' in text


def test_while_a_worker_starts_the_server_lives_and_is_not_ready(
    open_door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkerPool, "ready", False)
    answer = open_door.client.get("/health/ready")
    assert (answer.status, answer.json["detail"]) == (503, "a worker is starting")
    assert open_door.client.get("/health/live").status == 200
