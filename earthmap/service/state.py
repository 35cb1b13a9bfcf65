"""The state of jobs: who asked what, how far it is, what it came to.

Statuses and transitions are those of OGC API – Processes, Part 1 (18-062r2, 7.11 and 13):

    accepted ─► running ─► successful ─► dismissed
        │          ├─────► failed ─────► dismissed
        │          └─► running (of another worker, where the lease of the first ran out)
        └──────────┴───────────────────► dismissed

A worker has a job by a lease, which it renews. What it says after it lost the lease is not heard.
"""

from __future__ import annotations

import contextlib
import datetime
import enum
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from earthmap.errors import JobError
from earthmap.service.database import JOBS, MESSAGES, Database, open_database

MAX_ATTEMPTS = 5
"""Workers that may lose a job before it counts as failed: what kills its worker each time would do so for ever."""

MAX_MESSAGES = 500
"""Messages that are kept of a job, the latest."""

MAX_MESSAGE = 2_000
"""Characters of a message that are kept."""


class Status(enum.StrEnum):
    """Where a job stands, in the words of the standard."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCESSFUL = "successful"
    FAILED = "failed"
    DISMISSED = "dismissed"


OPEN = (Status.ACCEPTED, Status.RUNNING)
"""Of jobs that are not finished, which count against a quota."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job as it stands."""

    id: str
    process: str
    inputs: Mapping[str, Any]
    """As they were checked; JSON values."""
    limits: Mapping[str, Any]
    """What its run may take, by the quotas of who asked: `tiles`, `read_bytes`."""
    owner: str
    """Whose it is, as the token says."""
    status: Status
    progress: int
    """0 to 100; it never goes back."""
    created: datetime.datetime
    started: datetime.datetime | None
    finished: datetime.datetime | None
    updated: datetime.datetime
    result: str | None
    """Address of the run folder, where it is successful."""
    fault: Mapping[str, Any] | None
    """The problem document of why it failed."""
    attempts: int
    """Workers that have had it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """All jobs in numbers."""

    counts: Mapping[Status, int]
    """Of each status, those that no job has included."""
    waiting_s: float
    """How long the oldest has waited that nobody works on; 0 where none waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs of a list are meant."""

    owner: str | None = None
    """None for everybody's."""
    statuses: Sequence[Status] = ()
    """Empty for all."""
    processes: Sequence[str] = ()
    """Empty for all."""
    created: tuple[datetime.datetime | None, datetime.datetime | None] = (None, None)
    """From and to when they were accepted, both included; None for no bound."""
    least_s: float | None = None
    """They worked for so long, or have until now."""
    most_s: float | None = None
    """The same at most."""
    after: str | None = None
    """Id of the last job of the page before."""
    limit: int = 10


