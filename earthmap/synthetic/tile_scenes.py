"""Drawn tiles as scenes: COGs under a static STAC catalogue, side by side, for `earthmap map` to run over."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.errors import CatalogError, StorageError
from earthmap.sensors.masks import Reason
from earthmap.synthetic.catalog import Origin, write_index, write_scene
from earthmap.synthetic.pictures import Pictures, measure
from earthmap.synthetic.scenes import DrawnScene
from earthmap.synthetic.sensors import S2_OFFSET, S2_SCALE, SENSORS, Layer
from earthmap.synthetic.spectra import BAND_NAMES, S2_BANDS
from earthmap.synthetic.tiles import Tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

_EPSG, _EAST_M, _NORTH_M = 32631, 480_000.0, 5_040_000.0
"""Where the first tile lies: in the plain strip of a zone, in France, whose valley exists nowhere either."""

_FIRST = dt.datetime(2024, 5, 4, 10, 50, 31, tzinfo=dt.UTC)
_STEP = dt.timedelta(days=30)
"""Between two dates."""

_SCL = np.zeros(256, np.uint8)
_SCL[[Reason.CLEAR, Reason.CLOUD, Reason.CIRRUS, Reason.SHADOW, Reason.SNOW]] = 5, 9, 10, 3, 11
"""The scene classification's codes by reason; clear ground is called bare: what it is, is to be found."""


def write_tiles(tiles: Tiles, folder: str | Path, *, sensors: tuple[str, ...] = ("sentinel-2",)) -> Path:
    """Write every tile on each of its dates as a scene of each sensor; the path of catalog.json, written last.

    Tiles lie from west to east, each on a lattice of its own ground distance. A scene has its truth as labels.

    Args:
        tiles: A batch.
        folder: Where; made where it is missing, files of the same names are replaced.
        sensors: Some of `TILE_SENSORS`.

    Raises:
        CatalogError: for a sensor that tiles are not written for.
        StorageError: where the folder cannot be written.
    """
    unknown = [name for name in sensors if name not in TILE_SENSORS]
    if unknown or not sensors:
        raise CatalogError(
            f"tiles are not written for {', '.join(unknown) or 'no sensor'}",
            expected=f"some of {', '.join(TILE_SENSORS)}",
        )
    root = Path(folder)
    items = []
    try:
        for name in dict.fromkeys(sensors):
            row, layers_of = TILE_SENSORS[name]
            pictures = measure(tiles, row)
            for tile in range(tiles.recipe.count):
                for date in range(tiles.recipe.dates):
                    scene = _scene(tiles, name, tile, date)
                    layers = [*layers_of(pictures, scene.geobox, tile, date), _labels(tiles, scene.geobox, tile, date)]
                    items.append(write_scene(root, scene, layers, _origin(tiles, scene, tile)))
        return write_index(root, items, name="drawn tiles", key="drawn-tiles", sensors=sensors)
    except OSError as error:
        raise StorageError(
            f"cannot write drawn tiles to {root}: {error}", fix="free some space, or give another folder"
        ) from error


