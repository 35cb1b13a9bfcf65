"""One cell's answers as ground: what its tiles saw, and the polygons of its masks. Needs nothing of other cells.

Regions that no other cell can touch are finished here, where cells are worked on side by side; the others leave as
they are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.grid import AreaOfInterest, Cell, pixel_area_m2
from earthmap.merge.aggregate import Sums, TileNumbers
from earthmap.merge.gradings import GivenFootprints, graded_rows
from earthmap.merge.instances import (
    View,
    connected,
    seen_elsewhere,
    view_row,
    views_of,
)
from earthmap.merge.layers import Layer, Source, tile_names
from earthmap.merge.rasters import cell_codes, counted_pixels
from earthmap.merge.regions import Regions, about, clipped, feature_rows, ground_of, on_border
from earthmap.merge.sureness import cell_percent
from earthmap.merge.tables import coverage_schema, feature_schema, placed_table, region_schema, view_schema
from earthmap.merge.tracks import found_rows, sightings_of, together
from earthmap.merge.vectors import label_regions, trace
from earthmap.tasks import TASKS, UNSEEN, Query, encode_mask

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class CellMerge:
    """What one cell brings to the map; small, and independent of every other cell."""

    cell_id: str
    tiles: int
    """Bit i is set where `cell.tiles()[i]` belongs to the job."""
    features: pa.Table = field(repr=False)
    """What is found and finished (`feature_schema` and PLACE)."""
    regions: pa.Table = field(repr=False)
    """What may go on in another cell (`region_schema`)."""
    views: pa.Table = field(repr=False)
    """Things that another cell may know of (`view_schema`)."""
    coverage: pa.Table = field(repr=False)
    """What was seen (`coverage_schema` and PLACE): one row for each tile, query and observation."""
    sums: Sums
    """The numbers of its tiles."""
    classes: Mapping[tuple[str, str], bytes] = field(repr=False)
    """Codes of the counted pixels by query and observation, as `encode_mask` writes them."""
    percent: Mapping[tuple[str, str], bytes] = field(default_factory=dict, repr=False)
    """How sure the answers are of them, where they state it: `earthmap.merge.sureness.cell_percent`."""


@dataclass(frozen=True, slots=True)
class _Ground:
    """The job's share of a cell: polygons for maps, pixels for numbers."""

    places: Mapping[str, tuple[slice, slice]]
    """Rows and columns of each tile in the cell's core."""
    polygons: Mapping[str, Any]
    """Owned ground of each tile ∩ area, EPSG:4326."""
    areas_m2: Mapping[str, float]
    counted: NDArray[np.bool_]
    """(cell_core_px, cell_core_px) pixels that numbers count."""
    weights: NDArray[np.float64]
    """(cell_core_px, cell_core_px) m² of those, 0 elsewhere."""

    @classmethod
    def of(cls, cell: Cell, area: AreaOfInterest, tiles: int) -> _Ground:
        mine = [tile for bit, tile in enumerate(cell.tiles()) if tiles >> bit & 1]
        counted = counted_pixels(cell, area)
        weights = np.where(counted, pixel_area_m2(cell.core_geobox), 0.0)
        places = {tile.id: tile.core_slices for tile in mine}
        sizes = {name: float(weights[place].sum()) for name, place in places.items()}
        return cls(places, dict(zip(places, ground_of(mine, area), strict=True)), sizes, counted, weights)


def merge_cell(
    cell: Cell,
    answers: pa.Table,
    *,
    area: AreaOfInterest,
    queries: Mapping[str, Query],
    tiles: int,
    by_observation: bool,
    footprints: GivenFootprints | None = None,
) -> CellMerge:
    """What the answers (`answer_schema`) of one cell say about the ground.

    Args:
        cell: the cell.
        answers: one row for each tile of the job, query and observation.
        area: clips maps exactly, and numbers by the centres of pixels.
        queries: by content key.
        tiles: which of the cell's tiles belong to the job, as bits.
        by_observation: keep the observations of one-date questions apart, as `scenes: all` asks.
        footprints: those that its tiles were asked about.
    """
    import pyarrow as pa

    made = _Made(cell, area, _Ground.of(cell, area, tiles), footprints)
    for (layer, observation), members in _grouped(answers, queries, by_observation=by_observation):
        made.add(layer, observation, members, queries[layer.query])
    return CellMerge(
        cell_id=cell.id,
        tiles=tiles,
        features=placed_table(made.features, feature_schema()),
        regions=pa.Table.from_pylist(made.regions, schema=region_schema()),
        views=pa.Table.from_pylist(made.views, schema=view_schema()),
        coverage=placed_table(made.coverage, coverage_schema()),
        sums=dataclasses.replace(made.sums, tiles=len(made.seen_m2), seen_m2=sum(made.seen_m2.values())),
        classes=made.classes,
        percent=made.percent,
    )


