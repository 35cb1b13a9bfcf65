"""What the merge of tracks must hold: each ship of a drawn sea one track, whatever the tiling, order and zone."""

from __future__ import annotations

import datetime
import random
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.grid import Grid, Tile, touched
from earthmap.merge import summarize
from earthmap.merge.layers import Source
from earthmap.merge.tracks import sightings_of
from earthmap.metrics import score_identities
from earthmap.synthetic import World, sea_world
from earthmap.tasks import Answer, make_query
from earthmap.tasks.serialization import Instance
from earthmap.tasks.times import instant_text
from tests.merge.maps import joined
from tests.merge.tracks import (
    area_of,
    found_tracks,
    jittered,
    merge_rows,
    merged,
    oracle,
    query_of,
    row_of,
    true_tracks,
)

GRID = Grid(resolution_m=10.0, picture_px=448)
_SHAKEN = [
    (1, 0.0, 0.99), pytest.param(2, 0.0, 0.99, marks=pytest.mark.slow),
    pytest.param(1, 0.05, 0.95, marks=pytest.mark.slow),
]  # fmt: skip


def sea_at(place: tuple[float, float] = (3.5, 45.7), *, seed: int = 5, size_m: float = 6000.0, dates: int = 5) -> World:
    return sea_world(seed, place=place, size_m=size_m, dates=dates)


def check_truth(world: World, grid: Grid, *, kind: str = "box", least: float = 0.5) -> int:
    """One track for each ship, with a state for each of its dates and no other, each where it is; returns how many."""
    true = true_tracks(world, area_of(world))
    found = found_tracks(merged(world, grid, query=query_of(kind)).features, world)
    score = score_identities(found, true, least=least)
    assert len(found) == len(true) == len(score.pairs) > 0
    assert score.f1 == 1.0
    return len(true)


@pytest.mark.parametrize("picture_px", [448, pytest.param(224, marks=pytest.mark.slow)])
def test_each_ship_is_one_track(picture_px: int) -> None:
    """Straight and turning, entering and leaving, and standing; they sail 150 m from date to date at most."""
    assert check_truth(sea_at(), Grid(resolution_m=10.0, picture_px=picture_px)) > 50


@settings(max_examples=2, deadline=None)
@given(seed=st.integers(1, 50), picture_px=st.sampled_from([448, 224]), anchor_m=st.sampled_from([0, 15]))
def test_any_tiling_finds_the_same_tracks(seed: int, picture_px: int, anchor_m: int) -> None:
    check_truth(
        sea_at(seed=seed, size_m=3000.0, dates=3), Grid(resolution_m=10.0, picture_px=picture_px, anchor_m=anchor_m)
    )


@pytest.mark.parametrize(
    "place",
    [
        pytest.param((6.0, 45.7), id="zones"),
        pytest.param((180.0, -17.0), id="antimeridian"),
        pytest.param((3.0, 0.0), id="equator", marks=pytest.mark.slow),
        pytest.param((6.0, 84.0), id="cap", marks=pytest.mark.slow),
    ],
)
def test_borders_of_zones_are_none_of_tracks(place: tuple[float, float]) -> None:
    """Outlines, of which lattices that are turned against each other make no larger boxes."""
    world = sea_at(place, size_m=4200.0, dates=3)
    assert check_truth(world, GRID, kind="polygon", least=0.3) > 20
    assert len({cell.zone for cell in touched(area_of(world), GRID)[0]}) > 1


def test_a_cloudy_date_in_the_middle_is_a_gap_in_each_track() -> None:
    """No tile sees a ship on it; those of the dates around it are linked where a halo reaches."""
    world = sea_at(dates=3, size_m=4200.0)
    query = query_of()
    result = merged(world, GRID, query=query, says=oracle(world, query, hidden=(1,)))
    assert set(result.features["times"].map(len)) <= {1, 2}
    score = score_identities(found_tracks(result.features, world), true_tracks(world, area_of(world), hidden=(1,)))
    assert score.f1 == 1.0


