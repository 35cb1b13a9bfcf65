"""The groups of the cube behind a run: those that its plan names, whatever else a shared store holds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from earthmap.catalog import Observation, narrow
from earthmap.cube import CellGroup, CellRead
from earthmap.grid import Cell, owned_ground
from earthmap.pipeline.evidence import open_observed
from earthmap.pipeline.plan import Plan

if TYPE_CHECKING:
    from earthmap.storage import Storage

_NAMES = ("observations", "references", "fallbacks", "later_fallbacks")
"""Columns of a plan, and fields of its questions, that name observations."""

_AT_ONCE = 8
"""Groups that are looked for side by side: each is a question or two to a storage that may be far away."""


def named_paths(plan: Plan) -> frozenset[str]:
    """Where the groups are that a plan names; one that was read with failures has its mark (`~x2`) behind that."""
    narrowed = ((cell, narrow(observation, owned_ground(cell))) for cell, observation in _named(plan))
    return frozenset(CellRead.of(cell, own).path for cell, own in narrowed if own is not None)


def run_groups(store: Storage, plan: Plan) -> list[CellGroup]:
    """Of each cell and observation that a plan names the group in `store`, in the plan's order.

    Raises:
        StorageError: when the store cannot be read.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda one: open_observed(store, *one), _named(plan))
        return [group for group in found if group is not None]


def cell_groups(store: Storage, plan: Plan, cell: Cell) -> list[CellGroup]:
    """The same of one cell, found without going through the plan; none of a cell that it does not have."""
    import pyarrow.compute as pc

    rows = plan.table.filter(pc.equal(plan.table["cell_id"], cell.id))
    names = {name for column in _NAMES for names in rows[column].to_pylist() for name in names}
    found = (open_observed(store, cell, plan.observations[name]) for name in sorted(names))
    return [group for group in found if group is not None]


def _named(plan: Plan) -> Iterator[tuple[Cell, Observation]]:
    """What the questions look at, are held against, and look at where that failed."""
    for work in plan.work():
        names = {name for one in work.questions for column in _NAMES for name in getattr(one, column)}
        for name in sorted(names):
            yield work.cell, plan.observations[name]