@dataclass(frozen=True, slots=True)
class JobStore:
    """Jobs in a database. Every method is one transaction; threads and processes may share it.

    Example:
        >>> jobs = JobStore(open_database("state.sqlite"))             # doctest: +SKIP
        >>> job = jobs.submit("map", {"queries": ["Where is water?"]}, owner="local")  # doctest: +SKIP
        >>> jobs.claim("worker-1", lease_s=60).id == job.id            # doctest: +SKIP
        True
    """

    database: Database
    clock: Callable[[], float] = time.time
    """Seconds since 1970; the machines that share a database must agree to well within a lease."""

    def submit(
        self,
        process: str,
        inputs: Mapping[str, Any],
        *,
        owner: str,
        most_open: int | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> JobRecord | None:
        """The job, accepted; None where `owner` has `most_open` unfinished ones already."""
        now = self.clock()
        row = {
            "id": str(uuid.uuid4()),
            "process": process,
            "inputs": json.dumps(inputs),
            "limits": json.dumps(limits or {}),
            "owner": owner,
            "status": Status.ACCEPTED,
            "progress": 0,
            "created": now,
            "updated": now,
            "attempts": 0,
        }
        with self.database.write() as connection:
            self.database.only(connection, f"owner {owner}")
            if most_open is not None and self._count_open(connection, owner) >= most_open:
                return None
            connection.execute(JOBS.insert().values(**row))
            return self._get(connection, str(row["id"]))

    def get(self, job_id: str) -> JobRecord | None:
        """The job; None where there is none."""
        with self.database.read() as connection:
            return self._get(connection, job_id)

    def page(self, selection: Selection) -> list[JobRecord]:
        """The selected jobs, the newest first, `limit` at most."""
        found = sa.select(JOBS).where(*_chosen(selection, self.clock()))
        found = found.order_by(JOBS.c.created.desc(), JOBS.c.id.desc()).limit(selection.limit)
        with self.database.read() as connection:
            if selection.after is not None:
                last = connection.execute(sa.select(JOBS.c.created).where(JOBS.c.id == selection.after)).scalar()
                if last is None:
                    return []
                here = sa.and_(JOBS.c.created == last, JOBS.c.id < selection.after)
                found = found.where(sa.or_(JOBS.c.created < last, here))
            return [_record(row) for row in connection.execute(found)]

    def messages(self, job_id: str) -> list[tuple[datetime.datetime, str]]:
        """What was said of a job, the oldest first."""
        found = sa.select(MESSAGES.c.at, MESSAGES.c.text).where(MESSAGES.c.job == job_id).order_by(MESSAGES.c.number)
        with self.database.read() as connection:
            return [(_time(at), text) for at, text in connection.execute(found)]

    def tally(self) -> Tally:
        """How many there are of each status, and how long they wait."""
        counted = sa.select(JOBS.c.status, sa.func.count()).group_by(JOBS.c.status)
        with self.database.read() as connection:
            now = self.clock()
            found = {Status(status): int(count) for status, count in connection.execute(counted)}
            oldest = connection.execute(sa.select(sa.func.min(JOBS.c.created)).where(_claimable(now))).scalar()
        counts = {status: found.get(status, 0) for status in Status}
        return Tally(counts=counts, waiting_s=0.0 if oldest is None else max(0.0, now - oldest))

    def claim(self, worker: str, *, lease_s: float, processes: Sequence[str] = ()) -> JobRecord | None:
        """The oldest job that nobody works on, running and `worker`'s for `lease_s`; None where there is none.

        With `processes` it is one of theirs. `worker` must be a name that no other claim has: it is what tells this
        claim from a later one.
        """
        with self.database.write() as connection:
            now = self.clock()
            self._give_up(connection, now)
            meant = sa.and_(_claimable(now), JOBS.c.process.in_(processes)) if processes else _claimable(now)
            waiting = sa.select(JOBS.c.id).where(meant).order_by(JOBS.c.created, JOBS.c.id).limit(1)
            job_id = connection.execute(waiting.with_for_update(skip_locked=True)).scalar()
            if job_id is None:
                return None
            taken = JOBS.update().where(JOBS.c.id == job_id)
            connection.execute(
                taken.values(
                    status=Status.RUNNING,
                    worker=worker,
                    lease_until=now + lease_s,
                    started=sa.func.coalesce(JOBS.c.started, now),
                    updated=now,
                    attempts=JOBS.c.attempts + 1,
                )
            )
            return self._get(connection, job_id)

    def beat(
        self, job_id: str, worker: str, *, lease_s: float, progress: int = 0, messages: Sequence[str] = ()
    ) -> bool:
        """Renew the lease and say how far the job is; False where it is no longer `worker`'s, who must then stop."""
        with self.database.write() as connection:
            now = self.clock()
            further = sa.case((JOBS.c.progress < progress, min(progress, 100)), else_=JOBS.c.progress)
            values = {"lease_until": now + lease_s, "progress": further}
            if not self._move(connection, job_id, worker, {**values, "updated": now}):
                return False
            self._say(connection, job_id, messages, now)
            return True

    def finish(self, job_id: str, worker: str, *, result: str) -> bool:
        """Successful, with its run folder; False where it is no longer `worker`'s."""
        return self._end(job_id, worker, {"status": Status.SUCCESSFUL, "progress": 100, "result": result})

    def fail(self, job_id: str, worker: str, *, fault: Mapping[str, Any]) -> bool:
        """Failed, and why; False where it is no longer `worker`'s."""
        return self._end(job_id, worker, {"status": Status.FAILED, "fault": json.dumps(fault)})

    def release(self, job_id: str, worker: str) -> bool:
        """Give it back, to be claimed by another at once; False where it is no longer `worker`'s."""
        with self.database.write() as connection:
            now = self.clock()
            given = {"lease_until": now - 1.0, "attempts": JOBS.c.attempts - 1, "updated": now}
            return self._move(connection, job_id, worker, given)

    def dismiss(self, job_id: str) -> bool:
        """Dismissed: its worker stops at its next beat, its result is no longer given; False where it was already."""
        with self.database.write() as connection:
            now = self.clock()
            values = {"status": Status.DISMISSED, "updated": now, "result": None, "worker": None, "lease_until": None}
            there = JOBS.update().where(JOBS.c.id == job_id, JOBS.c.status != Status.DISMISSED)
            done = connection.execute(there.values(finished=sa.func.coalesce(JOBS.c.finished, now), **values))
            return done.rowcount == 1

    def _end(self, job_id: str, worker: str, values: Mapping[str, Any]) -> bool:
        with self.database.write() as connection:
            now = self.clock()
            ended = {"finished": now, "updated": now, "worker": None, "lease_until": None}
            return self._move(connection, job_id, worker, {**values, **ended})

    def _move(self, connection: sa.Connection, job_id: str, worker: str, values: Mapping[str, Any]) -> bool:
        """Change a job that is running and `worker`'s; a lease that ran out unclaimed is still the worker's."""
        own = JOBS.update().where(JOBS.c.id == job_id, JOBS.c.status == Status.RUNNING, JOBS.c.worker == worker)
        return connection.execute(own.values(**values)).rowcount == 1

    def _give_up(self, connection: sa.Connection, now: float) -> None:
        """Fail the jobs whose workers were lost too often."""
        lost = JOBS.update().where(_lapsed(now), JOBS.c.attempts >= MAX_ATTEMPTS)
        fault = {
            "type": "urn:earthmap:problem:lost",
            "title": "The job was lost",
            "status": 500,
            "detail": f"{MAX_ATTEMPTS} workers were lost while they worked on it",
        }
        values = {"status": Status.FAILED, "finished": now, "updated": now, "worker": None, "lease_until": None}
        connection.execute(lost.values(fault=json.dumps(fault), **values))

    def _say(self, connection: sa.Connection, job_id: str, messages: Sequence[str], now: float) -> None:
        if not messages:
            return
        rows = [{"job": job_id, "at": now, "text": plain_text(text)} for text in messages[-MAX_MESSAGES:]]
        connection.execute(MESSAGES.insert(), rows)
        own = sa.select(MESSAGES.c.number).where(MESSAGES.c.job == job_id).order_by(MESSAGES.c.number.desc())
        oldest = connection.execute(own.offset(MAX_MESSAGES - 1).limit(1)).scalar()
        if oldest is not None:
            connection.execute(MESSAGES.delete().where(MESSAGES.c.job == job_id, MESSAGES.c.number < oldest))

    def _count_open(self, connection: sa.Connection, owner: str) -> int:
        own = sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.owner == owner, JOBS.c.status.in_(OPEN))
        return int(connection.execute(own).scalar_one())

    def _get(self, connection: sa.Connection, job_id: str) -> JobRecord | None:
        row = connection.execute(sa.select(JOBS).where(JOBS.c.id == job_id)).first()
        return None if row is None else _record(row)


