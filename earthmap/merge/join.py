"""Cells as one map: regions joined across seams and zones, one cell after the other.

Regions of one zone lie on one lattice and are joined in whole pixels, exactly. Where two zones meet, each side is cut
at the border's meridian or parallel, and regions that share a stretch of it are one.

Only what may still grow is held: a region waits while it lies along a seam to a cell that has not been read, and is
finished when there is none. Cells that come row by row leave one row of seams open; any other order holds more and
makes the same map. Regions along a zone's border wait for the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from earthmap.grid import AreaOfInterest, Cell, Grid, Tile, Zone
from earthmap.merge.cells import CellMerge
from earthmap.merge.layers import Layer, Source, tile_names
from earthmap.merge.regions import Regions, clipped, feature_rows, ground_of, on_border, over_borders
from earthmap.merge.tables import feature_schema, placed_table
from earthmap.merge.vectors import Stretches, overlaps, seam_stretches, straighten

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from earthmap.tasks import Query

BATCH = 2_000
"""Pieces of finished regions that are put on the ground together."""


class _Kind(NamedTuple):
    """What can be joined: regions of one layer and answer."""

    layer: Layer
    answer: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one cell has of a region."""

    outline: bytes
    """WKB on the zone's lattice."""
    cell: Cell
    tiles: int
    """Bit i is set where it has a pixel of `cell.tiles()[i]`."""
    source: Source


@dataclass(slots=True)
class _Growing:
    """A region as far as it is known."""

    kind: _Kind
    pieces: list[_Piece]
    numbers: list[int]
    """Those of its pieces."""
    waiting: int = 0
    """Pieces that lie along a seam to a cell that has not come, one for each such seam."""


