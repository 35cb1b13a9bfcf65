"""What every stage of a cell shares: the run's settings, where results stand, and how attempts are counted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from earthmap.catalog import Observation
from earthmap.cube import Patience, Reader
from earthmap.errors import IsolatedError, ReadError
from earthmap.grid import AreaOfInterest
from earthmap.pipeline.footprint_cells import FootprintStore
from earthmap.pipeline.isolation import Limits
from earthmap.pipeline.reference_water import ReferenceWater
from earthmap.pipeline.triage import Triage
from earthmap.predict import Predictor
from earthmap.storage import Storage
from earthmap.tasks import Query

TRIES = 2
"""Attempts at a whole cell; from the next on its tiles run one by one in processes of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every stage needs to know, sent to each worker once."""

    store: Storage
    execution: int
    job: str
    """Content key of the job."""
    area: AreaOfInterest
    queries: Mapping[str, Query]
    observations: Mapping[str, Observation]
    predictor: Mapping[str, Any]
    """What `build_predictor` takes."""
    shared: Predictor | None = None
    """The same predictor where all runs of the cluster share it; None where each worker builds its own."""
    reader: Reader
    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)
    triage: Triage = field(default_factory=Triage)
    """What the predictor is not asked."""
    by_cloud: bool = False
    """One-date questions look at the observation that shows most of the cell, as measured, of those that they name."""
    by_observation: bool = False
    """Observations of one-date questions stay apart in the merge."""
    reference_water: ReferenceWater | None = None
    """What a file says is always under water."""
    footprints: FootprintStore | None = None
    """What questions of task damage are asked of, one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """Where a result stands in the store, and who put it there."""

    path: str
    fresh: bool
    """True where this call computed it."""
    waited_s: float = 0.0
    """Seconds that this call waited for a provider that refused or did not answer."""
    waited_for: str = ""
    """Which provider that was."""


def failed_path(path: str, execution: int) -> str:
    """Where a result with failures stands: the next execution looks elsewhere, and so tries again."""
    return f"{path}~x{execution}"


def record_attempt(storage: Storage, path: str) -> int:
    """Record one more attempt at what will stand at `path`; returns its number, from 1."""
    folder = f"attempts/{hashlib.sha256(path.encode()).hexdigest()[:24]}"
    number = len(storage.list(folder)) + 1
    while not storage.create(f"{folder}/{number:04d}", path.encode()):
        number += 1
    return number


def reason_and_message(error: Exception) -> tuple[str, str]:
    """Reason and message of what went wrong with one tile."""
    if isinstance(error, (ReadError, IsolatedError)):
        return error.reason, str(error)
    return "unexpected", f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
