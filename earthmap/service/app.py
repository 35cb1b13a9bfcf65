"""The service over HTTP: OGC API – Processes, Part 1: Core (18-062r2), as an ASGI application.

Starlette, not FastAPI: the document of the API must be OpenAPI 3.0 with the very schemas of the process descriptions,
which `earthmap.service.openapi` writes from the same records as the answers.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from earthmap.catalog import parse_datetime
from earthmap.errors import BadRequestError, JobError, StorageError
from earthmap.service import cubes, features, measuring, previews, stac_api
from earthmap.service.access import (
    Service,
    base_of,
    body_of,
    holder_of,
    is_job_id,
    is_loopback,
    link_to,
    parameter_problem,
    results_of,
    scope_of,
    seen_job,
    whole_number,
)
from earthmap.service.asking import Asked
from earthmap.service.errors import NO_SUCH_PROCESS, ProblemError, problem
from earthmap.service.openapi import CONFORMANCE, JOB_LIMIT, JOB_LIMIT_MOST, document
from earthmap.service.parameters import only_parameters
from earthmap.service.parts import UNTRUSTED, part_of
from earthmap.service.processes import (
    PROCESSES,
    Checked,
    Process,
    describe,
    parse_execution,
    summary_of,
)
from earthmap.service.processes.ask import asked_of
from earthmap.service.processes.requests import hidden_problem
from earthmap.service.state import JobRecord, Selection, Status
from earthmap.service.tokens import Holder, Quotas, TokenStore
from earthmap.storage import Storage

_REL = "http://www.opengis.net/def/rel/ogc/1.0/"
_log = logging.getLogger("earthmap.service")


def check_address(host: str, tokens: TokenStore | None) -> None:
    """Raises JobError for a service that others can reach and everybody may use."""
    if not is_loopback(host) and (tokens is None or not any(one.revoked is None for one in tokens.all())):
        raise JobError(
            f"the service would listen on {host} and let everybody in",
            expected="tokens, wherever others can reach it",
            fix="make a token first, or listen on 127.0.0.1",
        )


def create_app(service: Service) -> Starlette:
    """The application. It starts and stops the foreman, where there is one, with itself."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if service.foreman is not None:
            service.foreman.start()
        yield
        if service.asking is not None:
            await service.asking.answering.close()
        if service.foreman is not None:
            await run_in_threadpool(service.foreman.stop)

    desk = _Desk(service)
    routes = [
        Route("/", desk.landing_page),
        Route("/conformance", desk.conformance),
        Route("/api", desk.api),
        Route("/processes", desk.processes),
        Route("/processes/{process}", desk.process),
        Route("/processes/{process}/execution", desk.execute, methods=["POST"]),
        Route("/jobs", desk.jobs),
        Route("/jobs/{job}", desk.job),
        Route("/jobs/{job}", desk.dismiss, methods=["DELETE"]),
        Route("/jobs/{job}/results", desk.results),
        Route("/jobs/{job}/results/{output}", desk.output),
        *cubes.routes(service),
        *measuring.routes(service),
        *features.routes(service),
        *stac_api.routes(service),
        *previews.routes(service),
    ]
    measured = Middleware(measuring.Measured, metrics=service.metrics, routes=routes)
    handlers: dict[Any, Callable[..., Response]] = {
        ProblemError: _problem_response,
        HTTPException: _http_response,
        StorageError: _storage_response,
        Exception: _defect_response,
    }
    return Starlette(routes=routes, middleware=[measured], exception_handlers=handlers, lifespan=lifespan)


# ── problems ─────────────────────────────────────────────────────────────────────────────────────────────────


class _ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def _problem_response(_: Request, error: ProblemError) -> Response:
    return _ProblemResponse(error.document, error.document["status"], error.headers)


def _http_response(_: Request, error: HTTPException) -> Response:
    title = {404: "There is nothing here", 405: "This cannot be done here"}.get(error.status_code, "Not possible")
    return _ProblemResponse(problem(error.status_code, title, error.detail), error.status_code, error.headers)


def _storage_response(_: Request, error: StorageError) -> Response:
    _log.error("%s", error)  # it names places of this machine, which who asks need not know
    told = problem(503, "Not now", "the service cannot read or write its own records; try again later", kind="storage")
    return _ProblemResponse(told, 503, {"Retry-After": "30"})


