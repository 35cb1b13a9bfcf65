"""An observation at a glance: coarse overviews only, for the share of a ground that it shows and for quick looks.

A class that was chosen from an overview may be wrong in a pixel; nothing that is made here enters a map. `look_closely`
reads whole pixels in the same way, on a grid that need not be a lattice: what one question about one image is asked of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from earthmap.catalog.scene import BandSource, Observation, Scene
from earthmap.cube.reader import Reader
from earthmap.sensors.masks import Reason
from earthmap.sensors.quality import QUALITY_LAYERS, reason_mask
from earthmap.sensors.registry import SENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

CLEAR_WEIGHTS = {Reason.NODATA: 0.0, Reason.CLOUD: 0.0, Reason.CIRRUS: 0.0, Reason.UNKNOWN: 0.5}
"""What a pixel counts for in `clear_share`, else 1: shadow and dark count, for flood water is classed so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """The pixels of an observation on some grid."""

    bands: tuple[str, ...]
    data: NDArray[np.float32] = field(repr=False, compare=False)
    """(band, y, x) physical values, NaN where nodata."""
    mask: NDArray[np.uint8] = field(repr=False, compare=False)
    """(y, x) codes of `Reason`."""


Read = Callable[[BandSource], "NDArray[np.float32]"]


def is_classified(observation: Observation) -> bool:
    """True where a layer of every scene says of each pixel what it is, so that cloud can be measured."""
    return all(
        any(QUALITY_LAYERS[source.band].classifies for source in scene.mask_sources) for scene in observation.scenes
    )


def glance(reader: Reader, observation: Observation, geobox: GeoBox, *, bands: Sequence[str] = ()) -> Glance:
    """`observation` on a coarse `geobox`: its scenes in their order, each in the holes of those before it.

    Without `bands` only the quality layers are read, and a scene is valid where they do not say otherwise.

    Raises:
        ReadError: for the first source that cannot be read.
    """
    return _mosaic(
        observation, geobox, bands, lambda source: reader.read(dataclasses.replace(source, coarse=True), geobox)
    )


def look_closely(reader: Reader, observation: Observation, geobox: GeoBox) -> Glance:
    """Every band of `observation` on `geobox`, which may lie askew and in any CRS; pixels on its own grid are copied.

    Raises:
        ReadError: for the first source that cannot be read.
    """
    bands = tuple(dict.fromkeys(source.band for scene in observation.scenes for source in scene.sources))
    return _mosaic(observation, geobox, bands, lambda source: reader.read(source, geobox))


def _mosaic(observation: Observation, geobox: GeoBox, bands: Sequence[str], read: Read) -> Glance:
    data = np.full((len(bands), *geobox.shape), np.nan, np.float32)
    mask = np.full(geobox.shape, np.uint8(Reason.NODATA), np.uint8)
    for scene in observation.scenes:
        holes = mask == Reason.NODATA
        if not holes.any():
            break
        own, reasons = _scene(scene, geobox, bands, read)
        for into, band in zip(data, own, strict=True):
            np.copyto(into, band, where=holes)
        np.copyto(mask, reasons, where=holes)
    return Glance(bands=tuple(bands), data=data, mask=mask)


def _scene(
    scene: Scene, geobox: GeoBox, bands: Sequence[str], read: Read
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    layers = {source.band: read(source) for source in scene.mask_sources}
    sources = {source.band: source for source in scene.sources}
    missing = np.full(geobox.shape, np.nan, np.float32)
    own = [read(sources[band]) if band in sources else missing for band in bands]
    data = np.stack(own) if own else np.ones((1, *geobox.shape), np.float32)
    reasons = reason_mask(data, layers, SENSORS[scene.sensor])
    for band, into in zip(bands, data if own else (), strict=bool(own)):
        if band in sources:
            into[np.isposinf(into)] = sources[band].ceiling
    if not own:
        _outline(scene, geobox, reasons)
    return data[: len(own)], reasons


def _outline(scene: Scene, geobox: GeoBox, reasons: NDArray[np.uint8]) -> None:
    """Nodata outside the scene's footprint, in place, where no layer said so."""
    import shapely
    from odc.geo.crs import CRS

    y, x = np.meshgrid(np.arange(geobox.shape[0]) + 0.5, np.arange(geobox.shape[1]) + 0.5, indexing="ij")
    a, crs = geobox.affine, geobox.crs
    east, north = a.a * x + a.b * y + a.c, a.d * x + a.e * y + a.f
    lonlat = CRS("EPSG:4326")
    lon, lat = (east, north) if crs is None or crs == lonlat else crs.transformer_to_crs(lonlat)(east, north)
    footprint = shapely.from_wkb(scene.footprint)
    shapely.prepare(footprint)
    reasons[~shapely.contains_xy(footprint, np.asarray(lon), np.asarray(lat))] = Reason.NODATA


def clear_share(mask: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> float:
    """Share of the pixels (of `where`) that show the ground, by `CLEAR_WEIGHTS`."""
    weights = np.ones(256)
    for reason, weight in CLEAR_WEIGHTS.items():
        weights[reason] = weight
    picked = mask if where is None else mask[where]
    return float(weights[picked].mean()) if picked.size else 0.0
