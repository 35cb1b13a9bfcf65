"""Temperatures are found again, losses are what they are by hand, and intervals belong to places."""

from __future__ import annotations

import numpy as np
import pytest

from earthmap.errors import BadRequestError
from earthmap.metrics.calibration import Said, Stated, calibration_error, compare, fit_temperature, reliability
from earthmap.metrics.intervals import wilson


def _said(shares: tuple[float, ...], true: int, place: str = "0") -> Said:
    return Said(shares=shares, true=true, said=int(np.argmax(shares)), place=place)


def _drawn(count: int, *, heat: float, choices: int = 3, seed: int = 0) -> Stated:
    """Answers whose truth is drawn from their own probabilities, which are then stated as if `heat` times as sure."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, choices))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (shares.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
    told = np.exp(logits * heat) / np.exp(logits * heat).sum(axis=1, keepdims=True)
    return Stated.of([_said(tuple(row), int(one), str(n)) for n, (row, one) in enumerate(zip(told, true, strict=True))])


@pytest.mark.parametrize("heat", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(heat: float) -> None:
    stated = _drawn(6000, heat=heat)
    found = fit_temperature(stated)
    assert found == pytest.approx(heat, rel=0.06)
    assert stated.at(found).losses.mean() <= stated.losses.mean() + 1e-12
    assert calibration_error(stated.at(found)) < 0.03
    assert (stated.at(found).said == stated.said).all()


def test_questions_of_different_choices_stand_together() -> None:
    stated = Stated.of([_said((0.9, 0.1), 0), _said((0.2, 0.3, 0.5), 2)])
    assert stated.shares.shape == (2, 3)
    warm = stated.at(3.0)
    assert warm.shares[0, 2] == 0.0
    assert warm.shares.sum(axis=1) == pytest.approx([1, 1])


def test_log_loss_and_calibration_error_by_hand() -> None:
    stated = Stated.of([_said((0.75, 0.25), 0), _said((0.75, 0.25), 1), _said((0.05, 0.95), 1), _said((0.05, 0.95), 1)])
    assert stated.losses == pytest.approx(-np.log([0.75, 0.25, 0.95, 0.95]))
    assert calibration_error(stated) == pytest.approx((2 * 0.25 + 2 * 0.05) / 4)
    seven, nine = reliability(stated)
    assert (seven.stated, seven.right, seven.answers) == (0.75, 1, 2)
    assert (nine.stated, nine.right, nine.answers) == (0.95, 2, 2)


def test_what_is_called_impossible_costs_much_and_not_everything() -> None:
    stated = Stated.of([_said((1.0, 0.0), 1)])
    assert 9 < stated.losses[0] < 11
    with pytest.raises(BadRequestError, match="no answers"):
        fit_temperature(Stated.of([]))


def test_intervals_are_of_places() -> None:
    """A hundred answers about ten places tell as much as ten."""
    many = _drawn(200, heat=3.0)
    after = many.at(3.0)
    alone, _ = compare(many, after)
    few = [np.resize(np.arange(10), 200).astype(str)] * 2
    together, _ = compare(
        Stated(many.shares, many.true, many.said, few[0]), Stated(after.shares, after.true, after.said, few[1])
    )
    assert alone.before == together.before
    assert alone.after < alone.before
    assert alone.low <= alone.after - alone.before <= alone.high
    same, _ = compare(many, many)
    assert (same.low, same.high) == (0.0, 0.0)


def test_wilson_covers_and_never_leaves_the_shares() -> None:
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == pytest.approx(1.0)
    random = np.random.default_rng(0)
    for share in (0.5, 0.8, 0.97):
        edges = [wilson(int(right), 40) for right in random.binomial(40, share, 2000)]
        assert 0.91 < np.mean([low <= share <= high for low, high in edges]) < 0.985
