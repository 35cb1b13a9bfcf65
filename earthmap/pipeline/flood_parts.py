"""The answers to questions about flood, from maps of water: one of the observation, one of each that stands beside it.

Maps of water are asked and kept like any others, so that another observation of the same ground, or a question about
water alone, finds them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from earthmap.content import content_key
from earthmap.pipeline.context import Committed, Context, record_attempt
from earthmap.pipeline.flood import compare_water, water_query
from earthmap.pipeline.plan import CellWork, Question
from earthmap.pipeline.stages import commit_rows, find_part, predict_stage, read_part
from earthmap.tasks import answer_columns, answer_from_columns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from earthmap.tasks import Query

FLOOD_FORMAT = 1
"""Raised when the same maps of water would come to another flood."""


def predict_work(work: CellWork, groups: Mapping[str, str], context: Context) -> dict[Question, Committed]:
    """Where the answers to each of the cell's questions stand, computed now or before, as `predict_stage` says.

    `groups` are paths in the cube by observation, those of references among them.
    """
    asked = [one for one in work.questions if one.observations and context.queries[one.query].is_flood]
    floods = {one: _of_water(one, context) for one in asked}
    if not floods:
        return predict_stage(work, groups, context)
    plain = [one for one in work.questions if one not in floods]
    every = dict.fromkeys([*plain, *(part for parts in floods.values() for part in parts)])
    maps = {own[0].query: water_query(context.queries[one.query]) for one, own in floods.items()}
    mapped = dataclasses.replace(context, queries={**context.queries, **maps})
    parts = predict_stage(dataclasses.replace(work, questions=tuple(every)), groups, mapped)
    found = {one: parts[one] for one in plain if one in parts}
    return found | {one: _flood(work, one, [parts[part] for part in own], context) for one, own in floods.items()}


def _of_water(question: Question, context: Context) -> list[Question]:
    """The maps of water that a question about flood is made from: the observation's, then those of the references,
    which nobody needs where a file says what is always under water."""
    key = water_query(context.queries[question.query]).content_key()
    now = dataclasses.replace(question, query=key, references=())
    names = question.references if context.reference_water is None else ()
    return [now, *(Question(query=key, observations=(name,)) for name in names)]


def _flood(work: CellWork, question: Question, parts: Sequence[Committed], context: Context) -> Committed:
    """The flood of one cell. Raises StorageError where a map of water cannot be read."""
    water = context.reference_water
    key = content_key(
        FLOOD_FORMAT, question.query, [part.path for part in parts], water.content_key() if water else None
    )
    clean = f"parts/{work.cell.id}/{key}"
    found = find_part(clean, context)
    if found is not None:
        return found
    record_attempt(context.store, clean)
    known = water.on(work.cell, context.reader) if water else None
    tables = [{row["tile_id"]: row for row in read_part(context.store, part.path).to_pylist()} for part in parts]
    manifests = [json.loads(context.store.read(f"{part.path}/manifest.json")) for part in parts]
    rows = [
        _flood_row(
            context.queries[question.query],
            [table[tile.id] for table in tables],
            None if known is None else known[tile.core_slices],
            side_px=work.cell.grid.core_px,
        )
        for tile in work.cell.tiles()
    ]
    return commit_rows(clean, rows, {name for manifest in manifests for name in manifest["groups"]}, context)


def _flood_row(
    query: Query, rows: Sequence[Mapping[str, Any]], known: NDArray[np.uint8] | None, *, side_px: int
) -> dict[str, Any]:
    """The answer for one tile, about the time and from the scenes of the observation."""
    now, *before = (answer_from_columns(row, side_px=side_px) for row in rows)
    answer = compare_water(query, now, before, known=known)
    return {**rows[0], "query": query.content_key(), **answer_columns(answer)}
