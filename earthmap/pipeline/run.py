"""One execution of a job on Ray: plan, stream the cells through the stages, merge, publish.

Beside `earthmap.pipeline.cluster` the only module of the pipeline that imports Ray. Rows of a few kilobytes travel
through Ray Data; pixels travel through the cube (docs/decisions/0001).
"""

from __future__ import annotations

import itertools
import logging
import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from earthmap.content import canonical_json
from earthmap.cube import Patience, RasterioReader, Reader
from earthmap.errors import EarthmapError, JobError, LedgerError, RunFolderError
from earthmap.merge import merge_cell
from earthmap.pipeline.audit import plan_triage
from earthmap.pipeline.clearness import best_first
from earthmap.pipeline.cluster import PREDICTOR, READER, Watch, cluster, watched_rows
from earthmap.pipeline.context import Committed, Context
from earthmap.pipeline.flood_parts import predict_work
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
from earthmap.pipeline.reading import read_work
from earthmap.pipeline.reference_water import open_reference_water
from earthmap.pipeline.stages import computed_by, gather
from earthmap.storage import Storage

BLOCK_CELLS = 16
"""Cells that a worker is sent together, side by side: between blocks it waits for the next."""

BLOCKS_PER_CPU = 16
"""Blocks of a smaller plan, so that all workers end at about the same time."""

