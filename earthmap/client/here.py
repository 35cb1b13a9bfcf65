"""Jobs in this process: one at a time in a thread of its own, over one store, as those of a service are.

Ray takes seconds to start: what one job started serves those that soon follow it, and ends a minute after the last.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import logging
import subprocess
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from earthmap.client.live import ACCEPTED, DISMISSED, FAILED, RUNNING, SUCCESSFUL, LiveJob, Look
from earthmap.client.problems import error_of
from earthmap.errors import IsolatedError, JobError

if TYPE_CHECKING:
    from earthmap.pipeline import Job, Run
    from earthmap.pipeline.run import Progress
    from earthmap.predict import Predictor
    from earthmap.service.processes import Process, Scope
    from earthmap.service.state import JobRecord

IDLE_S = 60.0
"""How long Ray waits for another job."""

_REST = 95
"""Per cent that stand for the cells; merging and writing are the rest."""


class _Cancelled(Exception):
    """Ends a run from inside, between two of its steps."""


@dataclass(slots=True, eq=False)
class _Threaded:
    """Work in a thread."""

    run: _Begun
    """Does it; told whom to tell how many per cent are done, and what to say it with."""
    _future: Future[Any] | None = None
    _told: list[str] = field(default_factory=list)
    _progress: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)

    def begin(self, pool: ThreadPoolExecutor) -> None:
        """Do it as soon as nothing else is done."""
        self._future = pool.submit(self.run, self._report, self._say)

    def look(self) -> Look:
        """How it stands now."""
        future = self._begun
        status, fault = ACCEPTED, None
        if future.cancelled():
            status = DISMISSED
        elif future.done():
            fault = future.exception()
            status = SUCCESSFUL if fault is None else DISMISSED if isinstance(fault, _Cancelled) else FAILED
        elif future.running():
            status = RUNNING
        progress = 100 if status == SUCCESSFUL else self._progress
        why = fault if isinstance(fault, Exception) and status == FAILED else None
        return Look(status=status, progress=progress, messages=tuple(self._told), fault=why)

    def cancel(self) -> None:
        """End it at its next step."""
        self._stopping.set()
        self._begun.cancel()

    def fetch(self) -> Any:
        """What it came to."""
        return self._begun.result()

    @property
    def _begun(self) -> Future[Any]:
        if self._future is None:
            raise JobError("the job was not begun", fix="ask for it again")
        return self._future

    def _report(self, per_cent: float) -> None:
        self._heed()
        self._progress = int(per_cent)

    def _say(self, text: str) -> None:
        self._heed()
        self._told.append(text)

    def _heed(self) -> None:
        if self._stopping.is_set():
            raise _Cancelled


@dataclass(slots=True, eq=False)
class _Worker:
    """A thread that runs one job after the other, and the Ray of this machine between them."""

    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="earthmap"))
    _stack: contextlib.ExitStack | None = None
    _begun: int = 0

    def on_ray(self, run: Callable[[], Any]) -> Any:
        """What `run` comes to, with a Ray that is kept for the next; in the thread of `pool` only."""
        from earthmap.pipeline.cluster import cluster

        logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)  # it asks for packages that no bar needs here
        self._begun += 1
        if self._stack is None:
            self._stack = contextlib.ExitStack()
            self._stack.enter_context(cluster(None))
        try:
            result = run()
        except BaseException:
            self._end(self._begun)  # what failed may have been Ray: the next job starts another
            raise
        later = threading.Timer(IDLE_S, self.pool.submit, (self._end, self._begun))
        later.daemon = True
        later.start()
        return result

    def _end(self, begun: int) -> None:
        """End Ray, where no other job began since."""
        if self._stack is not None and begun == self._begun:
            stack, self._stack = self._stack, None
            stack.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What answers where there is no service: a folder on this machine, with a run folder for each job."""

    folder: Path
    _worker: _Worker = field(default_factory=_Worker)
    _jobs: dict[str, LiveJob] = field(default_factory=dict)

    def submit(self, process: str, inputs: Mapping[str, Any]) -> LiveJob:
        """A new job. Raises BadRequestError for inputs that cannot be run as they stand."""
        _hush()
        job_id = str(uuid.uuid4())
        work = _Threaded(_BEGINNINGS[process](inputs, self, job_id))
        self._jobs[job_id] = LiveJob(id=job_id, process=process, work=work)
        work.begin(self._worker.pool)
        return self._jobs[job_id]

    def answer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What `ask` comes to. Raises BadRequestError for a question that cannot be answered."""
        from earthmap.service.asking import Asked, finish, prepare
        from earthmap.service.processes.scope import OF_JOB

        run: Run = self.find(inputs["job"])[0].result(quiet=True)
        model = inputs.get("model") or _model_of(run.job)
        asked = Asked(
            run=run.address,
            at=inputs["at"],
            question=inputs["query"],
            date=inputs.get("date"),
            model=self.scope().model(model) if model is not None and model.startswith(OF_JOB) else model,
        )
        prepared = prepare(asked)
        predictor = _predictor(prepared.model)
        (answer,) = predictor.predict([prepared.subject.item], [prepared.query])[0]
        return finish(prepared, answer, predictor=predictor.key)

    def find(self, job_id: str | None = None) -> list[LiveJob]:
        """What was asked since this was connected, the newest first, or one of it. Raises JobError for another."""
        if job_id is None:
            return list(reversed(self._jobs.values()))
        if job_id not in self._jobs:
            raise JobError(f"there is no job {job_id!r}", expected="the id of one that was asked for here")
        return [self._jobs[job_id]]

    def on_ray(self, run: Callable[[], Any], *, cluster: str | None) -> Any:
        """What `run` comes to in the worker's thread, with a Ray of this machine unless it names a cluster."""
        return run() if cluster is not None else self._worker.on_ray(run)

    def scope(self, model: str | None = None) -> Scope:
        """What inputs may name: jobs of this client, and a model by its own address."""
        from earthmap.service.processes import Offer, Scope
        from earthmap.service.processes.scope import OF_JOB

        models = {} if model is None or model.startswith(OF_JOB) else {model: model}
        return Scope(offer=Offer(catalogs={"here": "here"}, models=models), find=self._record)

    def _record(self, job_id: str) -> JobRecord:
        """A job as the processes of the service know it, once it has results. Raises EarthmapError."""
        from earthmap.service.state import JobRecord, Status

        job = self.find(job_id)[0]
        result = job.result(quiet=True)
        address = result.address if job.process == "map" else str(self.folder / job_id)
        now = datetime.datetime.now(datetime.UTC)
        return JobRecord(
            id=job_id, process=job.process, inputs={}, limits={}, owner="", status=Status.SUCCESSFUL, progress=100,
            created=now, started=now, finished=now, updated=now, result=address, fault=None, attempts=1,
        )  # fmt: skip

    def place(self, inputs: Mapping[str, Any], job_id: str) -> dict[str, Any]:
        """The inputs of a job, with where its run folder and the store of all are, unless they say so.

        A model that was trained here is named by its job, as on a service. Raises JobError for a job that trained none.
        """
        from earthmap.service.processes.scope import OF_JOB

        values = {"store": str(self.folder / "store"), "out": str(self.folder / job_id), **inputs}
        if str(values.get("model") or "").startswith(OF_JOB):
            values["model"] = self.scope().model(values["model"])
        return values


