"""Finished runs as a small STAC API (1.0.0: core, collections, features, item search), which pystac-client searches.

An item is what its run wrote (`earthmap.outputs.stac`), with three changes: its id is that of the job, since two jobs
that ask the same write the same id; its collection is the process; and its addresses are the service's own.
"""

from __future__ import annotations

import datetime
import json
import logging
import posixpath
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
import shapely
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from earthmap.catalog.intervals import format_time
from earthmap.errors import AreaError
from earthmap.grid.geojson import parse_geojson
from earthmap.outputs.stac import STAC_VERSION
from earthmap.service.access import Service, base_of, body_of, holder_of, is_job_id, link_to, parameter_problem
from earthmap.service.errors import ProblemError, problem, problem_of_inputs
from earthmap.service.feature_paths import GEOJSON
from earthmap.service.features import collection_id, extent_of
from earthmap.service.finished import READERS, Finished, FinishedRuns, Page, Sought, read_item, with_items
from earthmap.service.openapi import API_TYPE
from earthmap.service.parameters import only_parameters, parse_interval, plain_boxes
from earthmap.service.parts import UNTRUSTED, part_of
from earthmap.service.processes import PROCESSES
from earthmap.service.stac_paths import CONFORMANCE, LIMIT, LIMIT_MOST, ROOT
from earthmap.service.tokens import Holder

_NAMES_MOST = 1_000
"""Ids of items or collections of one search."""

_PLACES = ("limit", "bbox", "datetime", "token")

_LISTS = ("ids", "collections")

_HEADERS = {"X-Content-Type-Options": "nosniff"}

_log = logging.getLogger("earthmap.service")


