"""What triage did to the tiles of a layer, in numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from earthmap.grid import Tile
from earthmap.metrics import Audit
from earthmap.tasks import TASKS
from earthmap.tasks.serialization import parse


def holds_target(row: Mapping[str, Any], task: str) -> bool:
    """Whether an answer (a row of `answer_schema`) finds any target on its tile: it says yes, a pixel of its mask is
    one, or a thing has its middle in the core."""
    if TASKS[task].merge != "instances":
        return bool(row["value"] == "yes" if TASKS[task].answer == "yes/no" else row["fraction"])
    grid = Tile.parse(row["tile_id"]).grid
    low, high = (edge / grid.picture_px for edge in (grid.halo_px, grid.halo_px + grid.core_px))
    shapes = [one.geometry for one in parse(row["instances"]).instances if one.geometry is not None]
    middles = [(shape.centroid.x, shape.centroid.y) for shape in shapes if not shape.is_empty]
    return any(low <= x < high and low <= y < high for x, y in middles)


def triage_counts(row: Mapping[str, Any], task: str) -> dict[str, int]:
    """What one row adds to the counts of a layer; nothing where its query was not triaged."""
    if row["triage"] is None:
        return {}
    verdict, answered = json.loads(row["triage"]), row["status"] == "answered"
    target = answered and holds_target(row, task)
    audited = answered and verdict["audited"]
    return {
        "tiles": 1,
        "skipped": int(row["reason"] == "triage"),
        "found": int(target),
        "drawn": int(verdict["audited"]),
        "audited": int(audited),
        "with_target": int(audited and target),
        "would_skip": int(audited and verdict["skips"]),
        "missed": int(audited and verdict["skips"] and target),
    }


def describe_triage(counts: Mapping[str, int]) -> dict[str, Any]:
    """What `summary.json` says of a triaged layer: tiles skipped and audited, and what that tells of tiles missed."""
    audit = Audit(**{name: counts[name] for name in ("audited", "with_target", "would_skip", "missed", "skipped")})
    share, most = audit.missed_share, audit.missed_share_at_most
    held = audit.skipped_with_target_at_most
    return {
        "skipped_tiles": audit.skipped,
        "tiles_with_target": counts["found"],
        "audit": {
            "drawn": counts["drawn"],
            "audited": audit.audited,
            "with_target": audit.with_target,
            "would_skip": audit.would_skip,
            "missed": audit.missed,
        },
        "missed_share": None if share is None else round(share, 4),
        "missed_share_at_most": None if most is None else round(most, 4),
        "skipped_with_target_at_most": None if held is None else round(held, 4),
        "missed_tiles_at_most": audit.missed_tiles_at_most,
        "absent": _absent(audit),
    }


def _absent(audit: Audit) -> str | None:
    """Why there is no bound of the share of targets missed; None where there is one."""
    if audit.with_target:
        return None
    if not audit.audited:
        return "no tile of the audit could be answered"
    return "no audited tile holds a target: a share of none cannot be told"
