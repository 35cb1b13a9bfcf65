"""Things that tiles of several cells know of, told apart as the cells come, one cell after the other.

A view waits while the pictures of a cell that has not come may show the same thing; with it wait those that agree with
it. Views near the border of a zone wait for the end, when they are compared with those of the other zone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely

from earthmap.grid import AreaOfInterest, Cell
from earthmap.merge.aggregate import Sums
from earthmap.merge.components import Components
from earthmap.merge.instances import (
    Shapes,
    View,
    meetings,
    meetings_across,
    near_border,
    reach_of,
    read_views,
)
from earthmap.merge.layers import Layer
from earthmap.merge.tables import feature_schema, placed_table
from earthmap.merge.tracks import found_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from earthmap.tasks import Query

BATCH = 2_000
"""Views of finished things that are put on the ground together."""


class _Kind(NamedTuple):
    """What can be one thing on one date: views of one layer, said to be the same."""

    layer: Layer
    label: str
    date: str
    """Of what is followed through time; else empty."""


class _Held(NamedTuple):
    """A view that may still meet others."""

    kind: _Kind
    view: View
    border: bool
    """Tiles of another zone may see it."""


@dataclass(slots=True)
class JoiningInstances:
    """The things of a job that cells share; as `earthmap.merge.join.Joining`, which has one of these."""

    cells: set[Cell]
    """Those of the job that have not come."""
    area: AreaOfInterest
    queries: Mapping[str, Query]
    sums: Sums = field(default_factory=Sums)
    """How many things were finished here, by layer."""
    _views: Components[_Held] = field(default_factory=Components)
    _open: dict[tuple[Cell, Cell], list[tuple[int, _Held]]] = field(default_factory=dict)
    """What the pictures of a cell that has not come may show, of the cell that came, by that cell and the other."""
    _finished: list[list[_Held]] = field(default_factory=list)

    def add(self, cell: Cell, views: pa.Table) -> Iterator[pa.Table]:
        """Take up what one more cell left (`view_schema`); gives tables of finished features."""
        numbered = [(self._views.add(held), held) for held in _held(cell, views)]
        changed = {number for number, _ in numbered}
        first: dict[int, int] = {}
        for (number, _), group in zip(numbered, views["group"].to_pylist(), strict=True):
            self._views.unite(first.setdefault(group, number), number)
        self._views.wait([number for number, held in numbered if held.border], 1)
        shapes = Shapes.of([held.view for _, held in numbered])
        for other in _around(cell):
            seen = (
                np.flatnonzero(shapely.intersects(reach_of(other), shapes.outlines)) if numbered else np.empty(0, int)
            )
            changed |= self._meet(cell, other, [numbered[index] for index in seen.tolist()])
        self._finished += self._views.finished(changed)
        if sum(map(len, self._finished)) >= BATCH:
            yield from self._settle()

    def finish(self) -> Iterator[pa.Table]:
        """What was left to the end: things near the borders of zones."""
        left: dict[_Kind, list[tuple[int, View]]] = {}
        for group in self._views.groups.values():
            for number, held in zip(group.numbers, group.members, strict=True):
                if held.border:
                    left.setdefault(held.kind, []).append((number, held.view))
        for members in left.values():
            views = [view for _, view in members]
            pairs, _ = meetings_across(views, Shapes.of(views))
            for one, other in pairs.tolist():
                self._views.unite(members[one][0], members[other][0])
        self._finished += self._views.rest()
        yield from self._settle()

    def _meet(self, cell: Cell, other: Cell, own: Sequence[tuple[int, _Held]]) -> set[int]:
        """Keep what another cell may see until it comes, or compare it with what that cell left."""
        if other in self.cells:
            if own:
                self._open[cell, other] = list(own)
                self._views.wait([number for number, _ in own], 1)
            return set()
        theirs = self._open.pop((other, cell), [])
        self._views.wait([number for number, _ in theirs], -1)
        # The same way round whichever cell came first, so that no rounding depends on it.
        first, second = (own, theirs) if (cell.row, cell.column) < (other.row, other.column) else (theirs, own)
        for kind in {held.kind for _, held in own} & {held.kind for _, held in theirs}:
            mine: list[tuple[int, _Held]] = [pair for pair in first if pair[1].kind == kind]
            others: list[tuple[int, _Held]] = [pair for pair in second if pair[1].kind == kind]
            pairs, _ = meetings(*(Shapes.of([held.view for _, held in side]) for side in (mine, others)))
            for one, two in pairs.tolist():
                self._views.unite(mine[one][0], others[two][0])
        return {number for number, _ in theirs}

    def _settle(self) -> Iterator[pa.Table]:
        """The finished groups as features."""
        by_kind: dict[tuple[Layer, str], list[list[View]]] = {}
        for group in self._finished:
            by_kind.setdefault(group[0].kind[:2], []).append([held.view for held in group])
        self._finished = []
        for (layer, label), groups in by_kind.items():
            rows = found_rows(groups, layer, label, self.queries[layer.query], area=self.area, sums=self.sums)
            yield placed_table(rows, feature_schema())


def _held(cell: Cell, views: pa.Table) -> list[_Held]:
    found = list(read_views(views))
    border: NDArray[np.bool_] = near_border(cell.grid, cell.zone, Shapes.of([view for *_, view in found]).outlines)
    return [
        _Held(_Kind(layer, label, view.date), view, near)
        for (layer, label, _, view), near in zip(found, border.tolist(), strict=True)
    ]


def _around(cell: Cell) -> list[Cell]:
    """The eight cells around one, whose pictures may show what its pictures show."""
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]
    return [Cell(cell.grid, cell.zone, cell.row + down, cell.column + right) for down, right in steps]
