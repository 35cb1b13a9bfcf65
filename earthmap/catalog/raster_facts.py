"""What an image file says of itself: grid, place, bands, where it holds values. Pixels are read only where cheap."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import shapely
import shapely.geometry
from shapely.geometry.base import BaseGeometry

from earthmap.catalog.addresses import REMOTE, gdal_path, split_member
from earthmap.catalog.admission import UnansweredError, admit
from earthmap.catalog.archives import read_text
from earthmap.connection import Connection
from earthmap.errors import BadRequestError, CatalogError, ReadError
from earthmap.grid import AreaOfInterest, to_lonlat
from earthmap.grid.lonlat import check_finite

if TYPE_CHECKING:
    from rasterio.crs import CRS
    from rasterio.io import DatasetReader

IMAGE_DRIVERS = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG")
"""Formats that an image may have; no VRT, which would fetch whatever address it names."""

MAX_PRJ_BYTES = 2**16
"""Largest `.prj` that is read."""

MAX_SIDE_PX = 2**20
"""Longest side of an image."""

_UTM = re.compile(r"EPSG:32[67](?:0[1-9]|[1-5]\d|60)")  # ten times as fast as the way that takes any CRS
_OUTLINE_PX = 256
_CHEAP_PIXELS = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterFacts:
    """One image file, as it describes itself."""

    shape: tuple[int, int]
    """Rows, columns."""
    transform: tuple[float, ...] | None
    """a, b, c, d, e, f: from (column, row) to the CRS; None where ground control points place the file."""
    crs: str
    """`EPSG:n`, or WKT where it has no code."""
    dtypes: tuple[str, ...]
    """One for each band, as STAC's raster extension names them."""
    descriptions: tuple[str, ...]
    """One for each band; empty where there is none."""
    colors: tuple[str, ...]
    """Colour interpretation of each band: `red`, `alpha`, `gray`, `undefined` …"""
    units: tuple[str, ...]
    """One for each band; empty where none is stated."""
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    nodata: float | None
    tags: Mapping[str, str] = field(default_factory=dict)
    """The file's own metadata."""
    footprint: BaseGeometry = field(repr=False)
    """Ground in EPSG:4326, split at the antimeridian: where there are values, else the frame."""
    mostly_negative: bool = False
    """True where most values of a floating-point file are below zero: decibels, since power cannot be."""
    driver: str = "GTiff"

    @property
    def color_bands(self) -> int:
        """Bands that are not alpha."""
        return sum(color != "alpha" for color in self.colors)


def read_facts(address: str) -> RasterFacts:
    """What the image at `address` says of itself.

    Raises:
        ReadError: for a file that is no image, is damaged, or does not say where it lies.
    """
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.io import DatasetReader

    _settle()
    path = gdal_path(_admitted(address))
    with rasterio.Env(**Connection.from_environment().gdal_options(path), GDAL_PAM_ENABLED=True):
        try:
            with DatasetReader(path, driver=list(IMAGE_DRIVERS)) as dataset:
                return _facts(dataset, address)
        except (RasterioError, OSError, ValueError, MemoryError) as error:
            if isinstance(error, ReadError):
                raise
            said = str(error).replace(path, address).split("\n")[0][:200]
            raise ReadError(
                f"{address} is no image that can be read: {said}",
                address=address,
                reason="damaged",
                expected="a whole GeoTIFF, JPEG 2000, PNG or JPEG",
            ) from error


def _admitted(address: str) -> str:
    """Where `address` leads. Raises ReadError."""
    try:
        return admit(address, href=address)
    except UnansweredError as error:
        raise ReadError(
            f"{address} cannot be read: {error}",
            address=address,
            reason="unavailable",
            expected="an image that is there",
        ) from None


@functools.cache
def _settle() -> None:
    """Once a process: a missing georeference is our error; nodata beside an alpha band is what GDAL reads by."""
    import warnings

    from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    warnings.simplefilter("ignore", NodataShadowWarning)


def _facts(dataset: DatasetReader, address: str) -> RasterFacts:
    if max(dataset.shape) > MAX_SIDE_PX or not dataset.count:
        raise ReadError(
            f"{address} has {dataset.count} bands of {dataset.height:,} × {dataset.width:,} pixels",
            address=address,
            reason="too_large",
            expected=f"a side of at most {MAX_SIDE_PX:,} pixels",
        )
    own = crs_of(dataset, address)
    placed = own is not None and not dataset.transform.is_identity
    if not placed and not dataset.gcps[0]:
        raise _not_placed(dataset, address)
    crs = own if placed else dataset.gcps[1]
    if crs is None:
        raise _not_placed(dataset, address)
    code = crs.to_epsg()
    return RasterFacts(
        shape=dataset.shape,
        transform=tuple(dataset.transform)[:6] if placed else None,
        crs=f"EPSG:{code}" if code else crs.to_wkt(),
        dtypes=tuple(_stac_type(dtype) for dtype in dataset.dtypes),
        descriptions=tuple(text or "" for text in dataset.descriptions),
        colors=tuple(color.name for color in dataset.colorinterp),
        units=tuple(text or "" for text in dataset.units),
        scales=tuple(dataset.scales),
        offsets=tuple(dataset.offsets),
        nodata=None if dataset.nodata is None else float(dataset.nodata),
        tags={**dataset.tags(ns="IMAGERY"), **dataset.tags()},
        footprint=_footprint(dataset, address, f"EPSG:{code}" if code else crs.to_wkt(), placed=placed),
        mostly_negative=_mostly_negative(dataset),
        driver=dataset.driver,
    )


