"""One cell's answers as ground: polygons of its masks, and what each tile saw. Needs nothing of other cells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.grid import AreaOfInterest, Cell, owned_ground, pixel_area_m2
from earthmap.merge.rasters import cell_codes, counted_pixels
from earthmap.merge.vectors import label_regions, trace
from earthmap.tasks import TASKS, UNSEEN, Query

if TYPE_CHECKING:
    import datetime

    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, order=True)
class Layer:
    """What is joined into one map: one query, one sensor, and one observation where several are asked."""

    query: str
    """Content key of the query."""
    sensor: str
    """Empty where there was nothing to look at."""
    observation: str
    """Empty where each cell has the one observation that was chosen for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where what a cell says in one layer comes from."""

    scenes: tuple[str, ...]
    datetime_min: datetime.datetime
    datetime_max: datetime.datetime
    predictor: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """The regions of one cell's masks in one layer, in whole pixels of the zone's lattice."""

    layer: Layer
    source: Source
    polygons: NDArray[np.object_] = field(repr=False)
    """x eastwards and y northwards from the lattice's anchor, in pixels."""
    answers: tuple[str, ...]
    """What each region is: `water`, `water gained`."""
    tiles: NDArray[np.uint16] = field(repr=False)
    """Bit i is set where the region has a pixel of `cell.tiles()[i]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRow:
    """One answer row with the ground that it is about: a row of the coverage."""

    tile_id: str
    layer: Layer
    observation: str
    task: str
    status: str
    stage: str | None
    reason: str | None
    message: str | None
    address: str | None
    value: str | None
    probability: float | None
    fraction: float | None
    source: Source | None
    geometry: Any = field(repr=False)
    """Owned ground of the tile ∩ area, EPSG:4326."""
    area_m2: float
    """Of its pixels, counted where the centre lies in that ground."""
    seen_m2: float
    """Of its pixels that could be seen."""
    by_answer_m2: Mapping[str, float]
    """Of its pixels by what they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellMerge:
    """What one cell brings to the map; small, and independent of every other cell."""

    cell_id: str
    tiles: int
    """Bit i is set where `cell.tiles()[i]` belongs to the job."""
    pieces: tuple[Pieces, ...]
    rows: tuple[TileRow, ...]


@dataclass(frozen=True, slots=True)
class _Ground:
    """The job's share of a cell: polygons for maps, pixels for numbers."""

    polygons: Mapping[str, Any]
    areas_m2: Mapping[str, float]
    weights: NDArray[np.float64]
    """(cell_core_px, cell_core_px) m² of the pixels that numbers count, 0 elsewhere."""

    @classmethod
    def of(cls, cell: Cell, area: AreaOfInterest, tiles: int) -> _Ground:
        mine = [tile for bit, tile in enumerate(cell.tiles()) if tiles >> bit & 1]
        parts = [_areal(shapely.intersection(owned_ground(tile), area.geometry)) for tile in mine]
        weights = np.where(counted_pixels(cell, area), pixel_area_m2(cell.core_geobox), 0.0)
        sizes = {tile.id: float(weights[tile.core_slices].sum()) for tile in mine}
        return cls({tile.id: part for tile, part in zip(mine, parts, strict=True)}, sizes, weights)


