"""From a STAC item of any provider's dialect to a scene: when, where, and of which sensor.

What the item says of the measurement decides; the names of item and collection never do. Its assets are read by
`earthmap.catalog.assets`, the meaning of their numbers by `earthmap.catalog.quantities`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import shapely

from earthmap.catalog.assets import (
    LAYERS,
    AssetBand,
    best_of,
    data_bands,
    form_of,
    instruments_of,
    layer_assets,
    platform_of,
    resolve_href,
    spectral_bands,
)
from earthmap.catalog.fields import Item, called, number_of, properties_of, text_of
from earthmap.catalog.intervals import item_interval
from earthmap.catalog.passes import (
    baseline_of,
    orbit_direction_of,
    pass_id_of,
    relative_orbit_of,
    tile_of,
    vintage_of,
)
from earthmap.catalog.quantities import calibrate, is_readable, sun_azimuth, sun_elevation
from earthmap.catalog.radar import GROUND_RANGE_M, ground_range_spacing, has_calibration, noise_kept, radar_annotation
from earthmap.catalog.scene import BandSource, Scene
from earthmap.catalog.source import item_geometry
from earthmap.content import canonical_json
from earthmap.errors import CatalogError, SensorError
from earthmap.sensors.calibration import Calibration
from earthmap.sensors.quality import QUALITY_LAYERS
from earthmap.sensors.recognition import CALIBRATION, Recognition, is_ground_range, recognize
from earthmap.sensors.registry import SENSORS, ItemFacts, Sensor

_FILL = {"scl": 0.0, "qa_pixel": 1.0}
"""Stored number of a quality layer that means "no data" (ESA; USGS LSDS-1619), whatever the file declares."""


def scene_from_item(item: Item, *, base: str) -> Scene:
    """The scene behind a STAC item.

    Args:
        item: The item as parsed JSON, STAC 0.7 to 1.1.
        base: Address of the item's own file, or of its folder: relative hrefs start there.

    Raises:
        SensorError: for imagery that has no row in the table of sensors; the message names the item.
        CatalogError: for an item without a time, ground or readable structure.
    """
    if not isinstance(item, Mapping) or not isinstance(item.get("assets"), Mapping):
        raise CatalogError(f"{called(item)} has no assets", expected="a STAC item with assets")
    data, rendered = data_bands(item)
    facts = _item_facts(item, data, rendered=rendered)
    try:
        found = recognize(facts)
    except SensorError as error:
        raise SensorError(f"{called(item)}: {error.what}", expected=error.expected, fix=error.fix) from error
    return _scene(item, data=data, found=found, base=base)


def _scene(item: Item, *, data: Sequence[AssetBand], found: Recognition, base: str) -> Scene:
    properties, sensor = properties_of(item), SENSORS[found.sensor]
    time, ground = _time(item), _ground(item)
    chosen = [one for band in sensor.bands for one in best_of(data, band) if is_readable(one, sensor)]
    calibrations, notes = calibrate(chosen, sensor=sensor, properties=properties, time=time)
    noisy = noise_kept(item, [one.band for one in chosen]) if sensor.id == "sentinel-1-grd" else None
    return Scene(
        id=str(item.get("id") or ""),
        collection=str(item.get("collection") or ""),
        sensor=sensor.id,
        datetime=time,
        footprint=shapely.to_wkb(ground),
        resolution_m=_resolution(chosen, sensor, item),
        sources=tuple(
            BandSource(
                band=one.band,
                href=resolve_href(one.href, base),
                index=one.index,
                calibration=calibration,
                annotation=radar_annotation(item, one.band, base) if sensor.id == "sentinel-1-grd" else None,
            )
            for one, calibration in zip(chosen, calibrations, strict=True)
        ),
        mask_sources=_mask_sources(item, sensor, base),
        off_nadir_deg=number_of(properties.get("view:off_nadir", properties.get("eo:off_nadir"))),
        sun_elevation_deg=sun_elevation(properties),
        sun_azimuth_deg=sun_azimuth(properties),
        convention=noisy or found.convention,
        cloud_cover=number_of(properties.get("eo:cloud_cover")),
        platform=platform_of(item),
        pass_id=pass_id_of(item, platform_of(item)),
        vintage=vintage_of(item),
        tile=tile_of(item),
        baseline=baseline_of(item),
        orbit_direction=orbit_direction_of(item),
        relative_orbit=relative_orbit_of(item),
        created=text_of(properties, "created", "updated", "s2:generation_time"),
        world=canonical_json(properties["earthmap:world"]) if properties.get("earthmap:world") else None,
        notes=tuple(dict.fromkeys((*found.notes, *([noisy] if noisy else []), *notes, *_told(properties)))),
    )


# -- where and when


def _told(properties: Mapping[str, Any]) -> Iterator[str]:
    """What was noted when the item was made from files, such as a date that only the file's own tag tells."""
    stated = properties.get("earthmap:notes")
    if isinstance(stated, list):
        yield from (note for note in stated if isinstance(note, str))


