"""The database of a store: SQLite in a file, or PostgreSQL by its URL; what is committed survives a power cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from cpfnet.errors import CpfnetError
from cpfnet.serve.schema import migrate

BUSY = 30.0
"""Seconds to wait for another process that writes."""


def open_database(url: str) -> Engine:
    """Connect to the database, and bring its tables to today's version.

    Args:
        url: ``sqlite:////folder/jobs.sqlite``, or ``postgresql://user@host/name``.

    Raises:
        CpfnetError: no such database, it cannot be reached, or a later version wrote it. It never quotes the URL, which
            may hold a password.
    """
    try:
        made = make_url(url)
        kind = made.get_backend_name()
    except ArgumentError:
        kind = ""
    if kind not in ("sqlite", "postgresql"):
        raise CpfnetError("the database is neither SQLite nor PostgreSQL", fix="give postgresql://USER@HOST/DATABASE")
    if kind == "sqlite":
        engine = create_engine(made, connect_args={"timeout": BUSY})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(made.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    try:
        with engine.begin() as connection:
            migrate(connection)
    except DBAPIError as error:
        words = "\n".join(str(error.orig).splitlines()[:1])
        raise CpfnetError(
            f"the job store cannot be opened: {words}", fix="check that it is there and may be written"
        ) from None
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads: in SQLite it waits for nobody who writes."""
    with engine.connect().execution_options(reads=True) as connection, connection.begin():
        yield connection


def _set_up_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions begin below, not where the driver thinks they should
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):  # NORMAL would lose what was acknowledged in a power cut
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that may write takes its turn at once: one that reads first could not write after another did."""
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