def test_many_dates_are_one_track() -> None:
    world = sea_at(size_m=2400.0, dates=12)
    check_truth(world, GRID)


def test_what_goes_further_than_a_halo_between_dates_is_two_tracks() -> None:
    """No tile sees both ends: nothing is guessed."""
    world = sea_world(5, dates=2, gap=datetime.timedelta(minutes=10))  # up to 900 m; the halo is 160 m
    grid = Grid(resolution_m=10.0, picture_px=224)
    found, true = found_tracks(merged(world, grid).features, world), true_tracks(world, area_of(world))
    assert len(found) > len(true)
    states = [(date, shape) for track in found for date, shape in track.items()]
    assert len(states) == sum(map(len, true))  # each seen on each date, once


def test_no_order_of_cells_and_tiles_changes_a_byte() -> None:
    world, dice = sea_at((6.0, 45.7), size_m=3000.0, dates=3), random.Random(0)
    query, area = query_of("oriented_box"), area_of(world)
    says = jittered(oracle(world, query), seed=1, bins=3, dropped=0.1)
    cells, bits = touched(area, GRID)
    rows = {cell: [row_of(tile, query, says(tile), world) for tile in cell.tiles()] for cell in cells}
    written = set()
    for _ in range(2):
        merges = []
        for cell, tiles in zip(cells, bits.tolist(), strict=True):
            mine = [row for bit, row in enumerate(rows[cell]) if tiles >> bit & 1]
            dice.shuffle(mine)
            merges.append(merge_rows(cell, mine, query, area, tiles))
        dice.shuffle(merges)
        written.add(joined(merges, area=area, queries={query.content_key(): query}).features_bytes)
    assert len(written) == 1


@pytest.mark.parametrize(("bins", "lost", "least"), _SHAKEN)
def test_shaking_and_lost_states_change_little(bins: int, lost: float, least: float) -> None:
    """Every box moved by up to some steps of SLIS, a tenth of the pieces at edges not said, and a share of all states:
    what is not said cannot be found. Ships are narrower than four pixels: a box lies on its ship from a tenth on."""
    world, query = sea_at(), query_of()
    says = jittered(oracle(world, query), seed=3, bins=bins, dropped=0.1, lost=lost)
    found = found_tracks(merged(world, GRID, query=query, says=says).features, world)
    score = score_identities(found, true_tracks(world, area_of(world)), least=0.1)
    assert score.f1 >= least


