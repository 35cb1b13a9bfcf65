"""The assets of a STAC item: which are the measurement, which bands they hold, and on what ground distance.

STAC 0.7 (`eo:bands` of the item, listed by number), 1.0 (`eo:bands`, `raster:bands`) and 1.1 (`bands`) alike. Keys of
assets name layers only where no band is stated.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthmap.catalog.documents import is_remote, join, local_path
from earthmap.catalog.fields import Item, number_of, properties_of, records_of, text_of
from earthmap.catalog.netcdf_files import split_variable
from earthmap.catalog.source import item_geometry
from earthmap.sensors.bands import BANDS, PAN, resolve_band, resolve_family
from earthmap.sensors.registry import BandFacts

METRES_PER_DEGREE = 111_319.49079327358
"""One degree of the equator on the WGS 84 ellipsoid."""

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

LAYERS = ("scl", "aot", "wvp")
"""Layers that only Sentinel-2's level 2A has."""

_LAYER_NAMES = {
    "cloud_probability": ("cloud_probability", "cldprb", "msk_cldprb", "s2cloudless"),
    "layover": ("layover", "layover_shadow_mask", "ls_map"),
}
"""How providers call a quality layer that has no name of its own (SAFE, s2cloudless; CEOS)."""

_VAGUE_NAMES = {"cloud_probability": ("cloud", "probabilit"), "layover": ("mask", "layover")}
"""A name that may be any layer, and what must stand in its words (Earth Search c1; OPERA): 0 and 1 are no percents."""

_PICTURES = ("visual", "tci", "overview", "preview", "thumbnail", "rendered")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetBand:
    """One band of one asset, as the item states it."""

    asset: str
    index: int
    href: str
    band: str
    facts: BandFacts
    nodata: float | None
    distance_m: float | None
    rank: tuple[int, float, float]
    """Smaller is preferred where two are the same band: form of the file, then how far its stated wavelength lies from
    the band's own, then ground distance."""


def data_bands(item: Item) -> tuple[list[AssetBand], bool]:
    """The bands of the measurement, and False; or those of a picture made for people, and True.

    The picture is taken where there is nothing else, and where it is finer than bands that nobody says how to read:
    numbers of unknown scale and depth, which no view fits (Maxar Open Data).
    """
    data: list[AssetBand] = []
    pictures: list[AssetBand] = []
    family = resolve_family(platform_of(item), instruments_of(item))
    for key, asset in item["assets"].items():
        if not isinstance(asset, Mapping) or not _is_raster(asset) or _roles(asset) & _NOT_DATA:
            continue
        if key.lower() in LAYERS or key.lower().split("-")[0] in LAYERS:
            continue
        into = pictures if _is_picture(key, asset) else data
        into += _asset_bands(item, key, family=family)
    data = [one for one in data if one.band != PAN] or data
    if data and not (family is None and _is_worse(data, pictures)):
        return data, False
    return pictures, bool(pictures)


def _is_worse(data: Sequence[AssetBand], pictures: Sequence[AssetBand]) -> bool:
    """True where `pictures` are finer than `data`, whose numbers are of unknown scale and depth."""
    known = any(one.facts.scale is not None or one.facts.data_type or one.facts.unit for one in data)
    finest = [min((one.distance_m or math.inf for one in some), default=math.inf) for some in (pictures, data)]
    return not known and finest[0] < finest[1]


def platform_of(item: Item) -> str | None:
    """Platform, or else constellation, in lower case with hyphens: `sentinel-2a`; None where neither is stated."""
    name = text_of(properties_of(item), "platform", "eo:platform", "constellation", "eo:constellation")
    return re.sub(r"[\s_]+", "-", name.strip().lower()) if name else None


def instruments_of(item: Item) -> tuple[str, ...]:
    """Instruments in lower case, empty where none is stated."""
    stated = properties_of(item).get("instruments", properties_of(item).get("eo:instrument"))
    listed = re.split(r"[_/+\s]+", stated) if isinstance(stated, str) else stated
    return tuple(str(one).lower() for one in listed) if isinstance(listed, list) else ()


def spectral_bands(item: Item) -> int:
    """How many bands of its assets state their centre wavelength, whether or not they have a name here."""
    return max((_spectral(item, key) for key, asset in item["assets"].items() if isinstance(asset, Mapping)), default=0)


