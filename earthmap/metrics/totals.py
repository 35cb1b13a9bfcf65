"""How many there are, from blocks in which people counted (design-based inference).

The stratified difference estimator (Särndal, Swensson and Wretman 1992, section 6.3): what was found everywhere, plus
what the counted blocks say is missing or too many. It is right whatever the finder is worth; a good finder makes it
sharp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import BadRequestError
from earthmap.metrics.area import LEVEL, Figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStratum:
    """Blocks of ground from which some were drawn with equal chances."""

    name: str
    blocks: int
    """How many it has."""
    found: float
    """How many things were found in all of them together."""

    def __post_init__(self) -> None:
        if self.blocks < 1 or not self.found >= 0:
            raise BadRequestError(
                f"the stratum {self.name} has {self.blocks} blocks with {self.found:g} things", expected="one block"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalEstimate:
    """How many there are."""

    found: float
    """Things that were found in all blocks."""
    total: Figure
    notes: tuple[str, ...]
    """What a reader should know of the counts."""


def estimate_total(
    strata: Sequence[BlockStratum], stratum: NDArray[np.int64], *, found: Floats, counted: Floats
) -> TotalEstimate:
    """What was found, corrected by what people counted in a stratified random sample of blocks.

    The 95 % interval is Student's, with Satterthwaite's degrees of freedom (1946). Where all counted blocks of a
    stratum agree with what was found, their variance is nought and that of all blocks need not be: as many as the
    Jeffreys interval of none allows may then be off by one, upwards, and downwards where anything was found. There
    are never fewer than were counted.

    Args:
        strata: what blocks were drawn from; each has two counted blocks at least, or all of its own.
        stratum: (block,) position of each counted block's stratum.
        found: (block,) things that were found in it.
        counted: (block,) things that people counted in it.

    Raises:
        BadRequestError: for columns that do not fit, and a stratum with too few counted blocks.
    """
    _check(strata, stratum, found, counted)
    error = counted - found
    numbers = [_stratum(one, error[stratum == place]) for place, one in enumerate(strata)]
    everywhere, least = sum(one.found for one in strata), float(counted.sum())
    value = everywhere + sum(number.total for number in numbers)
    variance = sum(number.variance for number in numbers)
    half = _student(_freedom(numbers)) * float(np.sqrt(variance))
    silent = [(one, number) for one, number in zip(strata, numbers, strict=True) if number.hidden]
    above = np.hypot.reduce([half, *(number.hidden for _, number in silent)])
    below = np.hypot.reduce([half, *(min(number.hidden, one.found) for one, number in silent)])
    return TotalEstimate(
        found=everywhere,
        total=Figure(
            value=max(value, least),
            se=float(np.sqrt(variance)),
            low=max(value - float(below), least),
            high=max(value + float(above), least),
        ),
        notes=tuple(f"in {one.name} all counted blocks agree with what was found" for one, _ in silent),
    )


@dataclass(frozen=True, slots=True)
class _Number:
    """What the counted blocks of a stratum say of all of its blocks."""

    total: float
    """Things that are missing."""
    variance: float
    freedom: float
    hidden: float
    """Blocks that may be wrong though no counted one is."""


def _stratum(one: BlockStratum, error: Floats) -> _Number:
    count, left = len(error), 1 - len(error) / one.blocks
    total = one.blocks * float(error.mean())
    if left <= 0:
        return _Number(total, 0.0, 1.0, 0.0)
    variance = one.blocks**2 * left * float(error.var(ddof=1)) / count
    hidden = one.blocks * float(np.sqrt(left)) * _upper_of_none(count) if not error.any() else 0.0
    return _Number(total, variance, count - 1.0, hidden)


def _freedom(numbers: Sequence[_Number]) -> float:
    """Degrees of freedom of the sum of the variances."""
    parts = [(number.variance, number.freedom) for number in numbers if number.variance]
    whole = sum(variance for variance, _ in parts)
    return whole**2 / sum(variance**2 / freedom for variance, freedom in parts) if parts else 1.0


def _upper_of_none(count: int) -> float:
    from scipy.special import betaincinv

    return float(betaincinv(0.5, count + 0.5, 1 - (1 - LEVEL) / 2))


def _student(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - (1 - LEVEL) / 2))


def _check(strata: Sequence[BlockStratum], stratum: NDArray[np.int64], found: Floats, counted: Floats) -> None:
    if not len(stratum) == len(found) == len(counted):
        raise BadRequestError("columns of unequal lengths", expected="one number of each for each counted block")
    if not ((found >= 0).all() and (counted >= 0).all()):
        raise BadRequestError("a count below nought", expected="0 or more")
    counts = np.bincount(stratum, minlength=len(strata)).tolist()
    if len(counts) > len(strata):
        raise BadRequestError("a block of no stratum", expected=f"positions from 0 to {len(strata) - 1}")
    for one, number in zip(strata, counts, strict=True):
        if not min(2, one.blocks) <= number <= one.blocks:
            raise BadRequestError(
                f"the stratum {one.name} of {one.blocks} blocks has {number} that were counted",
                expected="two at least, or all of its blocks",
            )
