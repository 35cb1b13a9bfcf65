"""Footprints as features: every one that was given, as it was given, with its grade or why it has none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.merge.georeference import areas_m2
from earthmap.merge.layers import Layer, Source
from earthmap.merge.regions import about
from earthmap.tasks import Query
from earthmap.tasks.answer import Grading, parse_gradings
from earthmap.tasks.damage import NOT_ANALYSED, grade_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GivenFootprints:
    """Footprints as a person gave them; arrays of one length."""

    numbers: NDArray[np.int64]
    """Of their row in the file, from 0 on."""
    tiles: NDArray[np.object_]
    """Id of the tile that asks about each; None where none does."""
    ids: NDArray[np.object_]
    geometries: NDArray[np.object_] = field(repr=False)
    """EPSG:4326; None where there is none."""
    properties: NDArray[np.object_] = field(repr=False)
    """JSON text."""
    notes: NDArray[np.object_] = field(repr=False)
    """What is odd about each; empty where nothing is."""

    @property
    def areas_m2(self) -> list[float | None]:
        """Geodesic areas, rounded to 0.01 m²; None for points and for what has no area on the Earth."""
        west, south, east, north = shapely.bounds(self.geometries).T
        with np.errstate(invalid="ignore"):
            placed = (west >= -180.0) & (east <= 180.0) & (south >= -90.0) & (north <= 90.0)
        known = placed & (shapely.get_dimensions(self.geometries) == 2) & shapely.is_valid(self.geometries)
        sizes = np.zeros(len(self.geometries))
        sizes[known] = areas_m2(self.geometries[known])
        return [round(size, 2) if there else None for size, there in zip(sizes.tolist(), known.tolist(), strict=True)]


def graded_rows(
    given: GivenFootprints, rows: Sequence[Mapping[str, Any]], layer: Layer, query: Query
) -> Iterator[dict[str, Any]]:
    """The footprints of a cell as rows of `feature_schema`, each once.

    Args:
        given: Of the cell, in the order in which its tiles were asked about them.
        rows: Answers (`answer_schema`) of the cell's tiles.
        layer: What the rows are of.
        query: What was asked.
    """
    by_tile, areas = {row["tile_id"]: row for row in rows}, given.areas_m2
    for tile in sorted({tile for tile in given.tiles.tolist() if tile in by_tile}):
        mine, row = np.flatnonzero(given.tiles == tile), by_tile[tile]
        source = Source.of([row])
        said = about(query, layer, [source]) if source is not None else _unseen(query, layer, row["predictor"])
        for index, grading in zip(mine.tolist(), _gradings(row, len(mine)), strict=True):
            notes = dict.fromkeys([*said["notes"], *grading.notes, *filter(None, [given.notes[index]])])
            own = {**_row(given, index), "area_m2": areas[index], "tile_ids": [tile], "notes": list(notes)}
            yield {**said, **_graded(grading), **own}


def ungraded_rows(given: GivenFootprints, query: Query, key: str, reason: str) -> Iterator[dict[str, Any]]:
    """The same for footprints that no tile asks about: `reason` says why."""
    said = _unseen(query, Layer(key, "", ""), None)
    grading = _graded(Grading(reason=reason, message=WHY[reason]))
    for index, area in enumerate(given.areas_m2):
        notes = [given.notes[index]] if given.notes[index] else []
        yield {**said, **grading, **_row(given, index), "area_m2": area, "tile_ids": [], "notes": notes}


OUTSIDE = "outside"

WHY = {
    OUTSIDE: "its centroid lies outside the area",
    "no_geometry": "the file has no geometry for it that could be read",
    "no_place": "its coordinates are not on the Earth",
    "no_area": "it is neither a polygon with area nor a point",
}
"""Why a footprint is asked about by no tile, by reason."""


def _gradings(row: Mapping[str, Any], count: int) -> Sequence[Grading]:
    """What is said of each of a tile's footprints; of a tile that was not answered its own reason."""
    if row["status"] == "answered":
        return parse_gradings(row["gradings"])
    return [Grading(reason=row["reason"] or row["status"], message=row["message"])] * count


def _unseen(query: Query, layer: Layer, predictor: str | None) -> dict[str, Any]:
    """`about` where nothing was looked at."""
    return {
        "query": query.text,
        "query_key": layer.query,
        "task": query.task,
        "scenes": [],
        "datetime_min": None,
        "datetime_max": None,
        "sensor": layer.sensor or None,
        "predictor": predictor,
        "notes": [],
    }


def _row(given: GivenFootprints, index: int) -> dict[str, Any]:
    return {
        "geometry": given.geometries[index],
        "fraction": None,
        "id": given.ids[index],
        "footprint": int(given.numbers[index]) + 1,
        "properties": given.properties[index],
    }


def _graded(grading: Grading) -> dict[str, Any]:
    grade = None if grading.value is None else grade_of(grading.value)
    return {
        "answer": NOT_ANALYSED if grade is None else grade.ems,
        "grade_xbd": None if grade is None else grade.xbd,
        "probability": grading.probability,
        "scores": json.dumps(dict(grading.scores), sort_keys=True) if grading.scores else None,
        "reason": grading.reason,
        "message": grading.message,
    }
