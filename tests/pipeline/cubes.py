"""A finished run of which only the cube is there: what was read, and nothing answered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from earthmap.cube import RasterioReader, read_cell, write_cell
from earthmap.pipeline import make_plan, parse_job
from earthmap.pipeline.folder import RUN_PATH
from earthmap.pipeline.plan import write_plan
from earthmap.pipeline.run import claim
from earthmap.storage import Storage


def read_run(out: Path, *, store: Path, catalog: Path, area: list[float], **more: Any) -> Path:
    """The run folder `out` of a job whose imagery was read into `store`; `more` is what the job says besides."""
    values = {"area": area, "catalog": str(catalog), "queries": ["Where is water?"], "predictor": "spectral", **more}
    job = parse_job({**values, "out": str(out), "store": str(store)})
    storage = Storage(job.spec.out)
    claim(storage, job)
    plan = make_plan(job)
    write_plan(storage, plan)
    with ThreadPoolExecutor(2) as pool:
        for read in plan.reads():
            write_cell(Storage(store), read, read_cell(RasterioReader(), read, pool=pool))
    storage.write(RUN_PATH, b"{}")
    return out
