"""Scores of class masks against truth, each beside the best constant answer and a bootstrap interval.

Conventions, stated because they move figures: IoU, precision, recall and F1 of nothing against nothing are 1; precision
of an empty mask and recall of an empty truth are 0 and 1 where only one of the two is empty. Pixels that either mask
calls 255 (unseen) count for nothing. The interval resamples blocks of pixels, since neighbours are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import BadRequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORE = 255
"""Code of pixels that are not scored."""

METRICS = ("iou", "precision", "recall", "f1", "accuracy", "fraction_error_points")
"""What is scored; the last is |found − true| share of the pixels in points of a hundred, the smaller the better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """How intervals are made."""

    block_px: int = 64
    """Side of the blocks that are drawn again, in pixels; a tile's border is a block's border."""
    resamples: int = 1000
    seed: int = 0
    level: float = 0.95
    """Share of the resamples inside the interval."""

    def __post_init__(self) -> None:
        if self.block_px < 1 or self.resamples < 1 or not 0 < self.level < 1:
            raise BadRequestError(
                f"a bootstrap of {self.resamples} resamples of blocks of {self.block_px} px at {self.level}",
                expected="one block pixel and one resample at least, and a level between 0 and 1",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One figure with what it must be read beside."""

    value: float
    low: float | None
    """Lower end of the interval; None where there are fewer than two blocks."""
    high: float | None
    """Upper end of the interval; None where there are fewer than two blocks."""
    constant: float
    """The better figure of the answers "everywhere" and "nowhere"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskScores:
    """All figures of one class."""

    iou: Score
    precision: Score
    recall: Score
    f1: Score
    accuracy: Score
    fraction_error_points: Score
    scored_px: int
    blocks: int


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64], empty: NDArray[np.float64]) -> NDArray[np.float64]:
    """part / whole, and `empty` where the whole is zero."""
    result: NDArray[np.float64] = np.where(whole > 0, part / np.maximum(whole, 1), empty)
    return result


def _figures(counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """METRICS of (..., 4) counts: true positive, false positive, false negative, true negative."""
    hit, false, missed, clear = np.moveaxis(counts, -1, 0)
    one, total = np.ones_like(hit), hit + false + missed + clear
    figures: dict[str, NDArray[np.float64]] = {
        "iou": _ratio(hit, hit + false + missed, one),
        "precision": _ratio(hit, hit + false, (missed == 0).astype(np.float64)),
        "recall": _ratio(hit, hit + missed, one),
        "f1": _ratio(2 * hit, 2 * hit + false + missed, one),
        "accuracy": _ratio(hit + clear, total, one),
        "fraction_error_points": 100 * np.abs(_ratio(false - missed, total, 0 * one)),
    }
    return figures


def _pairs(
    predicted: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], truth: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    ours = [predicted] if isinstance(predicted, np.ndarray) else list(predicted)
    true = [truth] if isinstance(truth, np.ndarray) else list(truth)
    if len(ours) != len(true) or not ours:
        raise BadRequestError(f"{len(ours)} masks against {len(true)}", expected="as many of both, and one at least")
    for one, other in zip(ours, true, strict=True):
        if one.shape != other.shape or one.ndim != 2:
            raise BadRequestError(f"a mask of {one.shape} against one of {other.shape}", expected="equal (y, x) shapes")
    return list(zip(ours, true, strict=True))


def _block_sums(image: NDArray[np.bool_], block_px: int) -> NDArray[np.int64]:
    """Count of true pixels in each block, row by row; blocks at the far borders may be smaller."""
    rows = np.arange(0, image.shape[0], block_px)
    columns = np.arange(0, image.shape[1], block_px)
    sums: NDArray[np.int64] = np.add.reduceat(np.add.reduceat(image.astype(np.int64), rows, 0), columns, 1).ravel()
    return sums


def _block_counts(
    pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]], code: int, block_px: int
) -> NDArray[np.float64]:
    """(block, 4) counts of one class in blocks that have any scored pixel."""
    parts = []
    for ours, true in pairs:
        scored = (ours != IGNORE) & (true != IGNORE)
        yes, is_true = ours == code, true == code
        cases = (yes & is_true, yes & ~is_true, ~yes & is_true, ~yes & ~is_true)
        parts.append(np.stack([_block_sums(case & scored, block_px) for case in cases], axis=-1))
    counts = np.concatenate(parts).astype(np.float64)
    scored_blocks: NDArray[np.float64] = counts[counts.sum(axis=1) > 0]
    return scored_blocks


def _constants(total: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 4) counts of the answers "everywhere" and "nowhere"."""
    positive, negative = total[0] + total[2], total[1] + total[3]
    return np.array([[positive, negative, 0, 0], [0, 0, positive, negative]])


def score_mask(
    predicted: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    truth: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    *,
    code: int = 1,
    bootstrap: Bootstrap | None = None,
) -> MaskScores:
    """Scores of the class `code` over one mask or several tiles, counted together.

    Args:
        predicted: (y, x) codes, or a sequence of such masks; 255 is not scored.
        truth: The same, of equal shapes.
        code: The class; every other code is "not this class".
        bootstrap: How the interval is made; None for 1000 resamples of 64-pixel blocks at 95 %.

    Raises:
        BadRequestError: for shapes or numbers of masks that differ, and where no pixel is scored.
    """
    bootstrap = bootstrap or Bootstrap()
    counts = _block_counts(_pairs(predicted, truth), code, bootstrap.block_px)
    if not len(counts):
        raise BadRequestError("no pixel is seen in both masks", expected="one at least")
    total = counts.sum(axis=0)
    values, constants = _figures(total), _figures(_constants(total))
    drawn = np.random.default_rng(bootstrap.seed).integers(len(counts), size=(bootstrap.resamples, len(counts)))
    resampled = _figures(np.stack([counts[rows].sum(axis=0) for rows in drawn]))
    tail = (1 - bootstrap.level) / 2
    scores = {}
    for name in METRICS:
        best = constants[name].min() if name == "fraction_error_points" else constants[name].max()
        low, high = np.quantile(resampled[name], [tail, 1 - tail]).tolist() if len(counts) > 1 else (None, None)
        scores[name] = Score(value=float(values[name]), low=low, high=high, constant=float(best))
    return MaskScores(**scores, scored_px=int(total.sum()), blocks=len(counts))


def score_classes(
    predicted: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    truth: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    *,
    legend: Mapping[int, str],
    bootstrap: Bootstrap | None = None,
) -> dict[str, MaskScores]:
    """`score_mask` of each class of a legend, by name."""
    return {name: score_mask(predicted, truth, code=code, bootstrap=bootstrap) for code, name in legend.items()}