_Begun = Callable[[Callable[[float], None], Callable[[str], None]], Any]


def _by_cells(report: Callable[[float], None]) -> Callable[[Progress], None]:
    """What hears of each cell, and tells how much is done."""
    return lambda progress: report(_REST * progress.tiles / max(progress.tiles_planned, 1))


def _map(inputs: Mapping[str, Any], here: Here, job_id: str) -> _Begun:
    from earthmap.pipeline import parse_job, run_job

    job = parse_job(here.place(inputs, job_id))

    def begun(report: Callable[[float], None], say: Callable[[str], None]) -> Any:
        return here.on_ray(lambda: run_job(job, report=_by_cells(report), say=say), cluster=job.spec.cluster)

    return begun


def _respond(inputs: Mapping[str, Any], here: Here, job_id: str) -> _Begun:
    from earthmap.pipeline import parse_job
    from earthmap.pipeline.event import parse_event
    from earthmap.pipeline.respond import Watcher, dated_questions, respond

    event = parse_event(inputs["event_time"], before=inputs.get("before"), after=inputs.get("after"))
    dates = ("event_time", "before", "after")
    values = here.place({name: value for name, value in inputs.items() if name not in dates}, job_id)
    job = parse_job({**values, "queries": dated_questions(values, event)})

    def begun(report: Callable[[float], None], say: Callable[[str], None]) -> Any:
        watcher = Watcher(report=_by_cells(report), say=say)
        return here.on_ray(lambda: respond(values, event, watcher=watcher)[-1], cluster=job.spec.cluster)

    return begun