MAX_BLOCKS = 2_000
"""Blocks that Ray Data cuts a plan into at most."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CellDone:
    """What comes back from the workers for one cell; what it came to stands in a file (`MergedCells`)."""

    cell_id: str
    tiles: int
    failed: int
    """Rows of its ledger that failed."""
    groups: int
    parts: int
    read: int
    """Groups that were read just now."""
    predicted: int
    """Parts that were computed just now."""
    waited: Mapping[str, float]
    """Seconds that were waited for providers that refuse or do not answer, by provider."""


ONE_CPU = {"num_cpus": 1.0}
"""What a stage asks of a node unless it says otherwise."""

TRACE = 0.001
"""How much of a role work asks for: enough to be sent there, and never what a node runs out of first."""

STAGES = ("read", "predict", "merge")
"""What workers do with a cell, in this order."""


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
        with cluster(job.spec.cluster):
            _stream(worked, context, merged, tally, report=heard, say=say)
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
    import platform

    import ray

    import earthmap

    versions = {"earthmap": earthmap.__version__, "ray": ray.__version__, "python": platform.python_version()}
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


# ── Ray ──────────────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=2)
def _received(reference: Any) -> Context:
    import ray

    context: Context = ray.get(reference)
    return context


def _guarded(name: str, stage: Callable[[dict[str, Any]], dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    """`stage` and its seconds, with our own errors carried to the driver as rows, where they keep their words."""
    if row["error"] is not None:
        return row
    started = time.monotonic()
    try:
        result = stage(row)
    except EarthmapError as error:
        return {**dict.fromkeys(row), "error": pickle.dumps(error)}
    return {**result, f"{name}_s": time.monotonic() - started}


def _read_row(holder: list[Any], row: dict[str, Any]) -> dict[str, Any]:
    context = _received(holder[0])
    work = best_first(pickle.loads(row["work"]), context)
    return {**row, "work": pickle.dumps(work), "groups": pickle.dumps(read_work(work, context))}


def _predict_row(holder: list[Any], row: dict[str, Any]) -> dict[str, Any]:
    context = _received(holder[0])
    reads: dict[str, Committed] = pickle.loads(row["groups"])
    groups = {name: committed.path for name, committed in reads.items()}
    return {**row, "parts": pickle.dumps(predict_work(pickle.loads(row["work"]), groups, context))}


def _merge_row(merged: MergedCells, holder: list[Any], row: dict[str, Any]) -> dict[str, Any]:
    context = _received(holder[0])
    work, reads, parts = (pickle.loads(row[name]) for name in ("work", "groups", "parts"))
    answers = gather(work, parts, context)
    expected = work.tiles.bit_count() * len(work.questions)
    if answers.num_rows != expected:
        raise LedgerError(f"cell {work.cell.id} has {answers.num_rows} answers", expected=str(expected))
    given = context.footprints.of_cell(work.cell) if context.footprints is not None else None
    merge = merge_cell(
        work.cell,
        answers,
        area=context.area,
        queries=context.queries,
        tiles=work.tiles,
        by_observation=context.by_observation,
        footprints=given.given if given is not None else None,
    )
    merged.write(merge, _ledger(answers, parts, context))
    done = CellDone(
        cell_id=work.cell.id,
        tiles=work.tiles.bit_count(),
        failed=answers["status"].to_pylist().count("failed"),
        groups=len(reads),
        parts=len(parts),
        read=sum(committed.fresh for committed in reads.values()),
        predicted=sum(committed.fresh for committed in parts.values()),
        waited=_waited(reads.values()),
    )
    return {**row, "work": None, "groups": None, "parts": None, "done": pickle.dumps(done)}


def _waited(reads: Iterable[Committed]) -> dict[str, float]:
    waited: dict[str, float] = {}
    for committed in reads:
        if committed.waited_s:
            waited[committed.waited_for] = waited.get(committed.waited_for, 0.0) + committed.waited_s
    return waited


def _ledger(answers: Any, parts: Mapping[Any, Committed], context: Context) -> Any:
    import pyarrow as pa

    from earthmap.pipeline.schema import ledger_schema

    by_key = {
        (question.query, question.observation): (committed.path, computed_by(committed, context))
        for question, committed in parts.items()
    }
    where = [
        by_key.get(key, (None, None))
        for key in zip(answers["query"].to_pylist(), answers["observation"].to_pylist(), strict=True)
    ]
    table = answers.append_column("part", pa.array([path for path, _ in where], pa.string()))
    table = table.append_column("execution", pa.array([number for _, number in where], pa.int32()))
    return table.select(ledger_schema().names).cast(ledger_schema())


def _dataset(plan: Plan, context: Context, merged: MergedCells, watch: Watch) -> Any:
    import pyarrow as pa
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it raises what it also logs
    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = False
    settings.enable_operator_progress_bars = False
    holder = [ray.put(context)]  # in a list, so that a worker fetches it when it needs it
    kinds = [(name, pa.binary()) for name in ("work", "groups", "parts", "done", "error")]
    schema = pa.schema([*kinds, *((f"{stage}_s", pa.float64()) for stage in STAGES)])
    rows = (pa.Table.from_pylist([{"work": pickle.dumps(work)}], schema=schema) for work in plan.work())
    sizes = _block_sizes(plan.cells, cpus=watch.cpus)
    dataset: Any = ray.data.from_arrow([pa.concat_tables(itertools.islice(rows, size)) for size in sizes])
    roles, gpus = watch.roles, watch.gpus
    predicting = _predicting(context.predictor["name"], gpus=gpus or float(PREDICTOR in roles))
    asked = {"read": {"num_cpus": _reading_cpus(plan)}, "predict": predicting}
    work: tuple[Callable[[list[Any], dict[str, Any]], dict[str, Any]], ...]
    work = (_read_row, _predict_row, partial(_merge_row, merged))
    for name, stage in zip(STAGES, work, strict=True):
        asks = _by_role(asked.get(name, ONE_CPU), roles)
        dataset = dataset.map(partial(_guarded, name, partial(stage, holder)), **asks)
    return dataset


def _block_sizes(cells: int, *, cpus: int) -> list[int]:
    """How many cells each block has: as even as can be, the larger ones first, but for one of one cell for each CPU at
    the start, from which a first answer comes soon."""
    soon = min(cells, max(1, cpus))
    cells -= soon
    blocks = min(MAX_BLOCKS - soon, max(-(-cells // BLOCK_CELLS), min(cells, BLOCKS_PER_CPU * max(1, cpus))))
    return [1] * soon + [cells // blocks + (number < cells % blocks) for number in range(blocks)]


def _reading_cpus(plan: Plan) -> float:
    """What reading a cell asks of a node: half a core where it waits for a network.

    Stages that ask for the same are one task to Ray; others overlap, the next cell read while this one is predicted.
    """
    sources = (source.href for one in plan.observations.values() for scene in one.scenes for source in scene.sources)
    return 0.5 if any("://" in href and not href.startswith("file://") for href in sources) else 1.0


def _predicting(predictor: str, *, gpus: float) -> dict[str, float]:
    """What predicting asks of a node: for the model a whole GPU, where the cluster has any.

    Ray hides the GPUs of a node from tasks that do not ask for one.
    """
    return {**ONE_CPU, "num_gpus": 1.0} if gpus and predictor == "vlm" else ONE_CPU


def _by_role(asked: Mapping[str, float], roles: frozenset[str]) -> dict[str, Any]:
    """What is asked, of a node of the role that it is for where the cluster offers that role."""
    role = PREDICTOR if "num_gpus" in asked else READER
    return {**asked, "resources": {role: TRACE}} if role in roles else dict(asked)


def _stream(
    plan: Plan,
    context: Context,
    merged: MergedCells,
    tally: Tally,
    *,
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
    for row in watched_rows(_dataset(plan, context, merged, watch), watch):
        if row["error"] is not None:
            raise pickle.loads(row["error"])
        cell: CellDone = pickle.loads(row["done"])
        cells += 1
        _count(tally, cell)
        for stage in STAGES:
            tally.worked[stage] += row[f"{stage}_s"]
        tally.waited += sum(cell.waited.values())
        for place, seconds in cell.waited.items():
            say(f"waited {seconds:.0f} s for {place}, which refused or did not answer")
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
