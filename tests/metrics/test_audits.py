"""Bounds of what triage misses: exact, and held over drawn worlds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binom

from earthmap.errors import BadRequestError
from earthmap.metrics import Audit, upper_bound


@given(trials=st.integers(1, 400), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_the_bound_inverts_the_binomial(trials: int, share: float, level: float) -> None:
    events = min(trials - 1, int(share * trials))
    found = brentq(lambda p: binom.cdf(events, trials, p) - (1 - level), 1e-12, 1 - 1e-12, xtol=1e-14)
    assert upper_bound(events, trials, level=level) == pytest.approx(found, abs=1e-7)


@given(trials=st.integers(1, 300), events=st.integers(0, 300))
def test_more_events_or_fewer_trials_raise_it(trials: int, events: int) -> None:
    events = min(events, trials)
    bound = upper_bound(events, trials)
    assert events / trials <= bound <= 1.0
    assert upper_bound(events, trials + 1) < bound or bound == 1.0
    assert events == trials or upper_bound(events + 1, trials) > bound


def test_all_or_no_trials_bound_nothing_and_odd_counts_are_refused() -> None:
    assert upper_bound(0, 0) == upper_bound(7, 7) == 1.0
    for events, trials in ((1, 0), (-1, 4), (5, 4)):
        with pytest.raises(BadRequestError):
            upper_bound(events, trials)
    with pytest.raises(BadRequestError):
        Audit(audited=10, with_target=1, would_skip=8, missed=2, skipped=4)
    with pytest.raises(BadRequestError):
        Audit(audited=10, with_target=11, would_skip=8, missed=2, skipped=4)


def test_without_a_target_in_the_audit_there_is_a_bound_of_the_skipped_tiles_and_none_of_the_share() -> None:
    audit = Audit(audited=150, with_target=0, would_skip=140, missed=0, skipped=9000)
    assert audit.missed_share is None
    assert audit.missed_share_at_most is None
    assert audit.skipped_with_target_at_most == pytest.approx(1 - 0.05 ** (1 / 140))
    assert audit.missed_tiles_at_most == int((1 - 0.05 ** (1 / 140)) * 9140)


def test_without_a_skipped_tile_in_the_audit_nothing_is_known_unless_nothing_was_skipped() -> None:
    blind = Audit(audited=3, with_target=3, would_skip=0, missed=0, skipped=12)
    assert blind.skipped_with_target_at_most is None
    assert blind.missed_tiles_at_most is None
    assert Audit(audited=3, with_target=3, would_skip=0, missed=0, skipped=0).missed_tiles_at_most == 0


def _drawn_audit(chance: np.random.Generator, tiles: int, targets: int, missed: int, skipped: int) -> Audit:
    """The audit of a world of `tiles`, of which `targets` hold one; triage skips `skipped`, `missed` among them."""
    kinds = np.zeros((tiles, 2), bool)  # holds a target, would be skipped
    kinds[:targets, 0] = True
    kinds[:missed, 1] = True
    kinds[targets : targets + skipped - missed, 1] = True
    count = max(150, -(-tiles // 50))
    chosen = chance.choice(tiles, count, replace=False)
    target, skip = kinds[chosen].T
    return Audit(
        audited=count,
        with_target=int(target.sum()),
        would_skip=int(skip.sum()),
        missed=int((target & skip).sum()),
        skipped=skipped - int(skip.sum()),
    )


@pytest.mark.parametrize(
    ("tiles", "targets", "missed", "skipped"),
    [(2000, 40, 12, 1500), (400, 100, 20, 250), (20_000, 600, 90, 15_000), (300, 30, 30, 200)],
)
def test_over_drawn_worlds_the_bounds_hold_at_least_as_often_as_they_say(
    tiles: int, targets: int, missed: int, skipped: int
) -> None:
    chance, rounds = np.random.default_rng(6), 600
    share = tile_counts = given_share = 0
    for _ in range(rounds):
        audit = _drawn_audit(chance, tiles, targets, missed, skipped)
        if audit.missed_share_at_most is not None:
            given_share += 1
            share += audit.missed_share_at_most >= missed / targets
        left = missed - audit.missed
        assert audit.missed_tiles_at_most is not None
        tile_counts += audit.missed_tiles_at_most >= left
    assert share >= 0.93 * given_share > 0  # 0.95 less twice the error of so many rounds
    assert tile_counts >= 0.93 * rounds
