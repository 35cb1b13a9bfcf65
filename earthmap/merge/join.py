"""All cells as one map: regions joined across seams and zones, clipped to the area, in an order of their own.

Regions of one zone lie on one lattice and are joined in whole pixels, exactly. Where two zones meet, each side is cut
at the border's meridian or parallel, and regions that share a stretch of it are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.grid import AreaOfInterest, Cell, Grid, Zone
from earthmap.merge.cells import CellMerge, Layer, Source, TileRow
from earthmap.merge.georeference import areas_m2
from earthmap.merge.vectors import border_pairs, clip_parts, group, seam_pairs, straighten, to_ground, unite
from earthmap.tasks import TASKS, Query

if TYPE_CHECKING:
    import geopandas
    from numpy.typing import NDArray

WORLD = (-180.0, -90.0, 180.0, 90.0)
"""Bounds of the Hilbert curve that features lie on, so that their order does not depend on the area."""

FEATURE_COLUMNS = (
    "geometry", "query", "query_key", "task", "answer", "probability", "fraction", "area_m2", "tile_ids", "scenes",
    "datetime_min", "datetime_max", "sensor", "predictor", "notes",
)  # fmt: skip

COVERAGE_COLUMNS = (
    "geometry", "tile_id", "query_key", "observation", "status", "stage", "reason", "message", "address",
    "seen_share", "area_km2", "seen_km2", "datetime_min", "datetime_max", "sensor", "scenes",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The map of a job."""

    features: geopandas.GeoDataFrame = field(repr=False)
    """What was found (FEATURE_COLUMNS), EPSG:4326."""
    coverage: geopandas.GeoDataFrame = field(repr=False)
    """What was seen: one row (COVERAGE_COLUMNS) for each planned tile, query and observation."""
    rows: tuple[TileRow, ...] = field(repr=False)
    """The rows behind the coverage, with their areas by answer."""


@dataclass(frozen=True, slots=True)
class _Regions:
    """Regions of one layer and answer: geometries and where they come from, in parallel."""

    geometries: NDArray[np.object_]
    tiles: Sequence[frozenset[str]]
    sources: Sequence[frozenset[Source]]

    @classmethod
    def concatenated(cls, parts: Sequence[_Regions]) -> _Regions:
        return cls(
            np.concatenate([part.geometries for part in parts]),
            [tiles for part in parts for tiles in part.tiles],
            [source for part in parts for source in part.sources],
        )

    def taken(self, geometries: NDArray[np.object_], index: NDArray[np.int64]) -> _Regions:
        """Other geometries, each with the origin of the region at `index`."""
        return _Regions(geometries, [self.tiles[i] for i in index], [self.sources[i] for i in index])

    def united(self, pairs: NDArray[np.int64]) -> tuple[_Regions, NDArray[np.bool_]]:
        """Regions that `pairs` connect as one; and which of them are of several."""
        groups = group(len(self.geometries), pairs)
        tiles: dict[int, frozenset[str]] = {}
        sources: dict[int, frozenset[Source]] = {}
        for number, own_tiles, own_sources in zip(groups.tolist(), self.tiles, self.sources, strict=True):
            tiles[number] = tiles.get(number, frozenset()) | own_tiles
            sources[number] = sources.get(number, frozenset()) | own_sources
        order = sorted(tiles)
        several = np.bincount(groups, minlength=len(order)) > 1
        united = _Regions(unite(self.geometries, groups), [tiles[n] for n in order], [sources[n] for n in order])
        return united, several


def join(merges: Iterable[CellMerge], *, area: AreaOfInterest, queries: Mapping[str, Query]) -> Merged:
    """The map that cells make together, the same for any order of theirs.

    Args:
        merges: every cell of the job.
        area: what the map is clipped to.
        queries: by content key.
    """
    ordered = sorted(merges, key=lambda merge: merge.cell_id)
    rows = tuple(row for merge in ordered for row in merge.rows)
    ground = {row.tile_id: row.geometry for row in rows}
    features = _polygon_features(ordered, area, ground, queries)
    features += _square_features(rows, queries)
    return Merged(
        features=_frame(features, FEATURE_COLUMNS),
        coverage=_frame([_coverage(row) for row in rows], COVERAGE_COLUMNS),
        rows=rows,
    )


