"""What a job would cost, before anything is spent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from earthmap.cube import estimated_bytes
from earthmap.pipeline.plan import Plan

READ_BYTES_PER_S = 40e6
"""Of pixels on the cell's grid, one machine of two cores, local COGs (docs/benchmarks.md); a network is slower."""

TILES_PER_S = 12.0
"""Answered by `spectral`, one question, same machine (docs/benchmarks.md)."""

STORED_SHARE = 0.85
"""Of the bytes read, what a group takes on disk: float32, compressed; the demo's scenes take 0.84."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A job's size and what it would take, on a machine of two cores."""

    cells: int
    tiles: int
    questions: int
    """Rows that the ledger will have: tiles × queries × observations."""
    observations: int
    scenes: int
    read_bytes: int
    """Pixels to read, on the job's grid, before compression."""
    disk_bytes: int
    seconds: float
    refused_items: int
    """Items of the catalogue that were not understood."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def explain(plan: Plan) -> Estimate:
    """The estimate for a plan; nothing is read, written or started."""
    read_bytes = sum(estimated_bytes(read) for read in plan.reads())
    return Estimate(
        cells=plan.cells,
        tiles=plan.tiles,
        questions=plan.planned,
        observations=len(plan.observations),
        scenes=len({scene.id for observation in plan.observations.values() for scene in observation.scenes}),
        read_bytes=read_bytes,
        disk_bytes=int(read_bytes * STORED_SHARE),
        seconds=round(read_bytes / READ_BYTES_PER_S + plan.planned / TILES_PER_S, 1),
        refused_items=len(plan.refused),
    )
