"""What answers state is read as it was said; half of the places tell what a temperature of the other half does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import shapely

from earthmap.evaluation import Exam, Look, calibrate, calibrate_looks, calibration_table, said_in, state_drawn
from earthmap.evaluation.calibrating import FIRST_CALIBRATION_SEED, LEAST_ANSWERS
from earthmap.evaluation.drawn import FIRST_SEED
from earthmap.evaluation.exams import BOX, CHOICE, LABELS, MASK, THINGS, Rule
from earthmap.metrics.calibration import Said, Stated
from earthmap.predict.protocol import TileInput
from earthmap.predict.replies import Look as Seen
from earthmap.predict.replies import Reply, make_answer
from earthmap.tasks import Query, make_query
from earthmap.tasks.answer import Answer
from earthmap.tasks.serialization import Instance

SEEN = Seen(side_px=32, core=(slice(0, 32), slice(0, 32)), seen=np.ones((32, 32), bool))
FARM = make_query("What is this?", task="choose", choices=("harbour", "farm"), open_vocabulary=True)


def _exam(rule: Rule, **truths: object) -> Exam:
    return Exam(query=FARM, rule=rule, truths={int(tile[1:]): true for tile, true in truths.items()})


def test_a_choice_is_one_answer() -> None:
    answer = make_answer(FARM, Reply(scores=((0.3, 0.7),)), SEEN)
    (right, wrong) = said_in(_exam(CHOICE, t0="farm", t1="harbour"), {0: answer, 1: answer}, first=10)
    assert right == Said(shares=(0.3, 0.7), true=1, said=1, place="10")
    assert wrong == Said(shares=(0.3, 0.7), true=0, said=1, place="11")


def test_each_label_is_one_answer() -> None:
    query = make_query("Which are there?", task="label", choices=("harbour", "farm"), open_vocabulary=True)
    answer = make_answer(query, Reply(scores=((0.9, 0.1), (0.2, 0.8))), SEEN)
    harbour, farm = said_in(_exam(LABELS, t0=frozenset({"farm"})), {0: answer})
    assert (harbour.said, harbour.true) == (0, 1)
    assert (farm.said, farm.true) == (1, 0)
    assert farm.shares == pytest.approx((0.2, 0.8))


def test_each_thing_is_right_where_it_meets_a_true_one_by_half() -> None:
    boxes = (shapely.box(0, 0, 0.5, 0.5), shapely.box(0.6, 0.6, 0.9, 0.9))
    instances = tuple(Instance(kind="box", geometry=box, label="ship") for box in boxes)
    answer = Answer(status="answered", value="2", instances=instances, instance_scores=(0.8, 0.4))
    for rule, true in ((THINGS, [shapely.box(0, 0, 0.5, 0.45)]), (BOX, shapely.box(0, 0, 0.5, 0.45))):
        first, second = said_in(_exam(rule, t0=true), {0: answer})
        assert (first.shares[0], first.true, first.said) == (0.8, 0, 0)
        assert (second.shares[0], second.true, second.said) == (0.4, 1, 0)


def test_a_mask_is_right_where_it_meets_the_true_one_by_half_and_what_was_skipped_says_nothing() -> None:
    half = np.zeros((4, 4), np.uint8)
    half[:2] = 1
    answer = Answer(status="answered", value="water", mask=half, probability=0.7, legend={1: "water"})
    skipped = Answer(status="skipped", reason="cloud")
    right, wrong = said_in(_exam(MASK, t0=half, t1=1 - half, t2=half), {0: answer, 1: answer, 2: skipped})
    assert (right.true, wrong.true) == (0, 1)


def _stated(count: int, heat: float = 2.0) -> Stated:
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 0.99, count)
    hot = sure**heat / (sure**heat + (1 - sure) ** heat)
    true = (random.random(count) > sure).astype(int)
    rows = zip(hot.tolist(), true.tolist(), strict=True)
    return Stated.of([Said(shares=(p, 1 - p), true=t, said=0, place=str(n // 2)) for n, (p, t) in enumerate(rows)])


def test_what_is_too_sure_is_cooled_and_told_by_places_that_it_was_not_fitted_on() -> None:
    found = calibrate("presence", "sentinel-2-l2a", _stated(4000), domain="drawn tiles, here")
    assert found is not None
    assert found.temperature == pytest.approx(2.0, rel=0.1)
    assert (found.fitted, found.tested, found.places) == (2000, 2000, 1000)
    assert found.log_loss.high < 0
    assert found.error.after < found.error.before
    assert sum(row.answers for row in found.before) == sum(row.answers for row in found.after) == 2000
    assert "| presence | sentinel-2-l2a | " in calibration_table([found])


def test_few_answers_and_few_places_tell_no_temperature() -> None:
    assert calibrate("presence", None, _stated(2 * LEAST_ANSWERS - 20), domain="") is None
    stated = _stated(4000)
    few = Stated(stated.shares, stated.true, stated.said, np.char.mod("%d", np.arange(4000) % 40))
    assert calibrate("presence", None, few, domain="") is None


class Unsure:
    """Says of everything that it is the first choice, or there, with 0.9."""

    key = "unsure"

    def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        return [[self._answer(query) for query in queries] for _ in inputs]

    def _answer(self, query: Query) -> Answer:
        if query.task == "label":
            return make_answer(query, Reply(scores=((0.9, 0.1),) * len(query.choices)), SEEN)
        others = (len(query.choices) or 2) - 1
        return make_answer(query, Reply(scores=((0.9, *[0.1 / others] * others),)), SEEN)


@pytest.mark.slow
def test_drawn_tiles_of_two_looks_tell_each_and_both_together() -> None:
    looks = [
        Look(modality="multispectral", sensors=("sentinel-2-l2a",)),
        Look(modality="multispectral", sensors=("landsat-c2-l2",)),
    ]
    found = calibrate_looks(Unsure(), looks=looks, tiles=72)
    by_kind = {(one.task, one.sensor): one for one in found}
    assert {("presence", None), ("label", None), ("label", "sentinel-2-l2a"), ("label", "landsat-c2-l2")} <= set(
        by_kind
    )
    presence = by_kind["presence", None]
    assert presence.temperature > 5, "it is right in half of the cases, whatever it says"
    assert presence.domain == f"72 drawn tiles, 2 ways of seeing, seeds from {FIRST_CALIBRATION_SEED}"
    assert sum(row.answers for row in presence.after) == presence.tested
    seen = state_drawn(looks[0], model=Unsure(), tiles=4, written=0, first=FIRST_CALIBRATION_SEED)
    assert {int(one.place) - FIRST_CALIBRATION_SEED for one in seen["label"]} <= set(range(4))
    assert FIRST_CALIBRATION_SEED > FIRST_SEED + 100_000, "figures are measured on other tiles"
