"""What happens to one cell: read it, ask it, merge it. No Ray here; every stage can be repeated at any moment.

A result without failures is addressed by its content alone and shared by all runs. One with failures carries the
execution that made it in its address, so that the next execution tries again what failed and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from earthmap.catalog import Observation
from earthmap.content import content_key
from earthmap.cube import (
    CellGroup,
    CellPixels,
    CellRead,
    Reader,
    TileFailure,
    TilePixels,
    assemble,
    find_cell,
    open_cell,
    read_cell,
    read_tile,
    write_cell,
)
from earthmap.errors import IsolatedError, ReadError, StorageError
from earthmap.grid import AreaOfInterest, Cell, Tile
from earthmap.pipeline.isolation import Limits, isolated
from earthmap.pipeline.plan import CellWork, Question
from earthmap.predict import TileInput, build_predictor
from earthmap.storage import Storage
from earthmap.tasks import Answer, Query, answer_columns, answer_schema

if TYPE_CHECKING:
    import pyarrow as pa

PART_FORMAT = 1
"""Raised when the rows of an answer part change their meaning."""

TRIES = 2
"""Attempts at a whole cell; from the next on its tiles run one by one in processes of their own."""

READ_THREADS = 4
"""Bands of one cell read at the same time; reading waits more than it computes."""


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
    reader: Reader
    limits: Limits = field(default_factory=Limits)
    by_observation: bool = False
    """Observations of one-date questions stay apart in the merge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """Where a result stands in the store, and who put it there."""

    path: str
    fresh: bool
    """True where this call computed it."""


# ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────


def _attempt(storage: Storage, path: str) -> int:
    """Record one more attempt at what will stand at `path`; returns its number, from 1."""
    folder = f"attempts/{hashlib.sha256(path.encode()).hexdigest()[:24]}"
    number = len(storage.list(folder)) + 1
    while not storage.create(f"{folder}/{number:04d}", path.encode()):
        number += 1
    return number


def _cause(error: Exception) -> tuple[str, str]:
    """Reason and message of what went wrong with one tile."""
    if isinstance(error, (ReadError, IsolatedError)):
        return error.reason, str(error)
    return "unexpected", f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


# ── read ─────────────────────────────────────────────────────────────────────────────────────────────────────


def failed_path(path: str, execution: int) -> str:
    """Where a result with failures stands: the next execution looks elsewhere, and so tries again."""
    return f"{path}~x{execution}"


def read_stage(read: CellRead, context: Context) -> Committed:
    """The cell's group in the cube, read now or before.

    Raises:
        StorageError: when the cube cannot be written; nothing can go on then.
    """
    for path in (read.path, failed_path(read.path, context.execution)):
        if find_cell(context.store, path) is not None:
            return Committed(path=path, fresh=False)
    if _attempt(context.store, read.path) <= TRIES:
        pixels = _read_whole(read, context)
    else:
        pixels = _read_tiles(read, context, partial(isolated, limits=context.limits))
    path = failed_path(read.path, context.execution) if pixels.failures else read.path
    write_cell(context.store, read, pixels, path=path)
    return Committed(path=path, fresh=True)


def _read_whole(read: CellRead, context: Context) -> CellPixels:
    try:
        with ThreadPoolExecutor(READ_THREADS) as pool:
            return read_cell(context.reader, read, pool=pool)
    except StorageError:
        raise
    except Exception:  # noqa: BLE001 - the boundary of the tile: what broke the cell is found tile by tile
        return _read_tiles(read, context, _here)


def _read_tiles(read: CellRead, context: Context, run: Callable[[Callable[[], Any]], Any]) -> CellPixels:
    done: list[TilePixels] = []
    failures: list[TileFailure] = []
    for tile in read.cell.tiles():
        try:
            done.append(run(partial(read_tile, context.reader, read, tile)))
        except Exception as error:  # noqa: BLE001 - the boundary of the tile
            reason, message = _cause(error)
            address = error.address if isinstance(error, ReadError) else None
            failures.append(TileFailure(tile_id=tile.id, stage="read", reason=reason, message=message, address=address))
    return assemble(read, done, failures)


# ── predict ──────────────────────────────────────────────────────────────────────────────────────────────────


