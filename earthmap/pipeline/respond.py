"""A disaster run: each picture after an event is mapped by itself, the latest first, and one file says what there is.

Every pass after the event has a run folder of its own, so that nothing is ever merged across passes, and all of them
share one store, so that what they look at together (dates before, water that is always there) is read and asked once.
docs/decisions/0025-flood-is-water-less-permanent-water.md says why so.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from earthmap.catalog import Interval, Observation, find_scenes, observe
from earthmap.catalog.intervals import format_time
from earthmap.content import content_key
from earthmap.errors import CatalogError, JobError, RunFolderError
from earthmap.outputs import headlines, render_event
from earthmap.pipeline.event import Event
from earthmap.pipeline.flood import ENOUGH
from earthmap.pipeline.folder import RUN_PATH, Run
from earthmap.pipeline.importance import read_places
from earthmap.pipeline.job import Job, parse_job
from earthmap.pipeline.plan import open_images, open_source
from earthmap.storage import Storage

EVENT_PATH = "event.json"
"""What there is of an event: its passes, what each run came to, and which is the latest."""

PAGE_PATH = "index.html"
"""The same to look at."""

APART = datetime.timedelta(minutes=10)
"""Observations nearer than this in time are one pass."""

NAMED = 6
"""Dates that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """How long new observations are waited for."""

    every_s: float = 600.0
    """Between two looks into the catalogue."""
    until: datetime.datetime | None = None
    """When to stop; None for never."""
    sleep: Callable[[float], None] = time.sleep

    def wait(self) -> bool:
        """Wait for the next look; False where there is none."""
        left = None if self.until is None else (self.until - datetime.datetime.now(datetime.UTC)).total_seconds()
        if left is not None and left <= 0:
            return False
        self.sleep(self.every_s if left is None else min(self.every_s, left))
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Who hears of what a response does."""

    report: Callable[[Any], None] | None = None
    """Hears of every cell (`earthmap.pipeline.Progress`)."""
    say: Callable[[str], None] = field(default=lambda step: None)
    """Hears of every step."""
    found: Callable[[Sequence[Job]], None] = field(default=lambda jobs: None)
    """Hears of the jobs of all passes that are new, before the first of them is mapped; what it raises ends it."""
    mapped: Callable[[Run], None] = field(default=lambda run: None)
    """Hears of every pass that is mapped."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """What was seen of the event at one time."""

    observations: tuple[Observation, ...]

    @property
    def start(self) -> datetime.datetime:
        return min(one.datetime for one in self.observations)

    @property
    def scenes(self) -> list[str]:
        return sorted({scene.id for one in self.observations for scene in one.scenes})

    @property
    def folder(self) -> str:
        """Its time, and a key of its scenes: one of which more is published later is another."""
        return f"{self.start:%Y%m%dT%H%M%SZ}-{content_key(self.scenes)[:6]}"

    def interval(self, event: Event) -> Interval:
        """When it was, with room for what its cells show beside the event's own ground."""
        last = max(one.datetime for one in self.observations)
        return Interval(start=max(self.start - APART / 2, event.time), end=last + APART / 2)


def respond(
    values: Mapping[str, Any], event: Event, *, follow: Follow | None = None, watcher: Watcher | None = None
) -> list[Run]:
    """Map every pass after the event, and with `follow` those that come; returns the finished runs by time.

    Args:
        values: the job as of a job file: `area`, `queries`, where the scenes are and `out`, the event's folder. The
            dates of the questions are those of the event.
        event: when it was, and which dates are looked at.
        follow: wait for new observations; None to map what there is.
        watcher: hears of what is done.

    Raises:
        BadRequestError: for a job that cannot be run as it stands, and for dates without observations.
        StorageError: when the event's folder cannot be written.
    """
    from earthmap.pipeline.cluster import cluster

    watcher = watcher or Watcher()
    dated = dated_questions(values, event)
    job = _job_of(values, event, dated, folder=None)
    if job.spec.points is not None:
        read_places(job.spec.points)
    index = _Index.opened(job, event)
    for note in event.notes:
        watcher.say(note)
    earlier, passes = _look(job, event)
    _check_dates(job, event, earlier, passes, waiting=follow is not None, say=watcher.say)
    told = False
    while True:
        new = [one for one in passes if not index.has(one, again=not told)]
        if new:
            watcher.say(f"{len(new)} of {len(passes)} passes after the event are not mapped yet: {_dates(new)}")
            jobs = [_job_of_pass(one, values, event, dated) for one in new]
            watcher.found(jobs)
            with cluster(job.spec.cluster), _forbearing(follow is not None, watcher.say):
                for one, its_job in zip(new, jobs, strict=True):
                    watcher.mapped(_mapped(one, its_job, index=index, watcher=watcher))
        if follow is None:
            return index.runs()
        if new or not told:
            watcher.say(f"waiting for new observations: a look every {follow.every_s:,.0f} s; Ctrl-C ends")
        told = True
        if not follow.wait():
            return index.runs()
        with _forbearing(True, watcher.say):
            passes = _look(job, event)[1]


