"""A temperature changes how sure an answer calls itself and never the answer; at 1 it changes no byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.predict.replies import Look, Reply, make_answer
from earthmap.predict.temperature import temper, temper_one
from earthmap.tasks import Query, make_query
from earthmap.tasks.answer import Answer

TEMPERATURES = st.floats(0.05, 20.0)
CHOICES = ("harbour", "farm", "airport", "forest")
SHARES = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda shares: max(shares) > 1e-3)

LOOK = Look(side_px=32, core=(slice(0, 32), slice(0, 32)), seen=np.ones((32, 32), bool))
CHOOSE = make_query("What is this?", task="choose", choices=CHOICES, open_vocabulary=True)
LABEL = make_query("Which are there?", task="label", choices=CHOICES, open_vocabulary=True)
SHIPS = make_query("Find the ships.", task="detect", targets=("ship",), shape="box", open_vocabulary=True)
WHERE = make_query("Where is water?", task="segment", targets=("water",), shape="polygon", open_vocabulary=True)


def _normal(shares: list[float]) -> tuple[float, ...]:
    return tuple((np.array(shares) / sum(shares)).tolist())


@given(SHARES, TEMPERATURES)
def test_what_is_likelier_stays_likelier(shares: list[float], temperature: float) -> None:
    before = np.array(_normal(shares))
    after = temper(before, temperature)
    assert after.sum() == pytest.approx(1.0)
    order = np.argsort(before, kind="stable")
    assert (np.diff(after[order]) >= 0).all()
    assert after.argmax() == before.argmax() or after[before.argmax()] == after.max()
    assert ((after == 0) | (before > 0)).all()


@given(SHARES, TEMPERATURES)
def test_the_other_way_round_comes_back(shares: list[float], temperature: float) -> None:
    before = np.array(_normal([0.02 + share for share in shares]))
    if temperature > 0.3:  # colder ones round small shares to nothing
        np.testing.assert_allclose(temper(temper(before, temperature), 1 / temperature), before, atol=1e-6)


@given(st.integers(0, 2**20).map(lambda number: number / 2**20), TEMPERATURES)  # 1 - share is exact
def test_one_thing_is_so_or_is_not(share: float, temperature: float) -> None:
    told = temper_one(share, temperature)
    assert 0 <= told <= 1
    assert (told > 0.5) <= (share >= 0.5)
    assert told + temper_one(1 - share, temperature) == pytest.approx(1.0)


def _closed(shares: list[float]) -> Answer:
    return make_answer(CHOOSE, Reply(scores=(_normal(shares),)), LOOK)


@given(SHARES, TEMPERATURES)
def test_no_choice_changes(shares: list[float], temperature: float) -> None:
    reply = Reply(scores=(_normal(shares),))
    warm = make_answer(CHOOSE, reply, LOOK, temperature=temperature)
    assert warm.value == _closed(shares).value
    assert warm.probability == max(warm.scores.values())
    labels = Reply(scores=tuple((share, 1 - share) for share in shares))
    told, plain = (make_answer(LABEL, labels, LOOK, temperature=t) for t in (temperature, 1.0))
    assert told.value == plain.value
    for name, share in told.scores.items():
        assert (share > 0.5) <= (plain.scores[name] >= 0.5)


WRITTEN = Reply(
    pieces=("water:", "poly[0,0,500,0,500,500,0,500]", ";", "water:", "poly[400,400,1000,400,1000,1000,400,1000]"),
    log_probabilities=(-0.1, -0.2, 0.0, -0.01, -0.02),
)


@pytest.mark.parametrize(
    ("query", "reply"),
    [
        (CHOOSE, Reply(scores=((0.123456789, 0.5, 0.3, 0.076543211),))),
        (LABEL, Reply(scores=((0.9, 0.1), (0.2, 0.8), (0.5, 0.5), (1.0, 0.0)))),
        (SHIPS, Reply(pieces=("ship:", "box[0,0,500,500]"), log_probabilities=(-0.1, -0.2))),
        (WHERE, WRITTEN),
    ],
)
def test_at_one_no_byte_changes(query: Query, reply: Reply) -> None:
    plain, same, warm = (make_answer(query, reply, LOOK, temperature=t) for t in (1.0, 1.0, 2.0))
    assert repr(plain) == repr(same)
    assert plain == make_answer(query, reply, LOOK)
    assert warm.value == plain.value
    assert warm.instances == plain.instances
    assert warm.probability != plain.probability


def test_masks_are_painted_by_what_was_said_first(  # of equal scores the first is drawn: rounding must not make them so
) -> None:
    cold = make_answer(WHERE, WRITTEN, LOOK, temperature=0.05)
    assert cold.mask is not None
    np.testing.assert_array_equal(cold.mask, make_answer(WHERE, WRITTEN, LOOK).mask)
    assert list(cold.instance_scores) == sorted(cold.instance_scores)