def part_path(work: CellWork, question: Question, groups: Mapping[str, str], context: Context) -> str:
    """Where the answers to `question` about the cell stand: by the content of pixels, question and predictor."""
    key = content_key(
        PART_FORMAT,
        question.query,
        [groups[name] for name in question.observations],
        build_predictor(context.predictor).key,
    )
    return f"parts/{work.cell.id}/{key}"


def predict_stage(work: CellWork, groups: Mapping[str, str], context: Context) -> dict[Question, Committed]:
    """Where the answers to each of the cell's questions stand, computed now or before.

    Questions that look at the same observations are asked together, so that a predictor encodes a tile once.
    `groups` are paths in the cube by observation.
    """
    parts: dict[Question, Committed] = {}
    missing: dict[tuple[str, ...], list[Question]] = {}
    for question in work.questions:
        if not question.observations:
            continue
        found = _find_part(part_path(work, question, groups, context), context)
        if found is not None:
            parts[question] = found
        else:
            missing.setdefault(question.observations, []).append(question)
    for questions in missing.values():
        parts.update(_predict(work, questions, groups, context))
    return parts


def _find_part(clean: str, context: Context) -> Committed | None:
    for path in (clean, failed_path(clean, context.execution)):
        if context.store.exists(f"{path}/manifest.json"):
            return Committed(path=path, fresh=False)
    return None


def _predict(
    work: CellWork, questions: Sequence[Question], groups: Mapping[str, str], context: Context
) -> dict[Question, Committed]:
    clean = [part_path(work, question, groups, context) for question in questions]
    lone = max(_attempt(context.store, path) for path in clean) > TRIES
    opened = [open_cell(context.store, groups[name]) for name in questions[0].observations]
    queries = [context.queries[question.query] for question in questions]
    answers = _answers(work, queries, opened, context, lone=lone)
    return {
        question: _commit_part(path, question.query, [of_tile[number] for of_tile in answers], opened, context)
        for number, (question, path) in enumerate(zip(questions, clean, strict=True))
    }


def _commit_part(
    clean: str, query: str, answers: Sequence[Answer], groups: Sequence[CellGroup], context: Context
) -> Committed:
    failed = any(answer.status == "failed" for answer in answers)
    path = failed_path(clean, context.execution) if failed else clean
    data = _part_bytes(query, answers, groups, context)
    context.store.write(f"{path}/answers.parquet", data)
    manifest = {
        "cell_id": groups[0].manifest.cell_id,
        "query": query,
        "groups": [group.manifest.key for group in groups],
        "sha256": hashlib.sha256(data).hexdigest(),
        "job": context.job,
        "execution": context.execution,
    }
    context.store.create(f"{path}/manifest.json", json.dumps(manifest, sort_keys=True).encode())
    return Committed(path=path, fresh=True)


def _answers(
    work: CellWork, queries: Sequence[Query], opened: Sequence[CellGroup], context: Context, *, lone: bool
) -> list[list[Answer]]:
    """For each tile of the cell, in the cell's order, one answer for each of `queries`."""
    answers: dict[str, list[Answer]] = {}
    inputs: list[TileInput] = []
    for tile in work.cell.tiles():
        failure = _read_failure(tile, opened)
        if failure is not None:
            answers[tile.id] = [failure] * len(queries)
        else:
            inputs.append(TileInput(tile=tile, pictures=tuple(group.picture(tile) for group in opened)))
    for item, of_tile in zip(inputs, _ask(inputs, queries, context, lone=lone), strict=True):
        answers[item.tile.id] = of_tile
    return [answers[tile.id] for tile in work.cell.tiles()]


def _read_failure(tile: Tile, groups: Sequence[CellGroup]) -> Answer | None:
    for group in groups:
        for failure in group.manifest.failures:
            if failure.tile_id == tile.id:
                return Answer(
                    status="failed",
                    stage=failure.stage,
                    reason=failure.reason,
                    message=failure.message,
                    address=failure.address,
                )
    return None


def _ask(inputs: Sequence[TileInput], queries: Sequence[Query], context: Context, *, lone: bool) -> list[list[Answer]]:
    """The answers to `queries`, tile by tile; `lone` asks each tile in a process of its own."""
    run: Callable[[Callable[[], Any]], Any] = _here
    if lone:
        run = partial(isolated, limits=context.limits)
    else:
        try:
            return build_predictor(context.predictor).predict(inputs, queries)
        except Exception:  # noqa: BLE001 - the boundary of the tile: what broke the batch is found one by one
            pass
    answers = []
    for item in inputs:
        try:
            answers.append(run(partial(_ask_one, context.predictor, item, queries)))
        except Exception as error:  # noqa: BLE001 - the boundary of the tile
            reason, message = _cause(error)
            answers.append([Answer(status="failed", stage="predict", reason=reason, message=message)] * len(queries))
    return answers


