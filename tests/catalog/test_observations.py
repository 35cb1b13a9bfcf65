"""Passes are recognised whatever the order of their scenes; reprocessings collapse to the newest."""

from __future__ import annotations

import datetime
from typing import Any

import shapely
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.choice import has_unlike_pair, pair
from earthmap.catalog.observations import observe
from earthmap.catalog.scene import BandSource, Scene
from earthmap.sensors.calibration import Calibration
from tests.catalog.drawn_scenes import DAY, MINUTE, NOON, ids, many_scenes, scene


def test_scenes_of_one_pass_are_one_observation_least_cloud_first() -> None:
    beside = shapely.box(11.0, 50.0, 12.0, 51.0)
    third = shapely.box(12.0, 50.0, 13.0, 51.0)
    scenes = [
        scene("c", cloud_cover=80.0, pass_id="p"),
        scene("b", at=NOON + MINUTE, ground=beside, cloud_cover=None, pass_id="p"),
        scene("a", at=NOON + 20 * MINUTE, ground=third, cloud_cover=10.0, pass_id="p"),
    ]
    (observation,) = observe(scenes)
    assert [member.id for member in observation.scenes] == ["a", "b", "c"]
    assert observation.datetime == NOON
    assert observation.id.startswith("s2_20240601T120000_")


def test_the_same_orbit_ten_days_later_is_another_observation() -> None:
    later = scene("b", at=NOON + 10 * DAY, pass_id="orbit 8")
    assert ids(observe([scene("a", pass_id="orbit 8"), later])) == [["a"], ["b"]]


def test_sensors_and_platforms_stay_apart() -> None:
    scenes = [scene("a"), scene("b", platform="sat-b"), scene("c", sensor="s1")]
    assert sorted(ids(observe(scenes))) == [["a"], ["b"], ["c"]]


def test_without_a_pass_a_gap_parts_and_midnight_utc_does_not() -> None:
    east = [shapely.box(170.0 + x, -40.0, 171.0 + x, -39.0) for x in range(3)]
    midnight = datetime.datetime(2024, 6, 2, tzinfo=datetime.UTC)
    scenes = [
        scene("a", at=midnight - MINUTE, ground=east[0]),
        scene("b", at=midnight + MINUTE, ground=east[1]),
        scene("c", at=midnight + 17 * MINUTE, ground=east[2]),
    ]
    assert ids(observe(scenes)) == [["a", "b"], ["c"]]


def test_of_reprocessings_the_newest_stays() -> None:
    nearly = shapely.box(10.0, 50.0, 11.001, 51.0)
    scenes = [
        scene("old", created="2024-06-02T00:00:00Z", pass_id="p"),
        scene("new", created="2024-07-02T00:00:00Z", pass_id="p", ground=nearly),
        scene("new2", created="2024-07-02T00:00:00Z", pass_id="p"),
        scene("unknown", pass_id="p"),
        scene("neighbour", ground=shapely.box(10.5, 50.0, 11.5, 51.0), pass_id="p"),
    ]
    assert ids(observe(scenes)) == [["neighbour", "new2"]]


def test_other_bands_of_the_same_ground_are_no_reprocessing() -> None:
    vv, vh = (BandSource(band=band, href=f"/scenes/{band}.tif", calibration=Calibration()) for band in ("vv", "vh"))
    radar = {"sensor": "sentinel-1-db"}
    (observation,) = observe([scene("a", sources=(vv,), **radar), scene("b", sources=(vh,), **radar)])
    assert [member.sources for member in observation.scenes] == [(vv, vh)]  # two parts of one scene
    assert observation.copies == ()


@given(many_scenes(), st.randoms(use_true_random=False))
def test_the_order_of_scenes_does_not_matter(scenes: list[Scene], random: Any) -> None:
    shuffled = list(scenes)
    random.shuffle(shuffled)
    first = observe(scenes)
    assert first == observe(shuffled)
    assert len({observation.id for observation in first}) == len(first)
    assert [o.id for o in first] == sorted(o.id for o in first)
    assert [o.datetime for o in first] == sorted(o.datetime for o in first)


WAYS = (("sentinel-2-l1c", ""), ("sentinel-2-l2a", ""), ("sentinel-1-db", "sigma0"), ("sentinel-1-db", "gamma0"))


@given(st.lists(st.tuples(st.sampled_from(WAYS), st.integers(0, 6), st.sampled_from([None, "p"])), max_size=12))
def test_unlike_numbers_are_never_in_one_observation_or_pair(given_scenes: list[tuple[Any, int, str | None]]) -> None:
    scenes = [
        scene(f"{number}", at=NOON + days * DAY, sensor=way[0], convention=way[1], pass_id=name)
        for number, (way, days, name) in enumerate(given_scenes)
    ]
    observations = observe(scenes)
    for observation in observations:
        assert {(member.sensor, member.convention) for member in observation.scenes} == {observation.convention}
    assert len({observation.id for observation in observations}) == len(observations)
    two = pair(observations)
    if two is None:
        like = [[one.datetime for one in observations if one.convention == way] for way in WAYS]
        assert all(len(set(times)) < 2 for times in like)
        assert has_unlike_pair(observations) == (len({one.datetime for one in observations}) > 1)
    else:
        assert two[0].convention == two[1].convention
        assert two[0].datetime < two[1].datetime
        assert not has_unlike_pair(observations)