def _areal(geometry: Any) -> Any:
    """The polygons of a geometry; an intersection may bring lines and points along."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return shapely.multipolygons([part for part in parts if part.geom_type == "Polygon" and part.area > 0])


def merge_cell(
    cell: Cell,
    answers: pa.Table,
    *,
    area: AreaOfInterest,
    queries: Mapping[str, Query],
    tiles: int,
    by_observation: bool,
) -> CellMerge:
    """What the answers (`answer_schema`) of one cell say about the ground.

    Args:
        cell: the cell.
        answers: one row for each tile of the job, query and observation.
        area: clips maps exactly, and numbers by the centres of pixels.
        queries: by content key.
        tiles: which of the cell's tiles belong to the job, as bits.
        by_observation: keep the observations of one-date questions apart, as `scenes: all` asks.
    """
    ground = _Ground.of(cell, area, tiles)
    grouped: dict[tuple[Layer, str], list[dict[str, Any]]] = {}
    for row in answers.to_pylist():
        layer = _layer(row, by_observation=by_observation and queries[row["query"]].dates == 1)
        grouped.setdefault((layer, row["observation"]), []).append(row)
    pieces, rows = list[Pieces](), list[TileRow]()
    for (layer, _), members in sorted(grouped.items(), key=lambda item: item[0]):
        source = _source(members)
        task = TASKS[queries[layer.query].task]
        codes = cell_codes(cell, {row["tile_id"]: row["mask"] for row in members})
        if task.merge == "polygons" and source is not None:
            pieces.append(_pieces(cell, codes, layer, source, legend=_legend(members)))
        rows += _tile_rows(cell, members, layer, codes, task=task.id, ground=ground)
    return CellMerge(cell_id=cell.id, tiles=tiles, pieces=tuple(pieces), rows=tuple(rows))


def _layer(row: Mapping[str, Any], *, by_observation: bool) -> Layer:
    return Layer(row["query"], row["sensor"] or "", row["observation"] if by_observation else "")


def _legend(rows: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """The codes of all tiles; a predictor gives every tile of a question the same ones."""
    legend: dict[int, str] = {}
    for row in rows:
        legend.update({int(code): name for code, name in json.loads(row["legend"]).items()})
    return legend


def _source(rows: Sequence[Mapping[str, Any]]) -> Source | None:
    seen = [row for row in rows if row["datetime_min"] is not None]
    if not seen:
        return None
    return Source(
        scenes=tuple(sorted({scene for row in seen for scene in row["scenes"]})),
        datetime_min=min(row["datetime_min"] for row in seen),
        datetime_max=max(row["datetime_max"] for row in seen),
        predictor=seen[0]["predictor"],
        notes=tuple(sorted({note for row in seen if row["status"] == "answered" for note in row["notes"]})),
    )


def _pieces(cell: Cell, codes: NDArray[np.uint8], layer: Layer, source: Source, *, legend: Mapping[int, str]) -> Pieces:
    side = cell.grid.cell_core_px
    labels = label_regions(codes)
    polygons, numbers = trace(labels, west_px=cell.column * side, north_px=(cell.row + 1) * side)
    bits = np.zeros(int(numbers.max(initial=0)) + 1, np.uint16)
    kinds = np.zeros(len(bits), np.uint8)
    for bit, tile in enumerate(cell.tiles()):
        block = labels[tile.core_slices]
        found, first = np.unique(block, return_index=True)
        bits[found] |= np.uint16(1 << bit)
        kinds[found] = codes[tile.core_slices].ravel()[first]
    return Pieces(
        layer=layer,
        source=source,
        polygons=polygons,
        answers=tuple(legend[int(code)] for code in kinds[numbers]),
        tiles=bits[numbers],
    )


def _tile_rows(
    cell: Cell,
    rows: Sequence[Mapping[str, Any]],
    layer: Layer,
    codes: NDArray[np.uint8],
    *,
    task: str,
    ground: _Ground,
) -> list[TileRow]:
    places = {tile.id: tile for tile in cell.tiles()}
    result = []
    for row in rows:
        name = row["tile_id"]
        where = places[name].core_slices
        counts = np.bincount(codes[where].ravel(), weights=ground.weights[where].ravel(), minlength=256)
        by_answer = {label: float(counts[int(code)]) for code, label in json.loads(row["legend"]).items()}
        result.append(
            TileRow(
                tile_id=name,
                layer=layer,
                task=task,
                source=_source([row]),
                geometry=ground.polygons[name],
                area_m2=ground.areas_m2[name],
                seen_m2=float(counts[:UNSEEN].sum()),
                by_answer_m2=by_answer,
                **{key: row[key] for key in _COPIED},
            )
        )
    return result


_COPIED = ("observation", "status", "stage", "reason", "message", "address", "value", "probability", "fraction")
