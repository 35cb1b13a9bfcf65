"""A finished job with a cube, which no run made: planned and read by the pipeline's own functions, without Ray."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from earthmap.cube import RasterioReader, read_cell, write_cell
from earthmap.pipeline import Run, make_plan, open_run, parse_job
from earthmap.pipeline.folder import JOB_PATH
from earthmap.pipeline.plan import write_plan
from earthmap.service.state import JobStore
from earthmap.storage import Storage
from earthmap.synthetic import World
from tests.service.finished_jobs import finish_job, found


def read_run(world: World, catalog: Path, folder: Path, *, store: Path, **asked: Any) -> Run:
    """A run folder whose plan has been read into `store`; what it was asked is not answered."""
    values = {
        "area": world.area.to_geojson(), "catalog": str(catalog), "collections": ["drawn-sentinel-2-l2a"],
        "tile_size": 128, "predictor": "spectral", "queries": ["Where is water?"], "out": str(folder),
        "store": str(store), **asked,
    }  # fmt: skip
    job = parse_job(values)
    plan = make_plan(job)
    write_plan(Storage(folder), plan)
    with ThreadPoolExecutor(2) as pool:
        for read in plan.reads():
            write_cell(Storage(store), read, read_cell(RasterioReader(), read, pool=pool))
    (folder / JOB_PATH).write_text(json.dumps({"key": job.content_key(), "job": job.to_dict()}))
    return open_run(folder)


def finish_read_job(jobs: JobStore, runs: Path, world: World, catalog: Path, **how: Any) -> tuple[str, Run]:
    """The id of a finished job whose cube can be read, and its run; `owner`, and whatever else a job says."""
    owner = how.pop("owner", "local")
    job_id = finish_job(jobs, runs, [found(world.area.geometry)], owner=owner)
    return job_id, read_run(world, catalog, runs / job_id, store=runs / "store", **how)
