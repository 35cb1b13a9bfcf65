"""Bearer tokens: who may do what, and how much of it.

A token is 256 random bits, so that a plain SHA-256 of it is as good as a slow one: there is no dictionary to try
(NIST SP 800-63B-4, 3.1.1.2, asks salt and slowness for what people choose). Only the digest is kept; the token itself
is told once, to whoever made it, and is in no log and no message.
"""

from __future__ import annotations

import contextlib
import datetime
import enum
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa

from earthmap.errors import JobError
from earthmap.service.database import TOKENS, Database, open_database

_FORM = re.compile(r"em_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")

_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,39}")


class Role(enum.StrEnum):
    """What a token is for; each may do what those before it may."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """How much a job of this token may take; None for no limit."""

    area_km2: float | None = None
    tiles: int | None = None
    read_bytes: int | None = None
    """Of pixels, before compression."""
    open_jobs: int | None = None
    """Of its owner, waiting or running at once."""
    steps: int | None = None
    """Of training."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < float("inf"):
                raise JobError(f"the quota {name} is {value}", expected="a number above 0, or none for no limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who asks."""

    id: str
    owner: str
    """Whose jobs these are: a person or a team. All tokens of an owner see the same jobs."""
    role: Role
    quotas: Quotas = Quotas()

    @property
    def may_submit(self) -> bool:
        """Whether new jobs, and the end of one's own, may be asked for."""
        return self.role in (Role.SUBMITTER, Role.OPERATOR)

    @property
    def sees_all(self) -> bool:
        """Whether everybody's jobs are shown."""
        return self.role is Role.OPERATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token as it is listed: everything but itself."""

    holder: Holder
    created: datetime.datetime
    revoked: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class TokenStore:
    """Tokens in a database."""

    database: Database
    clock: Callable[[], float] = time.time

    def make(self, owner: str, *, role: Role, quotas: Quotas | None = None) -> str:
        """A new token, which is not kept and cannot be told again. Raises JobError for an owner that is no name."""
        if not _OWNER.fullmatch(owner):
            raise JobError(f"{owner[:60]!r} is no owner's name", expected="1 to 40 letters, digits, or . _ @ -")
        token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        row = {
            "id": token_id,
            "owner": owner,
            "digest": _digest(secret),
            "role": role,
            "quotas": json.dumps(asdict(quotas or Quotas())),
            "created": self.clock(),
        }
        with self.database.write() as connection:
            connection.execute(TOKENS.insert().values(**row))
        return f"em_{token_id}_{secret}"

    def check(self, text: str) -> Holder | None:
        """Who holds the token `text`; None for one that is unknown or revoked. As quick for a near miss as for none."""
        form = _FORM.fullmatch(text)
        token_id, secret = (form[1], form[2]) if form else ("", "")
        with self.database.read() as connection:
            row = connection.execute(sa.select(TOKENS).where(TOKENS.c.id == token_id)).first()
        kept = "0" * 64 if row is None else row.digest
        same = hmac.compare_digest(kept, _digest(secret))
        return _holder(row) if row is not None and same and row.revoked is None else None

    def revoke(self, token_id: str) -> bool:
        """Let it open nothing any more, from the next request on; False where there is none, or it is already so."""
        with self.database.write() as connection:
            live = TOKENS.update().where(TOKENS.c.id == token_id, TOKENS.c.revoked.is_(None))
            return connection.execute(live.values(revoked=self.clock())).rowcount == 1

    def all(self) -> list[TokenRecord]:
        """Every token, the oldest first."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(TOKENS).order_by(TOKENS.c.created, TOKENS.c.id)).all()
        return [
            TokenRecord(
                holder=_holder(row),
                created=datetime.datetime.fromtimestamp(row.created, datetime.UTC),
                revoked=None if row.revoked is None else datetime.datetime.fromtimestamp(row.revoked, datetime.UTC),
            )
            for row in rows
        ]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _holder(row: sa.Row[tuple[object, ...]]) -> Holder:
    return Holder(id=row.id, owner=row.owner, role=Role(row.role), quotas=Quotas(**json.loads(row.quotas)))


@contextlib.contextmanager
def open_tokens(state: str, *, make: bool) -> Iterator[TokenStore]:
    """The tokens of the database at `state`; an SQLite file is made only with `make`. Raises JobError, StorageError."""
    if not make and "://" not in state and not Path(state).is_file():
        raise JobError(f"there is no database {state}", fix="name that of the service with --state")
    database = open_database(state)
    try:
        yield TokenStore(database)
    finally:
        database.close()
