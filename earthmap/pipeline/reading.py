"""Reading what the questions of a cell look at: what failed, what that decides, and what stands in for it.

A group without failures is addressed by its content alone and shared by all runs. One with failures carries the
execution that made it in its address, so that the next execution tries again what failed and nothing else; what
several executions found damaged in the same way is settled, and addressed by its content as well (docs/decisions/0006).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

from earthmap.catalog import narrow
from earthmap.catalog.signing import BLOBS, INSTALL
from earthmap.cube import (
    Budget,
    CellManifest,
    CellPixels,
    CellRead,
    PatientReader,
    Reader,
    Spent,
    TileFailure,
    TilePixels,
    assemble,
    compose,
    find_cell,
    open_cell,
    read_cell,
    read_tile,
    write_cell,
)
from earthmap.cube.failures import Cause, Decision, decision_of, note_read, place_of, was_read
from earthmap.errors import CredentialsError, ReadError, StorageError
from earthmap.grid import owned_ground
from earthmap.pipeline.context import TRIES, Committed, Context, failed_path, reason_and_message, record_attempt
from earthmap.pipeline.isolation import isolated
from earthmap.pipeline.plan import CellWork, Question, cell_reads

READ_THREADS = 8
"""Bands of one cell read at the same time: far away a third faster than 4, on the same processor time (bench_read)."""

SETTLED_AFTER = 3
"""Executions that must find the same lasting failure before a tile is skipped and not tried again."""


# ── one cell and observation ─────────────────────────────────────────────────────────────────────────────────


def read_stage(read: CellRead, context: Context) -> Committed:
    """The cell's group in the cube, read now or before.

    Raises:
        CredentialsError: when a provider lets nothing be read.
        StorageError: when the cube cannot be written; nothing can go on then.
    """
    for path in (read.path, failed_path(read.path, context.execution)):
        if find_cell(context.store, path) is not None:
            return Committed(path=path, fresh=False)
    if read.observation.members:
        return _composed(read, context)
    budget = Budget(context.patience, spent_in(context))
    if record_attempt(context.store, read.path) <= TRIES:
        pixels = _read_whole(read, PatientReader(reader=context.reader, budget=budget))
    else:
        pixels = _read_tiles(read, context.reader, partial(isolated, limits=context.limits))
    failures = _settled(read, _ruled(read, pixels.failures, context), context)
    clean = all(failure.settled for failure in failures)
    path = read.path if clean else failed_path(read.path, context.execution)
    write_cell(context.store, read, dataclasses.replace(pixels, failures=failures), path=path)
    return Committed(path=path, fresh=True, waited_s=budget.seconds, waited_for=budget.place)


def _composed(read: CellRead, context: Context) -> Committed:
    members = [read_stage(part, context) for part in read.members]
    pixels = compose(read, [open_cell(context.store, member.path) for member in members])
    path = read.path if not pixels.failures else failed_path(read.path, context.execution)
    write_cell(context.store, read, pixels, path=path)
    waited = max(members, key=lambda member: member.waited_s)
    return Committed(path=path, fresh=True, waited_s=waited.waited_s, waited_for=waited.waited_for)


_SPENT: dict[tuple[str, int], Spent] = {}


def spent_in(context: Context) -> Spent:
    """What this process has waited in this execution so far."""
    return _SPENT.setdefault((context.job, context.execution), Spent())


def _read_whole(read: CellRead, reader: Reader) -> CellPixels:
    try:
        with ThreadPoolExecutor(READ_THREADS) as pool:
            return read_cell(reader, read, pool=pool)
    except StorageError:
        raise
    except Exception:  # noqa: BLE001 - the boundary of the tile: what broke the cell is found tile by tile
        return _read_tiles(read, reader, _here)


def _here(work: Callable[[], Any]) -> Any:
    return work()


def _read_tiles(read: CellRead, reader: Reader, run: Callable[[Callable[[], Any]], Any]) -> CellPixels:
    done: list[TilePixels] = []
    failures: list[TileFailure] = []
    for tile in read.cell.tiles():
        try:
            done.append(run(partial(read_tile, reader, read, tile)))
        except Exception as error:  # noqa: BLE001 - the boundary of the tile
            reason, message = reason_and_message(error)
            address = error.address if isinstance(error, ReadError) else None
            failures.append(TileFailure(tile_id=tile.id, stage="read", reason=reason, message=message, address=address))
    if done:  # in a process of its own, which this one did not see reading
        for place in _places(read):
            note_read(place)
    return assemble(read, done, failures)


# ── what failures decide ─────────────────────────────────────────────────────────────────────────────────────


def _places(read: CellRead) -> set[str]:
    return {place_of(source.href) for scene in read.observation.scenes for source in scene.sources}


def _ruled(read: CellRead, failures: Sequence[TileFailure], context: Context) -> tuple[TileFailure, ...]:
    """`failures`, those for want of permission ruled on by all that is known now: anything read from the same place,
    by this process or another of this execution, means that the credentials are good and the file is the provider's.

    Raises:
        CredentialsError: where nothing was.
    """
    for place in _places(read):
        if was_read(place) and place != "file":
            _tell(place, context)
    return tuple(_rule(failure, context) for failure in failures)


def _rule(failure: TileFailure, context: Context) -> TileFailure:
    if decision_of(failure.reason) is not Decision.STOP:
        return failure
    address = failure.address or ""
    if failure.reason == Cause.CREDENTIALS and _accessible(address, context):
        return dataclasses.replace(failure, reason=Cause.DENIED.value)
    raise CredentialsError(
        f"{place_of(address)} lets nothing be read: {failure.message}", fix=_credentials_fix(place_of(address))
    )


_TOLD: set[str] = set()


def _mark(place: str, context: Context) -> str:
    return f"access/{context.job}/{context.execution}/{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def _tell(place: str, context: Context) -> None:
    """Let the other processes of this execution know that something was read from `place`."""
    mark = _mark(place, context)
    if mark not in _TOLD:
        context.store.create(mark, place.encode())
        _TOLD.add(mark)


def _accessible(address: str, context: Context) -> bool:
    return was_read(address) or context.store.exists(_mark(place_of(address), context))


def _credentials_fix(place: str) -> str:
    if place.startswith("s3://"):
        return (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE); AWS_NO_SIGN_REQUEST=YES for a public "
            "bucket, AWS_REQUEST_PAYER=requester for one whose readers pay; then run the same command again"
        )
    if place == "file":
        return "give this user permission to read the files, and run the same command again"
    if place.endswith(BLOBS):
        return f"{INSTALL}, or set PC_SDK_SUBSCRIPTION_KEY; then run the same command again"
    host = place.partition("://")[2]
    return f"set EARTHMAP_TOKEN and EARTHMAP_HEADER_HOSTS={host} (docs/connection.md), and run the same command again"


def _settled(read: CellRead, failures: Sequence[TileFailure], context: Context) -> tuple[TileFailure, ...]:
    """`failures`, those that earlier executions found for a lasting cause too marked as settled."""
    if not any(failure.lasting for failure in failures):
        return tuple(failures)
    earlier = list(islice(_earlier(read, context), SETTLED_AFTER - 1))
    if len(earlier) < SETTLED_AFTER - 1:
        return tuple(failures)
    lost = set.intersection(*map(lasting_tiles, earlier))
    return tuple(
        dataclasses.replace(
            failure, settled=True, message=f"{failure.message} (found by {SETTLED_AFTER} executions, not tried again)"
        )
        if failure.lasting and failure.tile_id in lost
        else failure
        for failure in failures
    )


def _earlier(read: CellRead, context: Context) -> Iterator[CellManifest]:
    """What earlier executions left with failures, the latest first."""
    for execution in range(context.execution - 1, 0, -1):
        manifest = find_cell(context.store, failed_path(read.path, execution))
        if manifest is not None:
            yield manifest


# ── what stands in ───────────────────────────────────────────────────────────────────────────────────────────


def lasting_tiles(manifest: CellManifest) -> set[str]:
    """Tiles without pixels in the group, for causes that will not pass."""
    return {failure.tile_id for failure in manifest.failures if failure.lasting}


def looked_at(
    question: Question, manifest_of: Callable[[str], CellManifest | None]
) -> tuple[tuple[str, ...], ...]:  # fmt: skip
    """For each date of `question` its observation, and then of that date's fallbacks as many as it takes until no tile
    of the cell lacks pixels for a lasting cause or has none but suspect ones. The whole cell counts, so that the area
    of a job decides nothing.

    `manifest_of` gives the group of an observation; None where that shows nothing of the cell.
    """
    fallbacks = (question.fallbacks, question.later_fallbacks)
    return tuple(
        _with_fallbacks(name, fallbacks[date] if date < len(fallbacks) else (), manifest_of)
        for date, name in enumerate(question.observations)
    )


def _with_fallbacks(
    name: str, fallbacks: Sequence[str], manifest_of: Callable[[str], CellManifest | None]
) -> tuple[str, ...]:  # fmt: skip
    names = [name]
    first = manifest_of(name) if fallbacks else None
    lost, suspect = (lasting_tiles(first), first.is_suspect) if first else (set(), False)
    for other in fallbacks:
        if not lost and not suspect:
            break
        manifest = manifest_of(other)
        if manifest is not None:
            names.append(other)
            lost &= lasting_tiles(manifest)
            suspect = suspect and manifest.is_suspect
    return tuple(names)


def read_work(work: CellWork, context: Context) -> dict[str, Committed]:
    """The groups of all that the cell's questions look at, by the plan's name of the observation.

    Raises:
        CredentialsError: when a provider lets nothing be read.
        StorageError: when the cube cannot be written.
    """
    done = {name: read_stage(read, context) for name, read in cell_reads(work, context.observations).items()}

    def manifest_of(name: str) -> CellManifest | None:
        if name not in done:
            own = narrow(context.observations[name], owned_ground(work.cell))
            if own is None:
                return None
            done[name] = read_stage(CellRead.of(work.cell, own), context)
        return open_cell(context.store, done[name].path).manifest

    for question in work.questions:
        looked_at(question, manifest_of)
    return done


def manifests(groups: Mapping[str, str], context: Context) -> Callable[[str], CellManifest | None]:
    """The manifest behind each name of `groups` (paths in the cube); None for a name that was not read."""
    found: dict[str, CellManifest | None] = {}

    def manifest_of(name: str) -> CellManifest | None:
        if name not in found:
            found[name] = open_cell(context.store, groups[name]).manifest if name in groups else None
        return found[name]

    return manifest_of
