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
class SceneErrors:
    """Pixels of one labelled scene by what the predictor and the label say of one class."""

    scene: str
    hits: int
    misses: int
    false_alarms: int
    rejections: int
    """Neither mapped nor labelled as it."""

    def __post_init__(self) -> None:
        if min(self.hits, self.misses, self.false_alarms, self.rejections) < 0:
            raise BadRequestError(f"{self.scene} has a count below nought", expected="numbers of pixels")


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
        scenes: error matrices of the predictor on held-out scenes of the same sensor, one for each scene.
        mapped: share of the area's seen ground that is mapped as the class.

    Raises:
        BadRequestError: for a share that is none, and a scene that is given twice.
    """
    if not 0 <= mapped <= 1:
        raise BadRequestError(f"a mapped share of {mapped}", expected="0 to 1")
    if len({one.scene for one in scenes}) != len(scenes):
        raise BadRequestError("a scene is given twice", expected="one error matrix for each scene")
    found = _rates([(one.hits, one.misses) for one in scenes])
    taken = _rates([(one.false_alarms, one.rejections) for one in scenes])
    why = _lacking(found, taken)
    if why:
        return NoInterval(reason=why)
    shares = np.linspace(0.0, 1.0, STEPS)
    middle, far = _predicted(found, taken, shares)
    fits = np.flatnonzero(np.abs(mapped - middle) <= far)
    slope = float(np.nanmean(found) - np.nanmean(taken))
    value = float(np.clip((mapped - np.nanmean(taken)) / slope, 0.0, 1.0))
    low, high = (float(shares[fits[end]]) for end in (0, -1)) if len(fits) else (value, value)
    return ModelBased(
        value=value, low=min(low, value), high=max(high, value), scenes=int((~np.isnan(taken) | ~np.isnan(found)).sum())
    )


def _rates(counts: Sequence[tuple[int, int]]) -> Floats:
    """(scene,) share that the first is of both; NaN where a scene has too few of either."""
    table = np.array(counts, np.float64).reshape(-1, 2)
    whole = table.sum(axis=1)
    return np.where(whole >= LEAST_PX, table[:, 0] / np.maximum(whole, 1), np.nan)


def _lacking(found: Floats, taken: Floats) -> str | None:
    """Why these rates tell no interval; None where they do."""
    for name, rates in (("with the class", found), ("with ground that is not the class", taken)):
        count = int((~np.isnan(rates)).sum())
        if count < LEAST_SCENES:
            return (
                f"{count} held-out scenes {name}, of {LEAST_SCENES} that are needed" if count else f"no evidence {name}"
            )
    if np.nanmean(found) - np.nanmean(taken) <= 2 * np.hypot(_error(found), _error(taken)):
        return "on held-out scenes the class is mapped as often where it is not as where it is"
    return None


def _error(rates: Floats) -> float:
    """Standard error of the mean over scenes."""
    return float(np.nanstd(rates, ddof=1) / np.sqrt((~np.isnan(rates)).sum()))


def _predicted(found: Floats, taken: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """What would be mapped of an area with each true share: the middle, and how far from it is not yet strange."""
    from scipy.special import stdtrit

    both = ~np.isnan(found) & ~np.isnan(taken)
    counts = [(~np.isnan(rates)).sum() for rates in (found, taken)]
    variances = [
        np.nanvar(rates, ddof=1) * (1 + 1 / count) for rates, count in zip((found, taken), counts, strict=True)
    ]
    together = 0.0
    if both.sum() >= LEAST_SCENES:
        together = float(np.cov(found[both], taken[both])[0, 1]) * (1 + 1 / both.sum())
    variance = shares**2 * variances[0] + (1 - shares) ** 2 * variances[1] + 2 * shares * (1 - shares) * together
    # Where the class is rare what is taken for it decides, and so the scenes that tell that.
    freedom = np.where(shares > 0.5, counts[0], counts[1]) - 1
    far = stdtrit(freedom, 1 - (1 - LEVEL) / 2) * np.sqrt(np.maximum(variance, 0))
    return shares * np.nanmean(found) + (1 - shares) * np.nanmean(taken), np.asarray(far)
