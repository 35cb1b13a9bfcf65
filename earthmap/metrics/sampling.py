"""Stratified random samples of a map's pixels: which stratum a pixel is of, how many are drawn, and which.

Within a stratum a pixel is drawn with a probability in proportion to its ground area (sequential Poisson sampling:
Ohlsson 1998, J. Off. Stat. 14, 149–162), so that a sample is one of points spread evenly over the ground, whatever the
zones and scales of the projections. The draw sees one block of pixels after the other, in any order, and its memory
does not grow with their number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import BadRequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.uint8]

BOUNDARY, SKIPPED, UNSEEN_GROUND, TRIAGED, OUTSIDE = 251, 252, 253, 254, 255
"""Strata beside the map's classes: near another class; shown, but without an answer; not shown; shown, but not looked
at, because a coarse picture has no target there; no ground of the map."""

BOUNDARY_PX = 2
"""A pixel so near to one of another class, in rows and columns, is of the boundary stratum."""

MINIMUM = 50
"""Units of each stratum, or all that there are."""

SPREAD = 0.2
BOUNDARY_SPREAD = 0.45
"""Standard deviation of being wrong that is expected within a class and where triage skips, and at borders and beyond
the map: 4 and 28 % of the pixels. What is drawn above the minimum is shared out by area times this (Neyman 1934)."""


def boundary_strata(codes: Codes, *, nothing: int = OUTSIDE, width_px: int = BOUNDARY_PX) -> Codes:
    """The codes, with BOUNDARY where another code is within `width_px` rows and columns; `nothing` is no code.

    Args:
        codes: (y, x) classes below BOUNDARY, or `nothing`.
        nothing: stays as it is, and makes no border.
        width_px: how near.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    there, side = codes != nothing, 2 * width_px + 1
    highest = maximum_filter(np.where(there, codes, 0), side, mode="nearest")
    lowest = minimum_filter(np.where(there, codes, 255), side, mode="nearest")
    strata: Codes = np.where(there & (highest != lowest), np.uint8(BOUNDARY), codes)
    return strata


def allocate(
    areas: Mapping[int, float], sizes: Mapping[int, int], *, total: int, minimum: int = MINIMUM
) -> dict[int, int]:
    """How many units are drawn of each stratum: the minimum, or all that there are, and the rest of `total` by Neyman.

    Where the minimum of all strata is more than `total`, it is what is drawn.
    """
    drawn = {key: min(size, minimum) for key, size in sizes.items()}
    while (left := total - sum(drawn.values())) > 0:
        open_ = {key: areas[key] * _spread(key) for key, size in sizes.items() if drawn[key] < size}
        if not open_:
            break
        whole = sum(open_.values())
        # Whole units, the largest claims first; what full strata leave is shared out again.
        for key in sorted(open_, key=lambda key: (-open_[key], key)):
            share = min(max(1, int(left * open_[key] / whole)), sizes[key] - drawn[key], total - sum(drawn.values()))
            drawn[key] += share
    return drawn


def _spread(key: int) -> float:
    return SPREAD if key < BOUNDARY or key == TRIAGED else BOUNDARY_SPREAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One unit of a sample."""

    block: str
    """Which block of pixels it is in."""
    row: int
    column: int
    stratum: int
    mapped: int
    """What the map says there."""
    area_m2: float
    inclusion: float
    """Probability with which it was drawn."""


@dataclass(slots=True, kw_only=True)
class _Found:
    """The units of one stratum with the smallest keys so far."""

    keys: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    units: list[tuple[str, int, int, int, float]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class StratifiedDraw:
    """A sample in the making: `add` each block of pixels once, then `finish`."""

    total: int
    """Units of the whole sample."""
    seed: int = 0
    areas: dict[int, float] = field(default_factory=dict)
    """m² of each stratum so far."""
    sizes: dict[int, int] = field(default_factory=dict)
    """Pixels of each stratum so far."""
    mapped: dict[int, dict[int, float]] = field(default_factory=dict)
    """m² of each stratum so far by what the map says."""
    _found: dict[int, _Found] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.total < 1 or self.seed < 0:
            raise BadRequestError(
                f"a sample of {self.total} units with the seed {self.seed}", expected="one unit, and a seed from 0 on"
            )

    def add(self, block: str, strata: Codes, mapped: Codes, area_m2: NDArray[np.float64]) -> None:
        """One more block.

        Args:
            block: its name, which with the seed decides what is drawn of it.
            strata: (y, x) stratum of each pixel; OUTSIDE is none.
            mapped: (y, x) what the map says.
            area_m2: (y, x) ground of each pixel, above 0 wherever there is a stratum.
        """
        word = hashlib.sha256(f"{self.seed} {block}".encode()).digest()[:8]
        chance = np.random.default_rng(int.from_bytes(word)).random(strata.shape)
        for key in np.unique(strata).tolist():
            if key == OUTSIDE:
                continue
            rows, columns = np.nonzero(strata == key)
            areas, says = area_m2[rows, columns], mapped[rows, columns]
            self.areas[key] = self.areas.get(key, 0.0) + float(areas.sum())
            self.sizes[key] = self.sizes.get(key, 0) + len(rows)
            of_class = self.mapped.setdefault(key, {})
            for code, weight in enumerate(np.bincount(says, weights=areas).tolist()):
                if weight:
                    of_class[code] = of_class.get(code, 0.0) + weight
            keys = chance[rows, columns] / areas
            best = _smallest(keys, max(self.total, MINIMUM))
            units = zip(
                rows[best].tolist(), columns[best].tolist(), says[best].tolist(), areas[best].tolist(), strict=True
            )
            self._keep(key, keys[best], [(block, *unit) for unit in units])

    def _keep(self, key: int, keys: NDArray[np.float64], units: list[tuple[str, int, int, int, float]]) -> None:
        found = self._found.setdefault(key, _Found())
        together, known = np.concatenate([found.keys, keys]), found.units + units
        best = sorted(range(len(known)), key=lambda index: (together[index], known[index][:3]))
        best = best[: max(self.total, MINIMUM)]
        found.keys, found.units = together[best], [known[index] for index in best]

    def finish(self, *, left_out: Sequence[int] = ()) -> list[Drawn]:
        """The sample, stratum by stratum; none of the strata `left_out`."""
        sizes = {key: size for key, size in sorted(self.sizes.items()) if key not in left_out}
        numbers = allocate(self.areas, sizes, total=self.total)
        return [
            Drawn(
                block=block,
                row=row,
                column=column,
                stratum=key,
                mapped=says,
                area_m2=area,
                inclusion=1.0 if number == sizes[key] else min(1.0, number * area / self.areas[key]),
            )
            for key, number in numbers.items()
            for block, row, column, says, area in self._found[key].units[:number]
        ]


def _smallest(keys: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Positions of the `count` smallest keys, or of all where there are fewer, in order of position."""
    if len(keys) <= count:
        return np.arange(len(keys))
    return np.flatnonzero(keys <= np.partition(keys, count - 1)[count - 1])
