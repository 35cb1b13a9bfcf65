"""Parameters of the query that several standards spell alike: a box, a time, a limit; whatever else is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence

from starlette.requests import Request

from earthmap.catalog import Interval, parse_datetime
from earthmap.errors import BadRequestError
from earthmap.service.access import parameter_problem, whole_number

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""

_NUMBER = re.compile(r"[+-]?(\d{1,20}\.?\d{0,30}|\.\d{1,30})([eE][+-]?\d{1,3})?")

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

_BBOX = "west, south, east, north in degrees (or with heights, as six numbers), within ±180 and ±90, south first"


def only_parameters(request: Request, *names: str, more: Collection[str] = ()) -> None:
    """Raises ProblemError for a parameter that is not one of `names`, or one of those given twice.

    OGC 17-069r4, requirement 8: what the description of the API does not list is an error, not a guess.
    """
    known = {*names, *more}
    for name, _ in request.query_params.multi_items():
        if name not in known:
            expected = f"one of {', '.join(sorted(known))}" if known else "no parameters here"
            raise parameter_problem(f"{name[:40]!r} is not known", expected)
        if len(request.query_params.getlist(name)) > 1:
            raise parameter_problem(name, "one value")


def limit_of(request: Request, *, usual: int, most: int) -> int:
    """How many are asked for; more than `most` is taken as that. Raises ProblemError."""
    limit = whole_number(request, "limit")
    if limit == 0:
        raise parameter_problem("limit", f"a whole number from 1 to {most}")
    return min(limit or usual, most)


def boxes_of(request: Request) -> tuple[Box, ...]:
    """The boxes that `bbox` means, none across the antimeridian; none where it is not given. Raises ProblemError."""
    text = request.query_params.get("bbox")
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(_NUMBER.fullmatch(part) for part in parts):
        raise parameter_problem("bbox", _BBOX)
    return plain_boxes([float(part) for part in parts])


def plain_boxes(numbers: Sequence[float]) -> tuple[Box, ...]:
    """A box of four or six numbers as one or two that do not cross the antimeridian. Raises ProblemError.

    Heights are passed over: what the service has lies on the ground.
    """
    if len(numbers) == 6 and numbers[2] <= numbers[5]:
        numbers = [*numbers[:2], *numbers[3:5]]
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise parameter_problem("bbox", _BBOX)
    west, south, east, north = numbers
    if south > north or max(abs(west), abs(east)) > 180.0 or max(abs(south), abs(north)) > 90.0:
        raise parameter_problem("bbox", _BBOX)
    if west <= east:
        return ((west, south, east, north),)
    return ((west, south, 180.0, north), (-180.0, south, east, north))


def interval_of(request: Request) -> Interval | None:
    """The time that `datetime` means; None where it is not given. Raises ProblemError."""
    text = request.query_params.get("datetime")
    return None if text is None else parse_interval(text)


def parse_interval(text: str) -> Interval:
    """The time that a text means, spelt as OGC 17-069r4 (requirement 25) says. Raises ProblemError."""
    parts = text.split("/")
    open_ends = ("", "..") if len(parts) == 2 else ()
    if not all(part in open_ends or _TIME.fullmatch(part) for part in parts):
        raise parameter_problem("datetime", "an RFC 3339 time, or two with a slash, one of which may be ..")
    try:
        return parse_datetime(text)
    except BadRequestError as error:
        raise parameter_problem("datetime", str(error)) from None
