"""Who asks and what they see: one check for every resource of the service, whatever standard it follows."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from starlette.requests import Request

from earthmap.errors import JobError
from earthmap.service.asking import Asking
from earthmap.service.egress_counts import EgressCounter
from earthmap.service.errors import NO_SUCH_JOB, NOT_READY, ProblemError, problem
from earthmap.service.jobs import Foreman
from earthmap.service.metrics import ServiceMetrics
from earthmap.service.processes import Offer, Scope
from earthmap.service.state import JobRecord, JobStore, Status
from earthmap.service.tokens import Holder, Role, TokenStore
from earthmap.storage import Storage

ANYBODY = Holder(id="local", owner="local", role=Role.OPERATOR)
"""Who asks a service without tokens, which only this machine can reach."""

MAX_BODY = 4_000_000
"""Bytes of a request: an area of some hundred thousand corners."""

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the application serves."""

    jobs: JobStore
    offer: Offer
    tokens: TokenStore | None = None
    """None only on loopback: whoever reaches the service may do everything."""
    foreman: Foreman | None = None
    """Runs the jobs in this process; None where others do."""
    asking: Asking | None = None
    """Answers questions about one place; None where nobody does."""
    root: str | None = None
    """Address below which each job has its folder, named by its id; None where that is not known here, so that what
    running jobs have so far is not shown."""
    metrics: ServiceMetrics = field(default_factory=ServiceMetrics)
    """What it counts."""
    egress: EgressCounter | None = None
    """What the proxy of its runs counts; None where there is none in this process."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`: `localhost`, 127.0.0.0/8 or ::1."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_job_id(text: str) -> bool:
    """Whether it has the form of a job's id."""
    return _JOB_ID.fullmatch(text) is not None


def holder_of(request: Request, service: Service) -> Holder:
    """Who asks. Raises ProblemError: 401 without a valid token; 403 where a page elsewhere could be behind it."""
    if service.tokens is None:
        # A page from elsewhere can make a browser ask this machine under that page's own name (DNS rebinding).
        if not is_loopback(request.url.hostname or ""):
            raise ProblemError(problem(403, "Not from here", "this service answers to the name localhost only"))
        return ANYBODY
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    holder = service.tokens.check(text.strip()) if scheme.lower() == "bearer" else None
    if holder is None:
        told = problem(401, "Who are you?", "expected a token that is valid: Authorization: Bearer TOKEN")
        raise ProblemError(told, {"WWW-Authenticate": "Bearer"})
    return holder


def seen_job(job_id: str, holder: Holder, jobs: JobStore) -> JobRecord:
    """The job. Raises ProblemError: 404 for one that is not there or not the holder's, which look alike."""
    job = jobs.get(job_id) if is_job_id(job_id) else None
    if job is None or not (holder.sees_all or job.owner == holder.owner):
        raise ProblemError(problem(404, "No such job", "there is no such job, or it is not yours", kind=NO_SUCH_JOB))
    return job


def results_of(job: JobRecord) -> Storage:
    """The run folder of a job that has results. Raises ProblemError for one that has none, and why."""
    if job.status is Status.FAILED:
        raise ProblemError(dict(job.fault or problem(500, "Failed", "nobody knows why")))
    if job.status is Status.DISMISSED:
        raise ProblemError(problem(410, "Gone", "the job was dismissed", kind="dismissed"))
    if job.result is None:
        raise ProblemError(problem(404, "Not ready", f"the job is {job.status}", kind=NOT_READY))
    return Storage(job.result)


def scope_of(service: Service, holder: Holder) -> Scope:
    """What a request of `holder` may name: what the operator offers, and finished jobs that the holder may see."""

    def find(job_id: str) -> JobRecord:
        try:
            job = seen_job(job_id, holder, service.jobs)
            results_of(job)
        except ProblemError as error:
            said = error.document["detail"]
            raise JobError(f"the job {job_id[:40]} cannot be used: {said}", expected="a job with results") from None
        return job

    return Scope(offer=service.offer, find=find, root=service.root)


async def body_of(request: Request) -> bytes:
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


def base_of(request: Request) -> str:
    """The address of the service as who asks knows it, without a slash at its end."""
    return str(request.base_url).rstrip("/")


def link_to(base: str, path: str, rel: str, title: str, *, media_type: str = "application/json") -> dict[str, str]:
    """link.yaml: a link to `path` of the service."""
    return {"href": f"{base}{path}", "rel": rel, "type": media_type, "title": title}


def parameter_problem(name: str, expected: str) -> ProblemError:
    """400 for a parameter of the query that cannot be read."""
    return ProblemError(problem(400, "A parameter cannot be read", f"{name}: expected {expected}", kind="parameter"))


def whole_number(request: Request, name: str) -> int | None:
    """A whole number of the query, not negative; None where it is not given. Raises ProblemError."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise parameter_problem(name, "a whole number")
    return int(text)
