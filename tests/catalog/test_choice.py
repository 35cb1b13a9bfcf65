"""What a cell is read from depends on the cell and the rule alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from earthmap import catalog
from earthmap.catalog.choice import FALLBACKS, RULES, SceneRule, has_unlike_pair, next_best, pair, rank_many
from earthmap.catalog.observations import narrow, observe
from earthmap.catalog.scene import BandSource, Observation, Scene
from earthmap.errors import JobError, QueryError
from earthmap.grid import Cell, owned_ground, to_lonlat
from earthmap.sensors.calibration import Calibration
from tests.catalog.drawn_scenes import DAY, MINUTE, NOON, SQUARE, ids, many_scenes, scene


def rule_of(name: str) -> SceneRule:
    return SceneRule(name=name, date="2024-06-02" if name == "nearest" else None)


def choose(observations: Sequence[Observation], ground: Any, rule: str = RULES[0]) -> list[Observation]:
    """What one cell alone looks at, the best first, narrowed to it."""
    (ranked,) = rank_many(observations, [ground], rule=rule_of(rule))
    found = (narrow(observations[index], ground) for index in ranked)
    return [observation for observation in found if observation is not None]


def best(observations: Sequence[Observation], ground: Any, rule: str = RULES[0]) -> list[list[str]]:
    return ids(choose(observations, ground, rule)[:1])


def test_what_is_chosen_for_a_cell_that_it_only_touches_is_not_lost_when_it_is_narrowed() -> None:
    """Along this edge rounding leaves a sliver of ground ∩ footprint, and nothing of footprint ∩ ground."""
    ground = owned_ground(Cell.parse("utm0_14m_112_31N_c796_80"))
    box = shapely.box(482936.0588254327, 4992438.264741431, 501760.0, 4995304.592010487)
    observations = observe([scene("beside", ground=to_lonlat(box, 32631, tolerance_m=0.01))])
    (ranked,) = rank_many(observations, [ground], rule=rule_of("all"))
    assert [narrow(observations[index], ground) is not None for index in ranked] == [True] * len(ranked)


@given(many_scenes(), st.integers(0, 5), st.integers(0, 3), st.sampled_from(RULES))
def test_one_cell_alone_and_many_together_choose_alike(scenes: list[Scene], x: int, y: int, rule: str) -> None:
    observations = observe(scenes)
    ground = shapely.box(x / 2 + 0.1, y / 2 + 0.1, x / 2 + 0.7, y / 2 + 0.7)
    others = [shapely.box(a / 3, 0.2, a / 3 + 0.5, 1.2) for a in range(8)]
    chosen = rank_many(observations, [*others, ground], rule=rule_of(rule))[-1]
    narrowed = choose(observations, ground, rule)
    assert narrowed == [narrow(observations[index], ground) for index in chosen]
    if rule == "all":
        times = [observation.datetime for observation in narrowed]
        assert times == sorted(times)
    for observation in narrowed:
        assert all(shapely.from_wkb(s.footprint).intersection(ground).area > 0 for s in observation.scenes)
    touching = [o for o in observations if narrow(o, ground)]
    assert len(chosen) == min(len(touching), rule_of(rule).most or 99)


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
    assert best(observations, SQUARE) == [["whole hazy"]]
    assert best(observations, half) == [["half clear"]]
    assert best(observations, SQUARE, "latest") == [["unknown"]]
    assert len(choose(observations, SQUARE, "all")) == 3


def test_ground_under_two_scenes_counts_once() -> None:
    observations = observe(
        [
            scene("a", pass_id="p", ground=shapely.box(10.0, 50.0, 10.6, 51.0), cloud_cover=0.0),
            scene("b", pass_id="p", ground=shapely.box(10.4, 50.0, 10.8, 51.0), cloud_cover=50.0),  # 60 % + 10 %
            scene("other", at=NOON + DAY, pass_id="q", cloud_cover=31.0),  # 69 %
        ]
    )
    assert best(observations, SQUARE) == [["a", "b"]]


def test_equal_choices_go_to_the_latest() -> None:
    observations = observe([scene("a", cloud_cover=10.2), scene("b", at=NOON + DAY, cloud_cover=10.4)])
    assert best(observations, SQUARE) == [["b"]]


def test_the_latest_sliver_is_not_the_latest() -> None:
    sliver = shapely.box(10.0, 50.0, 10.01, 51.0)
    observations = observe([scene("whole"), scene("sliver", at=NOON + DAY, ground=sliver)])
    assert best(observations, SQUARE, "latest") == [["whole"]]


def test_nothing_to_choose() -> None:
    assert choose([], SQUARE) == []
    beside = shapely.box(11.0, 50.0, 12.0, 51.0)  # shares an edge, no ground
    assert choose(observe([scene("a")]), beside) == []
    assert rank_many(observe([scene("a")]), [], rule=SceneRule()) == []
    with pytest.raises(JobError, match=r"no rule 'best'.*expected one of least_cloud"):
        choose([], SQUARE, "best")


def test_the_next_best_follow() -> None:
    clouds = [30.0, 10.0, 50.0, 20.0, 40.0]
    observations = observe([scene(f"{n}", at=NOON + n * DAY, cloud_cover=cloud) for n, cloud in enumerate(clouds)])
    assert ids(choose(observations, SQUARE)) == [["1"], ["3"], ["0"]]
    assert ids(choose(observations, SQUARE, "latest")) == [["4"], ["3"], ["2"]]
    assert ids(choose(observations, SQUARE, "median")) == [["1"], ["3"], ["0"], ["4"], ["2"]]
    assert len(choose(observations, SQUARE)) == 1 + FALLBACKS


def test_the_nearest_to_a_date() -> None:
    sliver = shapely.box(10.0, 50.0, 10.01, 51.0)
    observations = observe(
        [
            scene("early", at=NOON - 3 * DAY),
            scene("sliver", at=NOON, ground=sliver),
            scene("morning", at=NOON + DAY),
            scene("late", at=NOON + 2 * DAY),
        ]
    )

    def nearest(date: str) -> list[list[str]]:
        (ranked,) = rank_many(observations, [SQUARE], rule=SceneRule(name="nearest", date=date))
        return ids([observations[index] for index in ranked])

    assert nearest("2024-06-02") == [["morning"], ["late"], ["early"]]
    assert nearest("2024-06-01")[0] == ["morning"]
    assert nearest("2024-05-30")[0] == ["early"]
    assert nearest("2030/..")[0] == ["late"]
    assert nearest("2024-06-02/2024-06-05")[0] == ["late"]  # two inside: the latest


@pytest.mark.parametrize(("name", "date"), [("nearest", None), ("latest", "2024-06-01")])
def test_a_date_belongs_to_nearest(name: str, date: str | None) -> None:
    with pytest.raises(JobError, match="a date stands beside scenes: nearest"):
        SceneRule(name=name, date=date)


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
    chosen = rank_many(observations, cells, rule=SceneRule())
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


@pytest.mark.parametrize("before", [None, "2024-06", "2024-06/2024-07"])
@pytest.mark.parametrize("after", [None, "2024-07", "2024-06/2024-08"])
@given(scenes=many_scenes())
def test_what_stands_in_for_a_pair_keeps_its_order(before: str | None, after: str | None, scenes: list[Scene]) -> None:
    observations = observe(scenes)
    two = pair(observations, before=before, after=after)
    if two is None:
        return
    firsts, seconds = next_best(observations, two, before=before, after=after)
    assert max(len(firsts), len(seconds)) <= FALLBACKS
    assert not {one.id for one in (*firsts, *seconds)} & {one.id for one in two}
    assert {one.convention for one in (*firsts, *seconds)} <= {two[0].convention}
    assert all(one.datetime < two[1].datetime for one in firsts)
    assert all(one.datetime > two[0].datetime for one in seconds)


def radar(name: str, day: int, *, orbit: int | None, bands: tuple[str, ...] = ("vv", "vh")) -> Scene:
    sources = tuple(BandSource(band=band, href=f"/{name}_{band}.tif", calibration=Calibration()) for band in bands)
    return scene(
        name, at=NOON + day * DAY, sensor="sentinel-1-rtc", sources=sources, relative_orbit=orbit, pass_id=name,
        orbit_direction="ascending",
    )  # fmt: skip


def test_radar_is_compared_with_radar_of_its_own_orbit_and_polarization() -> None:
    early, late = radar("a", 0, orbit=59), radar("d", 36, orbit=59)
    between = [radar("b", 6, orbit=161), radar("c", 12, orbit=59, bands=("vv",)), radar("e", 40, orbit=None)]
    observations = observe([early, late, *between])
    two = pair(observations)
    assert two is not None
    assert [one.scenes[0].id for one in two] == ["a", "d"]
    assert next_best(observations, two) == ([], [])
    assert pair(observe([early, *between])) is None
    assert has_unlike_pair(observe([early, *between]))
    same = observe([radar("f", 0, orbit=None), radar("g", 12, orbit=None)])
    assert pair(same) is not None  # a catalogue that tells no orbits: the answer notes it


def test_a_series_is_of_one_orbit_in_order_of_time_thinned_at_even_steps() -> None:
    own = [radar(f"o{day:02d}", day, orbit=59) for day in range(0, 84, 12)]
    other = [radar(f"p{day:02d}", day, orbit=161) for day in range(6, 66, 12)]
    chosen, passed_over = catalog.series(observe([*other, *own]), most=20)
    assert [one.scenes[0].id for one in chosen] == [one.id for one in own]
    assert passed_over == len(other)
    chosen, passed_over = catalog.series(observe(own), most=3)
    assert ([one.scenes[0].id for one in chosen], passed_over) == (["o00", "o36", "o72"], 4)
    chosen, _ = catalog.series(observe(own), before="2024-06-20", after="2024-07-20", most=20)
    assert [one.scenes[0].id for one in chosen] == ["o24", "o36", "o48"]
    assert catalog.series(observe(own[:1]), most=20) == ([], 0)
    assert catalog.series(observe([own[0], other[0]]), most=20) == ([], 0)


@given(scenes=many_scenes(), most=st.integers(2, 6))
def test_no_order_of_scenes_changes_a_series(scenes: list[Scene], most: int) -> None:
    chosen, passed_over = catalog.series(observe(scenes), most=most)
    assert catalog.series(observe(scenes[::-1]), most=most) == (chosen, passed_over)
    assert len(chosen) != 1
    assert len(chosen) <= most
    assert all(earlier.datetime < later.datetime for earlier, later in itertools.pairwise(chosen))
    assert len({(one.convention, one.viewpoint) for one in chosen}) <= 1
