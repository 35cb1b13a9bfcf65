"""When something was, as SLIS says it: by the day, by the instant where days repeat, or by the seconds of a video."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence


def instant_text(time: dt.datetime) -> str:
    """An instant to the second, in UTC: `2024-06-01T10:30:00Z`."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def day_text(time: dt.datetime) -> str:
    """A day, in UTC: `2024-06-01`."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%d}"


def seconds_text(time: dt.datetime, first: dt.datetime) -> str:
    """Seconds of a video: `12.5s`."""
    return f"{round((time - first).total_seconds(), 3):g}s"


def time_texts(times: Sequence[dt.datetime]) -> tuple[str, ...]:
    """Texts that tell times apart: their days, or instants where two are of one day.

    Example:
        >>> time_texts([dt.datetime(2024, 6, day, tzinfo=dt.UTC) for day in (1, 6)])
        ('2024-06-01', '2024-06-06')
    """
    days = tuple(map(day_text, times))
    return days if len(set(days)) == len(days) else tuple(map(instant_text, times))


def numbers_by_text(times: Sequence[dt.datetime]) -> dict[str, int]:
    """The number of the time that a text means, for every text that means one of `times` (in order, the first the
    start of a video)."""
    found: dict[str, int] = {}
    for text_of in (instant_text, day_text, lambda time: seconds_text(time, times[0])):
        texts = [text_of(time) for time in times]
        found |= {text: number for number, text in enumerate(texts) if texts.count(text) == 1}
    return found
