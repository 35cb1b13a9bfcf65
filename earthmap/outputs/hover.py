"""What the map of a page says of a shape where one points."""

from __future__ import annotations

from typing import Any

from earthmap.outputs.drawing import describe_time
from earthmap.outputs.numbers import format_km2, format_share, looks_at_two

HOVER = (
    ("question", "@query"),
    ("answer", "@answer"),
    ("date", "@date"),
    ("probability", "@probability"),
    ("area", "@area"),
    ("scenes", "@scenes"),
    ("notes", "@notes"),
)
"""What is said of a shape where one points: label, and column of `said_of`."""


def said_of(rows: Any) -> dict[str, list[str]]:
    """The columns of HOVER for rows of features."""
    return {
        "query": [str(text) for text in rows["query"]],
        "answer": [_spoken(answer, task) for answer, task in zip(rows["answer"], rows["task"], strict=True)],
        "date": [
            describe_time(start, end, pair=looks_at_two(task))
            for start, end, task in zip(rows["datetime_min"], rows["datetime_max"], rows["task"], strict=True)
        ],
        "probability": [
            format_share(float(sure)) if sure == sure else "–" for sure in rows["probability"].astype(float)
        ],
        "area": [format_km2(float(area) / 1e6) if area == area else "–" for area in rows["area_m2"]],
        "scenes": [_joined(scenes) for scenes in rows["scenes"]],
        "notes": [_joined(notes) or "–" for notes in rows["notes"]],
    }


def _spoken(answer: Any, task: str) -> str:
    try:
        return f"{format_share(float(answer))} of the seen ground" if task == "fraction" else str(answer)
    except ValueError:
        return str(answer)


def _joined(values: Any, most: int = 4) -> str:
    if values is None or isinstance(values, float):
        return ""
    values = [str(value) for value in values]
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more


def why_not(row: Any) -> str:
    """Reason and message of a tile that was not answered."""
    parts = [str(part) for part in row if isinstance(part, str) and part]
    return ": ".join(parts) or "no reason given"
