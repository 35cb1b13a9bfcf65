"""Cells of a job worked on in this process, without Ray: what each comes to before anything is joined."""

from __future__ import annotations

from collections.abc import Iterator

from earthmap.cube import RasterioReader, Reader
from earthmap.merge import CellMerge, merge_cell
from earthmap.pipeline import Job
from earthmap.pipeline.clearness import best_first
from earthmap.pipeline.context import Context
from earthmap.pipeline.flood_parts import predict_work
from earthmap.pipeline.plan import CellWork, Plan
from earthmap.pipeline.reading import read_work
from earthmap.pipeline.reference_water import open_reference_water
from earthmap.pipeline.run import predictor_spec
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
