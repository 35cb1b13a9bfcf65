"""Who runs the jobs: real processes that work, wait, fail, die, and are stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from earthmap.errors import StorageError
from earthmap.service import jobs as jobs_module
from earthmap.service.database import open_database
from earthmap.service.jobs import Foreman, ProcessRunner
from earthmap.service.processes import Offer
from earthmap.service.state import JobRecord, JobStore, Status
from tests.service.programs import DIES, FAILS, MAPS, STUBBORN, WAITS

OFFER = Offer(catalogs={"drawn": "/secret/place/catalog.json"})

INPUTS = {"area": [4.0, 45.0, 4.1, 45.1], "queries": ["Where is water?"]}

Make = Callable[[Sequence[str]], Foreman]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    made = JobStore(open_database(tmp_path / "state.sqlite"))
    yield made
    made.database.close()


@pytest.fixture
def make(tmp_path: Path, store: JobStore) -> Iterator[Make]:
    made: list[Foreman] = []

    def _make(command: Sequence[str]) -> Foreman:
        runner = ProcessRunner(root=str(tmp_path / "runs"), offer=OFFER, command=command)
        made.append(Foreman(jobs=store, runner=runner, most=2, every_s=0.02))
        return made[-1]

    yield _make
    for foreman in made:
        foreman.stop()


def _submit(store: JobStore) -> str:
    job = store.submit("map", INPUTS, owner="ada")
    assert job is not None
    return job.id


def _until(foreman: Foreman, done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end, "it did not come to that"
        foreman.look()
        time.sleep(0.01)


def _job(store: JobStore, job_id: str) -> JobRecord:
    job = store.get(job_id)
    assert job is not None
    return job


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def _started(store: JobStore, make: Make, tmp_path: Path, command: Sequence[str]) -> tuple[Foreman, str, int]:
    """A foreman, and a job that runs, by the id of its process."""
    foreman, job_id = make(command), _submit(store)
    file = tmp_path / "runs" / job_id / "pid"
    _until(foreman, lambda: file.exists() and bool(file.read_text()))
    return foreman, job_id, int(file.read_text())


def test_a_job_runs_to_its_end(store: JobStore, make: Make, tmp_path: Path) -> None:
    foreman, ids = make(MAPS), [_submit(store) for _ in range(3)]
    _until(foreman, lambda: all(_job(store, one).status is Status.SUCCESSFUL for one in ids))
    job = _job(store, ids[0])
    assert job.result == str(tmp_path / "runs" / ids[0])
    assert json.loads((Path(job.result) / "summary.json").read_text()) == {"asked": ["Where is water?"]}
    assert [text for _, text in store.messages(ids[0])] == ["searching the catalogue"]
    assert {_job(store, one).attempts for one in ids} == {1}


def test_an_urgent_job_waits_for_no_other(store: JobStore, make: Make) -> None:
    foreman = make(WAITS)
    foreman.most = 1
    maps = [_submit(store) for _ in range(2)]
    _until(foreman, lambda: _job(store, maps[0]).status is Status.RUNNING)
    urgent = store.submit("respond", {**INPUTS, "event_time": "2024-06-01"}, owner="bob")
    later = store.submit("respond", {**INPUTS, "event_time": "2024-06-02"}, owner="bob")
    assert urgent is not None
    assert later is not None
    foreman.look()
    assert _job(store, urgent.id).status is Status.RUNNING
    assert [_job(store, one).status for one in (maps[1], later.id)] == [Status.ACCEPTED] * 2
    store.dismiss(maps[0])
    foreman.look()
    assert [_job(store, one).status for one in (maps[1], later.id)] == [Status.ACCEPTED, Status.RUNNING]


def test_what_a_run_says_shows_no_place_of_the_service(store: JobStore, make: Make, tmp_path: Path) -> None:
    foreman, job_id = make(FAILS), _submit(store)
    _until(foreman, lambda: _job(store, job_id).status is Status.FAILED)
    fault = _job(store, job_id).fault
    assert fault is not None
    assert fault["status"] == 400
    assert fault["detail"] == "nothing in run"


def test_a_run_that_dies_is_told_and_its_last_words_are_kept(
    store: JobStore, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    foreman, job_id = make(DIES), _submit(store)
    _until(foreman, lambda: _job(store, job_id).status is Status.FAILED)
    fault = _job(store, job_id).fault
    assert fault is not None
    assert fault["status"] == 500
    assert "signal 9" in fault["detail"]
    assert "traceback" not in fault["detail"]
    assert "traceback of a defect" in caplog.text


@pytest.mark.parametrize("command", [WAITS, STUBBORN], ids=["waits", "stubborn"])
def test_dismissing_truly_stops(
    store: JobStore, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Sequence[str]
) -> None:
    monkeypatch.setattr(jobs_module, "GRACE_S", 0.3)
    foreman, job_id, pid = _started(store, make, tmp_path, command)
    assert _alive(pid)
    assert store.dismiss(job_id)
    foreman.look()
    assert not _alive(pid)
    assert _job(store, job_id).status is Status.DISMISSED


def test_stopping_gives_jobs_back(store: JobStore, make: Make, tmp_path: Path) -> None:
    foreman, job_id, pid = _started(store, make, tmp_path, WAITS)
    foreman.stop()
    assert not _alive(pid)
    again = store.claim("another", lease_s=60)
    assert again is not None
    assert (again.id, again.attempts) == (job_id, 1)


def test_what_is_no_longer_offered_fails(store: JobStore, make: Make) -> None:
    job = store.submit("map", {**INPUTS, "queries": ["How many ships?"]}, owner="ada")
    assert job is not None
    _until(make(MAPS), lambda: _job(store, job.id).status is Status.FAILED)


@dataclass(frozen=True, slots=True)
class _Silent(JobStore):
    """A state whose database does not answer for a while."""

    failures: list[int] = field(default_factory=lambda: list(range(40)))

    def beat(
        self, job_id: str, worker: str, *, lease_s: float, progress: int = 0, messages: Sequence[str] = ()
    ) -> bool:
        if self.failures:
            self.failures.pop()
            raise StorageError("the disk is full for a while")
        # a dataclass with slots is made anew, and `super()` alone means the first
        return JobStore.beat(self, job_id, worker, lease_s=lease_s, progress=progress, messages=messages)


def test_nothing_is_forgotten_while_the_database_is_silent(store: JobStore, tmp_path: Path) -> None:
    silent = _Silent(store.database)
    runner = ProcessRunner(root=str(tmp_path / "runs"), offer=OFFER, command=MAPS)
    foreman = Foreman(jobs=silent, runner=runner, every_s=0.02)
    job_id = _submit(store)
    foreman.start()
    end = time.monotonic() + 30
    while _job(store, job_id).status is not Status.SUCCESSFUL:
        assert time.monotonic() < end
        time.sleep(0.05)
    foreman.stop()
    assert [text for _, text in store.messages(job_id)] == ["searching the catalogue"]


_SERVICE = """
import sys, time
from pathlib import Path
from earthmap.service.database import open_database
from earthmap.service.jobs import Foreman, ProcessRunner
from earthmap.service.processes import Offer
from earthmap.service.state import JobStore
folder = Path(sys.argv[1])
offer = Offer(catalogs={"silent": sys.argv[2]})
jobs = JobStore(open_database(folder / "state.sqlite"))
job = jobs.submit("map", {"area": [4.0, 45.0, 4.1, 45.1], "queries": ["Where is water?"]}, owner="ada")
foreman = Foreman(jobs=jobs, runner=ProcessRunner(root=str(folder / "runs"), offer=offer), lease_s=0.5)
foreman.look()
print(job.id, foreman.runner._children[job.id][0].process.pid, flush=True)
time.sleep(300)
"""


@pytest.mark.slow
def test_a_run_ends_with_the_service_that_is_killed_and_is_taken_up(
    store: JobStore, make: Make, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a catalogue that takes a question, and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        command = [sys.executable, "-c", _SERVICE, str(tmp_path), address]
        service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert service.stdout is not None
        job_id, pid = service.stdout.readline().split()
        silent.settimeout(60)
        asked = silent.accept()[0]
        assert _alive(int(pid))
        _kill_and_wait(service, int(pid))
        asked.close()
    time.sleep(0.6)
    foreman = make(MAPS)
    _until(foreman, lambda: _job(store, job_id).status is Status.SUCCESSFUL)
    assert _job(store, job_id).attempts == 2


def _kill_and_wait(service: subprocess.Popen[str], pid: int) -> None:
    """Kill the service, and see its run end."""
    os.kill(service.pid, signal.SIGKILL)
    service.communicate()
    end = time.monotonic() + 30
    while _alive(int(pid)):
        assert time.monotonic() < end, "the run outlives its service"
        time.sleep(0.05)
