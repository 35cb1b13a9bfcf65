"""Commands that are ended without warning, at every kind of moment: started again, they finish as if nothing was.

Every command is a process of its own that gets SIGKILL. What it left is looked at from outside: files of the store
(or keys of the bucket), and the processes that carry its mark.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import shapely

from earthmap.cube import RasterioReader
from earthmap.grid import AreaOfInterest
from earthmap.pipeline import make_plan, read_job, run_job
from earthmap.pipeline.context import Context
from earthmap.pipeline.folder import FEATURES_PATH, ITEM_PATH, LEDGER_PATH, RUN_PATH
from earthmap.pipeline.plan import cell_reads
from earthmap.pipeline.reading import read_stage
from earthmap.pipeline.run import predictor_spec
from earthmap.pipeline.stages import predict_stage
from earthmap.storage import Storage
from earthmap.synthetic import World
from tests.pipeline.commands import Command, command, wait_until, write_job
from tests.servers import S3Server, s3_server

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

Paths = Callable[[], set[str]]


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody ended."""

    folder: Path
    features: bytes
    out: str
    err: str


@pytest.fixture(scope="module")
def undisturbed(drawn_world: World, drawn_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The map as it should come out, and all that the command said."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = write_job(folder, drawn_world, drawn_catalog, out=str(folder / "run"))
    with command(str(job)) as running:
        status, out, err = running.finish()
    assert status == 0, err
    return Undisturbed(folder / "run", (folder / "run" / FEATURES_PATH).read_bytes(), out, err)


# ── what stands in a run folder ──────────────────────────────────────────────────────────────────────────────


def _local_paths(folder: Path) -> set[str]:
    found = set[str]()
    for top, _, files in os.walk(folder):
        inside = os.path.relpath(top, folder)
        found.update(f"{inside}/{name}".removeprefix("./") for name in files)
    return found


def _uncommitted(paths: set[str], kind: str) -> set[str]:
    """The objects of cube groups or answer parts that no manifest commits."""
    inside = {path for path in paths if path.startswith(f"store/{kind}/")}
    committed = {path.rpartition("/")[0] for path in inside if path.endswith("/manifest.json")}
    return {path for path in inside if not any(path.startswith(f"{done}/") for done in committed)}


def _manifests(storage: Storage) -> dict[str, bytes]:
    return {path: storage.read(path) for path in storage.list("store") if path.endswith("/manifest.json")}


def _attempts(storage: Storage) -> dict[str, int]:
    """How often each result of the store was attempted."""
    count: dict[str, int] = {}
    for path in storage.list("store/attempts"):
        if "#" not in path:
            aim = storage.read(path).decode()
            count[aim] = count.get(aim, 0) + 1
    return count


@dataclass
class Disturbed:
    """A run folder whose commands are killed, and what was seen to be committed after each kill."""

    storage: Storage
    job: Path
    undisturbed: Undisturbed
    paths: Paths
    env: dict[str, str] = field(default_factory=dict)
    kills: int = 0
    committed: dict[str, bytes] = field(default_factory=dict)
    by_execution: dict[str, int] = field(default_factory=dict)
    """Manifests by the kill after which they were first seen."""
    attempts: dict[str, int] = field(default_factory=dict)
    """Attempts at each committed result when it was first seen to be."""

    def kill(self, moment: Callable[[set[str]], bool]) -> bool:
        """Run until `moment` sees what it waits for, then kill; False when the command ended before that."""
        with command(str(self.job), "--quiet", env=self.env) as running:
            landed = wait_until(lambda: moment(self.paths()), running)
            self._end(running)
        return landed

    def kill_after(self, seconds: float) -> None:
        """Run for `seconds`, then kill."""
        with command(str(self.job), "--quiet", env=self.env) as running:
            until = time.monotonic() + seconds
            wait_until(lambda: time.monotonic() > until, running)
            self._end(running)

    def _end(self, running: Command) -> None:
        assert running.kill() == {}, "processes outlived the command that started them"
        self.record()

    def groups_left(self) -> set[str]:
        """The manifests of cube groups that an undisturbed run commits and this one has not yet."""
        aims = {path for path in _local_paths(self.undisturbed.folder) if path.endswith("/manifest.json")}
        return {path for path in aims - self.paths() if path.startswith("store/cube/")}

    def record(self) -> None:
        """Remember what stands after one more command ended."""
        self.kills += 1
        attempts = _attempts(self.storage)
        for path, content in _manifests(self.storage).items():
            assert self.committed.setdefault(path, content) == content
            self.by_execution.setdefault(path, self.kills)
            aim = path.removeprefix("store/").removesuffix("/manifest.json")
            assert self.attempts.setdefault(aim, attempts[aim]) == attempts[aim], "computed again"

    def finish(self, *, here: bool = True) -> dict[str, Any]:
        """Run to the end, here or by one more command, and hold everything to what it must be; returns run.json."""
        held = sum(path.endswith(".json") for path in self.storage.list("lease"))
        if here:
            run_job(read_job(str(self.job)))
        else:
            with command(str(self.job), "--quiet", env=self.env) as running:
                assert running.finish() == (0, "", "")
        assert self.storage.read(FEATURES_PATH) == self.undisturbed.features
        assert not [path for path in self.storage.list() if "merged" in path], "what only publishing needs was left"
        now, attempts = _manifests(self.storage), _attempts(self.storage)
        assert {path: now.get(path) for path in self.committed} == self.committed
        assert {aim: attempts[aim] for aim in self.attempts} == self.attempts
        record: dict[str, Any] = json.loads(self.storage.read(RUN_PATH))
        parts = [path for path in self.committed if path.startswith("store/parts/")]
        assert record["execution"] == held + 1
        assert held <= self.kills, "one killed before it held the folder was no execution"
        assert record["parts"]["reused"] == len(parts)
        assert record["groups"]["reused"] == len(self.committed) - len(parts)
        self._check_ledger(parts)
        return record

    def _check_ledger(self, parts: list[str]) -> None:
        import pandas as pd

        ledger = pd.read_parquet(io.BytesIO(self.storage.read(LEDGER_PATH)))
        by_part = ledger.groupby("part").execution.unique()
        for path in parts:
            part = path.removeprefix("store/").removesuffix("/manifest.json")
            (execution,) = by_part[part]
            assert execution == json.loads(self.committed[path])["execution"] <= self.by_execution[path]


@pytest.fixture
def disturbed(drawn_world: World, drawn_catalog: Path, undisturbed: Undisturbed, tmp_path: Path) -> Disturbed:
    """A run folder that nobody has written yet."""
    out = tmp_path / "run"
    job = write_job(tmp_path, drawn_world, drawn_catalog, out=str(out))
    return Disturbed(Storage(out), job, undisturbed, lambda: _local_paths(out))


# ── the driver is killed ─────────────────────────────────────────────────────────────────────────────────────


class _Fresh:
    """Sees a committed result of `kind` that was not there at its first look."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.before: set[str] | None = None

    def __call__(self, paths: set[str]) -> bool:
        now = {path for path in paths if path.startswith(f"store/{self.kind}/") and path.endswith("/manifest.json")}
        if self.before is None:
            self.before = now
        return bool(now - self.before)


class _Begun:
    """Sees a result of `kind` that is being written: objects that were not there at its first look, no manifest."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.before: set[str] | None = None

    def __call__(self, paths: set[str]) -> bool:
        now = _uncommitted(paths, self.kind)
        if self.before is None:
            self.before = now
        return bool(now - self.before)


def test_killed_while_it_computes(disturbed: Disturbed) -> None:
    moments: list[Callable[[set[str]], bool]] = [
        lambda paths: "plan.parquet" in paths,
        _Begun("cube"),
        _Fresh("cube"),
        _Begun("parts"),
        _Fresh("parts"),
    ]
    landed, left = [], []
    for moment in moments:
        left.append(len(disturbed.groups_left()))
        landed.append(disturbed.kill(moment))
    assert landed[:2] == [True, True]
    # Cells are read beside one another: the kill that meets the first may come when the last is committed too.
    assert landed[2] or not left[2], "groups were left to read, and no kill met one"
    disturbed.finish()


def _merged(paths: set[str]) -> int:
    """How many cells wait to be published."""
    return sum(path.startswith("store/merged/") for path in paths)


def test_killed_while_it_publishes(disturbed: Disturbed) -> None:
    """All is computed; only what is published is missing."""
    shutil.copytree(disturbed.undisturbed.folder / "store", Path(disturbed.storage.address) / "store")
    assert disturbed.kill(lambda paths: _merged(paths) > 0)
    assert disturbed.kill(lambda paths: FEATURES_PATH in paths)
    assert _merged(disturbed.paths()) > 0
    assert disturbed.kill(lambda paths: ITEM_PATH in paths)  # pages are drawn then, which a watcher can see
    assert not disturbed.storage.exists(RUN_PATH)
    record = disturbed.finish(here=False)
    assert record["groups"]["read"] == record["parts"]["computed"] == 0


def test_killed_at_random(disturbed: Disturbed) -> None:
    draw = random.Random(20)
    for _ in range(3):
        disturbed.kill_after(draw.uniform(1.0, 12.0))
    disturbed.finish()


def test_data_without_manifests_is_written_again(disturbed: Disturbed) -> None:
    """Between data and manifest, and in the middle of a shard, made by hand: no watcher is fast enough to be sure."""
    shutil.copytree(disturbed.undisturbed.folder, disturbed.storage.address)
    folder = Path(disturbed.storage.address)
    for name in ("job.json", RUN_PATH, FEATURES_PATH):
        (folder / name).unlink()
    shutil.rmtree(folder / "lease")
    for kind in ("cube", "parts"):
        manifest = sorted((folder / "store" / kind).rglob("manifest.json"))[0]
        for data in (path for path in manifest.parent.rglob("*") if path.is_file() and path != manifest):
            data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
        manifest.unlink()
    run_job(read_job(str(disturbed.job)))
    assert disturbed.storage.read(FEATURES_PATH) == disturbed.undisturbed.features
    record = json.loads(disturbed.storage.read(RUN_PATH))
    assert (record["groups"]["read"], record["parts"]["computed"]) == (1, 1)


def test_killed_while_it_writes_to_s3(
    drawn_world: World, drawn_catalog: Path, undisturbed: Undisturbed, s3: S3Server, tmp_path: Path
) -> None:
    address = f"{s3.address}/{tmp_path.name}"
    job = write_job(tmp_path, drawn_world, drawn_catalog, out=address)
    storage = Storage(address)
    disturbed = Disturbed(storage, job, undisturbed, lambda: set(storage.list()), env=dict(s3.env))
    assert disturbed.kill(_Begun("cube"))
    assert not storage.exists(FEATURES_PATH)
    assert disturbed.kill(lambda paths: FEATURES_PATH in paths)
    disturbed.finish(here=False)
    # Between data and manifest of a part, by hand: on S3 that state is over before a watcher sees it for sure.
    part = next(path for path in storage.list("store/parts") if path.endswith("/manifest.json"))
    storage.delete(part)
    with command(str(job), "--quiet", env=dict(s3.env)) as running:
        assert running.finish() == (0, "", "")
    assert storage.exists(part)
    assert storage.read(FEATURES_PATH) == undisturbed.features
    assert json.loads(storage.read(RUN_PATH))["parts"]["computed"] == 1


@pytest.fixture
def s3(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Moto's server, which this process and the commands find by the usual variables."""
    with s3_server(tmp_path_factory.mktemp("moto")) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.parametrize("resolution", [10.0, 14.0], ids=["as it is", "warped"])
def test_the_third_attempt_reads_and_asks_tile_by_tile_with_the_same_bytes(
    drawn_world: World, drawn_catalog: Path, tmp_path: Path, resolution: float
) -> None:
    west, south, east, north = drawn_world.bounds
    strip = shapely.box(west + 600, (south + north) / 2 - 300, east - 600, (south + north) / 2 + 300)
    area = AreaOfInterest.from_geometry(strip, f"EPSG:{drawn_world.epsg}").to_geojson()
    changes = {"resolution": resolution, "area": area}
    job = read_job(str(write_job(tmp_path, drawn_world, drawn_catalog, out=str(tmp_path), **changes)))
    plan = make_plan(job)
    work = next(plan.work())
    work = dataclasses.replace(work, questions=work.questions[:1])
    stores = {name: Storage(tmp_path / name) for name in ("first", "third")}
    written = {}
    for name, store in stores.items():
        context = Context(
            store=store,
            execution=1,
            job=job.content_key(),
            area=job.area,
            queries={query.content_key(): query for query in job.queries},
            observations=plan.observations,
            predictor=predictor_spec(job, plan),
            reader=RasterioReader(),
        )
        for path in [path for path in stores["first"].list() if "attempts/" in path and name == "third"]:
            aim = stores["first"].read(path)
            for number in (1, 2):
                store.create(f"{path.rpartition('/')[0]}/{number:04d}", aim)
        reads = {key: read_stage(read, context).path for key, read in cell_reads(work, plan.observations).items()}
        predict_stage(work, reads, context)
        written[name] = {
            path: store.read(path) for path in store.list() if not path.startswith(("attempts/", "lease/"))
        }
    assert written["third"] == written["first"]
    assert {path.rpartition("/")[2] for path in stores["third"].list("attempts")} == {"0001", "0002", "0003"}


# ── a worker is killed ───────────────────────────────────────────────────────────────────────────────────────


def _working(running: Command) -> list[int]:
    """Ids of Ray's workers that are at work on a cell."""
    return [pid for pid, line in running.processes().items() if line.startswith("ray::Map")]


def test_a_killed_worker_costs_nothing(disturbed: Disturbed) -> None:
    """Ray does its work again, and what it says about that stays off the terminal."""
    with command(str(disturbed.job), env=disturbed.env) as running:
        assert wait_until(lambda: bool(_uncommitted(disturbed.paths(), "cube")), running)
        workers = _working(running)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        status, out, err = running.finish()
    assert workers
    assert status == 0, err
    assert disturbed.storage.read(FEATURES_PATH) == disturbed.undisturbed.features
    assert max(_attempts(disturbed.storage).values()) > 1
    assert not _noise(out + err)


# ── the keyboard, the terminal, and two at once ──────────────────────────────────────────────────────────────


def _noise(said: str) -> list[str]:
    """Lines that are Ray's and not ours."""
    signs = ("(raylet)", "INFO", "WARNING", "ray::", "Traceback", "pid=")
    return [line for line in said.splitlines() if any(sign in line for sign in signs)]


def test_the_terminal_is_quiet(undisturbed: Undisturbed) -> None:
    assert not _noise(undisturbed.out + undisturbed.err)
    assert "Where is water?" in undisturbed.out
    assert undisturbed.out.splitlines()[-1].endswith("report.html")


def test_stopped_from_the_keyboard_and_held_by_one(disturbed: Disturbed) -> None:
    with command(str(disturbed.job), "--quiet") as running:
        assert wait_until(lambda: bool(_uncommitted(disturbed.paths(), "cube")), running)
        running.running.send_signal(signal.SIGSTOP)  # however long the second one takes to begin, the first is there
        with command(str(disturbed.job), "--quiet") as second:
            status, out, err = second.finish()
        running.running.send_signal(signal.SIGCONT)
        assert (status, out) == (2, "")
        assert "is being written by another run" in err
        assert len(err.splitlines()) == 1
        started = time.monotonic()
        running.running.send_signal(signal.SIGINT)
        status, out, err = running.finish()
        assert time.monotonic() - started < 15
    assert (status, out) == (130, "")
    assert err == "earthmap: stopped; what is done is kept, and the same command goes on from there\n"
    assert running.processes() == {}
    disturbed.record()
    disturbed.finish()
