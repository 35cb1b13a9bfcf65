"""Commands that are ended without warning, at every kind of moment: started again, they finish as if nothing was.

Every command is a process of its own that gets SIGKILL. What it left is looked at from outside: files of the store
(or keys of the bucket), and the processes that carry its mark.
"""

from __future__ import annotations

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

from earthmap.pipeline.folder import FEATURES_PATH, LEDGER_PATH, RUN_PATH
from earthmap.storage import Storage
from earthmap.synthetic import World
from tests.pipeline.commands import Command, command, wait_until, write_job
from tests.servers import S3Server, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

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
    found = set()
    for top, _, files in os.walk(folder):
        inside = os.path.relpath(top, folder)
        found.update(f"{inside}/{name}".removeprefix("./") for name in files)
    return found


def _uncommitted(paths: set[str], kind: str) -> set[str]:
    """The folders of cube groups or answer parts that have some object and no manifest."""
    depth = {"cube": None, "parts": 3}[kind]
    inside = [path.removeprefix("store/") for path in paths if path.startswith(f"store/{kind}/")]
    committed = {path.removesuffix("/manifest.json") for path in inside if path.endswith("/manifest.json")}
    return {
        path
        for path in inside
        if not any(path.startswith(f"{done}/") for done in committed) and (depth is None or path.count("/") >= depth)
    }


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

    def kill(self, moment: Callable[[set[str]], bool], *, every: float = 0.001) -> bool:
        """Run until `moment` sees what it waits for, then kill; False when the command ended before that."""
        with command(str(self.job), "--quiet", env=self.env) as running:
            landed = wait_until(lambda: moment(self.paths()), running, every=every)
            self._end(running)
        return landed

    def kill_after(self, seconds: float) -> None:
        """Run for `seconds`, then kill."""
        with command(str(self.job), "--quiet", env=self.env) as running:
            until = time.monotonic() + seconds
            wait_until(lambda: time.monotonic() > until, running, every=0.01)
            self._end(running)

    def _end(self, running: Command) -> None:
        assert running.kill() == {}, "processes outlived the command that started them"
        self.kills += 1
        attempts = _attempts(self.storage)
        for path, content in _manifests(self.storage).items():
            assert self.committed.setdefault(path, content) == content
            self.by_execution.setdefault(path, self.kills)
            aim = path.removeprefix("store/").removesuffix("/manifest.json")
            assert self.attempts.setdefault(aim, attempts[aim]) == attempts[aim], "computed again"

    def finish(self) -> dict[str, Any]:
        """Run to the end, and hold everything to what it must be; returns run.json."""
        with command(str(self.job), "--quiet", env=self.env) as running:
            status, out, err = running.finish()
        assert (status, out, err) == (0, "", "")
        assert self.storage.read(FEATURES_PATH) == self.undisturbed.features
        now, attempts = _manifests(self.storage), _attempts(self.storage)
        assert {path: now.get(path) for path in self.committed} == self.committed
        assert {aim: attempts[aim] for aim in self.attempts} == self.attempts
        record: dict[str, Any] = json.loads(self.storage.read(RUN_PATH))
        parts = [path for path in self.committed if path.startswith("store/parts/")]
        assert record["execution"] == self.kills + 1
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
def disturbed(
    drawn_world: World, drawn_catalog: Path, undisturbed: Undisturbed, tmp_path: Path
) -> Disturbed:
    """A run folder that nobody has written yet."""
    out = tmp_path / "run"
    job = write_job(tmp_path, drawn_world, drawn_catalog, out=str(out))
    return Disturbed(Storage(out), job, undisturbed, lambda: _local_paths(out))


# ── the driver is killed ─────────────────────────────────────────────────────────────────────────────────────


class _Fresh:
    """Sees a committed result of `kind` that was not there at its first look."""

    def __init__(self, kind: str) -> None:
        self.kind, self.before = kind, None if kind else None

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
    landed = [disturbed.kill(moment) for moment in moments]
    assert landed[:3] == [True, True, True]
    disturbed.finish()


def test_killed_while_it_publishes(disturbed: Disturbed) -> None:
    assert disturbed.kill(lambda paths: FEATURES_PATH in paths)
    assert not disturbed.storage.exists(RUN_PATH)
    record = disturbed.finish()
    assert record["groups"]["read"] == record["parts"]["computed"] == 0


def test_killed_at_random(disturbed: Disturbed) -> None:
    draw = random.Random(20)
    for _ in range(3):
        disturbed.kill_after(draw.uniform(1.0, 12.0))
    disturbed.finish()
