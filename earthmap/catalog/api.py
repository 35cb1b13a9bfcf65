"""A STAC API, searched through pystac-client in its plain form."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import shapely
import shapely.geometry
from pystac_client import ItemSearch

from earthmap.catalog.intervals import Interval, format_time
from earthmap.catalog.source import Extent, SourceItem, Wanted, collection_extent, item_base
from earthmap.catalog.transport import join

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from earthmap.catalog.transport import CatalogIO

PAGE_ITEMS = 250
"""Items asked for at once; public services refuse or time out on much larger pages."""

_POST_VERTICES = 500
_GET_VERTICES = 40
_SECOND = datetime.timedelta(seconds=1)


class ApiCatalog:
    """A STAC API; `collection` is the one that its address names, searched where a request names none."""

    def __init__(
        self, io: CatalogIO, *, address: str, landing: Mapping[str, Any], collection: str | None = None
    ) -> None:
        self._io = io
        self._address = address
        self._landing = landing
        self._collection = collection

    @property
    def address(self) -> str:
        """The address of its landing page."""
        return self._address

    def collections(self) -> Mapping[str, Extent]:
        """The stated extents of all its collections, or of the one that its address names."""
        data = self._link("data")
        href = data["href"] if data else self._address.rstrip("/") + "/collections"
        pages = self._io.get_pages(join(self._address, href))
        documents = [document for page in pages for document in page.get("collections") or ()]
        return {
            str(document["id"]): collection_extent(document)
            for document in documents
            if self._collection in (None, document["id"])
        }

    def items(self, wanted: Wanted) -> Iterator[SourceItem]:
        """What the API finds for a ground that is no smaller than the request's and at most a second longer."""
        link = self._link("search", method="POST") or self._link("search") or {}
        method = str(link.get("method", "GET")).upper()
        url = join(self._address, str(link["href"]))
        collections = list(wanted.collections) or ([self._collection] if self._collection else None)
        limit = _POST_VERTICES if method == "POST" else _GET_VERTICES
        ground = coarsen(wanted.geometry, max_vertices=limit) if wanted.geometry is not None else None
        search = ItemSearch(
            url,
            method=method,
            stac_io=self._io,
            limit=PAGE_ITEMS,
            collections=collections,
            intersects=shapely.geometry.mapping(ground) if ground is not None else None,
            datetime=_widened(wanted.interval) if wanted.interval else None,
        )
        for item in search.items_as_dicts():
            yield SourceItem(item, item_base(item, url))

    def _link(self, relation: str, *, method: str | None = None) -> Mapping[str, Any] | None:
        return find_link(self._landing, relation, method=method)


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
