"""Finding scenes: any kind of catalogue by its address, one search over all of them, items made into scenes.

What kind a catalogue is decides what it holds, never how its address is spelt. Place, time and collection are checked
here for every kind, so that the same items give the same scenes wherever they are served from.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

import shapely

from earthmap.catalog.addresses import check_href
from earthmap.catalog.intervals import Interval, format_time, item_interval, parse_datetime
from earthmap.catalog.items import scene_from_item
from earthmap.catalog.scene import Scene, scene_hrefs
from earthmap.catalog.source import (
    CatalogSource,
    SourceItem,
    Wanted,
    box_geometry,
    item_geometry,
    item_order,
    item_version,
    items_extent,
)
from earthmap.errors import CatalogError, EarthmapError, SensorError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from earthmap.catalog.transport import CatalogIO
    from earthmap.connection import Connection

T = TypeVar("T")

MAX_ITEMS = 500_000
"""Items that one search may find."""

_GLIMPSED = 200
"""Items looked at to say what a search would find more of."""
_COUNTED = 500
"""Items looked at to say what would have matched."""
_NAMED = 5
"""Collections or reasons named in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedItem:
    """An item that is no scene of a known sensor."""

    id: str
    collection: str
    why: str
    """The whole message: what, expected, fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search gave: every item is a scene, refused, or counted as another sensor's."""

    scenes: tuple[Scene, ...] = field(repr=False)
    """In the order of the search: collection, time, id."""
    refused: tuple[RefusedItem, ...] = ()
    other_sensors: Mapping[str, int] = field(default_factory=dict)
    """Scenes by sensor, of sensors that were not asked for."""


def open_catalog(
    address: str, *, connection: Connection | None = None, say: Callable[[str], None] | None = None
) -> CatalogSource:
    """The catalogue at `address`: a path, or an http(s) or s3 address.

    A folder stands for its catalog.json or collection.json, else for the stac-geoparquet files below it; so does a
    pattern such as `items/*.parquet`, on disk and on s3. `say` hears of waiting and of long searches.

    Raises:
        CatalogError: where it cannot be reached or read, or is none of: a STAC API (or one collection of it), a static
            Catalog or Collection, an ItemCollection, an item, stac-geoparquet.
    """
    from earthmap.catalog.documents import is_remote, parse_json
    from earthmap.catalog.parquet import MAGIC, ParquetCatalog
    from earthmap.catalog.places import documents_at
    from earthmap.catalog.transport import CatalogIO

    if "://" in address and not is_remote(address) and not address.startswith("file://"):
        raise CatalogError(f"the catalogue {address} cannot be opened", expected="a path, or an http(s) or s3 address")
    io = CatalogIO(connection, say=say)
    files = documents_at(io, address)
    if len(files) > 1 or io.starts_with(files[0], MAGIC):
        return ParquetCatalog(io, address=address if len(files) > 1 else files[0], files=files)
    data = io.fetch(files[0])
    if data.startswith(MAGIC):
        return ParquetCatalog(io, address=files[0], files=files)
    return _recognise(io, files[0], parse_json(data.decode("utf-8", errors="replace"), files[0]))


def _recognise(io: CatalogIO, address: str, document: dict[str, object]) -> CatalogSource:
    from earthmap.catalog.api import ApiCatalog, is_api
    from earthmap.catalog.documents import not_stac
    from earthmap.catalog.source import MemoryCatalog, is_item
    from earthmap.catalog.static import StaticCatalog, is_container

    if is_api(document):
        return ApiCatalog(io, address=address, landing=document)
    if is_item(document):
        return MemoryCatalog([document], address=address)
    if document.get("type") == "FeatureCollection":
        return _item_collection(io, address, document)
    if is_container(document):
        return _collection_of_api(io, address, document) or StaticCatalog(io, address=address, document=document)
    raise not_stac(address, document)


def _item_collection(io: CatalogIO, address: str, document: dict[str, object]) -> CatalogSource:
    """The items of an ItemCollection, and of the pages after it where it is the answer of a service."""
    from earthmap.catalog.api import find_link
    from earthmap.catalog.documents import is_remote, not_stac
    from earthmap.catalog.source import MemoryCatalog, is_item

    paged = is_remote(address) and find_link(document, "next") is not None
    pages: Iterable[Mapping[str, object]] = io.get_pages(address) if paged else [document]
    features = [feature for page in pages for feature in _features(page)]
    if not all(is_item(feature) for feature in features):
        raise not_stac(address, document)
    return MemoryCatalog(features, address=address)


