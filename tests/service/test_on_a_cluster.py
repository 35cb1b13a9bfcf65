"""Runs of the service on a cluster of roles: readers read, predictors predict, and all leave through one proxy.

The nodes are Ray's own, all on this machine. Each says its name to the server of imagery in a header.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from earthmap.service.database import open_database
from earthmap.service.egress import egress_thread
from earthmap.service.egress_counts import EgressCounts
from earthmap.service.egress_gate import Gate
from earthmap.service.egress_rules import entry_of, make_rules
from earthmap.service.jobs import ProcessRunner, Standing
from earthmap.service.processes import Offer
from earthmap.service.state import JobStore
from earthmap.synthetic import World, small_world, write_world
from tests.pipeline.commands import MARK, end_marked
from tests.pipeline.test_vlm_job import checkpoint
from tests.servers import free_port
from tests.service.egress_servers import Origin, origin

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

SECRET = "s3cret-of-the-proxy"


@dataclass(frozen=True)
class Nodes:
    """A head without CPUs that names both roles, as in cluster.yaml, and a node of each."""

    address: str
    raylets: dict[str, int]
    """Process of each role's node."""

    def with_the_model(self) -> set[str]:
        """Roles whose nodes have a worker that has loaded torch."""
        return {role for role, raylet in self.raylets.items() if any(_has_torch(pid) for pid in _children(raylet))}


def _children(parent: int) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                yield int(folder.name)


def _has_torch(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text()
    return False


_CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
cluster = Cluster()
try:
    store = {"object_store_memory": 100 * 2**20}
    both = {"reader": 1, "predictor": 1}
    cluster.add_node(num_cpus=0, resources=both, gcs_server_port=int(sys.argv[1]), include_dashboard=False, **store)
    raylets = {}
    for role in ("reader", "predictor"):
        named = {"EARTHMAP_HEADERS": f"X-Node: {role}", "EARTHMAP_HEADER_HOSTS": "127.0.0.1"}
        gpus = float(role == "predictor")
        node = cluster.add_node(num_cpus=1, num_gpus=gpus, resources={role: 1}, env_vars=named, **store)
        raylets[role] = node.all_processes["raylet"][0].process.pid
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
finally:
    cluster.shutdown()
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """The cluster, with the token on; a process of its own, whatever this one did with Ray before."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", MARK: mark}
    command = [sys.executable, "-c", _CLUSTER, str(free_port())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield Nodes(**json.loads(process.stdout.readline()))
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=30)
        process.kill()
        end_marked(mark, patience=2.0)


@pytest.fixture(scope="module")
def world() -> World:
    """A valley of two kilometres."""
    return small_world(3, size_m=1800.0, cloud_share=0.0)


@pytest.fixture(scope="module")
def imagery() -> Iterator[Origin]:
    """The server of the files."""
    with origin() as server:
        yield server


@pytest.fixture(scope="module")
def catalogue(world: World, imagery: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the catalogue, on a server of its own, whose items name files of the other."""
    root = write_world(world, tmp_path_factory.mktemp("valley"), columns=1).parent
    with origin() as server:
        for path in (path for path in root.rglob("*") if path.is_file()):
            name = f"/{path.relative_to(root).as_posix()}"
            if path.suffix != ".json":
                imagery.files[name] = path.read_bytes()
                continue
            document = json.loads(path.read_text())
            for asset in document.get("assets", {}).values():
                where = (path.parent / asset["href"]).resolve().relative_to(root.resolve())
                asset["href"] = f"http://127.0.0.1:{imagery.port}/{where.as_posix()}"
            server.files[name] = json.dumps(document).encode()
        yield f"http://127.0.0.1:{server.port}/catalog.json"


@dataclass
class Ran:
    """What became of a job."""

    standing: Standing
    counts: EgressCounts
    with_the_model: set[str]
    summary: dict[str, Any]


def run(inputs: dict[str, Any], offer: Offer, nodes: Nodes, *, allowed: list[str], folder: Path) -> Ran:
    """A job of the service on the cluster, its addresses leaving through a proxy that lets only `allowed` pass."""
    database = open_database(folder / "state.sqlite")
    job = JobStore(database).submit("map", inputs, owner="ada")
    database.close()
    assert job is not None
    seen: set[str] = set()
    with egress_thread(make_rules([entry_of(one) for one in allowed]), gate=Gate(secret=SECRET)) as egress:
        runner = ProcessRunner(
            root=str(folder / "runs"), offer=offer, cluster=lambda: nodes.address, environment=egress.environment()
        )
        runner.start(job)
        try:
            end = time.monotonic() + 180
            while not (standing := runner.progress(job.id)).is_done:
                assert time.monotonic() < end
                seen |= nodes.with_the_model()
                time.sleep(0.1)
        finally:
            runner.dismiss(job.id)
    written = folder / "runs" / job.id / "summary.json"
    return Ran(standing, egress.counts, seen, json.loads(written.read_text()) if written.exists() else {})


def inputs_of(world: World, **changes: Any) -> dict[str, Any]:
    """A small question about the whole valley."""
    area = json.loads(json.dumps(world.area.to_geojson()))
    asked = {"area": area, "sensor": "sentinel-2-l2a", "queries": ["Is there any water?"], "tile_size": 128}
    return {**asked, "datetime": "2024", "scenes": "latest", **changes}


def test_readers_read_through_the_proxy_and_predictors_predict(
    nodes: Nodes, world: World, catalogue: str, imagery: Origin, tmp_path: Path
) -> None:
    offer = Offer(catalogs={"valley": catalogue}, models={"tiny": str(checkpoint(tmp_path / "model"))})
    asked = inputs_of(world, predictor="vlm", model="tiny")
    address = f"http://127.0.0.1:{imagery.port}"
    before = imagery.connections
    ran = run(asked, offer, nodes, allowed=[catalogue, address], folder=tmp_path)
    assert ran.standing.result is not None, ran.standing
    assert ran.summary["answered"] > 0
    assert not ran.summary["failed"]
    assert {headers.get("x-node") for _, _, headers in imagery.heads} == {"reader"}
    assert ran.with_the_model == {"predictor"}
    assert ran.counts.refused == {}
    assert 0 < imagery.connections - before < ran.counts.allowed


def test_what_is_not_allowed_is_refused_to_readers_too(
    nodes: Nodes, world: World, catalogue: str, imagery: Origin, tmp_path: Path
) -> None:
    """The catalogue is open, the files that it names are not: they stand on a private number."""
    before = imagery.connections
    offer = Offer(catalogs={"valley": catalogue})
    ran = run(inputs_of(world, predictor="spectral"), offer, nodes, allowed=[catalogue], folder=tmp_path)
    assert imagery.connections == before
    assert ran.counts.refused.keys() == {"plain_http"}
    told = json.dumps(ran.summary) + str(ran.standing)
    assert re.search("forbidden_address|the egress proxy refuses", told), told
    assert SECRET not in told
