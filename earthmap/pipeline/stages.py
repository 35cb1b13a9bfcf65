"""What happens to one cell once it is read: it is asked, and its answers are collected. No Ray here; every stage can be
repeated at any moment.

A result without failures is addressed by its content alone and shared by all runs. One with failures carries the
execution that made it in its address, so that the next execution tries again what failed and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from earthmap.content import content_key
from earthmap.cube import SHIFT_FORMAT, CellGroup, TileFailure, open_cell
from earthmap.errors import ClusterError, ReplicaError, StorageError
from earthmap.grid import Cell, Tile
from earthmap.pipeline.context import TRIES, Committed, Context, failed_path, reason_and_message, record_attempt
from earthmap.pipeline.isolation import isolated
from earthmap.pipeline.overview import look_first
from earthmap.pipeline.pairing import Pairing, pair_dates
from earthmap.pipeline.plan import CellWork, Question, ledger_name
from earthmap.pipeline.reading import looked_at, manifests
from earthmap.pipeline.triage import Verdict, unseen_answer
from earthmap.pipeline.two_maps import compare_maps, map_queries
from earthmap.predict import Picture, Predictor, TileInput, build_predictor, key_of
from earthmap.sensors.offsets import OFFSET_SUSPECT
from earthmap.storage import Storage
from earthmap.tasks import TASKS, Answer, Query, answer_columns, answer_schema
from earthmap.tasks.sizes import too_coarse

if TYPE_CHECKING:
    import pyarrow as pa
    from shapely.geometry.base import BaseGeometry

    from earthmap.pipeline.footprint_cells import CellFootprints

PART_FORMAT = 4
"""Raised when the rows of an answer part change their meaning."""

NO_FOOTPRINT = "no footprint has its centroid in this tile"

PICTURES = 32
"""Pictures that are held at once, those of all tiles of a cell on two dates; of longer series those of fewer tiles."""


# ── predict ──────────────────────────────────────────────────────────────────────────────────────────────────


_Paths = tuple[tuple[str, ...], ...]
"""For each date the path in the cube of what is asked about, and then of what stands in for it."""


def part_path(work: CellWork, query: str, groups: _Paths, context: Context) -> str:
    """Where the answers to `query` about the cell stand: by the content of pixels, question and predictor, and of what
    is left out before. How two dates lie on each other follows from their pixels."""
    parts: list[Any] = [SHIFT_FORMAT] if len(groups) == 2 else []
    parts += context.triage.path_parts(query, [tile.id for tile in work.cell.tiles()], work.tiles)
    given = _given(work.cell, [context.queries[query]], context)
    parts += [] if given is None else [["footprints", given.key]]
    key = content_key(PART_FORMAT, query, [list(of_date) for of_date in groups], key_of(context.predictor), *parts)
    return f"parts/{work.cell.id}/{key}"


def _given(cell: Cell, queries: Iterable[Query], context: Context) -> CellFootprints | None:
    """The footprints of a cell that some of the queries are asked of, one by one; None without any."""
    each = any(TASKS[query.task].merge == "footprints" for query in queries)
    return context.footprints.of_cell(cell) if each and context.footprints is not None else None


def predict_stage(work: CellWork, groups: Mapping[str, str], context: Context) -> dict[Question, Committed]:
    """Where the answers to each of the cell's questions stand, computed now or before.

    Questions that look at the same observations are asked together, so that a predictor encodes a tile once.
    `groups` are paths in the cube by observation.
    """
    parts: dict[Question, Committed] = {}
    missing: dict[tuple[_Paths, bool], list[Question]] = {}
    manifest_of = manifests(groups, context)
    for question in work.questions:
        if not question.observations:
            continue
        paths = tuple(tuple(groups[name] for name in names) for names in looked_at(question, manifest_of))
        found = find_part(part_path(work, question.query, paths, context), context)
        if found is not None:
            parts[question] = found
        else:
            missing.setdefault((paths, context.queries[question.query].dates == 0), []).append(question)
    for (paths, _), questions in missing.items():
        parts.update(_persist(work, questions, paths, context))
    return parts


def find_part(clean: str, context: Context) -> Committed | None:
    """The committed part of that path, with failures of this execution or without; None where there is none."""
    for path in (clean, failed_path(clean, context.execution)):
        if context.store.exists(f"{path}/manifest.json"):
            return Committed(path=path, fresh=False)
    return None


def _persist(
    work: CellWork, questions: Sequence[Question], paths: _Paths, context: Context
) -> dict[Question, Committed]:  # fmt: skip
    """As `_predict`, again where the replica that computed it was lost: as what a lost worker did is done again.

    Each time is one more attempt, and the third asks no replica.
    """
    while True:
        with contextlib.suppress(ReplicaError):
            return _predict(work, questions, paths, context)


def _predict(
    work: CellWork, questions: Sequence[Question], paths: _Paths, context: Context
) -> dict[Question, Committed]:  # fmt: skip
    clean = [part_path(work, question.query, paths, context) for question in questions]
    lone = max(record_attempt(context.store, path) for path in clean) > TRIES
    opened = {path: open_cell(context.store, path) for of_date in paths for path in of_date}
    dates = [[opened[path] for path in of_date] for of_date in paths]
    queries = [context.queries[question.query] for question in questions]
    if queries[0].dates == 0:
        seen = [_seen_along(tile, [group for group, *_ in dates]) for tile in work.cell.tiles()]
    else:
        seen = [_seen(tile, dates) for tile in work.cell.tiles()]
        seen = _paired(seen, questions, context) if len(dates) == 2 else seen
    given = _given(work.cell, queries, context)
    if given is not None:
        seen = [dataclasses.replace(item, footprints=given.of(item.tile)) for item in seen]
    told = []
    step = max(1, PICTURES // len(dates))
    for first in range(0, len(seen), step):
        # What keeps pictures is made anew, so that those of one batch go before the next comes.
        batch = [dataclasses.replace(item) for item in seen[first : first + step]]
        told += _answers(batch, queries, context, tiles=work.tiles, lone=lone)
    return {
        question: _commit_part(path, question.query, [of_tile[number] for of_tile in told], seen, context)
        for number, (question, path) in enumerate(zip(questions, clean, strict=True))
    }


@dataclass(frozen=True, slots=True)
class _Told:
    """What became of one query about one tile."""

    answer: Answer
    verdict: Verdict | None = None
    """What a coarse picture decided before; None where it was not asked for."""

    def columns(self) -> dict[str, Any]:
        """Those of `answer_schema`."""
        return {**answer_columns(self.answer), "triage": self.verdict.to_json() if self.verdict is not None else None}


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a tile is asked about."""

    tile: Tile
    groups: Sequence[CellGroup]
    failure: TileFailure | None = None
    """Why it has no pixels."""
    notes: tuple[str, ...] = ()
    message: str | None = None
    """What stands in for what, and why."""
    pairing: Pairing | None = None
    """How the two dates of a change lie on each other."""
    numbers: tuple[int, ...] = ()
    """Of a series, which of its dates the groups are."""
    footprints: tuple[BaseGeometry, ...] = ()
    """What it is asked about one by one, in coordinates of its picture."""

    @cached_property
    def pictures(self) -> tuple[Picture, ...]:
        """What is asked about: of a change the second date as it lies on the first."""
        moves = [(0.0, 0.0)] * len(self.groups)
        if self.pairing is not None:
            moves[1] = self.pairing.applied_px
        return tuple(group.picture(self.tile, shift=move) for group, move in zip(self.groups, moves, strict=True))


