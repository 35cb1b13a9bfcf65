"""Sentinel products as ESA packs them (SAFE): Sentinel-2 L1C and L2A, Sentinel-1 GRD; folders and archives alike.

Element names: Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), MTD_MSIL1C and MTD_MSIL2A; Sentinel-1
Product Specification (S1-RS-MDA-52-7441), manifest.safe. Files are found by their place in the product and not by the
manifest's list, so that a product unpacked in part is read as far as it is there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import shapely
import shapely.geometry
from shapely.geometry.base import BaseGeometry

from earthmap.catalog.assets import SATURATED
from earthmap.catalog.fields import number_of
from earthmap.catalog.intervals import Interval, parse_datetime
from earthmap.catalog.products import BandFile, Product, lat_lon_polygon, left_of, read_xml, tag_text
from earthmap.catalog.source import item_geometry
from earthmap.errors import CatalogError, JobError
from earthmap.sensors.bands import resolve_band

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from earthmap.catalog.listing import FoundFile

SENTINEL_2 = re.compile(r"^(?P<root>.*?)/?MTD_MSIL(?P<level>1C|2A)\.xml$", re.IGNORECASE)
SENTINEL_1 = re.compile(r"^(?P<root>.*?)/?manifest\.safe$", re.IGNORECASE)
"""The metadata that name a product, and the folder that it is."""

_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""By `band_id` of the metadata, which numbers them from 0."""

_S2_FILE = re.compile(r"_(?P<band>B\d[\dA]|SCL|AOT|WVP|TCI)(?:_(?P<size>10|20|60)m)?\.(?:jp2|tiff?)$", re.IGNORECASE)
_NATIVE_M = {"B02": 10, "B03": 10, "B04": 10, "B08": 10, "B01": 60, "B09": 60, "B10": 60}
_CHANNEL = re.compile(r"(?:^|[-_/])(?P<channel>vv|vh|hh|hv)(?:[-_.]|$)", re.IGNORECASE)


def sentinel_2_product(metadata: FoundFile, files: Sequence[FoundFile]) -> Product:
    """The product that an MTD_MSIL1C.xml or MTD_MSIL2A.xml describes, with those of `files` that lie in it.

    Raises:
        CatalogError: for metadata that cannot be read, and for a product without a band.
    """
    match = SENTINEL_2.match(metadata.name)
    level = f"L{match['level'].upper()}" if match else "L2A"
    root = read_xml(metadata.address)
    chosen = _finest(files)
    if not any(band.startswith("B") for band in chosen):
        raise CatalogError(
            f"the product of {metadata.address} holds no band",
            expected="GRANULE/…/IMG_DATA/… with its images",
            fix="unpack or fetch the whole product",
        )
    scale, offsets = _s2_numbers(root)
    special = _s2_special_values(root)
    name = (tag_text(root, "PRODUCT_URI") or metadata.folder.rpartition("/")[2] or metadata.stem).removesuffix(".SAFE")
    used = {file.address for file in chosen.values()}
    return Product(
        name=name,
        files=tuple(
            BandFile(key=band.lower(), file=file, bands=_s2_bands(band, scale, offsets, special), roles=_s2_roles(band))
            for band, file in sorted(chosen.items())
        ),
        collection=f"sentinel-2-{level.lower()}",
        properties=_s2_properties(root, level, name),
        time=_s2_time(root),
        footprint=_ring(tag_text(root, "EXT_POS_LIST")),
        metadata={"product_metadata": metadata.address},
        left_out=left_of(metadata, files, used, "coarser copies, masks or previews"),
    )


def _finest(files: Sequence[FoundFile]) -> dict[str, FoundFile]:
    """The band's own ground distance, or the nearest finer or else coarser copy; SCL at 20 m."""
    found: dict[str, tuple[tuple[bool, int], FoundFile]] = {}
    for file in files:
        match = _S2_FILE.search(file.name)
        if match is None or "/IMG_DATA" not in f"/{file.folder}" or "QI_DATA" in file.folder:
            continue
        band = match["band"].upper()
        size, native = int(match["size"] or 0), _NATIVE_M.get(band, 20)
        rank = (0 < size < native, abs(size - native) if size else 0)
        if band not in found or rank < found[band][0]:
            found[band] = (rank, file)
    return {band: file for band, (_, file) in found.items()}