def _here(work: Callable[[], Any]) -> Any:
    return work()


def _ask_one(spec: Mapping[str, Any], item: TileInput, queries: Sequence[Query]) -> list[Answer]:
    return build_predictor(spec).predict([item], queries)[0]


def _part_bytes(query: str, answers: Sequence[Answer], groups: Sequence[CellGroup], context: Context) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    seen = [group.manifest for group in groups]
    cell = Cell.parse(seen[0].cell_id)
    shared = {
        "cell_id": cell.id,
        "query": query,
        "observation": "..".join(manifest.observation for manifest in seen),
        "datetime_min": min(manifest.datetime for manifest in seen),
        "datetime_max": max(manifest.datetime for manifest in seen),
        "sensor": seen[0].sensor,
        "scenes": sorted({scene for manifest in seen for scene in manifest.scenes}),
        "predictor": context.predictor["name"],
    }
    rows = [
        {**shared, "tile_id": tile.id, **answer_columns(answer)}
        for tile, answer in zip(cell.tiles(), answers, strict=True)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=answer_schema()), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


# ── collect ──────────────────────────────────────────────────────────────────────────────────────────────────


def read_part(storage: Storage, path: str) -> pa.Table:
    """The rows of a committed part. Raises StorageError where its bytes are not those of its manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = storage.read(f"{path}/answers.parquet")
        manifest = json.loads(storage.read(f"{path}/manifest.json"))
    except (FileNotFoundError, ValueError) as error:
        raise _damaged(storage, path) from error
    if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
        raise _damaged(storage, path)
    return pq.read_table(pa.BufferReader(data), schema=answer_schema())


def _damaged(storage: Storage, path: str) -> StorageError:
    return StorageError(
        f"the answers in {storage.locate(path)} are not those that were committed",
        fix=f"delete {storage.locate(path)} and run the same job again",
    )


_UNFOUND = {
    "no_scene": "the catalogue holds no observation",
    "one_date": "the catalogue holds no two observations to compare",
    "unlike_conventions": "the catalogue holds no two observations of one sensor and convention to compare",
}


def unfound_rows(work: CellWork, question: Question, context: Context) -> pa.Table:
    """The rows of a question for which the catalogue holds no observation (or, for a change, not two)."""
    import pyarrow as pa

    message = f"{_UNFOUND[question.unfound]} of this ground"
    answer = answer_columns(Answer(status="skipped", reason=question.unfound, message=message))
    empty = {"observation": "", "scenes": [], "predictor": context.predictor["name"], "sensor": None}
    rows = [
        {"cell_id": work.cell.id, "tile_id": tile.id, "query": question.query, **empty, **answer}
        for tile in work.cell.tiles()
    ]
    return pa.Table.from_pylist(rows, schema=answer_schema())


def gather(work: CellWork, parts: Mapping[Question, Committed], context: Context) -> pa.Table:
    """Every answer (`answer_schema`, masks included) of the cell's tiles that belong to the job."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tables = [
        _named(read_part(context.store, parts[question].path), question)
        if question in parts
        else unfound_rows(work, question, context)
        for question in work.questions
    ]
    mine = [tile.id for bit, tile in enumerate(work.cell.tiles()) if work.tiles >> bit & 1]
    table = pa.concat_tables(tables)
    return table.filter(pc.is_in(table["tile_id"], value_set=pa.array(mine)))


def _named(table: pa.Table, question: Question) -> pa.Table:
    """The rows under the plan's name of the observation, which all cells of a pass share."""
    import pyarrow as pa

    column = table.schema.get_field_index("observation")
    return table.set_column(column, "observation", pa.array([question.observation] * len(table), pa.string()))


def computed_by(committed: Committed, context: Context) -> int:
    """The execution of this job that computed a part; 0 where another job did."""
    if committed.fresh:
        return context.execution
    manifest = json.loads(context.store.read(f"{committed.path}/manifest.json"))
    return int(manifest["execution"]) if manifest["job"] == context.job else 0
