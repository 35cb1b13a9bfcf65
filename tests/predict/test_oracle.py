"""The oracle's answers are the truth, pixel by pixel, wherever the pictures showed the ground."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from earthmap.grid.tiling import Tile
from earthmap.predict import OraclePredictor, Predictor, SpectralPredictor, TileInput, build_predictor
from earthmap.sensors.masks import Reason
from earthmap.synthetic import CLASSES, World, small_world, truth_on
from earthmap.tasks import LAND_COVER_TASKS, TARGETS, TASKS, make_query
from earthmap.tasks.answer import UNSEEN, Answer
from tests.predict.conformance import PredictorTests, changed, check_answer
from tests.worlds import clear_picture, middle_tile


def one_date(world: World) -> TileInput:
    tile = middle_tile(world)
    return TileInput(tile=tile, pictures=(clear_picture(tile, world.before),))


def two_dates(world: World) -> TileInput:
    tile = middle_tile(world)
    return TileInput(tile=tile, pictures=(clear_picture(tile, world.before), clear_picture(tile, world.after)))


def ask(world: World, item: TileInput, question: str, **options: object) -> Answer:
    query = make_query(question, **options)  # type: ignore[arg-type]
    return OraclePredictor(world).predict([item], [query])[0][0]


class TestOracle(PredictorTests):
    @pytest.fixture
    def predictor(self, drawn_world: World) -> Predictor:
        return OraclePredictor(drawn_world)

    @pytest.fixture
    def item(self, drawn_world: World) -> TileInput:
        return one_date(drawn_world)


class TestSpectral(PredictorTests):
    @pytest.fixture
    def predictor(self) -> Predictor:
        return SpectralPredictor()

    @pytest.fixture
    def item(self, drawn_world: World) -> TileInput:
        return one_date(drawn_world)


@pytest.mark.parametrize("rules", [False, True])
def test_what_land_cover_cannot_answer_is_skipped(drawn_world: World, *, rules: bool) -> None:
    predictor: Predictor = SpectralPredictor() if rules else OraclePredictor(drawn_world)
    asked = [make_query(row.example, task=row.id, open_vocabulary=True) for row in TASKS.values()]
    asked += [make_query("Is the runway long?", open_vocabulary=True), make_query("Map ships", open_vocabulary=True)]
    for query, answer in zip(asked, predictor.predict([one_date(drawn_world)], asked)[0], strict=True):
        check_answer(answer, query, one_date(drawn_world))
        if not rules and TASKS[query.task].merge == "instances" and query.targets == ("ship",):
            found = ("answered", "0") if query.dates == 1 else ("failed", None)  # a world without ships; one date
            assert (answer.status, answer.value) == found
        elif TASKS[query.task].is_vector:
            assert answer.status == "answered"
        elif query.task not in LAND_COVER_TASKS or not set(query.targets) <= set(TARGETS) or not query.targets:
            assert (answer.status, answer.reason) == ("skipped", "not_supported")
            assert "vision-language model" in str(answer.message)
        else:
            assert answer.status == ("failed" if query.dates == 2 else "answered")


def test_classes_are_the_targets() -> None:
    assert CLASSES == TARGETS


def test_a_mask_is_the_truth(drawn_world: World) -> None:
    item = one_date(drawn_world)
    truth = truth_on(drawn_world, item.tile.core_geobox, drawn_world.before)
    answer = ask(drawn_world, item, "map it", task="segment", targets=TARGETS)
    np.testing.assert_array_equal(answer.mask, truth)
    assert (answer.fraction, answer.probability) == (1.0, 1.0)
    assert answer.value == CLASSES[np.bincount(truth.ravel(), minlength=7)[1:].argmax()]
    some = ask(drawn_world, item, "map it", task="segment", targets=["bare", "water"])
    np.testing.assert_array_equal(some.mask, np.where(truth == 1, 1, np.where(truth == 3, 2, 0)))


def test_shares_and_presence_are_those_of_the_seen_truth(drawn_world: World) -> None:
    item = one_date(drawn_world)
    truth = truth_on(drawn_world, item.tile.core_geobox, drawn_world.before)
    halo = item.tile.grid.halo_px
    mask = np.full_like(item.pictures[0].mask, Reason.CLEAR)
    mask[halo : halo + 40] = Reason.CLOUD
    item = changed(item, mask=mask)
    for code, name in enumerate(CLASSES, 1):
        share = float((truth[40:] == code).mean())
        fraction = ask(drawn_world, item, "how much", task="fraction", targets=[name])
        presence = ask(drawn_world, item, "is there", task="presence", targets=[name])
        assert fraction.value == f"{share:.4f}"
        assert fraction.seen_px == truth[40:].size
        assert presence.value == ("yes" if share else "no")


def test_change_is_the_flood(drawn_world: World) -> None:
    item = two_dates(drawn_world)
    box = item.tile.core_geobox
    before, after = (truth_on(drawn_world, box, date) for date in (drawn_world.before, drawn_world.after))
    answer = ask(drawn_world, item, "Where did water appear or disappear?")
    np.testing.assert_array_equal(answer.mask, before != after)
    assert answer.value == "water gained"
    every = ask(drawn_world, item, "What changed?")
    assert every.mask is not None
    assert set(np.unique(every.mask).tolist()) == {0, 1}  # a gain is drawn over the loss that it is
    lost = ask(drawn_world, item, "what changed", task="change", targets=["vegetation"])
    np.testing.assert_array_equal(lost.mask == 2, (before == 2) & (after == 1))
    swapped = ask(drawn_world, dataclasses.replace(item, pictures=item.pictures[::-1]), "Where did water disappear?")
    assert swapped.value == "water lost"


def test_a_pixel_unseen_on_either_date_is_unseen(drawn_world: World) -> None:
    item = two_dates(drawn_world)
    halo, side = item.tile.grid.halo_px, item.tile.grid.core_px
    mask = item.pictures[0].mask.copy()
    mask[:, halo : halo + 10] = Reason.CLOUD
    data = item.pictures[1].data.copy()
    data[:, :, halo + side - 5 :] = np.nan
    pictures = (
        dataclasses.replace(item.pictures[0], mask=mask),
        dataclasses.replace(item.pictures[1], data=data),
    )
    answer = ask(drawn_world, TileInput(tile=item.tile, pictures=pictures), "Where did water appear?")
    assert answer.mask is not None
    assert (answer.mask[:, :10] == UNSEEN).all()
    assert (answer.mask[:, -5:] == UNSEEN).all()
    assert (answer.mask[:, 10:-5] != UNSEEN).all()


def test_the_more_frequent_reason_is_told(drawn_world: World) -> None:
    item = one_date(drawn_world)
    halo = item.tile.grid.halo_px
    for rows, reason in ((30, "cloud"), (80, "nodata")):
        mask = np.full_like(item.pictures[0].mask, Reason.CLOUD)
        mask[halo : halo + rows] = Reason.NODATA
        assert ask(drawn_world, changed(item, mask=mask), "Where is water?").reason == reason


def test_beyond_the_world_nothing_is_seen(drawn_world: World) -> None:
    item = one_date(drawn_world)
    tile = item.tile
    far = Tile(tile.grid, tile.zone, tile.row + 40, tile.column)
    answer = ask(drawn_world, TileInput(tile=far, pictures=item.pictures), "Where is water?")
    assert (answer.status, answer.reason) == ("skipped", "nodata")


def test_keys_follow_the_world(drawn_world: World) -> None:
    spec = {"name": "oracle", "world": drawn_world.to_json()}
    assert build_predictor(spec).key == OraclePredictor(drawn_world).key
    assert OraclePredictor(small_world(2)).key != OraclePredictor(drawn_world).key