def _s2_numbers(root: Element) -> tuple[float, Mapping[str, float]]:
    """Scale of all bands, and offset by band in reflectance; a product before baseline 04.00 states no offsets."""
    text = tag_text(root, "BOA_QUANTIFICATION_VALUE") or tag_text(root, "QUANTIFICATION_VALUE")
    quantum = _positive(text) or 10_000.0
    offsets: dict[str, float] = {}
    for element in root.iter():
        if element.tag.rpartition("}")[2] in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET"):
            index, value = element.get("band_id", ""), (element.text or "").strip()
            if index.isdecimal() and int(index) < len(_BANDS) and re.fullmatch(r"-?\d+(?:\.\d+)?", value):
                offsets[_BANDS[int(index)]] = float(value) / quantum
    return 1.0 / quantum, offsets


def _positive(text: str | None) -> float | None:
    found = re.fullmatch(r"\d+(?:\.\d+)?", text or "")
    return float(found[0]) or None if found else None


def _s2_special_values(root: Element) -> dict[str, float]:
    """What STAC calls the stored numbers that the product sets apart: `nodata`, and that of saturated pixels."""
    known = {"NODATA": "nodata", "SATURATED": SATURATED}
    found: dict[str, float] = {}
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "Special_Values":
            name = (tag_text(element, "SPECIAL_VALUE_TEXT") or "").upper()
            index = tag_text(element, "SPECIAL_VALUE_INDEX") or ""
            if name in known and index.isdecimal():
                found[known[name]] = float(index)
    return found


def _s2_bands(
    band: str, scale: float, offsets: Mapping[str, float], special: Mapping[str, float]
) -> tuple[Mapping[str, Any], ...]:
    if band == "TCI":
        return tuple({"name": name, "eo:common_name": name} for name in ("red", "green", "blue"))
    if not band.startswith("B"):
        return ({"name": band.lower(), "nodata": 0},)
    common = resolve_band(band, family="sentinel-2")
    stated: dict[str, Any] = {"name": band, "eo:common_name": common, "nodata": 0, **special}
    return ({**stated, "raster:scale": scale, "raster:offset": offsets.get(band, 0.0)},)


def _s2_roles(band: str) -> tuple[str, ...]:
    return ("visual",) if band == "TCI" else ("data", "reflectance") if band.startswith("B") else ("data",)


def _s2_properties(root: Element, level: str, name: str) -> dict[str, Any]:
    craft = tag_text(root, "SPACECRAFT_NAME")
    datatake = next((e.get("datatakeIdentifier") for e in root.iter() if e.tag.rpartition("}")[2] == "Datatake"), None)
    orbit, cloud = tag_text(root, "SENSING_ORBIT_NUMBER"), tag_text(root, "Cloud_Coverage_Assessment")
    stated = {
        "platform": (
            craft or f"Sentinel-{name[1:3]}" if re.match(r"S2[A-D]_", name) else craft or "Sentinel-2"
        ).lower(),
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "processing:level": level,
        "s2:product_type": tag_text(root, "PRODUCT_TYPE"),
        "s2:processing_baseline": tag_text(root, "PROCESSING_BASELINE"),
        "s2:product_uri": tag_text(root, "PRODUCT_URI"),
        "s2:datatake_id": datatake,
        "s2:generation_time": tag_text(root, "GENERATION_TIME"),
        "created": tag_text(root, "GENERATION_TIME"),
        "sat:relative_orbit": int(orbit) if orbit and orbit.isdecimal() else None,
        "sat:orbit_state": (tag_text(root, "SENSING_ORBIT_DIRECTION") or "").lower() or None,
        "eo:cloud_cover": float(cloud) if cloud and re.fullmatch(r"\d+(?:\.\d+)?", cloud) else None,
    }
    return {key: value for key, value in stated.items() if value is not None}


def _s2_time(root: Element) -> Interval | None:
    """The datatake's start, which all granules of it share: what groups them, and what their names say."""
    for name in ("PRODUCT_START_TIME", "DATATAKE_SENSING_START"):
        found = _instant(tag_text(root, name))
        if found:
            return found
    return None


def _instant(text: str | None) -> Interval | None:
    if not text:
        return None
    try:
        start = parse_datetime(text if text.endswith("Z") else f"{text}Z").start
    except JobError:
        return None
    return Interval(start=start, end=start)


def _ring(text: str | None) -> BaseGeometry | None:
    """Ground of a ring of latitudes and longitudes, split where it crosses the antimeridian."""
    polygon = lat_lon_polygon(text or "")
    if polygon is None:
        return None
    ground = item_geometry({"geometry": shapely.geometry.mapping(polygon)})
    return None if ground is None or ground.is_empty or ground.area == 0 else ground


# -- Sentinel-1


