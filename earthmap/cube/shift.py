"""How far apart two dates show the same ground, and a date's pixels moved back by that. Pure; numpy and scipy.

Directions of gradients are correlated (orientation correlation: Fitch et al., BMVC 2002; compared with others by Heid
and Kääb, Remote Sensing of Environment 118, 2012), each angle doubled, so that neither brightness matters nor contrast
that a season turned round. What is not seen on a date takes no part (masked correlation: Padfield, IEEE Transactions on
Image Processing 21, 2012). The ground is cut into windows: changed ones bring noise and no peak, and four interleaved
quarters of them must find the same by themselves.
docs/decisions/0024-what-does-not-lie-on-the-other-date.md says what was measured and what follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import GridError
from earthmap.predict.protocol import Picture
from earthmap.sensors.masks import Reason, unseen
from earthmap.sensors.registry import SENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHIFT_FORMAT = 1
"""Raised when the same pixels would give another shift, or be moved otherwise."""

REACH_PX = 16
"""Largest shift along one axis that is looked for."""

WINDOW_PX = 96
"""Side of a window."""

MAX_WINDOWS = 8
"""Windows along one side of the ground, at most; on wider ground they lie apart."""

MIN_SEEN = 0.25
"""Share of a window that both dates must show."""

MIN_CERTAINTY, MIN_RATIO = 5.0, 1.5
"""What a peak must have of all windows together: standard deviations above the rest of the surface, and that against
the second highest peak. Unrelated pictures and noise came to 5.1 and 1.4 at most, never both with agreement."""

LONE_CERTAINTY, LONE_RATIO = 8.0, 2.0
"""The same of ground too small for quarters that could agree, and where a single window is trusted."""

MIN_SURE = 3
"""Windows that are sure of themselves, from which on they speak for the ground."""

MIN_AGREEMENT = 0.75
"""Share of the quarters of the windows that must find the shift by themselves, within a pixel."""

_UNUSED = tuple(reason.label for reason in Reason if reason not in (Reason.CLEAR, Reason.DARK, Reason.UNKNOWN))
"""Reasons for which a pixel takes no part: what moves, melts or is not ground."""

_BANDS = ("red", "nir", "nir08", "green", "pan", "swir16", "blue", "vv", "hh", "vh", "hv", "lwir11", "lwir12")
"""Bands in the order in which two of them are chosen: those of the finest pixels come first."""

_SMOOTHING = {True: 2.0, False: 1.0}
"""Standard deviation in pixels of the Gaussian under the gradients, for radar and for all else."""

_ROUNDING = 1e-5
"""Gradients of which a window's largest value has rounding errors, as a share of it."""

_MIN_OVERLAP = 0.25
"""Of what the dates share at most, the share that they must have in common at a shift."""

_APART_PX = 3
"""A peak's own neighbourhood."""

_SPLINE_STEPS = 40
"""Steps of a spline through the surface between two pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far the second picture shows ground from where the first does."""

    down_px: float
    """Rows that the second picture's ground lies too far down."""
    right_px: float
    """Columns that it lies too far to the right."""
    peak: float
    """Height of the correlation's peak, −1 to 1."""
    certainty: float
    """Standard deviations that it stands above the rest of the surface."""
    ratio: float
    """Its certainty against that of the second highest peak."""
    agreement: float
    """Share of the quarters of the windows that find it by themselves, within a pixel; 0 for fewer than two."""
    windows: int
    """How many windows both dates show enough of."""
    sure_windows: int
    """How many of them have a sure peak of their own."""
    spread_px: float | None
    """Distance from this of the shifts that the sure windows find by themselves: three quarters of them lie nearer. Of
    the quarters' shifts where fewer than three are sure; None where there are no two of them."""

    @property
    def length_px(self) -> float:
        """How far, along the straight line."""
        return math.hypot(self.down_px, self.right_px)

    @property
    def is_good(self) -> bool:
        """True where the peak cannot be chance: quarters find it, or three windows, or the only one there is surely."""
        if self._is_at_the_end:
            return False
        if self.agreement >= MIN_AGREEMENT and self.certainty >= MIN_CERTAINTY and self.ratio >= MIN_RATIO:
            return True
        if self.windows < 4:
            return self.certainty >= LONE_CERTAINTY and self.ratio >= LONE_RATIO
        return self.sure_windows >= MIN_SURE and (self.spread_px or 0.0) <= 1.0

    @property
    def is_torn(self) -> bool:
        """True where windows are sure of shifts that differ, or of one that lies beyond what is looked for."""
        return self.sure_windows > MIN_SURE and ((self.spread_px or 0.0) > 1.0 or self._is_at_the_end)

    @property
    def _is_at_the_end(self) -> bool:
        return max(abs(self.down_px), abs(self.right_px)) > REACH_PX - 1


