"""One question about one place of a finished job, answered while who asks waits.

Reading the cube and outlining what was found cost processor time; that is done by workers, and the model by its replica
(docs/decisions/0036-who-prepares-holds-no-model.md). What the workers do is `prepare` and `finish`; `Answering` is who
has them do it; `Asking` is the door: so many questions at once, each within its time, and whoever comes beyond that is
told at once when to come again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from earthmap.errors import EarthmapError, JobError, ReadError
from earthmap.model import EMBEDDED, has_embedded
from earthmap.pipeline import RunCube, Sight, Subject, make_reply, open_run_cube, place_of_run
from earthmap.pipeline.job import QuestionSpec
from earthmap.predict import default_predictor
from earthmap.service.errors import ProblemError, problem
from earthmap.tasks import TASKS, Answer, Query

SPECTRAL = "spectral"
"""Who answers without a model, by thresholds."""

AT_ONCE = 64
"""Questions in flight, where the operator does not say."""

OF_ONE = 0.75
"""Share of them that one owner may have where there are several, so that there is room for another."""

LIMIT_S = 60.0
"""Seconds that an answer may take, where the operator does not say."""

KEPT_RUNS = 16
"""Plans that a worker keeps open."""

_RECENT = 0.1
"""Weight of the newest answer in the mean of how long answers take."""

_log = logging.getLogger("earthmap.service")


# ── what workers do ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question on its way to who answers it."""

    run: str
    """Address of the run folder."""
    at: tuple[float, float]
    """Degrees east and north."""
    question: Mapping[str, Any]
    """Fields of a `QuestionSpec`."""
    date: str | None = None
    """STAC datetime; None for the latest, of a change for the first and the latest."""
    model: str | None = None
    """Name of who answers; None for the embedded model where its card shows, for this question and sensor, that it is
    the better one, else `spectral`."""
    checkpoint: str | None = None
    """Folder of the model, where it is not one that the operator offers but one that a job trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is asked, of which pixels, and who."""

    query: Query
    subject: Subject
    model: str


def parse_question(asked: Asked, *, model: str | None) -> Query:
    """The exact query as `model` can be asked it; None for the embedded one where there is one, else `spectral`.

    Raises:
        JobError: for dates that its task cannot have, and more than one sensor.
        QueryError: for a question that cannot be asked of who answers.
    """
    spec = QuestionSpec.model_validate(asked.question)
    plain = spec.model_copy(update={"before": None, "after": None})
    query = plain.query(open_vocabulary=has_embedded() if model is None else model != SPECTRAL)
    if len(query.sensors) > 1:
        raise JobError(f"{len(query.sensors)} sensors are named", expected="one, or none for any")
    _dates(query, asked)
    return query


def _dates(query: Query, asked: Asked) -> tuple[str, ...]:
    """As `Sight` takes them. Raises JobError."""
    given = {"date": asked.date, **{name: asked.question.get(name) for name in ("before", "after")}}
    named = {name: str(text) for name, text in given.items() if text is not None}
    if list(named) in ([], ["before", "after"] if TASKS[query.task].dates == 2 else ["date"]):
        return tuple(named.values())
    looks, expected, fix = _LOOKS.get(TASKS[query.task].dates, _LOOKS[2])
    raise JobError(
        f"a {query.task} question looks {looks}, and the request names {' and '.join(named)}",
        expected=expected,
        fix=fix,
    )


_LOOKS = {
    0: ("along a series", "its time as date, such as 2024-05/2024-09", "leave before and after out"),
    1: ("at one date", "date, or none for the latest", "leave before and after out"),
    2: (
        "at two dates",
        "before and after of the query, or neither for the first and the latest that the job looked at",
        "name both, and leave date out",
    ),
}
"""Of a question's number of dates: how it looks, what it may name, what to do."""


def prepare(asked: Asked) -> Prepared:
    """The pixels of the place, read from the cube of the job, the query, and who is asked. Raises EarthmapError."""
    query = parse_question(asked, model=asked.model)
    subject = _look(query, asked)
    if asked.model is not None:
        return Prepared(query=query, subject=subject, model=asked.model)
    chosen = default_predictor((query.task, picture.sensor) for picture in subject.item.pictures)
    if chosen != SPECTRAL:
        return Prepared(query=query, subject=subject, model=EMBEDDED)
    plain = parse_question(asked, model=SPECTRAL)
    if TASKS[plain.task].dates != TASKS[query.task].dates:
        subject = _look(plain, asked)
    return Prepared(query=plain, subject=subject, model=SPECTRAL)


