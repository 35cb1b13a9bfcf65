"""From a STAC item of any provider's dialect to a scene: which files, which bands, which numbers.

The item is read as a plain mapping, STAC 1.0 (`eo:bands`, `raster:bands`) and 1.1 (`bands`) alike. What the item says
of the measurement decides; the names of item and collection never do.
"""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely

from earthmap.catalog.intervals import item_interval
from earthmap.catalog.scene import BandSource, Scene
from earthmap.catalog.source import item_geometry
from earthmap.catalog.transport import is_remote, join, local_path
from earthmap.content import canonical_json
from earthmap.errors import CatalogError, SensorError
from earthmap.sensors.bands import resolve_band, resolve_family
from earthmap.sensors.calibration import Calibration
from earthmap.sensors.registry import SENSORS, BandFacts, ItemFacts, Recognition, Sensor, recognize

METRES_PER_DEGREE = 111_319.49079327358
"""One degree of the equator on the WGS 84 ellipsoid."""

S2_SCALE, S2_OFFSET = 1e-4, -0.1
"""Sentinel-2's stored number to reflectance; the offset is there since processing baseline 04.00."""

_OFFSET_BASELINE = 4.0
_OFFSET_DATE = datetime.datetime(2022, 1, 25, tzinfo=datetime.UTC)

_NOT_DATA = frozenset(
    {
        "azimuth",
        "cloud",
        "cloud-shadow",
        "data-mask",
        "incidence-angle",
        "label",
        "labels",
        "metadata",
        "overview",
        "saturation",
        "snow-ice",
        "sun-azimuth",
        "sun-elevation",
        "terrain-occlusion",
        "terrain-shadow",
        "thumbnail",
        "tiles",
        "water-mask",
    }
)
"""Roles of assets that are not the measurement (STAC best practices, asset roles, and the extensions' own)."""

_LAYERS = ("scl", "aot", "wvp")
_PICTURES = ("visual", "tci", "overview", "preview", "thumbnail", "rendered")

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _AssetBand:
    """One band of one asset, as the item states it."""

    asset: str
    index: int
    href: str
    band: str
    facts: BandFacts
    nodata: float | None
    distance_m: float | None
    rank: tuple[int, float]
    """Smaller is preferred where two are the same band: form of the file, then ground distance."""


def scene_from_item(item: Item, *, base: str) -> Scene:
    """The scene behind a STAC item.

    Args:
        item: The item as parsed JSON, STAC 1.0 or 1.1.
        base: Address of the item's own file, or of its folder: relative hrefs start there.

    Raises:
        SensorError: for imagery that has no row in the table of sensors; the message names the item.
        CatalogError: for an item without a time, ground or readable structure.
    """
    if not isinstance(item, Mapping) or not isinstance(item.get("assets"), Mapping):
        raise CatalogError(f"{_called(item)} has no assets", expected="a STAC item with assets")
    family = _family(_properties(item))
    data, rendered = _data_bands(item, family=family)
    facts = _item_facts(item, data, rendered=rendered)
    try:
        found = recognize(facts)
    except SensorError as error:
        raise SensorError(f"{_called(item)}: {error.what}", expected=error.expected, fix=error.fix) from error
    return _scene(item, data=data, found=found, base=base)


def _scene(item: Item, *, data: Sequence[_AssetBand], found: Recognition, base: str) -> Scene:
    properties, sensor = _properties(item), SENSORS[found.sensor]
    time, ground = _time(item), _ground(item)
    chosen = [one for band in sensor.bands for one in _best(data, band)]
    offset, notes = _s2_offset(properties, time) if sensor.id.startswith("sentinel-2") else (None, ())
    if all(one.facts.offset is not None for one in chosen):
        notes = ()  # nothing was assumed
    return Scene(
        id=str(item.get("id") or ""),
        collection=str(item.get("collection") or ""),
        sensor=sensor.id,
        datetime=time,
        footprint=shapely.to_wkb(ground),
        resolution_m=_resolution(chosen, properties, item),
        sources=tuple(_source(one, sensor=sensor, offset=offset, properties=properties, base=base) for one in chosen),
        mask_source=_mask_source(item, base) if sensor.mask == "scl" else None,
        cloud_cover=_number(properties.get("eo:cloud_cover")),
        platform=_platform(properties),
        pass_id=_pass_id(properties),
        created=_text(properties, "created", "updated", "s2:generation_time"),
        world=canonical_json(properties["earthmap:world"]) if properties.get("earthmap:world") else None,
        notes=tuple(dict.fromkeys((*found.notes, *notes))),
    )


