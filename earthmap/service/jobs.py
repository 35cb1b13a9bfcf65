"""Who runs the jobs: a `Runner` works on one each, a `Foreman` takes them from the state and says there how they stand.

A run is a process of its own, so that dismissing it truly stops it, and so that what kills it kills nothing else. It
ends by itself when the service that started it is gone, and is then taken up again by whoever claims the job: its run
folder holds what was done.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, Protocol, cast

from earthmap.errors import ClusterError, EarthmapError, JobError
from earthmap.pipeline.job import kept_address
from earthmap.service.errors import ProblemError, problem, problem_of
from earthmap.service.processes import PROCESSES, Offer, Scope, Site
from earthmap.service.processes.requests import hidden_problem
from earthmap.service.state import JobRecord, JobStore
from earthmap.storage import Storage

WORKER = (sys.executable, "-m", "earthmap.service.worker")
"""What a run is started by; it reads its work from the standard input, and tells of it on the standard output."""

URGENT = ("respond",)
"""Processes whose jobs are taken before all others, as their cells are on a cluster (docs/cluster.md)."""

GRACE_S = 10.0
"""What a run that is dismissed may take to end before it is killed."""

WAITS = "the cluster is not there; the job goes on when it is"
"""Told of a job whose run lost its cluster, or found none: it is tried again, as often as one that lost its worker."""

LOST = str(problem_of(ClusterError(""))["type"])
"""Type of the fault of a run that lost its cluster."""

_TAIL_BYTES = 4_000

_log = logging.getLogger("earthmap.service")

_MAX_LINE = 1_000_000
"""Characters of a line that a run tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a run stands, since it was last asked."""

    progress: int = 0
    messages: tuple[str, ...] = ()
    """What was said since."""
    result: str | None = None
    """Address of its folder, where it is done."""
    fault: Mapping[str, Any] | None = None
    """The problem document, where it failed."""

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to come."""
        return self.result is not None or self.fault is not None


class Runner(Protocol):
    """What runs jobs, on this machine or on a cluster. Called from one thread."""

    def start(self, job: JobRecord) -> None:
        """Begin to run `job`, or go on where its last run ended.

        Raises:
            ProblemError: for what cannot be started.
            ClusterError: for what can be later.
        """

    def progress(self, job_id: str) -> Standing:
        """How it stands; what is done is told once, and then forgotten."""

    def dismiss(self, job_id: str) -> None:
        """Stop it; it has ended when this returns. Nothing for a job that does not run."""


@dataclass(slots=True)
class _Child:
    """A process that runs one job, and what it has told."""

    process: subprocess.Popen[bytes]
    out: str
    errors: IO[bytes]
    progress: int = 0
    messages: list[str] = field(default_factory=list)
    done: Mapping[str, Any] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def listen(self) -> None:
        """Take in what it tells until it ends."""
        told = cast(IO[bytes], self.process.stdout)
        for line in iter(lambda: told.readline(_MAX_LINE), b""):
            with contextlib.suppress(ValueError), self.lock:  # whatever else a library prints there
                self._take(json.loads(line))

    def _take(self, told: Any) -> None:
        if not isinstance(told, dict):
            return
        self.progress = int(told.get("progress", self.progress))
        if "message" in told:
            self.messages.append(str(told["message"]))
        if "fault" in told or told.get("done"):
            self.done = told


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRunner:
    """Runs each job in a process of this machine."""

    root: str
    """Folder or `s3://` address below which each job has its run folder, named by its id."""
    offer: Offer
    command: Sequence[str] = WORKER
    jobs: JobStore | None = None
    """Where the jobs are that a job may name; None where there are none."""
    cluster: Callable[[], str] | None = None
    """Says where the Ray cluster is that all runs use; None starts one for each run."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the runs beside those of this process: the way through the egress proxy (docs/egress.md)."""
    _children: dict[str, tuple[_Child, threading.Thread]] = field(default_factory=dict)

    @property
    def home(self) -> str:
        """The whole address of `root`, wherever this process stands."""
        return Storage(kept_address(self.root)).address

    def start(self, job: JobRecord) -> None:
        """Begin to run `job`.

        Raises:
            ProblemError: for inputs that this service no longer offers.
            ClusterError: where there is no cluster now.
        """
        home = self.home
        scope = Scope(offer=self.offer, find=self._find, root=home)
        cluster = self.cluster() if self.cluster is not None else None
        site = Site(scope=scope, out=f"{home}/{job.id}", store=f"{home}/store", cluster=cluster)
        try:
            values = _prepared(job, site)
        except EarthmapError as error:
            raise hidden_problem(error, scope) from None
        work = {"process": job.process, "out": site.out, "values": values, "limits": dict(job.limits)}
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env={**os.environ, **self.environment},
        )
        child = _Child(process, site.out, errors)
        stdin = cast(IO[bytes], process.stdin)  # it stays open: its end tells the run that we are gone
        with contextlib.suppress(BrokenPipeError):  # it died at once, which `progress` tells
            stdin.write(json.dumps({**work, "grace_s": GRACE_S}).encode() + b"\n")
            stdin.flush()
        listener = threading.Thread(target=child.listen, name=f"listen-{job.id}", daemon=True)
        listener.start()
        self._children[job.id] = (child, listener)

    def progress(self, job_id: str) -> Standing:
        """How the run of `job_id` stands. Raises KeyError for a job that was not started here."""
        child, listener = self._children[job_id]
        ended = child.process.poll() is not None
        if ended:
            listener.join(timeout=GRACE_S)
        with child.lock:
            messages, child.messages = tuple(self._shown(text, child) for text in child.messages), []
            done, progress = child.done, child.progress
        if not ended:
            return Standing(progress=progress, messages=messages)
        errors = _tail(child.errors)
        self._forget(job_id)
        if done is None:
            _log.error("the run of job %s ended without a result: %s", job_id, errors)
        if done is not None and "fault" not in done:
            return Standing(progress=100, messages=messages, result=child.out)
        told = done["fault"] if done is not None else _lost(child.process.returncode)
        fault = json.loads(self._shown(json.dumps(told), child))
        return Standing(progress=progress, messages=messages, fault=fault)

    def dismiss(self, job_id: str) -> None:
        """End the run and everything that it started; killed where it does not end by itself."""
        if job_id not in self._children:
            return
        process = self._children[job_id][0].process
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        child, listener = self._children.pop(job_id)
        listener.join(timeout=GRACE_S)
        for pipe in (child.process.stdin, child.process.stdout, child.errors):
            with contextlib.suppress(OSError):  # what was not flushed to one that died
                cast(IO[bytes], pipe).close()

    def _find(self, job_id: str) -> JobRecord:
        """A job that another names. Who may name it was asked when that was accepted. Raises JobError."""
        job = None if self.jobs is None else self.jobs.get(job_id)
        if job is None or job.result is None:
            raise JobError(f"the job {job_id} has no results any more", expected="a job that was not dismissed")
        return job

    def _shown(self, text: str, child: _Child) -> str:
        """`text` as who asked may read it: without the addresses of this service."""
        return Scope(offer=self.offer, root=self.home).hide(text.replace(child.out, "run"))