def crs_of(dataset: DatasetReader, address: str) -> CRS | None:
    """The CRS of an open image: its own, else, for one on this machine, what a `.prj` beside it says (ESRI's WKT or
    any other). GDAL reads world files, and leaves their `.prj` alone."""
    from rasterio.crs import CRS
    from rasterio.errors import RasterioError

    member = split_member(address)
    if dataset.crs is not None or (member.archive if member else address).lower().startswith(REMOTE):
        return dataset.crs
    for ending in (".prj", ".PRJ"):
        with contextlib.suppress(CatalogError, RasterioError, ValueError):
            text = read_text(address.rpartition(".")[0] + ending, limit=MAX_PRJ_BYTES).decode("utf-8-sig")
            return CRS.from_wkt(text.strip(), morph_from_esri_dialect="ESRI" in text or "AUTHORITY" not in text)
    return None


def _not_placed(dataset: DatasetReader, address: str) -> ReadError:
    half = "it has a world file or transform but names no CRS" if not dataset.transform.is_identity else ""
    fix = (
        "name its CRS in a .prj beside it, or with gdal_edit.py -a_srs EPSG:…, which writes an .aux.xml"
        if half
        else "georeference it, for example with gdal_translate -a_srs EPSG:… -a_ullr west north east south"
    )
    return ReadError(
        f"{address} does not say where it lies" + (f": {half}" if half else ""),
        address=address,
        reason="no_georeference",
        expected="an affine transform and a CRS, in the file or beside it",
        fix=fix,
    )


def _stac_type(dtype: str) -> str:
    return {"complex64": "cfloat32", "complex128": "cfloat64", "complex_int16": "cint16"}.get(dtype, dtype)


# -- ground


def _footprint(dataset: DatasetReader, address: str, crs: str, *, placed: bool) -> BaseGeometry:
    """Ground in EPSG:4326. Raises ReadError where it is none on the Earth."""
    outline = _outline(dataset) if placed else None
    try:
        if outline is None:
            outline = _frame(dataset) if placed else _points_hull(dataset)
        ground = to_lonlat(outline, crs) if _UTM.fullmatch(crs) else AreaOfInterest.from_geometry(outline, crs).geometry
        check_finite(ground, source=address)
        return ground
    except (BadRequestError, shapely.errors.ShapelyError) as error:
        raise ReadError(
            f"{address} does not lie on the Earth: {error}", address=address, reason="no_georeference"
        ) from error


def _frame(dataset: DatasetReader) -> BaseGeometry:
    rows, columns = dataset.shape
    corners = [(0, 0), (columns, 0), (columns, rows), (0, rows)]
    return shapely.Polygon([dataset.transform @ corner for corner in corners])


def _points_hull(dataset: DatasetReader) -> BaseGeometry:
    return shapely.MultiPoint([(point.x, point.y) for point in dataset.gcps[0]]).convex_hull


def _outline(dataset: DatasetReader) -> BaseGeometry | None:
    """Where the file holds values, a pixel of the small picture too wide; None where that is the frame, or dear."""
    from affine import Affine
    from rasterio.enums import MaskFlags
    from rasterio.features import shapes

    whole = all(flags == [MaskFlags.all_valid] for flags in dataset.mask_flag_enums)
    if whole or not (dataset.overviews(1) or dataset.height * dataset.width <= _CHEAP_PIXELS):
        return None
    step = max(1, -(-max(dataset.shape) // _OUTLINE_PX))
    shape = (-(-dataset.height // step), -(-dataset.width // step))
    valid = dataset.dataset_mask(out_shape=shape) > 0
    if valid.all() or not valid.any():
        return None
    small = dataset.transform @ Affine.scale(dataset.width / shape[1], dataset.height / shape[0])
    parts = [shapely.geometry.shape(part) for part, _ in shapes(valid.astype(np.uint8), mask=valid, transform=small)]
    pixel = max(abs(small.a) + abs(small.b), abs(small.d) + abs(small.e))
    grown = shapely.union_all(parts).buffer(pixel, join_style="mitre").simplify(pixel / 2)
    return shapely.intersection(grown, _frame(dataset))


def _mostly_negative(dataset: DatasetReader) -> bool:
    """Looks at the block in the middle of band 1 of a floating-point file, if it is small."""
    from rasterio.windows import Window

    if not dataset.dtypes[0].startswith("float"):
        return False
    rows, columns = (min(side, 256) for side in dataset.shape)
    block = dataset.block_shapes[0]
    if block[0] * block[1] > _CHEAP_PIXELS:
        return False
    window = Window((dataset.width - columns) // 2, (dataset.height - rows) // 2, columns, rows)
    values = dataset.read(1, window=window)
    values = values[np.isfinite(values) & (values != dataset.nodata)]
    return bool(values.size) and float(np.median(values)) < 0.0
