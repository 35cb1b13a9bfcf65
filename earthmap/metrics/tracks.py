"""How well things are followed: whether each keeps one identity through time.

IDF1 is that of Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking" (ECCV
Workshops 2016): true and found tracks are matched one to one so that most states agree; a state is right where the
track that it is in is matched with that of the true thing it lies on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.metrics.boxes import HALF

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    States = Mapping[Any, BaseGeometry]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityScore:
    """States of true and of found tracks by whether they are of matched ones."""

    right: int
    """States that lie on each other in tracks that are matched (IDTP)."""
    found: int
    """All states of found tracks (IDTP + IDFP)."""
    true: int
    """All states of true tracks (IDTP + IDFN)."""
    pairs: tuple[tuple[int, int], ...]
    """Matched tracks: index of the found and of the true one."""

    @property
    def f1(self) -> float:
        """IDF1; nothing against nothing is 1."""
        both = self.found + self.true
        return 2.0 * self.right / both if both else 1.0


def score_identities(found: Sequence[States], true: Sequence[States], *, least: float = HALF) -> IdentityScore:
    """How well found tracks are true ones.

    Args:
        found: for each track the outline of the thing by date, in any one plane; areas, not points.
        true: the same of what is there.
        least: intersection over union from which two outlines of one date lie on each other.

    Example:
        >>> import shapely
        >>> one, other = shapely.box(0, 0, 1, 1), shapely.box(5, 0, 6, 1)
        >>> score_identities([{1: one}, {2: other}], [{1: one, 2: other}]).f1  # one thing taken for two
        0.5
    """
    from scipy.optimize import linear_sum_assignment

    shared = _shared(found, true, least)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    pairs = [
        (one, other)
        for one, other in zip(rows.tolist(), columns.tolist(), strict=True)
        if shared[one, other]
    ]  # fmt: skip
    return IdentityScore(
        right=int(shared[rows, columns].sum()),
        found=sum(map(len, found)),
        true=sum(map(len, true)),
        pairs=tuple(pairs),
    )


def _shared(found: Sequence[States], true: Sequence[States], least: float) -> NDArray[np.int64]:
    """(found, true) on how many dates each two tracks lie on each other."""
    import shapely

    shared = np.zeros((len(found), len(true)), np.int64)
    for date in {date for track in true for date in track}:
        mine, theirs = ([number for number, track in enumerate(side) if date in track] for side in (found, true))
        shapes, others = np.array([found[n][date] for n in mine]), np.array([true[n][date] for n in theirs])
        if not len(shapes):
            continue
        left, right = shapely.STRtree(others).query(shapes, predicate="intersects")
        both = shapely.area(shapely.intersection(shapes[left], others[right]))
        union = shapely.area(shapes[left]) + shapely.area(others[right]) - both
        alike = both >= least * union
        np.add.at(shared, (np.array(mine)[left[alike]], np.array(theirs)[right[alike]]), 1)
    return shared
