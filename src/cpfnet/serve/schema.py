"""Tables of a store, and how an older store becomes one of today."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    select,
    text,
)

from cpfnet.errors import CpfnetError

metadata = MetaData()

schema = Table("cpfnet_schema", metadata, Column("version", Integer, nullable=False))

jobs = Table(
    "cpfnet_jobs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),  # in the order of arrival
    Column("id", String(32), nullable=False, unique=True),
    Column("key", String(64), unique=True),  # of the request; NULL once asking again shall be a new job
    Column("user", Text, nullable=False),
    Column("input", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("options", Text, nullable=False),  # JSON
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("progress", Float(53), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created", Float(53), nullable=False),
    Column("started", Float(53)),
    Column("finished", Float(53)),
    Column("worker", Text),
    Column("lease", String(32)),
    Column("lease_until", Float(53)),
    Column("message", Text, nullable=False),
    Column("report", Text, nullable=False),  # JSON
    Column("results", Text, nullable=False),  # JSON: kind → name and digest
    Index("cpfnet_jobs_next", "state", "model", "priority", "number"),
)

cases = Table(
    "cpfnet_cases",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("input", String(64), nullable=False),
    Column("images", Text, nullable=False),  # JSON: files below the input's folder
    Column("patient", Text, nullable=False),
    Column("split", String(8)),
    Column("model", String(64), nullable=False),  # whose mask it was seen with first
    Column("kept", String(64), nullable=False),  # digest of what that mask says
    Column("quality", Text, nullable=False),  # JSON: the estimate of that mask's
    Column("created", Float(53), nullable=False),
)

labels = Table(  # rows are added, never changed
    "cpfnet_labels",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("case", String(32), nullable=False),
    Column("version", Integer, nullable=False),  # of the case, from 1
    Column("author", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("untouched", Boolean, nullable=False),
    Column("model", String(64)),  # whose mask it was made from
    Column("name", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created", Float(53), nullable=False),
    UniqueConstraint("case", "version"),
)

Migration = Callable[[Connection], None]


MIGRATIONS: tuple[Migration, ...] = (metadata.create_all,)
"""The n-th one makes a store of version n of one of version n - 1.

Whoever changes the tables writes down here, as SQL, what the earlier ones made, and adds a step.
"""


def migrate(connection: Connection, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring a store to today's version, all of it or nothing: within the transaction of the connection.

    Raises:
        CpfnetError: a later version of cpfnet wrote it.
    """
    if connection.dialect.name == "postgresql":  # one server at a time
        connection.execute(text("SELECT pg_advisory_xact_lock(715517)"))
    known = inspect(connection).has_table(schema.name)
    version = connection.execute(select(schema.c.version)).scalar_one() if known else 0
    if version > len(migrations):
        raise CpfnetError(
            f"the job store has version {version}, and this cpfnet knows versions up to {len(migrations)}",
            fix="use the cpfnet that wrote it, or a later one; the store was not changed",
        )
    for step in migrations[version:]:
        step(connection)
    if not known:
        connection.execute(schema.insert().values(version=len(migrations)))
    elif version < len(migrations):
        connection.execute(schema.update().values(version=len(migrations)))
