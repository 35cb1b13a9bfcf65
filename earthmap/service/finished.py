"""Finished runs by place and time: an index in the database of what their STAC items say.

The index fills itself: whoever asks takes in what finished since, once, from the run folders. So it needs no help from
what ends jobs, knows those of an older database, and may be emptied at any time.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
import sqlalchemy as sa

from earthmap.catalog import Interval
from earthmap.catalog.intervals import item_interval
from earthmap.errors import StorageError
from earthmap.service.database import FINISHED, JOBS, Database
from earthmap.service.parameters import Box
from earthmap.service.processes import PROCESSES
from earthmap.service.state import Status, plain_text
from earthmap.storage import Storage

READERS = 16
"""Items that are read at once."""

TAKEN_IN = 200
"""Runs that are taken in by one transaction."""

_TOKEN = re.compile(r"([0-9]{1,17})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")

_EMPTY = {"title": "", "ground": None}

_log = logging.getLogger("earthmap.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished run that has an item."""

    job: str
    process: str
    title: str
    """The questions."""
    result: str
    """Address of the job's folder."""
    finished_us: int
    """Microseconds since 1970."""
    box: Box
    """West, south, east, north in degrees; west > east across the antimeridian."""
    interval: Interval | None
    """Of what was looked at."""

    @property
    def token(self) -> str:
        """Where a page ends that ends with it; it holds when the job is gone, too."""
        return f"{self.finished_us}-{self.job}"

    @property
    def storage(self) -> Storage:
        """The job's folder."""
        return Storage(self.result)

    def place(self, output: str) -> str:
        """Where an output lies in that folder. Raises FileNotFoundError where there is none."""
        process = PROCESSES[self.process]
        return process.place(process.outputs[output], self.storage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Which finished runs are meant."""

    owner: str | None
    """None for everybody's."""
    jobs: Sequence[str] | None = None
    """Ids; None for any."""
    processes: Sequence[str] | None = None
    """None for any."""
    boxes: Sequence[Box] = ()
    """The ground meets one of these, none of which crosses the antimeridian; empty for any ground."""
    shape: Any = None
    """The ground meets this, too (shapely, EPSG:4326); None for any."""
    interval: Interval | None = None
    """What was looked at, and when, meets this; None for any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of the runs that are meant, the last finished first."""

    runs: tuple[Finished, ...]
    matched: int
    """How many there are in all."""
    next: str | None
    """Where the next page starts; None where this is the last."""


@dataclass(frozen=True, slots=True)
class FinishedRuns:
    """The index."""

    database: Database

    def page(self, sought: Sought, *, limit: int, after: str | None = None) -> Page:
        """A page of the runs that are meant, from where the page before it ended.

        Raises:
            ValueError: for a token that is none of a page's.
            StorageError: where the database cannot be used.
        """
        cut = _cut(after)
        self._take_in()
        with self.database.read() as connection:
            keys = _keys(connection, sought)
            behind = [job for number, job in keys if cut is None or (number, job) < cut]
            chosen = behind[:limit]
            rows = {row.id: _finished(row) for row in connection.execute(_records().where(JOBS.c.id.in_(chosen)))}
        runs = tuple(rows[job] for job in chosen)
        return Page(runs=runs, matched=len(keys), next=runs[-1].token if len(behind) > limit else None)

    def get(self, job_id: str, *, owner: str | None) -> Finished | None:
        """The finished run of a job; None where there is none with an item, or it is not the owner's."""
        found = self.page(Sought(owner=owner, jobs=[job_id]), limit=1).runs
        return found[0] if found else None

    def extent(self, sought: Sought) -> tuple[Box, Interval] | None:
        """All ground and time of the runs that are meant; None where there are none."""
        self._take_in()
        there = FINISHED.c
        sums = (
            sa.func.max(sa.case((there.west > there.east, 1), else_=0)),
            sa.func.min(there.west),
            sa.func.min(there.south),
            sa.func.max(there.east),
            sa.func.max(there.north),
            sa.func.min(there.starts),
            sa.func.max(there.ends),
        )
        found = sa.select(*sums).select_from(_JOINED).where(*_conditions(sought))
        with self.database.read() as connection:
            crosses, west, south, east, north, starts, ends = connection.execute(found).one()
        if west is None:
            return None
        box = (-180.0, south, 180.0, north) if crosses else (west, south, east, north)
        return box, Interval(start=_time(starts), end=_time(ends))

    def _take_in(self) -> None:
        """What finished since, once. A folder that cannot be read now is looked into again by whoever asks next."""
        unread = set[str]()
        while missing := self._missing(unread):
            with ThreadPoolExecutor(READERS) as pool:
                read = list(pool.map(_read, missing))
            unread.update(job for (job, *_), row in zip(missing, read, strict=True) if row is None)
            rows = [row for row in read if row is not None]
            with self.database.write() as connection:
                self.database.only(connection, "earthmap_finished")
                jobs = [row["job"] for row in rows]
                there = set(connection.scalars(sa.select(JOBS.c.id).where(JOBS.c.id.in_(jobs))))
                there -= set(connection.scalars(sa.select(FINISHED.c.job).where(FINISHED.c.job.in_(jobs))))
                new = [row for row in rows if row["job"] in there]
                if new:
                    connection.execute(FINISHED.insert(), new)

    def _missing(self, unread: Set[str]) -> list[tuple[str, str, str]]:
        """(job, process, result) of some runs that the index does not know, but for those of `unread`."""
        unknown = (JOBS.c.status == Status.SUCCESSFUL, JOBS.c.process.in_(with_items()), FINISHED.c.job.is_(None))
        found = sa.select(JOBS.c.id, JOBS.c.process, JOBS.c.result).where(*unknown).limit(TAKEN_IN + len(unread))
        found = found.select_from(JOBS.outerjoin(FINISHED, FINISHED.c.job == JOBS.c.id))
        with self.database.read() as connection:
            rows = connection.execute(found).all()
        return [(row.id, row.process, row.result) for row in rows if row.id not in unread]


def with_items() -> list[str]:
    """The processes whose runs leave an item."""
    return [one.id for one in PROCESSES.values() if "item" in one.outputs]


def read_item(run: Finished) -> dict[str, Any]:
    """The item that the run wrote. Raises FileNotFoundError, ValueError or StorageError where there is none."""
    item: dict[str, Any] = json.loads(run.storage.read(run.place("item")))
    return item


# ── taking in ────────────────────────────────────────────────────────────────────────────────────────────────


def _read(job: tuple[str, str, str]) -> dict[str, Any] | None:
    """The row of a run: an empty one where its folder has no item, so that none asks again; None where nobody knows."""
    job_id, process_id, result = job
    process, storage = PROCESSES[process_id], Storage(result)
    about = dict.fromkeys(("title", "ground", "west", "south", "east", "north", "starts", "ends")) | _EMPTY
    try:
        item = json.loads(storage.read(process.place(process.outputs["item"], storage)))
        about |= _about(item)
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, shapely.errors.ShapelyError) as error:
        _log.warning("the item of job %s is damaged: %s", job_id, error)
    except StorageError as error:
        _log.error("the item of job %s cannot be read now: %s", job_id, error)
        return None
    return {"job": job_id, **about}


