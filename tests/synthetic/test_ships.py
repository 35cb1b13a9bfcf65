"""Ships that sail: the same ones on every date, as fast as they may, and drawn where they are."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from earthmap.errors import CatalogError
from earthmap.synthetic import World, sea_world, ships_on, small_world, standing_on

SEA = sea_world(3)


def places(world: World, date: datetime.datetime) -> dict[int, np.ndarray]:
    return dict(zip(ships_on(world, date)[0].tolist(), ships_on(world, date)[1], strict=True))


def test_a_sea_is_read_back_from_its_text() -> None:
    assert World.from_json(SEA.to_json()) == SEA
    assert SEA.dates == (SEA.before, *SEA.between, SEA.after)


def test_ships_sail_no_faster_than_they_may_some_turn_and_a_quarter_stands() -> None:
    first, last = places(SEA, SEA.before), places(SEA, SEA.after)
    both = sorted(set(first) & set(last))
    seconds = (SEA.after - SEA.before).total_seconds()
    speeds = np.array([np.hypot(*(last[ship] - first[ship])[:2]) for ship in both]) / seconds
    assert speeds.max() <= SEA.sailing
    assert 0.1 < (speeds == 0.0).mean() < 0.4
    turned = np.array([np.abs(last[ship] - first[ship])[2:4].max() > 1e-6 for ship in both])
    assert 0 < turned.sum() < (speeds > 0.0).sum()


def test_ships_enter_and_leave_and_keep_apart() -> None:
    worlds = [sea_world(seed) for seed in range(1, 5)]
    assert any(set(places(sea, sea.after)) - set(places(sea, sea.before)) for sea in worlds)
    assert any(set(places(sea, sea.before)) - set(places(sea, sea.after)) for sea in worlds)
    for date in SEA.dates:
        outlines = standing_on(SEA, "ship", date).outlines
        tree = standing_on(SEA, "ship", date).tree
        assert (tree.query(outlines, predicate="intersects").shape[1]) == len(outlines)  # each meets itself alone


def test_ships_are_drawn_where_they_are_on_a_date() -> None:
    for date in (SEA.before, SEA.after):
        rows = ships_on(SEA, date)[1]
        assert (SEA.classes(rows[:, 0], rows[:, 1], date) == 4).all()
    then, now = (ships_on(SEA, date)[1] for date in (SEA.before, SEA.after))
    assert (SEA.classes(then[:, 0], then[:, 1], SEA.after) == 1).sum() > len(then) / 2
    assert (SEA.ground(now[:, 0], now[:, 1]).cover == 1).all()  # without a date there are none


def test_clouds_may_hide_the_middle_date_alone() -> None:
    from dataclasses import replace

    west, south, east, north = SEA.bounds
    x, y = np.linspace(west, east, 50)[None, :], np.linspace(south, north, 50)[:, None]
    hidden = replace(SEA, cloud_share=0.5, cloudy="middle")
    assert [bool(hidden.clouds(x, y, date).any()) for date in SEA.dates] == [False, False, True, False, False]


def test_dates_follow_each_other() -> None:
    from dataclasses import replace

    with pytest.raises(CatalogError, match="do not follow each other"):
        replace(SEA, between=(SEA.after,))
    assert small_world().dates == (small_world().before, small_world().after)