NO_SHIFT = Shift(
    down_px=0.0, right_px=0.0, peak=0.0, certainty=0.0, ratio=0.0, agreement=0.0, windows=0, sure_windows=0,
    spread_px=None,
)  # fmt: skip
"""What two pictures tell that show no ground together."""


def estimate_shift(first: Picture, second: Picture) -> Shift:
    """The shift of `second` against `first`, which lie on one lattice and share a band.

    Both show the same ground (band, y, x); pixels that a reason mask hides, and a margin around them, take no part. At
    most `REACH_PX` along each axis is found. Whether it is to be trusted says `is_good`.

    Raises:
        GridError: for pictures of different shapes.
    """
    if first.mask.shape != second.mask.shape:
        raise GridError(f"pictures of {first.mask.shape} and {second.mask.shape} pixels", expected="one lattice")
    bands = _shared(first, second)
    looks = _Sight.of(first, bands), _Sight.of(second, bands)
    places = _places(first.mask.shape)
    windows = [window for place in places if (window := _correlate(looks[0], looks[1], place)) is not None]
    if not windows:
        return NO_SHIFT
    whole = _peak(windows)
    quarters = [own for number in range(4) if (own := [one for one in windows if one.quarter == number])]
    apart = [whole.distance(_peak(own)) for own in quarters]
    peaks = [_peak([window]) for window in windows]
    sure = [whole.distance(one) for one in peaks if one.certainty >= LONE_CERTAINTY and one.ratio >= MIN_RATIO]
    told = sure if len(sure) >= MIN_SURE else apart if len(apart) > 1 else []
    return Shift(
        down_px=round(whole.down, 3),
        right_px=round(whole.right, 3),
        peak=round(whole.height, 3),
        certainty=round(whole.certainty, 2),
        ratio=round(whole.ratio, 2),
        agreement=sum(one <= 1.0 for one in apart) / len(apart) if len(apart) > 1 else 0.0,
        windows=len(windows),
        sure_windows=len(sure),
        spread_px=round(float(np.quantile(told, 0.75)), 3) if told else None,
    )


def _shared(first: Picture, second: Picture) -> tuple[str, ...]:
    """The two bands that are correlated, or the one that there is."""
    both = [band for band in (*_BANDS, *first.bands) if band in first.bands and band in second.bands]
    return tuple(dict.fromkeys(both))[:2]


@dataclass(frozen=True, slots=True)
class _Sight:
    """What one date offers."""

    planes: tuple[NDArray[np.float32], ...]
    used: NDArray[np.bool_]
    is_sar: bool

    @classmethod
    def of(cls, picture: Picture, bands: Sequence[str]) -> _Sight:
        planes = tuple(picture.data[picture.bands.index(band)] for band in bands)
        used = ~unseen(picture.mask, _UNUSED)
        for plane in planes:
            used &= np.isfinite(plane)
        sensor = SENSORS.get(picture.sensor)
        return cls(planes, used, sensor is not None and sensor.is_sar)


# ── windows ──────────────────────────────────────────────────────────────────────────────────────────────────


