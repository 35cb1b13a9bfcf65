"""A drawn world as files: cloud-optimised GeoTIFFs under a static STAC 1.1 catalogue, the same bytes every time."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.errors import StorageError
from earthmap.synthetic.scenes import DrawnScene, footprint, plan_scenes
from earthmap.synthetic.sensors import SCL_CLOUDS, SENSORS, DrawnSensor, Layer, draw_labels
from earthmap.synthetic.truth import CLASSES, World

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

STAC_VERSION = "1.1.0"

_EXTENSIONS = {
    "proj:": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "eo:": "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "raster:": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "sar:": "https://stac-extensions.github.io/sar/v1.0.0/schema.json",
    "sat:": "https://stac-extensions.github.io/sat/v1.0.0/schema.json",
    "classification:": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
}

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"

_BLOCK_PX = 256

_WORKERS = 2
"""Scenes drawn at once."""


def write_world(
    world: World,
    folder: str | Path,
    *,
    sensors: tuple[str, ...] = ("sentinel-2", "sentinel-1"),
    columns: int = 2,
    overlap: float = 0.1,
    epsg: int | None = None,
) -> Path:
    """Draw `world` and return the path of its catalog.json, which is written last.

    Args:
        world: What to draw.
        folder: Where; made where it is missing, files of the same names are replaced.
        sensors: Names of rows of `earthmap.synthetic.sensors.SENSORS`, each drawn on both dates.
        columns: Scenes of one pass, from west to east.
        overlap: Ground that two neighbours share, as a share of the world's width.
        epsg: CRS of the scenes; None for the zone of each one's middle.

    Raises:
        CatalogError: for a sensor that cannot be drawn.
        StorageError: where the folder cannot be written.
    """
    root = Path(folder)
    scenes = plan_scenes(world, sensors=sensors, columns=columns, overlap=overlap, epsg=epsg)
    try:
        with ThreadPoolExecutor(_WORKERS) as pool:
            items = list(pool.map(partial(_write_world_scene, world, root), scenes))
        return write_index(root, items, name=world.name, key=f"drawn-world-{world.content_key()[:8]}", sensors=sensors)
    except OSError as error:
        raise StorageError(
            f"cannot write the drawn world to {root}: {error}", fix="free some space, or give another folder"
        ) from error


def _write_json(path: Path, record: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path


def _write_cog(layer: Layer, path: Path) -> None:
    """`layer` as one cloud-optimised GeoTIFF with overviews."""
    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.errors import RasterioError

    bands, height, width = layer.data.shape
    try:
        with rasterio.open(
            path,
            "w",
            driver="COG",
            width=width,
            height=height,
            count=bands,
            dtype=layer.data.dtype,
            crs=str(layer.geobox.crs),
            transform=layer.geobox.affine,
            nodata=layer.nodata,
            compress="DEFLATE",
            predictor="NO" if layer.categorical else "YES",
            blocksize=_BLOCK_PX,
            overview_resampling="NEAREST" if layer.categorical else "AVERAGE",
            num_threads=1,
        ) as file:
            if bands > 1:  # a fourth band of 8 bits would be taken for transparency
                file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined][:bands]
            file.write(layer.data)
    except RasterioError as error:
        raise StorageError(f"cannot write {path}: {error}", fix="free some space, or give another folder") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an item says of where its scene comes from."""

    name: str
    """What to call it: every picture of it must be known as drawn."""
    created: datetime.datetime
    gsd_m: float
    ground: BaseGeometry
    """Where it shows something, in EPSG:4326."""
    recipe: Mapping[str, Any]
    """Properties that say how to draw it again."""


def _write_world_scene(world: World, root: Path, scene: DrawnScene) -> dict[str, Any]:
    """Draw and write one scene of a world; its item."""
    layers = scene.sensor.draw(world, scene.geobox, scene.datetime)
    layers.append(draw_labels(world, scene.geobox, scene.datetime))
    origin = Origin(
        name=world.name,
        created=world.after,
        gsd_m=world.resolution_m,
        ground=footprint(world, scene.geobox),
        recipe={"earthmap:world": world.to_dict()},
    )
    return write_scene(root, scene, layers, origin)


def write_scene(root: Path, scene: DrawnScene, layers: list[Layer], origin: Origin) -> dict[str, Any]:
    """Write the layers of a scene and its item, which is returned."""
    folder = root / scene.sensor.collection / scene.id
    folder.mkdir(parents=True, exist_ok=True)
    for layer in layers:
        _write_cog(layer, folder / f"{layer.name}.tif")
    item = _item(scene, layers, origin)
    _write_json(folder / f"{scene.id}.json", item)
    return item


def write_index(root: Path, items: list[dict[str, Any]], *, name: str, key: str, sensors: tuple[str, ...]) -> Path:
    """Write the collections of `items`, then catalog.json, whose path is returned."""
    for sensor in dict.fromkeys(sensors):
        _write_collection(name, root, SENSORS[sensor], items)
    return _write_json(root / "catalog.json", _root(name, key, sensors))


