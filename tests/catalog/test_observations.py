"""Passes are recognised whatever the order, and a cell's choice depends on the cell alone."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.observations import choose, choose_many, has_unlike_pair, narrow, observe, pair
from earthmap.catalog.scene import BandSource, Observation, Scene
from earthmap.errors import JobError, QueryError
from earthmap.sensors.calibration import Calibration

NOON = datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC)
MINUTE = datetime.timedelta(minutes=1)
DAY = datetime.timedelta(days=1)
SQUARE = shapely.box(10.0, 50.0, 11.0, 51.0)


def scene(name: str, *, at: datetime.datetime = NOON, ground: Any = SQUARE, **fields: Any) -> Scene:
    """A scene of one band."""
    source = BandSource(band="red", href=f"/scenes/{name}.tif", calibration=Calibration())
    values = {"collection": "c", "sensor": "s2", "resolution_m": 10.0, "sources": (source,), "platform": "sat-a"}
    return Scene(id=name, datetime=at, footprint=shapely.to_wkb(ground), **{**values, **fields})


def ids(observations: Sequence[Observation]) -> list[list[str]]:
    return [[member.id for member in observation.scenes] for observation in observations]


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
    other = (BandSource(band="vh", href="/scenes/vh.tif", calibration=Calibration()),)
    assert ids(observe([scene("a"), scene("b", sources=other)])) == [["a", "b"]]


@st.composite
def many_scenes(draw: st.DrawFn) -> list[Scene]:
    def one(number: int) -> Scene:
        west, south = draw(st.integers(0, 4)), draw(st.integers(0, 2))
        return scene(
            f"s{number}",
            at=NOON + draw(st.sampled_from([0, 1, 14, 16, 40, 60, 1440])) * MINUTE,
            ground=shapely.box(west / 2, south / 2, west / 2 + 1, south / 2 + 1),
            pass_id=draw(st.sampled_from([None, "p", "q"])),
            cloud_cover=draw(st.sampled_from([None, 0.0, 20.0, 100.0])),
            created=draw(st.sampled_from([None, "2024-07-01", "2024-08-01"])),
        )

    return [one(number) for number in range(draw(st.integers(1, 12)))]


@given(many_scenes(), st.randoms(use_true_random=False))
def test_the_order_of_scenes_does_not_matter(scenes: list[Scene], random: Any) -> None:
    shuffled = list(scenes)
    random.shuffle(shuffled)
    first = observe(scenes)
    assert first == observe(shuffled)
    assert len({observation.id for observation in first}) == len(first)
    assert [o.id for o in first] == sorted(o.id for o in first)
    assert [o.datetime for o in first] == sorted(o.datetime for o in first)


@given(many_scenes(), st.integers(0, 5), st.integers(0, 3), st.sampled_from(["least_cloud", "latest", "all"]))
def test_one_cell_alone_and_many_together_choose_alike(scenes: list[Scene], x: int, y: int, rule: str) -> None:
    observations = observe(scenes)
    ground = shapely.box(x / 2 + 0.1, y / 2 + 0.1, x / 2 + 0.7, y / 2 + 0.7)
    others = [shapely.box(a / 3, 0.2, a / 3 + 0.5, 1.2) for a in range(8)]
    chosen = choose_many(observations, [*others, ground], rule=rule)[-1]
    narrowed = choose(observations, ground, rule=rule)
    assert narrowed == [narrow(observations[index], ground) for index in chosen]
    times = [observation.datetime for observation in narrowed]
    assert times == sorted(times)
    for observation in narrowed:
        assert all(shapely.from_wkb(s.footprint).intersection(ground).area > 0 for s in observation.scenes)
    touching = [o for o in observations if narrow(o, ground)]
    assert len(chosen) == (len(touching) if rule == "all" else min(1, len(touching)))


@given(many_scenes())
def test_scenes_elsewhere_change_nothing(scenes: list[Scene]) -> None:
    """A larger area brings more scenes of the same passes; what a cell is read from stays."""
    ground = shapely.box(0.6, 0.6, 0.9, 0.9)
    over = [member for observation in observe(scenes) for member in observation.scenes]
    near = [s for s in over if shapely.from_wkb(s.footprint).intersection(ground).area > 0]
    away = [
        scene(f"away{n}", at=s.datetime - MINUTE, ground=shapely.box(5, 0, 6, 1), pass_id=s.pass_id)
        for n, s in enumerate(near)
        if s.pass_id is not None
    ]
    assert choose(observe(near), ground) == choose(observe(near + away), ground)


def test_least_cloud_counts_clear_ground() -> None:
    half = shapely.box(10.0, 50.0, 10.5, 51.0)
    observations = observe(
        [
            scene("half clear", ground=half, cloud_cover=0.0),  # 50 %
            scene("whole hazy", at=NOON + DAY, cloud_cover=40.0),  # 60 %
            scene("unknown", at=NOON + 2 * DAY),  # 50 %
        ]
    )
    assert ids(choose(observations, SQUARE)) == [["whole hazy"]]
    assert ids(choose(observations, half)) == [["half clear"]]
    assert ids(choose(observations, SQUARE, rule="latest")) == [["unknown"]]
    assert len(choose(observations, SQUARE, rule="all")) == 3


def test_ground_under_two_scenes_counts_once() -> None:
    observations = observe(
        [
            scene("a", pass_id="p", ground=shapely.box(10.0, 50.0, 10.6, 51.0), cloud_cover=0.0),
            scene("b", pass_id="p", ground=shapely.box(10.4, 50.0, 10.8, 51.0), cloud_cover=50.0),  # 60 % + 10 %
            scene("other", at=NOON + DAY, pass_id="q", cloud_cover=31.0),  # 69 %
        ]
    )
    assert ids(choose(observations, SQUARE)) == [["a", "b"]]


def test_equal_choices_go_to_the_latest() -> None:
    observations = observe([scene("a", cloud_cover=10.2), scene("b", at=NOON + DAY, cloud_cover=10.4)])
    assert ids(choose(observations, SQUARE)) == [["b"]]


def test_the_latest_sliver_is_not_the_latest() -> None:
    sliver = shapely.box(10.0, 50.0, 10.01, 51.0)
    observations = observe([scene("whole"), scene("sliver", at=NOON + DAY, ground=sliver)])
    assert ids(choose(observations, SQUARE, rule="latest")) == [["whole"]]


def test_nothing_to_choose() -> None:
    assert choose([], SQUARE) == []
    beside = shapely.box(11.0, 50.0, 12.0, 51.0)  # shares an edge, no ground
    assert choose(observe([scene("a")]), beside) == []
    assert choose_many(observe([scene("a")]), []) == []
    with pytest.raises(JobError, match=r"no rule 'best'.*expected one of least_cloud"):
        choose([], SQUARE, rule="best")


def test_62500_cells_and_500_scenes_in_seconds() -> None:
    x, y = np.meshgrid(np.arange(250) * 0.14, np.arange(250) * 0.14)
    cells = list(shapely.box(x.ravel(), y.ravel(), x.ravel() + 0.14, y.ravel() + 0.14))
    random = np.random.default_rng(7)
    scenes = []
    for number in range(500):
        west, south = random.uniform(0, 34, 2)
        corners = [(west, south), (west + 1.2, south - 0.1), (west + 1.3, south + 1.1), (west + 0.1, south + 1.2)]
        scenes.append(
            scene(
                f"{number}",
                at=NOON + int(random.integers(0, 40)) * DAY,
                ground=shapely.Polygon(corners).segmentize(0.1),
                pass_id=f"p{random.integers(0, 3)}",
                cloud_cover=float(random.uniform(0, 100)),
            )
        )
    observations = observe(scenes)
    start = time.process_time()
    chosen = choose_many(observations, cells)
    took = time.process_time() - start
    assert took < 15.0
    for index in random.integers(0, len(cells), 40):
        alone = choose(observations, cells[index])
        assert [narrow(observations[i], cells[index]) for i in chosen[index]] == alone


def series() -> list[Observation]:
    clouds = [90.0, 10.0, 10.0, 0.0, 50.0]
    return observe([scene(f"{n}", at=NOON + 30 * n * DAY, cloud_cover=cloud) for n, cloud in enumerate(clouds)])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, None, ("0", "4")),
        ("2024-06/2024-07", None, ("2", "4")),  # the least cloudy, the latest of equals
        (None, "2024-07", ("0", "1")),  # the earliest of equals
        ("2024", "2024", ("3", "4")),
        ("2024-06-01", "2024-08-30", ("0", "3")),
    ],
)
def test_pairs(before: str | None, after: str | None, expected: tuple[str, str]) -> None:
    found = pair(series(), before=before, after=after)
    assert found is not None
    assert (found[0].scenes[0].id, found[1].scenes[0].id) == expected


def test_no_pair() -> None:
    assert pair([]) is None
    assert pair(series()[:1]) is None
    assert pair(series(), before="2019") is None
    assert pair(series(), after="2030") is None
    with pytest.raises(QueryError, match="2024-08 of the change is later than the second, 2024-06"):
        pair(series(), before="2024-08", after="2024-06")


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
