"""The state of jobs: only the standard's transitions, one worker a job, nothing lost by kill -9."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from earthmap.service.database import open_database
from earthmap.service.state import MAX_ATTEMPTS, MAX_MESSAGES, JobStore, Selection, Status

LEASE_S = 10.0


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(tmp_path: Path, clock: Clock) -> Iterator[JobStore]:
    store = JobStore(open_database(tmp_path / "state.sqlite"), clock)
    yield store
    store.database.close()


def _submit(jobs: JobStore, owner: str = "ada") -> str:
    job = jobs.submit("map", {"queries": ["Where is water? ≈ ☃"]}, owner=owner)
    assert job is not None
    return job.id


def test_the_way_of_a_job(jobs: JobStore, clock: Clock) -> None:
    job_id = _submit(jobs)
    taken = jobs.claim("w1", lease_s=LEASE_S)
    assert taken is not None
    assert (taken.id, taken.status, taken.attempts) == (job_id, Status.RUNNING, 1)
    clock.now += 5
    assert jobs.beat(job_id, "w1", lease_s=LEASE_S, progress=40, messages=["searching", "reading"])
    assert jobs.beat(job_id, "w1", lease_s=LEASE_S, progress=30)
    assert jobs.finish(job_id, "w1", result="runs/1")
    job = jobs.get(job_id)
    assert job is not None
    assert (job.status, job.progress, job.result) == (Status.SUCCESSFUL, 100, "runs/1")
    assert job.inputs == {"queries": ["Where is water? ≈ ☃"]}
    assert job.created <= job.started <= job.finished  # type: ignore[operator]
    assert [text for _, text in jobs.messages(job_id)] == ["searching", "reading"]
    assert jobs.claim("w2", lease_s=LEASE_S) is None


def test_progress_never_goes_back(jobs: JobStore) -> None:
    job_id = _submit(jobs)
    jobs.claim("w1", lease_s=LEASE_S)
    for told, shown in ((40, 40), (10, 40), (41, 41), (250, 100)):
        assert jobs.beat(job_id, "w1", lease_s=LEASE_S, progress=told)
        assert jobs.get(job_id).progress == shown  # type: ignore[union-attr]


def test_a_lease_that_ran_out_is_claimed_again_and_the_first_is_not_heard(jobs: JobStore, clock: Clock) -> None:
    job_id = _submit(jobs)
    jobs.claim("w1", lease_s=LEASE_S)
    clock.now += LEASE_S - 1
    assert jobs.claim("w2", lease_s=LEASE_S) is None
    clock.now += 2
    again = jobs.claim("w2", lease_s=LEASE_S)
    assert again is not None
    assert again.attempts == 2
    assert not jobs.beat(job_id, "w1", lease_s=LEASE_S)
    assert not jobs.finish(job_id, "w1", result="runs/1")
    assert not jobs.fail(job_id, "w1", fault={})
    assert not jobs.release(job_id, "w1")
    assert jobs.finish(job_id, "w2", result="runs/2")


def test_a_job_that_loses_every_worker_fails(jobs: JobStore, clock: Clock) -> None:
    job_id = _submit(jobs)
    for attempt in range(MAX_ATTEMPTS):
        assert jobs.claim(f"w{attempt}", lease_s=LEASE_S) is not None
        clock.now += LEASE_S + 1
    assert jobs.claim("last", lease_s=LEASE_S) is None
    job = jobs.get(job_id)
    assert job is not None
    assert job.status == Status.FAILED
    assert job.fault is not None
    assert job.fault["status"] == 500


def test_what_is_given_back_is_claimed_at_once_and_is_no_attempt(jobs: JobStore) -> None:
    job_id = _submit(jobs)
    for number in range(3 * MAX_ATTEMPTS):
        assert jobs.claim(f"w{number}", lease_s=LEASE_S).id == job_id  # type: ignore[union-attr]
        assert jobs.release(job_id, f"w{number}")


def test_dismissed_stays_dismissed(jobs: JobStore) -> None:
    job_id = _submit(jobs)
    jobs.claim("w1", lease_s=LEASE_S)
    assert jobs.dismiss(job_id)
    assert not jobs.dismiss(job_id)
    assert not jobs.beat(job_id, "w1", lease_s=LEASE_S)
    assert not jobs.finish(job_id, "w1", result="runs/1")
    assert jobs.get(job_id).status == Status.DISMISSED  # type: ignore[union-attr]
    assert not jobs.dismiss("nobody")


def test_no_more_open_jobs_than_allowed(jobs: JobStore) -> None:
    made = [jobs.submit("map", {}, owner="ada", most_open=2) for _ in range(3)]
    assert [job is not None for job in made] == [True, True, False]
    assert jobs.submit("map", {}, owner="bob", most_open=2) is not None
    assert jobs.dismiss(made[0].id)  # type: ignore[union-attr]
    assert jobs.submit("map", {}, owner="ada", most_open=2) is not None


def test_pages_hold_every_job_once_newest_first(jobs: JobStore, clock: Clock) -> None:
    made = []
    for number in range(25):
        clock.now += number % 3  # several at one moment
        made.append(_submit(jobs, owner="ada" if number % 5 else "bob"))
    seen: list[str] = []
    while page := jobs.page(Selection(limit=4, after=seen[-1] if seen else None)):
        seen += [job.id for job in page]
        _submit(jobs, owner="eve")  # what comes in between moves nothing
    assert sorted(seen) == sorted(made)
    times = [jobs.get(one).created for one in seen]  # type: ignore[union-attr]
    assert times == sorted(times, reverse=True)
    assert {job.owner for job in jobs.page(Selection(owner="bob", limit=100))} == {"bob"}
    assert jobs.page(Selection(statuses=[Status.FAILED])) == []
    assert jobs.page(Selection(processes=["ask"])) == []
    assert jobs.page(Selection(after="nobody")) == []


def test_jobs_are_found_by_when_and_how_long(jobs: JobStore, clock: Clock) -> None:
    quick, slow = _submit(jobs), _submit(jobs)
    start = clock.now
    jobs.claim("w1", lease_s=1000)
    jobs.claim("w2", lease_s=1000)
    clock.now += 5
    assert jobs.finish(quick, "w1", result="r") or jobs.finish(quick, "w2", result="r")
    clock.now += 95
    waiting = _submit(jobs)
    at = datetime.datetime.fromtimestamp(start + 50, datetime.UTC)

    def found(selection: Selection) -> set[str]:
        return {job.id for job in jobs.page(selection)}

    assert found(Selection(created=(None, at))) == {quick, slow}
    assert found(Selection(created=(at, None))) == {waiting}
    assert found(Selection(least_s=50)) == {slow}
    assert found(Selection(most_s=50)) == {quick}  # one that waits has not worked


def test_only_the_last_messages_are_kept(jobs: JobStore) -> None:
    job_id = _submit(jobs)
    jobs.claim("w", lease_s=LEASE_S)
    for number in range(3):
        texts = [f"{number}-{line}" for line in range(MAX_MESSAGES // 2 + 1)]
        jobs.beat(job_id, "w", lease_s=LEASE_S, messages=[*texts, "x" * 100_000])
    kept = [text for _, text in jobs.messages(job_id)]
    assert len(kept) == MAX_MESSAGES
    assert max(map(len, kept)) == 2_000


def test_threads_that_claim_at_once_get_each_job_once(jobs: JobStore) -> None:
    made = {_submit(jobs) for _ in range(12)}
    got: list[str] = []

    def work(name: str) -> None:
        number = 0
        while (job := jobs.claim(f"{name}-{number}", lease_s=60)) is not None:
            got.append(job.id)
            number += 1

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(made)


_CLAIM = """
import sys
from earthmap.service.database import open_database
from earthmap.service.state import JobStore
jobs = JobStore(open_database(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
number = 0
while (job := jobs.claim(f"{sys.argv[2]}-{number}", lease_s=60)) is not None:
    print(job.id, flush=True)
    number += 1
"""


def test_processes_that_claim_at_once_get_each_job_once(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    store = JobStore(open_database(path))
    made = {_submit(store) for _ in range(20)}
    claimers = [
        subprocess.Popen(
            [sys.executable, "-c", _CLAIM, str(path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    for one in claimers:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    got = []
    for one in claimers:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    for one in claimers:
        got += one.communicate(timeout=60)[0].split()
    assert sorted(got) == sorted(made)
    store.database.close()


_WRITE = """
import itertools, sys
from earthmap.service.database import open_database
from earthmap.service.state import JobStore
jobs = JobStore(open_database(sys.argv[1]))
for number in itertools.count():
    job = jobs.submit("map", {"number": number}, owner="ada")
    print("submitted", job.id, flush=True)
    worker = f"{sys.argv[2]}-{number}"
    held = jobs.claim(worker, lease_s=0.5)
    if held is not None:
        jobs.beat(held.id, worker, lease_s=0.5, progress=50, messages=["half"])
        if number % 2 and jobs.finish(held.id, worker, result="runs/" + held.id):
            print("finished", held.id, flush=True)
"""


def test_nothing_is_lost_when_a_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    told: dict[str, set[str]] = {"submitted": set(), "finished": set()}
    for turn in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITE, str(path), str(turn)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(0.05 + 0.083 * turn)
        os.kill(writer.pid, signal.SIGKILL)
        lines = (first + writer.communicate()[0]).split("\n")[:-1]  # a line without its end was not told
        for line in lines:
            word, job_id = line.split()
            told[word].add(job_id)
    store = JobStore(open_database(path))
    with store.database.read() as connection:
        assert connection.execute(sa.text("pragma integrity_check")).scalar() == "ok"
    kept = {job.id: job for job in store.page(Selection(limit=100_000))}
    assert told["submitted"] <= set(kept)
    assert len(kept) <= len(told["submitted"]) + 3  # what was written and not yet told
    assert all(kept[job_id].status == Status.SUCCESSFUL for job_id in told["finished"])
    time.sleep(0.6)
    number, left = 0, sum(job.status != Status.SUCCESSFUL for job in kept.values())
    while (job := store.claim(f"after-{number}", lease_s=60)) is not None:
        assert store.finish(job.id, f"after-{number}", result="runs/x")
        number += 1
    assert number == left
    store.database.close()


class Transitions(RuleBasedStateMachine):
    """Any order of calls by any worker leaves what the standard allows, as a model in a dictionary says."""

    made: Bundle[str] = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.jobs = JobStore(open_database(Path(self.folder.name) / "state.sqlite"), self.clock)
        self.model: dict[str, tuple[str, str | None, float, int]] = {}  # status, worker, lease, attempts
        self.claims = 0

    @rule(target=made)
    def submit(self) -> str:
        self.clock.now += 1
        job_id = _submit(self.jobs)
        self.model[job_id] = ("accepted", None, 0.0, 0)
        return job_id

    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def claim(self) -> None:
        worker, now = f"w{self.claims}", self.clock.now
        self.claims += 1
        for job_id, (status, _, lease, attempts) in self.model.items():
            if status == "running" and lease < now and attempts >= MAX_ATTEMPTS:
                self.model[job_id] = ("failed", None, 0.0, attempts)
        free = [k for k, (s, _, lease, _n) in self.model.items() if s == "accepted" or (s == "running" and lease < now)]
        job = self.jobs.claim(worker, lease_s=LEASE_S)
        assert (job.id if job else None) == (free[0] if free else None)  # the oldest
        if job is not None:
            self.model[job.id] = ("running", worker, now + LEASE_S, self.model[job.id][3] + 1)

    def _own(self, job_id: str, worker: int) -> tuple[str, bool]:
        """A worker's name, and whether the job is that worker's."""
        status, holder, _, _ = self.model[job_id]
        name = holder if worker == 0 and holder else f"w{self.claims - worker}"
        return name, status == "running" and holder == name

    @rule(job_id=made, worker=st.integers(0, 3), progress=st.integers(0, 100))
    def beat(self, job_id: str, worker: int, progress: int) -> None:
        name, own = self._own(job_id, worker)
        assert self.jobs.beat(job_id, name, lease_s=LEASE_S, progress=progress) == own
        if own:
            self.model[job_id] = ("running", name, self.clock.now + LEASE_S, self.model[job_id][3])

    @rule(job_id=made, worker=st.integers(0, 3), well=st.booleans())
    def end(self, job_id: str, worker: int, well: bool) -> None:
        name, own = self._own(job_id, worker)
        done = (
            self.jobs.finish(job_id, name, result="runs/1")
            if well
            else self.jobs.fail(job_id, name, fault={"status": 400})
        )
        assert done == own
        if own:
            self.model[job_id] = ("successful" if well else "failed", None, 0.0, self.model[job_id][3])

    @rule(job_id=made)
    def dismiss(self, job_id: str) -> None:
        assert self.jobs.dismiss(job_id) == (self.model[job_id][0] != "dismissed")
        self.model[job_id] = ("dismissed", None, 0.0, self.model[job_id][3])

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        kept = {job.id: job for job in self.jobs.page(Selection(limit=1000))}
        assert {k: (j.status.value, j.attempts) for k, j in kept.items()} == {
            k: (status, attempts) for k, (status, _, _, attempts) in self.model.items()
        }
        for job in kept.values():
            assert (job.finished is not None) == (job.status not in ("accepted", "running"))
            assert (job.result is not None) == (job.status == "successful")
            json.dumps(job.fault)

    def teardown(self) -> None:
        self.jobs.database.close()
        self.folder.cleanup()


TestTransitions = Transitions.TestCase
TestTransitions.settings = settings(max_examples=8, stateful_step_count=30, deadline=None)
