"""The reason mask: why a pixel may not show the ground.

A query lists the reasons that count as unseen, because none is right for all: water and floods are often classed as
shadow or dark, and a mask of clear sky alone would delete them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import QueryError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Reason(enum.IntEnum):
    """Codes of a reason mask. They are stored in cubes: none is ever renumbered or reused."""

    CLEAR = 0
    NODATA = 1
    CLOUD = 2
    CIRRUS = 3
    SHADOW = 4
    DARK = 5
    SNOW = 6
    SATURATED = 7
    LAYOVER = 8
    UNKNOWN = 9

    @property
    def label(self) -> str:
        """The word for it in queries, ledgers and reports: `cloud`."""
        return self.name.lower()


REASONS = tuple(reason.label for reason in Reason)
"""The words for all reasons, by code."""


def unseen(mask: NDArray[np.uint8], reasons: Iterable[str]) -> NDArray[np.bool_]:
    """True where the reason of a pixel is among `reasons`; the shape of `mask`.

    Raises:
        QueryError: for a word that is no reason.

    Example:
        >>> unseen(np.array([0, 2, 4], np.uint8), ("nodata", "cloud")).tolist()
        [False, True, False]
    """
    table = np.zeros(256, bool)
    for word in reasons:
        if word not in REASONS:
            raise QueryError(f"{word!r} is no reason for a pixel to be unseen", expected=f"of {', '.join(REASONS)}")
        table[REASONS.index(word)] = True
    return table.take(mask)