def _prepared(job: JobRecord, site: Site) -> Mapping[str, Any]:
    """What a worker is told of a job. Raises EarthmapError for what is no longer offered."""
    process = PROCESSES.get(job.process)
    if process is None or process.labour is None:
        raise JobError(f"the process {job.process} is no longer offered", expected=", ".join(PROCESSES))
    return process.labour.prepare(job.inputs, site)


def _tail(file: IO[bytes]) -> str:
    """The last of what a run wrote for its operator."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    return file.read().decode("utf-8", errors="replace")


def _lost(code: int) -> dict[str, Any]:
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return problem(500, "The run did not come to its end", f"its process {how} without a result", kind="isolated")


@dataclass(slots=True)
class _Held:
    """A job that the foreman has."""

    worker: str
    standing: Standing | None = None
    """What the state has not been told yet."""

    def hear(self, standing: Standing) -> Standing:
        """`standing` after what could not be told before it."""
        earlier = () if self.standing is None else self.standing.messages
        self.standing = replace(standing, messages=(*earlier, *standing.messages))
        return self.standing


@dataclass(slots=True, kw_only=True)
class Foreman:
    """Takes jobs from the state as they come, and sees that the state says how they stand.

    At most `most` at once, and beyond that one that is urgent.
    """

    jobs: JobStore
    runner: Runner
    most: int = 1
    lease_s: float = 60.0
    every_s: float = 0.5
    """Between two looks: how soon a new job starts, and a dismissed one ends."""
    _held: dict[str, _Held] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def running(self) -> int:
        """Jobs that it has now."""
        return len(self._held)

    def start(self) -> None:
        """Work in a thread until `stop`."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._work, name="foreman", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop what runs and give it back, so that another service goes on with it at once. Raises StorageError."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        for job_id, held in list(self._held.items()):
            self.runner.dismiss(job_id)
            del self._held[job_id]
            self.jobs.release(job_id, held.worker)

    def _work(self) -> None:
        while not self._stopping.wait(self.every_s):
            try:
                self.look()
            except Exception:  # noqa: BLE001 (the service's top: one look that fails must not end all that follow)
                _log.exception("the jobs could not be looked after, and are again in %s s", self.every_s)

    def look(self) -> None:
        """Once: say how what runs stands, end what is dismissed, and take new jobs. Raises StorageError."""
        for job_id, held in list(self._held.items()):
            self._tell(job_id, held)
        while not self._stopping.is_set():
            worker = str(uuid.uuid4())
            job = self._next(worker)
            if job is None:
                return
            self._begin(job, worker)

    def _next(self, worker: str) -> JobRecord | None:
        """The next job: an urgent one first, for which there is one place more, where it overtakes what runs."""
        job = None
        if len(self._held) <= self.most:
            job = self.jobs.claim(worker, lease_s=self.lease_s, processes=URGENT)
        if job is None and len(self._held) < self.most:
            job = self.jobs.claim(worker, lease_s=self.lease_s)
        return job

    def _begin(self, job: JobRecord, worker: str) -> None:
        try:
            self.runner.start(job)
        except ProblemError as error:
            self.jobs.fail(job.id, worker, fault=error.document)
        except ClusterError as error:
            _log.error("job %s waits for a cluster: %s", job.id, error)
            self.jobs.beat(job.id, worker, lease_s=self.lease_s, messages=[WAITS])
        else:
            self._held[job.id] = _Held(worker)

    def _tell(self, job_id: str, held: _Held) -> None:
        over = held.standing is not None and held.standing.is_done
        now = held.standing if held.standing is not None and over else held.hear(self.runner.progress(job_id))
        waits = now.fault is not None and now.fault["type"] == LOST
        messages = (*now.messages, WAITS) if waits else now.messages
        own = self.jobs.beat(job_id, held.worker, lease_s=self.lease_s, progress=now.progress, messages=messages)
        if now.result is not None:
            self.jobs.finish(job_id, held.worker, result=now.result)
        elif now.fault is not None and not waits:  # else it is claimed again when its lease is over
            self.jobs.fail(job_id, held.worker, fault=now.fault)
        held.standing = None
        if now.is_done or not own:
            self.runner.dismiss(job_id)
            del self._held[job_id]