def _called(item: Any) -> str:
    name = item.get("id") if isinstance(item, Mapping) else None
    return f"the item {name}" if name else "an item without an id"


def _properties(item: Item) -> Mapping[str, Any]:
    properties = item.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _text(properties: Mapping[str, Any], *keys: str) -> str | None:
    return next((str(properties[key]) for key in keys if properties.get(key)), None)


def _number(value: Any) -> float | None:
    """A finite number; None for anything else (`nan` is written as text in STAC)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [one if isinstance(one, Mapping) else {} for one in value] if isinstance(value, list) else []


# -- where and when


def _time(item: Item) -> datetime.datetime:
    properties = _properties(item)
    interval = item_interval({"properties": {"datetime": properties.get("datetime")}}) or item_interval(item)
    if interval is None or interval.start is None or interval.end is None:
        raise CatalogError(
            f"{_called(item)} has no time that can be read", expected="datetime, or start_datetime and end_datetime"
        )
    return interval.start + (interval.end - interval.start) / 2


def _ground(item: Item) -> shapely.Geometry:
    """Polygons of the footprint in EPSG:4326, split at the antimeridian."""
    geometry = item_geometry(item)
    parts = [] if geometry is None else [part for part in shapely.get_parts(geometry) if part.area > 0]
    polygons = [part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")]
    if not polygons:
        raise CatalogError(
            f"{_called(item)} covers no ground", expected="a polygon in its geometry, or a bbox", fix="leave it out"
        )
    return polygons[0] if len(polygons) == 1 else shapely.union_all(polygons)


def _platform(properties: Mapping[str, Any]) -> str | None:
    name = _text(properties, "platform", "constellation")
    return re.sub(r"[\s_]+", "-", name.strip().lower()) if name else None


def _instruments(properties: Mapping[str, Any]) -> tuple[str, ...]:
    stated = properties.get("instruments")
    return tuple(str(one).lower() for one in stated) if isinstance(stated, list) else ()


def _family(properties: Mapping[str, Any]) -> str | None:
    return resolve_family(_platform(properties), _instruments(properties))


def _pass_id(properties: Mapping[str, Any]) -> str | None:
    """The datatake without its processing baseline, so that reprocessings of one pass stay one pass."""
    datatake = _text(properties, "s2:datatake_id")
    if datatake:
        return re.sub(r"_N\d\d\.\d\d$", "", datatake)
    platform = _platform(properties)
    for key in ("s1:datatake_id", "sat:absolute_orbit", "sat:relative_orbit"):
        if platform and properties.get(key) is not None:
            return f"{platform} {key.split(':')[1]} {properties[key]}"
    return None


# -- assets and bands


def _data_bands(item: Item, *, family: str | None) -> tuple[list[_AssetBand], bool]:
    """The bands of the measurement, and False; those of a picture made for people, and True, where it has no others."""
    data: list[_AssetBand] = []
    pictures: list[_AssetBand] = []
    for key, asset in item["assets"].items():
        if not isinstance(asset, Mapping) or not _is_raster(asset) or _roles(asset) & _NOT_DATA:
            continue
        if key.lower() in _LAYERS or key.lower().split("-")[0] in _LAYERS:
            continue
        into = pictures if _is_picture(key, asset) else data
        into += _asset_bands(item, key, family=family)
    return (data, False) if data else (pictures, bool(pictures))


def _roles(asset: Mapping[str, Any]) -> frozenset[str]:
    roles = asset.get("roles")
    return frozenset(str(role).lower() for role in roles) if isinstance(roles, list) else frozenset()


def _is_raster(asset: Mapping[str, Any]) -> bool:
    """True for GeoTIFF and JPEG 2000: by media type, or by the file's name where there is none."""
    href = asset.get("href")
    if not isinstance(href, str):
        return False
    kind = str(asset.get("type") or "").lower()
    if kind:
        return "tif" in kind or kind.startswith("image/jp2")
    return href.lower().split("?")[0].endswith((".tif", ".tiff", ".jp2"))


