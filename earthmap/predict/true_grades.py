"""What the oracle says of footprints: the grade of the drawn building that each of them lies on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely

from earthmap.grid import tile_to_lonlat
from earthmap.grid.projection import plane_of
from earthmap.predict.protocol import TileInput
from earthmap.synthetic.standing import building_grades, standing_on
from earthmap.synthetic.truth import World
from earthmap.tasks.answer import Grading
from earthmap.tasks.damage import GRADES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry


def true_gradings(world: World, item: TileInput, outlines: Sequence[BaseGeometry]) -> list[Grading]:
    """For each outline (coordinates 0–1 of the picture) the grade of the building that it shares most ground with."""
    if item.tile is None or not len(outlines):
        return []
    tile, plane = item.tile, plane_of(world.epsg)

    def in_world(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(plane.project(*tile_to_lonlat(tile, xy[:, 0], xy[:, 1])))

    standing, grades = standing_on(world, "building"), building_grades(world)
    placed = shapely.transform(np.array(outlines, object), in_world)
    return [_grading(outline, standing.outlines, standing.tree.query(outline, predicate="intersects"), grades)
            for outline in placed]  # fmt: skip


def _grading(
    outline: BaseGeometry, buildings: NDArray[np.object_], near: NDArray[np.int64], grades: NDArray[np.uint8]
) -> Grading:
    if not len(near):
        return Grading(reason="no_building", message="no building of the drawn world stands there")
    near = np.sort(near)
    best = near[int(np.argmax(shapely.area(shapely.intersection(buildings[near], outline))))]
    word = GRADES[int(grades[best])]
    return Grading(value=word, probability=1.0, scores={word: 1.0})
