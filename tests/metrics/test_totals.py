"""Counts from counted blocks: the estimator by hand, its laws, and that intervals cover the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import BadRequestError
from earthmap.metrics.totals import BlockStratum, TotalEstimate, estimate_total

MANY, NONE = BlockStratum(name="many", blocks=40, found=200.0), BlockStratum(name="none", blocks=1000, found=0.0)


def _estimate(many: list[tuple[int, int]], none: list[tuple[int, int]]) -> TotalEstimate:
    """From (found, counted) of the blocks of each stratum."""
    pairs = np.array(many + none, float)
    stratum = np.repeat([0, 1], [len(many), len(none)])
    return estimate_total([MANY, NONE], stratum, found=pairs[:, 0], counted=pairs[:, 1])


def test_the_estimate_by_hand() -> None:
    found = _estimate([(5, 6), (5, 4), (4, 6), (6, 6)], [(0, 0), (0, 1)] * 10)
    assert found.found == 200.0
    assert found.total.value == pytest.approx(200 + 40 * 0.5 + 1000 * 0.5)
    variance = 40**2 * 0.9 * np.var([1, -1, 2, 0], ddof=1) / 4 + 1000**2 * 0.98 * np.var([0, 1] * 10, ddof=1) / 20
    assert found.total.se == pytest.approx(np.sqrt(variance))
    assert found.total.high - found.total.value > 1.96 * np.sqrt(variance)


def test_blocks_that_all_agree_are_named_and_leave_some_doubt_upwards() -> None:
    found = _estimate([(5, 6), (5, 4)], [(0, 0)] * 50)
    assert found.notes == ("in none all counted blocks agree with what was found",)
    sure = _estimate([(5, 6), (5, 4)], [(0, 0)] * 500)
    assert found.total.high > sure.total.high
    assert found.total.low == sure.total.low


def test_what_was_counted_whole_leaves_no_doubt() -> None:
    strata = [BlockStratum(name="all", blocks=3, found=4.0)]
    found = estimate_total(
        strata, np.zeros(3, np.int64), found=np.array([1.0, 3.0, 0.0]), counted=np.array([2.0, 2.0, 1.0])
    )
    assert (found.total.low, found.total.value, found.total.high, found.total.se) == (5.0, 5.0, 5.0, 0.0)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=40),
    st.randoms(use_true_random=False),
)
def test_the_order_means_nothing_and_the_interval_holds_the_estimate(
    pairs: list[tuple[int, int]], random: object
) -> None:
    turned = list(pairs)
    random.shuffle(turned)  # type: ignore[attr-defined]
    ours, again = (_estimate(order, [(0, 0), (0, 1), (0, 0)]).total for order in (pairs, turned))
    assert (ours.low, ours.value, ours.high) == pytest.approx((again.low, again.value, again.high))
    assert ours.low >= sum(count for _, count in pairs)
    assert ours.low <= ours.value <= ours.high


@pytest.mark.parametrize(
    ("stratum", "found", "counted", "what"),
    [
        ([0, 0, 1], [0, 0, 0], [0, 0, 0], "stratum none of 1000 blocks has 1"),
        ([0, 0], [0, 0], [0, 0], "stratum none of 1000 blocks has 0"),
        ([0, 0, 1, 1], [0, 0, 0, 0], [0, -1, 0, 0], "below nought"),
        ([0, 0, 1, 1], [0, 0, 0], [0, 0, 0, 0], "unequal lengths"),
        ([0, 0, 1, 1, 2], [0] * 5, [0] * 5, "of no stratum"),
    ],
)
def test_counts_that_do_not_fit_are_refused(
    stratum: list[int], found: list[float], counted: list[float], what: str
) -> None:
    with pytest.raises(BadRequestError, match=what):
        estimate_total([MANY, NONE], np.array(stratum), found=np.array(found, float), counted=np.array(counted, float))


def _covered(random: np.random.Generator) -> tuple[bool, float]:
    """Whether the interval of a drawn world with a finder that misses a third and invents some holds the true total."""
    density = random.gamma(0.3, 3.0, 2000)
    true = random.poisson(density).astype(float)
    found = random.binomial(true.astype(int), 0.65) + random.poisson(0.05 + 0.1 * density)
    kind = np.where(found == 0, 0, np.where(found <= 3, 1, 2))
    strata, drawn = [], []
    for place, name in enumerate(("none", "few", "many")):
        members = np.flatnonzero(kind == place)
        strata.append(BlockStratum(name=name, blocks=len(members), found=float(found[members].sum())))
        drawn.append(random.choice(members, min(60, len(members)), replace=False))
    chosen = np.concatenate(drawn)
    total = estimate_total(strata, kind[chosen], found=found[chosen].astype(float), counted=true[chosen]).total
    return bool(total.low <= true.sum() <= total.high), abs(found.sum() / true.sum() - 1)


def test_95_percent_intervals_cover_the_total_of_200_worlds_with_a_biased_finder() -> None:
    random = np.random.default_rng(0)
    covered, off = zip(*(_covered(random) for _ in range(200)), strict=True)
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.median(off) > 0.15
