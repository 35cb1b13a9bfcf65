"""An event in time: what was seen before it, and what after. Pure.

`before` ends at the event and `after` begins at it: a picture of the event's own day is after it where only a day is
given, since nobody can tell otherwise what it shows.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from earthmap.catalog import Interval, parse_datetime
from earthmap.errors import JobError

BEFORE_DAYS = 180
"""How far back is looked where nobody says."""

_TICK = datetime.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """When something happened, and which dates are looked at."""

    time: datetime.datetime
    """Its beginning (UTC)."""
    before: Interval
    """What is looked at of the time before; its end is before the event."""
    after: Interval
    """The same of the time after; its start is not before the event."""
    before_named: bool
    """False where nobody said what to look at of the time before."""
    notes: tuple[str, ...] = ()
    """What was changed of what was asked, in sentences."""

    @property
    def span(self) -> str:
        """From the start of the one to the end of the other, as a STAC interval."""
        return str(Interval(start=self.before.start, end=self.after.end))


def parse_event(time: str, *, before: str | None, after: str | None) -> Event:
    """The event of a time and of what to look at, all as STAC datetimes or intervals.

    Args:
        time: when it began, as exactly as it is known: `2024-06-07` is that day's start.
        before: what to look at of the time before; None for the `BEFORE_DAYS` days before it.
        after: the same of the time after; None for all of it.

    Raises:
        JobError: for what is no time, an event without a beginning, a `before` that begins after it or an `after` that
            ends before it.

    Example:
        >>> event = parse_event("2024-06-07", before="2024-05/2024-06", after=None)
        >>> str(event.before), str(event.after)
        ('2024-05-01T00:00:00Z/2024-06-06T23:59:59.999999Z', '2024-06-07T00:00:00Z/..')
    """
    start = parse_datetime(time).start
    if start is None:
        raise JobError(
            f"the event's time {time!r} has no beginning", expected="such as 2024-06-07 or 2024-06-07T03:30Z"
        )
    notes: list[str] = []
    early = _before(start, before, notes)
    late = _after(start, after, notes)
    return Event(time=start, before=early, after=late, before_named=before is not None, notes=tuple(notes))


def _before(start: datetime.datetime, text: str | None, notes: list[str]) -> Interval:
    last = start - _TICK
    if text is None:
        notes.append(f"before: the {BEFORE_DAYS} days up to the event, {_said(start)}")
        return Interval(start=start - datetime.timedelta(days=BEFORE_DAYS), end=last)
    asked = parse_datetime(text)
    if asked.start is not None and asked.start > last:
        raise JobError(
            f"the dates before, {text}, begin after the event of {_said(start)}",
            expected="dates that begin before it",
            fix="exchange --before and --after, or correct --event-time",
        )
    if asked.end is None or asked.end > last:
        notes.append(f"the dates before were cut at the event, {_said(start)}: {text} goes beyond it")
        return Interval(start=asked.start, end=last)
    return asked


def _after(start: datetime.datetime, text: str | None, notes: list[str]) -> Interval:
    if text is None:
        return Interval(start=start, end=None)
    asked = parse_datetime(text)
    if asked.end is not None and asked.end < start:
        raise JobError(
            f"the dates after, {text}, end before the event of {_said(start)}",
            expected="dates that end after it",
            fix="exchange --before and --after, or correct --event-time",
        )
    if asked.start is None or asked.start < start:
        notes.append(f"the dates after were cut at the event, {_said(start)}: {text} begins before it")
        return Interval(start=start, end=asked.end)
    return asked


def _said(time: datetime.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
