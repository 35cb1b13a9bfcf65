"""Cells as one map: regions and things joined across seams and zones, one cell after the other.

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
from earthmap.merge.aggregate import Sums
from earthmap.merge.cells import CellMerge
from earthmap.merge.components import Components
from earthmap.merge.join_instances import JoiningInstances
from earthmap.merge.layers import Layer, Source, tile_names
from earthmap.merge.regions import Regions, clipped, feature_rows, ground_of, on_border, over_borders
from earthmap.merge.tables import feature_schema, placed_table
from earthmap.merge.vectors import Stretches, overlaps, seam_stretches, straighten

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

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

    kind: _Kind
    outline: bytes
    """WKB on the zone's lattice."""
    cell: Cell
    tiles: int
    """Bit i is set where it has a pixel of `cell.tiles()[i]`."""
    source: Source


@dataclass(slots=True)
class Joining:
    """The regions and things of a job that cells share, joined as the cells come, each cell once.

    What `add` and `finish` give are tables of finished features (`feature_schema` and PLACE), in no order; all of them
    together are the same for any order of cells.
    """

    cells: set[Cell]
    """Those of the job that have not come."""
    area: AreaOfInterest
    """What the map is clipped to."""
    queries: Mapping[str, Query]
    """By content key."""
    _things: JoiningInstances = field(init=False)
    _regions: Components[_Piece] = field(default_factory=Components)
    _seams: dict[tuple[Cell, Cell], Stretches] = field(default_factory=dict)
    """What lies along a seam, of the cell that came, by that cell and the one that did not."""
    _kinds: dict[_Kind, int] = field(default_factory=dict)
    _finished: list[list[_Piece]] = field(default_factory=list)
    _borders: dict[_Kind, list[Regions]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._things = JoiningInstances(self.cells, self.area, self.queries)

    @property
    def sums(self) -> Sums:
        """How many things were finished here: those that cells share."""
        return self._things.sums

    def add(self, merge: CellMerge) -> Iterator[pa.Table]:
        """Join one more cell."""
        cell = Cell.parse(merge.cell_id)
        self.cells.discard(cell)
        yield from self._things.add(cell, merge.views)
        outlines = merge.regions["geometry"].to_numpy(zero_copy_only=False)
        numbers = self._add_pieces(cell, merge.regions)
        changed = set(numbers.tolist())
        stretches = seam_stretches(shapely.from_wkb(outlines), cell.grid.cell_core_px)
        stretches = stretches._replace(member=numbers[stretches.member])
        for neighbour, axis, line in _neighbours(cell):
            along = (stretches.line == (axis, line)).all(axis=1)
            changed |= self._meet(cell, neighbour, stretches.taken(along))
        self._finished += self._regions.finished(changed)
        if sum(map(len, self._finished)) >= BATCH:
            yield from self._settle()

    def finish(self) -> Iterator[pa.Table]:
        """What was left to the end: regions and things along the borders of zones."""
        yield from self._things.finish()
        self._finished += self._regions.rest()
        yield from self._settle()
        for kind, parts in sorted(self._borders.items()):
            regions = over_borders(Regions.concatenated(parts))
            yield self._features(kind, regions)
        self._borders.clear()

    def _add_pieces(self, cell: Cell, table: pa.Table) -> NDArray[np.int64]:
        """Regions of one piece; returns their numbers."""
        sources: dict[str, Source] = {}
        numbers = []
        for row in table.to_pylist():
            kind = _Kind(Layer(row["query"], row["sensor"], row["observation"]), row["answer"])
            self._kinds.setdefault(kind, len(self._kinds))
            source = sources.setdefault(row["source"], Source.from_json(row["source"]))
            numbers.append(self._regions.add(_Piece(kind, row["geometry"], cell, row["tiles"], source)))
        return np.array(numbers, np.int64)

    def _meet(self, cell: Cell, neighbour: Cell, own: Stretches) -> set[int]:
        """Keep what lies along a seam until the neighbour comes, or join it with what the neighbour left."""
        if neighbour in self.cells:
            if len(own.member):
                self._seams[cell, neighbour] = own
                self._regions.wait(set(own.member.tolist()), 1)
            return set()
        theirs = self._seams.pop((neighbour, cell), None)
        if theirs is None:
            return set()
        self._regions.wait(set(theirs.member.tolist()), -1)
        both = Stretches(*(np.concatenate(pair) for pair in zip(own, theirs, strict=True)))
        kinds = [self._kinds[self._regions.group(number).members[0].kind] for number in both.member.tolist()]
        for one, other in overlaps(both._replace(line=np.array(kinds, float)[:, None])).tolist():
            self._regions.unite(one, other)
        return set(theirs.member.tolist())

    def _settle(self) -> Iterator[pa.Table]:
        """The finished regions as features, those along a zone's border kept for the end."""
        by_zone: dict[tuple[_Kind, Grid, Zone], list[list[_Piece]]] = {}
        for region in self._finished:
            cell = region[0].cell
            by_zone.setdefault((region[0].kind, cell.grid, cell.zone), []).append(region)
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


def _outlined(members: Sequence[Sequence[_Piece]]) -> Regions:
    """Each region in one outline."""
    outlines = np.empty(len(members), object)
    several = np.array([len(region) > 1 for region in members])
    for index, region in enumerate(members):
        # In an order of their own content, so that nothing depends on which cell came first.
        pieces = shapely.from_wkb(sorted(piece.outline for piece in region))
        outlines[index] = shapely.union_all(pieces) if several[index] else pieces[0]
    outlines[several] = straighten(outlines[several])
    return Regions(outlines, [_tiles_of(region) for region in members], [_sources(region) for region in members])


def _tiles_of(pieces: Iterable[_Piece]) -> frozenset[str]:
    names: set[str] = set()
    for piece in pieces:
        names |= tile_names([tile.id for tile in piece.cell.tiles()], piece.tiles)
    return frozenset(names)


def _sources(region: Sequence[_Piece]) -> frozenset[Source]:
    return frozenset(piece.source for piece in region)
