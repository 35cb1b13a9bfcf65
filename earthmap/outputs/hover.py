"""What the map of a page says of a shape where one points."""

from __future__ import annotations

from typing import Any

from earthmap.outputs.drawing import describe_time
from earthmap.outputs.numbers import format_km2, format_share, is_of_footprints, is_of_things, looks_at_several

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
        "answer": [
            _spoken(answer, task) + more + way
            for answer, task, more, way in zip(
                rows["answer"], rows["task"], _of_footprints(rows), _of_tracks(rows), strict=True
            )
        ],
        "date": [
            describe_time(start, end, pair=looks_at_several(task))
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


def _of_tracks(rows: Any) -> list[str]:
    """What is said of the way of a thing: on how many dates it was seen, and how far and how fast it went."""
    if "times" not in rows:
        return [""] * len(rows)
    columns = ("task", "times", "length_m", "speed_m_s")
    found = []
    for task, times, length, speed in zip(*(rows[name] for name in columns), strict=True):
        seen = 0 if times is None or isinstance(times, float) or not is_of_things(task) else len(times)
        went = f"{length:,.0f} m, {speed:.3g} m/s" if seen > 1 and length > 0 else "not moved"
        found.append(f", seen on {seen} dates, {went}" if seen > 1 else ", seen once" if seen else "")
    return found


def _of_footprints(rows: Any) -> list[str]:
    """What is said of a footprint behind its grade: xBD's name of it or why there is none, and whose it is."""
    if "grade_xbd" not in rows:
        return [""] * len(rows)
    named = ("task", "grade_xbd", "message", "reason", "id")
    found = []
    for task, xbd, message, reason, name in zip(*(rows[column] for column in named), strict=True):
        why = f"xBD {xbd}" if isinstance(xbd, str) else message or reason
        found.append(f" ({why}), footprint {name}" if is_of_footprints(task) else "")
    return found


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
