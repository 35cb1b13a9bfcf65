"""Vectors of tiles: of length one, of the seen core alone, the same whatever is asked beside."""

from __future__ import annotations

import dataclasses
import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import QueryError
from earthmap.metrics.likeness import chance, precision_at
from earthmap.predict.descriptor import BINS, describe
from earthmap.predict.oracle import OraclePredictor
from earthmap.predict.protocol import Picture, Predictor, TileInput
from earthmap.predict.spectral import SpectralPredictor
from earthmap.predict.vectors import LEAST_SEEN, vector_answer
from earthmap.sensors import SENSORS
from earthmap.sensors.masks import Reason
from earthmap.synthetic import CLASSES, World, truth_on
from earthmap.tasks import make_query
from tests.predict.conformance import changed, check_answer
from tests.worlds import clear_picture, middle_tile

EMBED = make_query("Embed this area.")
DAY = datetime.datetime(2024, 5, 4, tzinfo=datetime.UTC)
SIDE, CORE = 128, (slice(8, 120), slice(8, 120))
ALL = np.ones((112, 112), bool)


def picture(seed: int, sensor: str = "sentinel-2-l2a", *, high: float = 0.6) -> Picture:
    bands = SENSORS[sensor].bands
    data = np.random.default_rng(seed).uniform(1e-3, high, (len(bands), SIDE, SIDE)).astype(np.float32)
    mask = np.full((SIDE, SIDE), int(Reason.CLEAR), np.uint8)
    return Picture(sensor=sensor, observation="one", datetime=DAY, bands=bands, data=data, mask=mask)


def described(one: Picture, seen: np.ndarray = ALL) -> np.ndarray:
    vector = describe(one, seen, CORE)
    assert vector is not None
    return vector


def answer_of(predictor: Predictor, item: TileInput) -> np.ndarray:
    ((answer,),) = predictor.predict([item], [EMBED])
    check_answer(answer, EMBED, item)
    assert answer.embedding is not None
    return answer.embedding


# ── the descriptor ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sensor", sorted(SENSORS))
def test_every_sensor_has_one_length(sensor: str) -> None:
    high = 0.6 if SENSORS[sensor].calibrated and not sensor.startswith("thermal") else 255.0
    vectors = [described(picture(seed, sensor, high=high)) for seed in (0, 1)]
    lengths = {len(vector) for vector in vectors}
    expected = 6 if SENSORS[sensor].is_sar else 2 if sensor.startswith("thermal") else 8
    assert lengths == {expected * BINS}
    blocks = vectors[0].reshape(-1, BINS)
    norms = np.linalg.norm(blocks, axis=1)
    assert np.all((np.abs(norms - 1.0) < 0.3) | (norms == 0.0))
    assert (vectors[0] >= 0).all()


def test_what_is_unseen_or_beyond_the_core_does_not_matter() -> None:
    plain = picture(0)
    seen = ALL.copy()
    seen[40:, :] = False
    other = plain.data.copy()
    other[:, :4] = 9.0  # four rows of halo; the core begins at 8, and reaches one pixel beyond its edge
    other[:, 8 + 42 :] = np.nan
    np.testing.assert_array_equal(
        described(plain, seen), described(dataclasses.replace(plain, data=other), seen)
    )  # fmt: skip


def test_neither_the_order_of_bands_nor_that_of_dates_matters() -> None:
    plain = picture(3)
    turned = dataclasses.replace(plain, bands=plain.bands[::-1], data=plain.data[::-1].copy(), datetime=None)
    np.testing.assert_allclose(described(plain), described(turned), atol=1e-6)


@given(st.floats(0.5, 2.0))
def test_differences_do_not_follow_the_light(gain: float) -> None:
    dark = picture(5, high=0.4)
    data = np.maximum(dark.data, 0.01)
    pair = [described(dataclasses.replace(dark, data=data * np.float32(factor))) for factor in (1.0, gain)]
    np.testing.assert_allclose(pair[0][: 6 * BINS], pair[1][: 6 * BINS], atol=2e-2)


