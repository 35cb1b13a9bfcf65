"""A run's map while the run works: what the cells that are done come to, written again and again.

`features.parquet` and `coverage.parquet` are replaced whole, so that who reads them at any moment reads a valid file of
an earlier or of this state; `run.json` still comes last and means that everything is there.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earthmap.grid import Cell
from earthmap.merge import summarize
from earthmap.outputs import headlines, render_preview, select_results
from earthmap.pipeline.folder import COVERAGE_PATH, FEATURES_PATH, PREVIEW_PATH, RUN_PATH
from earthmap.pipeline.job import Job
from earthmap.pipeline.joined import Joined, join_cells
from earthmap.pipeline.merged import MergedCells
from earthmap.pipeline.trust import with_trust
from earthmap.storage import Storage

PROGRESS_PATH = "progress.json"
"""How much of the map is there, while the run works; gone when it is finished."""

REST = 10
"""After each writing no other follows for so many times as long as it took: a tenth of the time at most."""


@dataclass(slots=True, kw_only=True)
class Growing:
    """The growing map of one execution. A finished run's files are left alone, and so is what an earlier execution left
    until this one has done as many cells."""

    storage: Storage
    """The run folder."""
    job: Job
    merged: MergedCells
    planned: int
    """Cells of the plan."""
    say: Callable[[str], None]
    done: list[Cell] = field(default_factory=list)
    _least: int = field(init=False)
    _due: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._least = self.planned if self.storage.exists(RUN_PATH) else _written(self.storage)

    def add(self, cell_id: str) -> None:
        """One more cell is done; write the map where it is time to. Raises StorageError."""
        self.done.append(Cell.parse(cell_id))
        if self._least <= len(self.done) < self.planned and time.monotonic() >= self._due:
            started = time.monotonic()
            self._write()
            ended = time.monotonic()
            self._due = ended + REST * (ended - started)

    def _write(self) -> None:
        with tempfile.TemporaryDirectory(prefix="earthmap-") as folder:
            scratch = Path(folder)
            joined = Joined.in_folder(scratch)
            cells = sorted(self.done, key=lambda cell: cell.id)
            join_cells(joined, cells, job=self.job, merged=self.merged)
            joined.write(scratch)
            for path in (FEATURES_PATH, COVERAGE_PATH):
                self.storage.write_file(path, scratch / path)
            queries = {query.content_key(): query for query in self.job.queries}
            summary = with_trust(summarize(joined.sums, area=self.job.area, queries=queries), self.job)
            self._tell(summary)
            self.storage.write(PREVIEW_PATH, self._picture(scratch, summary))

    def _tell(self, summary: dict[str, Any]) -> None:
        known = {"cells": len(self.done), "of": self.planned, "tiles": summary["tiles"], "summary": summary}
        self.storage.write(PROGRESS_PATH, json.dumps(known, sort_keys=True).encode())
        for line in headlines(summary)[: len(self.job.queries)]:
            self.say(f"{len(self.done)} of {self.planned} cells: {line}")

    def _picture(self, scratch: Path, summary: dict[str, Any]) -> bytes:
        found = select_results(scratch / FEATURES_PATH, scratch / COVERAGE_PATH)
        title = f"{self.job.queries[0].text} ({len(self.done)} of {self.planned} cells)"
        return render_preview(found.features, found.coverage, summary, backdrops=[], title=title, notes=found.notes)


def _written(storage: Storage) -> int:
    """Cells of the map that an earlier execution left."""
    try:
        return int(json.loads(storage.read(PROGRESS_PATH))["cells"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0
