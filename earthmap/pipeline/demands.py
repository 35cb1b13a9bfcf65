"""What must be known before a number is told as known, and how numbers are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from earthmap.errors import BadRequestError

CERTAINTY = 0.5
"""Half of the interval must be at most so much of the area itself …"""

SMALL = 0.02
"""… or of all ground in question, or there is not enough evidence."""

SEEN = 0.5
"""Share of the ground that must have been seen, or labelled all the same."""

ENOUGH = "enough"
"""The answer where these demands are met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What must be known before an area is told as known."""

    certainty: float | None = None
    """Half of the interval is at most this share of the estimate, or SMALL of all ground. None: CERTAINTY of what is
    estimated from labels; without labels, where intervals are wide or unknown, nothing is asked for."""
    seen: float = SEEN
    """This share of the ground was seen; of an estimate from labels, has estimates."""

    def __post_init__(self) -> None:
        if not (self.of_labels > 0 and 0 <= self.seen <= 1):
            raise BadRequestError(
                f"a certainty of {self.of_labels:g} and a seen share of {self.seen:g}",
                expected="a certainty above 0, and a share from 0 to 1",
            )

    @property
    def of_labels(self) -> float:
        """The certainty that is asked of what is estimated from labels."""
        return CERTAINTY if self.certainty is None else self.certainty


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells, in columns as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