def _spectral(item: Item, key: str) -> int:
    return sum(_wavelength(stated) is not None for stated in _stated_bands(item, key))


def _roles(asset: Mapping[str, Any]) -> frozenset[str]:
    roles = asset.get("roles")
    return frozenset(str(role).lower() for role in roles) if isinstance(roles, list) else frozenset()


def _is_raster(asset: Mapping[str, Any]) -> bool:
    """True for GeoTIFF, JPEG 2000 and a step of a NetCDF variable: by media type, or else by the file's name."""
    href = asset.get("href")
    if not isinstance(href, str) or "\0" in href:
        return False
    kind = str(asset.get("type") or "").lower()
    if kind:
        pictured = kind in ("image/png", "image/jpeg") and "data" in _roles(asset)  # of `earthmap.catalog.images`
        return "tif" in kind or kind.startswith("image/jp2") or pictured or split_variable(href) is not None
    return href.lower().split("?")[0].endswith((".tif", ".tiff", ".jp2"))


def _is_picture(key: str, asset: Mapping[str, Any]) -> bool:
    return "visual" in _roles(asset) or key.lower().startswith(_PICTURES)


def _asset_bands(item: Item, key: str, *, family: str | None) -> list[AssetBand]:
    found = []
    listed = _stated_bands(item, key)
    for index, stated in enumerate(listed, 1):
        band = resolve_band(
            text_of(stated, "name"),
            common_name=text_of(stated, "eo:common_name", "common_name"),
            wavelength_um=_wavelength(stated),
            polarization=_polarization(stated),
            family=family,
        )
        if band is None and len(listed) == 1:
            band = resolve_band(re.sub(r"\.tiff?$", "", key.lower()), family=family)
        if band is not None:
            found.append(_asset_band(item, key, index=index, band=band, stated=stated))
    return found


def _wavelength(stated: Mapping[str, Any]) -> float | None:
    """Centre in micrometres; what can only be nanometres is read as such."""
    centre = number_of(stated.get("eo:center_wavelength", stated.get("center_wavelength")))
    return centre / 1000.0 if centre is not None and centre > 100.0 else centre


def _polarization(stated: Mapping[str, Any]) -> str | None:
    channels = stated.get("sar:polarizations")
    return str(channels[0]) if isinstance(channels, list) and len(channels) == 1 else None


def _stated_bands(item: Item, key: str) -> list[dict[str, Any]]:
    """What the asset says of each of its bands: STAC 1.1's `bands`, `eo:bands` and `raster:bands` laid together.

    What is said once of the asset holds for each band. An asset that lists no bands is one band of its key's name; a
    picture for people that lists none is red, green and blue, as STAC's role `visual` defines it.
    """
    asset = item["assets"][key]
    lists = [_listed(item, asset, name) for name in ("raster:bands", "eo:bands", "bands")]
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


