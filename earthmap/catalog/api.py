"""A STAC API: requests as pystac-client makes them, paged, and made smaller where the service finds them too large."""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import shapely
import shapely.geometry
from pystac_client import ItemSearch

from earthmap.catalog.documents import join
from earthmap.catalog.http import HEAVY
from earthmap.catalog.intervals import Interval, format_time
from earthmap.catalog.pages import entries
from earthmap.catalog.source import Extent, SourceItem, Wanted, collection_extent, inherit, item_base
from earthmap.errors import CatalogError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from earthmap.catalog.transport import CatalogIO

PAGE_ITEMS = 250
"""Items asked for at once; public services refuse or time out on much larger pages."""

LEAST_ITEMS = 8
"""Smallest page that is asked for before the search itself is split."""

SPLITS = 12
"""How often a search is halved, or cut into its collections, before the service is given up."""

REPORT_EVERY_S = 5.0
"""Seconds between two lines about a long search."""

_POST_VERTICES = 500
_GET_VERTICES = 40
_SECOND = datetime.timedelta(seconds=1)
_SHORTEST = datetime.timedelta(hours=1)
_NARROWEST_DEG = 0.05
_OTHER_METHOD = frozenset({405, 501})
"""Statuses of a service that does not take this method."""


@dataclass(slots=True)
class _Progress:
    """What one search has brought."""

    seen: set[bytes] = field(default_factory=set)
    """Digests of the items that were given on."""
    pages: int = 0
    matched: int | None = None
    """How many the service counts, where it does."""
    told: float = field(default_factory=time.monotonic)
    trouble: float | None = None
    """Since when answers are too large, without one that came."""

    def is_new(self, item: Mapping[str, Any]) -> bool:
        """True once for each item, whatever pages and parts it comes in."""
        text = json.dumps(item, sort_keys=True, default=str)
        digest = hashlib.blake2b(text.encode("utf-8", errors="replace"), digest_size=16).digest()
        if digest in self.seen:
            return False
        self.seen.add(digest)
        return True


