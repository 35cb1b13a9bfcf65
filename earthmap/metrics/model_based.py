"""An interval of a mapped area without labels of it: from how wrong the same predictor was on other scenes.

It is named `model_based`, because it holds only where the area is like those scenes. Each scene has one error matrix;
the share of the class that is found and the share of the rest that is taken for it are taken to go from one place to
another (prevalence is not: Rogan and Gladen 1978, Am. J. Epidemiol. 107, 71–76). The new area counts as one more scene:
pixels of one scene are wrong together, and no number of them makes two. The interval holds the true shares at which the
mapped one would not be strange (Student's prediction interval from scene to scene, inverted as Fieller did). Drawing
scenes again with replacement, the other way to go about it, is too narrow for one new scene where there are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import BadRequestError
from earthmap.model.evidence import SceneErrors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_SCENES = 8
"""With fewer there is no interval."""

LEVEL = 0.9
"""Of the interval."""

LEAST_PX = 30
"""A scene tells the share of a class that is found where it has so many pixels of it, and of what is taken for it where
it has so many others."""

STEPS = 2001
"""True shares that are tried, from none to all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBased:
    """Share of an area that is a class, as other scenes let it be."""

    value: float
    """The mapped share, corrected by the scenes' mean errors."""
    low: float
    high: float
    scenes: int
    """How many it is from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoInterval:
    """Why there is none."""

    reason: str


def model_based(scenes: Sequence[SceneErrors], mapped: float) -> ModelBased | NoInterval:
    """The 90 % interval of the true share of an area from the mapped one.

    Args:
        scenes: error matrices of the predictor on held-out scenes of the same sensor and class, one for each scene.
        mapped: share of the area's seen ground that is mapped as the class.

    Raises:
        BadRequestError: for a share that is none, and a scene that is given twice.
    """
    if not 0 <= mapped <= 1:
        raise BadRequestError(f"a mapped share of {mapped}", expected="0 to 1")
    if len({one.scene for one in scenes}) != len(scenes):
        raise BadRequestError("a scene is given twice", expected="one error matrix for each scene")
    found = _Rates.of([(one.hits, one.misses) for one in scenes], scenes)
    taken = _Rates.of([(one.false_alarms, one.rejections) for one in scenes], scenes)
    why = _lacking(found, taken)
    if why:
        return NoInterval(reason=why)
    shares = np.linspace(0.0, 1.0, STEPS)
    middle, far = _predicted(found, taken, shares)
    fits = np.flatnonzero(np.abs(mapped - middle) <= far)
    value = float(np.clip((mapped - taken.mean) / (found.mean - taken.mean), 0.0, 1.0))
    low, high = (float(shares[fits[end]]) for end in (0, -1)) if len(fits) else (value, value)
    return ModelBased(
        value=value, low=min(low, value), high=max(high, value), scenes=int((found.told | taken.told).sum())
    )


@dataclass(frozen=True, slots=True)
class _Rates:
    """How often something was said in each scene. A scene counts by its share of that ground: of much it tells more."""

    share: Floats
    """(scene,) how often."""
    weight: Floats
    """(scene,) 0 where a scene tells nothing of it."""

    @classmethod
    def of(cls, counts: Sequence[tuple[int, int]], scenes: Sequence[SceneErrors]) -> _Rates:
        """The share that the first of two counts is of both."""
        table = np.array(counts, np.float64).reshape(-1, 2)
        own = table.sum(axis=1)
        whole = np.array([one.hits + one.misses + one.false_alarms + one.rejections for one in scenes], np.float64)
        weight = np.where(own >= LEAST_PX, own / np.maximum(whole, 1), 0.0)
        return cls(table[:, 0] / np.maximum(own, 1), weight)

    @property
    def told(self) -> NDArray[np.bool_]:
        """(scene,) scenes that tell something of it."""
        return self.weight > 0

    @property
    def number(self) -> float:
        """Scenes of equal weight that tell as much (Kish 1965)."""
        return float(self.weight.sum() ** 2 / (self.weight**2).sum())

    @property
    def mean(self) -> float:
        """Over scenes."""
        return float(np.average(self.share, weights=self.weight))

    @property
    def spread(self) -> float:
        """Variance from scene to scene."""
        rest = np.average((self.share - self.mean) ** 2, weights=self.weight)
        return float(rest * self.number / max(self.number - 1, 0.5))


def _lacking(found: _Rates, taken: _Rates) -> str | None:
    """Why these rates tell no interval; None where they do."""
    for name, rates in (("with the class", found), ("with ground that is not the class", taken)):
        count = int(rates.told.sum())
        if count < LEAST_SCENES:
            scenes = f"{count} held-out scene{'s' * (count > 1)}"
            return f"{scenes} {name}, of {LEAST_SCENES} that are needed" if count else f"no evidence {name}"
    if found.mean - taken.mean <= 2 * np.sqrt(found.spread / found.number + taken.spread / taken.number):
        return "on held-out scenes the class is mapped as often where it is not as where it is"
    return None


def _predicted(found: _Rates, taken: _Rates, shares: Floats) -> tuple[Floats, Floats]:
    """What would be mapped of an area with each true share: the middle, and how far from it is not yet strange."""
    from scipy.special import stdtrit

    both = np.sqrt(found.weight * taken.weight)
    rests = (found.share - found.mean) * (taken.share - taken.mean)
    together = float(np.average(rests, weights=both)) if both.any() else 0.0
    own, other = (rates.spread * (1 + 1 / rates.number) for rates in (found, taken))
    variance = shares**2 * own + (1 - shares) ** 2 * other + 2 * shares * (1 - shares) * together
    # Where the class is rare what is taken for it decides, and so the scenes that tell that.
    freedom = np.maximum(np.where(shares > 0.5, found.number, taken.number) - 1, 1.0)
    far = stdtrit(freedom, 1 - (1 - LEVEL) / 2) * np.sqrt(np.maximum(variance, 0))
    return shares * found.mean + (1 - shares) * taken.mean, np.asarray(far)
