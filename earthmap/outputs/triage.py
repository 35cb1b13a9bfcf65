"""What triage left out, and what its audit tells of what that missed: a table of the page."""

from __future__ import annotations

from collections.abc import Sequence

from earthmap.outputs.markup import escaped
from earthmap.outputs.numbers import Numbers, format_share

_COLUMNS = (
    "question", "date", "tiles", "skipped by triage", "with a target", "audited", "of those with a target",
    "of those missed", "share of targets missed", "at most (95 %)", "skipped tiles with a target, at most (95 %)",
)  # fmt: skip


def triage_section(numbers: Sequence[Numbers]) -> str:
    """A section with a row for each question and observation that was triaged; empty where none was."""
    rows = "".join(_row(row) for row in numbers if row.triage is not None)
    if not rows:
        return ""
    words, figures = _COLUMNS[:2], _COLUMNS[2:]
    heads = "".join([*(f"<th>{name}</th>" for name in words), *(f'<th class="n">{name}</th>' for name in figures)])
    said = (
        "Tiles on whose larger pixels the predictor saw no target were not asked about. A random sample of all tiles, "
        "the audit, was asked whatever it saw: its share of tiles with a target that triage alone would have skipped "
        "is the share of targets missed, of tiles with a target; the bounds are one-sided and exact (Clopper and "
        "Pearson). Skipped ground counts as unseen in all bounds of areas, and shares of the seen ground are of what "
        "triage let through."
    )
    return f"<section><h2>What was not looked at</h2><p>{said}</p><table><tr>{heads}</tr>{rows}</table></section>"


def _row(row: Numbers) -> str:
    told = row.triage or {}
    audit, tiles = told["audit"], told["missed_tiles_at_most"]
    held = _share(told["skipped_with_target_at_most"])
    figures = (
        f"{row.planned:,}",
        f"{told['skipped_tiles']:,}",
        f"{told['tiles_with_target']:,}",
        f"{audit['audited']:,} of {audit['drawn']:,} drawn",
        f"{audit['with_target']:,}",
        f"{audit['missed']:,}",
        _share(told["missed_share"]),
        told["absent"] or _share(told["missed_share_at_most"]),
        held if tiles is None else f"{held}, so {tiles:,} tiles",
    )
    cells = "".join(f'<td class="n">{escaped(figure)}</td>' for figure in figures)
    return f"<tr><td>{escaped(row.text)}</td><td>{escaped(row.date)}</td>{cells}</tr>"


def _share(value: float | None) -> str:
    return "–" if value is None else format_share(value)
