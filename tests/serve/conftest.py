"""A PostgreSQL server of the tests' own, on a socket that nobody else knows."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

import cpfnet
from cpfnet.model import Model
from tests.inference.torch_backend.test_onnx_graph import trained


def _program(name: str) -> str | None:
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *os.environ["PATH"].split(os.pathsep)]
    return shutil.which(name, path=os.pathsep.join(map(str, places)))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of an empty database."""
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(mkdtemp(prefix="cpfnet-pg-"))  # sockets lie in it, whose names may not be long
    as_user: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        if shutil.which("runuser") is None:
            pytest.skip("there is no runuser to run PostgreSQL as its user")
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    data = folder / "data"
    make = [*as_user, initdb, "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync"]
    subprocess.run(make, check=True, capture_output=True, cwd=folder)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    log = (folder / "log").open("wb")
    server = subprocess.Popen([*as_user, postgres, "-D", str(data), *options], stdout=log, stderr=log, cwd=folder)
    try:
        for _ in range(600):
            if (folder / ".s.PGSQL.5432").exists() and (data / "postmaster.pid").read_text().rstrip().endswith("ready"):
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        stop = [*as_user, _program("pg_ctl") or "pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop"]
        subprocess.run(stop, check=True, capture_output=True, cwd=folder)
        server.wait()
        log.close()
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database that holds nothing yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    url: str = request.getfixturevalue("postgresql")
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return url


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A Model of a tiny network for pictures, exported, so that workers need no torch."""
    made = trained(tmp_path_factory.mktemp("served") / "model", values=(1, 2), channels=3)
    cpfnet.export(made, "onnx")
    return made
