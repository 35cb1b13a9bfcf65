"""Which pass an item belongs to, on which orbit, over which tile of its archive, and which version it is.

Sentinel-2 names one datatake in many ways; all of them hold the craft and the second at which it began.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from earthmap.catalog.fields import number_of, properties_of, text_of

Item = Mapping[str, Any]

# ESA, Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), naming of products (MMM_MSIXXX_YYYYMMDDHHMMSS_
# Nxxyy_ROOO_Txxxxx_...) and of datatakes (GS2X_YYYYMMDDTHHMMSS_RRRRRR_Nxx.yy).
_PRODUCT = re.compile(r"(S2[A-D])_MSI(?:L1C|L2A)_(\d{8}T\d{6})_(?:N(\d\d)(\d\d)_)?R(\d{3})_T(\d\d[C-X][A-Z]{2})")
_DATATAKE = re.compile(r"G(S2[A-D])_(\d{8}T\d{6})_")
_TILE = re.compile(r"S2[A-D]_T?(\d\d?[C-X][A-Z]{2})_")
_NAIP = re.compile(r"(?:([a-z]{2})_)?m_\d{7}_[ns][ew]_\d+_\w+?_(\d{4})\d{4}")


def _product(item: Item) -> re.Match[str] | None:
    """Sentinel-2's name of a product, wherever an item gives it."""
    properties = properties_of(item)
    names = (properties.get(key) for key in ("s2:product_uri", "sentinel:product_id", "s2:product_id"))
    return next((found for name in (*names, item.get("id")) if (found := _PRODUCT.match(str(name or "")))), None)


def pass_id_of(item: Item, platform: str | None) -> str | None:
    """What the scenes of one pass share, the same in every archive; None where nothing tells.

    The datatake; the strip of a tasked sensor (`catalog_id`); the orbit; the path of Landsat's reference system.
    """
    properties = properties_of(item)
    datatake = _DATATAKE.match(text_of(properties, "s2:datatake_id") or "") or _product(item)
    if datatake:
        return f"{datatake[1]}_{datatake[2]}"
    named = text_of(properties, "s2:datatake_id", "catalog_id")
    if named:
        return re.sub(r"_N\d\d\.\d\d$", "", named)
    for key in ("s1:datatake_id", "sat:absolute_orbit", "sat:relative_orbit", "landsat:wrs_path"):
        if platform and properties.get(key) is not None:
            return f"{platform} {key.split(':')[1]} {properties[key]}"
    return None


def vintage_of(item: Item) -> str | None:
    """The mosaic of many days that an aerial picture belongs to: state and year of NAIP; None for anything else."""
    properties = properties_of(item)
    name = _NAIP.match(str(item.get("id") or "").lower())
    state = text_of(properties, "naip:state") or (name and name[1])
    year = properties.get("naip:year") or (name and name[2])
    return f"naip {state} {year}".lower() if state and year else None


def orbit_direction_of(item: Item) -> str | None:
    """`ascending` or `descending`, where the item says so."""
    state = text_of(properties_of(item), "sat:orbit_state", "s1:orbit_direction", "orbitDirection")
    return state.lower() if state and state.lower() in ("ascending", "descending") else None


def relative_orbit_of(item: Item) -> int | None:
    """The orbit within its cycle, or Landsat's path, where the item or the name of its product says so."""
    properties = properties_of(item)
    stated = properties.get("sat:relative_orbit", properties.get("landsat:wrs_path"))
    number = number_of(int(stated) if isinstance(stated, str) and stated.isdecimal() else stated)
    if number is not None:
        return int(number)
    product = _product(item)
    return int(product[5]) if product else None


def tile_of(item: Item) -> str | None:
    """The tile of its archive's grid that a scene was cut to: MGRS square, path and row, grid code; None if unknown."""
    properties = properties_of(item)
    code = text_of(properties, "grid:code", "s2:mgrs_tile")
    if code:
        return code.upper().removeprefix("MGRS-").lstrip("0")
    for zone, band, square in (
        ("mgrs:utm_zone", "mgrs:latitude_band", "mgrs:grid_square"),
        ("sentinel:utm_zone", "sentinel:latitude_band", "sentinel:grid_square"),
    ):
        if properties.get(zone) and properties.get(band) and properties.get(square):
            return f"{properties[zone]}{properties[band]}{properties[square]}".upper()
    if properties.get("landsat:wrs_path") and properties.get("landsat:wrs_row"):
        return f"{properties['landsat:wrs_path']}/{properties['landsat:wrs_row']}"
    product = _product(item)
    found = (product and product[6]) or ((name := _TILE.match(str(item.get("id") or ""))) and name[1])
    return found.lstrip("0") if found else None


def baseline_of(item: Item) -> str | None:
    """Processing baseline, `05.11`, where the item or the name of its product says so; compared as text."""
    stated = text_of(properties_of(item), "s2:processing_baseline", "sentinel:processing_baseline")
    if stated:
        return stated
    product = _product(item)
    return f"{product[3]}.{product[4]}" if product and product[3] else None