class ApiCatalog:
    """A STAC API; `collection` is the one that its address names, searched where a request names none."""

    def __init__(
        self, io: CatalogIO, *, address: str, landing: Mapping[str, Any], collection: str | None = None
    ) -> None:
        self._io = io
        self._address = address
        self._landing = landing
        self._collection = collection
        self._limit = PAGE_ITEMS
        self._ways = _ways(landing, address)
        self._old: dict[str, Mapping[str, Any]] | None = None

    @property
    def address(self) -> str:
        """The address of its landing page."""
        return self._address

    def collections(self) -> Mapping[str, Extent]:
        """The stated extents of all its collections, or of the one that its address names."""
        documents = [document for document in self._documents() if self._collection in (None, document["id"])]
        return {str(document["id"]): collection_extent(document) for document in documents}

    def _documents(self) -> Iterator[Mapping[str, Any]]:
        data = find_link(self._landing, "data")
        href = data["href"] if data else self._address.rstrip("/") + "/collections"
        pages = self._io.get_pages(join(self._address, href))
        return (document for page in pages for document in entries(page) if "id" in document)

    def items(self, wanted: Wanted) -> Iterator[SourceItem]:
        """What the API finds for a ground that is no smaller than the request's and at most a second longer, each once.

        A service that cannot take the request as it is, is asked in another way: for smaller pages, then in parts.
        """
        if self._collection and not wanted.collections:
            wanted = replace(wanted, collections=(self._collection,))
        progress = _Progress()
        yield from self._search(wanted, progress, splits=SPLITS)
        if progress.matched is not None and len(progress.seen) < progress.matched:
            self._io.say(f"{self._address} counted {progress.matched:,} items and gave {len(progress.seen):,}")

    def _search(self, wanted: Wanted, progress: _Progress, *, splits: int) -> Iterator[SourceItem]:
        """The items of `wanted` that are new; a failed pass begins again, so that nothing is lost between its pages."""
        while True:
            try:
                yield from self._pass(wanted, progress)
                return
            except CatalogError as error:
                if error.status in _OTHER_METHOD and len(self._ways) > 1:
                    self._ways = self._ways[1:]
                    continue
                parts = self._smaller(wanted, progress, error, splits=splits)
            if parts:
                break
        for part in parts:
            yield from self._search(part, progress, splits=splits - 1)

    def _smaller(self, wanted: Wanted, progress: _Progress, error: CatalogError, *, splits: int) -> list[Wanted]:
        """The parts to search instead; none where smaller pages are tried first. Raises `error` where neither helps."""
        now = time.monotonic()
        progress.trouble = now if progress.trouble is None else progress.trouble
        if error.status not in HEAVY or now - progress.trouble > self._io.connection.patience_s:
            raise error
        if self._limit > LEAST_ITEMS:
            self._limit = max(LEAST_ITEMS, self._limit // 2)
            self._io.say(f"{error.what}: asking for {self._limit} items at once")
            return []
        parts = narrower(wanted) if splits else []
        if not parts:
            raise error
        self._io.say(f"{error.what}: searching in {len(parts)} parts")
        return parts

    def _pass(self, wanted: Wanted, progress: _Progress) -> Iterator[SourceItem]:
        method, url = self._ways[0]
        for page in self._io.get_pages(url, method, self._parameters(wanted, method, url)):
            progress.trouble = None
            progress.pages += 1
            if progress.pages == 1:
                progress.matched = _matched(page)
            for item in entries(page):
                if progress.is_new(item):
                    yield SourceItem(self._whole(item), item_base(item, url))
            self._report(progress)

    def _whole(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """`item` with the common properties of its collection, which an API before STAC 1.0 may leave out."""
        if not str(item.get("stac_version", "1")).startswith("0."):
            return item
        if self._old is None:
            try:
                self._old = {str(one["id"]): one for one in self._documents() if "properties" in one}
            except CatalogError as error:
                if error.status != 404:
                    raise
                self._old = {}  # it lists no collections, so its items are whole
        node = self._old.get(SourceItem(item, "").collection)
        return inherit(item, node) if node else item

    def _parameters(self, wanted: Wanted, method: str, url: str) -> dict[str, Any]:
        limit = _POST_VERTICES if method == "POST" else _GET_VERTICES
        ground = coarsen(wanted.geometry, max_vertices=limit) if wanted.geometry is not None else None
        search = ItemSearch(
            url,
            method=method,
            stac_io=self._io,
            limit=self._limit,
            collections=list(wanted.collections) or None,
            intersects=shapely.geometry.mapping(ground) if ground is not None else None,
            datetime=_widened(wanted.interval) if wanted.interval else None,
        )
        parameters: dict[str, Any] = search.get_parameters()
        return parameters

    def _report(self, progress: _Progress) -> None:
        now = time.monotonic()
        if now - progress.told >= REPORT_EVERY_S:
            of = f" of {progress.matched:,}" if progress.matched else ""
            self._io.say(f"{len(progress.seen):,}{of} items found so far, {progress.pages:,} pages")
            progress.told = now


def _ways(landing: Mapping[str, Any], address: str) -> list[tuple[str, str]]:
    """Method and address of a search: as the landing page offers it, POST first, and then by the other method."""
    link = find_link(landing, "search", method="POST") or find_link(landing, "search") or {"href": "search"}
    url = join(address, str(link["href"]))
    offered = str(link.get("method", "GET")).upper()
    other = find_link(landing, "search", method="GET") if offered == "POST" else None
    second = join(address, str(other["href"])) if other else url
    return [(offered, url), ("GET" if offered == "POST" else "POST", second)]


def _matched(page: Mapping[str, Any]) -> int | None:
    """How many items the service counts (`numberMatched`, before 1.0 in `context`); None where it does not say."""
    context = page.get("context")
    count = page.get("numberMatched", context.get("matched") if isinstance(context, Mapping) else None)
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def narrower(wanted: Wanted) -> list[Wanted]:
    """Requests that together ask for all that `wanted` does: by collection, halves of time, or halves of ground.

    What lies on both sides of a cut is asked for twice. Empty where there is nothing to cut.
    """
    if len(wanted.collections) > 1:
        return [replace(wanted, collections=(name,)) for name in wanted.collections]
    interval = wanted.interval
    if interval is not None and interval.start and interval.end and interval.end - interval.start > _SHORTEST:
        middle = interval.start + (interval.end - interval.start) / 2
        halves = (Interval(start=interval.start, end=middle), Interval(start=middle, end=interval.end))
        return [replace(wanted, interval=half) for half in halves]
    if wanted.geometry is None:
        return []
    west, south, east, north = wanted.geometry.bounds
    if max(east - west, north - south) < _NARROWEST_DEG:
        return []
    x, y = (west + east) / 2, (south + north) / 2
    wide = east - west > north - south
    boxes = (
        [(west, south, x, north), (x, south, east, north)] if wide else [(west, south, east, y), (west, y, east, north)]
    )
    grounds = [shapely.intersection(wanted.geometry, shapely.box(*box)) for box in boxes]
    return [replace(wanted, geometry=ground) for ground in grounds if not ground.is_empty]


def find_link(document: Mapping[str, Any], relation: str, *, method: str | None = None) -> Mapping[str, Any] | None:
    """The first link of `relation`, and of `method` where one is given; None where there is none."""
    for link in document.get("links") or ():
        if isinstance(link, Mapping) and link.get("rel") == relation and isinstance(link.get("href"), str):
            offered = str(link.get("method", "GET")).upper()
            if method in (None, offered):
                return link
    return None


def is_api(document: Mapping[str, Any]) -> bool:
    """True for a landing page that offers a search."""
    return find_link(document, "search") is not None


def coarsen(geometry: BaseGeometry, *, max_vertices: int) -> BaseGeometry:
    """Ground that contains `geometry` and has at most about `max_vertices` corners, so that a service accepts it.

    The geometry itself where it is small; else the convex hulls of its parts, else their boxes, else one box for the
    parts of each hemisphere east and west (a box over both would go round the Earth for an area at the antimeridian).
    """
    parts = shapely.get_parts(geometry)
    if shapely.get_num_coordinates(geometry) <= max_vertices:
        return geometry
    for outline in (shapely.convex_hull, shapely.envelope):
        ground = shapely.union_all(outline(parts))
        if shapely.get_num_coordinates(ground) <= max_vertices:
            return ground
    middle = shapely.bounds(parts)[:, [0, 2]].mean(axis=1)
    halves = [shapely.box(*shapely.total_bounds(half)) for half in (parts[middle < 0], parts[middle >= 0]) if len(half)]
    return shapely.union_all(halves)


def _widened(interval: Interval) -> str:
    """Whole seconds around the interval: services differ in whether they read fractions."""
    start = interval.start.replace(microsecond=0) if interval.start else None
    end = interval.end
    if end is not None and end.microsecond and end < datetime.datetime.max.replace(tzinfo=datetime.UTC) - _SECOND:
        end = end.replace(microsecond=0) + _SECOND
    return f"{format_time(start)}/{format_time(end)}"