def _defect_response(_: Request, error: Exception) -> Response:
    told = problem(500, "A defect of the service", "what happened is in the log of the service", kind="defect")
    return _ProblemResponse(told, 500)


# ── quotas ────────────────────────────────────────────────────────────────────────────────────────────────────


def _within(quotas: Quotas, checked: Checked) -> None:
    """Raises ProblemError for more ground, or more training, than the token allows."""
    area_km2 = 0.0 if checked.area is None else checked.area.area_km2
    if quotas.area_km2 is not None and area_km2 > quotas.area_km2:
        detail = f"the area has {area_km2:,.1f} km²; this token allows {quotas.area_km2:,.1f} km² a job"
        raise ProblemError(problem(403, "More than the quota", detail, kind="quota"))
    if quotas.steps is not None and (checked.steps or 0) > quotas.steps:
        detail = f"the training has {checked.steps:,} steps; this token allows {quotas.steps:,} a job"
        raise ProblemError(problem(403, "More than the quota", detail, kind="quota"))


# ── what is answered ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Desk:
    """One method a resource."""

    service: Service

    def landing_page(self, request: Request) -> Response:
        """Links to everything else (7.2)."""
        only_parameters(request)
        base = base_of(request)
        links = [
            link_to(base, "/", "self", "This document"),
            link_to(base, "/api", "service-desc", "The API", media_type="application/vnd.oai.openapi+json;version=3.0"),
            link_to(base, "/conformance", f"{_REL}conformance", "What this service conforms to"),
            link_to(base, "/processes", f"{_REL}processes", "What can be asked"),
            link_to(base, "/jobs", f"{_REL}job-list", "What was asked"),
            link_to(base, "/conformance", "conformance", "What this service conforms to"),  # as Features spells it
            link_to(base, "/collections", "data", "What was found and seen, as features"),
            link_to(base, "/stac", "related", "Finished runs, as a STAC API"),
        ]
        about = "Answers questions about areas of the Earth with satellite imagery."
        return JSONResponse({"title": "earthmap", "description": about, "links": links})

    def conformance(self, request: Request) -> Response:
        """What is declared, all of it tested (7.4)."""
        only_parameters(request)
        return JSONResponse({"conformsTo": list(CONFORMANCE)})

    def api(self, request: Request) -> Response:
        """The OpenAPI 3.0 document (7.3)."""
        only_parameters(request)
        found = document(self.service.offer, base=base_of(request), secured=self.service.tokens is not None)
        return JSONResponse(found, media_type="application/vnd.oai.openapi+json;version=3.0")

    def processes(self, request: Request) -> Response:
        """What can be asked (7.7)."""
        holder_of(request, self.service)
        limit, base = _limit(request), base_of(request)
        shown = [{**summary_of(one), "links": _process_links(one, base)} for one in PROCESSES.values()][:limit]
        return JSONResponse({"processes": shown, "links": [link_to(base, "/processes", "self", "This document")]})

    def process(self, request: Request) -> Response:
        """One process, with its inputs and outputs (7.8)."""
        holder_of(request, self.service)
        process = _process(request)
        return JSONResponse(
            {**describe(process, self.service.offer), "links": _process_links(process, base_of(request))}
        )

    async def execute(self, request: Request) -> Response:
        """A new job, or of `ask` the reply (7.11): each process can be executed in one way, whatever is preferred."""
        holder = await run_in_threadpool(holder_of, request, self.service)
        process = _process(request)
        if not holder.may_submit:
            raise ProblemError(problem(403, "Not with this token", f"a {holder.role} may not ask for jobs"))
        body = await body_of(request)
        if process.is_synchronous:
            return await self._answer(request, process, body, holder)
        job = await run_in_threadpool(self._submit, process, body, holder)
        address = f"{base_of(request)}/jobs/{job.id}"
        headers = {"Location": address}
        if "respond-async" in request.headers.get("prefer", ""):
            headers["Preference-Applied"] = "respond-async"
        return JSONResponse(self._status(job, base_of(request)), 201, headers)

    async def _answer(self, request: Request, process: Process, body: bytes, holder: Holder) -> Response:
        """The results of a process that makes no job."""
        asking, scope = self.service.asking, scope_of(self.service, holder)
        owner = holder.owner if self.service.tokens is not None else None
        if asking is None:
            raise ProblemError(problem(503, "Not here", "this service answers no questions; ask for a map"))

        def read() -> Asked:
            return asked_of(parse_execution(process, body, scope).inputs, scope)

        try:
            reply = await asking.ask(read, within_s=_patience(request), owner=owner)
        except BadRequestError as error:
            raise hidden_problem(error, scope) from None
        return JSONResponse({"reply": {"value": reply, "mediaType": "application/json"}})

    def _submit(self, process: Process, body: bytes, holder: Holder) -> JobRecord:
        checked = parse_execution(process, body, scope_of(self.service, holder))
        quotas = holder.quotas
        _within(quotas, checked)
        limits = {"tiles": quotas.tiles, "read_bytes": quotas.read_bytes}
        job = self.service.jobs.submit(
            process.id,
            checked.inputs,
            owner=holder.owner,
            most_open=quotas.open_jobs,
            limits={name: value for name, value in limits.items() if value is not None},
        )
        if job is None:
            detail = f"{holder.owner} has {quotas.open_jobs} jobs that are not finished, as many as this token allows"
            told = problem(429, "More than the quota", f"{detail}; wait for one of them, or dismiss it", kind="quota")
            raise ProblemError(told, {"Retry-After": "60"})
        return job

    def jobs(self, request: Request) -> Response:
        """Jobs by page, the newest first (11): one's own, or everybody's for an operator."""
        holder = holder_of(request, self.service)
        base, chosen = base_of(request), _selection(request, holder)
        found = self.service.jobs.page(chosen)
        links = [{**link_to(base, "/jobs", "self", "This document"), "href": str(request.url)}]
        if len(found) == chosen.limit:
            further = str(request.url.include_query_params(after=found[-1].id))
            links.append({**link_to(base, "/jobs", "next", "Older jobs"), "href": further})
        return JSONResponse({"jobs": [self._status(job, base) for job in found], "links": links})

    def job(self, request: Request) -> Response:
        """How a job stands (7.12)."""
        job = self._own(request, holder_of(request, self.service))
        told = [{"at": _text(at), "text": text} for at, text in self.service.jobs.messages(job.id)]
        status = self._status(job, base_of(request))
        status["links"] += previews.preview_links(self.service, job, base_of(request))
        if told and job.fault is None:
            status["message"] = told[-1]["text"]
        return JSONResponse({**status, "messages": told})

    def dismiss(self, request: Request) -> Response:
        """The job, dismissed (13): work stops, and its results are no longer given."""
        holder = holder_of(request, self.service)
        job = self._own(request, holder)
        if not holder.may_submit:
            raise ProblemError(problem(403, "Not with this token", f"a {holder.role} may not dismiss jobs"))
        if not self.service.jobs.dismiss(job.id):
            raise ProblemError(problem(410, "Gone", "the job was dismissed before", kind="dismissed"))
        dismissed = self.service.jobs.get(job.id) or job
        return JSONResponse(self._status(dismissed, base_of(request)))

    def results(self, request: Request) -> Response:
        """What a job came to (7.13), as a document: small outputs by value, files by their address."""
        job, storage = self._finished(request)
        outputs = PROCESSES[job.process].outputs
        return JSONResponse({name: _result(job, storage, name, base=base_of(request)) for name in outputs})

    def output(self, request: Request) -> Response:
        """One file of the results; of a disaster run that of the latest pass, or of the one named by `pass`."""
        job, storage = self._finished(request)
        output = PROCESSES[job.process].outputs.get(request.path_params["output"])
        if output is None:
            raise ProblemError(problem(404, "No such output", "the process has no output of this name"))
        try:
            path = PROCESSES[job.process].place(output, storage, part=request.query_params.get("pass"))
            return part_of(request, storage, path, media_type=output.media_type, headers=UNTRUSTED)
        except FileNotFoundError:
            raise ProblemError(problem(404, "No such output", "this run has no such file")) from None

    def _own(self, request: Request, holder: Holder) -> JobRecord:
        return seen_job(request.path_params["job"], holder, self.service.jobs)

    def _finished(self, request: Request) -> tuple[JobRecord, Storage]:
        job = self._own(request, holder_of(request, self.service))
        return job, results_of(job)

    def _status(self, job: JobRecord, base: str) -> dict[str, Any]:
        """statusInfo.yaml."""
        times = {"created": job.created, "started": job.started, "finished": job.finished, "updated": job.updated}
        links = [link_to(base, f"/jobs/{job.id}", "self", "This job")]
        if job.status is Status.SUCCESSFUL:
            links.append(link_to(base, f"/jobs/{job.id}/results", f"{_REL}results", "What it came to"))
        return {
            "processID": job.process,
            "type": "process",
            "jobID": job.id,
            "status": job.status,
            **({"message": job.fault["detail"]} if job.fault else {}),
            **{name: _text(time) for name, time in times.items() if time is not None},
            "progress": job.progress,
            "links": links,
        }


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────


