"""The service over HTTP: OGC API – Processes, Part 1: Core (18-062r2), as an ASGI application.

Starlette, not FastAPI: the document of the API must be OpenAPI 3.0 with the very schemas of the process descriptions,
which `earthmap.service.openapi` writes from the same records as the answers.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from earthmap.catalog import parse_datetime
from earthmap.errors import BadRequestError, JobError, StorageError
from earthmap.service.errors import (
    NO_SUCH_JOB,
    NO_SUCH_PROCESS,
    NOT_READY,
    ProblemError,
    problem,
)
from earthmap.service.jobs import Foreman
from earthmap.service.openapi import CONFORMANCE, JOB_LIMIT, JOB_LIMIT_MOST, document
from earthmap.service.processes import (
    PROCESSES,
    Offer,
    Process,
    describe,
    parse_execution,
    summary_of,
)
from earthmap.service.state import JobRecord, JobStore, Selection, Status
from earthmap.service.tokens import Holder, Quotas, Role, TokenStore
from earthmap.storage import Storage

MAX_BODY = 4_000_000
"""Bytes of a request: an area of some hundred thousand corners."""

ANYBODY = Holder(id="local", owner="local", role=Role.OPERATOR)
"""Who asks a service without tokens, which only this machine can reach."""

_REL = "http://www.opengis.net/def/rel/ogc/1.0/"
_UNTRUSTED = {"Content-Security-Policy": "sandbox allow-scripts", "X-Content-Type-Options": "nosniff"}
"""A page of results shows what strangers wrote: it must not act as a page of this service."""
_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_log = logging.getLogger("earthmap.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the application serves."""

    jobs: JobStore
    offer: Offer
    tokens: TokenStore | None = None
    """None only on loopback: whoever reaches the service may do everything."""
    foreman: Foreman | None = None
    """Runs the jobs in this process; None where others do."""


