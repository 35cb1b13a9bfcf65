"""Imagery without a catalogue: files, folders and archives become STAC items, as if somebody had catalogued them.

Files that belong together make one item: a SAFE of Sentinel, the scene of an MTL of Landsat, the bands of one name, or
a file of its own. What the metadata say goes before what names say, and both before what is told from the file. An
item's id ends in a key of its files' versions, so that a file that changes is another scene, and nothing kept of the
old one is taken for it. Everything after the items works as with any catalogue.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import shapely
import shapely.geometry
from shapely.geometry.base import BaseGeometry

from earthmap.catalog.image_names import date_in_name, date_in_tag, no_image
from earthmap.catalog.intervals import Interval, format_time, parse_datetime
from earthmap.catalog.landsat import MTL, landsat_product
from earthmap.catalog.listing import LeftOut, Listing, list_images
from earthmap.catalog.loose import loose_products, single_product, tell_bands, with_numbers
from earthmap.catalog.raster_facts import read_facts
from earthmap.catalog.safe import SENTINEL_1, SENTINEL_2, sentinel_1_product, sentinel_2_product
from earthmap.catalog.source import MemoryCatalog
from earthmap.content import content_key
from earthmap.errors import CatalogError, EarthmapError, JobError
from earthmap.grid.lonlat import area_m2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from earthmap.catalog.listing import FoundFile
    from earthmap.catalog.products import BandFile, Product
    from earthmap.catalog.raster_facts import RasterFacts
    from earthmap.catalog.source import CatalogSource, Extent, SourceItem, Wanted

COLLECTION = "images"
"""Collection of images whose metadata name no better one."""

_THREADS = 4
_KEY_DIGITS = 8
_NAMED = 3
_LONGEST_DAY_S = 86_400.0
_TYPES = {
    "GTiff": "image/tiff; application=geotiff",
    "JP2OpenJPEG": "image/jp2",
    "PNG": "image/png",
    "JPEG": "image/jpeg",
}
_FIX_DATE = "write the date behind its path, as in image.tif@2024-05-04, or give one day as --datetime for all"


class ImageCatalog(MemoryCatalog):
    """The items of images without a catalogue, and the files that are none."""

    def __init__(self, items: Sequence[Mapping[str, Any]], *, address: str, left_out: tuple[LeftOut, ...]) -> None:
        super().__init__(items, address=address)
        self._ids = tuple(str(item["id"]) for item in items)
        self._grounds = [shapely.geometry.shape(item["geometry"]) for item in items]
        self.left_out = left_out

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of its items."""
        return self._ids

    @property
    def footprint(self) -> BaseGeometry:
        """The ground of all images in EPSG:4326, split at the antimeridian."""
        return shapely.union_all(self._grounds)


class JoinedCatalog:
    """Several catalogues as one; what is asked of it is asked of each."""

    def __init__(self, sources: Sequence[CatalogSource]) -> None:
        self._sources = tuple(sources)

    @property
    def address(self) -> str:
        """Where they stand."""
        return " and ".join(source.address for source in self._sources)

    def collections(self) -> Mapping[str, Extent]:
        """The collections of all; of two of one name the first one's extent."""
        found: dict[str, Extent] = {}
        for source in reversed(self._sources):
            found |= source.collections()
        return found

    def items(self, wanted: Wanted) -> Iterator[SourceItem]:
        """The items of all."""
        return (found for source in self._sources for found in source.items(wanted))


