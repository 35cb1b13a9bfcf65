"""Intervals hold the truth as often as they say, constants are the best ones, and cards get what is evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import ModelError
from earthmap.evaluation import Measured, headline, table, write_figures
from earthmap.evaluation.figures import MIN_PLACES
from earthmap.metrics import interval
from earthmap.model import Card, read_card, write_card


def measured(*scores: float, places: int | None = None, **changes: Any) -> Measured:
    """Scores of one task, at as many places as there are, or at a few in turn."""
    values: dict[str, Any] = {
        "task": "presence",
        "sensors": ("sentinel-2-l2a",),
        "metric": "accuracy",
        "data": "a test",
        "places": tuple(str(number % (places or len(scores))) for number in range(len(scores))),
        "model": np.array(scores, np.float64),
        "constant": np.full(len(scores), 0.5),
    }
    return Measured(**{**values, **changes})


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=40))
def test_an_interval_holds_its_score(answers: list[tuple[float, int]]) -> None:
    scores, places = np.array([score for score, _ in answers]), [str(place) for _, place in answers]
    low, high = interval(scores, places)
    assert 0.0 <= low <= high <= 1.0
    assert low - 1e-9 <= scores.mean() <= high + 1e-9


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    dice = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        low, high = interval((dice.random(60) < 0.8).astype(float), [str(n) for n in range(60)])
        held += low <= 0.8 <= high
    assert held >= 178


def test_answers_about_one_place_are_not_independent() -> None:
    scores = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0], 50)
    apart = interval(scores, [str(n) for n in range(400)])
    together = interval(scores, [str(n // 50) for n in range(400)])
    assert together[1] - together[0] > 3 * (apart[1] - apart[0])


def test_all_right_is_not_certain() -> None:
    assert interval(np.ones(8), list("abcdefgh"))[0] == pytest.approx(0.025 ** (1 / 8))
    assert interval(np.zeros(8), list("abcdefgh"))[1] == pytest.approx(1 - 0.025 ** (1 / 8))
    assert interval(np.ones(8), ["a"] * 8) == (0.0, 1.0)


def test_what_proves_nothing_stays_out_of_the_card(tmp_path: Path) -> None:
    write_card(Card(preset="nano", tile_sizes=(128,)), tmp_path)
    good = measured(*[1.0] * 30)
    bad = measured(*[0.2] * 30, task="classify")
    easy = measured(*[1.0] * 30, task="fraction", constant=np.ones(30))
    few = measured(*[1.0] * 30, places=MIN_PLACES - 1, task="segment")
    fused = measured(*[1.0] * 30, task="count", sensors=("sentinel-2-l2a", "sentinel-1-db"))
    later = measured(*[0.0] * 30)
    write_figures(tmp_path, real=[good, bad, easy, few, fused, later])
    card = read_card(tmp_path)
    assert {(figure.task, figure.score) for figure in card.answers} == {("presence", 1.0), ("classify", 0.2)}
    assert card.refusal("classify", "sentinel-2-l2a") is not None
    assert card.refusal("presence", "sentinel-2-l2a") is None
    assert card.prefers("presence", "sentinel-2-l2a")


def test_what_a_flawless_model_could_not_show_is_no_evidence() -> None:
    """Nine places where "yes" is right in eight of nine: nine right answers would prove nothing."""
    assert not measured(*[1.0] * 9, constant=np.array([1.0] * 8 + [0.0])).is_evidence
    assert measured(*[1.0] * 9, constant=np.array([1.0] * 5 + [0.0] * 4)).is_evidence
    assert measured(*[0.99] * 9, constant=np.full(9, 0.94)).is_evidence, "right by degrees"


def test_drawn_figures_can_refuse_and_never_vouch(tmp_path: Path) -> None:
    write_card(Card(), tmp_path)
    write_figures(tmp_path, drawn=[measured(*[0.4] * 30), measured(*[1.0] * 30, task="classify")])
    card = read_card(tmp_path)
    assert card.answers == ()
    assert card.refusal("presence", "sentinel-2-l2a") is not None
    assert card.refusal("presence", "thermal") is not None, "what beats no constant for any sensor is asked of none"
    assert card.refusal("classify", "thermal") is None
    assert card.refusal("caption", "thermal") is None, "never measured"
    assert card.supports("classify", "sentinel-2-l2a")
    assert not card.supports("classify", "thermal")
    assert card.figure("classify", "sentinel-2-l2a") is None
    assert not card.prefers("classify", "sentinel-2-l2a")
    write_figures(tmp_path, real=[measured(*[1.0] * 30)])
    assert read_card(tmp_path).refusal("presence", "sentinel-2-l2a") is None, "real scenes decide where they tell"
    assert len(read_card(tmp_path).drawn) == 2


def test_spectral_counts_where_it_can_answer() -> None:
    some = np.where(np.arange(30) < 20, 0.8, np.nan)
    assert measured(*[0.7] * 30, spectral=some).figure.spectral == 0.8
    rare = np.where(np.arange(30) < 10, 0.8, np.nan)
    assert measured(*[0.7] * 30, spectral=rare).figure.spectral is None
    assert not measured(*[0.7] * 30, spectral=some).figure.is_preferred


def test_the_table_is_markdown_of_one_width() -> None:
    lines = table([measured(0.0, 1.0, 1.0), measured(1.0, 1.0, sensors=("a", "b"), dates=2)]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "a + b, 2 dates" in lines[3]
    assert "proves nothing" in lines[2]


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="as many of each"):
        measured(1.0, 0.0, constant=np.zeros(3))
    assert headline([]) == ()
