"""One scene that a catalogue delivers as several items: Landsat's surface reflectance and surface temperature, say."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

import shapely

from earthmap.catalog.scene import BandSource, Scene
from earthmap.sensors.registry import SENSORS

_SAME_TIME = datetime.timedelta(seconds=1)
_SAME_GROUND = 0.95
"""Intersection over union from which two footprints are one."""


def join_parts(scenes: Sequence[Scene]) -> list[Scene]:
    """`scenes`, those that show the same ground at the same moment in different bands made one; sorted by id.

    A pixel is taken from one scene alone, so that bands of two items would never meet. The joined scene has the id of
    the first by id, every band of the others, and notes that name them. The order of `scenes` does not matter.
    """
    if len({frozenset(_bands(scene)) for scene in scenes}) < 2:
        return sorted(scenes, key=lambda one: (one.id, one.collection))
    joined: list[Scene] = []
    for scene in sorted(scenes, key=lambda one: (one.id, one.collection, [source.band for source in one.sources])):
        at = next((number for number, other in enumerate(joined) if _is_part(scene, other)), None)
        if at is None:
            joined.append(scene)
        else:
            joined[at] = _with_bands_of(joined[at], scene)
    return joined


def _is_part(scene: Scene, other: Scene) -> bool:
    if (scene.sensor, scene.convention, scene.platform) != (other.sensor, other.convention, other.platform):
        return False
    if abs(scene.datetime - other.datetime) > _SAME_TIME or _bands(scene) & _bands(other):
        return False
    ground, beside = shapely.from_wkb(scene.footprint), shapely.from_wkb(other.footprint)
    return bool(ground.intersection(beside).area >= _SAME_GROUND * ground.union(beside).area > 0)


def _bands(scene: Scene) -> set[str]:
    return {source.band for source in scene.sources}


def _with_bands_of(scene: Scene, other: Scene) -> Scene:
    said = f"with {', '.join(sorted(_bands(other)))} of {other.id}"
    order = SENSORS[scene.sensor].bands
    masks: dict[str, BandSource] = {source.band: source for source in (*other.mask_sources, *scene.mask_sources)}
    return dataclasses.replace(
        scene,
        sources=tuple(sorted((*scene.sources, *other.sources), key=lambda source: order.index(source.band))),
        mask_sources=tuple(masks[kind] for kind in SENSORS[scene.sensor].masks if kind in masks),
        resolution_m=min(scene.resolution_m, other.resolution_m),
        notes=tuple(dict.fromkeys((*scene.notes, *other.notes, said))),
    )
