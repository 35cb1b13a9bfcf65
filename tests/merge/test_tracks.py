"""What the merge of tracks must hold: each ship of a drawn sea one track, whatever the tiling, order and zone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.grid import Grid, touched
from earthmap.metrics import score_identities
from earthmap.synthetic import World, sea_world
from tests.merge.tracks import (
    area_of,
    found_tracks,
    merged,
    oracle,
    query_of,
    true_tracks,
)

GRID = Grid(resolution_m=10.0, picture_px=448)


def sea_at(place: tuple[float, float] = (3.5, 45.7), *, seed: int = 5, size_m: float = 6000.0, dates: int = 5) -> World:
    return sea_world(seed, place=place, size_m=size_m, dates=dates)


def check_truth(world: World, grid: Grid, *, hidden: tuple[int, ...] = ()) -> int:
    """One track for each ship, with a state for each of its dates and no other, each where it is; returns how many."""
    query, area = query_of(), area_of(world)
    true = true_tracks(world, area, hidden)
    result = merged(world, grid, query=query, says=oracle(world, query, hidden))
    found = found_tracks(result.features, world)
    score = score_identities(found, true)
    assert len(found) == len(true) == len(score.pairs) > 0
    assert score.f1 == 1.0
    return len(true)


@pytest.mark.parametrize("picture_px", [448, 224])
def test_each_ship_is_one_track(picture_px: int) -> None:
    """Straight and turning, entering and leaving, and standing; they sail 150 m from date to date at most."""
    assert check_truth(sea_at(), Grid(resolution_m=10.0, picture_px=picture_px)) > 50


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(1, 50), picture_px=st.sampled_from([448, 224]), anchor_m=st.sampled_from([0, 15]))
def test_any_tiling_finds_the_same_tracks(seed: int, picture_px: int, anchor_m: int) -> None:
    check_truth(
        sea_at(seed=seed, size_m=3600.0, dates=3), Grid(resolution_m=10.0, picture_px=picture_px, anchor_m=anchor_m)
    )


@pytest.mark.parametrize(
    "place",
    [
        pytest.param((6.0, 45.7), id="zones"),
        pytest.param((180.0, -17.0), id="antimeridian"),
        pytest.param((3.0, 0.0), id="equator"),
        pytest.param((6.0, 84.0), id="cap", marks=pytest.mark.slow),
    ],
)
def test_borders_of_zones_are_none_of_tracks(place: tuple[float, float]) -> None:
    world = sea_at(place, size_m=4200.0, dates=3)
    assert check_truth(world, GRID) > 20
    assert len({cell.zone for cell in touched(area_of(world), GRID)[0]}) > 1