def _time(item: Item) -> datetime.datetime:
    properties = properties_of(item)
    interval = item_interval({"properties": {"datetime": properties.get("datetime")}}) or item_interval(
        {"properties": properties}
    )
    if interval is None or interval.start is None or interval.end is None:
        raise CatalogError(
            f"{called(item)} has no time that can be read", expected="datetime, or start_datetime and end_datetime"
        )
    return interval.start + (interval.end - interval.start) / 2


def _ground(item: Item) -> shapely.Geometry:
    """Polygons of the footprint in EPSG:4326, split at the antimeridian."""
    geometry = item_geometry(item)
    parts = [] if geometry is None else [part for part in shapely.get_parts(geometry) if part.area > 0]
    polygons = [part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")]
    if not polygons:
        raise CatalogError(
            f"{called(item)} covers no ground", expected="a polygon in its geometry, or a bbox", fix="leave it out"
        )
    return polygons[0] if len(polygons) == 1 else shapely.union_all(polygons)


# -- which sensor


def _item_facts(item: Item, data: Sequence[AssetBand], *, rendered: bool) -> ItemFacts:
    properties = properties_of(item)
    chosen = [one for band in dict.fromkeys(one.band for one in data) for one in best_of(data, band)]
    assets = [item["assets"][key] for key in dict.fromkeys(one.asset for one in chosen)]
    texts = [str(asset.get(key) or "") for asset in assets for key in ("title", "description")]
    return ItemFacts(
        bands=tuple(one.facts for one in chosen),
        platform=platform_of(item),
        instruments=instruments_of(item),
        level=_level(properties),
        layers=frozenset(layer for layer in LAYERS if any(True for _ in layer_assets(item, layer)))
        | ({CALIBRATION} if has_calibration(item, [one.band for one in chosen]) else set()),
        measurement=" ".join([*texts, text_of(properties, "card4l:measurement_type") or ""]).lower(),
        rendered=rendered,
        edition=text_of(properties, "landsat:collection_number"),
        sun_elevation_deg=sun_elevation(properties),
        spectral_bands=spectral_bands(item),
    )


def _level(properties: Mapping[str, Any]) -> str | None:
    keys = ("s2:product_type", "landsat:correction", "sar:product_type", "product:type", "processing:level")
    return text_of(properties, *keys)


def _resolution(chosen: Sequence[AssetBand], sensor: Sensor, item: Item) -> float:
    """Ground distance of the finest band, in metres."""
    if sensor.is_sar and is_ground_range(_level(properties_of(item))):
        return ground_range_spacing(item) or sensor.nominal_m or GROUND_RANGE_M
    stated = [one.distance_m for one in chosen if one.distance_m is not None and one.distance_m > 0]
    finest = min(stated) if stated else number_of(properties_of(item).get("gsd")) or sensor.nominal_m
    if not finest or finest <= 0:
        raise CatalogError(
            f"{called(item)} does not state its ground distance",
            expected="proj:transform with proj:code, or gsd",
            fix="add gsd to its properties",
        )
    return finest


# -- what is read


def _mask_sources(item: Item, sensor: Sensor, base: str) -> tuple[BandSource, ...]:
    """Its quality layers: the first that classifies, and every one that adds to it."""
    found: list[BandSource] = []
    classified = False
    for kind in sensor.masks:
        layers = sorted(layer_assets(item, kind), key=form_of)
        if not layers or (classified and QUALITY_LAYERS[kind].classifies):
            continue
        classified = classified or QUALITY_LAYERS[kind].classifies
        href = resolve_href(str(layers[0]["href"]), base)
        calibration = Calibration(categorical=True, nodata=_FILL.get(kind))
        found.append(BandSource(band=kind, href=href, calibration=calibration))
    return tuple(found)