def _about(item: Mapping[str, Any]) -> dict[str, Any]:
    west, south, east, north = (float(edge) for edge in item["bbox"])
    ground = shapely.from_geojson(json.dumps(item["geometry"]))
    interval = item_interval(item)
    starts, ends = (interval.start, interval.end) if interval else (None, None)
    return {
        "title": plain_text(str(item["properties"].get("title") or item["id"])),
        "ground": shapely.to_wkb(ground),
        **{"west": west, "south": south, "east": east, "north": north},
        "starts": starts.timestamp() if starts else None,
        "ends": ends.timestamp() if ends else None,
    }


# ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────

_JOINED = JOBS.join(FINISHED, FINISHED.c.job == JOBS.c.id)


def _records() -> sa.Select[Any]:
    columns = [column for column in FINISHED.c if column.name not in ("ground", "job")]
    return sa.select(JOBS.c.id, JOBS.c.process, JOBS.c.result, JOBS.c.finished, *columns).select_from(_JOINED)


def _keys(connection: sa.Connection, sought: Sought) -> list[tuple[int, str]]:
    """(microseconds, job) of the runs that are meant, the last finished first."""
    exact = bool(sought.boxes) or sought.shape is not None
    columns = [JOBS.c.finished, JOBS.c.id, *([FINISHED.c.ground] if exact else [])]
    found = sa.select(*columns).select_from(_JOINED).where(*_conditions(sought))
    rows = list(connection.execute(found))
    kept = _meeting([row.ground for row in rows], sought) if exact else range(len(rows))
    return sorted(((_micros(rows[index].finished), rows[index].id) for index in kept), reverse=True)


def _meeting(grounds: Sequence[bytes], sought: Sought) -> Iterator[int]:
    """Indices of the grounds that meet what is meant."""
    shapes = shapely.from_wkb(np.array(grounds, object))
    meets = np.ones(len(shapes), bool)
    if sought.boxes:
        meets &= shapely.intersects(shapes, shapely.MultiPolygon([shapely.box(*box) for box in sought.boxes]))
    if sought.shape is not None:
        shapely.prepare(sought.shape)
        meets &= shapely.intersects(sought.shape, shapes)
    yield from np.nonzero(meets)[0].tolist()


def _conditions(sought: Sought) -> list[sa.ColumnElement[bool]]:
    there = FINISHED.c
    found = [JOBS.c.status == Status.SUCCESSFUL, there.ground.is_not(None)]
    if sought.owner is not None:
        found.append(JOBS.c.owner == sought.owner)
    if sought.jobs is not None:
        found.append(JOBS.c.id.in_(sought.jobs))
    if sought.processes is not None:
        found.append(JOBS.c.process.in_(sought.processes))
    if sought.boxes:
        found.append(sa.or_(*(_meets(box) for box in sought.boxes)))
    if sought.shape is not None and not sought.shape.is_empty:
        found.append(_meets(sought.shape.bounds))
    if sought.interval is not None and sought.interval.start is not None:
        found.append(there.ends >= sought.interval.start.timestamp())
    if sought.interval is not None and sought.interval.end is not None:
        found.append(there.starts <= sought.interval.end.timestamp())
    return found


def _meets(box: Box) -> sa.ColumnElement[bool]:
    """Whether the bounds of a run meet a box that does not cross the antimeridian."""
    there, (west, south, east, north) = FINISHED.c, box
    plain = sa.and_(there.west <= there.east, there.west <= east, there.east >= west)
    across = sa.and_(there.west > there.east, sa.or_(there.west <= east, there.east >= west))
    return sa.and_(there.south <= north, there.north >= south, sa.or_(plain, across))


def _cut(token: str | None) -> tuple[int, str] | None:
    """Behind which run a page starts. Raises ValueError."""
    if token is None:
        return None
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise ValueError(token)
    return int(match[1]), match[2]


def _finished(row: Any) -> Finished:
    interval = None if row.starts is None else Interval(start=_time(row.starts), end=_time(row.ends))
    return Finished(
        job=row.id,
        process=row.process,
        title=row.title,
        result=row.result,
        finished_us=_micros(row.finished),
        box=(row.west, row.south, row.east, row.north),
        interval=interval,
    )


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _time(seconds: float | None) -> datetime.datetime | None:
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC)