def _features(page: Mapping[str, object]) -> list[dict[str, object]]:
    features = page.get("features")
    return features if isinstance(features, list) else []


def _collection_of_api(io: CatalogIO, address: str, document: Mapping[str, object]) -> CatalogSource | None:
    """The API behind the address of one of its collections; None for a static Collection or Catalog."""
    from earthmap.catalog.api import ApiCatalog, find_link, is_api
    from earthmap.catalog.documents import is_remote, join

    items, root = find_link(document, "items"), find_link(document, "root")
    if document.get("type") != "Collection" or items is None or root is None:
        return None
    home = join(address, str(root["href"]))
    if not is_remote(home):
        return None
    landing = io.document(home)
    return ApiCatalog(io, address=home, landing=landing, collection=str(document["id"])) if is_api(landing) else None


def search_items(source: CatalogSource, wanted: Wanted) -> list[SourceItem]:
    """The items that match, sorted by collection, time and id, each once.

    An item matches where its ground intersects the wanted ground, its time the wanted interval (both ends included),
    and its collection is one of those wanted. An item of which it does not say where it lies matches no ground. Of
    two with the same collection and id the one updated last is kept.

    Raises:
        CatalogError: for an unreadable catalogue and an unknown collection, and where nothing matches.
    """
    return _search(source, wanted, lambda found: found)


def _search(source: CatalogSource, wanted: Wanted, keep: Callable[[SourceItem], T]) -> list[T]:
    """What `keep` makes of each matching item. Only that is held: an item is much larger than its scene."""
    kept: dict[tuple[str, str], _Kept[T]] = {}
    try:
        for found in _matching(source, wanted):
            key, version = (found.collection, found.id), item_version(found)
            if key not in kept or version > kept[key].version:
                kept[key] = _Kept(version, item_order(found), keep(found))
            if len(kept) > MAX_ITEMS:
                raise _too_many(source)
    except CatalogError:
        _check_collections(source, wanted)
        raise
    if set(wanted.collections) - {collection for collection, _ in kept}:
        _check_collections(source, wanted)
    if not kept:
        raise _nothing(source, wanted)
    return [one.value for one in sorted(kept.values(), key=lambda one: one.order)]


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    """One item of a search, as far as it is held."""

    version: tuple[str, str]
    order: tuple[str, str, str]
    value: T


def _too_many(source: CatalogSource) -> CatalogError:
    return CatalogError(
        f"the search in {source.address} finds more than {MAX_ITEMS:,} items",
        fix="give a smaller --area, a shorter --datetime or a --collection",
    )


def _scene_or_refused(found: SourceItem, *, catalogue: str) -> Scene | RefusedItem:
    try:
        scene = scene_from_item(found.item, base=found.base)
        for href in scene_hrefs(scene):
            check_href(href, catalogue=catalogue)
        return scene
    except EarthmapError as error:
        return RefusedItem(id=found.id, collection=found.collection, why=str(error))


def _matching(source: CatalogSource, wanted: Wanted) -> Iterator[SourceItem]:
    if wanted.geometry is not None:
        shapely.prepare(wanted.geometry)
    return (found for found in source.items(wanted) if _matches(found, wanted))


def _matches(found: SourceItem, wanted: Wanted) -> bool:
    if wanted.collections and found.collection not in wanted.collections:
        return False
    if wanted.interval is not None:
        interval = item_interval(found.item)
        if interval is None or not interval.overlaps(wanted.interval):
            return False
    if wanted.geometry is None:
        return True
    ground = item_geometry(found.item)
    return ground is not None and bool(shapely.intersects(wanted.geometry, ground))


def _check_collections(source: CatalogSource, wanted: Wanted) -> None:
    """Raise CatalogError where a wanted collection is not in the catalogue, naming those that are, closest first."""
    if not wanted.collections:
        return
    known = list(source.collections())
    unknown = [name for name in wanted.collections if name not in known]
    if not unknown:
        return
    if not known:
        raise CatalogError(
            f"there is no collection {unknown[0]!r} in {source.address}: its items name none",
            fix="leave --collection out",
        )
    lowered = {name.lower(): name for name in reversed(known)}
    close = [
        lowered[name] for name in difflib.get_close_matches(unknown[0].lower(), list(lowered), n=_NAMED, cutoff=0.4)
    ]
    ordered = close + [name for name in sorted(known) if name not in close]
    more = f" and {len(ordered) - 2 * _NAMED} more" if len(ordered) > 2 * _NAMED else ""
    raise CatalogError(
        f"there is no collection {unknown[0]!r} in {source.address}",
        expected=f"one of {', '.join(ordered[: 2 * _NAMED])}{more}",
        fix=f"give --collection {ordered[0]}",
    )


