"""Landsat products as USGS delivers them: the files of one scene and its MTL, in JSON, ODL text or XML.

Source: Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619), section 3; Landsat 8-9 Calibration and
Validation, level 1 (LSDS-1747). An MTL of level 2 repeats the numbers of level 1 under the same names: the groups of
the product's own level count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from earthmap.catalog.archives import read_text
from earthmap.catalog.assets import PLANCK
from earthmap.catalog.fields import number_of
from earthmap.catalog.intervals import Interval, parse_datetime
from earthmap.catalog.products import BandFile, Product, left_of, read_xml
from earthmap.errors import CatalogError, JobError
from earthmap.sensors.bands import THERMAL_BANDS, resolve_band, resolve_family

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from earthmap.catalog.listing import FoundFile

MTL = re.compile(r"^(?P<prefix>.*)_MTL\.(?:json|txt|xml)$", re.IGNORECASE)
"""The metadata that name a product, and what the names of its files start with."""

Groups = Mapping[str, Mapping[str, str]]
"""The values of an MTL by group and name."""

_LAYERS = {"QA_PIXEL": "qa_pixel", "QA_RADSAT": "qa_radsat"}
_FILE = re.compile(r"_(?P<band>SR_B\d{1,2}|ST_B\d{1,2}|B\d{1,2}|QA_PIXEL|QA_RADSAT)\.(?:tif|tiff)$", re.IGNORECASE)


def read_mtl(address: str) -> Groups:
    """The groups of an MTL file.

    Raises:
        CatalogError: for a file that is not an MTL.
    """
    low = address.lower()
    if low.endswith(".xml"):
        groups = _xml_groups(read_xml(address))
    else:
        text = read_text(address).decode("utf-8", errors="replace")
        groups = _json_groups(text) if low.endswith(".json") else _odl_groups(text)
    if "SPACECRAFT_ID" not in groups.get("IMAGE_ATTRIBUTES", {}):
        raise CatalogError(
            f"{address} is no MTL of Landsat Collection 2", expected="IMAGE_ATTRIBUTES with SPACECRAFT_ID"
        )
    return groups


def _json_groups(text: str) -> Groups:
    try:
        top = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    groups = top.get("LANDSAT_METADATA_FILE") if isinstance(top, dict) else None
    if not isinstance(groups, dict):
        return {}
    return {
        name: {key: str(value) for key, value in values.items()}
        for name, values in groups.items()
        if isinstance(values, dict)
    }


def _xml_groups(root: Element) -> Groups:
    return {group.tag: {value.tag: (value.text or "").strip() for value in group} for group in root}


def _odl_groups(text: str) -> Groups:
    groups: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if name == "GROUP":
            current = groups.setdefault(value, {})
        elif name and value and name != "END_GROUP":
            current[name] = value.strip('"')
    return groups


def landsat_product(metadata: FoundFile, files: Sequence[FoundFile]) -> Product:
    """The product of an MTL, with those of `files` whose names start as the MTL's does.

    Raises:
        CatalogError: for metadata that cannot be read, and for a product without a band.
    """
    groups = read_mtl(metadata.address)
    image, contents = groups["IMAGE_ATTRIBUTES"], groups.get("PRODUCT_CONTENTS", {})
    platform = image["SPACECRAFT_ID"].lower().replace("_", "-")
    level = contents.get("PROCESSING_LEVEL", "L1TP")
    chosen = {match["band"].upper(): file for file in files if (match := _FILE.search(file.name))}
    assets = list(_band_files(chosen, groups, platform=platform, second=level.startswith("L2")))
    if not any(file.roles == ("data",) for file in assets):
        raise CatalogError(
            f"the product of {metadata.address} holds no band", expected="…_B2.TIF or …_SR_B2.TIF and so on"
        )
    return Product(
        name=contents.get("LANDSAT_PRODUCT_ID") or metadata.stem.removesuffix("_MTL"),
        files=tuple(assets),
        collection="landsat-c2-l2" if level.startswith("L2") else "landsat-c2-l1",
        properties=_properties(groups, platform=platform, level=level),
        time=_time(image),
        metadata={"mtl": metadata.address},
        left_out=left_of(metadata, files, {one.file.address for one in assets}, "layers that no question asks for"),
    )


def _band_files(chosen: Mapping[str, FoundFile], groups: Groups, *, platform: str, second: bool) -> Iterator[BandFile]:
    family = resolve_family(platform)
    for name, file in sorted(chosen.items()):
        if name in _LAYERS:
            stated: dict[str, Any] = {"name": _LAYERS[name]}
            yield BandFile(key=_LAYERS[name], file=file, bands=(stated,), roles=("data-mask",))
            continue
        band = resolve_band(name.partition("_")[2] or name, family=family)
        if band is not None and second == (name[:3] in ("SR_", "ST_")):
            numbers = _numbers(groups, name.removeprefix("SR_"), thermal=band in THERMAL_BANDS, second=second)
            yield BandFile(key=band, file=file, bands=({"name": name, "eo:common_name": band, "nodata": 0, **numbers},))


def _numbers(groups: Groups, name: str, *, thermal: bool, second: bool) -> dict[str, Any]:
    """Scale, offset, unit of the band `B4` or `ST_B10`: reflectance, kelvin, or level 1's radiance with K1 and K2."""
    number = name.removeprefix("B")
    if second:
        group = "LEVEL2_SURFACE_TEMPERATURE_PARAMETERS" if thermal else "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"
        quantity = "TEMPERATURE" if thermal else "REFLECTANCE"
    else:
        group, quantity = "LEVEL1_RADIOMETRIC_RESCALING", "RADIANCE" if thermal else "REFLECTANCE"
    values = groups.get(group, {})
    scale, offset = (number_of(values.get(f"{quantity}_{part}_BAND_{number}")) for part in ("MULT", "ADD"))
    found: dict[str, Any] = {} if scale is None else {"raster:scale": scale, "raster:offset": offset or 0.0}
    if thermal and second:
        found["unit"] = "K"
    constants = groups.get("LEVEL1_THERMAL_CONSTANTS", {})
    planck = [number_of(constants.get(f"K{which}_CONSTANT_BAND_{number}")) for which in (1, 2)]
    if thermal and not second and None not in planck:
        found[PLANCK] = planck
    return found


