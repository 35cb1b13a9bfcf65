"""The cells of a run as Ray Data works on them: what is done with each, and how many are begun together.

Rows of a few kilobytes travel through Ray Data; pixels travel through the cube (docs/decisions/0001).
"""

from __future__ import annotations

import itertools
import logging
import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from earthmap.errors import EarthmapError, LedgerError
from earthmap.merge import merge_cell
from earthmap.pipeline.clearness import best_first
from earthmap.pipeline.cluster import PREDICTOR, Watch, by_role
from earthmap.pipeline.context import Committed, Context
from earthmap.pipeline.flood_parts import predict_work
from earthmap.pipeline.merged import MergedCells
from earthmap.pipeline.plan import Plan
from earthmap.pipeline.reading import read_work
from earthmap.pipeline.sharing import Place
from earthmap.pipeline.stages import computed_by, gather

BLOCK_CELLS = 16
"""Cells that a worker is sent together, side by side: between blocks it waits for the next."""

BLOCKS_PER_CPU = 16
"""Blocks of a smaller plan, so that all workers end at about the same time."""

MAX_BLOCKS = 2_000
"""Blocks that Ray Data cuts a plan into at most."""


ROOM_PER_CPU = 2
"""Cells that a cluster can work on at once, for each of its CPUs: reading may ask for half of one."""

BATCH_ROOMS = 2
"""A batch fills the room of a cluster so often: a more urgent run waits for one, and each costs a second."""

ONE_CPU = {"num_cpus": 1.0}
"""What a stage asks of a node unless it says otherwise."""

WAITING = {"num_cpus": 0.249}
"""What predicting asks of a node where a replica does: a quarter of a CPU for the pictures, while the replica, which
asks for none, computes. A thousandth less, so that a node never is without any for a replica that is to start."""

STAGES = ("read", "predict", "merge")
"""What workers do with a cell, in this order."""


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


class Batches:
    """The cells of a run, begun all at once, or, where it has its place among runs that share a cluster, in batches.

    A batch is begun when the cluster has room again and it is the run's turn.
    """

    def __init__(self, plan: Plan, context: Context, merged: MergedCells, watch: Watch, place: Place | None) -> None:
        import ray
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it raises what it also logs
        settings = ray.data.DataContext.get_current()
        settings.enable_progress_bars = False
        settings.enable_operator_progress_bars = False
        self._cells, self._works = plan.cells, plan.work()
        self._watch, self._place = watch, place
        self._begun = 0
        roles = watch.roles
        gpus = watch.gpus or float(PREDICTOR in roles)
        predicting = WAITING if context.shared else _predicting(context.predictor["name"], gpus=gpus)
        asked = ({"num_cpus": _reading_cpus(plan)}, predicting, ONE_CPU)
        holder = [ray.put(context)]  # in a list, so that a worker fetches it when it needs it
        work: tuple[Callable[[list[Any], dict[str, Any]], dict[str, Any]], ...]
        work = (_read_row, _predict_row, partial(_merge_row, merged))
        self._stages = [
            (partial(_guarded, name, partial(stage, holder)), by_role(asks, roles))
            for name, stage, asks in zip(STAGES, work, asked, strict=True)
        ]

    def begin(self, done: int) -> Any:
        """The next batch as a dataset, when `done` cells came back; None where it is not its turn, or there is none."""
        batch = self._cells - self._begun
        if self._place is not None:
            room = ROOM_PER_CPU * max(1, self._watch.cpus)
            batch = min(batch, BATCH_ROOMS * room)
            if not self._place.ask(done=done, left=self._begun - done, wanted=batch, room=room):
                return None
        return self._dataset(batch) if batch else None

    @property
    def is_over(self) -> bool:
        """Whether all cells were begun."""
        return self._begun == self._cells

    def _dataset(self, cells: int) -> Any:
        import pyarrow as pa
        import ray.data

        kinds = [(name, pa.binary()) for name in ("work", "groups", "parts", "done", "error")]
        schema = pa.schema([*kinds, *((f"{stage}_s", pa.float64()) for stage in STAGES)])
        rows = (pa.Table.from_pylist([{"work": pickle.dumps(work)}], schema=schema) for work in self._works)
        sizes = _block_sizes(cells, cpus=self._watch.cpus)
        dataset: Any = ray.data.from_arrow([pa.concat_tables(itertools.islice(rows, size)) for size in sizes])
        for stage, asks in self._stages:
            dataset = dataset.map(stage, **asks)
        self._begun += cells
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
    """What predicting asks of a node: for a model of its own a whole GPU, where the cluster has any.

    Ray hides the GPUs of a node from tasks that do not ask for one.
    """
    return {**ONE_CPU, "num_gpus": 1.0} if gpus and predictor == "vlm" else ONE_CPU


# ── what workers do ──────────────────────────────────────────────────────────────────────────────────────────


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
