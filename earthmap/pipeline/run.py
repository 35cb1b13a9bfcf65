"""One execution of a job on Ray: plan, stream the cells through the stages, merge, publish.

What is done with each cell, and what of it Ray does, is `earthmap.pipeline.batches`.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from earthmap.content import canonical_json
from earthmap.cube import Patience, RasterioReader, Reader
from earthmap.errors import JobError, LedgerError, RunFolderError
from earthmap.pipeline.audit import plan_triage
from earthmap.pipeline.batches import STAGES, Batches, CellDone
from earthmap.pipeline.cluster import Watch, cluster, watched_rows
from earthmap.pipeline.context import Context
from earthmap.pipeline.folder import JOB_PATH, RUN_PATH, Run
from earthmap.pipeline.footprint_cells import lay_out
from earthmap.pipeline.growing import PROGRESS_PATH, Growing
from earthmap.pipeline.importance import in_order, order_cells
from earthmap.pipeline.isolation import Limits
from earthmap.pipeline.job import Job
from earthmap.pipeline.lease import Lease
from earthmap.pipeline.merged import MergedCells
from earthmap.pipeline.plan import Plan, make_plan, read_plan, write_plan
from earthmap.pipeline.publish import publish
from earthmap.pipeline.reference_water import open_reference_water
from earthmap.pipeline.sharing import Place, find_shared
from earthmap.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a run tells while it works, once for each cell that is done."""

    cells: int
    tiles: int
    tiles_planned: int
    km2: float
    """Ground of the tiles that are done."""
    failed: int
    """Rows of the ledger so far that failed."""
    cell_id: str
    """The cell that is done."""
    execution: int
    """Which start of the run does it."""


@dataclass(slots=True)
class Tally:
    """What an execution did, for `run.json`."""

    groups_read: int = 0
    groups_reused: int = 0
    parts_computed: int = 0
    parts_reused: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """By the clock, by step of the execution."""
    published: dict[str, float] = field(default_factory=dict)
    """Of the seconds of publishing, by step."""
    worked: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Of all workers together, by stage."""
    workers: int = 1
    """Cells that could be worked on at once."""
    waited: float = 0.0
    """Seconds that were waited for providers, by all workers together."""

    @property
    def shares(self) -> dict[str, float]:
        """How much of the time that workers had, from start to end of the execution, went into what; they sum to 1.

        `other` is what no cell was worked on: search, start of Ray, its scheduling, publishing.
        """
        had = max(self.seconds["total"] * self.workers, sum(self.worked.values()))
        shares = {stage: seconds / had for stage, seconds in self.worked.items()}
        return {**shares, "other": 1.0 - sum(shares.values())}


def run_job(
    job: Job,
    *,
    refresh: bool = False,
    reader: Reader | None = None,
    limits: Limits | None = None,
    report: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Run `job`, or what is missing of it, and return the finished run.

    `refresh` searches the catalogue again; `report` hears of every cell, `say` of every step.

    Raises:
        BadRequestError: for a job that cannot be run as it stands.
        StorageError: when the run folder or the store cannot be written.
        LedgerError: when the counts do not balance, which is a defect of earthmap.
    """
    say = say or (lambda step: None)
    storage = Storage(job.spec.out)
    claim(storage, job)
    with Lease(storage) as lease:
        tally, started = Tally(), time.monotonic()
        say("searching the catalogue")
        plan = _plan(storage, job, refresh=refresh, say=say)
        tally.seconds["plan"] = time.monotonic() - started
        context = Context(
            store=Storage(job.store),
            execution=lease.execution,
            job=job.content_key(),
            area=job.area,
            queries={query.content_key(): query for query in job.queries},
            observations=plan.observations,
            predictor=predictor_spec(job, plan),
            reader=reader or RasterioReader(),
            limits=limits or Limits(),
            patience=Patience(run_s=job.spec.patience),
            triage=plan_triage(job, plan),
            by_cloud=job.spec.scenes == "least_cloud",
            by_observation=job.spec.scenes == "all",
            reference_water=open_reference_water(job.spec.reference_water),
            footprints=lay_out(job, plan.grid, Storage(job.store)),
        )
        say(f"{plan.tiles:,} tiles in {plan.cells:,} cells, {len(plan.observations)} observations")
        say(f"connecting to {job.spec.cluster}" if job.spec.cluster else "starting Ray")
        merged = MergedCells.of(context.store, storage, execution=lease.execution)
        worked, heard = plan, report
        if job.spec.rush or job.spec.points is not None:
            worked, heard = _rushed(job, plan, context, merged, report=report, say=say)
        with cluster(job.spec.cluster), _place(job) as place:
            context = _shared(context, say)
            _stream(worked, context, merged, tally, place=place, report=heard, say=say)
        tally.seconds["cells"] = time.monotonic() - started - tally.seconds["plan"]
        say("merging and writing")
        publishing = time.monotonic()
        tally.published = publish(storage, job=job, plan=plan, merged=merged)
        merged.remove()
        storage.delete(PROGRESS_PATH)
        tally.seconds["publish"] = time.monotonic() - publishing
        tally.seconds["total"] = time.monotonic() - started
        say(", ".join(f"{name} {share:.0%}" for name, share in tally.shares.items()) + " of the time")
        _finish(storage, job, plan, execution=lease.execution, tally=tally)
    return Run(storage.address)


