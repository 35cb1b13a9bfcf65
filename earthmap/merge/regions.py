"""Regions of the lattice as ground: carried to longitude and latitude, clipped to their zone and the area.

What becomes of a region depends on it alone and never on those that it is worked on with, so that a worker may finish
one that lies inside its cell, and the last pass one that crosses seams, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.grid import AreaOfInterest, Cell, Grid, Tile, Zone, owned_grounds
from earthmap.merge.georeference import areas_m2
from earthmap.merge.layers import Layer, Source
from earthmap.merge.vectors import border_stretches, clip_parts, group, overlaps, to_ground, unite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from earthmap.tasks import Query


@dataclass(frozen=True, slots=True)
class Regions:
    """Regions of one layer and answer: geometries and where they come from, in parallel."""

    geometries: NDArray[np.object_]
    tiles: Sequence[frozenset[str]]
    """Ids of the tiles that each has a pixel of."""
    sources: Sequence[frozenset[Source]]

    def taken(self, index: NDArray[Any]) -> Regions:
        """Those at `index`."""
        return Regions(self.geometries[index], [self.tiles[i] for i in index], [self.sources[i] for i in index])

    @classmethod
    def concatenated(cls, parts: Iterable[Regions]) -> Regions:
        """All of them, in their order."""
        parts = list(parts)
        return cls(
            np.concatenate([np.empty(0, object), *(part.geometries for part in parts)]),
            [tiles for part in parts for tiles in part.tiles],
            [sources for part in parts for sources in part.sources],
        )


@lru_cache(maxsize=16)
def area_in(area: AreaOfInterest, zone: Zone) -> Any:
    """The area within a zone's strip: what regions of the zone are clipped to."""
    clip = shapely.intersection(area.geometry, shapely.box(*zone.strip))
    shapely.prepare(clip)
    return clip


def ground_of(tiles: Sequence[Tile | Cell], area: AreaOfInterest) -> list[Any]:
    """Owned ground ∩ area of each tile, all of one zone, as a MultiPolygon, EPSG:4326."""
    shapely.prepare(area.geometry)
    grounds = np.empty(len(tiles), object)
    grounds[:] = owned_grounds(tiles)
    cut = ~shapely.covers(area.geometry, grounds)
    grounds[cut] = shapely.intersection(grounds[cut], area.geometry)
    return [_areal(ground) for ground in grounds]


def _areal(geometry: Any) -> Any:
    """The polygons of a geometry; an intersection may bring lines and points along."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return shapely.multipolygons([part for part in parts if part.geom_type == "Polygon" and part.area > 0])


def clipped(
    regions: Regions, grid: Grid, zone: Zone, *, area: AreaOfInterest, ground: Callable[[str], Any]
) -> tuple[Regions, NDArray[np.int64]]:
    """Connected parts of lattice regions on the ground within zone and area, and the number of the region of each.

    Args:
        regions: outlines in whole pixels of the zone's lattice.
        grid: the lattice.
        zone: the zone.
        area: what the map is clipped to.
        ground: owned ground ∩ area of a tile by its id.
    """
    on_ground, number = to_ground(regions.geometries, grid=grid, zone=zone)
    parts, index, cut = clip_parts(on_ground, area_in(area, zone))
    origin = number[index]
    tiles = [
        _tiles_under(part, regions.tiles[i], ground) if was_cut else regions.tiles[i]
        for part, i, was_cut in zip(parts, origin.tolist(), cut, strict=True)
    ]
    return Regions(parts, tiles, [regions.sources[i] for i in origin]), origin


def _tiles_under(part: Any, names: frozenset[str], ground: Callable[[str], Any]) -> frozenset[str]:
    """Those of the tiles whose ground the part of a cut region still touches."""
    ordered = sorted(names)
    shapely.prepare(part)
    touched = shapely.intersects(part, [ground(name) for name in ordered])
    return frozenset(name for name, there in zip(ordered, touched, strict=True) if there)


def on_border(geometries: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which polygons in EPSG:4326 lie along a zone's border, where they may go on in another zone."""
    found = np.zeros(len(geometries), bool)
    found[border_stretches(geometries).member] = True
    return found


def over_borders(regions: Regions) -> Regions:
    """Regions that meet on the border of two zones as one, those on the antimeridian as one in two polygons."""
    if not len(regions.geometries):
        return regions
    groups = group(len(regions.geometries), overlaps(border_stretches(regions.geometries)))
    members: list[list[int]] = [[] for _ in range(int(groups.max()) + 1)]
    for index, number in enumerate(groups.tolist()):
        members[number].append(index)
    return Regions(
        unite(regions.geometries, groups),
        [frozenset[str]().union(*(regions.tiles[i] for i in own)) for own in members],
        [frozenset[Source]().union(*(regions.sources[i] for i in own)) for own in members],
    )


def feature_rows(regions: Regions, layer: Layer, answer: str, query: Query) -> Iterator[dict[str, Any]]:
    """Rows of the features (`feature_schema`, geometries as shapely's) that finished regions are."""
    geometries = shapely.normalize(regions.geometries)
    sizes = areas_m2(geometries)
    for geometry, tiles, sources, size in zip(geometries, regions.tiles, regions.sources, sizes, strict=True):
        yield {
            **about(query, layer, sources),
            "geometry": geometry,
            "answer": answer,
            "probability": None,
            "fraction": None,
            "area_m2": round(float(size), 2),
            "tile_ids": sorted(tiles),
        }


def about(query: Query, layer: Layer, sources: Iterable[Source]) -> Mapping[str, Any]:
    """The columns that say what a feature answers, and from what."""
    source = Source.united(sources)
    return {
        "query": query.text,
        "query_key": layer.query,
        "task": query.task,
        "scenes": list(source.scenes),
        "datetime_min": source.datetime_min,
        "datetime_max": source.datetime_max,
        "sensor": layer.sensor,
        "predictor": source.predictor,
        "notes": list(source.notes),
    }