@contextlib.contextmanager
def open_jobs(state: str) -> Iterator[JobStore]:
    """The jobs of the database at `state`; no SQLite file is made. Raises JobError, StorageError."""
    if "://" not in state and not Path(state).is_file():
        raise JobError(f"there is no database {state}", fix="name that of the service with --state")
    database = open_database(state)
    try:
        yield JobStore(database)
    finally:
        database.close()


def _lapsed(now: float) -> sa.ColumnElement[bool]:
    return sa.and_(JOBS.c.status == Status.RUNNING, JOBS.c.lease_until < now)


def _claimable(now: float) -> sa.ColumnElement[bool]:
    return sa.or_(JOBS.c.status == Status.ACCEPTED, _lapsed(now))


def _chosen(selection: Selection, now: float) -> list[sa.ColumnElement[bool]]:
    """What holds of the rows that are meant, the page apart."""
    worked = sa.func.coalesce(JOBS.c.finished, now) - JOBS.c.started
    since, until = selection.created
    given: list[tuple[Any, Callable[[Any], sa.ColumnElement[bool]]]] = [
        (selection.owner, lambda owner: JOBS.c.owner == owner),
        (selection.statuses or None, JOBS.c.status.in_),
        (selection.processes or None, JOBS.c.process.in_),
        (since, lambda time: JOBS.c.created >= time.timestamp()),
        (until, lambda time: JOBS.c.created <= time.timestamp()),
        (selection.least_s, lambda seconds: worked >= seconds),
        (selection.most_s, lambda seconds: worked <= seconds),
    ]
    return [condition(value) for value, condition in given if value is not None]


def plain_text(text: str) -> str:
    """`text` as any database takes it: no NUL, which Postgres refuses, and no half characters."""
    return text[:MAX_MESSAGE].replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _record(row: Any) -> JobRecord:
    return JobRecord(
        id=row.id,
        process=row.process,
        inputs=json.loads(row.inputs),
        limits=json.loads(row.limits),
        owner=row.owner,
        status=Status(row.status),
        progress=row.progress,
        created=_time(row.created),
        started=None if row.started is None else _time(row.started),
        finished=None if row.finished is None else _time(row.finished),
        updated=_time(row.updated),
        result=row.result,
        fault=None if row.fault is None else json.loads(row.fault),
        attempts=row.attempts,
    )
