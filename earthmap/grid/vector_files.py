"""Files of polygons, recognised by their content: GeoJSON, GeoPackage, GeoParquet, Shapefile (zipped too), WKT."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from earthmap.errors import AreaError
from earthmap.grid.geojson import parse_geojson

Layer = tuple[BaseGeometry, Any]
"""A collection of geometries, and their CRS (anything pyproj reads) or None where the file names none."""
FORMATS = "GeoJSON, GeoPackage, GeoParquet, Shapefile (zipped too) or WKT"
_MEMBERS = (".shp", ".gpkg", ".geojson", ".json")
_MAX_WKT_BYTES = 64 * 2**20


def read_layers(path: Path) -> list[Layer]:
    """Every layer of a file. Raises AreaError for one that is missing, empty or none of the formats."""
    head = _head(path)
    source = _source(path)
    if head.startswith(b"SQLite format 3"):
        return _ogr_layers(str(path), source)
    if head.startswith(b"PAR1"):
        return [_parquet_layer(path, source)]
    if head.startswith(b"\x00\x00\x27\x0a"):
        return _ogr_layers(str(path.with_suffix(".shp")) if path.suffix == ".shx" else str(path), source)
    if head.startswith(b"PK\x03\x04"):
        return _zipped_layers(path, source)
    text = _text(path, source)
    if text.startswith(("{", "[")):
        return [parse_geojson(text, source=source)]
    from earthmap.grid.wkt import looks_like_wkt, parse_wkt

    if looks_like_wkt(text):
        return [parse_wkt(text, source=source)]
    raise _unknown(source)


def _source(path: Path) -> str:
    return f"the area file {path}"


def _unknown(source: str) -> AreaError:
    return AreaError(f"{source} is not geometry", expected=FORMATS)


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise AreaError(f"{_source(path)} is a folder", expected=f"a file: {FORMATS}")
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise AreaError(f"there is no area file {path}", expected="an existing file", fix="check the path") from error
    except OSError as error:
        raise AreaError(f"{_source(path)} cannot be read: {error.strerror}", expected="a readable file") from error
    if not head:
        raise AreaError(f"{_source(path)} is empty", expected=f"polygons as {FORMATS}")
    return head


def _text(path: Path, source: str) -> str:
    if path.stat().st_size > _MAX_WKT_BYTES and path.suffix.lower() not in (".json", ".geojson"):
        raise _unknown(source)
    try:
        text = path.read_text("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise _unknown(source) from error
    if not text:
        raise AreaError(f"{source} is empty", expected=f"polygons as {FORMATS}")
    return text


def _zipped_layers(path: Path, source: str) -> list[Layer]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if "__MACOSX" not in name)
    except (zipfile.BadZipFile, OSError) as error:
        raise AreaError(f"{source} is a damaged zip", expected="a zipped Shapefile", fix="download it again") from error
    members = [name for name in names if Path(name).suffix.lower() in _MEMBERS]
    if not members:
        raise AreaError(f"{source} is a zip without a layer", expected="a .shp, .gpkg or .geojson inside")
    return [layer for name in members for layer in _ogr_layers(f"/vsizip/{path.resolve()}/{name}", source)]


def _ogr_layers(address: str, source: str) -> list[Layer]:
    import geopandas
    import pyogrio  # type: ignore[import-untyped]

    failures = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError)
    layers: list[Layer] = []
    try:
        with warnings.catch_warnings():  # what the reader drops (M values, time zones) is not geometry
            warnings.simplefilter("ignore")
            for name, kind in pyogrio.list_layers(address):
                if kind is not None:
                    frame = geopandas.read_file(address, layer=name, columns=[], engine="pyogrio")
                    layers.append(layer_of(frame.geometry))
    except (
        *failures,
        pyogrio.errors.GeometryError,
        ValueError,
        NotImplementedError,
        shapely.errors.GEOSException,
    ) as error:
        raise AreaError(
            f"{source} cannot be read: {str(error)[:160]}", expected=FORMATS, fix="open it in a GIS and export it again"
        ) from error
    if not layers:
        raise AreaError(f"{source} holds no layer with geometry", expected="polygons")
    return layers


def _parquet_layer(path: Path, source: str) -> Layer:
    import geopandas
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
        if b"geo" not in metadata:
            raise AreaError(
                f"{source} is Parquet without geometry",
                expected="GeoParquet",
                fix="write it with GeoDataFrame.to_parquet",
            )
        column = json.loads(metadata[b"geo"])["primary_column"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = geopandas.read_parquet(path, columns=[column])
    except AreaError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, shapely.errors.GEOSException) as error:
        raise AreaError(f"{source} cannot be read: {str(error)[:160]}", expected="GeoParquet") from error
    return layer_of(frame.geometry)


def layer_of(series: Any) -> Layer:
    """The geometries of a GeoSeries, missing ones left out, and its CRS."""
    return shapely.GeometryCollection([geometry for geometry in series if geometry is not None]), series.crs