def check_address(host: str, tokens: TokenStore | None) -> None:
    """Raises JobError for a service that others can reach and everybody may use."""
    if not is_loopback(host) and (tokens is None or not any(one.revoked is None for one in tokens.all())):
        raise JobError(
            f"the service would listen on {host} and let everybody in",
            expected="tokens, wherever others can reach it",
            fix="make a token first, or listen on 127.0.0.1",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`: `localhost`, 127.0.0.0/8 or ::1."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def create_app(service: Service) -> Starlette:
    """The application. It starts and stops the foreman, where there is one, with itself."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if service.foreman is not None:
            service.foreman.start()
        yield
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
    ]
    handlers: dict[Any, Callable[..., Response]] = {
        ProblemError: _problem_response,
        HTTPException: _http_response,
        StorageError: _storage_response,
        Exception: _defect_response,
    }
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)


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


def _no_job() -> ProblemError:
    return ProblemError(problem(404, "No such job", "there is no such job, or it is not yours", kind=NO_SUCH_JOB))


def _query_problem(name: str, expected: str) -> ProblemError:
    return ProblemError(problem(400, "A parameter cannot be read", f"{name}: expected {expected}", kind="parameter"))


# ── who asks ─────────────────────────────────────────────────────────────────────────────────────────────────


def _holder(request: Request, tokens: TokenStore | None) -> Holder:
    """Who asks. Raises ProblemError: 401 without a valid token; 403 where a page elsewhere could be behind it."""
    if tokens is None:
        # A page from elsewhere can make a browser ask this machine under that page's own name (DNS rebinding).
        if not is_loopback(request.url.hostname or ""):
            raise ProblemError(problem(403, "Not from here", "this service answers to the name localhost only"))
        return ANYBODY
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    holder = tokens.check(text.strip()) if scheme.lower() == "bearer" else None
    if holder is None:
        told = problem(401, "Who are you?", "expected a token that is valid: Authorization: Bearer TOKEN")
        raise ProblemError(told, {"WWW-Authenticate": "Bearer"})
    return holder


def _within(quotas: Quotas, *, area_km2: float) -> None:
    """Raises ProblemError for more ground than the token allows."""
    if quotas.area_km2 is not None and area_km2 > quotas.area_km2:
        detail = f"the area has {area_km2:,.1f} km²; this token allows {quotas.area_km2:,.1f} km² a job"
        raise ProblemError(problem(403, "More than the quota", detail, kind="quota"))


# ── what is answered ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Desk:
    """One method a resource."""

    service: Service

    def landing_page(self, request: Request) -> Response:
        """Links to everything else (7.2)."""
        base = _base(request)
        links = [
            _link(base, "/", "self", "This document"),
            _link(base, "/api", "service-desc", "The API", media_type="application/vnd.oai.openapi+json;version=3.0"),
            _link(base, "/conformance", f"{_REL}conformance", "What this service conforms to"),
            _link(base, "/processes", f"{_REL}processes", "What can be asked"),
            _link(base, "/jobs", f"{_REL}job-list", "What was asked"),
        ]
        about = "Answers questions about areas of the Earth with satellite imagery."
        return JSONResponse({"title": "earthmap", "description": about, "links": links})

    def conformance(self, _: Request) -> Response:
        """What is declared, all of it tested (7.4)."""
        return JSONResponse({"conformsTo": list(CONFORMANCE)})

    def api(self, request: Request) -> Response:
        """The OpenAPI 3.0 document (7.3)."""
        found = document(self.service.offer, base=_base(request), secured=self.service.tokens is not None)
        return JSONResponse(found, media_type="application/vnd.oai.openapi+json;version=3.0")

    def processes(self, request: Request) -> Response:
        """What can be asked (7.7)."""
        _holder(request, self.service.tokens)
        limit, base = _limit(request), _base(request)
        shown = [{**summary_of(one), "links": _process_links(one, base)} for one in PROCESSES.values()][:limit]
        return JSONResponse({"processes": shown, "links": [_link(base, "/processes", "self", "This document")]})

    def process(self, request: Request) -> Response:
        """One process, with its inputs and outputs (7.8)."""
        _holder(request, self.service.tokens)
        process = _process(request)
        return JSONResponse({**describe(process, self.service.offer), "links": _process_links(process, _base(request))})

    async def execute(self, request: Request) -> Response:
        """A new job (7.11): always asynchronous, whatever is preferred."""
        holder = await run_in_threadpool(_holder, request, self.service.tokens)
        process = _process(request)
        if not holder.may_submit:
            raise ProblemError(problem(403, "Not with this token", f"a {holder.role} may not ask for jobs"))
        body = await _body(request)
        job = await run_in_threadpool(self._submit, process, body, holder)
        address = f"{_base(request)}/jobs/{job.id}"
        headers = {"Location": address}
        if "respond-async" in request.headers.get("prefer", ""):
            headers["Preference-Applied"] = "respond-async"
        return JSONResponse(self._status(job, _base(request)), 201, headers)

    def _submit(self, process: Process, body: bytes, holder: Holder) -> JobRecord:
        checked = parse_execution(process, body, self.service.offer)
        quotas = holder.quotas
        _within(quotas, area_km2=checked.job.area.area_km2)
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
        holder = _holder(request, self.service.tokens)
        base, chosen = _base(request), _selection(request, holder)
        found = self.service.jobs.page(chosen)
        links = [{**_link(base, "/jobs", "self", "This document"), "href": str(request.url)}]
        if len(found) == chosen.limit:
            further = str(request.url.include_query_params(after=found[-1].id))
            links.append({**_link(base, "/jobs", "next", "Older jobs"), "href": further})
        return JSONResponse({"jobs": [self._status(job, base) for job in found], "links": links})

    def job(self, request: Request) -> Response:
        """How a job stands (7.12)."""
        job = self._own(request, _holder(request, self.service.tokens))
        told = [{"at": _text(at), "text": text} for at, text in self.service.jobs.messages(job.id)]
        status = self._status(job, _base(request))
        if told and job.fault is None:
            status["message"] = told[-1]["text"]
        return JSONResponse({**status, "messages": told})

    def dismiss(self, request: Request) -> Response:
        """The job, dismissed (13): work stops, and its results are no longer given."""
        holder = _holder(request, self.service.tokens)
        job = self._own(request, holder)
        if not holder.may_submit:
            raise ProblemError(problem(403, "Not with this token", f"a {holder.role} may not dismiss jobs"))
        if not self.service.jobs.dismiss(job.id):
            raise ProblemError(problem(410, "Gone", "the job was dismissed before", kind="dismissed"))
        dismissed = self.service.jobs.get(job.id) or job
        return JSONResponse(self._status(dismissed, _base(request)))

    def results(self, request: Request) -> Response:
        """What a job came to (7.13), as a document: small outputs by value, files by their address."""
        job, storage = self._finished(request)
        outputs = PROCESSES[job.process].outputs
        return JSONResponse({name: _result(job, storage, name, base=_base(request)) for name in outputs})

    def output(self, request: Request) -> Response:
        """One file of the results."""
        job, storage = self._finished(request)
        output = PROCESSES[job.process].outputs.get(request.path_params["output"])
        if output is None:
            raise ProblemError(problem(404, "No such output", "the process has no output of this name"))
        path = Path(storage.address) / output.path
        if storage.is_local and path.is_file():
            return FileResponse(path, media_type=output.media_type, headers=_UNTRUSTED)
        try:
            return Response(storage.read(output.path), media_type=output.media_type, headers=_UNTRUSTED)
        except FileNotFoundError:
            raise ProblemError(problem(404, "No such output", "this run has no such file")) from None

    def _finished(self, request: Request) -> tuple[JobRecord, Storage]:
        """A job that has results, and where. Raises ProblemError for one that has none, and why."""
        job = self._own(request, _holder(request, self.service.tokens))
        if job.status is Status.FAILED:
            raise ProblemError(job.fault or problem(500, "Failed", "nobody knows why"))
        if job.status is Status.DISMISSED:
            raise ProblemError(problem(410, "Gone", "the job was dismissed", kind="dismissed"))
        if job.result is None:
            raise ProblemError(problem(404, "Not ready", f"the job is {job.status}", kind=NOT_READY))
        return job, Storage(job.result)

    def _own(self, request: Request, holder: Holder) -> JobRecord:
        """The job of the path. Raises ProblemError for one that is not there or not the holder's, which look alike."""
        job_id = request.path_params["job"]
        job = self.service.jobs.get(job_id) if _JOB_ID.fullmatch(job_id) else None
        if job is None or not (holder.sees_all or job.owner == holder.owner):
            raise _no_job()
        return job

    def _status(self, job: JobRecord, base: str) -> dict[str, Any]:
        """statusInfo.yaml."""
        times = {"created": job.created, "started": job.started, "finished": job.finished, "updated": job.updated}
        links = [_link(base, f"/jobs/{job.id}", "self", "This job")]
        if job.status is Status.SUCCESSFUL:
            links.append(_link(base, f"/jobs/{job.id}/results", f"{_REL}results", "What it came to"))
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


async def _body(request: Request) -> bytes:
    """The JSON of a request, unparsed. Raises ProblemError for what is too large, or said to be something else.

    A form of another page can send a browser's user here with any other media type, and with this one it cannot.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ProblemError(problem(415, "Not this media type", "expected Content-Type: application/json"))
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise ProblemError(problem(413, "Too large", f"expected {MAX_BODY:,} bytes at most; simplify the area"))
        parts.append(part)
    return b"".join(parts)


def _process(request: Request) -> Process:
    """The process of the path. Raises ProblemError for none."""
    process = PROCESSES.get(request.path_params["process"])
    if process is None:
        detail = f"there is no such process; expected {', '.join(PROCESSES)}"
        raise ProblemError(problem(404, "No such process", detail, kind=NO_SUCH_PROCESS))
    return process


def _number(request: Request, name: str) -> int | None:
    """A whole number of the query, not negative; None where it is not given. Raises ProblemError."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise _query_problem(name, "a whole number")
    return int(text)


def _limit(request: Request) -> int:
    """How many are asked for; more than there may be is taken as that. Raises ProblemError."""
    limit = _number(request, "limit")
    if limit == 0:
        raise _query_problem("limit", f"a whole number from 1 to {JOB_LIMIT_MOST}")
    return min(limit or JOB_LIMIT, JOB_LIMIT_MOST)


def _several(request: Request, name: str) -> list[str]:
    """The values of a parameter that may be given several times, or with commas."""
    return [value for text in request.query_params.getlist(name) for value in text.split(",")]


def _selection(request: Request, holder: Holder) -> Selection:
    """The jobs that a query means (11.1). Raises ProblemError."""
    try:
        statuses = [Status(text) for text in _several(request, "status")]
    except ValueError:
        raise _query_problem("status", ", ".join(Status)) from None
    if set(_several(request, "type")) - {"process"}:
        raise _query_problem("type", "process")
    after = request.query_params.get("after")
    if after is not None and not _JOB_ID.fullmatch(after):
        raise _query_problem("after", "the id of a job")
    return Selection(
        owner=None if holder.sees_all else holder.owner,
        statuses=statuses,
        processes=[name if name in PROCESSES else "" for name in _several(request, "processID")],  # "" is nobody's
        created=_interval(request),
        least_s=_number(request, "minDuration"),
        most_s=_number(request, "maxDuration"),
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
        raise _query_problem("datetime", str(error)) from None
    return interval.start, interval.end


# ── links and values ─────────────────────────────────────────────────────────────────────────────────────────


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _link(base: str, path: str, rel: str, title: str, *, media_type: str = "application/json") -> dict[str, str]:
    """link.yaml."""
    return {"href": f"{base}{path}", "rel": rel, "type": media_type, "title": title}


def _process_links(process: Process, base: str) -> list[dict[str, str]]:
    path = f"/processes/{process.id}"
    return [
        _link(base, path, "self", process.title),
        _link(base, f"{path}/execution", f"{_REL}execute", "Ask for it: POST"),
    ]


def _result(job: JobRecord, storage: Storage, name: str, *, base: str) -> dict[str, Any]:
    """One output of a finished job. Raises StorageError for a run folder that lacks what every run has."""
    output = PROCESSES[job.process].outputs[name]
    if not output.by_value:
        address = f"/jobs/{job.id}/results/{name}"
        return _link(base, address, "item", output.title, media_type=output.media_type)
    try:
        return {"value": json.loads(storage.read(output.path)), "mediaType": output.media_type}
    except (FileNotFoundError, ValueError) as error:
        raise StorageError(f"{storage.locate(output.path)} is not there, or is damaged") from error


def _text(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
