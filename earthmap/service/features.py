"""Results as collections of features: OGC API – Features, Part 1: Core (17-069r4), which QGIS opens.

Each finished run is two collections: what was found, and what was seen. Their features come straight from the
GeoParquet files of the run (`earthmap.service.feature_files`); numbers in brackets are sections of the standard.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from earthmap.catalog.intervals import format_time
from earthmap.service.access import Service, base_of, holder_of, link_to, parameter_problem, results_of, seen_job
from earthmap.service.errors import ProblemError, problem
from earthmap.service.feature_files import FeatureFile, Wanted, open_features
from earthmap.service.feature_paths import COLLECTION_LIMIT, COLLECTION_LIMIT_MOST, GEOJSON, LIMIT, LIMIT_MOST, SCHEMA
from earthmap.service.finished import Finished, FinishedRuns, Sought
from earthmap.service.parameters import Box, boxes_of, interval_of, limit_of, only_parameters
from earthmap.service.processes.inputs import CRS84
from earthmap.service.state import Status
from earthmap.service.tokens import Holder

_UNTRUSTED = {"X-Content-Type-Options": "nosniff"}

_ID = re.compile(r"(.*)-(features|coverage)")

_DIGITS = 1e7
"""Steps of a degree that coordinates are rounded to; extents are rounded outwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One of the collections that each run is."""

    output: str
    title: str
    description: str


KINDS: Mapping[str, Kind] = {
    "features": Kind(
        output="features",
        title="found",
        description="What was found on the ground, one feature each; the columns are those of features.parquet.",
    ),
    "coverage": Kind(
        output="coverage",
        title="seen",
        description="What was seen, and why where it was not: one feature for each tile, question and observation.",
    ),
}
"""By the word that a collection's id ends with."""


def routes(service: Service) -> list[Route]:
    """The resources of the standard below the landing page."""
    desk = _Desk(service, FinishedRuns(service.jobs.database))
    return [
        Route("/collections", desk.collections),
        Route("/collections/{collection}", desk.collection),
        Route("/collections/{collection}/schema", desk.schema),
        Route("/collections/{collection}/items", desk.items),
        Route("/collections/{collection}/items/{feature}", desk.item),
    ]


def collection_id(job_id: str, kind: str) -> str:
    """The id of the collection of a job; `kind` is one of KINDS."""
    return f"{job_id}-{kind}"


@dataclass(frozen=True, slots=True)
class _Desk:
    """One method a resource."""

    service: Service
    runs: FinishedRuns

    def collections(self, request: Request) -> Response:
        """The collections that the asker may see, those of the last finished run first (7.13)."""
        holder = holder_of(request, self.service)
        only_parameters(request, "limit", "after")
        limit = limit_of(request, usual=COLLECTION_LIMIT, most=COLLECTION_LIMIT_MOST)
        base, sought = base_of(request), Sought(owner=_owner(holder))
        try:
            page = self.runs.page(sought, limit=limit, after=request.query_params.get("after"))
        except ValueError:
            raise parameter_problem("after", "what the page before says") from None
        links = [{**link_to(base, "/collections", "self", "This document"), "href": str(request.url)}]
        if page.next is not None:
            links.append(_next(request, page.next, "application/json"))
        shown = [_described(run, kind, base) for run in page.runs for kind in KINDS]
        return JSONResponse({"links": links, "collections": shown}, headers=_UNTRUSTED)

    def collection(self, request: Request) -> Response:
        """One collection (7.14)."""
        only_parameters(request)
        run, kind = self._collection(request)
        return JSONResponse(_described(run, kind, base_of(request)), headers=_UNTRUSTED)

    def schema(self, request: Request) -> Response:
        """JSON Schema of the features of a collection: without it GDAL guesses types from what comes first."""
        only_parameters(request)
        run, kind = self._collection(request)
        with _file_of(run, kind) as file:
            properties = file.properties
        about = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"{base_of(request)}/collections/{collection_id(run.job, kind)}/schema",
            "type": "object",
            "title": run.title,
            "properties": {
                "type": {"const": "Feature"},
                "id": {"type": "integer"},
                "geometry": {"$ref": "https://geojson.org/schema/Geometry.json"},
                "properties": {"type": "object", "properties": properties},
            },
        }
        return JSONResponse(about, media_type=SCHEMA, headers=_UNTRUSTED)

    def items(self, request: Request) -> Response:
        """A page of features (7.15 and 7.16)."""
        run, kind = self._collection(request)
        with _file_of(run, kind) as file:
            only_parameters(request, "limit", "after", "bbox", "datetime", more=file.filters)
            limit, after = limit_of(request, usual=LIMIT, most=LIMIT_MOST), _after(request)
            page = file.page(_wanted(request, file), limit=limit, after=after)
        base = base_of(request)
        collection = f"/collections/{collection_id(run.job, kind)}"
        links = [
            {**link_to(base, "", "self", "This document", media_type=GEOJSON), "href": str(request.url)},
            link_to(base, collection, "collection", "The collection"),
        ]
        if not page.is_last:
            links.append(_next(request, str(page.last), GEOJSON))
        about = {
            "timeStamp": format_time(datetime.datetime.now(datetime.UTC)),
            "numberMatched": page.matched,
            "numberReturned": len(page.features),
            "links": links,
        }
        rest = json.dumps(about)[1:]
        body = f'{{"type":"FeatureCollection","features":[{",".join(page.features)}],{rest}'
        return Response(body, media_type=GEOJSON, headers=_UNTRUSTED)

    def item(self, request: Request) -> Response:
        """One feature (7.17)."""
        only_parameters(request)
        run, kind = self._collection(request)
        number = request.path_params["feature"]
        with _file_of(run, kind) as file:
            text = file.one(int(number)) if re.fullmatch(r"[1-9][0-9]{0,17}", number) else None
        if text is None:
            raise ProblemError(problem(404, "No such feature", "the collection has no feature of this id"))
        collection, base = f"/collections/{collection_id(run.job, kind)}", base_of(request)
        links = [
            link_to(base, f"{collection}/items/{number}", "self", "This document", media_type=GEOJSON),
            link_to(base, collection, "collection", "The collection"),
        ]
        return Response(f'{text[:-1]},"links":{json.dumps(links)}}}', media_type=GEOJSON, headers=_UNTRUSTED)

    def _collection(self, request: Request) -> tuple[Finished, str]:
        """The run of the path's collection, and which of the two it is. Raises ProblemError."""
        holder = holder_of(request, self.service)
        match = _ID.fullmatch(request.path_params["collection"])
        if match is None:
            raise _none()
        job = seen_job(match[1], holder, self.service.jobs)
        if job.status is Status.DISMISSED:
            results_of(job)  # which says so
        run = self.runs.get(job.id, owner=_owner(holder))
        if run is None:
            raise _none()
        return run, match[2]


