"""Drawn scenes with their ground truth: the demonstration's input, the tests' oracle, material to train on."""

from __future__ import annotations

from earthmap.synthetic.catalog import write_world
from earthmap.synthetic.scenes import DrawnScene, demo_world, footprint, plan_scenes, small_world
from earthmap.synthetic.sensors import SENSORS, DrawnSensor, Layer
from earthmap.synthetic.truth import CLASSES, Ground, World, true_km2, truth_on

__all__ = [
    "CLASSES",
    "SENSORS",
    "DrawnScene",
    "DrawnSensor",
    "Ground",
    "Layer",
    "World",
    "demo_world",
    "footprint",
    "plan_scenes",
    "small_world",
    "true_km2",
    "truth_on",
    "write_world",
]