def _look(query: Query, asked: Asked) -> Subject:
    """Raises EarthmapError; JobError where the job itself could not read the place."""
    longitude, latitude = asked.at
    sight = Sight(at=f"{longitude},{latitude}", dates=_dates(query, asked), sensor=next(iter(query.sensors), None))
    try:
        return place_of_run(_cube(asked.run), sight, task=query.task)
    except ReadError as error:
        raise JobError(error.what, expected="ground that the job could read", fix="ask about another date") from error


@lru_cache(maxsize=KEPT_RUNS)
def _cube(run: str) -> RunCube:
    return open_run_cube(run)


def finish(prepared: Prepared, answer: Answer, *, predictor: str) -> dict[str, Any]:
    """The reply as `earthmap ask --json` writes it; `predictor` is the content key of who gave the answer."""
    return make_reply(prepared.query, prepared.subject, answer, predictor=predictor).to_dict()


# ── who has it done ──────────────────────────────────────────────────────────────────────────────────────────


class Answering(Protocol):
    """Who answers. Called from one event loop, for many questions at once."""

    async def answer(self, asked: Asked) -> dict[str, Any]:
        """The reply. Raises EarthmapError for a question that cannot be answered, BusyError where too many wait."""
        ...

    async def close(self) -> None:
        """End what was started for it."""
        ...


class BusyError(Exception):
    """Workers or replicas have as much to do as they take on, or are not there at the moment."""


# ── the door ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True, kw_only=True)
class Asking:
    """Lets questions in, so many at once, and sees that each has its answer or a reason in time. Used by one loop."""

    answering: Answering
    at_once: int = AT_ONCE
    limit_s: float = LIMIT_S
    heard: Callable[[str, float], None] = lambda outcome, seconds: None
    """Hears of every question: what it came to, `answered`, `refused`, `unanswerable`, `busy`, `late` or `failed`, and
    after how many seconds."""
    _inside: Counter[str | None] = field(default_factory=Counter)
    """Questions that are being answered, by who asks."""
    _usual_s: float = 1.0
    """How long answers took lately."""

    def __post_init__(self) -> None:
        if self.at_once < 1 or not 0 < self.limit_s < math.inf:
            raise JobError(
                f"{self.at_once} questions would be answered at once, each within {self.limit_s:g} s",
                expected="one or more, and a time",
            )

    async def ask(
        self, read: Callable[[], Asked], *, within_s: float = math.inf, owner: str | None = None
    ) -> dict[str, Any]:
        """The reply to the question that `read` reads in a thread, within what who asks is ready to wait.

        `owner` is whose question it is, where there are several.

        Raises:
            EarthmapError: for a question that cannot be answered as it stands; ProblemError as `read` does.
            ProblemError: with Retry-After: 429 where too many are asked, 503 where nobody takes it on, 504 where it
                took too long.
        """
        many = self._too_many(owner)
        if many is not None:
            self.heard("refused", 0.0)
            told = f"{many} are being answered, as many as this service takes on at once; ask again"
            raise self._refusal(429, "Too many questions", told)
        started, outcome = time.monotonic(), "failed"
        self._inside[owner] += 1
        try:
            reply = await self._answer(read, min(self.limit_s, within_s))
            outcome = "answered"
            self._usual_s += _RECENT * (time.monotonic() - started - self._usual_s)
            return reply
        except (EarthmapError, ProblemError) as error:
            outcome = _outcome(error)
            raise
        finally:
            self._inside[owner] -= 1
            self._inside += Counter()  # who asks nothing any more is forgotten
            self.heard(outcome, time.monotonic() - started)

    def _too_many(self, owner: str | None) -> str | None:
        """Which questions are too many for one more to be let in; None where there is room."""
        if self._inside.total() >= self.at_once:
            return f"{self._inside.total()} questions"
        own, most = self._inside[owner], math.ceil(self.at_once * OF_ONE)
        return f"{own} questions of {owner}" if owner is not None and own >= most else None

    async def _answer(self, read: Callable[[], Asked], limit_s: float) -> dict[str, Any]:
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                return await self.answering.answer(await asyncio.to_thread(read))
        except BusyError as error:
            _log.warning("a question was not taken on: %s", error)
            raise self._refusal(503, "Not now", "nobody could take the question on; ask again") from None
        except TimeoutError:
            if not limit.expired():
                raise
            told = f"the answer took longer than {limit_s:g} s; ask again"
            raise self._refusal(504, "It took too long", told) from None

    def _refusal(self, status: int, title: str, detail: str) -> ProblemError:
        """A problem that is gone later: when, is about the time that an answer takes."""
        later = max(1, math.ceil(min(self._usual_s, self.limit_s)))
        return ProblemError(problem(status, title, detail, kind="busy"), {"Retry-After": str(later)})


def _outcome(error: Exception) -> str:
    """What a question came to that has no answer, as it is counted."""
    status = error.document["status"] if isinstance(error, ProblemError) else 400
    return {503: "busy", 504: "late"}.get(status, "unanswerable")
