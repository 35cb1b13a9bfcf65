"""The tables of a run. One row of an answer part is `earthmap.tasks.answer.answer_schema`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def plan_schema() -> pa.Schema:
    """`plan.parquet`: one row for each cell and question."""
    import pyarrow as pa

    return pa.schema(
        [
            ("cell_id", pa.string()),
            ("tiles", pa.uint16()),  # bit i: cell.tiles()[i] belongs to the job
            ("query", pa.string()),  # Query.content_key()
            ("observations", pa.list_(pa.string())),  # Observation.id, in order of time; none where nothing was found
            ("fallbacks", pa.list_(pa.string())),  # Observation.id, the next best of the cell, the best first
            ("later_fallbacks", pa.list_(pa.string())),  # the same for the second date of a change
            ("members", pa.list_(pa.string())),  # Observation.id, what the one observation is the median composite of
            ("references", pa.list_(pa.string())),  # Observation.id, what only tells the water that is always there
            ("passed_over", pa.int32()),  # of a series, how many observations of its time are not looked at
            ("unfound", pa.string()),  # why there are none: no_scene, one_date, unlike_conventions, too_coarse
        ]
    )


def scene_schema() -> pa.Schema:
    """`scenes.parquet`: one row for each scene of the plan's observations."""
    import pyarrow as pa

    return pa.schema(
        [
            ("observation", pa.string()),
            ("position", pa.int32()),  # order of precedence within the observation
            ("copy", pa.bool_()),  # an older version of another scene, read only where that is damaged or gone
            ("scene_id", pa.string()),
            ("collection", pa.string()),
            ("sensor", pa.string()),
            ("datetime", pa.timestamp("us", tz="UTC")),
            ("observation_datetime", pa.timestamp("us", tz="UTC")),
            ("record", pa.string()),  # earthmap.catalog.scene_to_dict as JSON
        ]
    )


def ledger_schema() -> pa.Schema:
    """`ledger.parquet`: what happened, one row for each planned (tile, query, observation)."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("cell_id", text),
            ("tile_id", text),
            ("query", text),
            ("observation", text),
            ("status", text),  # answered, skipped, failed
            ("stage", text),
            ("reason", text),
            ("message", text),
            ("address", text),
            ("pair", text),  # how the two dates of a change lie on each other (JSON of Pairing); null for all else
            ("triage", text),  # what a coarse picture decided before (JSON of Verdict); null where none was asked
            ("part", text),  # where the answer stands in the store; null where nothing could be asked
            ("execution", pa.int32()),  # which execution of this run computed it; 0 for another run's
        ]
    )