def _rushed(
    job: Job,
    plan: Plan,
    context: Context,
    merged: MergedCells,
    *,
    report: Callable[[Progress], None] | None,
    say: Callable[[str], None],
) -> tuple[Plan, Callable[[Progress], None]]:
    """The plan with its most important cells first, and who hears of each that is done and lets the map grow."""
    order = order_cells(plan, context.reader, points=job.spec.points, footprints=job.spec.footprints)
    say(f"working on {order.why}")
    growing = Growing(storage=Storage(job.spec.out), job=job, merged=merged, planned=plan.cells, say=say)

    def heard(progress: Progress) -> None:
        if report is not None:
            report(progress)
        growing.add(progress.cell_id)

    return in_order(plan, order), heard


def claim(storage: Storage, job: Job) -> None:
    """Make the folder this job's, or find that it is.

    Raises:
        RunFolderError: when it belongs to another job.
    """
    text = canonical_json({"key": job.content_key(), "job": job.to_dict()}).encode()
    if storage.create(JOB_PATH, text):
        return
    if f'"key":"{job.content_key()}"'.encode() not in storage.read(JOB_PATH):
        raise RunFolderError(
            f"{storage.address} holds the run of another job",
            expected="an empty folder, or the folder of this very job",
            fix="give another --out; to ask something else of the same ground, give `store` the store of that run",
        )


def _plan(storage: Storage, job: Job, *, refresh: bool, say: Callable[[str], None]) -> Plan:
    plan = None if refresh else read_plan(storage)
    if plan is None:
        plan = make_plan(job, say=say)
        write_plan(storage, plan)
    return plan


def predictor_spec(job: Job, plan: Plan) -> Mapping[str, Any]:
    """What `build_predictor` needs. Raises JobError for an oracle without drawn scenes.

    The model computes in the type that suits this machine, on all of a cluster's.
    """
    if job.spec.predictor == "vlm":
        from earthmap.model.earth_onevision import resolve_device, resolve_dtype

        dtype = str(resolve_dtype(None, device=resolve_device(None))).removeprefix("torch.")
        return {"name": "vlm", "checkpoint": job.spec.model, "weights": job.spec.model_key, "dtype": dtype}
    if job.spec.predictor != "oracle":
        return {"name": job.spec.predictor}
    worlds = {scene.world for observation in plan.observations.values() for scene in observation.scenes}
    if len(worlds) != 1 or None in worlds:
        raise JobError(
            "the oracle reads the truth of one drawn world, which these scenes do not share",
            fix="use --predictor spectral, or a catalogue drawn by `earthmap demo`",
        )
    return {"name": "oracle", "world": worlds.pop()}