def _grouped(
    answers: pa.Table, queries: Mapping[str, Query], *, by_observation: bool
) -> list[tuple[tuple[Layer, str], list[dict[str, Any]]]]:
    """The rows of each layer and observation, in an order of their own."""
    grouped: dict[tuple[Layer, str], list[dict[str, Any]]] = {}
    for row in answers.to_pylist():
        apart = by_observation and queries[row["query"]].dates == 1
        layer = Layer(row["query"], row["sensor"] or "", row["observation"] if apart else "")
        grouped.setdefault((layer, row["observation"]), []).append(row)
    return sorted(grouped.items(), key=lambda item: item[0])


class _Made:
    """What a cell comes to, layer by layer."""

    def __init__(
        self, cell: Cell, area: AreaOfInterest, ground: _Ground, footprints: GivenFootprints | None
    ) -> None:  # fmt: skip
        self.cell, self.area, self.ground, self.footprints = cell, area, ground, footprints
        self.features: list[dict[str, Any]] = []
        self.regions: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.coverage: list[dict[str, Any]] = []
        self.classes: dict[tuple[str, str], bytes] = {}
        self.percent: dict[tuple[str, str], bytes] = {}
        self.sums = Sums()
        self.seen_m2: dict[str, float] = {}
        """By tile, the most that any one observation showed of it."""

    def add(self, layer: Layer, observation: str, rows: Sequence[Mapping[str, Any]], query: Query) -> None:
        """One layer and observation of the cell."""
        source, merge = Source.of(rows), TASKS[query.task].merge
        codes = cell_codes(self.cell, {row["tile_id"]: row["mask"] for row in rows})
        if merge == "polygons" and source is not None:
            counted = np.where(self.ground.counted, codes, np.uint8(UNSEEN))
            self.classes[layer.query, observation] = encode_mask(counted)
            percent = cell_percent(self.cell, counted, rows)
            if percent is not None:
                self.percent[layer.query, observation] = encode_mask(percent)
            self._add_regions(codes, layer, source, query, legend=_legend(rows))
        if merge == "instances":
            self._add_things(rows, layer, query)
        if merge == "footprints" and self.footprints is not None:
            graded = list(graded_rows(self.footprints, rows, layer, query))
            self.features += graded
            self.sums.grade(layer, graded, task=query.task)
        for row in rows:
            numbers = _numbers(row, codes, self.ground)
            self.sums.add(layer, row, numbers, task=query.task)
            self.seen_m2[row["tile_id"]] = max(self.seen_m2.get(row["tile_id"], 0.0), numbers.seen_m2)
            self.coverage.append(_coverage(row, layer, numbers, self.ground))
            if merge == "tiles" and row["status"] == "answered":
                self.features.append(_square(row, layer, numbers, query, self.ground))

    def _add_regions(
        self, codes: NDArray[np.uint8], layer: Layer, source: Source, query: Query, *, legend: Mapping[int, str]
    ) -> None:
        polygons, kinds, bits = _outlines(self.cell, codes)
        if not len(polygons):
            return
        names = [tile.id for tile in self.cell.tiles()]
        inside = ~_on_core_edge(polygons, self.cell)
        for code in np.unique(kinds).tolist():
            own = np.flatnonzero(inside & (kinds == code))
            tiles = [tile_names(names, mask) for mask in bits[own].tolist()]
            regions = Regions(polygons[own], tiles, [frozenset([source])] * len(own))
            parts, origin = clipped(
                regions, self.cell.grid, self.cell.zone, area=self.area, ground=self.ground.polygons.__getitem__
            )
            unfinished = np.isin(origin, origin[on_border(parts.geometries)])
            inside[own[origin[unfinished]]] = False
            self.features += feature_rows(parts.taken(np.flatnonzero(~unfinished)), layer, legend[code], query)
        about_source = source.to_json()
        for index in np.flatnonzero(~inside).tolist():
            self.regions.append(
                {
                    "geometry": shapely.to_wkb(polygons[index]), "query": layer.query, "sensor": layer.sensor,
                    "observation": layer.observation, "answer": legend[int(kinds[index])],
                    "tiles": int(bits[index]), "source": about_source,
                }
            )  # fmt: skip

    def _add_things(self, rows: Sequence[Mapping[str, Any]], layer: Layer, query: Query) -> None:
        """What the tiles found: finished where no other cell can know of it."""
        by_label: dict[str, list[View]] = {}
        read = sightings_of if query.is_followed else views_of
        for row in sorted(rows, key=lambda row: str(row["tile_id"])):  # so that nothing depends on their order
            source = Source.of([row])
            if row["status"] == "answered" and source is not None:
                for label, view in read(row, query, source):
                    by_label.setdefault(label, []).append(view)
        for label, views in sorted(by_label.items()):
            elsewhere = seen_elsewhere(self.cell, views)
            groups = connected(len(views), together(views))
            finished = [[views[index] for index in own] for own in groups if not elsewhere[own].any()]
            self.features += found_rows(finished, layer, label, query, area=self.area, sums=self.sums)
            for own in groups:
                if elsewhere[own].any():
                    number = len(self.views)
                    self.views += [view_row(views[index], layer, label, number=number) for index in own]