def _process(request: Request) -> Process:
    """The process of the path. Raises ProblemError for none."""
    process = PROCESSES.get(request.path_params["process"])
    if process is None:
        detail = f"there is no such process; expected {', '.join(PROCESSES)}"
        raise ProblemError(problem(404, "No such process", detail, kind=NO_SUCH_PROCESS))
    return process


def _patience(request: Request) -> float:
    """Seconds that who asks is ready to wait (RFC 7240, 4.3); as long as it takes where that is not said."""
    said = re.search(r"(?:^|[,;\s])wait\s*=\s*([0-9]{1,6})", request.headers.get("prefer", ""))
    return max(1.0, float(said[1])) if said else math.inf


def _limit(request: Request) -> int:
    """How many are asked for; more than there may be is taken as that. Raises ProblemError."""
    limit = whole_number(request, "limit")
    if limit == 0:
        raise parameter_problem("limit", f"a whole number from 1 to {JOB_LIMIT_MOST}")
    return min(limit or JOB_LIMIT, JOB_LIMIT_MOST)


def _several(request: Request, name: str) -> list[str]:
    """The values of a parameter that may be given several times, or with commas."""
    return [value for text in request.query_params.getlist(name) for value in text.split(",")]


def _selection(request: Request, holder: Holder) -> Selection:
    """The jobs that a query means (11.1). Raises ProblemError."""
    try:
        statuses = [Status(text) for text in _several(request, "status")]
    except ValueError:
        raise parameter_problem("status", ", ".join(Status)) from None
    if set(_several(request, "type")) - {"process"}:
        raise parameter_problem("type", "process")
    after = request.query_params.get("after")
    if after is not None and not is_job_id(after):
        raise parameter_problem("after", "the id of a job")
    return Selection(
        owner=None if holder.sees_all else holder.owner,
        statuses=statuses,
        processes=[name if name in PROCESSES else "" for name in _several(request, "processID")],  # "" is nobody's
        created=_interval(request),
        least_s=whole_number(request, "minDuration"),
        most_s=whole_number(request, "maxDuration"),
        after=after,
        limit=_limit(request),
    )