def test_tiles_that_disagree_make_no_track_of_two_things_of_one_date() -> None:
    """One tile takes a ship for another one that it passes: its link is dropped, and both tracks say so."""
    world, query = sea_at(size_m=4200.0), query_of()
    tiles = [tile for cell in touched(area_of(world), GRID)[0] for tile in cell.tiles()]
    confused = max(tiles, key=lambda tile: len(oracle(world, query)(tile).instances))

    def says(tile: Tile) -> Answer:
        answer = oracle(world, query)(tile)
        if tile != confused:
            return answer
        times = sorted({str(one.time) for one in answer.instances})
        tracks = sorted({one.track or 0 for one in answer.instances})
        turn = dict(zip(tracks, (*tracks[1:], tracks[0]), strict=True))
        late = times[len(times) // 2 :]
        turned = tuple(
            replace(one, track=turn[one.track or 0]) if one.time in late else one for one in answer.instances
        )
        return replace(answer, instances=turned)

    features = merged(world, GRID, query=query, says=says).features
    dates = [[str(time) for time in times] for times in features["times"]]
    assert all(len(set(own)) == len(own) for own in dates)
    true = true_tracks(world, area_of(world))
    assert sum(map(len, dates)) == sum(map(len, true))


def test_lines_have_a_vertex_for_each_time_and_their_length_and_speed() -> None:
    world = sea_at()
    result = merged(world, GRID)
    features = result.features
    kinds = features.geometry.geom_type
    lines, points = features[kinds == "LineString"], features[kinds == "Point"]
    assert set(kinds) == {"LineString", "Point"}
    assert (shapely.get_num_coordinates(lines.geometry.to_numpy()) == lines["times"].map(len)).all()
    assert (lines["boxes"].map(len) == 4 * lines["times"].map(len)).all()
    seconds = (lines["datetime_max"] - lines["datetime_min"]).dt.total_seconds()
    assert np.allclose(lines["speed_m_s"], lines["length_m"] / seconds, atol=1e-3)
    assert 0.2 < lines["speed_m_s"].min() <= lines["speed_m_s"].max() < 1.6
    assert (points["length_m"].fillna(0.0) == 0.0).all()
    summary = summarize(result.sums, area=area_of(world), queries={query_of().content_key(): query_of()})
    (layer,) = summary["queries"][0]["observations"]
    once = int((features["times"].map(len) == 1).sum())
    assert layer["count"] == {"ship": len(features)}
    assert layer["tracks"] == {"ship": {"moved": len(lines), "stood": len(points) - once, "seen_once": once}}


def test_a_line_over_the_antimeridian_is_in_two_parts_on_it() -> None:
    world = sea_at((180.0, -17.0), seed=1)
    features = merged(world, GRID).features
    across = features[features.geometry.geom_type == "MultiLineString"]
    assert len(across) > 0
    for shape in across.geometry:
        west, _, east, _ = shape.bounds
        assert (west, east) == (-180.0, 180.0)
        first, second = shape.geoms
        assert abs(first.coords[-1][0]) == abs(second.coords[0][0]) == 180.0
        assert first.coords[-1][1] == second.coords[0][1]


def test_states_without_a_date_of_the_series_are_none() -> None:
    """A model may say any time; what it says twice of one date counts once."""
    world, query = sea_at(size_m=2400.0, dates=2), query_of()
    (cell, *_), _ = touched(area_of(world), GRID)
    tile = cell.tiles()[5]
    ship = Instance(kind="box", geometry=shapely.box(0.4, 0.4, 0.45, 0.45), label="ship", track=1)
    other = shapely.box(0.6, 0.6, 0.65, 0.65)
    times = [instant_text(date) for date in world.dates]
    told = (
        replace(ship, time=times[0]), replace(ship, time=times[0], geometry=other), replace(ship, time="1999-01-01"),
        replace(ship), replace(ship, time=times[1]), replace(ship, time=times[1], track=None, geometry=other),
    )  # fmt: skip
    core = tile.grid.core_px
    answer = Answer(
        status="answered", value="2", probability=1.0, mask=np.zeros((core, core), np.uint8), seen_px=core * core,
        instances=told, instance_scores=(0.9, 0.8, 0.9, 0.9, 0.9, 0.7),
    )  # fmt: skip
    row = row_of(tile, query, answer, world)
    views = list(sightings_of(row, query, Source.of([row])))
    assert sorted((view.sighting.date, view.sighting.track) for _, view in views) == [
        ("pass 00", 1), ("pass 01", -6), ("pass 01", 1),
    ]  # fmt: skip


def test_a_text_along_a_series_is_a_layer_of_tiles_with_its_dates() -> None:
    world = sea_at(size_m=2400.0, dates=3)
    query = make_query("How did the port develop over the years?", task="series", open_vocabulary=True)
    core = GRID.core_px
    text = Answer(
        status="answered", value="ships came and went", probability=0.5, mask=np.zeros((core, core), np.uint8),
        seen_px=core * core,
    )  # fmt: skip
    features = merged(world, GRID, query=query, says=lambda _: text).features
    assert set(features["answer"]) == {"ships came and went"}
    assert features["times"].map(len).eq(3).all()
    assert features["boxes"].isna().all()
    assert set(features.geometry.geom_type) <= {"Polygon", "MultiPolygon"}
