"""Times of items and of requests: closed intervals of aware datetimes, open at an end where none is given."""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from earthmap.errors import JobError

_EXPECTED = (
    "a date, month, year or RFC 3339 time, or two of them with a slash, such as 2024-06-01/2024-06-30 or ../2023"
)
_TIME = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?([Zz]|[+-]\d\d:?\d\d)?)?)?)?"
)
_TICK = datetime.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A stretch of time with both ends included; None is an open end."""

    start: datetime.datetime | None = None
    end: datetime.datetime | None = None

    def overlaps(self, other: Interval) -> bool:
        """True where the two share an instant.

        Example:
            >>> parse_datetime("2024-06").overlaps(parse_datetime("../2024-06-01"))
            True
        """
        return _not_after(self.start, other.end) and _not_after(other.start, self.end)

    def __str__(self) -> str:
        if self.start == self.end:
            return format_time(self.start)
        return f"{format_time(self.start)}/{format_time(self.end)}"


def _not_after(start: datetime.datetime | None, end: datetime.datetime | None) -> bool:
    return start is None or end is None or start <= end


def format_time(time: datetime.datetime | None) -> str:
    """RFC 3339 in UTC, `..` for an open end."""
    return ".." if time is None else time.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")


def parse_datetime(text: str) -> Interval:
    """The closed interval that `text` means, in UTC.

    A single value covers itself as exactly as it is written: `2024` the year, `2024-06` the month, `2024-06-01` the
    day, `2024-06-01T10:00:00Z` that second. `a/b` goes from the start of a to the end of b; `..` or nothing is an
    open end. A time without a zone is UTC.

    Raises:
        JobError: for text that cannot be read, for two open ends and for an end before its start.

    Example:
        >>> str(parse_datetime("2024-06"))
        '2024-06-01T00:00:00Z/2024-06-30T23:59:59.999999Z'
    """
    parts = [part.strip() for part in text.strip().split("/")]
    if len(parts) > 2:
        raise JobError(f"the datetime {text!r} has {len(parts)} parts", expected=_EXPECTED, fix="give at most two")
    bounds = [None if part in ("", "..") and len(parts) == 2 else _span(part, text) for part in parts]
    start, end = bounds[0], bounds[-1]
    if start is None and end is None:
        raise JobError(f"the datetime {text!r} is open at both ends", expected=_EXPECTED, fix="leave it out for all")
    interval = Interval(start=start[0] if start else None, end=end[1] if end else None)
    if not _not_after(interval.start, interval.end):
        raise JobError(
            f"the datetime {text!r} ends before it starts", expected=_EXPECTED, fix=f"write {parts[1]}/{parts[0]}"
        )
    return interval


def _span(part: str, text: str) -> tuple[datetime.datetime, datetime.datetime]:
    """The first and last instant that one date or time covers."""
    match = _TIME.fullmatch(part)
    if not match:
        raise JobError(f"{part!r} in the datetime {text!r} cannot be read", expected=_EXPECTED)
    try:
        start = _first(match)
        return start, start + (_length(match, start) - _TICK)
    except (ValueError, OverflowError) as error:
        raise JobError(f"{part!r} in the datetime {text!r} is not a time: {error}", expected=_EXPECTED) from error


def _first(match: re.Match[str]) -> datetime.datetime:
    year, month, day, hour, minute, second = (
        int(match[group] or fallback) for group, fallback in enumerate("011000", 1)
    )
    fraction = int((match[7] or "").ljust(6, "0")[:6])
    if second == 60:  # a leap second, which RFC 3339 allows and Python does not
        second, fraction = 59, 999_999
    naive = datetime.datetime(year, month, day, hour, minute, second, fraction)
    zone = match[8]
    if zone is None or zone in "Zz":
        return naive.replace(tzinfo=datetime.UTC)
    ahead = datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:])) * (-1 if zone[0] == "-" else 1)
    return (naive - ahead).replace(tzinfo=datetime.UTC)


def _length(match: re.Match[str], start: datetime.datetime) -> datetime.timedelta:
    """How long the value is at the precision that it is written in."""
    if match[2] is None:
        return datetime.timedelta(days=366 if calendar.isleap(start.year) else 365)
    if match[3] is None:
        return datetime.timedelta(days=calendar.monthrange(start.year, start.month)[1])
    if match[4] is None:
        return datetime.timedelta(days=1)
    if match[6] is None:
        return datetime.timedelta(minutes=1)
    return datetime.timedelta(seconds=1) if match[7] is None else _TICK


def item_interval(item: Mapping[str, Any]) -> Interval | None:
    """When an item was measured: its start and end where it has both, else its datetime; None where it has neither."""
    properties = item.get("properties") or {}
    start, end = _item_time(properties.get("start_datetime")), _item_time(properties.get("end_datetime"))
    if start and end:
        return Interval(start=start, end=end)
    time = _item_time(properties.get("datetime")) or start or end
    return Interval(start=time, end=time) if time else None


def _item_time(value: Any) -> datetime.datetime | None:
    if not isinstance(value, str) or not (match := _TIME.fullmatch(value.strip())):
        return None
    try:
        return _first(match)
    except (ValueError, OverflowError):
        return None