def _is_picture(key: str, asset: Mapping[str, Any]) -> bool:
    return "visual" in _roles(asset) or key.lower().startswith(_PICTURES)


def _asset_bands(item: Item, key: str, *, family: str | None) -> list[_AssetBand]:
    asset = item["assets"][key]
    found = []
    for index, stated in enumerate(_stated_bands(key, asset), 1):
        band = resolve_band(
            _text(stated, "name"),
            common_name=_text(stated, "eo:common_name", "common_name"),
            wavelength_um=_number(stated.get("eo:center_wavelength", stated.get("center_wavelength"))),
            polarization=_polarization(stated),
            family=family,
        )
        if band is None and len(_stated_bands(key, asset)) == 1:
            band = resolve_band(key, family=family)
        if band is not None:
            found.append(_asset_band(item, key, index=index, band=band, stated=stated))
    return found


def _polarization(stated: Mapping[str, Any]) -> str | None:
    channels = stated.get("sar:polarizations")
    return str(channels[0]) if isinstance(channels, list) and len(channels) == 1 else None


def _stated_bands(key: str, asset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the asset says of each of its bands: STAC 1.1's `bands`, `eo:bands` and `raster:bands` laid together.

    What is said once of the asset holds for each band. An asset that lists no bands is one band of its key's name; a
    picture for people that lists none is red, green and blue, as STAC's role `visual` defines it.
    """
    lists = [_list(asset.get(name)) for name in ("raster:bands", "eo:bands", "bands")]
    count = max(len(one) for one in lists)
    shared = {name: value for name, value in asset.items() if name.startswith(("raster:", "sar:", "eo:"))}
    shared |= {name: asset[name] for name in ("data_type", "nodata", "unit") if name in asset}
    if count == 0:
        pictured = _is_picture(key, asset)
        return [{**shared, "name": name} for name in (("red", "green", "blue") if pictured else (key,))]
    merged: list[dict[str, Any]] = [dict(shared) for _ in range(count)]
    for one in lists:
        for index, stated in enumerate(one):
            merged[index].update(stated)
    return merged


def _asset_band(item: Item, key: str, *, index: int, band: str, stated: Mapping[str, Any]) -> _AssetBand:
    asset = item["assets"][key]
    kind = _text(stated, "data_type", "raster:data_type")
    distance = _distance(item, asset) or _number(
        stated.get("raster:spatial_resolution", stated.get("spatial_resolution"))
    )
    distance = distance or _number(stated.get("gsd")) or _number(asset.get("gsd"))
    return _AssetBand(
        asset=key,
        index=index,
        href=asset["href"],
        band=band,
        facts=BandFacts(
            band=band,
            data_type=kind.lower() if kind else None,
            scale=_number(stated.get("raster:scale", stated.get("scale"))),
            offset=_number(stated.get("raster:offset", stated.get("offset"))),
            unit=_text(stated, "unit", "raster:unit"),
        ),
        nodata=_number(stated.get("nodata", stated.get("raster:nodata"))),
        distance_m=distance,
        rank=(_form(asset), distance or math.inf),
    )


def _form(asset: Mapping[str, Any]) -> int:
    """0 for a cloud-optimised GeoTIFF, 1 for another GeoTIFF, 2 for JPEG 2000: slow to decode."""
    kind = str(asset.get("type") or asset.get("href")).lower()
    return 0 if "cloud-optimized" in kind else 2 if "jp2" in kind else 1


def _best(data: Sequence[_AssetBand], band: str) -> list[_AssetBand]:
    return sorted((one for one in data if one.band == band), key=lambda one: one.rank)[:1]


def _item_facts(item: Item, data: Sequence[_AssetBand], *, rendered: bool) -> ItemFacts:
    properties = _properties(item)
    chosen = [one for band in dict.fromkeys(one.band for one in data) for one in _best(data, band)]
    assets = [item["assets"][key] for key in dict.fromkeys(one.asset for one in chosen)]
    texts = [str(asset.get(key) or "") for asset in assets for key in ("title", "description")]
    return ItemFacts(
        bands=tuple(one.facts for one in chosen),
        platform=_platform(properties),
        instruments=_instruments(properties),
        level=_level(properties),
        layers=frozenset(layer for layer in _LAYERS if any(True for _ in _layer_assets(item, layer))),
        measurement=" ".join([*texts, _text(properties, "card4l:measurement_type") or ""]).lower(),
        rendered=rendered,
    )


def _level(properties: Mapping[str, Any]) -> str | None:
    return _text(properties, "s2:product_type", "sar:product_type", "product:type", "processing:level")


def _layer_assets(item: Item, layer: str) -> Iterator[Mapping[str, Any]]:
    """The assets that are Sentinel-2's layer `scl`, `aot` or `wvp`, by key or by the name of their only band."""
    for key, asset in item["assets"].items():
        if not isinstance(asset, Mapping) or not _is_raster(asset):
            continue
        bands = _list(asset.get("bands")) or _list(asset.get("eo:bands"))
        names = {key.lower().split("-")[0], *(str(band.get("name")).lower() for band in bands if len(bands) == 1)}
        if layer in {re.sub(r"_\d+m$", "", name) for name in names}:
            yield asset


# -- ground distance


@functools.lru_cache(maxsize=256)
def _metres_per_unit(crs: str) -> float | None:
    """Metres to one unit of a CRS, that of a degree on the equator for a geographic one; None for an unknown CRS."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        read = CRS.from_user_input(crs)
    except CRSError:
        return None
    return METRES_PER_DEGREE if read.is_geographic else float(read.axis_info[0].unit_conversion_factor)


def _crs(item: Item, asset: Mapping[str, Any]) -> str | None:
    for holder in (asset, _properties(item)):
        for key in ("proj:code", "proj:epsg", "proj:wkt2"):
            if isinstance(holder.get(key), (str, int)) and holder[key]:
                return f"EPSG:{holder[key]}" if key == "proj:epsg" else str(holder[key])
    return None


def _distance(item: Item, asset: Mapping[str, Any]) -> float | None:
    """The longer side of a pixel in metres, to three figures, from the transform; None where it is not stated.

    The longer one, because nothing smaller is resolved both ways. A degree counts as on the equator northwards, where
    it nearly is the same everywhere.
    """
    transform = asset.get("proj:transform", _properties(item).get("proj:transform"))
    crs = _crs(item, asset)
    if crs is None or not isinstance(transform, list) or len(transform) < 6:
        return None
    steps, unit = [_number(value) for value in transform[:6]], _metres_per_unit(crs)
    if unit is None or any(step is None for step in steps):
        return None
    a, b, _, d, e, _ = (float(step or 0.0) for step in steps)
    across = math.hypot(a, d) * (_cos_latitude(item) if unit == METRES_PER_DEGREE else 1.0)
    side = max(across, math.hypot(b, e)) * unit
    return float(f"{side:.3g}") if side > 0 else None


def _cos_latitude(item: Item) -> float:
    geometry = item_geometry(item)
    return 1.0 if geometry is None or geometry.is_empty else math.cos(math.radians(geometry.centroid.y))


def _resolution(chosen: Sequence[_AssetBand], properties: Mapping[str, Any], item: Item) -> float:
    """Ground distance of the finest band, in metres."""
    stated = [one.distance_m for one in chosen if one.distance_m is not None and one.distance_m > 0]
    finest = min(stated) if stated else _number(properties.get("gsd"))
    if not finest or finest <= 0:
        raise CatalogError(
            f"{_called(item)} does not state its ground distance",
            expected="proj:transform with proj:code, or gsd",
            fix="add gsd to its properties",
        )
    return finest


# -- from stored numbers to physical values


def _source(
    one: _AssetBand, *, sensor: Sensor, offset: float | None, properties: Mapping[str, Any], base: str
) -> BandSource:
    calibration = _calibration(one, sensor=sensor, offset=offset, properties=properties)
    return BandSource(band=one.band, href=resolve_href(one.href, base), index=one.index, calibration=calibration)


def _calibration(
    one: _AssetBand, *, sensor: Sensor, offset: float | None, properties: Mapping[str, Any]
) -> Calibration:
    if not sensor.calibrated:
        return Calibration(nodata=one.nodata)
    facts = one.facts
    if sensor.id.startswith("sentinel-2"):
        return _s2_calibration(one, offset=offset, applied=bool(properties.get("earthsearch:boa_offset_applied")))
    return Calibration(
        scale=1.0 if facts.scale is None else facts.scale,
        offset=facts.offset or 0.0,
        nodata=one.nodata,
        decibels=sensor.id == "sentinel-1-db",
    )


def _s2_calibration(one: _AssetBand, *, offset: float | None, applied: bool) -> Calibration:
    """Reflectance; stored 0 is nodata before the offset, and negative reflectance stays.

    Where Earth Search has added the offset to the pixels it still states it at times: obeying both subtracts twice.
    """
    facts = one.facts
    if (facts.data_type or "").startswith("float") and facts.scale is None:
        return Calibration(offset=facts.offset or 0.0, nodata=one.nodata)
    stated = facts.offset if facts.offset is not None else offset
    return Calibration(
        scale=S2_SCALE if facts.scale is None else facts.scale,
        offset=0.0 if applied else stated or 0.0,
        nodata=0.0 if one.nodata is None else one.nodata,
    )


def _s2_offset(properties: Mapping[str, Any], time: datetime.datetime) -> tuple[float, tuple[str, ...]]:
    """The offset that the processing baseline brings, and a note where it had to be told from the date."""
    if properties.get("earthsearch:boa_offset_applied"):
        return 0.0, ()
    baseline = _baseline(properties)
    if baseline is not None:
        return (S2_OFFSET if baseline >= _OFFSET_BASELINE else 0.0), ()
    offset = S2_OFFSET if time >= _OFFSET_DATE else 0.0
    return offset, (f"processing baseline not stated, offset {offset:g} assumed from the date",)


def _baseline(properties: Mapping[str, Any]) -> float | None:
    stated = _number(_text(properties, "s2:processing_baseline", "processing:version"))
    if stated is not None:
        return stated
    product = _text(properties, "s2:datatake_id", "s2:product_uri", "sentinel:product_id") or ""
    match = re.search(r"_N(\d\d)\.?(\d\d)(?:_|$)", product)
    return float(f"{match[1]}.{match[2]}") if match else None


def _mask_source(item: Item, base: str) -> BandSource | None:
    """The scene classification, where the item has one."""
    layers = sorted(_layer_assets(item, "scl"), key=_form)
    if not layers:
        return None
    return BandSource(
        band="mask",
        href=resolve_href(str(layers[0]["href"]), base),
        calibration=Calibration(categorical=True, nodata=0.0),
    )


def resolve_href(href: str, base: str) -> str:
    """`href` made absolute against `base`, the address of a file or of a folder that exists; file:// as a path.

    Example:
        >>> resolve_href("../data/B04.tif", "https://host/items/a.json")
        'https://host/data/B04.tif'
    """
    if href.startswith("file://"):
        return str(local_path(href))
    if not is_remote(base) and "://" not in base.removeprefix("file://") and local_path(base).is_dir():
        return join(str(Path(local_path(base)) / "item.json"), href)
    return join(base, href)