def _paired(seen: Sequence[_Seen], questions: Sequence[Question], context: Context) -> list[_Seen]:
    """The same with what is known of each two dates, which is of the whole cell, and so the same for its tiles."""
    names = {name for one in questions for name in (*one.observations, *one.fallbacks, *one.later_fallbacks)}
    scenes = [scene for name in sorted(names) for scene in context.observations[name].scenes]
    known: dict[tuple[str, ...], Pairing] = {}
    found = []
    for item in seen:
        if item.failure is None:
            key = tuple(group.path for group in item.groups)
            if key not in known:
                known[key] = pair_dates(item.groups[0], item.groups[1], scenes=scenes)
            item = dataclasses.replace(item, pairing=known[key], notes=(*item.notes, *known[key].notes))
        found.append(item)
    return found


def _seen(tile: Tile, dates: Sequence[Sequence[CellGroup]]) -> _Seen:
    """What the tile is asked about: for each date the group that has its pixels, or why it has none.

    The dates of a change stay in their order: where the only stand-ins would turn or join them, it has failed.
    """
    looks = [_look(tile, of_date, _DATES[number] if len(dates) == 2 else "") for number, of_date in enumerate(dates)]
    asked = [of_date[0] for of_date in dates]
    failures = [look.failure for look in looks if look.failure is not None]
    if not failures and _in_order(look.group for look in looks):
        return _Seen(
            tile=tile,
            groups=[look.group for look in looks],
            notes=tuple(note for look in looks for note in look.notes),
            message="; ".join(look.message for look in looks if look.message) or None,
        )
    failures = failures or [lost for group in asked if (lost := _failure_of(tile, group)) is not None]
    if not failures:
        return _Seen(tile=tile, groups=asked)
    # What may yet come goes first, so that the tile is not given up.
    return _Seen(tile=tile, groups=asked, failure=min(failures, key=lambda failure: failure.lasting))


