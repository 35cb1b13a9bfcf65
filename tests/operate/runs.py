"""A finished run's folder with any ledger in it, made without running anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from earthmap.pipeline import Run, open_run
from earthmap.pipeline.schema import ledger_schema


def finished(folder: Path, rows: Sequence[dict[str, Any]], *, told: dict[str, Any] | None = None) -> Run:
    """The run whose ledger has these `rows`, with status and reason at least."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = [{**dict.fromkeys(ledger_schema().names), "tile_id": f"tile-{n}", **row} for n, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(whole, schema=ledger_schema()), folder / "ledger.parquet")
    counts: dict[str, Any] = {"planned": len(rows), "answered": 0, "skipped": {}, "failed": {}}
    for row in rows:
        if row["status"] == "answered":
            counts["answered"] += 1
        else:
            by_reason = counts[row["status"]]
            by_reason[row["reason"]] = by_reason.get(row["reason"], 0) + 1
    (folder / "summary.json").write_text(json.dumps(counts))
    usual = {
        "execution": 2,
        "seconds": {"plan": 0.5, "cells": 9.0, "total": 12.0},
        "worker_seconds": {"read": 4.0, "predict": 3.0, "merge": 1.0},
        "groups": {"read": 3, "reused": 1},
        "parts": {"computed": 4, "reused": 0},
        "waited_seconds": 31.5,
    }
    (folder / "run.json").write_text(json.dumps(usual | (told or {})))
    return open_run(folder)
