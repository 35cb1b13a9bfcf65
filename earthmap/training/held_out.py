"""Rows that no step learns from, to see how well a model does that is being trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from earthmap.training.data_rows import DataRows
from earthmap.training.drawn import DrawnRows

if TYPE_CHECKING:
    from earthmap.training.rows import Row
    from earthmap.training.sources import RowSource
    from earthmap.training.stages import StageTable
    from earthmap.training.validation import ValidationFigure

OTHER_GROUND = 0x5EED
"""Added to the seed of drawn rows."""


def held_out_rows(source: RowSource, table: StageTable, *, most: int) -> list[Row]:
    """At most `most` rows of what `table` teaches, always the same; none where `source` holds none back.

    Of data sets those that were held out, of drawn tiles those of other ground: as many from each stage.
    """
    if isinstance(source, DataRows):
        return source.held_out(most=most)
    if not isinstance(source, DrawnRows):
        return []
    other = replace(source, seed=source.seed + OTHER_GROUND)
    share = -(-most // len(table.stages))
    first, rows = 0, []
    for stage in table.stages:
        rows += other.rows(table, first)[:share]
        first += stage.steps
    return rows[:most]


def figure_lines(step: int, figures: Sequence[ValidationFigure]) -> list[str]:
    """For people, a line each modality: `after 500 steps, sar: presence 0.93 (constant 0.50), …`."""
    by_modality: dict[str, list[str]] = {}
    for one in figures:
        told = f"{one.task} {one.score:.2f} (constant {one.constant:.2f})"
        by_modality.setdefault(one.modality, []).append(told)
    return [f"after {step:,} steps, {modality}: {', '.join(told)}" for modality, told in by_modality.items()]
