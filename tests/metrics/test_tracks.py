"""Following things: what counts is whether each keeps one identity."""

from __future__ import annotations

import shapely

from earthmap.metrics import score_identities


def box(x: float) -> shapely.Polygon:
    return shapely.box(x, 0.0, x + 1.0, 1.0)


ONE = {day: box(2.0 * day) for day in range(4)}
OTHER = {day: box(20.0 - 2.0 * day) for day in range(4)}


def test_the_truth_is_perfect_in_any_order() -> None:
    score = score_identities([OTHER, ONE], [ONE, OTHER])
    assert (score.f1, score.pairs) == (1.0, ((0, 1), (1, 0)))


def test_a_thing_taken_for_two_is_right_for_the_longer_half() -> None:
    parts = [{day: ONE[day] for day in (0, 1, 2)}, {3: ONE[3]}]
    assert score_identities(parts, [ONE]).f1 == 2 * 3 / 8


def test_things_that_swap_identities_are_half_right() -> None:
    swapped = [{day: (ONE, OTHER)[(day > 1) ^ turn][day] for day in range(4)} for turn in (False, True)]
    assert score_identities(swapped, [ONE, OTHER]).f1 == 0.5


def test_nothing() -> None:
    assert score_identities([], []).f1 == 1.0
    assert score_identities([ONE], []).f1 == 0.0
    assert score_identities([], [ONE]).f1 == 0.0
