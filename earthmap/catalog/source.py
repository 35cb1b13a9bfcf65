"""What a catalogue is to the rest of earthmap: something that yields items for a place and a time.

A source may yield more than was asked for (it filters by what is cheap where it stands); `earthmap.catalog.search`
checks place, time and collection of each item, so that every kind of source gives the same items.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import shapely
import shapely.geometry

from earthmap.catalog.intervals import Interval, format_time, item_interval
from earthmap.grid.lonlat import as_meant

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; west is greater than east where the box crosses the antimeridian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which items are asked for."""

    geometry: BaseGeometry | None = None
    """In EPSG:4326, split at the antimeridian; None for everywhere."""
    interval: Interval | None = None
    """None for any time."""
    collections: tuple[str, ...] = ()
    """Ids; empty for all."""


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One STAC item as its source gives it."""

    item: Mapping[str, Any]
    base: str
    """Absolute path or address that the item's relative hrefs start from."""

    @property
    def id(self) -> str:
        """The item's id."""
        return str(self.item.get("id", ""))

    @property
    def collection(self) -> str:
        """Id of the item's collection; empty where it has none. Before STAC 0.8 it stood among the properties."""
        properties = self.item.get("properties") or {}
        return str(self.item.get("collection") or properties.get("collection") or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The ground and time that a collection says it covers; None where it does not say."""

    bbox: Box | None = None
    interval: Interval | None = None

    def __str__(self) -> str:
        parts = []
        if self.bbox:
            parts.append(",".join(f"{value:.6g}" for value in self.bbox))
        if self.interval:
            parts.append(" to ".join(format_time(time)[:10] for time in (self.interval.start, self.interval.end)))
        return " from ".join(parts) or "an unstated extent"


class CatalogSource(Protocol):
    """A catalogue. An instance is used by one thread at a time and holds no credentials."""

    @property
    def address(self) -> str:
        """Where it stands, for messages and provenance."""
        ...

    def collections(self) -> Mapping[str, Extent]:
        """The extent of every collection by its id. Raises CatalogError."""
        ...

    def items(self, wanted: Wanted) -> Iterator[SourceItem]:
        """At least the items that match `wanted`, in any order. Raises CatalogError."""
        ...


class MemoryCatalog:
    """Items that are at hand: an ItemCollection, one item, or what a test has built.

    Example:
        >>> item = {"id": "a", "collection": "c", "geometry": {"type": "Point", "coordinates": [1.0, 2.0]}}
        >>> source = MemoryCatalog([item], address="memory")
        >>> [found.id for found in source.items(Wanted(collections=("c",)))]
        ['a']
    """

    def __init__(self, items: Iterable[Mapping[str, Any]], *, address: str) -> None:
        self._items = [SourceItem(item, item_base(item, address)) for item in items]
        self._address = address

    @property
    def address(self) -> str:
        """Where the items came from."""
        return self._address

    def collections(self) -> Mapping[str, Extent]:
        """The extents of the items themselves, by the collections that they name."""
        grouped: dict[str, list[SourceItem]] = {}
        for found in self._items:
            if found.collection:
                grouped.setdefault(found.collection, []).append(found)
        return {name: items_extent(members) for name, members in sorted(grouped.items())}

    def items(self, wanted: Wanted) -> Iterator[SourceItem]:
        """The items of the wanted collections."""
        return (found for found in self._items if not wanted.collections or found.collection in wanted.collections)


def item_base(item: Mapping[str, Any], read_from: str) -> str:
    """Where an item's relative hrefs start: its own absolute address where it states one, else where it was read."""
    for link in item.get("links") or ():
        if link.get("rel") == "self" and str(link.get("href")).startswith(("http://", "https://")):
            return str(link["href"])
    return read_from


def is_item(value: Any) -> bool:
    """True for a GeoJSON feature with assets: an item of any version of STAC."""
    return (
        isinstance(value, Mapping)
        and value.get("type") == "Feature"
        and "id" in value
        and isinstance(value.get("assets"), Mapping)
        and isinstance(value.get("properties"), Mapping)
    )


def is_collection(document: Mapping[str, Any]) -> bool:
    """True for a Collection of any version of STAC: before 1.0 it had no type, and an extent that Catalogs lack."""
    return document.get("type") == "Collection" or ("type" not in document and "extent" in document)


def inherit(item: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """`item` with what it takes from the Catalog or Collection that it is in.

    That is the collection's id where it names none and, before STAC 1.0, the collection's own properties (the commons
    extension of 0.6 to 0.9).
    """
    if not is_collection(node):
        return item
    properties = item["properties"]
    common = node.get("properties")
    if isinstance(common, Mapping) and str(node.get("stac_version", "")).startswith("0."):
        properties = {**common, **properties}
    collection = item.get("collection") or properties.get("collection") or str(node["id"])
    return {**item, "collection": collection, "properties": properties}


def item_geometry(item: Mapping[str, Any]) -> BaseGeometry | None:
    """The ground of an item in EPSG:4326, valid and split at the antimeridian; its bbox where it has no geometry.

    None where it says neither, or nothing that can be read. A ring that jumps by more than 180° of longitude is one
    that crosses the antimeridian (RFC 7946 asks for it to be cut; many catalogues do not cut it).
    """
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            geometry = shapely.geometry.shape(item["geometry"]) if item.get("geometry") else None
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError, shapely.errors.ShapelyError):
        geometry = None
    if geometry is None or geometry.is_empty:
        box = read_box(item.get("bbox"))
        geometry = box_geometry(box) if box else None
    if geometry is None or not _is_on_earth(geometry):
        return None
    try:
        return as_meant(shapely.force_2d(geometry))
    except shapely.errors.ShapelyError:  # rings of three equal points and the like
        return None


def _is_on_earth(geometry: BaseGeometry) -> bool:
    """False for numbers that are no degrees, twice around the Earth or more: cutting them would take for ever."""
    west, south, east, north = geometry.bounds
    return bool(-720.0 <= west <= east <= 720.0 and -90.001 <= south <= north <= 90.001)


def read_box(value: Any) -> Box | None:
    """A bbox of four or six numbers as west, south, east, north; None for anything else."""
    if isinstance(value, Mapping):
        value = [value.get(key) for key in ("xmin", "ymin", "xmax", "ymax")]
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) not in (4, 6):
        return None
    half = len(value) // 2
    try:
        return float(value[0]), float(value[1]), float(value[half]), float(value[half + 1])
    except (TypeError, ValueError, OverflowError):
        return None