def _none() -> ProblemError:
    return ProblemError(problem(404, "No such collection", "there is no such collection, or it is not yours"))


def _owner(holder: Holder) -> str | None:
    return None if holder.sees_all else holder.owner


# ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _file_of(run: Finished, kind: str) -> Iterator[FeatureFile]:
    """The features of a collection. Raises ProblemError for a run folder that lacks them."""
    try:
        with open_features(run.storage, run.place(KINDS[kind].output), run.place("summary")) as file:
            yield file
    except FileNotFoundError:
        raise ProblemError(problem(404, "No such collection", "this run has no such features")) from None


def _wanted(request: Request, file: FeatureFile) -> Wanted:
    """The features that a query means. Raises ProblemError."""
    equal = tuple(sorted((name, text) for name, text in request.query_params.items() if name in file.filters))
    return Wanted(boxes=boxes_of(request), interval=interval_of(request), equal=equal)


def _after(request: Request) -> int:
    """The id that the page before ended with. Raises ProblemError."""
    text = request.query_params.get("after", "0")
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise parameter_problem("after", "the id of a feature")
    return int(text)


# ── what is answered ─────────────────────────────────────────────────────────────────────────────────────────


def _next(request: Request, after: str, media_type: str) -> dict[str, str]:
    href = str(request.url.include_query_params(after=after))
    return {"href": href, "rel": "next", "type": media_type, "title": "The next page"}


def _described(run: Finished, kind: str, base: str) -> dict[str, Any]:
    """collection.yaml."""
    path, about = f"/collections/{collection_id(run.job, kind)}", KINDS[kind]
    when = f", {_day(run)}" if run.interval else ""
    file = link_to(base, f"/jobs/{run.job}/results/{about.output}", "enclosure", "All of it, as GeoParquet")
    return {
        "id": collection_id(run.job, kind),
        "title": f"{run.title} ({about.title}{when})",
        "description": about.description,
        "itemType": "feature",
        "crs": [CRS84],
        "extent": extent_of(run.box, run.interval),
        "links": [
            link_to(base, path, "self", "This collection"),
            link_to(base, f"{path}/items", "items", "Its features", media_type=GEOJSON),
            link_to(base, f"{path}/schema", "describedBy", "What its features have", media_type=SCHEMA),
            {**file, "type": "application/vnd.apache.parquet"},
            link_to(base, f"/jobs/{run.job}", "via", "The job"),
        ],
    }


def _day(run: Finished) -> str:
    """When it was seen, in days."""
    days = [f"{time:%Y-%m-%d}" for time in (run.interval.start, run.interval.end) if time] if run.interval else []
    return " to ".join(dict.fromkeys(days))


def extent_of(box: Box, interval: Any) -> dict[str, Any]:
    """extent.yaml, which STAC has as well: what it says holds all coordinates, as they are rounded."""
    west, south, east, north = box
    round_: tuple[Callable[[float], int], ...] = (math.floor, math.floor, math.ceil, math.ceil)
    edges = [down(edge * _DIGITS) / _DIGITS for down, edge in zip(round_, (west, south, east, north), strict=True)]
    times = (interval.start, interval.end) if interval else (None, None)
    return {
        "spatial": {"bbox": [edges], "crs": CRS84},
        "temporal": {
            "interval": [[format_time(time) if time else None for time in times]],
            "trs": "http://www.opengis.net/def/uom/ISO-8601/0/Gregorian",
        },
    }
