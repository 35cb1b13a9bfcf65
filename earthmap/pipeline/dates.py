"""Which of several observations one question is asked of."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from earthmap.catalog import Interval, parse_datetime
from earthmap.errors import JobError
from earthmap.grid import Tile

NAMED = 12
"""Dates that an error names."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Generic[T]):
    """One observation that may be asked about."""

    name: str
    kind: tuple[str, str]
    """Sensor, and convention or lattice: what a change may compare."""
    datetime: dt.datetime
    end: dt.datetime | None = None
    """Time of a composite's last member."""
    tile: Tile | None = None
    """What its picture is of."""
    record: T = field(repr=False)
    """What its picture is read from."""

    def overlaps(self, interval: Interval) -> bool:
        """True where it was measured in `interval`."""
        return Interval(start=self.datetime, end=self.end or self.datetime).overlaps(interval)


def choose_dates(
    seen: Sequence[Candidate[T]], dates: Sequence[str], *, count: int
) -> tuple[list[Candidate[T]], tuple[str, ...]]:
    """What `count` dates (0: a series) are asked of, in order of time, and a note on what was not.

    One date: the latest. Two: the first and the last of the latest one's kind. Inside an interval: the latest in it.
    """
    ordered = sorted(seen, key=lambda one: (one.datetime, one.name))
    wanted = [parse_datetime(date) for date in dates]
    if len(wanted) > max(count, 1) or (count == 2 and len(wanted) == 1):
        raise JobError(
            f"{len(wanted)} dates are given", expected=f"{count}, one of each picture" if count else "one interval"
        )
    within = [[one for one in ordered if one.overlaps(interval)] for interval in wanted]
    for date, found in zip(dates, within, strict=True):
        if not found:
            raise JobError(f"nothing was measured on {date}", expected=f"one of {_listed(ordered)}")
    last = (within[-1] if within else ordered)[-1]
    if count == 1:
        note = f"the latest of {len(ordered)} observations; there are {_listed(ordered)}"
        return [last], (note,) if len(ordered) > 1 and not dates else ()
    like = [one for one in (within[0] if within else ordered) if one.kind == last.kind]
    chosen = like if count == 0 else [*(like[-1:] if wanted else like[:1]), last]
    if len({one.name for one in chosen}) < 2:
        raise JobError(
            f"the question compares dates, and there is one of {last.kind[0]}: {_listed(ordered)}",
            expected="two or more observations of one sensor",
        )
    if chosen[0].datetime > chosen[-1].datetime:
        raise JobError(
            f"the first date, {dates[0]}, is later than the second, {dates[-1]}",
            expected="before and then after",
            fix="exchange the two",
        )
    return chosen, ()


def _listed(seen: Sequence[Candidate[T]]) -> str:
    """Their dates, with the time where a day has several."""
    days = [f"{one.datetime:%Y-%m-%d}" for one in seen]
    texts = [
        day if days.count(day) == 1 else f"{one.datetime:%Y-%m-%dT%H:%M:%S}Z"
        for day, one in zip(days, seen, strict=True)
    ]
    texts = list(dict.fromkeys(texts))
    return ", ".join(texts[:NAMED]) + (f" and {len(texts) - NAMED} more" if len(texts) > NAMED else "")
