"""The service's database: one schema for jobs, messages and tokens, in SQLite or Postgres, created where it is absent.

Several processes may share it. A transaction that writes has the database (SQLite) or its rows (Postgres) for itself,
and is there whole or not at all, whenever a process is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from earthmap.errors import JobError, StorageError

SCHEMA_VERSION = 1
"""Of the tables below; a database of a later one is refused, since nobody knows what its rows mean."""

BUSY_S = 30
"""Longest wait for another process's transaction in SQLite; each takes milliseconds."""

_metadata = sa.MetaData()

_versions = sa.Table("earthmap_schema", _metadata, sa.Column("version", sa.Integer, primary_key=True))

JOBS = sa.Table(
    "earthmap_jobs",
    _metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("process", sa.String(40), nullable=False),
    sa.Column("inputs", sa.Text, nullable=False),  # JSON
    sa.Column("limits", sa.Text, nullable=False),  # JSON
    sa.Column("owner", sa.String(40), nullable=False),
    sa.Column("status", sa.String(12), nullable=False),
    sa.Column("progress", sa.Integer, nullable=False),
    sa.Column("created", sa.Float(53), nullable=False),  # times are seconds since 1970, UTC
    sa.Column("started", sa.Float(53)),
    sa.Column("finished", sa.Float(53)),
    sa.Column("updated", sa.Float(53), nullable=False),
    sa.Column("result", sa.Text),  # address of the run folder
    sa.Column("fault", sa.Text),  # JSON
    sa.Column("worker", sa.String(40)),  # of the claim that holds it
    sa.Column("lease_until", sa.Float(53)),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Index("earthmap_jobs_by_status", "status", "created"),
    sa.Index("earthmap_jobs_by_owner", "owner", "created"),
)

MESSAGES = sa.Table(
    "earthmap_messages",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job", sa.String(36), sa.ForeignKey(JOBS.c.id, ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)

FINISHED = sa.Table(  # an index of what run folders say: it can be emptied at any time, and fills itself again
    "earthmap_finished",
    _metadata,
    sa.Column("job", sa.String(36), sa.ForeignKey(JOBS.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("ground", sa.LargeBinary),  # WKB in EPSG:4326; null where the run folder has no item
    sa.Column("west", sa.Float(53)),  # beyond east across the antimeridian
    sa.Column("south", sa.Float(53)),
    sa.Column("east", sa.Float(53)),
    sa.Column("north", sa.Float(53)),
    sa.Column("starts", sa.Float(53)),
    sa.Column("ends", sa.Float(53)),
)

TOKENS = sa.Table(
    "earthmap_tokens",
    _metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("owner", sa.String(40), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("role", sa.String(12), nullable=False),
    sa.Column("quotas", sa.Text, nullable=False),  # JSON
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("revoked", sa.Float(53)),
)


@dataclass(frozen=True, slots=True)
class Database:
    """Transactions on one database; shared by threads, opened anew in each process."""

    engine: sa.Engine

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that may write; it is undone where the block raises. Raises StorageError."""
        with _told(self.engine), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one moment, and waits for no writer. Raises StorageError."""
        with _told(self.engine), self.engine.execution_options(earthmap_reads=True).begin() as connection:
            yield connection

    def only(self, connection: sa.Connection, name: str) -> None:
        """Wait until no other transaction works on `name`; SQLite has one writer at a time anyway."""
        if self.engine.dialect.name == "postgresql":
            key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    def close(self) -> None:
        """Close its connections."""
        self.engine.dispose()


@contextlib.contextmanager
def _told(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise StorageError(
            f"the database {_shown(engine.url)} cannot be used: {error.orig}",
            fix="see that it is there, writable and not full",
        ) from error


def _shown(url: sa.URL) -> str:
    return url.render_as_string(hide_password=True)


def open_database(address: str | Path) -> Database:
    """The database at `address`, with its tables made where they are absent.

    Args:
        address: path of an SQLite file, or a URL as SQLAlchemy reads it, such as `postgresql+psycopg://user@host/name`.

    Raises:
        JobError: for an address that names no database, or one whose driver is not installed.
        StorageError: where it cannot be opened, or is of a later version of earthmap.
    """
    url = _url(address)
    try:
        engine = sa.create_engine(url, **_settings(url))
    except ModuleNotFoundError as error:
        raise JobError(
            f"{_shown(url)} needs {error.name}", expected="its driver", fix="pip install 'earthmap[postgres]'"
        ) from error
    if url.get_backend_name() == "sqlite":
        _make_private(url)
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    database = Database(engine)
    _create(database)
    return database


def _url(address: str | Path) -> sa.URL:
    text = str(address)
    try:
        url = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
        backend = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        backend = ""
    if backend not in ("sqlite", "postgresql") or not url.database or url.database == ":memory:":
        raise JobError(  # without the address: it may hold a password
            "the address of the database is none",
            expected="the path of an SQLite file, or postgresql+psycopg://user@host/name",
        )
    return url


def _settings(url: sa.URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_S}}
    return {"pool_pre_ping": True}  # a connection that the server closed in the night


def _make_private(url: sa.URL) -> None:
    """Only its owner may read the file: it holds what people asked, and digests of tokens."""
    path = Path(str(url.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StorageError(
            f"the database {path} cannot be made: {error.strerror}", fix="name a place that is writable"
        ) from error


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the module's own transactions begin late and without a lock
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get("earthmap_reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _create(database: Database) -> None:
    with database.write() as connection:
        database.only(connection, "earthmap_schema")
        _metadata.create_all(connection)
        found = connection.execute(sa.select(sa.func.max(_versions.c.version))).scalar()
        if found is None:
            connection.execute(_versions.insert().values(version=SCHEMA_VERSION))
    if found not in (None, SCHEMA_VERSION):
        raise StorageError(
            f"the database is of version {found}, this earthmap of {SCHEMA_VERSION}",
            fix="use the earthmap that wrote it, or another database",
        )
