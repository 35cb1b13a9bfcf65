"""A catalogue's health: one small window of one recent item of each collection, and what stands in the way of it.

Nothing is written, nothing is waited for, and only a few items of each collection are looked at.
"""

from __future__ import annotations

import datetime
import email.utils
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import shapely

from earthmap.catalog import Scene, SourceItem, Wanted, open_catalog, scene_from_item
from earthmap.catalog.addresses import check_href, split_member
from earthmap.catalog.scene import scene_hrefs
from earthmap.catalog.signing import INSTALL, needs_signature
from earthmap.connection import Connection
from earthmap.cube import RasterioReader, Reader
from earthmap.cube.failures import place_of, probe
from earthmap.errors import EarthmapError, ReadError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from earthmap.catalog import CatalogSource
    from earthmap.grid import AreaOfInterest

MAX_COLLECTIONS = 20
"""Collections that are looked at unless they are named."""

ITEMS = 10
"""Items of each collection that are looked at."""

WINDOW_PX = 256
"""Side of the window that is read."""

MAX_SKEW_S = 300.0
"""Signed requests are refused where the clocks differ by more than some minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionHealth:
    """What was found of one collection."""

    collection: str
    items: int
    """Items looked at."""
    recognised: int
    """Those of a known sensor."""
    sensors: tuple[str, ...] = ()
    item: str | None = None
    """The item whose window was read, or not."""
    milliseconds: float | None = None
    """How long the window took, from the first request on; None where it could not be read."""
    bytes_per_second: float | None = None
    """Of decoded pixels."""
    cause: str | None = None
    """None where all is well; a cause of `earthmap.cube.failures`, `no_item`, or `not_recognised`."""
    message: str | None = None
    fix: str | None = None
    credentials: str = "none"
    """What is set for the item's host, or missing."""

    @property
    def healthy(self) -> bool:
        """True where a window was read."""
        return self.cause is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found of a catalogue."""

    catalog: str
    collections: tuple[CollectionHealth, ...] = ()
    left_out: int = 0
    """Collections that were not looked at."""
    fault: str | None = None
    """Why the catalogue itself cannot be read."""
    clock_skew_s: float | None = None
    """This machine's clock less the service's, to the second; None where the catalogue is no service."""

    @property
    def status(self) -> str:
        """`healthy`, `partly` where some collections are not, `ill` where nothing can be read."""
        if self.fault or not any(one.healthy for one in self.collections):
            return "ill"
        return "healthy" if all(one.healthy for one in self.collections) else "partly"


def diagnose(
    address: str,
    *,
    collections: Sequence[str] = (),
    area: AreaOfInterest | None = None,
    reader: Reader | None = None,
    say: Callable[[str], None] | None = None,
) -> Diagnosis:
    """The health of the catalogue at `address`; a fault of it is part of the answer and not raised.

    Args:
        address: as a job's `catalog`.
        collections: ids of those to look at; none for the first 20.
        area: look at items over it only.
        reader: what windows are read with.
        say: hears what is looked at.
    """
    skew = _clock_skew(address)
    try:
        source = open_catalog(address)
        known = list(source.collections())
    except EarthmapError as error:
        return Diagnosis(catalog=address, fault=str(error), clock_skew_s=skew)
    asked = list(collections) or known[:MAX_COLLECTIONS] or [""]
    found = []
    for name in asked:
        if say is not None:
            say(f"looking at {name or address}")
        found.append(_health(source, name, area, reader or RasterioReader()))
    left_out = 0 if collections else max(0, len(known) - MAX_COLLECTIONS)
    return Diagnosis(catalog=address, collections=tuple(found), left_out=left_out, clock_skew_s=skew)


def _clock_skew(address: str) -> float | None:
    answer = probe(address)
    if answer is None or answer.date is None:
        return None
    try:
        theirs = email.utils.parsedate_to_datetime(answer.date)
    except ValueError:
        return None
    theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=datetime.UTC)
    return round((datetime.datetime.now(datetime.UTC) - theirs).total_seconds())


def _health(source: CatalogSource, name: str, area: AreaOfInterest | None, reader: Reader) -> CollectionHealth:
    wanted = Wanted(geometry=area.geometry if area else None, collections=(name,) if name else ())
    try:
        items = list(itertools.islice(source.items(wanted), ITEMS))
    except EarthmapError as error:
        return CollectionHealth(
            collection=name, items=0, recognised=0, cause="catalogue", message=str(error), fix=error.fix
        )
    scenes, refusals = _recognised(items, source.address)
    base: dict[str, Any] = {
        "collection": name,
        "items": len(items),
        "recognised": len(scenes),
        "sensors": tuple(sorted({scene.sensor for scene in scenes})),
    }
    if not items:
        where = " over the area" if area else ""
        return CollectionHealth(**base, cause="no_item", message=f"no item{where}", fix="give another --area")
    if not scenes:
        ((message, _),) = Counter(refusals).most_common(1)
        return CollectionHealth(**base, cause="not_recognised", message=message, fix="see docs/sensors.md")
    scene = max(scenes, key=lambda scene: (scene.datetime, scene.id))
    return _read_window(scene, area, reader, base)


def _recognised(items: Iterable[SourceItem], catalogue: str) -> tuple[list[Scene], list[str]]:
    scenes, refusals = [], []
    for found in items:
        try:
            scene = scene_from_item(found.item, base=found.base)
            for href in scene_hrefs(scene):
                check_href(href, catalogue=catalogue)
            scenes.append(scene)
        except EarthmapError as error:
            refusals.append(str(error).replace(found.id, "<id>"))
    return scenes, refusals


def _read_window(
    scene: Scene, area: AreaOfInterest | None, reader: Reader, base: dict[str, Any]
) -> CollectionHealth:  # fmt: skip
    source = scene.sources[0]
    started = time.monotonic()
    try:
        values = reader.read(source, _window(scene, area))
    except ReadError as error:
        return CollectionHealth(
            **base,
            item=scene.id,
            cause=error.reason,
            message=str(error.what),
            fix=error.fix,
            credentials=_credentials(source.href),
        )
    seconds = max(time.monotonic() - started, 1e-6)
    return CollectionHealth(
        **base,
        item=scene.id,
        milliseconds=round(seconds * 1000, 1),
        bytes_per_second=round(values.nbytes / seconds),
        credentials=_credentials(source.href),
    )


def _window(scene: Scene, area: AreaOfInterest | None) -> GeoBox:
    """A square of pixels in the middle of what the scene shows, in the UTM zone (or polar projection) there."""
    from affine import Affine
    from odc.geo.geobox import GeoBox
    from pyproj import Transformer

    ground = shapely.from_wkb(scene.footprint)
    both = ground.intersection(area.geometry) if area else ground
    middle = (ground if both.is_empty else both).representative_point()
    zone = min(60, int((middle.x + 180) // 6) + 1)
    epsg = (32600 if middle.y >= 0 else 32700) + zone
    if abs(middle.y) > 84:
        epsg = 32661 if middle.y > 0 else 32761
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True).transform(middle.x, middle.y)
    size = scene.resolution_m
    half = WINDOW_PX * size / 2
    return GeoBox((WINDOW_PX, WINDOW_PX), Affine(size, 0, x - half, 0, -size, y + half), f"EPSG:{epsg}")


def _credentials(href: str) -> str:
    """What this machine has set for the host of `href`."""
    member = split_member(href)
    address = member.archive if member else href
    if needs_signature(address):
        if find_spec("planetary_computer") is None:
            return f"missing: {INSTALL}"
        return "subscription key" if os.environ.get("PC_SDK_SUBSCRIPTION_KEY") else "signed without a key"
    place = place_of(address)
    if place == "file":
        return "none needed"
    connection = Connection.from_environment()
    if place.startswith("s3://"):
        if connection.s3.anonymous:
            return "requests without a name"
        keys = bool(os.environ.get("AWS_ACCESS_KEY_ID") or connection.s3.profile)
        return "keys" if keys else "missing: no AWS_ACCESS_KEY_ID, AWS_PROFILE or AWS_NO_SIGN_REQUEST"
    return "a header" if connection.headers_for(address) else "none"
