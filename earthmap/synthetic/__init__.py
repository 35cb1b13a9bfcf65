"""Drawn scenes with their ground truth: the demonstration's input, the tests' oracle, material to train on.

A `World` is one valley as a function of ground position, written as scenes of a catalogue. Tiles are batches of small
pieces of ever new ground, drawn from seeds, with facts, questions and answers: what a model learns from.
"""

from __future__ import annotations

from earthmap.synthetic.catalog import write_world
from earthmap.synthetic.facts import Facts, Thing, facts_of
from earthmap.synthetic.pictures import Pictures, draw_views, ground_distances, measure
from earthmap.synthetic.questions import Asked, ask
from earthmap.synthetic.recipes import EVENTS, KINDS, Recipe, plan_tiles
from earthmap.synthetic.replies import regions
from earthmap.synthetic.scenes import (
    DrawnScene,
    demo_world,
    footprint,
    plan_scenes,
    quake_world,
    sea_world,
    small_world,
)
from earthmap.synthetic.sensors import SENSORS, DrawnSensor, Layer
from earthmap.synthetic.standing import STANDING, Standing, building_grades, standing_on
from earthmap.synthetic.tile_scenes import write_tiles
from earthmap.synthetic.tiles import Tiles, draw_tiles, patch_shares
from earthmap.synthetic.truth import CLASSES, Ground, World, ships_on, true_km2, truth_on

__all__ = [
    "CLASSES",
    "EVENTS",
    "KINDS",
    "SENSORS",
    "STANDING",
    "Asked",
    "DrawnScene",
    "DrawnSensor",
    "Facts",
    "Ground",
    "Layer",
    "Pictures",
    "Recipe",
    "Standing",
    "Thing",
    "Tiles",
    "World",
    "ask",
    "building_grades",
    "demo_world",
    "draw_tiles",
    "draw_views",
    "facts_of",
    "footprint",
    "ground_distances",
    "measure",
    "patch_shares",
    "plan_scenes",
    "plan_tiles",
    "quake_world",
    "regions",
    "sea_world",
    "ships_on",
    "small_world",
    "standing_on",
    "true_km2",
    "truth_on",
    "write_tiles",
    "write_world",
]