def _asset(layer: Layer) -> dict[str, Any]:
    affine = layer.geobox.affine
    asset: dict[str, Any] = {
        "href": f"./{layer.name}.tif",
        "type": _COG,
        "roles": list(layer.roles),
        "proj:code": str(layer.geobox.crs),
        "proj:shape": list(layer.geobox.shape),
        "proj:transform": [affine.a, affine.b, affine.c, affine.d, affine.e, affine.f],
        "bands": [dict(band) for band in layer.bands],
    }
    if layer.name == "labels":
        asset["title"] = "Truth: land cover at the centre of each pixel"
        asset["classification:classes"] = [{"value": code, "name": name} for code, name in enumerate(CLASSES, 1)]
    return asset


def _cloud_cover(layers: list[Layer]) -> float | None:
    """Percent of the scene's ground that its scene classification calls cloud; None without one."""
    for layer in layers:
        if layer.name == "SCL":
            inside = int(np.count_nonzero(layer.data))
            clouds = int(np.isin(layer.data, SCL_CLOUDS).sum())
            return round(100.0 * clouds / max(1, inside), 4)
    return None


def bbox_of(geometry: BaseGeometry) -> list[float]:
    """West, south, east, north; west is greater than east where the geometry was split at the antimeridian."""
    parts = list(getattr(geometry, "geoms", [geometry]))
    west, south, east, north = geometry.bounds
    if len(parts) > 1 and west == -180.0 and east == 180.0:
        west = min(part.bounds[0] for part in parts if part.bounds[2] > 0)
        east = max(part.bounds[2] for part in parts if part.bounds[0] < 0)
    return [west, south, east, north]


def _extensions(record: dict[str, Any]) -> list[str]:
    text = json.dumps(record)
    return [schema for prefix, schema in _EXTENSIONS.items() if f'"{prefix}' in text]


def _item(scene: DrawnScene, layers: list[Layer], origin: Origin) -> dict[str, Any]:
    from shapely.geometry import mapping

    ground = origin.ground
    properties: dict[str, Any] = {
        "title": f"{scene.sensor.title}: {origin.name}",
        "datetime": f"{scene.datetime:%Y-%m-%dT%H:%M:%SZ}",
        "created": f"{origin.created:%Y-%m-%dT%H:%M:%SZ}",
        "gsd": origin.gsd_m,
        "proj:code": str(scene.geobox.crs),
        **scene.sensor.properties,
    }
    if scene.sensor.properties.get("constellation") == "sentinel-2":
        baseline = scene.sensor.properties["s2:processing_baseline"]
        properties["s2:datatake_id"] = f"GS2A_{scene.pass_start:%Y%m%dT%H%M%S}_000000_N{baseline}"
    cover = _cloud_cover(layers)
    if cover is not None:
        properties["eo:cloud_cover"] = cover
    properties.update(origin.recipe)
    assets = {layer.name: _asset(layer) for layer in layers}
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": _extensions({"properties": properties, "assets": assets}),
        "id": scene.id,
        "geometry": json.loads(json.dumps(mapping(ground))),
        "bbox": bbox_of(ground),
        "properties": properties,
        "links": [
            _link("root", "../../catalog.json"),
            _link("parent", "../collection.json"),
            _link("collection", "../collection.json"),
        ],
        "assets": assets,
        "collection": scene.sensor.collection,
    }


def _link(relation: str, href: str) -> dict[str, str]:
    kind = "application/geo+json" if relation == "item" else "application/json"
    return {"rel": relation, "href": href, "type": kind}


def _hull(boxes: list[list[float]]) -> list[float]:
    """The box around `boxes`, over the antimeridian where one of them crosses it or lies beyond it."""
    crossing = any(west > east for west, _, east, _ in boxes) or (
        max(box[2] for box in boxes) - min(box[0] for box in boxes) > 180.0
    )
    turned = [
        (west + 360.0 * (crossing and west < 0), east + 360.0 * (crossing and east < 0)) for west, _, east, _ in boxes
    ]
    west, east = min(low for low, _ in turned), max(high for _, high in turned)
    degrees = [west, min(box[1] for box in boxes), east - 360.0 * (east > 180.0), max(box[3] for box in boxes)]
    return [round(value, 7) for value in degrees]


def _write_collection(name: str, root: Path, sensor: DrawnSensor, items: list[dict[str, Any]]) -> None:
    mine = [item for item in items if item["collection"] == sensor.collection]
    times = sorted(item["properties"]["datetime"] for item in mine)
    record = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": sensor.collection,
        "title": sensor.title,
        "description": f"{sensor.title}: {name}. Not a measurement: every pixel is drawn by earthmap.synthetic.",
        "license": "CC0-1.0",
        "extent": {
            "spatial": {"bbox": [_hull([item["bbox"] for item in mine])]},
            "temporal": {"interval": [[times[0], times[-1]]]},
        },
        "links": [
            _link("root", "../catalog.json"),
            _link("parent", "../catalog.json"),
            *(_link("item", f"./{item['id']}/{item['id']}.json") for item in mine),
        ],
    }
    _write_json(root / sensor.collection / "collection.json", record)


def _root(name: str, key: str, sensors: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": key,
        "title": name,
        "description": f"{name}: drawn scenes with their truth. Nothing in it was measured.",
        "links": [
            _link("root", "./catalog.json"),
            *(_link("child", f"./{SENSORS[name].collection}/collection.json") for name in dict.fromkeys(sensors)),
        ],
    }
