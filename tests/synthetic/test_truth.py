"""A drawn world is a function of ground position, and says the same on every lattice."""

from __future__ import annotations

import dataclasses
import datetime
import time

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from earthmap.errors import CatalogError
from earthmap.synthetic import CLASSES, World, demo_world, small_world, true_km2, truth_on
from earthmap.synthetic.truth import OUTSIDE
from tests.worlds import cropped

WORLD = small_world()
WEST, SOUTH, EAST, NORTH = WORLD.bounds


def lattice(world: World, pixel_m: float) -> GeoBox:
    west, south, east, north = world.bounds
    shape = (round((north - south) / pixel_m), round((east - west) / pixel_m))
    return GeoBox(shape, Affine(pixel_m, 0, west, 0, -pixel_m, north), f"EPSG:{world.epsg}")


def test_json_round_trip() -> None:
    for world in (WORLD, demo_world(), small_world(9, place=(-70.0, -33.0), resolution_m=2.5, cloud_share=0.0)):
        assert World.from_json(world.to_json()) == world
        assert World.from_dict(world.to_dict()).content_key() == world.content_key()
        assert World.from_json(world.to_json()).to_json() == world.to_json()


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"seed": 1}', '{"seed": 1, "colour": "blue"}'])
def test_what_is_no_world_is_refused(text: str) -> None:
    with pytest.raises(CatalogError):
        World.from_json(text)


@pytest.mark.parametrize(
    "change",
    [
        {"bounds": (10.0, 0.0, 0.0, 10.0)},
        {"after": WORLD.before},
        {"before": datetime.datetime(2024, 1, 1)},
        {"cloudy": "always"},
        {"cloud_share": 1.0},
        {"resolution_m": 0.0},
    ],
)
def test_impossible_worlds_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(CatalogError):
        dataclasses.replace(WORLD, **change)  # type: ignore[arg-type]


@given(
    points=st.lists(st.tuples(st.floats(WEST, EAST), st.floats(SOUTH, NORTH)), min_size=1, max_size=40),
    after=st.booleans(),
)
def test_a_point_is_the_same_in_any_company(points: list[tuple[float, float]], after: bool) -> None:
    date = WORLD.after if after else WORLD.before
    x, y = (np.array(values) for values in zip(*points, strict=True))
    together = WORLD.classes(x, y, date)
    assert together.shape == x.shape
    np.testing.assert_array_equal(together, [WORLD.classes(x[i : i + 1], y[i : i + 1], date)[0] for i in range(len(x))])
    crossed = WORLD.classes(x[None, :], y[:, None], date)
    np.testing.assert_array_equal(np.diagonal(crossed), together)


def test_any_shape_can_be_asked() -> None:
    assert WORLD.classes(np.array(WEST + 5), np.array(SOUTH + 5), WORLD.before).shape == ()
    assert WORLD.classes(np.zeros((0,)), np.zeros((0,)), WORLD.before).shape == (0,)
    assert WORLD.classes(np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), WORLD.before).shape == (2, 3, 4)
    assert WORLD.classes(np.zeros((0, 5)), np.zeros((0, 5)), WORLD.before).shape == (0, 5)


def test_a_part_of_a_lattice_is_part_of_the_whole() -> None:
    whole = lattice(WORLD, 10)
    truth = truth_on(WORLD, whole, WORLD.after)
    np.testing.assert_array_equal(
        truth_on(WORLD, cropped(whole, (40, 200), (100, 170)), WORLD.after), truth[40:200, 100:170]
    )


def test_another_crs_shows_the_same_ground() -> None:
    west, south, east, north = WORLD.area.bounds
    shape = (700, 500)
    affine = Affine((east - west) / shape[1], 0, west, 0, (south - north) / shape[0], north)
    turned = truth_on(WORLD, GeoBox(shape, affine, "EPSG:4326"), WORLD.before)
    straight = truth_on(WORLD, lattice(WORLD, 10), WORLD.before)
    shares = [np.bincount(each[each != OUTSIDE], minlength=7) / (each != OUTSIDE).sum() for each in (turned, straight)]
    assert (turned != OUTSIDE).mean() > 0.9
    np.testing.assert_allclose(shares[0], shares[1], atol=0.005)


def test_areas_add_up_to_the_world_and_the_flood_is_water() -> None:
    before, after = true_km2(WORLD, WORLD.before), true_km2(WORLD, WORLD.after)
    assert sum(before.values()) == pytest.approx(WORLD.area.area_km2, rel=1e-4)
    assert sum(after.values()) == pytest.approx(sum(before.values()))
    assert after["water"] > before["water"]
    assert after["snow"] == before["snow"]


def test_outside_is_outside() -> None:
    x = np.array([WEST - 0.01, EAST, WEST, EAST - 0.01])
    y = np.array([SOUTH, SOUTH, NORTH - 0.01, NORTH])
    assert (WORLD.classes(x, y, WORLD.after) == OUTSIDE).tolist() == [True, True, False, True]


def test_the_dates_differ_by_the_flood_and_nothing_else() -> None:
    for world in (WORLD, small_world(4, place=(178.0, -17.5))):
        before, after = (truth_on(world, lattice(world, 10), date) for date in (world.before, world.after))
        changed = before != after
        assert 0.01 < changed.mean() < 0.5
        assert (after[changed] == 1).all()
        assert (before[changed] != 1).all()


def test_the_nearest_date_decides() -> None:
    middle = WORLD.before + (WORLD.after - WORLD.before) / 2
    second = datetime.timedelta(seconds=1)
    assert not WORLD.is_after(WORLD.before - 100 * second)
    assert not WORLD.is_after(middle - second)
    assert WORLD.is_after(middle)
    assert WORLD.is_after(WORLD.after + 100_000 * second)


def test_another_seed_is_another_world() -> None:
    one, other = (truth_on(small_world(seed), lattice(WORLD, 20), WORLD.before) for seed in (1, 2))
    assert (one != other).mean() > 0.1


def test_the_demo_has_every_class_and_a_flood() -> None:
    world = demo_world()
    truth = truth_on(world, lattice(world, 40), world.before)
    shares = np.bincount(truth.ravel(), minlength=7)[1:7] / truth.size
    assert (shares > 0.01).all(), dict(zip(CLASSES, shares, strict=True))
    assert shares.sum() == 1.0


def test_clouds_cover_their_share_on_their_date() -> None:
    world = demo_world()
    x, y = np.arange(world.bounds[0], world.bounds[2], 50.0), np.arange(world.bounds[1], world.bounds[3], 50.0)
    assert not world.clouds(x[None, :], y[:, None], world.before).any()
    share = float((world.clouds(x[None, :], y[:, None], world.after) > 0).mean())
    assert share == pytest.approx(world.cloud_share, abs=0.02)


def test_ground_is_not_noise() -> None:
    truth = truth_on(WORLD, lattice(WORLD, 10), WORLD.before)
    same = (truth[:, 1:] == truth[:, :-1]).mean()
    assert same > 0.8


def test_speed() -> None:
    world = demo_world()
    box = cropped(lattice(world, 10), (0, 1500), (0, 1600))
    truth_on(world, cropped(box, (0, 10), (0, 10)), world.after)
    start = time.process_time()
    truth_on(world, box, world.after)
    assert time.process_time() - start < 1.5  # 0.3 s on a quiet machine
