"""Jobs of one question worked on in this process, without Ray: what cells come to, and whole runs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa

from earthmap.cube import RasterioReader, Reader
from earthmap.merge import CellMerge, merge_cell
from earthmap.pipeline import Job, Run, make_plan
from earthmap.pipeline.clearness import best_first
from earthmap.pipeline.context import Context
from earthmap.pipeline.flood_parts import predict_work
from earthmap.pipeline.folder import RUN_PATH
from earthmap.pipeline.lease import Lease
from earthmap.pipeline.merged import MergedCells
from earthmap.pipeline.plan import CellWork, Plan, read_plan, write_plan
from earthmap.pipeline.publish import publish
from earthmap.pipeline.reading import read_work
from earthmap.pipeline.reference_water import open_reference_water
from earthmap.pipeline.run import claim, predictor_spec
from earthmap.pipeline.schema import ledger_schema
from earthmap.pipeline.stages import gather
from earthmap.storage import Storage


def context_of(job: Job, plan: Plan, *, execution: int = 1, reader: Reader | None = None) -> Context:
    """What `run_job` gives its workers."""
    return Context(
        store=Storage(job.store),
        execution=execution,
        job=job.content_key(),
        area=job.area,
        queries={query.content_key(): query for query in job.queries},
        observations=plan.observations,
        predictor=predictor_spec(job, plan),
        reader=reader or RasterioReader(),
        by_cloud=job.spec.scenes == "least_cloud",
        by_observation=job.spec.scenes == "all",
        reference_water=open_reference_water(job.spec.reference_water),
    )


def worked_cells(plan: Plan, context: Context) -> Iterator[tuple[CellWork, CellMerge]]:
    """Each cell, and what it came to."""
    for planned in plan.work():
        work = best_first(planned, context)
        groups = {name: committed.path for name, committed in read_work(work, context).items()}
        answers = gather(work, predict_work(work, groups, context), context)
        yield (
            work,
            merge_cell(
                work.cell,
                answers,
                area=context.area,
                queries=context.queries,
                tiles=work.tiles,
                by_observation=context.by_observation,
            ),
        )


def run_here(job: Job, **_: object) -> Run:
    """What `run_job` does, in this process and without Ray: the finished run."""
    storage = Storage(job.spec.out)
    claim(storage, job)
    with Lease(storage) as lease:
        plan = read_plan(storage) or make_plan(job)
        write_plan(storage, plan)
        context = context_of(job, plan, execution=lease.execution)
        merged = MergedCells.of(context.store, storage, execution=lease.execution)
        for work, merge in worked_cells(plan, context):
            keys = merge.coverage.select(["tile_id", "observation", "status"]).to_pylist()
            rows = [{**key, "cell_id": work.cell.id, "query": query} for key in keys for query in context.queries]
            merged.write(merge, pa.Table.from_pylist(rows, schema=ledger_schema()))
        publish(storage, job=job, plan=plan, merged=merged)
        merged.remove()
        storage.write(RUN_PATH, json.dumps({"finished": "2024-06-08T12:00:00Z"}).encode())
    return Run(storage.address)