def _places(shape: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Upper row and left column of each window, and which quarter of them it belongs to."""
    starts = []
    for length in shape:
        count = max(1, min(MAX_WINDOWS, length // WINDOW_PX))
        starts.append(np.linspace(0, max(0, length - WINDOW_PX), count).round().astype(int).tolist())
    for row, top in enumerate(starts[0]):
        for column, left in enumerate(starts[1]):
            yield top, left, 2 * (row % 2) + column % 2


@dataclass(frozen=True, slots=True)
class _Window:
    """Sums of one window for every shift (2 · REACH_PX + 1 squared): products, and both dates' squares."""

    quarter: int
    products: NDArray[np.float32]
    squares: tuple[NDArray[np.float32], NDArray[np.float32]]


def _correlate(first: _Sight, second: _Sight, place: tuple[int, int, int]) -> _Window | None:
    """The sums of one window: its inside on the first date against all around it on the second; None where too little
    of it is seen."""
    top, left, quarter = place
    inner = tuple(slice(start, start + WINDOW_PX) for start in (top, left))
    if min(float(sight.used[inner].mean()) for sight in (first, second)) < MIN_SEEN:
        return None
    sums = None
    for plane in range(len(first.planes)):
        known, directions = _directions(first, plane, (top, left), reach=0)
        around, others = _directions(second, plane, (top, left), reach=REACH_PX)
        more = _sums(directions, known, others, around)
        sums = more if sums is None else [old + new for old, new in zip(sums, more, strict=True)]
    return None if sums is None else _Window(quarter, sums[0], (sums[1], sums[2]))


def _directions(
    sight: _Sight, plane: int, corner: tuple[int, int], *, reach: int
) -> tuple[NDArray[np.float32], NDArray[np.complex64]]:
    """Where the window and `reach` pixels around it are known (1, else 0), and the doubled directions of its gradients.

    A gradient as weak as half of them are counts half: on flat ground most of them are noise. One that may come from
    rounding counts nothing, for even ground is rounded alike on both dates.
    """
    from scipy import ndimage

    smoothing = _SMOOTHING[sight.is_sar]
    margin = math.ceil(2 * smoothing) + 1
    values, used = _cut(sight, plane, corner, reach + 2 * margin)
    weights = ndimage.gaussian_filter(used.astype(np.float32), smoothing, mode="constant")
    smooth = ndimage.gaussian_filter(np.where(used, values, np.float32(0)), smoothing, mode="constant")
    smooth /= np.maximum(weights, np.float32(1e-3))
    if sight.is_sar:
        smooth = np.log(np.maximum(smooth, np.float32(1e-6)))
    down, right = np.gradient(smooth)
    known = ndimage.binary_erosion(used, np.ones((3, 3), bool), iterations=margin)
    inner = (slice(2 * margin, -2 * margin),) * 2
    gradient, known = (right + 1j * down)[inner].astype(np.complex64), known[inner]
    strength = np.abs(gradient)
    usual = max(float(np.median(strength[known])) if known.any() else 0.0, 1e-12)
    unit = (gradient / np.maximum(strength, np.float32(1e-20))) ** 2
    weight = strength**2 / (strength**2 + np.float32(usual**2))
    some = known & (strength > _ROUNDING * np.abs(smooth[inner]).max(initial=0.0))
    return known.astype(np.float32), np.where(some, unit * weight, np.complex64(0))


def _cut(
    sight: _Sight, plane: int, corner: tuple[int, int], margin: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A window and the margin around it, unknown beyond the picture."""
    side = WINDOW_PX + 2 * margin
    values, used = np.zeros((side, side), np.float32), np.zeros((side, side), bool)
    old, new = [], []
    for start, length in zip(corner, sight.used.shape, strict=True):
        begin, end = max(0, start - margin), min(length, start + WINDOW_PX + margin)
        old.append(slice(begin, end))
        new.append(slice(begin - start + margin, end - start + margin))
    values[tuple(new)], used[tuple(new)] = sight.planes[plane][tuple(old)], sight.used[tuple(old)]
    return values, used


def _sums(
    first: NDArray[np.complex64],
    known: NDArray[np.float32],
    second: NDArray[np.complex64],
    around: NDArray[np.float32],
) -> list[NDArray[np.float32]]:
    """Products and both squares for each shift: no sum wraps around, because the second is wider by the reach."""
    from scipy import fft

    def correlated(one: NDArray[np.generic], other: NDArray[np.generic]) -> NDArray[np.float32]:
        spectrum = np.conj(fft.fft2(one, s=second.shape)) * fft.fft2(other)
        shifts = 2 * REACH_PX + 1
        found: NDArray[np.float32] = fft.ifft2(spectrum).real[:shifts, :shifts]
        return found

    return [
        correlated(first, second),
        np.maximum(correlated(np.abs(first) ** 2, around), 0),
        np.maximum(correlated(known, np.abs(second) ** 2), 0),
    ]


# ── peaks ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Peak:
    down: float
    right: float
    height: float
    certainty: float
    ratio: float

    def distance(self, other: _Peak) -> float:
        return math.hypot(self.down - other.down, self.right - other.right)


def _peak(windows: Sequence[_Window]) -> _Peak:
    """The highest peak of the correlation over all `windows`, between the pixels."""
    squares = [np.sum([one.squares[date] for one in windows], axis=0) for date in (0, 1)]
    both = squares[0] * squares[1]
    surface = np.sum([one.products for one in windows], axis=0) / np.sqrt(np.maximum(both, 1e-9))
    surface[both < both.max() * _MIN_OVERLAP**2] = 0.0  # of a few pixels anything may look alike
    row, column = (int(place) for place in np.unravel_index(np.argmax(surface), surface.shape))
    rest = np.ones(surface.shape, bool)
    rest[max(row - _APART_PX, 0) : row + _APART_PX + 1, max(column - _APART_PX, 0) : column + _APART_PX + 1] = False
    mean, deviation = float(surface[rest].mean()), max(float(surface[rest].std()), 1e-9)
    certainty, second = ((float(height) - mean) / deviation for height in (surface[row, column], surface[rest].max()))
    down, right = _between(surface, row, column)
    return _Peak(
        down - REACH_PX, right - REACH_PX, float(surface[row, column]), certainty, certainty / max(second, 1e-9)
    )


def _between(surface: NDArray[np.floating], row: int, column: int) -> tuple[float, float]:
    """The highest place of a spline around a pixel; that pixel on the surface's edge. (A parabola is drawn to whole
    pixels: by 0.1 of one.)"""
    from scipy import ndimage

    last = surface.shape[0] - 1
    if not (0 < row < last and 0 < column < last):
        return float(row), float(column)
    steps = np.linspace(-1, 1, 2 * _SPLINE_STEPS + 1)
    places = np.meshgrid(row + steps, column + steps, indexing="ij")
    fine = ndimage.map_coordinates(np.asarray(surface, np.float64), places, order=5, mode="nearest")
    down, right = (int(place) for place in np.unravel_index(np.argmax(fine), fine.shape))
    return float(row + steps[down]), float(column + steps[right])


# ── pixels ───────────────────────────────────────────────────────────────────────────────────────────────────


def moved_part(
    data: NDArray[np.float32], mask: NDArray[np.uint8], part: tuple[slice, slice], *, shift: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """`part` of a date's pixels as if they lay `shift` (rows down, columns right, in pixels) further up and left.

    Data (band, y, x) are interpolated between the four pixels around, and missing where one of them is; whole pixels
    are copied. Of the mask the nearest pixel is taken. What comes from beyond the arrays is nodata.
    """
    whole = [math.floor(step) for step in shift]
    rest = [step - start for step, start in zip(shift, whole, strict=True)]
    near = [math.floor(step + 0.5) for step in shift]
    found: NDArray[np.float32] | None = None
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (rest[0] if down else 1 - rest[0]) * (rest[1] if right else 1 - rest[1])
        if weight > 0:
            piece = np.float32(weight) * _offset(data, part, (whole[0] + down, whole[1] + right), np.nan)
            found = piece if found is None else found + piece
    reasons = _offset(mask, part, (near[0], near[1]), int(Reason.NODATA))
    moved = data[(slice(None), *part)] if found is None else found
    lost = np.isnan(moved).all(axis=0)
    return moved, np.where(lost, np.uint8(Reason.NODATA), reasons)


def _offset(values: NDArray[np.generic], part: tuple[slice, slice], by: tuple[int, int], fill: float) -> NDArray:  # type: ignore[type-arg]
    """`part` of (…, y, x), each pixel from so many rows below and columns to the right of it."""
    found = np.full((*values.shape[:-2], *(one.stop - one.start for one in part)), fill, values.dtype)
    old, new = list[slice](), list[slice]()
    for one, step, length in zip(part, by, values.shape[-2:], strict=True):
        begin, end = max(0, one.start + step), min(length, one.stop + step)
        old.append(slice(begin, max(begin, end)))
        new.append(slice(begin - one.start - step, max(begin, end) - one.start - step))
    found[..., new[0], new[1]] = values[..., old[0], old[1]]
    return found
