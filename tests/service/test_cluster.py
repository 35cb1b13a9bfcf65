"""The cluster of the service: kept by a process that is started when needed and again when lost, and ends with it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from earthmap.errors import ClusterError
from earthmap.service import cluster as cluster_module
from earthmap.service.cluster import KEEPER, ServiceCluster
from earthmap.service.database import open_database
from earthmap.service.jobs import WAITS, Foreman, ProcessRunner
from earthmap.service.processes import Offer
from earthmap.service.replicas import ReplicaOptions, spec_of
from earthmap.service.state import JobStore, Status
from tests.service.programs import MAPS, program

INPUTS = {"area": [4.0, 45.0, 4.1, 45.1], "queries": ["Where is water?"]}


def keeper(*body: str) -> tuple[str, ...]:
    """A program that keeps no cluster, and tells `body`."""
    head = (
        "import json, os, sys\nwork = json.loads(sys.stdin.readline())\ndef tell(**l): print(json.dumps(l), flush=True)"
    )
    return (sys.executable, "-c", "\n".join([head, *body, "sys.stdin.read()"]))


UP = keeper("tell(cluster=f'127.0.0.1:{os.getpid()}', asked=work)")


def made(command: Sequence[str], *, given: str | None = None) -> ServiceCluster:
    models = {"spectral": spec_of("spectral")}
    return ServiceCluster(models=models, options=ReplicaOptions(most=2, gpus=0.5), given=given, command=command)


def pid_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_is_started_once_again_when_lost_and_ends_with_the_service() -> None:
    cluster = made(UP)
    first = cluster.address()
    assert cluster.address() == first
    os.kill(pid_of(first), signal.SIGKILL)
    while cluster._keeper is not None and cluster._keeper.poll() is None:
        time.sleep(0.01)
    second = cluster.address()
    assert second != first
    cluster.close()
    cluster.close()
    assert not is_alive(pid_of(second))


def test_what_it_is_to_keep_is_told_to_the_keeper(tmp_path: Path) -> None:
    file = tmp_path / "told"
    cluster = made(
        keeper(f"open({str(file)!r}, 'w').write(json.dumps([work, os.environ['RAY_AUTH_MODE']]))", "tell(cluster='a')"),
        given="head:6379",
    )
    assert cluster.address() == "a"
    cluster.close()
    work, mode = json.loads(file.read_text())
    assert mode == "token"
    assert work["cluster"] == "head:6379"
    assert work["models"] == {"spectral": {"name": "spectral"}}
    assert ReplicaOptions(**work["options"]) == ReplicaOptions(most=2, gpus=0.5)


def test_without_a_cluster_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match="no cluster at head"):
        made(keeper("tell(fault='no cluster at head')")).address()
    with pytest.raises(ClusterError, match="not up within"):
        made((sys.executable, "-c", "print('what a library prints')")).address()
    monkeypatch.setattr(cluster_module, "START_S", 0.2)
    monkeypatch.setattr(cluster_module, "END_S", 0.2)
    with pytest.raises(ClusterError, match="not up within"):
        made((sys.executable, "-c", "import time; time.sleep(60)")).address()


def test_without_replicas_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    cluster = made(keeper("tell(cluster='a', fault='the checkpoint is damaged')"))
    assert cluster.address() == "a"
    cluster.close()
    assert "the checkpoint is damaged" in caplog.text


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    kept = JobStore(open_database(tmp_path / "state.sqlite"))
    yield kept
    kept.database.close()


@pytest.mark.parametrize("when", ["before it starts", "in the middle"])
def test_a_job_outlives_its_cluster(store: JobStore, tmp_path: Path, when: str) -> None:
    marker, missing = tmp_path / "there", [when] if when == "before it starts" else []
    loses = program(
        f"""
if not pathlib.Path({str(marker)!r}).exists():
    pathlib.Path({str(marker)!r}).touch()
    tell(fault={{"type": "urn:earthmap:problem:cluster", "title": "t", "status": 500, "detail": "lost"}})
    sys.exit(1)
"""
        + MAPS[-1].partition('out = pathlib.Path(work["out"])')[2]
    )

    def address() -> str:
        if missing:
            raise ClusterError(f"there is no cluster {missing.pop()}")
        return "head:6379"

    offer = Offer(catalogs={"drawn": "/secret/place/catalog.json"})
    if missing:
        marker.touch()
    runner = ProcessRunner(root=str(tmp_path / "runs"), offer=offer, command=loses, cluster=address)
    foreman = Foreman(jobs=store, runner=runner, every_s=0.02, lease_s=0.5)
    job = store.submit("map", INPUTS, owner="ada")
    assert job is not None
    end = time.monotonic() + 30
    while (found := store.get(job.id)) is None or found.status is not Status.SUCCESSFUL:
        assert time.monotonic() < end
        assert found is None or found.status is not Status.FAILED
        foreman.look()
        time.sleep(0.01)
    foreman.stop()
    assert found.attempts == 2
    assert WAITS in [text for _, text in store.messages(job.id)]


# ── one of its own ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(120)
def test_a_cluster_of_its_own_is_up_with_its_replicas_and_gone_afterwards() -> None:
    cluster = made(KEEPER)
    address = cluster.address()
    host, _, port = address.rpartition(":")
    assert int(port)
    assert host
    keeper = cluster._keeper
    assert keeper is not None
    assert keeper.poll() is None
    cluster.close()
    assert keeper.poll() == 0