# ── polygons ─────────────────────────────────────────────────────────────────────────────────────────────────


def _polygon_features(
    merges: Sequence[CellMerge], area: AreaOfInterest, ground: Mapping[str, Any], queries: Mapping[str, Query]
) -> list[dict[str, Any]]:
    by_zone: dict[tuple[Layer, str], dict[tuple[Grid, Zone], list[_Regions]]] = {}
    for merge in merges:
        cell = Cell.parse(merge.cell_id)
        names = [tile.id for tile in cell.tiles()]
        for pieces in merge.pieces:
            for answer in sorted(set(pieces.answers)):
                own = np.array([name == answer for name in pieces.answers])
                bits = pieces.tiles[own].tolist()
                tiles = [frozenset(name for bit, name in enumerate(names) if mask >> bit & 1) for mask in bits]
                regions = _Regions(pieces.polygons[own], tiles, [frozenset([pieces.source])] * len(tiles))
                by_zone.setdefault((pieces.layer, answer), {}).setdefault((cell.grid, cell.zone), []).append(regions)
    features = []
    for (layer, answer), zones in sorted(by_zone.items(), key=lambda item: item[0]):
        parts = [_zone_regions(grid, zone, members, area, ground) for (grid, zone), members in sorted_zones(zones)]
        regions = _over_borders(_Regions.concatenated(parts))
        features += _features(regions, layer, answer, queries[layer.query])
    return features


def sorted_zones(zones: Mapping[tuple[Grid, Zone], Any]) -> list[tuple[tuple[Grid, Zone], Any]]:
    """Items by zone, for an order that does not depend on the cells'."""
    return sorted(zones.items(), key=lambda item: (item[0][0].id, item[0][1]))


def _zone_regions(
    grid: Grid, zone: Zone, members: Sequence[_Regions], area: AreaOfInterest, ground: Mapping[str, Any]
) -> _Regions:
    """The regions of one zone, joined across its cells, on the ground, clipped to its strip and the area."""
    regions = _Regions.concatenated(members)
    regions, several = regions.united(seam_pairs(regions.geometries, grid.cell_core_px))
    regions.geometries[several] = straighten(regions.geometries[several])
    clip = shapely.intersection(area.geometry, shapely.box(*zone.strip))
    on_ground, number = to_ground(regions.geometries, grid=grid, zone=zone)
    parts, index, cut = clip_parts(on_ground, clip)
    clipped = regions.taken(parts, number[index])
    tiles = [
        frozenset(name for name in names if ground[name].intersects(part)) if was_cut else names
        for names, part, was_cut in zip(clipped.tiles, parts, cut, strict=True)
    ]
    return _Regions(parts, tiles, clipped.sources)


def _over_borders(regions: _Regions) -> _Regions:
    """Regions that meet on the border of two zones as one, those on the antimeridian as one in two polygons."""
    if not len(regions.geometries):
        return regions
    return regions.united(border_pairs(regions.geometries))[0]


def _features(regions: _Regions, layer: Layer, answer: str, query: Query) -> list[dict[str, Any]]:
    geometries = shapely.normalize(regions.geometries)
    sizes = areas_m2(geometries)
    return [
        {
            **_about(query, layer, sources),
            "geometry": geometry,
            "answer": answer,
            "probability": None,
            "fraction": None,
            "area_m2": round(float(size), 2),
            "tile_ids": sorted(tiles),
        }
        for geometry, tiles, sources, size in zip(geometries, regions.tiles, regions.sources, sizes, strict=True)
    ]


