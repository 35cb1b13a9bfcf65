"""Whether stated probabilities are as often right as they say: log loss, calibration error, reliability, temperature.

Intervals draw places again, as those of all other figures do: answers about one tile are wrong together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import BadRequestError
from earthmap.metrics.intervals import LEVEL, RESAMPLES
from earthmap.model.evidence import Bin, Change
from earthmap.predict.temperature import temper

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BINS = 10
"""Equal parts of the probabilities from 0 to 1."""

LEAST = 5e-5
"""A probability below this counts as this: answers have four digits, and none is impossible."""

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures between which one is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One answer with the probability of each of its choices."""

    shares: tuple[float, ...]
    true: int
    """Which of them is true."""
    said: int
    """Which of them was the answer."""
    place: str
    """Where; equal ones are drawn together."""


@dataclass(frozen=True, slots=True)
class Stated:
    """Answers with the probabilities that were stated of each choice."""

    shares: Floats
    """(answer, choice); 0 beyond a question's own choices."""
    true: NDArray[np.intp]
    """(answer,) the choice that is true."""
    said: NDArray[np.intp]
    """(answer,) the choice that was the answer."""
    places: NDArray[np.str_]
    """(answer,) where; equal ones are drawn together."""

    @classmethod
    def of(cls, answers: Sequence[Said]) -> Stated:
        """Of single answers, in their order."""
        table = np.zeros((len(answers), max((len(one.shares) for one in answers), default=1)))
        for number, one in enumerate(answers):
            table[number, : len(one.shares)] = np.clip(one.shares, LEAST, 1.0)
        table /= np.maximum(table.sum(axis=1, keepdims=True), LEAST)
        choices = np.array([(one.true, one.said) for one in answers], np.intp).reshape(-1, 2)
        return cls(table, choices[:, 0], choices[:, 1], np.array([one.place for one in answers], np.str_))

    def __len__(self) -> int:
        return len(self.true)

    def part(self, rows: NDArray[np.bool_]) -> Stated:
        """Some of them."""
        return Stated(self.shares[rows], self.true[rows], self.said[rows], self.places[rows])

    def at(self, temperature: float) -> Stated:
        """The same answers with other probabilities."""
        return Stated(temper(self.shares, temperature), self.true, self.said, self.places)

    @property
    def losses(self) -> Floats:
        """(answer,) −log of the probability of what is true."""
        return np.asarray(-np.log(np.maximum(self.shares[np.arange(len(self)), self.true], LEAST)))

    @property
    def stated(self) -> Floats:
        """(answer,) probability of the answer that was given."""
        return np.asarray(self.shares[np.arange(len(self)), self.said])

    @property
    def right(self) -> NDArray[np.bool_]:
        """(answer,) whether it is true."""
        return np.asarray(self.said == self.true)


def fit_temperature(stated: Stated) -> float:
    """The temperature with the least mean log loss, to four digits.

    Raises:
        BadRequestError: for no answers.
    """
    from scipy.optimize import minimize_scalar

    if not len(stated):
        raise BadRequestError("a temperature of no answers", expected="one answer or more")
    ends = (np.log(COLDEST), np.log(HOTTEST))
    found = minimize_scalar(lambda log: float(stated.at(np.exp(log)).losses.mean()), bounds=ends, method="bounded")
    return round(float(np.exp(found.x)), 4)


def _numbers(stated: Stated) -> NDArray[np.intp]:
    """(answer,) the bin of each."""
    return np.minimum((stated.stated * BINS).astype(np.intp), BINS - 1)


def reliability(stated: Stated) -> tuple[Bin, ...]:
    """Answers by their stated probability in tenths; tenths without answers are left out."""
    numbers, found = _numbers(stated), []
    for number in np.unique(numbers):
        own = numbers == number
        mean = round(float(stated.stated[own].mean()), 4)
        found.append(Bin(stated=mean, right=int(stated.right[own].sum()), answers=int(own.sum())))
    return tuple(found)


def calibration_error(stated: Stated, weights: Floats | None = None) -> float:
    """Mean over answers of how far, in their tenth, the mean stated probability is from the share that is right
    (Naeini et al. 2015); `weights` say how often each answer counts."""
    weights = np.ones(len(stated)) if weights is None else weights
    gaps = np.bincount(_numbers(stated), weights=weights * (stated.stated - stated.right), minlength=BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def compare(before: Stated, after: Stated) -> tuple[Change, Change]:
    """Log loss and calibration error before and after, with the intervals of their differences."""
    _, owner = np.unique(before.places, return_inverse=True)
    count = int(owner.max()) + 1
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)

    def change(measure: Callable[[Stated, Floats], float]) -> Change:
        whole = np.ones(len(before))
        rests = [measure(after, again[owner]) - measure(before, again[owner]) for again in drawn.astype(np.float64)]
        low, high = np.quantile(rests, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
        sides = [round(measure(one, whole), 4) for one in (before, after)]
        return Change(before=sides[0], after=sides[1], low=round(low, 4), high=round(high, 4))

    return change(lambda one, weights: float(np.average(one.losses, weights=weights))), change(calibration_error)