def _labour(name: str, inputs: Mapping[str, Any], here: Here, job_id: str) -> _Begun:
    """A job of a process of the service, checked and run as there."""
    from earthmap.service.errors import ProblemError
    from earthmap.service.processes import PROCESSES, Site, parse_execution

    process, scope = PROCESSES[name], here.scope(inputs.get("model"))
    site = Site(scope=scope, out=str(here.folder / job_id), store=str(here.folder / "store"))
    try:
        checked = parse_execution(process, json.dumps({"inputs": dict(inputs)}).encode(), scope)
    except ProblemError as error:
        raise error_of(error.document) from None
    if process.labour is None:
        raise JobError(f"{name} makes no job", fix="ask for it by `ask`")
    values = process.labour.prepare(checked.inputs, site)

    def begun(report: Callable[[float], None], say: Callable[[str], None]) -> Any:
        for told in _told_by_worker({"process": name, "out": site.out, "values": values, "limits": {}}):
            if "message" in told:
                say(told["message"])
            report(told.get("progress", 0))
        return _outputs(process, Path(site.out))

    return begun


def _told_by_worker(work: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a worker tells, a process of its own as on a service; it ends with whoever does not listen any more.

    Raises:
        EarthmapError: why it failed.
    """
    from earthmap.service.jobs import GRACE_S, WORKER

    fault, done = None, False
    with subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as worker:
        told, heard = cast("IO[bytes]", worker.stdin), cast("IO[bytes]", worker.stdout)
        told.write(json.dumps({**work, "grace_s": GRACE_S}).encode() + b"\n")
        told.flush()
        for line in heard:
            said = json.loads(line)
            fault, done = said.get("fault"), bool(said.get("done"))
            yield said
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(GRACE_S)  # before its standard input ends, which tells it to end by force
    if fault is not None:
        raise error_of(fault)
    if not done:
        how = f"ended with code {worker.returncode}" if worker.returncode >= 0 else f"by signal {-worker.returncode}"
        raise IsolatedError(f"the process of the job {how} without a result", reason="crashed")


def _outputs(process: Process, folder: Path) -> dict[str, Any]:
    """What a job came to: small outputs themselves, files by their paths."""
    there = {name: (output, folder / output.path) for name, output in process.outputs.items()}
    return {
        name: json.loads(path.read_bytes()) if output.by_value else path
        for name, (output, path) in there.items()
        if path.exists()
    }


def _hush() -> None:
    """tqdm, which Ray imports, warns in a notebook of widgets that no bar needs here; imported once, it is quiet."""
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore")
        importlib.import_module("tqdm.auto")


_BEGINNINGS: Mapping[str, Callable[[Mapping[str, Any], Here, str], _Begun]] = {
    "map": _map,
    "respond": _respond,
    **{name: partial(_labour, name) for name in ("sample", "estimate", "finetune")},
}


def _model_of(job: Job) -> str | None:
    """Who answers questions about places of a job: who answered it; None for the oracle's, whom nobody asks again."""
    from earthmap.model import EMBEDDED

    if job.spec.predictor == "vlm":
        return job.spec.model or EMBEDDED
    return "spectral" if job.spec.predictor == "spectral" else None


@lru_cache(maxsize=2)
def _predictor(model: str) -> Predictor:
    """`spectral`, or the model of a checkpoint, which stays loaded. Raises ModelError."""
    from earthmap.model import checkpoint_key, find_checkpoint
    from earthmap.predict import build_predictor

    if model == "spectral":
        return build_predictor({"name": "spectral"})
    return build_predictor({"name": "vlm", "checkpoint": model, "weights": checkpoint_key(find_checkpoint(model))})
