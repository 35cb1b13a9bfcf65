"""A drawn earthquake: grades of buildings on every lattice, and pictures that show them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from earthmap.synthetic import World, building_grades, quake_world, small_world, standing_on, truth_on
from earthmap.synthetic.sensors import draw_rgb
from earthmap.synthetic.truth import BARE, BUILT_UP
from earthmap.tasks.damage import GRADES

WORLD = quake_world(85, size_m=480.0, resolution_m=0.8)


def _lattice(world: World, outline: shapely.Polygon) -> GeoBox:
    """Fine pixels over one building."""
    west, _, _, north = outline.bounds
    return GeoBox((120, 120), Affine(0.5, 0.0, west - 5.0, 0.0, -0.5, north + 5.0), f"EPSG:{world.epsg}")


def _fallen(world: World, outline: shapely.Polygon) -> float:
    """Share of a building's built-up pixels that are bare after."""
    box = _lattice(world, outline)
    x, y = np.meshgrid(np.arange(120) * 0.5 + box.affine.c + 0.25, box.affine.f - np.arange(120) * 0.5 - 0.25)
    inside = shapely.contains_xy(outline, x, y) & (truth_on(world, box, world.before) == BUILT_UP)
    return float((truth_on(world, box, world.after)[inside] == BARE).mean())


def test_the_share_that_falls_is_that_of_the_grade() -> None:
    grades = building_grades(WORLD)
    outlines = standing_on(WORLD, "building").outlines
    assert len(grades) == len(outlines)
    shares = {grade: [_fallen(WORLD, outlines[i]) for i in np.flatnonzero(grades == grade)] for grade in range(4)}
    assert set(np.unique(grades)) == set(range(len(GRADES)))
    assert max(shares[0]) == 0.0
    assert min(shares[3]) > 0.8
    assert np.mean(shares[0]) < np.mean(shares[1]) < np.mean(shares[2]) < np.mean(shares[3])
    assert all(0.02 < share < 0.5 for share in shares[1])
    assert all(0.3 < share < 0.8 for share in shares[2])


def test_a_grade_belongs_to_the_building_whatever_is_drawn_around_it() -> None:
    """The same plot has the same grade in a world of finer pixels."""
    finer = dataclasses.replace(WORLD, resolution_m=0.4)
    assert building_grades(finer).tolist() == building_grades(WORLD).tolist()
    struck = dataclasses.replace(WORLD, quake=1.0)
    assert building_grades(struck).min() > 0


@pytest.mark.parametrize("quake", [0.0, 0.6])
def test_without_a_quake_nothing_falls(quake: float) -> None:
    world = dataclasses.replace(WORLD, quake=quake)
    box = _lattice(world, standing_on(world, "building").outlines[int(np.argmax(building_grades(WORLD)))])
    before, after = (draw_rgb(world, box, date)[0].data[:3].astype(float) for date in (world.before, world.after))
    differs = float((np.abs(before - after).max(axis=0) > 15.0).mean())
    assert (differs > 0.05) if quake else (differs < 0.001)


def test_other_worlds_are_drawn_as_they_were() -> None:
    world = small_world()
    assert world.quake == 0.0
    assert not building_grades(world).any()
    west, south, _, _ = world.bounds
    ground = world.ground(west + np.arange(100.0)[None, :], south + np.arange(100.0)[:, None])
    assert not ground.rubble.any()
