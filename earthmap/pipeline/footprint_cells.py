"""Footprints as cells are worked on: one small file a cell in the store, with the tile that asks about each of them.

A footprint belongs to the tile whose ground holds its centroid, decided in longitude and latitude, so that each is
asked about once, whatever seams and zones it lies across.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.content import content_key
from earthmap.errors import LedgerError, StorageError
from earthmap.grid import CELL_TILES, AreaOfInterest, Cell, Grid, Tile, Zone, lonlat_to_tile, owner
from earthmap.merge import GivenFootprints, Layer, Sums, feature_schema, placed_table, ungraded_rows
from earthmap.merge.gradings import OUTSIDE, WHY
from earthmap.pipeline.footprints import Footprints, read_footprints
from earthmap.storage import Storage
from earthmap.tasks import TASKS, Query

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from earthmap.pipeline.job import Job

_THREADS = 8
"""Files that are written at the same time."""

_ROWS = 10_000
"""Footprints that nothing is asked of, written at once."""


def footprints_of(job: Job) -> Footprints | None:
    """The job's footprints; None where it names none. Raises JobError where none overlaps its area."""
    return None if job.spec.footprints is None else read_footprints(job.spec.footprints, area=job.area)


def cells_with(footprints: Footprints, area: AreaOfInterest, grid: Grid) -> dict[Cell, NDArray[np.int64]]:
    """The numbers of the footprints whose centroid lies in the area, in their order, by the cell that asks."""
    mine = np.flatnonzero(footprints.of(area))
    found = owner(grid, footprints.centroids[mine, 0], footprints.centroids[mine, 1])
    places = np.column_stack([found.zone, found.north, found.row // CELL_TILES, found.column // CELL_TILES])
    kinds, which = np.unique(places, axis=0, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(which.ravel(), minlength=len(kinds)))
    return {
        Cell(grid, Zone(int(zone), bool(north)), int(row), int(column)): mine[order[start:end]]
        for (zone, north, row, column), start, end in zip(kinds.tolist(), [0, *ends[:-1]], ends, strict=True)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFootprints:
    """The footprints of one cell, in the order of their file."""

    given: GivenFootprints
    shapes: NDArray[np.object_] = field(repr=False)
    """Valid polygons or points in EPSG:4326, as they are looked at."""
    key: str
    """Of the shapes and their tiles: what answers depend on."""

    def of(self, tile: Tile) -> tuple[BaseGeometry, ...]:
        """Those of a tile in coordinates 0–1 of its picture."""
        mine = self.shapes[self.given.tiles == tile.id]

        def placed(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.column_stack(lonlat_to_tile(tile, xy[:, 0], xy[:, 1]))

        return tuple(shapely.transform(mine, placed)) if len(mine) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FootprintStore:
    """Where the footprints of a job stand in the store, cell by cell. Small and picklable."""

    store: Storage
    key: str
    """Of the footprints, the area and the lattice."""

    @classmethod
    def of(cls, job: Job, grid: Grid, store: Storage) -> FootprintStore:
        """That of a job with footprints."""
        return cls(store=store, key=content_key("footprints", job.spec.footprints_key, job.area.content_key(), grid.id))

    def write(self, footprints: Footprints, cells: dict[Cell, NDArray[np.int64]]) -> None:
        """Write what is not there yet; a second writer writes the same bytes."""
        if self.store.exists(self._path("whole")):
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda item: self._write_cell(footprints, *item), cells.items()))
        self.store.write(self._path("whole"), b"")

    def of_cell(self, cell: Cell) -> CellFootprints | None:
        """Those of a cell; None where it has none. Raises StorageError where the store has lost them."""
        return _read_cell(self, cell.id)

    def _path(self, name: str) -> str:
        return f"footprints/{self.key}/{name}"

    def _write_cell(self, footprints: Footprints, cell: Cell, numbers: NDArray[np.int64]) -> None:
        places = owner(cell.grid, footprints.centroids[numbers, 0], footprints.centroids[numbers, 1])
        names = np.array([tile.id for tile in cell.tiles()], object)
        down = (cell.row + 1) * CELL_TILES - 1 - places.row
        tiles = names[down * CELL_TILES + places.column - cell.column * CELL_TILES]
        table = given_table(footprints, numbers, tiles)
        self.store.write(self._path(f"{cell.id}.arrow"), _packed(table))


def given_table(footprints: Footprints, numbers: NDArray[np.int64], tiles: Iterable[str | None]) -> pa.Table:
    """Rows of footprints as a cell's file holds them."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        "number": pa.array(numbers, pa.int64()),
        "tile": pa.array(list(tiles), pa.string()),
        "shape": pa.array(shapely.to_wkb(footprints.shapes[numbers]), pa.binary()),
        "geometry": pa.array(shapely.to_wkb(footprints.geometries[numbers]), pa.binary()),
        **{
            name: pa.array(getattr(footprints, names)[numbers], pa.string())
            for name, names in (("id", "ids"), ("properties", "properties"), ("note", "notes"))
        },
    }
    return pa.table(columns)


def given_footprints(table: pa.Table) -> GivenFootprints:
    """The rows of `given_table` as the merge takes them."""
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    return GivenFootprints(
        numbers=columns["number"],
        tiles=columns["tile"],
        ids=columns["id"],
        geometries=shapely.from_wkb(columns["geometry"]),
        properties=columns["properties"],
        notes=columns["note"],
    )


def _packed(table: pa.Table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


@functools.lru_cache(maxsize=4)
def _read_cell(store: FootprintStore, cell_id: str) -> CellFootprints | None:
    import pyarrow as pa

    try:
        data = store.store.read(store._path(f"{cell_id}.arrow"))
    except FileNotFoundError:
        if store.store.exists(store._path("whole")):
            return None
        raise StorageError(
            f"the footprints of {cell_id} are not in the store, where this run put them", fix="run the same job again"
        ) from None
    table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    digest = hashlib.sha256()
    for name in ("tile", "shape"):
        digest.update("\n".join(map(_hex, table[name].to_pylist())).encode())
    return CellFootprints(
        given=given_footprints(table),
        shapes=shapely.from_wkb(table["shape"].to_numpy(zero_copy_only=False)),
        key=digest.hexdigest(),
    )


def _hex(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def lay_out(job: Job, grid: Grid, store: Storage) -> FootprintStore | None:
    """The job's footprints in the store, cell by cell; None where nothing is asked of any.

    Raises:
        JobError: where their file is not there, or none overlaps the area.
    """
    footprints = footprints_of(job)
    if footprints is None or not _graded(job):
        return None
    laid = FootprintStore.of(job, grid, store)
    laid.write(footprints, cells_with(footprints, job.area, grid))
    return laid


def _graded(job: Job) -> list[Query]:
    """The job's questions about footprints."""
    return [query for query in job.queries if TASKS[query.task].merge == "footprints"]


# ── at the end ───────────────────────────────────────────────────────────────────────────────────────────────


def rest_tables(job: Job, sums: Sums) -> Iterator[pa.Table]:
    """Features (`feature_schema` and PLACE) of footprints that no tile asks about; counts them in `sums`."""
    footprints = footprints_of(job) if _graded(job) else None
    if footprints is None:
        return
    mine = footprints.of(job.area)
    for query in _graded(job):
        key = query.content_key()
        for reason in WHY:
            of_reason = ~mine & (footprints.faults == ("" if reason == OUTSIDE else reason))
            numbers = np.flatnonzero(np.asarray(of_reason, np.bool_))
            for start in range(0, len(numbers), _ROWS):
                own = numbers[start : start + _ROWS]
                given = given_footprints(given_table(footprints, own, [None] * len(own)))
                rows = list(ungraded_rows(given, query, key, reason))
                sums.grade(Layer(key, "", ""), rows, task=query.task)
                yield placed_table(rows, feature_schema())


def check_footprints(job: Job, sums: Sums) -> None:
    """Raises LedgerError unless every footprint that was given is counted once for each question about them."""
    footprints = footprints_of(job) if _graded(job) else None
    for query in _graded(job) if footprints is not None else []:
        found = sum(sums.over_layers(query.content_key(), task=query.task).found.values())
        if footprints is not None and found != len(footprints):
            raise LedgerError(f"{found} footprints come out", expected=f"the {len(footprints)} that were given")