def test_a_band_that_is_missing_leaves_its_blocks_empty() -> None:
    plain = picture(7)
    kept = [place for place, band in enumerate(plain.bands) if band != "red"]
    less = dataclasses.replace(plain, bands=tuple(plain.bands[place] for place in kept), data=plain.data[kept])
    blocks = described(less).reshape(-1, BINS)
    assert [bool(block.any()) for block in blocks] == [False, True, True, True, False, True, True, True]
    nothing = dataclasses.replace(plain, data=np.full_like(plain.data, np.nan))
    assert describe(nothing, ALL, CORE) is None


def test_the_inner_product_is_bhattacharyyas() -> None:
    water, land = picture(0), picture(1)
    water = dataclasses.replace(water, data=np.full_like(water.data, 0.02))
    vectors = [np.asarray(vector_answer(described(one), ALL).embedding) for one in (water, water, land)]
    assert vectors[0] @ vectors[1] == pytest.approx(1.0, abs=1e-3)
    assert 0.0 <= vectors[0] @ vectors[2] < 0.5


# ── predictors ───────────────────────────────────────────────────────────────────────────────────────────────


def world_item(world: World) -> TileInput:
    return TileInput(tile=middle_tile(world), pictures=(clear_picture(middle_tile(world), world.before),))


@pytest.mark.parametrize("rules", [False, True])
def test_little_seen_ground_has_no_vector_and_a_reason(drawn_world: World, *, rules: bool) -> None:
    predictor: Predictor = SpectralPredictor() if rules else OraclePredictor(drawn_world)
    item = world_item(drawn_world)
    mask = np.full_like(item.pictures[0].mask, int(Reason.CLOUD))
    for rows, reason in ((0, "cloud"), (int(LEAST_SEEN * 112) - 2, "little_seen")):
        mask[8 : 8 + rows] = int(Reason.CLEAR)
        ((answer,),) = predictor.predict([changed(item, mask=mask)], [EMBED])
        assert (answer.status, answer.reason, answer.embedding) == ("skipped", reason, None)
        assert answer.message
    mask[: 8 + 40] = int(Reason.CLEAR)
    assert answer_of(predictor, changed(item, mask=mask)).any()


def test_the_oracles_vector_is_the_true_shares(drawn_world: World) -> None:
    item = world_item(drawn_world)
    assert item.tile is not None
    truth = truth_on(drawn_world, item.tile.core_geobox, drawn_world.before)
    shares = np.bincount(truth.ravel(), minlength=7)[1:] / truth.size
    vector = answer_of(OraclePredictor(drawn_world), item)
    assert len(vector) == len(CLASSES)
    np.testing.assert_allclose(vector**2, shares, atol=2e-4)


def test_a_vector_is_asked_for_without_targets() -> None:
    assert (EMBED.task, EMBED.targets, EMBED.choices, EMBED.shape) == ("embed", (), (), None)
    assert make_query("Find the ships", task="embed").task == "embed"
    assert make_query("Embed this area.", open_vocabulary=True) == EMBED
    for options in ({"targets": ["water"]}, {"choices": ["a", "b"]}, {"before": "2024-01"}):
        with pytest.raises(QueryError):
            make_query("Embed this area.", **options)


@pytest.mark.parametrize("sensor", ["sentinel-2-l2a", "sentinel-1-db"])
def test_drawn_tiles_of_one_kind_are_alike(sensor: str) -> None:
    """A good deal better than chance; docs/embed.md has the figures."""
    import torch

    from earthmap.evaluation.drawn import Look, draw_batch

    torch.set_num_threads(1)
    batch = draw_batch(Look(modality="any", sensors=(sensor,)), 40, first=(1 << 50) + 90_000)
    places = [place for place, facts in enumerate(batch.facts) if facts.seen[0] > 0.5]
    kinds = np.array([int(batch.facts[place].shares[0].argmax()) for place in places])
    answers = SpectralPredictor().predict([batch.items[place] for place in places], [EMBED])
    vectors = np.stack([np.asarray(answer.embedding) for (answer,) in answers])
    assert precision_at(vectors, kinds, 5).mean() > chance(kinds) + 0.2