def box_geometry(box: Box) -> BaseGeometry:
    """The ground of a box, in two parts where it crosses the antimeridian."""
    west, south, east, north = box
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.union(shapely.box(west, south, 180.0, north), shapely.box(-180.0, south, east, north))


def collection_extent(document: Mapping[str, Any]) -> Extent:
    """The extent that a Collection states: its first, overall box and interval."""
    extent = document.get("extent")
    if not isinstance(extent, Mapping):
        return Extent()
    spatial, temporal = extent.get("spatial"), extent.get("temporal")
    boxes = spatial.get("bbox") if isinstance(spatial, Mapping) else spatial
    times = temporal.get("interval") if isinstance(temporal, Mapping) else temporal
    first_box = boxes[0] if isinstance(boxes, list) and boxes and isinstance(boxes[0], list) else boxes
    first_time = times[0] if isinstance(times, list) and times and isinstance(times[0], list) else times
    return Extent(bbox=read_box(first_box), interval=_stated_interval(first_time))


def _stated_interval(value: Any) -> Interval | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    bounds = [item_interval({"properties": {"datetime": time}}) for time in value]
    return Interval(start=bounds[0].start if bounds[0] else None, end=bounds[1].end if bounds[1] else None)


def items_extent(found: Iterable[SourceItem]) -> Extent:
    """The extent of the items themselves."""
    members = list(found)
    grounds = [ground for member in members if (ground := item_geometry(member.item)) is not None]
    intervals = [interval for member in members if (interval := item_interval(member.item))]
    starts = [interval.start for interval in intervals if interval.start]
    ends = [interval.end for interval in intervals if interval.end]
    west, south, east, north = (float(value) for value in shapely.total_bounds(grounds)) if grounds else (0.0,) * 4
    return Extent(
        bbox=(west, south, east, north) if grounds else None,
        interval=Interval(start=min(starts), end=max(ends)) if starts and ends else None,
    )


def item_order(found: SourceItem) -> tuple[str, str, str]:
    """The order of search results: collection, time, id."""
    interval = item_interval(found.item)
    return found.collection, format_time(interval.start) if interval else "", found.id


def item_version(found: SourceItem) -> tuple[str, str]:
    """Greater for the version of an item to keep where a catalogue has two of the same collection and id."""
    properties = found.item.get("properties") or {}
    stamp = str(properties.get("updated") or properties.get("created") or "")
    text = json.dumps(found.item, sort_keys=True, default=str)
    return stamp, hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()