def _finish(storage: Storage, job: Job, plan: Plan, *, execution: int, tally: Tally) -> None:
    import importlib.metadata
    import platform

    import earthmap

    versions = {
        "earthmap": earthmap.__version__,
        "ray": importlib.metadata.version("ray"),
        "python": platform.python_version(),
    }
    content = {
        "job": job.content_key(),
        "execution": execution,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": {name: round(value, 2) for name, value in tally.seconds.items()},
        "publish_seconds": {name: round(value, 2) for name, value in tally.published.items()},
        "worker_seconds": {name: round(value, 2) for name, value in tally.worked.items()},
        "shares": {name: round(value, 4) for name, value in tally.shares.items()},
        "groups": {"read": tally.groups_read, "reused": tally.groups_reused},
        "parts": {"computed": tally.parts_computed, "reused": tally.parts_reused},
        "waited_seconds": round(tally.waited, 2),
        "left_out": [{"id": name, "why": why} for name, why in plan.refused],
        "versions": versions,
    }
    storage.write(RUN_PATH, canonical_json(content).encode())


# ── cells ────────────────────────────────────────────────────────────────────────────────────────────────────


def _place(job: Job) -> contextlib.AbstractContextManager[Place | None]:
    """Its place among the runs of a cluster that others may use, too; None on one of its own."""
    return Place(job.spec.priority) if job.spec.cluster is not None else contextlib.nullcontext()


def _shared(context: Context, say: Callable[[str], None]) -> Context:
    """`context` with the predictor that the cluster shares, where it shares that of the run."""
    found = find_shared(context.predictor)
    if found is None:
        return context
    spec, shared = found
    say(f"asking the replicas of {shared.application}")
    return replace(context, predictor=spec, shared=shared)


def _stream(
    plan: Plan,
    context: Context,
    merged: MergedCells,
    tally: Tally,
    *,
    place: Place | None,
    report: Callable[[Progress], None] | None,
    say: Callable[[str], None],
) -> None:
    """All cells through the stages.

    Raises:
        EarthmapError: what a worker could not turn into a row, such as a full disk.
        ClusterError: when the cluster is lost.
    """
    cells = tiles = failed = 0
    watch = Watch(say)
    tally.workers = max(1, min(watch.cpus, plan.cells))
    for row in watched_rows(Batches(plan, context, merged, watch, place), watch):
        if row["error"] is not None:
            raise pickle.loads(row["error"])
        cell: CellDone = pickle.loads(row["done"])
        cells += 1
        _count(tally, cell)
        for stage in STAGES:
            tally.worked[stage] += row[f"{stage}_s"]
        if place is not None:
            place.worked = sum(tally.worked.values())
        tally.waited += sum(cell.waited.values())
        for provider, seconds in cell.waited.items():
            say(f"waited {seconds:.0f} s for {provider}, which refused or did not answer")
        tiles += cell.tiles
        failed += cell.failed
        if report is not None:
            km2 = tiles * (plan.grid.core_m / 1000) ** 2
            report(
                Progress(
                    cells=cells,
                    tiles=tiles,
                    tiles_planned=plan.tiles,
                    km2=km2,
                    failed=failed,
                    cell_id=cell.cell_id,
                    execution=context.execution,
                )
            )
    if cells != plan.cells:
        raise LedgerError(f"{cells} cells came back", expected=f"{plan.cells}")


def _count(tally: Tally, cell: CellDone) -> None:
    tally.groups_read += cell.read
    tally.groups_reused += cell.groups - cell.read
    tally.parts_computed += cell.predicted
    tally.parts_reused += cell.parts - cell.predicted
