"""Least cloud over the cell: the clear share of the few best observations, measured from their quality layers.

A scene states its cloud for a hundred kilometres; a cell is fifteen. The plan ranks observations by what is stated,
which costs nothing; of the best few the cell's read stage measures how much of the cell they show, from the coarsest
overview of their quality layers, and takes the best. The candidates depend on the cell's ground alone, and so does
what is measured: a larger area changes nothing (decisions/0007).
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from earthmap.catalog import Observation, narrow, stated_clear
from earthmap.content import content_key
from earthmap.cube import Budget, PatientReader, clear_share, glance, is_classified
from earthmap.cube.failures import is_lasting
from earthmap.errors import ReadError
from earthmap.grid import Cell, owned_ground
from earthmap.pipeline.context import Context
from earthmap.pipeline.plan import CellWork, Question
from earthmap.pipeline.reading import spent_in

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

GLANCE_PX = 64
"""Side of a cell, without its halo, in the pixels that are looked at: 240 m for pixels of 10 m."""

CLEARNESS_FORMAT = 1
"""Raised when the same layers would give another share."""


def best_first(work: CellWork, context: Context) -> CellWork:
    """`work` whose questions look first at the observation with the most clear ground, then at the others.

    Where a candidate cannot be measured for a cause that may pass, the plan's order stands, and nothing is kept.
    """
    if not context.by_cloud:
        return work
    shares: dict[str, int | None] = {}
    return dataclasses.replace(
        work, questions=tuple(_best_first(work.cell, question, shares, context) for question in work.questions)
    )


def _best_first(cell: Cell, question: Question, shares: dict[str, int | None], context: Context) -> Question:
    names = (*question.observations, *question.fallbacks)
    if len(question.observations) != 1 or len(names) < 2:
        return question
    for name in names:
        if name not in shares:
            shares[name] = _measured(cell, context.observations[name], context)
    if any(shares[name] is None for name in names):
        return question
    ordered = sorted(names, key=lambda name: -(shares[name] or 0))  # stable: equal ones in the plan's order
    return dataclasses.replace(question, observations=(ordered[0],), fallbacks=tuple(ordered[1:]))


def _measured(cell: Cell, observation: Observation, context: Context) -> int | None:
    """Clear share of the cell in whole percents, as measured, or as stated where no layer knows; None for now."""
    ground = owned_ground(cell)
    own = narrow(observation, ground)
    if own is None:
        return 0
    if not is_classified(own):
        return round(100 * stated_clear(own, ground))
    key = content_key(CLEARNESS_FORMAT, cell.id, [(scene.footprint, scene.mask_sources) for scene in own.scenes])
    path = f"clearness/{cell.id}/{key}.json"
    try:
        return int(json.loads(context.store.read(path)))
    except FileNotFoundError:
        pass
    try:
        reader = PatientReader(reader=context.reader, budget=Budget(context.patience, spent_in(context)))
        percent = round(100 * clear_share(glance(reader, own, glance_geobox(cell)).mask))
    except ReadError as error:
        return 0 if is_lasting(error.reason) else None
    context.store.create(path, json.dumps(percent).encode())
    return percent


def glance_geobox(cell: Cell) -> GeoBox:
    """The cell without its halo in few pixels."""
    return cell.core_geobox.zoom_to((GLANCE_PX, GLANCE_PX))
