"""The cube of a finished job, read-only over HTTP: the groups that its run's plan names, and nothing beside them.

`/jobs/{job}/cube` says which there are; below it each object of a group has the path that it has in the store, and is
given in parts (RFC 9110, 14), so that a client's Zarr fetches what it touches. What is asked for is looked up among the
names that the plan and the group's own manifest have, and never followed: no other path exists.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from earthmap.cube import CellManifest, find_cell
from earthmap.errors import StorageError
from earthmap.pipeline.folder import JOB_PATH
from earthmap.pipeline.groups import named_paths, run_groups
from earthmap.pipeline.plan import Plan, read_plan
from earthmap.service.access import Service, base_of, holder_of, link_to, results_of, seen_job
from earthmap.service.errors import ProblemError, problem
from earthmap.service.parts import part_of
from earthmap.service.processes import PROCESSES
from earthmap.service.state import JobRecord
from earthmap.storage import Storage

_OBJECT = re.compile(r"(cube/[^/~]+/[^/~]+)(~x[0-9]+)?/(.+)")
"""Path of a group, the mark of a read with failures, and an object of it."""


def routes(service: Service) -> list[Route]:
    """The list of a cube's groups, and their objects."""
    cubes = _Cubes(service)
    return [Route("/jobs/{job}/cube", cubes.groups), Route("/jobs/{job}/cube/{path:path}", cubes.part)]


def paths(refused: dict[str, Any]) -> dict[str, Any]:
    """Both in the document of the API; `refused` is what it says of a problem."""
    job, path = (
        {"name": name, "in": "path", "required": True, "description": about, "schema": {"type": "string"}}
        for name, about in (("job", "Id of a job."), ("path", "Path of an object, with its slashes."))
    )
    whole = {"type": "string", "format": "binary"}
    listed = {"200": {"description": "The groups", "content": {"application/json": {"schema": {"type": "object"}}}}}
    given = {
        status: {"description": about, "content": {"application/octet-stream": {"schema": whole}}}
        for status, about in (("200", "The object"), ("206", "The part of it that Range asks for"))
    }
    return {
        "/jobs/{job}/cube": {
            "parameters": [job],
            "get": {"operationId": "cube", "summary": "What the cube holds", "responses": {**listed, **refused}},
        },
        "/jobs/{job}/cube/{path}": {
            "parameters": [job, path],
            "get": {
                "operationId": "cube-object",
                "summary": "An object of the cube (Zarr v3), or a part of it",
                "responses": {**given, **refused},
            },
        },
    }


@dataclass(frozen=True, slots=True)
class _Cubes:
    service: Service

    def groups(self, request: Request) -> Response:
        """Which groups there are, each with its manifest but for what is the store's own."""
        job, run = self._run(request)
        told = [
            {"path": group.path, "manifest": _told(group.manifest)} for group in run_groups(_store(run), _plan(run))
        ]
        return JSONResponse(
            {"groups": told, "links": [link_to(base_of(request), f"/jobs/{job.id}/cube", "self", "This document")]}
        )

    def part(self, request: Request) -> Response:
        """One object of a group, or the range of it that is asked for."""
        _, run = self._run(request)
        match = _OBJECT.fullmatch(f"cube/{request.path_params['path']}")
        if match is None or match[1] not in _named(run.address):
            raise _absent()
        store, group = _store(run), f"{match[1]}{match[2] or ''}"
        digest = _objects(store.address, group).get(match[3])
        if digest is None:
            raise _absent()
        return _given(request, store, f"{group}/{match[3]}", tag=f'"{digest}"')

    def _run(self, request: Request) -> tuple[JobRecord, Storage]:
        """The job, and its run folder. Raises ProblemError for one that is not seen, or has no results."""
        job = seen_job(request.path_params["job"], holder_of(request, self.service), self.service.jobs)
        storage = results_of(job)
        try:
            folder = PROCESSES[job.process].folder(storage).rstrip("/")
        except FileNotFoundError:
            raise _absent() from None
        return job, storage.sub(folder) if folder else storage


def _absent() -> ProblemError:
    return ProblemError(problem(404, "Not in the cube", "the cube of this job holds no such object", kind="cube"))


def _plan(run: Storage) -> Plan:
    plan = read_plan(run)
    if plan is None:
        raise _absent()  # a job that reads no pixels
    return plan


def _store(run: Storage) -> Storage:
    """Where the run's cube is."""
    try:
        job: Mapping[str, Any] = json.loads(run.read(JOB_PATH))["job"]
    except FileNotFoundError:
        raise _absent() from None
    return Storage(job.get("store") or f"{run.address}/store")


@functools.lru_cache(maxsize=16)
def _named(run: str) -> frozenset[str]:
    """Paths of the groups that the plan of a finished run names; it does not change any more."""
    return named_paths(_plan(Storage(run)))


@functools.lru_cache(maxsize=1024)
def _objects(store: str, group: str) -> Mapping[str, str]:
    """SHA-256 of each object of a group, which never changes. Raises ProblemError where no group counts."""
    manifest = find_cell(Storage(store), group)
    if manifest is None:
        raise _absent()
    return manifest.checksums


def _told(manifest: CellManifest) -> Any:
    """A manifest without failures, whose messages name where files are, and without the list of its objects."""
    return json.loads(dataclasses.replace(manifest, failures=(), replaced=(), checksums={}).to_json())


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _given(request: Request, store: Storage, path: str, *, tag: str) -> Response:
    """The object at `path`, or the part of it that is asked for. Raises ProblemError: 416 for one beyond its end."""
    kept = {"Cache-Control": "private, max-age=86400, immutable"}
    try:
        return part_of(request, store, path, media_type="application/octet-stream", tag=tag, headers=kept)
    except FileNotFoundError as error:
        raise StorageError(f"{store.locate(path)} is not there any more") from error