def sentinel_1_product(manifest: FoundFile, files: Sequence[FoundFile]) -> Product:
    """The GRD product that a manifest.safe describes; its annotation under the keys that public catalogues use.

    Raises:
        CatalogError: for metadata that cannot be read, and for products that are no GRD.
    """
    root = read_xml(manifest.address)
    kind = tag_text(root, "productType") or ""
    if kind != "GRD":
        raise CatalogError(
            f"{manifest.address} is a {kind or 'Sentinel'} product",
            expected="a Sentinel-1 GRD, or Sentinel-2 L1C or L2A",
        )
    images = {channel: file for channel, file in _channels(files, "measurement/") if file.is_raster}
    if not images:
        raise CatalogError(f"the product of {manifest.address} holds no image", expected="measurement/*.tiff")
    number = tag_text(root, "number") or ""
    annotation = _s1_annotation(files)
    name = (manifest.folder.rpartition("/")[2] or "Sentinel-1 GRD").removesuffix(".SAFE")
    return Product(
        name=name,
        files=tuple(
            BandFile(key=channel, file=file, bands=(_s1_band(channel, file),))
            for channel, file in sorted(images.items())
        ),
        collection="sentinel-1-grd",
        properties=_s1_properties(root, kind, number, sorted(images)) | _s1_spacing(annotation),
        time=_s1_time(root),
        footprint=_ring(tag_text(root, "coordinates")),
        metadata={"safe-manifest": manifest.address, **annotation},
        left_out=left_of(manifest, files, {image.address for image in images.values()}, "previews"),
    )


def _channels(files: Sequence[FoundFile], below: str) -> Iterator[tuple[str, FoundFile]]:
    """Files of a folder of the product by the polarization in their names."""
    for file in files:
        own = file.name.rpartition("/")[2]
        channel = _CHANNEL.search(own)
        if channel and f"/{file.folder}/".endswith(f"/{below}"):
            yield channel["channel"].lower(), file


def _s1_band(channel: str, file: FoundFile) -> dict[str, Any]:
    return {"name": channel.upper(), "sar:polarizations": [channel.upper()], "nodata": 0, "description": file.stem}


def _s1_annotation(files: Sequence[FoundFile]) -> dict[str, str]:
    """As Earth Search keys them: `schema-product-vv`, `schema-calibration-vv`, `schema-noise-vv`."""
    found = {f"schema-product-{channel}": file.address for channel, file in _channels(files, "annotation/")}
    for channel, file in _channels(files, "annotation/calibration/"):
        kind = next(
            (kind for kind in ("calibration", "noise") if f"/{kind}-" in f"/{file.name.rpartition('/')[2]}"), None
        )
        if kind:
            found[f"schema-{kind}-{channel}"] = file.address
    return found


def _s1_spacing(annotation: Mapping[str, str]) -> dict[str, float]:
    """Distances of pixels in metres, as the first channel's annotation states them; empty where none can be read."""
    found: dict[str, float] = {}
    for address in [href for key, href in sorted(annotation.items()) if key.startswith("schema-product-")][:1]:
        with contextlib.suppress(CatalogError):
            root = read_xml(address)
            for axis in ("range", "azimuth"):
                side = number_of(tag_text(root, f"{axis}PixelSpacing"))
                found |= {f"sar:pixel_spacing_{axis}": side} if side else {}
    return found


def _s1_properties(root: Element, kind: str, number: str, channels: Sequence[str]) -> dict[str, Any]:
    orbit, relative = tag_text(root, "orbitNumber"), tag_text(root, "relativeOrbitNumber")
    stated = {
        "platform": f"sentinel-1{number.lower()}",
        "constellation": "sentinel-1",
        "instruments": ["c-sar"],
        "sar:instrument_mode": tag_text(root, "mode"),
        "sar:product_type": kind,
        "product:type": kind,
        "sar:frequency_band": "C",
        "sar:polarizations": [channel.upper() for channel in channels],
        "s1:datatake_id": tag_text(root, "missionDataTakeID"),
        "sat:absolute_orbit": int(orbit) if orbit and orbit.isdecimal() else None,
        "sat:relative_orbit": int(relative) if relative and relative.isdecimal() else None,
        "sat:orbit_state": (tag_text(root, "pass") or "").lower() or None,
    }
    return {key: value for key, value in stated.items() if value is not None}


def _s1_time(root: Element) -> Interval | None:
    start, stop = (_instant(text) for text in (tag_text(root, "startTime"), tag_text(root, "stopTime")))
    if start is None:
        return None
    return Interval(start=start.start, end=stop.end) if stop else start