def _about(query: Query, layer: Layer, sources: Iterable[Source]) -> dict[str, Any]:
    sources = list(sources)
    return {
        "query": query.text,
        "query_key": layer.query,
        "task": query.task,
        "scenes": sorted({scene for source in sources for scene in source.scenes}),
        "datetime_min": min(source.datetime_min for source in sources),
        "datetime_max": max(source.datetime_max for source in sources),
        "sensor": layer.sensor,
        "predictor": min(source.predictor for source in sources),
        "notes": sorted({note for source in sources for note in source.notes}),
    }


# ── squares and coverage ─────────────────────────────────────────────────────────────────────────────────────


def _square_features(rows: Sequence[TileRow], queries: Mapping[str, Query]) -> list[dict[str, Any]]:
    """Answers about whole tiles stay squares."""
    return [
        {
            **_about(queries[row.layer.query], row.layer, [row.source]),
            "geometry": row.geometry,
            "answer": row.value,
            "probability": row.probability,
            "fraction": row.fraction,
            "area_m2": round(row.area_m2, 2),
            "tile_ids": [row.tile_id],
        }
        for row in rows
        if row.status == "answered" and row.source is not None and TASKS[row.task].merge == "tiles"
    ]


def _coverage(row: TileRow) -> dict[str, Any]:
    return {
        "geometry": row.geometry,
        "query_key": row.layer.query,
        "seen_share": round(row.seen_m2 / row.area_m2, 6) if row.area_m2 else 0.0,
        "area_km2": round(row.area_m2 / 1e6, 6),
        "seen_km2": round(row.seen_m2 / 1e6, 6),
        "datetime_min": row.source.datetime_min if row.source else None,
        "datetime_max": row.source.datetime_max if row.source else None,
        "sensor": row.layer.sensor or None,
        "scenes": list(row.source.scenes) if row.source else [],
        **{name: getattr(row, name) for name in _SAME},
    }


_SAME = ("tile_id", "observation", "status", "stage", "reason", "message", "address")

_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("probability", "fraction", "area_m2", "seen_share", "area_km2", "seen_km2"), "float64"),
    **dict.fromkeys(("datetime_min", "datetime_max"), "datetime64[us, UTC]"),
    **dict.fromkeys(("tile_ids", "scenes", "notes"), "list"),
}


def _frame(records: list[dict[str, Any]], columns: Sequence[str]) -> geopandas.GeoDataFrame:
    """A frame in Hilbert order of the centroids, ties by content; its types hold for no rows too."""
    import geopandas
    import pandas as pd
    import pyarrow as pa

    kinds: dict[str, Any] = {name: _TYPES.get(name, "str") for name in columns if name != "geometry"}
    data = {
        name: pd.array([record[name] for record in records], dtype=_pandas_type(kind, pa))
        for name, kind in kinds.items()
    }
    geometry = geopandas.GeoSeries([record["geometry"] for record in records], crs="EPSG:4326")
    frame = geopandas.GeoDataFrame(data, geometry=geometry, crs="EPSG:4326")[list(columns)]
    if frame.empty:
        return frame
    place = frame.geometry.hilbert_distance(total_bounds=WORLD, level=16).to_numpy()
    content = [shapely.to_wkb(shape) for shape in frame.geometry]
    names = [name for name in columns if name in ("query_key", "answer", "tile_id", "observation")]
    keys = list(zip(*(frame[name].fillna("").tolist() for name in names), strict=True))
    times = frame["datetime_min"].astype("int64").tolist()
    order = sorted(range(len(frame)), key=lambda i: (place[i], keys[i], times[i], content[i]))
    return frame.iloc[order].reset_index(drop=True)


def _pandas_type(kind: str, pa: Any) -> Any:
    import pandas as pd

    if kind == "list":
        return pd.ArrowDtype(pa.list_(pa.string()))
    return pd.ArrowDtype(pa.string()) if kind == "str" else kind
