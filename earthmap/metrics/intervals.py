"""Intervals of means whose parts are not independent: what belongs together is drawn again together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2000
"""Draws of a bootstrap."""

LEVEL = 0.95
"""Share of the draws inside an interval."""


def reach(count: int) -> float:
    """Lower end of the interval of `count` successes and no failure (Clopper and Pearson 1934).

    Example:
        >>> round(reach(8), 3)
        0.631
    """
    return float(((1.0 - LEVEL) / 2.0) ** (1.0 / count))


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` independent answers (Wilson 1927).

    Example:
        >>> [round(edge, 3) for edge in wilson(9, 10)]
        [0.596, 0.982]
    """
    from scipy.special import ndtri

    z = float(ndtri((1.0 + LEVEL) / 2.0))
    middle = (right + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * (right * (count - right) / count + z * z / 4) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def interval(scores: NDArray[np.float64], places: Sequence[str]) -> tuple[float, float]:
    """The 95 % interval of a mean by drawing places again; of scores that are all 0 or all 1 the exact binomial one.

    One place alone tells nothing: 0 to 1.

    Args:
        scores: (answer,) 0 to 1.
        places: What each belongs to; equal ones are drawn together.
    """
    names, owner = np.unique(np.asarray(places), return_inverse=True)
    if len(names) == 1:
        return 0.0, 1.0
    if (scores >= 1.0).all():
        return reach(len(names)), 1.0
    if (scores <= 0.0).all():
        return 0.0, 1.0 - reach(len(names))
    tail = (1.0 - LEVEL) / 2.0
    sums, counts = np.bincount(owner, weights=scores), np.bincount(owner)
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [tail, 1.0 - tail]).tolist()
    return float(low), float(high)