def _legend(rows: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """The codes of all tiles; a predictor gives every tile of a question the same ones."""
    legend: dict[int, str] = {}
    for row in rows:
        legend.update({int(code): name for code, name in json.loads(row["legend"]).items()})
    return legend


def _outlines(
    cell: Cell, codes: NDArray[np.uint8]
) -> tuple[NDArray[np.object_], NDArray[np.uint8], NDArray[np.uint16]]:
    """The regions of a cell's codes in whole pixels of the zone's lattice: polygons, codes, and the tiles of each.

    x counts eastwards and y northwards from the lattice's anchor. Bit i of the tiles is set where the region has a
    pixel of `cell.tiles()[i]`.
    """
    side = cell.grid.cell_core_px
    labels = label_regions(codes)
    if not labels.any():
        return np.empty(0, object), np.empty(0, np.uint8), np.empty(0, np.uint16)
    polygons, numbers = trace(labels, west_px=cell.column * side, north_px=(cell.row + 1) * side)
    bits = np.zeros(int(numbers.max(initial=0)) + 1, np.uint16)
    kinds = np.zeros(len(bits), np.uint8)
    for bit, tile in enumerate(cell.tiles()):
        found, first = np.unique(labels[tile.core_slices], return_index=True)
        bits[found] |= np.uint16(1 << bit)
        kinds[found] = codes[tile.core_slices].ravel()[first]
    return polygons, kinds[numbers], bits[numbers]


def _on_core_edge(polygons: NDArray[np.object_], cell: Cell) -> NDArray[np.bool_]:
    """Which lattice polygons reach the edge of the cell's core."""
    west, south, east, north = shapely.bounds(polygons).T
    side = cell.grid.cell_core_px
    left, low = cell.column * side, cell.row * side
    found: NDArray[np.bool_] = (west == left) | (south == low) | (east == left + side) | (north == low + side)
    return found


def _numbers(row: Mapping[str, Any], codes: NDArray[np.uint8], ground: _Ground) -> TileNumbers:
    where = ground.places[row["tile_id"]]
    counts = np.bincount(codes[where].ravel(), weights=ground.weights[where].ravel(), minlength=256)
    return TileNumbers(
        area_m2=ground.areas_m2[row["tile_id"]],
        seen_m2=float(counts[:UNSEEN].sum()),
        by_answer_m2={label: float(counts[int(code)]) for code, label in json.loads(row["legend"]).items()},
    )


def _square(
    row: Mapping[str, Any], layer: Layer, numbers: TileNumbers, query: Query, ground: _Ground
) -> dict[str, Any]:
    """An answer about a whole tile stays a square."""
    source = Source.of([row])
    return {
        **about(query, layer, [source] if source else []),
        "geometry": ground.polygons[row["tile_id"]],
        "answer": row["value"],
        "probability": row["probability"],
        "fraction": row["fraction"],
        "area_m2": round(numbers.area_m2, 2),
        "tile_ids": [row["tile_id"]],
        "observation": row["observation"],
        "times": [date["time"] for date in row["dates"]] if row["dates"] else None,
        "embedding": row["embedding"],
    }


def _coverage(row: Mapping[str, Any], layer: Layer, numbers: TileNumbers, ground: _Ground) -> dict[str, Any]:
    shown = row["datetime_min"] is not None
    return {
        "geometry": ground.polygons[row["tile_id"]],
        "query_key": layer.query,
        "seen_share": round(numbers.seen_m2 / numbers.area_m2, 6) if numbers.area_m2 else 0.0,
        "area_km2": round(numbers.area_m2 / 1e6, 6),
        "seen_km2": round(numbers.seen_m2 / 1e6, 6),
        "sensor": layer.sensor or None,
        "scenes": sorted(set(row["scenes"])) if shown else [],
        **_pair(row["pair"]),
        **_verdict(row["triage"]),
        **{name: row[name] for name in _COPIED},
    }


def _pair(text: str | None) -> dict[str, Any]:
    """What `coverage.parquet` says of the two dates of a change."""
    known = json.loads(text) if text else {"shift_m": {}}
    return {
        "alignment": known.get("alignment"),
        "shift_east_m": known["shift_m"].get("east"),
        "shift_north_m": known["shift_m"].get("north"),
        "residual_px": known.get("residual_px"),
    }


def _verdict(text: str | None) -> dict[str, Any]:
    """What `coverage.parquet` says of triage."""
    known = json.loads(text) if text else {}
    return {"triage_score": known.get("score"), "triage_skips": known.get("skips"), "audited": known.get("audited")}


_COPIED = (
    "tile_id", "observation", "status", "stage", "reason", "message", "address", "datetime_min", "datetime_max",
    "orders_agree", "pair",
)  # fmt: skip
