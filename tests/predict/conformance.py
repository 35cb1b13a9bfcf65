"""What every predictor must do: inherit `PredictorTests` and give the two fixtures."""

from __future__ import annotations

import dataclasses
import datetime
import math
import pickle

import numpy as np
import pytest

from earthmap.predict.protocol import Picture, Predictor, TileInput
from earthmap.sensors.masks import Reason
from earthmap.tasks.answer import STATUSES, UNSEEN, Answer
from earthmap.tasks.query import Query, make_query, mask_legend
from earthmap.tasks.registry import TASKS

ONE_DATE = (
    make_query("Is there any water?"),
    make_query("How much water is there?"),
    make_query("Where is water?"),
    make_query("Map water, trees and bare soil"),
)
TWO_DATES = (make_query("Where did water appear or disappear?"),)


def changed(item: TileInput, **values: object) -> TileInput:
    """`item` with fields of its first picture replaced."""
    first = dataclasses.replace(item.pictures[0], **values)  # type: ignore[arg-type]
    return TileInput(tile=item.tile, pictures=(first, *item.pictures[1:]))


def damaged(item: TileInput) -> dict[str, TileInput]:
    """The tile as it should never come."""
    picture = item.pictures[0]
    hole = picture.data.copy()
    hole[:, 10:60, 10:60] = np.inf
    return {
        "nothing measured": changed(item, data=np.full_like(picture.data, np.nan)),
        "infinite": changed(item, data=hole),
        "a band too few": changed(item, data=picture.data[:-1]),
        "another size": changed(item, data=picture.data[:, :-2], mask=picture.mask[:-2]),
        "no bands": changed(item, data=picture.data[:0], bands=()),
        "no picture": TileInput(tile=item.tile, pictures=()),
    }


def check_answer(answer: Answer, query: Query, item: TileInput, *, counts_pixels: bool = True) -> None:
    """The fields that a status promises, and no others.

    A presence has its share where pixels are counted, and a probability instead where a yes or no is scored.
    """
    side = item.tile.grid.core_px
    assert answer.status in STATUSES
    if answer.status != "answered":
        assert answer.reason
        assert answer.message
        assert (answer.stage is not None) == (answer.status == "failed")
        assert (answer.value, answer.fraction, answer.mask, answer.seen_px) == (None, None, None, 0)
        return
    assert answer.reason is None
    assert answer.stage is None
    assert 0 < answer.seen_px <= side * side
    assert answer.probability is None or 0.0 <= answer.probability <= 1.0
    if query.task == "presence" and not counts_pixels:
        assert answer.fraction is None
        assert answer.probability is not None
    elif TASKS[query.task].is_vector:
        assert answer.embedding is not None
        assert answer.value == f"{len(answer.embedding)} numbers"
        assert answer.embedding.dtype == np.float32
        assert np.linalg.norm(answer.embedding) == pytest.approx(1.0, abs=2e-3)
        assert answer.probability is None
    elif TASKS[query.task].merge == "instances":
        assert answer.value == str(len(answer.instances))
        assert len(answer.instance_scores) in (0, len(answer.instances))
    else:
        assert answer.fraction is not None
        assert 0.0 <= answer.fraction <= 1.0
    legend = mask_legend(query)
    if query.task == "presence":
        assert answer.value in ("yes", "no")
    elif query.task == "fraction":
        assert answer.value == f"{answer.fraction:.4f}"
    elif legend:
        assert answer.value in {*legend.values(), "none"}
    assert answer.mask is not None
    assert answer.mask.shape == (side, side)
    assert answer.mask.dtype == np.uint8
    assert set(np.unique(answer.mask).tolist()) <= {0, UNSEEN, *legend}
    assert answer.legend == legend
    seen = answer.mask != UNSEEN
    assert int(seen.sum()) == answer.seen_px
    if legend:
        assert math.isclose(answer.fraction, float((answer.mask[seen] > 0).mean()))


def same(one: Answer, other: Answer) -> bool:
    """Equal in every field, the mask included."""
    return one == other and (
        np.array_equal(one.mask, other.mask)
        if one.mask is not None and other.mask is not None
        else (one.mask is other.mask)
    )


