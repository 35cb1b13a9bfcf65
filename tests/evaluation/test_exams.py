"""Exams: what is asked is scored as it should be, and the constant beside it is the best there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from earthmap.evaluation import LOOKS, Exam, ask_all, balanced, best_constant, draw_batch, is_written, mark, take
from earthmap.evaluation.drawn import FIRST_SEED
from earthmap.evaluation.exams import BOX, CHOICE, COUNT, EXTENT, MASK, SHARE, THINGS
from earthmap.metrics import f1_at_half, overlap
from earthmap.predict import Picture, SpectralPredictor, TileInput
from earthmap.tasks import Answer, Query, make_query
from earthmap.tasks.serialization import Instance


def query(text: str, **options: Any) -> Query:
    return make_query(text, open_vocabulary=True, **options)


PICTURE = Picture(
    sensor="optical-uncalibrated", observation="one", datetime=None, bands=("red", "green", "blue"),
    data=np.zeros((3, 32, 32), np.float32), mask=np.zeros((32, 32), np.uint8),
)  # fmt: skip
ITEMS = [TileInput(tile=None, pictures=(PICTURE,)) for _ in range(40)]


class Told:
    """Gives the answers that it was told, in the order of the tiles, and notes what it was asked."""

    key = "told"

    def __init__(self, **values: Sequence[Any]) -> None:
        self.values = values
        self.asked: list[tuple[int, tuple[str, ...]]] = []

    def predict(self, inputs: Sequence[TileInput], queries: Sequence[Query]) -> list[list[Answer]]:
        self.asked.append((len(inputs), tuple(one.task for one in queries)))
        numbers = [next(n for n, item in enumerate(ITEMS) if item is one) for one in inputs]
        return [[self.values[one.task][number] for one in queries] for number in numbers]


def said(**fields: Any) -> Answer:
    return Answer(status="answered", **fields)


def test_questions_are_asked_once_and_quick_ones_together() -> None:
    truths = dict.fromkeys(range(20), "yes")
    masks = {n: np.ones((32, 32), np.uint8) for n in range(3)}
    exams = [
        Exam(query=query("Is there any water?"), rule=CHOICE, truths=truths),
        Exam(query=query("How much is water?"), rule=SHARE, truths={5: 0.5}),
        Exam(query=query("Where did water appear?"), rule=MASK, truths=masks),
        Exam(query=query("Where did water appear?"), rule=EXTENT, truths=masks),
    ]
    told = Told(
        presence=[said(value="yes")] * 40, fraction=[said(fraction=0.4)] * 40,
        change=[said(mask=np.ones((32, 32), np.uint8))] * 40,
    )  # fmt: skip
    answers = ask_all(told, ITEMS, exams)
    assert told.asked == [(16, ("presence", "fraction")), (4, ("presence", "fraction")), (3, ("change",))]
    assert [len(one) for one in answers] == [20, 1, 3, 3]
    rows = mark(take(exams, ITEMS, model=told, spectral=None, places=[str(n) for n in range(40)], data="a test"))
    assert {(row.task, row.metric): row.figure.score for row in rows} == {
        ("presence", "accuracy"): 1.0,
        ("fraction", "1 − error of the share"): 0.9,
        ("change", "mask IoU"): 1.0,
        ("change", "extent P@0.5"): 1.0,
    }


def test_what_is_not_answered_is_wrong_and_spectral_is_compared_where_it_answers() -> None:
    exam = Exam(query=query("Is there any water?"), rule=CHOICE, truths={0: "yes", 1: "no", 2: "no"})
    model = Told(presence=[said(value="yes"), Answer(status="skipped", reason="nodata"), said(value="no")])
    other = Told(presence=[said(value="yes"), said(value="no"), Answer(status="failed", reason="model")])
    (row,) = mark(take([exam], ITEMS, model=model, spectral=other, places=list("abc"), data="a test"))
    assert row.model.tolist() == [1.0, 0.0, 1.0]
    assert row.spectral is not None
    assert np.isnan(row.spectral).tolist() == [False, False, True]
    assert row.constant.tolist() == [0.0, 1.0, 1.0]


@given(st.dictionaries(st.integers(0, 99), st.sampled_from(["yes", "no", "maybe"])))
def test_balanced_truths_leave_a_constant_nothing(truths: dict[int, str]) -> None:
    kept = balanced(truths)
    assert kept.items() <= truths.items()
    counts = {value: list(kept.values()).count(value) for value in kept.values()}
    assert len(set(counts.values())) <= 1
    if kept:
        assert best_constant(CHOICE, list(kept.values())).mean() == pytest.approx(1 / len(set(truths.values())))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_no_constant_share_is_nearer_than_the_median(shares: list[float]) -> None:
    best = best_constant(SHARE, shares).mean()
    assert all(np.mean([1 - abs(guess - true) for true in shares]) <= best + 1e-9 for guess in np.linspace(0, 1, 21))


def test_shapes_and_masks_are_scored() -> None:
    box = shapely.box(0.1, 0.1, 0.5, 0.5)
    answer = said(value="1", instances=(Instance(kind="box", geometry=shapely.box(0.1, 0.1, 0.5, 0.45)),))
    assert BOX.grade(BOX.read(answer), box) == 1.0
    assert BOX.grade(BOX.read(said(value="0")), box) == 0.0
    assert THINGS.grade(THINGS.read(answer), [box, shapely.box(0.6, 0.6, 0.7, 0.7)]) == pytest.approx(2 / 3)
    assert COUNT.grade(COUNT.read(answer), "1") == 1.0
    true = np.zeros((32, 32), np.uint8)
    true[:8] = 1
    half = np.where(np.arange(32)[:, None] < 16, np.uint8(1), np.uint8(0)) * np.ones((1, 32), np.uint8)
    half[8:12] = 255
    assert MASK.grade(half, true) == pytest.approx(8 / 12)
    assert EXTENT.grade(half, true) == 1.0
    assert MASK.grade(None, true) == 0.0


@given(
    st.lists(st.tuples(*[st.integers(0, 8)] * 4), max_size=5), st.lists(st.tuples(*[st.integers(0, 8)] * 4), max_size=5)
)
def test_overlaps_and_f1_know_no_side(first: list[Any], second: list[Any]) -> None:
    one, other = ([shapely.box(x, y, x + w + 1, y + h + 1) for x, y, w, h in boxes] for boxes in (first, second))
    assert f1_at_half(one, other) == pytest.approx(f1_at_half(other, one))
    assert f1_at_half(one, one) == 1.0
    assert all(overlap(left, right) == overlap(right, left) for left in one for right in other)


def test_a_bow_tie_has_an_overlap() -> None:
    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    assert 0.0 < overlap(bow, shapely.box(0, 0, 2, 2)) < 1.0
    assert overlap(shapely.Point(0, 0), shapely.Point(0, 0)) == 0.0


def test_written_answers_are_known() -> None:
    assert is_written(query("Where is water?"))
    assert is_written(query("How many ships are there?"))
    assert not is_written(query("How much is water?"))
    assert not is_written(query("What kind of change is this?", task="change-type"))


def test_held_out_tiles_are_of_no_training_seed() -> None:
    batch = draw_batch(LOOKS[0], 3)
    assert min(batch.tiles.recipe.seeds) >= FIRST_SEED > (1 << 48) + 256
    assert [item.side_px for item in batch.items] == [128] * 3
    assert all(item.fault is None for item in batch.items)


def test_spectral_on_drawn_tiles_beats_the_constant_of_shares() -> None:
    """The whole way with a predictor that needs no weights."""
    from earthmap.evaluation import measure_drawn

    spectral = SpectralPredictor()
    rows = measure_drawn(LOOKS[0], model=spectral, spectral=spectral, tiles=24, written=4)
    by_task = {row.task: row.figure for row in rows}
    assert {"presence", "fraction", "classify", "segment"} <= set(by_task)
    assert by_task["fraction"].score > by_task["fraction"].constant
    assert by_task["fraction"].score == pytest.approx(by_task["fraction"].spectral, abs=1e-3)
    assert by_task["classify"].score == 0.0, "it cannot choose"
    assert by_task["classify"].spectral is None


def test_a_constant_is_one_answer_to_all_scenes() -> None:
    """Yes in the flood and no in the desert is right on both, and no constant."""
    told = Told(presence=[said(value="yes")] * 40)
    papers = [
        paper
        for name, true in (("flood", "yes"), ("desert", "no"))
        for paper in take(
            [Exam(query=query("Is there any water?"), rule=CHOICE, truths=dict.fromkeys(range(4), true))],
            ITEMS,
            model=told,
            spectral=None,
            places=[f"{name} {n}" for n in range(40)],
            data=name,
        )
    ]
    (row,) = mark(papers)
    assert row.data == "flood; desert"
    assert row.figure.constant == 0.5
    assert [mark([paper])[0].figure.constant for paper in papers] == [1.0, 1.0]