def _interval(request: Request) -> tuple[datetime.datetime | None, datetime.datetime | None]:
    """When the jobs that are meant were accepted. Raises ProblemError."""
    text = request.query_params.get("datetime")
    if text is None:
        return (None, None)
    try:
        interval = parse_datetime(text)
    except BadRequestError as error:
        raise parameter_problem("datetime", str(error)) from None
    return interval.start, interval.end


# ── links and values ─────────────────────────────────────────────────────────────────────────────────────────


def _process_links(process: Process, base: str) -> list[dict[str, str]]:
    path = f"/processes/{process.id}"
    return [
        link_to(base, path, "self", process.title),
        link_to(base, f"{path}/execution", f"{_REL}execute", "Ask for it: POST"),
    ]


def _result(job: JobRecord, storage: Storage, name: str, *, base: str) -> dict[str, Any]:
    """One output of a finished job. Raises StorageError for a run folder that lacks what every run has."""
    process = PROCESSES[job.process]
    output = process.outputs[name]
    if not output.by_value:
        address = f"/jobs/{job.id}/results/{name}"
        return link_to(base, address, "item", output.title, media_type=output.media_type)
    try:
        found = storage.read(process.place(output, storage))
        return {"value": json.loads(found), "mediaType": output.media_type}
    except (FileNotFoundError, ValueError) as error:
        raise StorageError(f"{storage.locate(output.path)} is not there, or is damaged") from error


def _text(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
