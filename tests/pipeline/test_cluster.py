"""A cluster of three nodes that loses one, or a worker, or its head: the map comes out as if nothing was.

The nodes are Ray's own, all on this machine; the command that maps is a process of its own, as a person starts it.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from earthmap.pipeline.cluster import _not_of_ray
from earthmap.pipeline.folder import FEATURES_PATH, LEDGER_PATH, RUN_PATH
from earthmap.synthetic import World, write_world
from tests.pipeline.commands import Command, command, wait_until, write_job
from tests.servers import free_port
from tests.worlds import wide_world

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

CPUS = 2
"""Of each node: what a lost node did must find room on another (Ray waits for ever where there is none)."""

FIRST = 5
"""Cells that are done when the accident happens, of three dozen."""


@pytest.fixture(scope="module")
def world() -> World:
    return wide_world(3)


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue of its scenes."""
    return write_world(world, tmp_path_factory.mktemp("wide"), sensors=("rgb",), columns=1)


def _job(folder: Path, world: World, catalog: Path) -> Path:
    return write_job(
        folder, world, catalog, out=str(folder / "run"), collections=["drawn-aerial"], resolution=10.0, scenes="latest"
    )


@pytest.fixture(scope="module")
def undisturbed(world: World, catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The features of a run that nothing happened to, on a cluster of one."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with command(str(_job(folder, world, catalog)), "--quiet") as running:
        status, _, err = running.finish()
    assert status == 0, err
    return (folder / "run" / FEATURES_PATH).read_bytes()


# ── three nodes ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Nodes:
    """A head and two more nodes."""

    cluster: Any
    address: str

    @property
    def others(self) -> list[Any]:
        """The nodes that are not the head, in no order."""
        return list(self.cluster.worker_nodes)

    def at_work(self, node: Any) -> list[int]:
        """Ids of the processes of `node` that work on a cell."""
        (raylet,) = node.all_processes["raylet"]
        return [pid for pid, name in _children(raylet.process.pid) if name.startswith("ray::Map")]


def _children(parent: int) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                yield int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace")


HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5_000,
    "health_check_failure_threshold": 2,
}
"""The head hears of a lost node after a second; by default that takes longer than these runs."""


@contextlib.contextmanager
def started_nodes(port: int, *, others: int = 2) -> Iterator[Nodes]:
    """A cluster of this machine whose head listens on `port`; nothing of it is left behind."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=CPUS, gcs_server_port=port, include_dashboard=False, _system_config=HEALTH)
        for _ in range(others):
            cluster.add_node(num_cpus=CPUS)
        yield Nodes(cluster, cluster.address)
    finally:
        cluster.shutdown()


@pytest.fixture(autouse=True)
def ray_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")


@pytest.fixture
def nodes(ray_settings: None) -> Iterator[Nodes]:
    """Three nodes for one test."""
    with started_nodes(free_port()) as started:
        yield started


# ── what the accidents leave ─────────────────────────────────────────────────────────────────────────────────


def _manifests(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("store/**/manifest.json")}


def _attempts(folder: Path, manifest: Path) -> int:
    """How often the result that `manifest` commits was attempted."""
    aim = manifest.parent.relative_to(folder / "run" / "store").as_posix()
    return len(list((folder / "run/store/attempts" / hashlib.sha256(aim.encode()).hexdigest()[:24]).iterdir()))


def _parts(folder: Path) -> int:
    return len(list((folder / "run" / "store" / "parts").glob("*/*/manifest.json")))


def _check_whole(folder: Path, undisturbed: bytes) -> dict[str, Any]:
    """Same bytes, and a ledger with one answered row for each planned tile; run.json."""
    import pandas as pd

    assert (folder / "run" / FEATURES_PATH).read_bytes() == undisturbed
    ledger = pd.read_parquet(io.BytesIO((folder / "run" / LEDGER_PATH).read_bytes()))
    summary = json.loads((folder / "run" / "summary.json").read_bytes())
    assert len(ledger) == summary["planned"] == summary["answered"] + sum(summary["skipped"].values())
    assert not ledger.duplicated(["tile_id", "query", "observation"]).any()
    record: dict[str, Any] = json.loads((folder / "run" / RUN_PATH).read_bytes())
    return record


def _in_the_middle(running: Command, folder: Path, moment: Callable[[], bool]) -> None:
    assert wait_until(lambda: _parts(folder) >= FIRST and moment(), running)


def test_a_lost_worker_and_a_lost_node_cost_nothing(
    nodes: Nodes, world: World, catalog: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    killed = list[int]()

    def kill() -> bool:
        for node in nodes.others:
            for pid in nodes.at_work(node):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        return bool(killed)

    first, second = tmp_path / "worker", tmp_path / "node"
    with command(str(_job(first, world, catalog)), "--cluster", nodes.address) as running:
        _in_the_middle(running, first, kill)
        status, out, err = running.finish()
    assert killed
    assert status == 0, err
    _check_whole(first, undisturbed)
    assert "lost" not in err, "the node is there"
    assert "Traceback" not in out + err

    with command(str(_job(second, world, catalog)), "--cluster", nodes.address) as running:
        _in_the_middle(running, second, lambda: any(nodes.at_work(node) for node in nodes.others))
        victim = max(nodes.others, key=lambda node: len(nodes.at_work(node)))
        assert nodes.at_work(victim)
        nodes.cluster.remove_node(victim, allow_graceful=False)
        status, out, err = running.finish()
    assert status == 0, err
    assert _check_whole(second, undisturbed)["execution"] == 1
    assert err.splitlines().count("a node was lost; its work is done again") == 1
    assert "Traceback" not in out + err


def test_after_a_lost_head_the_same_command_goes_on(
    ray_settings: None, world: World, catalog: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    job = str(_job(tmp_path, world, catalog))
    with started_nodes(free_port()) as nodes, command(job, "--cluster", nodes.address, "--quiet") as running:
        _in_the_middle(running, tmp_path, lambda: True)
        nodes.cluster.remove_node(nodes.cluster.head_node, allow_graceful=False)
        status, out, err = running.finish(timeout=150)  # Ray itself may wait a minute for its head
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "was lost in the middle of the run" in err
    committed = _manifests(tmp_path)
    attempts = {path: _attempts(tmp_path, path) for path in committed}
    assert _parts(tmp_path) >= FIRST
    with (
        started_nodes(free_port(), others=0) as nodes,
        command(job, "--cluster", nodes.address, "--quiet") as running,
    ):
        assert running.finish()[0] == 0
    record = _check_whole(tmp_path, undisturbed)
    assert record["execution"] == 2
    assert record["parts"]["reused"] + record["groups"]["reused"] == len(committed)
    assert {path: path.read_bytes() for path in committed} == committed
    assert {path: _attempts(tmp_path, path) for path in committed} == attempts, "computed again"


@pytest.mark.parametrize(("file", "told"), [("/lib/ray/data/iterator.py", 0), ("/lib/earthmap/mine.py", 1)])
def test_only_what_rays_generators_leave_behind_is_not_told(
    monkeypatch: pytest.MonkeyPatch, file: str, told: int
) -> None:
    heard: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", partial(_not_of_ray, lambda ignored: heard.append(ignored.exc_value)))
    names: dict[str, Any] = {}
    exec(compile("def rows():\n  try:\n    yield 1\n  finally:\n    raise OSError('gone')\n", file, "exec"), names)
    rows = names["rows"]()
    next(rows)
    del rows
    gc.collect()
    assert len(heard) == told