def _seen_along(tile: Tile, groups: Sequence[CellGroup]) -> _Seen:
    """What the tile is asked about along a series: the groups that have its pixels, in order of time. What is lost for
    good is left out and named as long as two remain; nothing stands in for it, since the others are looked at already.
    """
    looks = [_look(tile, [group], "") for group in groups]
    lost = [look.failure for look in looks if look.failure is not None]
    kept = [number for number, look in enumerate(looks) if look.failure is None]
    if len(kept) < 2 or not all(failure.lasting for failure in lost):
        # What may yet come goes first, so that the tile is not given up.
        return _Seen(tile=tile, groups=groups, failure=min(lost, key=lambda failure: failure.lasting))
    reasons = ", ".join(sorted({failure.reason for failure in lost}))
    notes = [f"{len(lost)} of {len(groups)} dates are left out: {reasons}"] if lost else []
    return _Seen(
        tile=tile,
        groups=[groups[number] for number in kept],
        notes=tuple(dict.fromkeys([*notes, *(note for number in kept for note in looks[number].notes)])),
        message="; ".join(failure.message for failure in lost) or None,
        numbers=tuple(kept),
    )


_DATES = ("first date's ", "second date's ")


def _in_order(groups: Iterable[CellGroup]) -> bool:
    times = [group.manifest.datetime for group in groups]
    return all(earlier < later for earlier, later in itertools.pairwise(times))


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What one date shows of a tile."""

    group: CellGroup
    failure: TileFailure | None = None
    notes: tuple[str, ...] = ()
    message: str | None = None


def _look(tile: Tile, groups: Sequence[CellGroup], which: str) -> _Look:
    """The first of `groups`, or of those behind it the first that has pixels, where it never will have any, and the
    first that is not suspect, where it is."""
    asked, *fallbacks = groups
    failure = _failure_of(tile, asked)
    if failure is None:
        return _unsuspected(tile, asked, fallbacks, which)
    for group in fallbacks if failure.lasting else ():
        other = _failure_of(tile, group)
        if other is None:
            return _stand_in(group, which, failure.reason, failure.message)
        if not other.lasting:
            return _Look(group=asked, failure=other)  # it may yet come, so that this tile is not given up
    return _Look(group=asked, failure=failure)


def _unsuspected(tile: Tile, asked: CellGroup, fallbacks: Sequence[CellGroup], which: str) -> _Look:
    """The group that is asked about, or a fallback whose offset is not suspect where its own is."""
    if asked.manifest.is_suspect:
        for group in fallbacks:
            if not group.manifest.is_suspect and _failure_of(tile, group) is None:
                said = [note for note in asked.manifest.notes if note.startswith(OFFSET_SUSPECT)]
                return _stand_in(group, which, OFFSET_SUSPECT, "; ".join(said))
        return _Look(group=asked)
    replaced = next((lost for lost in asked.manifest.replaced if lost.tile_id == tile.id), None)
    if replaced is None:
        return _Look(group=asked)
    notes = (f"another scene of the {which}pass stands in for one that is {replaced.reason}",)
    return _Look(group=asked, notes=notes, message=replaced.message)


def _stand_in(group: CellGroup, which: str, reason: str, message: str) -> _Look:
    return _Look(
        group=group,
        notes=(f"the {which}next-best observation stands in for one that is {reason}",),
        message=f"answered from {group.manifest.observation}: {message}",
    )


def _failure_of(tile: Tile, group: CellGroup) -> TileFailure | None:
    return next((lost for lost in group.manifest.failures if lost.tile_id == tile.id), None)


def _commit_part(
    clean: str, query: str, told: Sequence[_Told], seen: Sequence[_Seen], context: Context
) -> Committed:  # fmt: skip
    rows = [
        {"query": query, "predictor": context.predictor["name"], **_shown(item), **one.columns()}
        for item, one in zip(seen, told, strict=True)
    ]
    return commit_rows(clean, rows, {group.manifest.key for item in seen for group in item.groups}, context)


def commit_rows(clean: str, rows: Sequence[Mapping[str, Any]], groups: Iterable[str], context: Context) -> Committed:
    """Write the rows (`answer_schema`) of one question and cell, its manifest last. `groups` are the keys of those of
    the cube that they are about."""
    failed = any(row["status"] == "failed" for row in rows)
    path = failed_path(clean, context.execution) if failed else clean
    data = _part_bytes(rows)
    context.store.write(f"{path}/answers.parquet", data)
    manifest = {
        "cell_id": rows[0]["cell_id"],
        "query": rows[0]["query"],
        "groups": sorted(groups),
        "sha256": hashlib.sha256(data).hexdigest(),
        "job": context.job,
        "execution": context.execution,
    }
    context.store.create(f"{path}/manifest.json", json.dumps(manifest, sort_keys=True).encode())
    return Committed(path=path, fresh=True)


def _answers(
    seen: Sequence[_Seen], queries: Sequence[Query], context: Context, *, tiles: int, lone: bool
) -> list[list[_Told]]:
    """For each of `seen`, in its order, what became of each of `queries`; `tiles` are the job's own as bits."""
    least = context.triage.least_seen
    rows = [[_untold(item, query, least_seen=least) for query in queries] for item in seen]
    verdicts = look_first(
        rows,
        [(item.tile, item.groups[0]) for item in seen],
        queries,
        triage=context.triage,
        tiles=tiles,
        ask=partial(_ask, context=context, lone=lone),
    )
    together: dict[tuple[int, ...], list[int]] = {}
    for place, row in enumerate(rows):
        open_ones = tuple(number for number, answer in enumerate(row) if answer is None)
        if open_ones:
            together.setdefault(open_ones, []).append(place)
    for numbers, places in together.items():
        asked = _ask_of([seen[place] for place in places], [queries[number] for number in numbers], context, lone=lone)
        for place, answers in zip(places, asked, strict=True):
            for number, answer in zip(numbers, answers, strict=True):
                rows[place][number] = _noted(answer, seen[place])
    return [
        [_Told(answer, verdicts.get((place, number))) for number, answer in enumerate(row) if answer is not None]
        for place, row in enumerate(rows)
    ]