def _listed(item: Item, asset: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """A list of bands; numbers in it are places in the list of the item's properties, as STAC 0.7 has it."""
    of_item = records_of(properties_of(item).get(name))
    stated = asset.get(name)
    if not isinstance(stated, list) or not any(isinstance(one, int) for one in stated):
        return records_of(stated)
    return [of_item[one] if isinstance(one, int) and 0 <= one < len(of_item) else {} for one in stated]


def _asset_band(item: Item, key: str, *, index: int, band: str, stated: Mapping[str, Any]) -> AssetBand:
    asset = item["assets"][key]
    kind = text_of(stated, "data_type", "raster:data_type")
    distance = _distance(item, asset) or number_of(
        stated.get("raster:spatial_resolution", stated.get("spatial_resolution"))
    )
    distance = distance or number_of(stated.get("gsd")) or number_of(asset.get("gsd"))
    return AssetBand(
        asset=key,
        index=index,
        href=asset["href"],
        band=band,
        facts=BandFacts(
            band=band,
            data_type=kind.lower() if kind else None,
            scale=number_of(stated.get("raster:scale", stated.get("scale"))),
            offset=number_of(stated.get("raster:offset", stated.get("offset"))),
            unit=text_of(stated, "unit", "raster:unit"),
            planck=_planck(stated.get(PLANCK)),
            saturated=number_of(stated.get(SATURATED)),
        ),
        nodata=number_of(stated.get("nodata", stated.get("raster:nodata"))),
        distance_m=distance,
        rank=(form_of(asset), _off_centre(band, _wavelength(stated)), distance or math.inf),
    )


PLANCK = "earthmap:planck"
"""Field of a band with the constants K1 and K2 of its brightness temperature (`earthmap.catalog.landsat` fills it)."""


SATURATED = "earthmap:saturated"
"""Field of a band with the stored number of saturated pixels (`earthmap.catalog.safe` fills it)."""


def _planck(stated: Any) -> tuple[float, float] | None:
    pair = [number_of(one) for one in stated] if isinstance(stated, list) and len(stated) == 2 else [None]
    first, last = pair[0], pair[-1]
    return None if first is None or last is None else (first, last)


def _off_centre(band: str, centre_um: float | None) -> float:
    return 0.0 if centre_um is None or band not in BANDS else round(abs(centre_um - BANDS[band].centre_um), 6)


def form_of(asset: Mapping[str, Any]) -> int:
    """0 for a cloud-optimised GeoTIFF, 1 for another GeoTIFF, 2 for JPEG 2000: slow to decode."""
    kind = str(asset.get("type") or asset.get("href")).lower()
    return 0 if "cloud-optimized" in kind else 2 if "jp2" in kind else 1


def best_of(data: Sequence[AssetBand], band: str) -> list[AssetBand]:
    """The asset to read `band` from, in a list; an empty one where no asset has it."""
    return sorted((one for one in data if one.band == band), key=lambda one: one.rank)[:1]


def layer_assets(item: Item, kind: str) -> Iterator[Mapping[str, Any]]:
    """The assets that are a layer of `kind`, by key or by the name of their only band: `scl`, `aot`, `qa_pixel` …"""
    names = _LAYER_NAMES.get(kind, (kind,))
    for key, asset in item["assets"].items():
        if not isinstance(asset, Mapping) or not _is_raster(asset):
            continue
        bands = records_of(asset.get("bands")) or records_of(asset.get("eo:bands"))
        spelled = {key, *(str(band.get("name")) for band in bands if len(bands) == 1)}
        if any(_layer_name(name) in names for name in spelled) or _is_said_to_be(kind, asset, spelled):
            yield asset


def _is_said_to_be(kind: str, asset: Mapping[str, Any], spelled: Iterable[str]) -> bool:
    if kind not in _VAGUE_NAMES:
        return False
    name, word = _VAGUE_NAMES[kind]
    words = f"{asset.get('title')} {asset.get('description')}".lower()
    return name in map(_layer_name, spelled) and word in words


def _layer_name(name: str) -> str:
    """`SCL_20m`, `scl-jp2` → `scl`; `QA_PIXEL.TIF` → `qa_pixel`."""
    bare = re.sub(r"(\.tiff?|\.jp2)$", "", name.lower())
    return re.sub(r"[_-](\d+m|jp2)$", "", bare).replace("-", "_")


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
    for holder in (asset, properties_of(item)):
        for key in ("proj:code", "proj:epsg", "proj:wkt2"):
            if isinstance(holder.get(key), (str, int)) and holder[key]:
                return f"EPSG:{holder[key]}" if key == "proj:epsg" else str(holder[key])
    return None


def _distance(item: Item, asset: Mapping[str, Any]) -> float | None:
    """The longer side of a pixel in metres, to three figures, from the transform; None where it is not stated.

    The longer one, because nothing smaller is resolved both ways. A degree counts as on the equator northwards, where
    it nearly is the same everywhere.
    """
    transform = asset.get("proj:transform", properties_of(item).get("proj:transform"))
    crs = _crs(item, asset)
    if crs is None or not isinstance(transform, list) or len(transform) < 6:
        return None
    steps, unit = [number_of(value) for value in transform[:6]], _metres_per_unit(crs)
    if unit is None or any(step is None for step in steps):
        return None
    a, b, _, d, e, _ = (float(step or 0.0) for step in steps)
    across = math.hypot(a, d) * (_cos_latitude(item) if unit == METRES_PER_DEGREE else 1.0)
    side = max(across, math.hypot(b, e)) * unit
    return float(f"{side:.3g}") if side > 0 else None


def _cos_latitude(item: Item) -> float:
    geometry = item_geometry(item)
    centre = None if geometry is None else geometry.centroid
    return 1.0 if centre is None or centre.is_empty else math.cos(math.radians(centre.y))


# -- addresses


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