class PredictorTests:
    """The promises of `earthmap.predict.protocol.Predictor`."""

    counts_pixels = True
    """Presence is found by counting pixels, not by scoring a yes and a no."""

    @pytest.fixture
    def predictor(self) -> Predictor:
        """A fresh predictor."""
        raise NotImplementedError

    @pytest.fixture
    def item(self) -> TileInput:
        """One tile on one date that the predictor can answer, in part or wholly seen."""
        raise NotImplementedError

    @pytest.fixture
    def pair(self, item: TileInput) -> TileInput:
        """The same tile on two dates."""
        later = dataclasses.replace(
            item.pictures[0],
            observation="later",
            datetime=item.pictures[0].datetime + datetime.timedelta(days=400),
        )
        return TileInput(tile=item.tile, pictures=(item.pictures[0], later))

    def test_one_list_for_each_tile_one_answer_for_each_query(
        self, predictor: Predictor, item: TileInput, pair: TileInput
    ) -> None:
        for items, queries in (([item] * 3, ONE_DATE), ([pair] * 2, TWO_DATES), ([], ONE_DATE), ([item], ())):
            answers = predictor.predict(items, queries)
            assert [len(row) for row in answers] == [len(queries)] * len(items)
            for row, asked in zip(answers, items, strict=True):
                for answer, query in zip(row, queries, strict=True):
                    assert answer.status == "answered", answer.message
                    check_answer(answer, query, asked, counts_pixels=self.counts_pixels)

    def test_answers_follow_the_order_of_the_queries(self, predictor: Predictor, item: TileInput) -> None:
        (forward,) = predictor.predict([item], ONE_DATE)
        (backward,) = predictor.predict([item], ONE_DATE[::-1])
        assert all(same(one, other) for one, other in zip(forward, backward[::-1], strict=True))

    def test_a_batch_is_answered_as_its_tiles_one_by_one(self, predictor: Predictor, item: TileInput) -> None:
        mask = item.pictures[0].mask.copy()
        mask[: mask.shape[0] // 2] = Reason.CLOUD
        items = [item, changed(item, mask=mask), item]
        batch = predictor.predict(items, ONE_DATE)
        for row, one in zip(batch, items, strict=True):
            for answer, query in zip(row, ONE_DATE, strict=True):
                assert same(answer, predictor.predict([one], [query])[0][0])

    def test_the_same_again(self, predictor: Predictor, item: TileInput) -> None:
        first, second = (predictor.predict([item], ONE_DATE)[0] for _ in range(2))
        assert all(same(one, other) for one, other in zip(first, second, strict=True))

    def test_the_input_is_left_as_it_was(self, predictor: Predictor, item: TileInput) -> None:
        before = pickle.dumps((item.pictures[0].data, item.pictures[0].mask))
        predictor.predict([item], ONE_DATE)
        assert pickle.dumps((item.pictures[0].data, item.pictures[0].mask)) == before

    def test_a_bad_tile_costs_itself_only(self, predictor: Predictor, item: TileInput) -> None:
        (good,) = predictor.predict([item], ONE_DATE)
        for name, bad in damaged(item).items():
            before, broken, after = predictor.predict([item, bad, item], ONE_DATE)
            for row in (before, after):
                assert all(same(one, other) for one, other in zip(row, good, strict=True)), name
            for answer, query in zip(broken, ONE_DATE, strict=True):
                assert answer.status != "answered", name
                check_answer(answer, query, bad, counts_pixels=self.counts_pixels)

    def test_the_number_of_dates_must_fit(self, predictor: Predictor, item: TileInput, pair: TileInput) -> None:
        for asked, queries in ((item, TWO_DATES), (pair, ONE_DATE)):
            for answer, query in zip(predictor.predict([asked], queries)[0], queries, strict=True):
                assert answer.status == "failed"
                check_answer(answer, query, asked, counts_pixels=self.counts_pixels)

    @pytest.mark.parametrize("reason", [Reason.NODATA, Reason.CLOUD])
    def test_nothing_seen_is_skipped_with_its_reason(
        self, predictor: Predictor, item: TileInput, reason: Reason
    ) -> None:
        hidden = changed(item, mask=np.full_like(item.pictures[0].mask, reason))
        for answer, query in zip(predictor.predict([hidden], ONE_DATE)[0], ONE_DATE, strict=True):
            assert (answer.status, answer.reason) == ("skipped", reason.label)
            check_answer(answer, query, hidden, counts_pixels=self.counts_pixels)

    def test_each_query_says_what_hides_the_ground(self, predictor: Predictor, item: TileInput) -> None:
        shaded = changed(item, mask=np.full_like(item.pictures[0].mask, Reason.SHADOW))
        through = make_query("Where is water?")
        not_through = make_query("Where is water?", unseen=["shadow"])
        seen, unseen = predictor.predict([shaded], [through, not_through])[0]
        assert seen.status == "answered"
        assert (unseen.status, unseen.reason) == ("skipped", "shadow")

    def test_only_the_mask_of_the_core_counts(self, predictor: Predictor, item: TileInput) -> None:
        halo = item.tile.grid.halo_px
        mask = np.full_like(item.pictures[0].mask, Reason.CLOUD)
        mask[halo : halo + 1, halo : halo + 5] = Reason.CLEAR
        (answer,) = predictor.predict([changed(item, mask=mask)], [make_query("Where is water?")])[0]
        assert answer.mask is not None
        assert answer.seen_px <= 5
        assert (answer.mask[1:] == UNSEEN).all()

    def test_the_key_is_stable(self, predictor: Predictor) -> None:
        assert predictor.key == predictor.key
        assert len(predictor.key) == 32
        assert pickle.loads(pickle.dumps(predictor)).key == predictor.key


__all__ = ["ONE_DATE", "TWO_DATES", "Picture", "PredictorTests", "changed", "check_answer", "damaged", "same"]