def tile_lattice(tiles: Tiles, tile: int) -> GeoBox:
    """Where a tile is said to lie: beside the others, its corner on whole pixels."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    recipe = tiles.recipe
    gsd = float(f"{float(recipe.gsd_m[tile]):.6g}")
    step = float(recipe.extent_m.max()) * 1.5
    west = round((_EAST_M + tile * step) / gsd) * gsd
    north = round(_NORTH_M / gsd) * gsd
    return GeoBox((recipe.side_px, recipe.side_px), Affine(gsd, 0.0, west, 0.0, -gsd, north), f"EPSG:{_EPSG}")


def _scene(tiles: Tiles, name: str, tile: int, date: int) -> DrawnScene:
    sensor = SENSORS[name]
    start = _FIRST + date * _STEP + dt.timedelta(hours=sensor.hours)
    moment = start + dt.timedelta(seconds=3 * tile)
    identity = f"{sensor.collection}_{start:%Y%m%dT%H%M%S}_{tile}"
    return DrawnScene(id=identity, sensor=sensor, datetime=moment, geobox=tile_lattice(tiles, tile), pass_start=start)


def _origin(tiles: Tiles, scene: DrawnScene, tile: int) -> Origin:
    import shapely

    from earthmap.grid.projection import to_lonlat

    ground = to_lonlat(shapely.box(*scene.geobox.boundingbox), f"EPSG:{_EPSG}")
    recipe = tiles.recipe
    return Origin(
        name="drawn tiles",
        created=_FIRST + recipe.dates * _STEP,
        gsd_m=abs(float(scene.geobox.affine.a)),
        ground=shapely.orient_polygons(shapely.set_precision(ground, 1e-7)),
        recipe={"earthmap:seed": int(recipe.seeds[tile]), "earthmap:dates": recipe.dates},
    )


def _labels(tiles: Tiles, geobox: GeoBox, tile: int, date: int) -> Layer:
    says = {"name": "labels", "data_type": "uint8", "nodata": 255}
    data = tiles.cover[tile, date].cpu().numpy()[None]
    return Layer(
        name="labels", data=data, geobox=geobox, bands=(says,), nodata=255, roles=("labels",), categorical=True
    )


def _numbers(pictures: Pictures, tile: int, date: int) -> NDArray[np.float32]:
    numbers: NDArray[np.float32] = pictures.data[tile, date].cpu().numpy()
    return numbers


def _sentinel2(pictures: Pictures, geobox: GeoBox, tile: int, date: int) -> list[Layer]:
    """Twelve bands of stored numbers, all on one lattice, and the scene classification."""
    numbers = _numbers(pictures, tile, date)
    layers = []
    for number, (name, band) in enumerate(zip(S2_BANDS, BAND_NAMES, strict=True)):
        stored = np.clip(np.rint((numbers[number] - S2_OFFSET) / S2_SCALE), 1, 65535)
        says: dict[str, Any] = {
            "name": name,
            "eo:common_name": band,
            "data_type": "uint16",
            "nodata": 0,
            "unit": "1",
            "raster:scale": S2_SCALE,
            "raster:offset": S2_OFFSET,
        }
        data = np.where(np.isnan(stored), 0, stored).astype(np.uint16)[None]
        layers.append(
            Layer(name=name, data=data, geobox=geobox, bands=(says,), nodata=0, roles=("data", "reflectance"))
        )
    scl = _SCL.take(pictures.mask[tile, date].cpu().numpy())[None]
    says = {"name": "SCL", "data_type": "uint8", "nodata": 0}
    return [*layers, Layer(name="SCL", data=scl, geobox=geobox, bands=(says,), nodata=0, categorical=True)]


def _sentinel1(pictures: Pictures, geobox: GeoBox, tile: int, date: int) -> list[Layer]:
    """Both polarisations in decibels, NaN where there is no measurement."""
    layers = []
    for band, power in zip(pictures.bands, _numbers(pictures, tile, date), strict=True):
        says = {
            "name": band.upper(),
            "description": f"{band.upper()} sigma0 backscatter in decibels",
            "data_type": "float32",
            "nodata": "nan",
            "unit": "dB",
        }
        data = (10.0 * np.log10(power)).astype(np.float32)[None]
        layers.append(Layer(name=band, data=data, geobox=geobox, bands=(says,), nodata=float("nan")))
    return layers


def _camera(pictures: Pictures, geobox: GeoBox, tile: int, date: int) -> list[Layer]:
    """Red, green, blue and near infrared of 8 bits; 0 where there is no measurement."""
    order = ("red", "green", "blue", "nir")
    planes = np.nan_to_num(_numbers(pictures, tile, date)[[pictures.bands.index(band) for band in order]], nan=0.0)
    says = tuple({"name": band, "eo:common_name": band, "data_type": "uint8"} for band in order)
    return [Layer(name="image", data=planes.astype(np.uint8), geobox=geobox, bands=says)]


TILE_SENSORS: dict[str, tuple[str, Callable[[Pictures, GeoBox, int, int], list[Layer]]]] = {
    "sentinel-2": ("sentinel-2-l2a", _sentinel2),
    "sentinel-1": ("sentinel-1-db", _sentinel1),
    "rgb": ("optical-uncalibrated", _camera),
}
"""Rows of `earthmap.synthetic.sensors.SENSORS` that tiles are written for: the sensor that measures, and its layers."""
