"""What page and picture draw of a result of any size, read from its tables a piece at a time.

Of many features the largest, with outlines no finer than can be seen; of much ground that was not seen, blocks of tiles
that cover exactly it. What is left out is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.outputs.numbers import format_share
from earthmap.tasks.damage import SCALE

if TYPE_CHECKING:
    import geopandas
    import pyarrow as pa
    from numpy.typing import NDArray

MAX_POLYGONS = 10_000
"""Features that are drawn, and as many tiles or blocks of tiles that were not seen."""

MAX_VERTICES = 60_000
"""Of all features together, about 40 bytes each on the page; above it outlines are simplified."""

MORE_THAN_ALL_M2 = 1e15
"""More than the Earth has."""

NO_PLACE = ("outside", "no_geometry", "no_place", "no_area")
"""Reasons of footprints that no tile asks about."""

STEPS = 4_000
"""Outlines are simplified by the height of the map over this."""

SIMPLIFIED = "Outlines on the map are simplified; features.parquet has them exact."

READ_ROWS = 10_000

NOT_DRAWN = "embedding"
"""Column of vectors, which nothing on a page shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is drawn, as frames in EPSG:4326."""

    features: geopandas.GeoDataFrame = field(repr=False)
    """Of features.parquet, with its columns."""
    coverage: geopandas.GeoDataFrame = field(repr=False)
    """Of coverage.parquet, with its columns: what was not seen, and one row for what was of each observation."""
    notes: tuple[str, ...] = ()
    """What readers must be told."""


def select_results(features: Path, coverage: Path) -> Selection:
    """What is drawn of `features.parquet` and `coverage.parquet`, two local files."""
    seen, said = _coverage(coverage)
    height = float(np.ptp(shapely.total_bounds(np.asarray(seen.geometry))[1::2])) if len(seen) else 0.0
    found, notes = _features(features, tolerance=height / STEPS)
    return Selection(features=found, coverage=seen, notes=(*notes, *said))


def _batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        columns = columns or [name for name in file.schema_arrow.names if name != NOT_DRAWN]
        for batch in file.iter_batches(batch_size=READ_ROWS, columns=columns):
            yield pa.Table.from_batches([batch])


def _frame(tables: list[pa.Table], path: Path) -> geopandas.GeoDataFrame:
    import geopandas
    import pyarrow as pa
    import pyarrow.parquet as pq

    empty = pq.read_schema(path).empty_table()
    if NOT_DRAWN in empty.column_names:
        empty = empty.drop_columns([NOT_DRAWN])
    table = pa.concat_tables([empty, *tables]).drop_columns(["bbox"])
    shapes = geopandas.GeoSeries.from_wkb(table["geometry"].to_pylist(), crs="EPSG:4326")
    return geopandas.GeoDataFrame(table.drop_columns(["geometry"]).to_pandas(), geometry=shapes)


# ── features ─────────────────────────────────────────────────────────────────────────────────────────────────


def _features(path: Path, *, tolerance: float) -> tuple[geopandas.GeoDataFrame, list[str]]:
    """The largest features, simplified by `tolerance` degrees where they have too many vertices together; of graded
    footprints the worst."""
    areas, vertices, severity = _sizes(path)
    chosen = largest(areas + severity * MORE_THAN_ALL_M2)
    kept, first = list[Any](), 0
    for table in _batches(path):
        own = chosen[(chosen >= first) & (chosen < first + len(table))] - first
        kept.append(table.take(own))
        first += len(table)
    frame, notes = _frame(kept, path), []
    lost = (frame["task"] == "damage") & (frame["reason"].isin(NO_PLACE) | frame.geometry.is_empty)
    if lost.any():
        frame = frame[~lost]
        many = int(lost.sum())
        notes.append(
            f"{many:,} footprint{'s' * (many > 1)} outside the area, or without a place on the Earth, not drawn: "
            "features.parquet has all."
        )
    if len(chosen) < len(areas):
        share = format_share(float(areas[chosen].sum() / (areas.sum() or 1.0)))
        which = "worst damaged, or largest," if severity.any() else "largest"
        notes.append(
            f"The map shows the {which} {len(chosen):,} of {len(areas):,} polygons ({share} of their area); "
            "features.parquet has all of them."
        )
    if vertices[chosen].sum() > MAX_VERTICES and tolerance:
        frame = frame.set_geometry(shapely.simplify(np.asarray(frame.geometry), tolerance), crs="EPSG:4326")
        notes.append(SIMPLIFIED)
    return frame, notes


def _sizes(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Area in m² and number of vertices, about, of every feature, and how bad the damage is: 0 for none."""
    import pyarrow.compute as pc

    areas, vertices, severity = [np.empty(0)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    bad = {grade.ems: number for number, grade in enumerate(SCALE)}
    for table in _batches(path, ["area_m2", "geometry", "task", "answer"]):
        said = zip(table["task"].to_pylist(), table["answer"].to_pylist(), strict=True)
        severity.append(np.array([bad.get(answer, 0) if task == "damage" else 0 for task, answer in said], np.int64))
        areas.append(np.nan_to_num(table["area_m2"].to_numpy()))
        vertices.append(pc.fill_null(pc.binary_length(table["geometry"]), 0).to_numpy().astype(np.int64) // 16)
    return np.concatenate(areas), np.concatenate(vertices), np.concatenate(severity)


def largest(areas: NDArray[np.float64]) -> NDArray[np.int64]:
    """The indices of the MAX_POLYGONS largest of `areas`, in order."""
    if len(areas) <= MAX_POLYGONS:
        return np.arange(len(areas))
    return np.sort(np.argsort(-areas, kind="stable")[:MAX_POLYGONS])


# ── coverage ─────────────────────────────────────────────────────────────────────────────────────────────────


def _coverage(path: Path) -> tuple[geopandas.GeoDataFrame, list[str]]:
    """Rows of what was not seen, of more than MAX_POLYGONS in blocks, and the extent of what was."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    unseen, per_degree = _block_size(path)
    blocks, seen, kept = _Blocks(per_degree), _Extents(), list[Any]()
    for table in _batches(path):
        answered = pc.equal(table["status"], "answered")
        seen.add(table.filter(answered))
        rest = _unseen(table)
        if unseen > MAX_POLYGONS:
            blocks.add(rest)
        else:
            kept.append(rest)
    kept.append(pa.Table.from_pylist([*blocks.rows(), *seen.rows()], schema=pq.read_schema(path)))
    said = (
        f"Ground that was not seen is drawn in {len(blocks.rows()):,} blocks, which cover that of {unseen:,} tile "
        "answers; coverage.parquet has each."
    )
    return _frame(kept, path), [said] if unseen > MAX_POLYGONS else []


def _unseen(table: pa.Table) -> pa.Table:
    """The rows that were not answered; where no footprint is there was nothing to see."""
    import pyarrow.compute as pc

    nothing = pc.fill_null(pc.equal(table["reason"], "no_footprint"), False)
    return table.filter(pc.and_(pc.not_equal(table["status"], "answered"), pc.invert(nothing)))


_LIKE = ("query_key", "observation", "sensor", "status")
"""What the tiles of a block have in common."""


def _block_size(path: Path) -> tuple[int, float]:
    """How many rows were not seen, and how many blocks to a degree make no more of them than are drawn."""
    places, kinds = [np.empty((0, 3))], dict[tuple[Any, ...], int]()
    for table in _batches(path, [*_LIKE, "reason", "bbox"]):
        rest = _unseen(table)
        numbers = [kinds.setdefault(kind, len(kinds)) for kind in _kinds(rest)]
        places.append(np.column_stack([np.array(numbers, float), _middles(rest)]))
    rows, per_degree = np.concatenate(places), 2.0**10
    if len(rows) > MAX_POLYGONS:
        while len(np.unique(np.floor(rows * (1.0, per_degree, per_degree)), axis=0)) > MAX_POLYGONS:
            per_degree /= 2
    return len(rows), per_degree


def _kinds(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in _LIKE), strict=True))


def _middles(table: pa.Table) -> NDArray[np.float64]:
    """(n, 2) the middle of each row's bounds."""
    import pyarrow.compute as pc

    edges = [pc.struct_field(table["bbox"], name).to_numpy() for name in ("xmin", "xmax", "ymin", "ymax")]
    return np.column_stack([(edges[0] + edges[1]) / 2, (edges[2] + edges[3]) / 2])


class _Blocks:
    """Tiles of one kind in one square of degrees, as one shape each."""

    def __init__(self, per_degree: float) -> None:
        self.per_degree = per_degree
        self.shapes: dict[tuple[Any, ...], Any] = {}
        self.counts: dict[tuple[Any, ...], int] = {}

    def add(self, table: pa.Table) -> None:
        """More tiles."""
        squares = np.floor(_middles(table) * self.per_degree).astype(int).tolist()
        shapes = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
        together: dict[tuple[Any, ...], list[Any]] = {}
        for kind, square, shape in zip(_kinds(table), squares, shapes, strict=True):
            together.setdefault((*kind, *square), []).append(shape)
        for key, members in together.items():
            known = [self.shapes[key]] if key in self.shapes else []
            self.shapes[key] = shapely.union_all([*known, *members])
            self.counts[key] = self.counts.get(key, 0) + len(members)

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the coverage, one for each block."""
        return [
            {
                **dict(zip(_LIKE, key, strict=False)),
                "geometry": shapely.to_wkb(shape),
                "tile_id": f"{self.counts[key]:,} tiles",
                "scenes": [],
            }
            for key, shape in self.shapes.items()
        ]


class _Extents:
    """Where each observation was seen: what a map's frame needs to know of ground that is not drawn."""

    def __init__(self) -> None:
        self.bounds: dict[tuple[Any, ...], NDArray[np.float64]] = {}

    def add(self, table: pa.Table) -> None:
        """More tiles. East and west of Greenwich are kept apart, which the antimeridian may lie between."""
        parts, row = shapely.get_parts(
            shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)), return_index=True
        )
        edges, kinds = shapely.bounds(parts).reshape(-1, 4), np.array([*_kinds(table), None], object)[:-1]
        west = edges[:, 0] < 0.0
        for kind in dict.fromkeys(kinds.tolist()):
            own = np.array([other == kind for other in kinds])[row]
            for side in (west, ~west):
                if (own & side).any():
                    low, high = edges[own & side, :2].min(axis=0), edges[own & side, 2:].max(axis=0)
                    name = (*kind, bool(side is west))
                    known = self.bounds.get(name, np.array([*low, *high]))
                    self.bounds[name] = np.array([*np.minimum(known[:2], low), *np.maximum(known[2:], high)])

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the coverage, one for each observation and side."""
        return [
            {**dict(zip(_LIKE, key, strict=False)), "geometry": shapely.to_wkb(shapely.box(*edges)), "scenes": []}
            for key, edges in self.bounds.items()
        ]