def _properties(groups: Groups, *, platform: str, level: str) -> dict[str, Any]:
    image = groups["IMAGE_ATTRIBUTES"]
    cloud, elevation, azimuth = (number_of(image.get(key)) for key in ("CLOUD_COVER", "SUN_ELEVATION", "SUN_AZIMUTH"))
    path, row = image.get("WRS_PATH"), image.get("WRS_ROW")
    own = "LEVEL2_PROCESSING_RECORD" if level.startswith("L2") else "LEVEL1_PROCESSING_RECORD"
    stated = {
        "platform": platform,
        "instruments": re.split(r"[_+]", image.get("SENSOR_ID", "").lower()) if image.get("SENSOR_ID") else None,
        "processing:level": level,
        "landsat:correction": level,
        "landsat:collection_category": groups.get("PRODUCT_CONTENTS", {}).get("COLLECTION_CATEGORY"),
        "landsat:wrs_path": path,
        "landsat:wrs_row": row,
        "sat:relative_orbit": int(path) if path and path.isdecimal() else None,
        "eo:cloud_cover": cloud if cloud is not None and cloud >= 0 else None,
        "view:sun_elevation": elevation,
        "view:sun_azimuth": azimuth,
        "created": groups.get(own, {}).get("DATE_PRODUCT_GENERATED"),
    }
    return {key: value for key, value in stated.items() if value is not None}


def _time(image: Mapping[str, str]) -> Interval | None:
    day, clock = image.get("DATE_ACQUIRED"), image.get("SCENE_CENTER_TIME")
    if not day:
        return None
    try:
        moment = parse_datetime(f"{day}T{clock[:8]}Z" if clock else day)
    except JobError:
        return None
    return Interval(start=moment.start, end=moment.start) if clock else moment