class Search(pydantic.BaseModel):
    """What is searched for: the body of a POST, or the query of a GET."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    bbox: list[float] | None = None
    datetime: str | None = None
    intersects: dict[str, Any] | None = None
    ids: Annotated[list[str], pydantic.Field(max_length=_NAMES_MOST)] | None = None
    collections: Annotated[list[str], pydantic.Field(max_length=_NAMES_MOST)] | None = None
    limit: Annotated[int, pydantic.Field(ge=1)] = LIMIT
    token: str | None = None


def routes(service: Service) -> list[Route]:
    """The resources below ROOT."""
    desk = _Desk(service, FinishedRuns(service.jobs.database))
    one = f"{ROOT}/collections/{{collection}}"
    return [
        Route(ROOT, desk.landing_page),
        Route(f"{ROOT}/conformance", desk.conformance),
        Route(f"{ROOT}/search", desk.search),
        Route(f"{ROOT}/search", desk.search_body, methods=["POST"]),
        Route(f"{ROOT}/collections", desk.collections),
        Route(one, desk.collection),
        Route(f"{one}/items", desk.items),
        Route(f"{one}/items/{{item}}", desk.item),
        Route(f"{one}/items/{{item}}/assets/{{asset}}", desk.asset),
    ]


@dataclass(frozen=True, slots=True)
class _Desk:
    """One method a resource."""

    service: Service
    runs: FinishedRuns

    def landing_page(self, request: Request) -> Response:
        """A catalogue with links to everything else (STAC API – Core)."""
        only_parameters(request)
        base = base_of(request)
        search = link_to(base, f"{ROOT}/search", "search", "Search for finished runs", media_type=GEOJSON)
        links: list[dict[str, Any]] = [
            link_to(base, ROOT, "self", "This document"),
            link_to(base, ROOT, "root", "This document"),
            link_to(base, "/api", "service-desc", "The API", media_type=API_TYPE),
            link_to(base, f"{ROOT}/conformance", "conformance", "What this conforms to"),
            link_to(base, f"{ROOT}/collections", "data", "A collection for each process"),
            {**search, "method": "GET"},
            {**search, "method": "POST"},
            *(link_to(base, f"{ROOT}/collections/{one}", "child", PROCESSES[one].title) for one in with_items()),
        ]
        return JSONResponse(
            {
                "type": "Catalog",
                "stac_version": STAC_VERSION,
                "id": "earthmap",
                "title": "earthmap: finished runs",
                "description": "What was asked about areas of the Earth, and what came of it: one item for each run.",
                "conformsTo": list(CONFORMANCE),
                "links": links,
            }
        )

    def conformance(self, request: Request) -> Response:
        """What is declared, all of it tested."""
        only_parameters(request)
        return JSONResponse({"conformsTo": list(CONFORMANCE)})

    def collections(self, request: Request) -> Response:
        """One collection for each process that leaves an item (STAC API – Collections)."""
        holder = holder_of(request, self.service)
        only_parameters(request)
        base = base_of(request)
        links = [
            link_to(base, f"{ROOT}/collections", "self", "This document"),
            link_to(base, ROOT, "root", "The landing page"),
        ]
        shown = [self._described(process, holder, base) for process in with_items()]
        return JSONResponse({"collections": shown, "links": links}, headers=_HEADERS)

    def collection(self, request: Request) -> Response:
        """The runs of one process."""
        holder = holder_of(request, self.service)
        only_parameters(request)
        return JSONResponse(self._described(_collection(request), holder, base_of(request)), headers=_HEADERS)

    def items(self, request: Request) -> Response:
        """Runs of one process by page (STAC API – Features)."""
        holder, process = holder_of(request, self.service), _collection(request)
        only_parameters(request, *_PLACES)
        search = _from_query(request).model_copy(update={"collections": [process]})
        return self._answer(request, search, holder, path=f"{ROOT}/collections/{process}/items")

    def search(self, request: Request) -> Response:
        """Runs of all processes by page (STAC API – Item Search)."""
        holder = holder_of(request, self.service)
        only_parameters(request, *_PLACES, *_LISTS, "intersects")
        return self._answer(request, _from_query(request), holder, path=f"{ROOT}/search")

    async def search_body(self, request: Request) -> Response:
        """The same, asked by POST."""
        holder = await run_in_threadpool(holder_of, request, self.service)
        body = await body_of(request)
        return await run_in_threadpool(self._search_body, request, body, holder)

    def _search_body(self, request: Request, body: bytes, holder: Holder) -> Response:
        only_parameters(request)
        try:
            search = Search.model_validate_json(body)
        except pydantic.ValidationError as error:
            raise ProblemError(problem_of_inputs(error)) from None
        return self._answer(request, search, holder, path=f"{ROOT}/search")

    def item(self, request: Request) -> Response:
        """One run."""
        run = self._run(request)
        item = _told(run, base_of(request))
        if item is None:
            raise _none()
        return JSONResponse(item, media_type=GEOJSON, headers=_HEADERS)

    def asset(self, request: Request) -> Response:
        """One file of a run, or a part of it: only what the item names."""
        run = self._run(request)
        asset, path = request.path_params["asset"], None
        try:
            item = read_item(run)
            path = _path(run, item["assets"][asset]["href"])
            if path is not None:
                media_type = str(item["assets"][asset]["type"])
                return part_of(request, run.storage, path, media_type=media_type, headers=UNTRUSTED)
        except (FileNotFoundError, KeyError, ValueError):
            pass
        raise ProblemError(problem(404, "No such asset", "the item has no such file"))

    def _run(self, request: Request) -> Finished:
        holder, process = holder_of(request, self.service), _collection(request)
        only_parameters(request)
        job = request.path_params["item"]
        run = self.runs.get(job, owner=_owner(holder)) if is_job_id(job) else None
        if run is None or run.process != process:
            raise _none()
        return run

    def _described(self, process: str, holder: Holder, base: str) -> dict[str, Any]:
        """A STAC collection; where there are no runs yet, of the whole Earth and of no time."""
        path, about = f"{ROOT}/collections/{process}", PROCESSES[process]
        found = self.runs.extent(Sought(owner=_owner(holder), processes=[process]))
        box, interval = found or ((-180.0, -90.0, 180.0, 90.0), None)
        return {
            "type": "Collection",
            "stac_version": STAC_VERSION,
            "id": process,
            "title": about.title,
            "description": about.description,
            "license": "other",
            "extent": extent_of(box, interval),
            "links": [
                link_to(base, path, "self", "This collection"),
                link_to(base, ROOT, "root", "The landing page"),
                link_to(base, ROOT, "parent", "The landing page"),
                link_to(base, f"{path}/items", "items", "Its runs", media_type=GEOJSON),
            ],
        }

    def _answer(self, request: Request, search: Search, holder: Holder, *, path: str) -> Response:
        """A page of items."""
        base, sought = base_of(request), _sought(search, holder)
        limit = min(search.limit, LIMIT_MOST)
        try:
            page = self.runs.page(sought, limit=limit, after=search.token)
        except ValueError:
            raise parameter_problem("token", "what the page before says") from None
        with ThreadPoolExecutor(READERS) as pool:
            items = [item for item in pool.map(lambda run: _told(run, base), page.runs) if item is not None]
        found = {
            "type": "FeatureCollection",
            "features": items,
            "timeStamp": format_time(datetime.datetime.now(datetime.UTC)),
            "numberMatched": page.matched,
            "numberReturned": len(items),
            "links": _page_links(request, page, base, path),
        }
        return JSONResponse(found, media_type=GEOJSON, headers=_HEADERS)


def _none() -> ProblemError:
    return ProblemError(problem(404, "No such item", "there is no such item, or it is not yours"))


def _owner(holder: Holder) -> str | None:
    return None if holder.sees_all else holder.owner


def _collection(request: Request) -> str:
    """The process of the path. Raises ProblemError for one that leaves no items."""
    name: str = request.path_params["collection"]
    if name not in with_items():
        detail = f"there is no such collection; expected {', '.join(with_items())}"
        raise ProblemError(problem(404, "No such collection", detail))
    return name


# ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────


def _from_query(request: Request) -> Search:
    """The search that a query means. Raises ProblemError."""
    given: dict[str, Any] = dict(request.query_params)
    given |= {name: given[name].split(",") for name in (*_LISTS, "bbox") if name in given}
    try:
        if "intersects" in given:
            given["intersects"] = json.loads(given["intersects"])
        return Search.model_validate(given, strict=False)
    except pydantic.ValidationError as error:
        raise ProblemError(problem_of_inputs(error)) from None
    except (ValueError, RecursionError):
        raise parameter_problem("intersects", "a geometry of GeoJSON") from None


def _sought(search: Search, holder: Holder) -> Sought:
    """The runs that a search means. Raises ProblemError."""
    if search.bbox is not None and search.intersects is not None:
        raise parameter_problem("bbox and intersects", "only one of them")
    jobs = None if search.ids is None else [job for job in search.ids if is_job_id(job)]
    known = None if search.collections is None else [one for one in search.collections if one in with_items()]
    return Sought(
        owner=_owner(holder),
        jobs=jobs,
        processes=known,
        boxes=() if search.bbox is None else plain_boxes(search.bbox),
        shape=None if search.intersects is None else _shape(search.intersects),
        interval=None if search.datetime is None else parse_interval(search.datetime),
    )


def _shape(geometry: Mapping[str, Any]) -> Any:
    """A geometry of GeoJSON, in degrees. Raises ProblemError."""
    if geometry.get("type") in ("Feature", "FeatureCollection"):
        raise parameter_problem("intersects", "a geometry, not a feature")
    try:
        shape, crs = parse_geojson(geometry, source="intersects")
    except AreaError as error:
        raise parameter_problem("intersects", str(error)) from None
    west, south, east, north = shape.bounds if not shape.is_empty else (0.0, 0.0, 0.0, 0.0)
    inside = max(abs(west), abs(east)) <= 180.0 and max(abs(south), abs(north)) <= 90.0
    if crs is not None or shape.is_empty or not inside:
        raise parameter_problem("intersects", "a geometry in degrees within ±180 and ±90, with some ground")
    return shapely.make_valid(shape)


# ── what is answered ─────────────────────────────────────────────────────────────────────────────────────────


def _page_links(request: Request, page: Page, base: str, path: str) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = [
        {**link_to(base, path, "self", "This document", media_type=GEOJSON), "href": str(request.url)},
        link_to(base, ROOT, "root", "The landing page"),
    ]
    if page.next is None:
        return links
    further: dict[str, Any] = {"rel": "next", "type": GEOJSON, "title": "The next page", "method": request.method}
    if request.method == "POST":
        further |= {"href": f"{base}{path}", "body": {"token": page.next}, "merge": True}
    else:
        further |= {"href": str(request.url.include_query_params(token=page.next)), "method": "GET"}
    return [*links, further]


def _told(run: Finished, base: str) -> dict[str, Any] | None:
    """The item of a run as the service gives it; None where its folder lacks it."""
    try:
        item = read_item(run)
        assets = _assets(run, item["assets"], base)
        properties = {**item["properties"], "earthmap:run": item["id"]}
        kept = [link for link in item["links"] if link["rel"] == "derived_from"]
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        _log.warning("the item of job %s is gone or damaged: %s", run.job, error)
        return None
    links = [*kept, *_item_links(run, base)]
    about = {"id": run.job, "collection": run.process, "properties": properties, "assets": assets, "links": links}
    return {**item, **about}


def _item_links(run: Finished, base: str) -> Sequence[dict[str, str]]:
    collection = f"{ROOT}/collections/{run.process}"
    features = f"/collections/{collection_id(run.job, 'features')}"
    return (
        link_to(base, f"{collection}/items/{run.job}", "self", "This item", media_type=GEOJSON),
        link_to(base, ROOT, "root", "The landing page"),
        link_to(base, collection, "parent", "The runs of this process"),
        link_to(base, collection, "collection", "The runs of this process"),
        link_to(base, f"/jobs/{run.job}", "via", "The job"),
        link_to(base, features, "related", "What was found, as a collection of features"),
    )


def _assets(run: Finished, assets: Mapping[str, Any], base: str) -> dict[str, Any]:
    """The assets that lie in the run folder, by the service's own addresses."""
    item = f"{base}{ROOT}/collections/{run.process}/items/{run.job}"
    return {
        name: {**asset, "href": f"{item}/assets/{name}"}
        for name, asset in assets.items()
        if _path(run, asset["href"]) is not None
    }


def _path(run: Finished, href: str) -> str | None:
    """Where in the job's folder an asset lies that its item names; None for what lies elsewhere."""
    folder = posixpath.dirname(run.place("item"))
    path = posixpath.normpath(href)
    if "://" in href or path.startswith(("/", "..")) or "\0" in path:
        return None
    return posixpath.join(folder, path)