def _ask_of(
    seen: Sequence[_Seen], queries: Sequence[Query], context: Context, *, lone: bool
) -> list[list[Answer]]:  # fmt: skip
    """The answers to `queries`, tile by tile; of dates of unlike sensors those that a map of each comes to."""
    inputs = [TileInput(tile=item.tile, pictures=item.pictures, footprints=item.footprints) for item in seen]
    if len({group.manifest.sensor for group in seen[0].groups}) == 1:
        return _ask(inputs, queries, context, lone=lone)
    asked = [one for query in queries for one in map_queries(query)]
    dates = [[TileInput(tile=item.tile, pictures=(item.pictures[date],)) for item in inputs] for date in (0, 1)]
    maps = [_ask(of_date, asked, context, lone=lone) for of_date in dates]
    ends = list(itertools.accumulate(len(query.targets) for query in queries))
    return [
        [
            compare_maps(query, *(of_tile[end - len(query.targets) : end] for of_tile in both))
            for query, end in zip(queries, ends, strict=True)
        ]
        for both in zip(*maps, strict=True)
    ]


def _untold(item: _Seen, query: Query, *, least_seen: float) -> Answer | None:
    """Why `query` is not asked of a tile; None where it is."""
    if TASKS[query.task].merge == "footprints" and not item.footprints:
        return Answer(status="skipped", reason="no_footprint", message=NO_FOOTPRINT)
    if item.failure is not None:
        return _failed(item.failure)
    refused = item.pairing.refusal(query) if item.pairing is not None else None
    core = TileInput(tile=item.tile, pictures=item.pictures).core
    return refused or unseen_answer(item.pictures, core, query, least_seen=least_seen)


def _failed(failure: TileFailure) -> Answer:
    return Answer(
        status="skipped" if failure.settled else "failed",
        stage=failure.stage,
        reason=failure.reason,
        message=failure.message,
        address=failure.address,
    )


def _noted(answer: Answer, item: _Seen) -> Answer:
    """The answer with what should be known of its pixels, and of what stands in for what."""
    of_pixels = (note for group in item.groups for note in group.manifest.notes)
    notes = tuple(dict.fromkeys((*answer.notes, *of_pixels, *item.notes)))
    return dataclasses.replace(answer, notes=notes, message=answer.message or item.message)