@dataclass(slots=True)
class Joining:
    """The regions of a job that cells share, joined as the cells come, each cell once.

    What `add` and `finish` give are tables of finished features (`feature_schema` and PLACE), in no order; all of them
    together are the same for any order of cells.
    """

    cells: set[Cell]
    """Those of the job that have not come."""
    area: AreaOfInterest
    """What the map is clipped to."""
    queries: Mapping[str, Query]
    """By content key."""
    _parents: dict[int, int] = field(default_factory=dict)
    _growing: dict[int, _Growing] = field(default_factory=dict)
    _seams: dict[tuple[Cell, Cell], Stretches] = field(default_factory=dict)
    """What lies along a seam, of the cell that came, by that cell and the one that did not."""
    _kinds: dict[_Kind, int] = field(default_factory=dict)
    _finished: list[_Growing] = field(default_factory=list)
    _borders: dict[_Kind, list[Regions]] = field(default_factory=dict)
    _pieces: int = 0

    def add(self, merge: CellMerge) -> Iterator[pa.Table]:
        """Join one more cell."""
        cell = Cell.parse(merge.cell_id)
        self.cells.discard(cell)
        outlines = merge.regions["geometry"].to_numpy(zero_copy_only=False)
        first = self._pieces
        changed = self._add_pieces(cell, merge.regions)
        stretches = seam_stretches(shapely.from_wkb(outlines), cell.grid.cell_core_px)
        stretches = stretches._replace(member=stretches.member + first)
        for neighbour, axis, line in _neighbours(cell):
            along = (stretches.line == (axis, line)).all(axis=1)
            changed |= self._meet(cell, neighbour, stretches.taken(along))
        self._finished += [self._taken(root) for root in self._roots(changed) if not self._growing[root].waiting]
        if sum(len(region.pieces) for region in self._finished) >= BATCH:
            yield from self._settle()

    def finish(self) -> Iterator[pa.Table]:
        """What was left to the end: regions along the borders of zones."""
        self._finished += [self._taken(root) for root in list(self._growing)]
        yield from self._settle()
        for kind, parts in sorted(self._borders.items()):
            regions = over_borders(Regions.concatenated(parts))
            yield self._features(kind, regions)
        self._borders.clear()

    def _add_pieces(self, cell: Cell, table: pa.Table) -> set[int]:
        """Regions of one piece; returns their numbers."""
        sources: dict[str, Source] = {}
        start = self._pieces
        for number, row in enumerate(table.to_pylist(), start):
            kind = _Kind(Layer(row["query"], row["sensor"], row["observation"]), row["answer"])
            self._kinds.setdefault(kind, len(self._kinds))
            source = sources.setdefault(row["source"], Source.from_json(row["source"]))
            piece = _Piece(row["geometry"], cell, row["tiles"], source)
            self._growing[number] = _Growing(kind, [piece], [number])
            self._parents[number] = number
        self._pieces += len(table)
        return set(range(start, self._pieces))

    def _meet(self, cell: Cell, neighbour: Cell, own: Stretches) -> set[int]:
        """Keep what lies along a seam until the neighbour comes, or join it with what the neighbour left."""
        if neighbour in self.cells:
            if len(own.member):
                self._seams[cell, neighbour] = own
                self._wait(own, 1)
            return set()
        theirs = self._seams.pop((neighbour, cell), None)
        if theirs is None:
            return set()
        self._wait(theirs, -1)
        both = Stretches(*(np.concatenate(pair) for pair in zip(own, theirs, strict=True)))
        kinds = [self._kinds[self._growing[self._root(number)].kind] for number in both.member.tolist()]
        for one, other in overlaps(both._replace(line=np.array(kinds, float)[:, None])).tolist():
            self._unite(one, other)
        return set(theirs.member.tolist())

    def _wait(self, stretches: Stretches, step: int) -> None:
        for number in set(stretches.member.tolist()):
            self._growing[self._root(number)].waiting += step

    def _root(self, number: int) -> int:
        while (parent := self._parents[number]) != number:
            self._parents[number] = number = self._parents[parent]
        return number

    def _roots(self, numbers: Iterable[int]) -> list[int]:
        return sorted({self._root(number) for number in numbers})

    def _unite(self, one: int, other: int) -> None:
        small, large = sorted((self._root(one), self._root(other)), key=lambda root: len(self._growing[root].pieces))
        if small == large:
            return
        gone, region = self._growing.pop(small), self._growing[large]
        self._parents[small] = large
        region.pieces += gone.pieces
        region.numbers += gone.numbers
        region.waiting += gone.waiting

    def _taken(self, root: int) -> _Growing:
        region = self._growing.pop(root)
        for number in region.numbers:
            del self._parents[number]
        return region

    def _settle(self) -> Iterator[pa.Table]:
        """The finished regions as features, those along a zone's border kept for the end."""
        by_zone: dict[tuple[_Kind, Grid, Zone], list[_Growing]] = {}
        for region in self._finished:
            cell = region.pieces[0].cell
            by_zone.setdefault((region.kind, cell.grid, cell.zone), []).append(region)
        self._finished = []
        ground = lru_cache(maxsize=None)(self._ground)
        for (kind, grid, zone), members in by_zone.items():
            parts, origin = clipped(_outlined(members), grid, zone, area=self.area, ground=ground)
            unfinished = np.isin(origin, origin[on_border(parts.geometries)])
            if unfinished.any():
                self._borders.setdefault(kind, []).append(parts.taken(np.flatnonzero(unfinished)))
            yield self._features(kind, parts.taken(np.flatnonzero(~unfinished)))

    def _ground(self, tile: str) -> Any:
        return ground_of([Tile.parse(tile)], self.area)[0]

    def _features(self, kind: _Kind, regions: Regions) -> pa.Table:
        rows = list(feature_rows(regions, kind.layer, kind.answer, self.queries[kind.layer.query]))
        return placed_table(rows, feature_schema())


def _neighbours(cell: Cell) -> list[tuple[Cell, int, float]]:
    """The four cells beside `cell`, and the line of the seam to each: its constant axis (0 for x) and value there."""
    grid, zone, side = cell.grid, cell.zone, cell.grid.cell_core_px
    row, column = cell.row, cell.column
    return [
        (Cell(grid, zone, row, column - 1), 0, column * side),
        (Cell(grid, zone, row, column + 1), 0, (column + 1) * side),
        (Cell(grid, zone, row - 1, column), 1, row * side),
        (Cell(grid, zone, row + 1, column), 1, (row + 1) * side),
    ]


def _outlined(members: Sequence[_Growing]) -> Regions:
    """Each region in one outline."""
    outlines = np.empty(len(members), object)
    several = np.array([len(region.pieces) > 1 for region in members])
    for index, region in enumerate(members):
        # In an order of their own content, so that nothing depends on which cell came first.
        pieces = shapely.from_wkb(sorted(piece.outline for piece in region.pieces))
        outlines[index] = shapely.union_all(pieces) if several[index] else pieces[0]
    outlines[several] = straighten(outlines[several])
    return Regions(outlines, [_tiles_of(region.pieces) for region in members], [_sources(region) for region in members])


def _tiles_of(pieces: Iterable[_Piece]) -> frozenset[str]:
    names: set[str] = set()
    for piece in pieces:
        names |= tile_names([tile.id for tile in piece.cell.tiles()], piece.tiles)
    return frozenset(names)


def _sources(region: _Growing) -> frozenset[Source]:
    return frozenset(piece.source for piece in region.pieces)