def image_catalog(
    paths: Sequence[str],
    *,
    datetime: str | None = None,
    bands: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> ImageCatalog:
    """A catalogue of the images at `paths`: files, folders, zips and tars, http(s) and s3 addresses.

    Args:
        paths: `@DATE` behind one says when it was taken, whatever its metadata say.
        datetime: The time of images that do not tell it, where it is one day or one instant; a longer interval is a
            request and no time of an image.
        bands: What the bands of files are that hold several (common names, polarizations, `B04` …).
        say: Hears what is done where it takes long.

    Raises:
        CatalogError: where a path leads to nothing, a named file is no image that can be placed and dated, or no image
            is left.
    """
    listing = list_images(tuple(paths), say=say)
    count = sum(file.is_raster for file in listing.files)
    if say and count > 1:
        say(f"reading what {count:,} image files say of themselves")
    return _catalog_of(listing, _address(paths), _day(datetime), tuple(bands))


def images_key(paths: Sequence[str]) -> str:
    """Key of the files at `paths` and of their versions. Raises CatalogError where there is nothing."""
    return list_images(tuple(paths)).content_key()


def _address(paths: Sequence[str]) -> str:
    named = ", ".join(path[-60:] for path in paths[:_NAMED])
    more = len(paths) - _NAMED
    return f"the images {named}" + (f" and {more} more" if more > 0 else "")


def _day(text: str | None) -> Interval | None:
    """The interval of one day or less; None for longer ones."""
    interval = parse_datetime(text) if text else None
    if interval is None or interval.start is None or interval.end is None:
        return None
    return interval if (interval.end - interval.start).total_seconds() <= _LONGEST_DAY_S else None


@functools.lru_cache(maxsize=4)
def _catalog_of(listing: Listing, address: str, day: Interval | None, bands: tuple[str, ...]) -> ImageCatalog:
    """Reads every header once for all that ask in one process; a listing holds the versions of its files."""
    products, refused = _products(listing.files)
    with ThreadPoolExecutor(_THREADS) as pool:
        built = list(pool.map(lambda product: _built(product, day, bands), products))
    built.append(_series([file for file in listing.files if file.is_series]))
    items = [item for one in built for item in one.items]
    left_out = (*listing.left_out, *refused, *(left for one in built for left in one.left_out))
    if not items:
        raise _nothing(address, left_out)
    ordered = tuple(sorted(set(left_out), key=lambda one: (one.address, one.why)))
    return ImageCatalog(items, address=address, left_out=ordered)


def _nothing(address: str, left_out: Sequence[LeftOut]) -> CatalogError:
    if not left_out:
        return CatalogError(
            f"there is no image in {address}",
            expected="GeoTIFF, JPEG 2000, PNG or JPEG with a georeference, a SAFE or Landsat product, or NetCDF 4",
        )
    shown = "; ".join(f"{one.address}: {one.why}" for one in left_out[:_NAMED])
    more = f"; and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
    return CatalogError(f"none of the {len(left_out)} files in {address} is an image that can be used: {shown}{more}")


def _left(address: str, error: EarthmapError) -> LeftOut:
    """The file at `address` and what is wrong with it, which names it no second time."""
    named = rf"(?:the (?:archive|time series|product of) )?{re.escape(address)}"
    return LeftOut(address=address, why=re.sub(named, "it", str(error)))


# -- which files belong together


def _products(files: Sequence[FoundFile]) -> tuple[list[Product], list[LeftOut]]:
    """Products of metadata first, each with all files below it; then what is left, by names."""
    products: list[Product] = []
    left_out: list[LeftOut] = []
    taken: set[str] = set()
    for metadata, members, read in _described(files):
        members = [file for file in members if file.address not in taken]
        taken.update(file.address for file in members)
        try:
            products += [read(metadata, part) for part in _granules(members)] if members else []
        except CatalogError as error:
            left_out.append(_left(metadata.address, error))
    rest = []
    for file in files:
        if file.address in taken or not file.is_raster:
            continue
        why = None if file.named else no_image(file.name.partition("/")[2])
        if why:
            left_out.append(
                LeftOut(address=file.address, why=f"its name says that it is {why}; name the file itself to use it")
            )
        else:
            rest.append(file)
    products += loose_products(rest)
    return products, left_out


def _described(
    files: Sequence[FoundFile],
) -> Iterator[tuple[FoundFile, list[FoundFile], Callable[[FoundFile, Sequence[FoundFile]], Product]]]:
    """Each file of metadata, the files of its product, and what reads it; an MTL in several forms once."""
    scenes: set[str] = set()
    for file in sorted(files, key=lambda one: (one.address.count("/"), one.address)):
        own = file.name.rpartition("/")[2]
        scene = MTL.match(file.address)
        if SENTINEL_2.match(own) or SENTINEL_1.match(own):
            root = file.address[: -len(own)]
            reader = sentinel_2_product if SENTINEL_2.match(own) else sentinel_1_product
            yield file, [one for one in files if one.address.startswith(root) and one is not file], reader
        elif scene and scene["prefix"] not in scenes:
            scenes.add(scene["prefix"])
            start = f"{scene['prefix']}_"
            yield file, [one for one in files if one.address.startswith(start) and one is not file], landsat_product


def _granules(files: Sequence[FoundFile]) -> Iterable[list[FoundFile]]:
    """The files of each granule; Sentinel-2 products of before 2016 hold several, each an image."""
    grouped: dict[str, list[FoundFile]] = {}
    for file in files:
        before, found, after = file.address.partition("/GRANULE/")
        if found:
            grouped.setdefault(f"{before}/{after.partition('/')[0]}", []).append(file)
    others = [file for file in files if "/GRANULE/" not in file.address]
    return [[*members, *others] for members in grouped.values()] if len(grouped) > 1 else [list(files)]


# -- items


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    items: tuple[dict[str, Any], ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def _built(product: Product, day: Interval | None, bands: tuple[str, ...]) -> _Built:
    """The item of a product. Raises CatalogError where a file that the user named cannot be used."""
    left_out = [LeftOut(address=address, why=why) for address, why in product.left_out]
    read: list[tuple[BandFile, RasterFacts]] = []
    for one in product.files:
        try:
            read.append((one, read_facts(one.file.address)))
        except EarthmapError as error:
            _raise_if_named(one.file, error)
            left_out.append(_left(one.file.address, error))
    apart = [(one, facts) for one, facts in read if len(one.bands) == 1 and facts.color_bands > 1]
    if apart:  # a name that ends like a band's, on a file of several
        parts = [single_product(one.file) for one in product.files]
        whole = [_built(part, day, bands) for part in parts]
        return _Built(
            items=tuple(item for part in whole for item in part.items),
            left_out=(*left_out, *(left for part in whole for left in part.left_out)),
        )
    try:
        items = (_item(product, read, day=day, bands=bands),) if _has_data(read) else ()
    except EarthmapError as error:
        _raise_if_named(product.files[0].file, error)
        return _Built(left_out=(*left_out, _left(product.files[0].file.address, error)))
    return _Built(items=items, left_out=tuple(left_out))


def _series(files: Sequence[FoundFile]) -> _Built:
    """The steps of time series, whose bands may lie in several files. Raises CatalogError for a named one that is none.

    They tell their own dates; one written behind their path is no date of theirs.
    """
    from earthmap.catalog.netcdf import netcdf_items

    good, left_out = [], []
    for file in files:
        try:
            netcdf_items(file.address)
            good.append(file.address)
        except EarthmapError as error:
            _raise_if_named(file, error)
            left_out.append(_left(file.address, error))
    return _Built(items=tuple(netcdf_items(*good)), left_out=tuple(left_out))


def _has_data(read: Sequence[tuple[BandFile, RasterFacts]]) -> bool:
    return any("data-mask" not in one.roles for one, _ in read)


def _raise_if_named(file: FoundFile, error: EarthmapError) -> None:
    if file.named:
        raise CatalogError(error.what, expected=error.expected, fix=error.fix) from error


def _item(
    product: Product, read: Sequence[tuple[BandFile, RasterFacts]], *, day: Interval | None, bands: tuple[str, ...]
) -> dict[str, Any]:
    notes: list[str] = []
    time = _time(product, read, day, notes)
    platform = product.properties.get("platform")
    assets = {
        key: {"href": href, "type": "application/xml", "roles": ["metadata"]} for key, href in product.metadata.items()
    }
    for one, facts in read:
        assets[one.key] = _asset(one, facts, bands, str(platform) if platform else None, notes)
    ground = _ground(product, [facts for _, facts in read])
    version = content_key([(one.file.address, one.file.stamp) for one, _ in read], format_time(time.start or time.end))
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": f"{product.name}-{version[:_KEY_DIGITS]}",
        "collection": product.collection,
        "geometry": shapely.geometry.mapping(ground),
        "bbox": _bbox(ground),
        "properties": {**product.properties, **_when(time), **({"earthmap:notes": notes} if notes else {})},
        "assets": assets,
        "links": [],
    }


def _asset(
    one: BandFile, facts: RasterFacts, bands: tuple[str, ...], platform: str | None, notes: list[str]
) -> dict[str, Any]:
    stated = one.bands
    if not stated:
        stated, note = tell_bands(facts, one.file, platform=platform, bands=bands)
        notes += [note] if note else []
    asset: dict[str, Any] = {
        "href": one.file.address,
        "type": _TYPES.get(facts.driver, _TYPES["GTiff"]),
        "roles": list(one.roles),
        "proj:shape": list(facts.shape),
        "bands": [with_numbers(band, facts, index) for index, band in enumerate(stated[: len(facts.dtypes)])],
    }
    if facts.transform is None:
        asset["gsd"] = _distance(facts)
        return asset
    asset["proj:transform"] = list(facts.transform)
    asset["proj:code" if facts.crs.startswith("EPSG:") else "proj:wkt2"] = facts.crs
    return asset


def _distance(facts: RasterFacts) -> float:
    """Side of a pixel in metres, to two figures, of a file that only points on the ground place."""
    side = math.sqrt(area_m2(facts.footprint) / (facts.shape[0] * facts.shape[1]))
    return float(f"{side:.2g}")


def _ground(product: Product, read: Sequence[RasterFacts]) -> BaseGeometry:
    """What the metadata say, inside the frame of the files; else where the files hold values."""
    own = shapely.union_all([facts.footprint for facts in read])
    if product.footprint is None:
        return own
    both = shapely.intersection(product.footprint, own)
    polygons = [part for part in shapely.get_parts(both) if part.area > 0 and part.geom_type == "Polygon"]
    return shapely.union_all(polygons) if polygons else own


def _bbox(ground: BaseGeometry) -> list[float]:
    """West is greater than east where the ground crosses the antimeridian."""
    west, south, east, north = (float(value) for value in ground.bounds)
    parts = shapely.get_parts(ground)
    if (west, east) != (-180.0, 180.0) or len(parts) < 2:
        return [west, south, east, north]
    far = [part.bounds[0] for part in parts if part.bounds[0] > 0]
    near = [part.bounds[2] for part in parts if part.bounds[0] <= 0]
    return [min(far), south, max(near), north] if far and near else [west, south, east, north]


# -- time


def _time(
    product: Product, read: Sequence[tuple[BandFile, RasterFacts]], day: Interval | None, notes: list[str]
) -> Interval:
    """When it was taken: as the user says, the metadata, the names, the files' own tags, then `day`.

    A TIFF's DateTime tag comes after the names: programs write the time of processing into it.

    Raises:
        CatalogError: where nothing tells.
    """
    file = read[0][0].file
    if file.date:
        return _stated(file.date, file)
    found = product.time or date_in_name(file.name)
    if found is not None:
        return found
    tags = read[0][1].tags
    for key in ("ACQUISITIONDATETIME", "TIFFTAG_DATETIME"):
        tagged = date_in_tag(tags.get(key, ""))
        if tagged is not None:
            notes.extend(
                ["time from the file's own tag, which may be that of processing"] if key.startswith("T") else []
            )
            return tagged
    if day is None:
        raise CatalogError(
            f"nothing tells when {file.address} was taken", expected="a date in its metadata or name", fix=_FIX_DATE
        )
    return day


def _stated(text: str, file: FoundFile) -> Interval:
    try:
        return parse_datetime(text)
    except JobError as error:
        raise CatalogError(f"the date behind {file.address}: {error.what}", expected=error.expected) from error


def _when(time: Interval) -> dict[str, Any]:
    """STAC's fields of time; a second is an instant, anything longer an interval."""
    start, end = time.start or time.end, time.end or time.start
    if start is None or end is None:
        return {}
    if (end - start).total_seconds() < 1.0:
        return {"datetime": format_time(start)}
    return {"datetime": None, "start_datetime": format_time(start), "end_datetime": format_time(end)}
