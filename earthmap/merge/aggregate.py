"""The numbers of a run: counts, areas and shares, with what was not seen beside them.

Areas are areas of pixels (resolution² / k², k the point scale of the projection), counted where the pixel's centre lies
in the area and on the tile's own ground. km² have four digits after the point, shares four.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from earthmap.errors import LedgerError
from earthmap.tasks import STATUSES, TASKS, Query

if TYPE_CHECKING:
    from earthmap.grid import AreaOfInterest
    from earthmap.merge.cells import Layer, TileRow


def _km2(square_metres: float) -> float:
    return round(square_metres / 1e6, 4)


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def _counts(rows: Sequence[TileRow]) -> dict[str, Any]:
    """Planned, answered, and skipped and failed by reason. Raises LedgerError where a row is none of them."""
    by_status = {status: [row for row in rows if row.status == status] for status in STATUSES}
    if sum(map(len, by_status.values())) != len(rows):
        raise LedgerError(f"{len(rows)} rows are not all answered, skipped or failed")
    return {
        "planned": len(rows),
        "answered": len(by_status["answered"]),
        "skipped": dict(sorted(Counter(row.reason or "unknown" for row in by_status["skipped"]).items())),
        "failed": dict(sorted(Counter(row.reason or "unknown" for row in by_status["failed"]).items())),
    }


def summarize(rows: Sequence[TileRow], *, area: AreaOfInterest, queries: Mapping[str, Query]) -> dict[str, Any]:
    """What `summary.json` says.

    `seen_km2` is, over the tiles, the most that any one observation showed of each: a lower bound of the ground seen
    by at least one.

    Raises:
        LedgerError: when the counts do not balance.
    """
    best: dict[str, float] = {}
    for row in rows:
        best[row.tile_id] = max(best.get(row.tile_id, 0.0), row.seen_m2)
    return {
        **_counts(rows),
        "tiles": len(best),
        "area_km2": round(area.area_km2, 4),
        "seen_km2": _km2(sum(best.values())),
        "queries": [
            {
                "query_key": key,
                "text": query.text,
                "task": query.task,
                "targets": list(query.targets),
                "observations": [_layer(layer, members) for layer, members in _layers(rows, key)],
            }
            for key, query in queries.items()
        ],
    }


def _layers(rows: Iterable[TileRow], query: str) -> list[tuple[Layer, list[TileRow]]]:
    grouped: dict[Layer, list[TileRow]] = {}
    for row in rows:
        if row.layer.query == query:
            grouped.setdefault(row.layer, []).append(row)
    return sorted(grouped.items(), key=lambda item: (_first_time(item[1]), item[0]))


def _first_time(rows: Iterable[TileRow]) -> str:
    return min((row.source.datetime_min.isoformat() for row in rows if row.source), default="")


def _layer(layer: Layer, rows: Sequence[TileRow]) -> dict[str, Any]:
    sources = [row.source for row in rows if row.source is not None]
    total, seen = sum(row.area_m2 for row in rows), sum(row.seen_m2 for row in rows)
    task = TASKS[rows[0].task]
    numbers = _polygon_numbers(rows, total, seen) if task.merge == "polygons" else _tile_numbers(rows, task.id)
    return {
        "observation": _observation(layer, rows),
        "sensor": layer.sensor or None,
        "datetime_min": min(source.datetime_min for source in sources).isoformat() if sources else None,
        "datetime_max": max(source.datetime_max for source in sources).isoformat() if sources else None,
        "notes": sorted({note for source in sources for note in source.notes}),
        **_counts(rows),
        "area_km2": _km2(total),
        "seen_km2": _km2(seen),
        **numbers,
    }


def _observation(layer: Layer, rows: Iterable[TileRow]) -> str:
    """The observation that a layer shows; `<sensor>_mosaic` where its cells have different ones."""
    names = {row.observation for row in rows if row.observation}
    if layer.observation or not names:
        return layer.observation
    return names.pop() if len(names) == 1 else f"{layer.sensor}_mosaic"


def _polygon_numbers(rows: Sequence[TileRow], total: float, seen: float) -> dict[str, Any]:
    """km² and share of the seen ground by answer; bounds: the unseen ground has none of it, or nothing else."""
    sums: Counter[str] = Counter()
    for row in rows:
        sums.update(row.by_answer_m2)
    unseen = max(total - seen, 0.0)
    return {
        "km2": {name: _km2(value) for name, value in sorted(sums.items())},
        "share_of_seen": {name: _share(value, seen) for name, value in sorted(sums.items())},
        "bounds_km2": {name: [_km2(value), _km2(value + unseen)] for name, value in sorted(sums.items())},
    }


def _tile_numbers(rows: Sequence[TileRow], task: str) -> dict[str, Any]:
    answered = [row for row in rows if row.status == "answered"]
    if task == "presence":
        return {"yes_tiles": sum(row.value == "yes" for row in answered), "answered_tiles": len(answered)}
    weighted = [(row.fraction or 0.0, row.seen_m2) for row in answered]
    weight = sum(size for _, size in weighted)
    return {"mean_fraction": _share(sum(share * size for share, size in weighted), weight), "tiles": len(answered)}