def _ask(inputs: Sequence[TileInput], queries: Sequence[Query], context: Context, *, lone: bool) -> list[list[Answer]]:
    """The answers to `queries`, tile by tile; `lone` asks each tile in a process of its own."""
    if lone:
        return [_failing(partial(_alone, item, queries, context), queries) for item in inputs]
    try:
        return _predictor(context).predict(inputs, queries)
    except ClusterError:
        raise  # says nothing of a tile
    except Exception:  # noqa: BLE001 - the boundary of the tile: what broke the batch is found one by one
        return [_failing(partial(_ask_one, item, queries, context), queries) for item in inputs]


def _failing(ask: Callable[[], list[Answer]], queries: Sequence[Query]) -> list[Answer]:
    """What `ask` says, and where it breaks that each question has failed."""
    try:
        return ask()
    except ClusterError:
        raise
    except Exception as error:  # noqa: BLE001 - the boundary of the tile
        reason, message = reason_and_message(error)
        return [Answer(status="failed", stage="predict", reason=reason, message=message)] * len(queries)


def _predictor(context: Context) -> Predictor:
    return context.shared or build_predictor(context.predictor)


def _ask_one(item: TileInput, queries: Sequence[Query], context: Context) -> list[Answer]:
    return _predictor(context).predict([item], queries)[0]


def _alone(item: TileInput, queries: Sequence[Query], context: Context) -> list[Answer]:
    """As `_ask_one`, in a process of its own, which holds a model of its own."""
    answers: list[Answer] = isolated(partial(_built, context.predictor, item, queries), context.limits)
    return answers


def _built(spec: Mapping[str, Any], item: TileInput, queries: Sequence[Query]) -> list[Answer]:
    return build_predictor(spec).predict([item], queries)[0]


def _part_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=answer_schema()), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _shown(item: _Seen) -> dict[str, Any]:
    """The columns that say what an answer is about."""
    manifests = [group.manifest for group in item.groups]
    return {
        "cell_id": item.tile.cell.id,
        "tile_id": item.tile.id,
        "observation": ledger_name([manifest.observation for manifest in manifests]),
        "datetime_min": min(manifest.datetime for manifest in manifests),
        "datetime_max": max(manifest.end or manifest.datetime for manifest in manifests),
        "sensor": "..".join(dict.fromkeys(manifest.sensor for manifest in manifests)),  # of unlike ones both
        "scenes": sorted({scene for manifest in manifests for scene in manifest.scenes}),
        "pair": item.pairing.to_json() if item.pairing is not None else None,
        "dates": [
            {"number": number, "observation": manifest.observation, "time": manifest.datetime}
            for number, manifest in zip(item.numbers, manifests, strict=False)
        ],
    }


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
    "no_footprint": "the file of footprints holds none whose centroid lies in this part",
    "too_coarse": "the catalogue holds only pixels that are too coarse for what is looked for",
    "one_date": "the catalogue holds no two observations to compare",
    "unlike_conventions": (
        "the catalogue holds no two observations of one sensor and convention, of radar one relative orbit and "
        "polarization too, to compare"
    ),
}


def unfound_rows(work: CellWork, question: Question, context: Context) -> pa.Table:
    """The rows of a question for which the catalogue holds no observation (or, for a change, not two)."""
    import pyarrow as pa

    query = context.queries[question.query]
    message = f"{_UNFOUND[question.unfound]} of this ground"
    if question.unfound == "too_coarse":
        message = too_coarse(query, work.cell.grid.resolution_m) or _UNFOUND["too_coarse"]
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
    """The rows under the plan's names of the observations, which all cells of a pass share."""
    import pyarrow as pa

    names = question.observations
    columns: dict[str, list[Any]] = {"observation": [question.observation] * len(table)}
    if len(names) > 1:
        columns["dates"] = [
            [{**date, "observation": names[date["number"]]} for date in dates or ()]
            for dates in table["dates"].to_pylist()
        ]
    if question.passed_over:
        note = (
            f"{question.passed_over} further observations were not looked at: {len(names)} of one kind, at even steps"
        )
        columns["notes"] = [[*notes, note] for notes in table["notes"].to_pylist()]
    for name, values in columns.items():
        field = table.schema.get_field_index(name)
        table = table.set_column(field, table.schema.field(field), pa.array(values, table.schema.field(field).type))
    return table


def computed_by(committed: Committed, context: Context) -> int:
    """The execution of this job that computed a part; 0 where another job did."""
    if committed.fresh:
        return context.execution
    manifest = json.loads(context.store.read(f"{committed.path}/manifest.json"))
    return int(manifest["execution"]) if manifest["job"] == context.job else 0
