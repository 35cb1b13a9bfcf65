"""What a running job has so far: files that are replaced whole, again and again, until its results are there.

The standard gives no results of a running job (18-062r2, 7.13), so that these have addresses of their own, which the
status of the job links to as `preview` (RFC 6903).
"""

from __future__ import annotations

import contextlib
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from earthmap.service.access import Service, holder_of, link_to, seen_job
from earthmap.service.errors import ProblemError, problem
from earthmap.service.operations import fetches, named
from earthmap.service.processes import PROCESSES
from earthmap.service.state import JobRecord, Status
from earthmap.storage import Storage

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def routes(service: Service) -> list[Route]:
    """Where they are."""

    def preview(request: Request) -> Response:
        """One of them, whole whenever it is read."""
        job = seen_job(request.path_params["job"], holder_of(request, service), service.jobs)
        name, folder, process = request.path_params["output"], _folder(service, job), PROCESSES.get(job.process)
        try:
            if folder is None or process is None:
                raise FileNotFoundError(job.id)
            content = folder.read(process.place_now(name, folder))
        except FileNotFoundError:
            detail = f"the job is {job.status}, and has nothing of this name to look at before its end"
            raise ProblemError(problem(404, "Nothing to look at", detail, kind="preview")) from None
        return Response(content, media_type=process.outputs[name].media_type, headers=_HEADERS)

    return [Route("/jobs/{job}/preview/{output}", preview)]


def preview_paths() -> dict[str, Any]:
    """The same in the document of the API."""
    parts = [named("job", "Id of a job."), named("output", "Name of an output that grows.")]
    about = "One file of what a running job has so far"
    return {"/jobs/{job}/preview/{output}": {"parameters": parts, "get": fetches("preview", about)}}


def preview_links(service: Service, job: JobRecord, base: str) -> list[dict[str, str]]:
    """Links to what a running job has so far; none for any other."""
    folder, process = _folder(service, job), PROCESSES.get(job.process)
    if folder is None or process is None or process.growing is None:
        return []
    found = []
    for name in process.growing.outputs:
        with contextlib.suppress(FileNotFoundError):
            if folder.exists(process.place_now(name, folder)):
                output = process.outputs[name]
                title, path = f"{output.title}, so far", f"/jobs/{job.id}/preview/{name}"
                found.append(link_to(base, path, "preview", title, media_type=output.media_type))
    return found


def _folder(service: Service, job: JobRecord) -> Storage | None:
    """The folder of a running job; None where it does not run, or nobody here knows where its folder is."""
    if service.root is None or job.status is not Status.RUNNING:
        return None
    return Storage(f"{service.root}/{job.id}")