def _nothing(source: CatalogSource, wanted: Wanted) -> CatalogError:
    """The error for a search that found nothing: what would have matched."""
    what = f"no item in {source.address}{_of_request(wanted)}"
    anytime = Wanted(geometry=wanted.geometry, collections=wanted.collections)
    others = list(itertools.islice(_matching(source, anytime), _COUNTED)) if wanted.interval else []
    if others:
        interval = items_extent(others).interval
        times = "" if interval is None else f", from {format_time(interval.start)} to {format_time(interval.end)}"
        count = f"{_COUNTED} or more" if len(others) == _COUNTED else str(len(others))
        return CatalogError(f"{what}; {count} items have other times{times}", fix="give another --datetime")
    known = {
        name: extent
        for name, extent in source.collections().items()
        if not wanted.collections or name in wanted.collections
    }
    if not known:
        return CatalogError(what, fix="give another --area or --catalog")
    covered = "; ".join(f"{name} covers {extent}" for name, extent in itertools.islice(known.items(), _NAMED))
    more = f"; and {len(known) - _NAMED} more collections" if len(known) > _NAMED else ""
    if wanted.geometry is None:
        return CatalogError(f"{what}; {covered}{more}", fix="give another --catalog, or other collections of it")
    boxes = [box_geometry(extent.bbox) for extent in known.values() if extent.bbox]
    meets = bool(boxes) and bool(shapely.intersects(boxes, wanted.geometry).any())
    fix = "its extents meet the area but no item does: give another --area" if meets else "give an --area inside them"
    return CatalogError(f"{what}; {covered}{more}", fix=fix)


def _of_request(wanted: Wanted) -> str:
    parts = [f" of {', '.join(wanted.collections)}"] if wanted.collections else []
    if wanted.geometry is not None:
        parts.append(" for the area " + ",".join(f"{value:.6g}" for value in wanted.geometry.bounds))
    if wanted.interval is not None:
        parts.append(f" for the time {wanted.interval}")
    return "".join(parts)


def find_scenes(
    source: CatalogSource,
    geometry: BaseGeometry | None,
    *,
    datetime: str | Interval | None = None,
    collections: Sequence[str] | None = None,
    sensor: str | None = None,
) -> Found:
    """The scenes of `source` over `geometry` (EPSG:4326, split at the antimeridian; None for everywhere).

    Raises:
        JobError: for a datetime that cannot be read.
        CatalogError: as `search_items`.
        SensorError: where no item is of a known sensor, or none of the sensor asked for.
    """
    interval = parse_datetime(datetime) if isinstance(datetime, str) else datetime
    wanted = Wanted(geometry=geometry, interval=interval, collections=tuple(collections or ()))
    found = _search(source, wanted, partial(_scene_or_refused, catalogue=source.address))
    scenes = [one for one in found if isinstance(one, Scene)]
    refused = [one for one in found if isinstance(one, RefusedItem)]
    if not scenes:
        raise _all_refused(source, refused)
    chosen = tuple(scene for scene in scenes if sensor in (None, scene.sensor))
    others = dict(sorted(Counter(scene.sensor for scene in scenes if sensor not in (None, scene.sensor)).items()))
    if not chosen:
        there = ", ".join(f"{count} of {name}" for name, count in others.items())
        raise SensorError(
            f"no scene of the sensor {sensor!r} in {source.address}: there are {there}", fix="ask for one of these"
        )
    return Found(scenes=chosen, refused=tuple(refused), other_sensors=others)


def glimpse_scenes(source: CatalogSource, wanted: Wanted, *, sensor: str | None = None) -> list[Scene]:
    """The scenes among the first few items of a search, which may be none: what a vast one would find more of.

    Raises CatalogError where the catalogue cannot be read.
    """
    items = itertools.islice(_matching(source, wanted), _GLIMPSED)
    found = [_scene_or_refused(item, catalogue=source.address) for item in items]
    return [one for one in found if isinstance(one, Scene) and sensor in (None, one.sensor)]


def _all_refused(source: CatalogSource, refused: Sequence[RefusedItem]) -> SensorError:
    counts = Counter(re.sub(rf"(?<!\w){re.escape(item.id)}(?!\w)", "<id>", item.why) for item in refused)
    why, count = max(counts.items(), key=lambda pair: (pair[1], pair[0]))
    return SensorError(
        f"none of the {len(refused)} items in {source.address} is imagery that is recognised; "
        f"{count} of them because: {why}"
    )
