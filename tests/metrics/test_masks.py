"""Mask scores against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from earthmap.errors import BadRequestError
from earthmap.metrics import Bootstrap, score_classes, score_mask

FEW = Bootstrap(block_px=4, resamples=20)
MASKS = arrays(np.uint8, (10, 14), elements=st.sampled_from([0, 1, 255]))


def test_counts_by_hand() -> None:
    truth = np.array([[1, 1, 0, 0], [1, 1, 0, 255]], np.uint8)
    ours = np.array([[1, 0, 1, 0], [1, 1, 0, 1]], np.uint8)
    scores = score_mask(ours, truth)
    assert scores.iou.value == pytest.approx(3 / 5)
    assert scores.precision.value == scores.recall.value == scores.f1.value == pytest.approx(3 / 4)
    assert scores.accuracy.value == pytest.approx(5 / 7)
    assert scores.fraction_error_points.value == 0
    assert (scores.scored_px, scores.blocks, scores.iou.low) == (7, 1, None)
    assert scores.iou.constant == pytest.approx(4 / 7)
    assert scores.accuracy.constant == pytest.approx(4 / 7)
    assert scores.fraction_error_points.constant == pytest.approx(100 * 3 / 7)


def test_nothing_against_nothing_is_perfect() -> None:
    empty, full = np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)
    perfect = score_mask(empty, empty)
    assert perfect.iou.value == perfect.f1.value == perfect.precision.value == perfect.recall.value == 1
    assert (score_mask(full, empty).iou.value, score_mask(empty, full).precision.value) == (0, 0)
    assert score_mask(full, empty).fraction_error_points.value == 100


@given(MASKS, MASKS)
def test_scores_are_shares_and_symmetric_where_they_must_be(ours: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
    if not ((ours != 255) & (truth != 255)).any():
        with pytest.raises(BadRequestError):
            score_mask(ours, truth)
        return
    one, other = score_mask(ours, truth, bootstrap=FEW), score_mask(truth, ours, bootstrap=FEW)
    assert one.iou.value == other.iou.value
    assert one.fraction_error_points.value == other.fraction_error_points.value
    for name in ("iou", "precision", "recall", "f1", "accuracy"):
        assert 0 <= getattr(one, name).value <= 1
    assert one.iou.value <= one.f1.value + 1e-12
    assert score_mask(ours, truth, bootstrap=FEW) == one


def test_tiles_are_counted_together_and_intervals_hold_the_value() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.uniform(size=(256, 256)) < 0.3).astype(np.uint8)
    ours = np.where(rng.uniform(size=truth.shape) < 0.2, 1 - truth, truth).astype(np.uint8)
    whole = score_mask(ours, truth)
    halves = score_mask([ours[:128], ours[128:]], [truth[:128], truth[128:]])
    assert halves == whole
    assert whole.iou.low is not None
    assert whole.iou.high is not None
    assert whole.iou.low < whole.iou.value < whole.iou.high
    assert score_mask(ours, truth, bootstrap=Bootstrap(seed=1)).iou.low != whole.iou.low


def test_classes_and_bad_input() -> None:
    truth = np.array([[0, 1, 2, 2]], np.uint8)
    scores = score_classes(truth, truth, legend={1: "water", 2: "snow"})
    assert {name: score.iou.value for name, score in scores.items()} == {"water": 1.0, "snow": 1.0}
    for ours, other in ((truth, truth.T), ([truth], []), ([], []), (truth[0], truth[0])):
        with pytest.raises(BadRequestError):
            score_mask(ours, other)
    with pytest.raises(BadRequestError):
        Bootstrap(block_px=0)