@contextlib.contextmanager
def _forbearing(waiting: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Say that the catalogue does not answer, where there will be another look. Raises CatalogError where not."""
    try:
        yield
    except CatalogError as error:
        if not waiting:
            raise
        say(f"the catalogue could not be searched, and is asked again later: {error}")


def dated_questions(values: Mapping[str, Any], event: Event) -> list[dict[str, Any]]:
    """The questions with the event's dates. Raises BadRequestError for one that cannot be asked so."""
    asked = values.get("queries") or []
    plain = [{"text": one} if isinstance(one, str) else dict(one) for one in asked]
    given = [name for one in plain for name in ("before", "after") if one.get(name) is not None]
    if given:
        raise JobError(f"a question has its own {given[0]}", expected="the dates of the event", fix="leave it out")
    late = [{**one, "after": str(event.after)} for one in plain]
    job = _job_of(values, event, late, folder=None)
    for query in job.queries:
        if query.dates == 0:
            raise JobError(
                f"{query.text[:80]!r} is a {query.task} question, which looks at a series of dates",
                expected="a question about one picture after the event, or about what changed since before",
                fix="ask it with `earthmap map`",
            )
    early = str(event.before)
    return [
        {**one, "before": early} if query.dates == 2 or query.is_flood else one
        for one, query in zip(late, job.queries, strict=True)
    ]


def _job_of(
    values: Mapping[str, Any], event: Event, questions: Sequence[Mapping[str, Any]], *, folder: str | None
) -> Job:
    """The job of one pass in its folder, or of the whole event."""
    out = str(values["out"]).rstrip("/")
    store = values.get("store") or f"{out}/store"
    own = {"out": f"{out}/{folder}" if folder else out, "store": store, "datetime": event.span, "scenes": "all"}
    return parse_job({"rush": True, "priority": "urgent", **values, **own, "queries": list(questions)})


def _job_of_pass(one: _Pass, values: Mapping[str, Any], event: Event, dated: Sequence[Mapping[str, Any]]) -> Job:
    after = str(one.interval(event))
    return _job_of(values, event, [{**each, "after": after} for each in dated], folder=one.folder)


def _mapped(one: _Pass, job: Job, *, index: _Index, watcher: Watcher) -> Run:
    """The finished run of one pass."""
    from earthmap.pipeline.run import run_job

    sensors = ", ".join(sorted({each.sensor for each in one.observations}))
    watcher.say(f"mapping {one.start:%Y-%m-%d %H:%M} UTC, {sensors}, in {one.folder}")
    index.begin(one)
    run = run_job(job, report=watcher.report, say=watcher.say)
    index.finish(one, run)
    return run


# ── what there is to look at ─────────────────────────────────────────────────────────────────────────────────


def _look(job: Job, event: Event) -> tuple[list[Observation], list[_Pass]]:
    """Observations of the event's ground before it, and the passes after it, the latest first. Raises CatalogError."""
    source = open_source(job, open_images(job))
    try:
        found = find_scenes(
            source,
            job.area.geometry,
            datetime=job.spec.datetime,
            collections=job.spec.collections or None,
            sensor=job.spec.sensor,
        )
    except CatalogError as error:
        error.fix = (error.fix or "").replace("--datetime", "--before or --after").replace("--area", "--event") or None
        raise
    seen = observe(found.scenes)
    earlier = [one for one in seen if _at(one).overlaps(event.before)]
    later = sorted((one for one in seen if _at(one).overlaps(event.after)), key=lambda one: (one.datetime, one.id))
    starts = [
        number for number, one in enumerate(later) if not number or one.datetime - later[number - 1].datetime > APART
    ]
    passes = [_Pass(tuple(later[start:end])) for start, end in itertools.pairwise([*starts, len(later)])]
    return earlier, passes[::-1]


def _at(observation: Observation) -> Interval:
    return Interval(start=observation.datetime, end=observation.datetime)


def _check_dates(
    job: Job,
    event: Event,
    earlier: Sequence[Observation],
    passes: Sequence[_Pass],
    *,
    waiting: bool,
    say: Callable[[str], None],
) -> None:
    """Raises JobError where nothing was seen before or after the event that a question needs."""
    where = job.spec.catalog or "the images"
    if not passes and not waiting:
        raise JobError(
            f"nothing of the event is in {where} after it ({event.after}); before it there is {_dates(earlier)}",
            expected="an observation after the event",
            fix="give later dates with --after, or wait for one with --follow",
        )
    flood = any(query.is_flood for query in job.queries) and job.spec.reference_water is None
    if not earlier and (any(query.dates == 2 for query in job.queries) or (flood and event.before_named)):
        raise JobError(
            f"nothing of the event is in {where} before it ({event.before}); after it there is {_dates(passes)}",
            expected="an observation before the event, with which those after are compared",
            fix="give earlier dates with --before" + (", or --reference-water" if flood else ""),
        )
    if flood and len(earlier) < ENOUGH:
        say(
            f"{len(earlier) or 'no'} observation before the event: the flood includes permanent water; "
            "to tell it apart give earlier dates with --before, or --reference-water"
        )


def _dates(seen: Sequence[Observation | _Pass]) -> str:
    times = [one.start if isinstance(one, _Pass) else one.datetime for one in seen]
    texts = [f"{time:%Y-%m-%d %H:%M}" for time in sorted(times)[-NAMED:]]
    return ", ".join(texts) + (f" and {len(seen) - NAMED} earlier" if len(seen) > NAMED else "") or "nothing"


# ── the event's file ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Index:
    """`event.json`, written whole at every step, so that who reads it at any moment reads a valid one."""

    storage: Storage
    content: dict[str, Any]

    @classmethod
    def opened(cls, job: Job, event: Event) -> _Index:
        """The event's file as it stands, or a new one. Raises RunFolderError where it is another event's."""
        storage = Storage(job.spec.out)
        about = {
            "time": format_time(event.time),
            "before": str(event.before),
            "after": str(event.after),
            "area_km2": round(job.area.area_km2, 4),
            "questions": [query.text for query in job.queries],
            "notes": list(event.notes),
        }
        fresh: dict[str, Any] = {"event": about, "job": job.content_key(), "latest": None, "runs": []}
        try:
            content = json.loads(storage.read(EVENT_PATH))
        except FileNotFoundError:
            content = fresh
        except ValueError as error:
            raise RunFolderError(f"{storage.locate(EVENT_PATH)} is damaged: {error}", fix="delete it") from None
        if content.get("job") != fresh["job"]:
            raise RunFolderError(
                f"{storage.address} holds another event, or other questions about this one",
                expected="an empty folder, or the folder of this very event",
                fix="give another --out, and --store the store of that one to read nothing twice",
            )
        return cls(storage, content)

    def has(self, one: _Pass, *, again: bool) -> bool:
        """Whether a pass was mapped with all of its scenes; with `again` not where some of its tiles failed."""
        own = [row for row in self.content["runs"] if row["folder"] == one.folder and row["finished"]]
        return bool(own) and not (again and own[0]["failed"])

    def begin(self, one: _Pass) -> None:
        """Say that a pass is being mapped: its folder grows from now on."""
        row = {
            "folder": one.folder,
            "datetime": format_time(one.start),
            "observations": [each.id for each in one.observations],
            "scenes": one.scenes,
            "finished": None,
            "failed": 0,
            "answers": [],
        }
        self._put(row)

    def finish(self, one: _Pass, run: Run) -> None:
        """Say what a pass came to."""
        row = next(row for row in self.content["runs"] if row["folder"] == one.folder)
        record = json.loads(run.storage.read(RUN_PATH))
        failed = sum(run.summary["failed"].values())
        self._put({**row, "finished": record["finished"], "failed": failed, "answers": headlines(run.summary)})

    def _put(self, row: dict[str, Any]) -> None:
        rows = [*(each for each in self.content["runs"] if each["folder"] != row["folder"]), row]
        rows.sort(key=lambda each: (each["datetime"], each["folder"]))
        done = [each for each in rows if each["finished"]]
        for each in rows:
            each["superseded_by"] = next((more["folder"] for more in done if _shows_more(more, each)), None)
        current = [each["folder"] for each in done if each["superseded_by"] is None]
        self.content = {**self.content, "runs": rows, "latest": current[-1] if current else None}
        self.storage.write(EVENT_PATH, json.dumps(self.content, indent=1, sort_keys=True).encode())
        self.storage.write(PAGE_PATH, render_event(self.content["event"], rows).encode())

    def runs(self) -> list[Run]:
        """Those that are finished, by time."""
        return [
            Run(self.storage.locate(row["folder"]))
            for row in self.content["runs"]
            if row["finished"] and row["superseded_by"] is None
        ]


def _shows_more(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether one run is of the same pass as the other, and of more scenes."""
    return set(other["scenes"]) < set(one["scenes"])
