"""Footprints that a person brings: outlines of buildings in any CRS, each kept as it is, with its id and properties.

Nothing is left out: what cannot be asked about is named in `Footprints.faults`, and comes out again with that reason.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.content import content_key
from earthmap.errors import JobError
from earthmap.grid import AreaOfInterest
from earthmap.grid.lonlat import as_meant, is_lonlat
from earthmap.grid.projection import wrap_longitude

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMATS = "GeoJSON, GeoPackage, FlatGeobuf, GeoParquet or Shapefile (zipped too)"

SIDECARS = (".shp", ".shx", ".dbf", ".prj", ".cpg")
"""Files that are one Shapefile."""

NO_GEOMETRY, NO_PLACE, NO_AREA = "no_geometry", "no_place", "no_area"
"""Faults: nothing there or nothing that can be read; not on the Earth; neither a polygon with area nor a point."""

_HEAD_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Footprints:
    """The rows of a file, in its order; arrays of one length."""

    source: str
    """The file, for messages."""
    ids: NDArray[np.object_] = field(repr=False)
    """Text: the column `id`, else the number of the row from 1 on. Not unique where the file's are not."""
    geometries: NDArray[np.object_] = field(repr=False)
    """EPSG:4326, x = longitude, without heights, as they were given; None where there is none."""
    shapes: NDArray[np.object_] = field(repr=False)
    """The same mended, unwrapped and split at the antimeridian, as they are looked at; None where there is a fault."""
    centroids: NDArray[np.float64] = field(repr=False)
    """(n, 2) longitude in [-180, 180) and latitude; NaN where there is a fault."""
    properties: NDArray[np.object_] = field(repr=False)
    """All columns but the geometry, as JSON."""
    faults: NDArray[np.object_] = field(repr=False)
    """Why nothing can be asked about it: one of this module's three words; empty where something can."""
    notes: NDArray[np.object_] = field(repr=False)
    """What else is odd: that it crosses itself, or is there twice; empty where nothing is."""

    def __len__(self) -> int:
        return len(self.ids)

    def on(self, area: AreaOfInterest) -> NDArray[np.bool_]:
        """(n,) True for those that overlap the area."""
        shapely.prepare(area.geometry)
        found: NDArray[np.bool_] = shapely.intersects(area.geometry, self.shapes)
        return found

    def of(self, area: AreaOfInterest) -> NDArray[np.bool_]:
        """(n,) True for those whose centroid lies in the area: those that are asked about."""
        shapely.prepare(area.geometry)
        found: NDArray[np.bool_] = shapely.intersects_xy(area.geometry, self.centroids)
        return found & np.asarray(self.faults == "", np.bool_)


def footprints_key(path: str | Path) -> str:
    """Key of a file's content, for a Shapefile of all its files. Raises JobError where it cannot be read."""
    path = Path(path)
    digests = {}
    for part in _parts(path):
        try:
            with part.open("rb") as file:
                digests[part.suffix.lower()] = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise JobError(f"there is no footprints file {path}", expected=FORMATS, fix="check the path") from None
        except OSError as error:
            raise JobError(f"the footprints {path} cannot be read: {error.strerror}", expected=FORMATS) from error
    return content_key("footprints", digests)


def _parts(path: Path) -> list[Path]:
    """The files that one path means."""
    if path.suffix.lower() not in SIDECARS:
        return [path]
    return [path, *(other for suffix in SIDECARS if (other := path.with_suffix(suffix)) != path and other.exists())]


def read_footprints(path: str | Path, *, area: AreaOfInterest | None = None) -> Footprints:
    """The footprints of a file; the last file that was read is kept.

    Args:
        path: GeoJSON, GeoPackage, FlatGeobuf, GeoParquet or Shapefile, in any CRS that it names (degrees where none).
        area: Ground that one of them must overlap.

    Raises:
        JobError: for a file that cannot be read, without rows, or of which none overlaps the area.
    """
    found = _read(str(path), footprints_key(path))
    if area is not None and not found.on(area).any():
        raise JobError(
            f"none of the {len(found):,} footprints of {path} overlaps the area{_whereabouts(found)}",
            expected="footprints in the area",
            fix="check the area, and the CRS that the file names",
        )
    return found


def _whereabouts(found: Footprints) -> str:
    usable = found.centroids[found.faults == ""]
    if not len(usable):
        return ": none of them has a place"
    (west, south), (east, north) = usable.min(axis=0), usable.max(axis=0)
    return f": they lie between {west:.4f},{south:.4f} and {east:.4f},{north:.4f} (longitude, latitude)"


@functools.lru_cache(maxsize=1)
def _read(path: str, key: str) -> Footprints:
    """`key` tells another content of the same path."""
    frame = _frame(Path(path))
    if not len(frame):
        raise JobError(f"the footprints {path} have no rows", expected="at least one polygon")
    given = shapely.force_2d(_in_degrees(frame, path))
    ids = _ids(frame)
    faults = _faults(given)
    shapes, crossed = _mended(given, faults)
    notes = np.full(len(given), "", object)
    notes[crossed] = "the outline crosses itself"
    for index, note in _repeated(given, ids, faults):
        notes[index] = f"{notes[index]}; {note}" if notes[index] else note
    return Footprints(
        source=path,
        ids=ids,
        geometries=given,
        shapes=shapes,
        centroids=_centroids(shapes),
        properties=_properties(frame),
        faults=faults,
        notes=notes,
    )


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────


def _frame(path: Path) -> Any:
    """The table of a file, whose format its first bytes tell. Raises JobError."""
    import geopandas
    import pyarrow
    import pyogrio  # type: ignore[import-untyped]

    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        with warnings.catch_warnings():  # what readers drop (M values, odd times) is no outline
            warnings.simplefilter("ignore")
            if head.startswith(b"PAR1"):
                return geopandas.read_parquet(path)
            address = _address(path, head)
            if address is not None:
                _check_layers(address, path)
                return pyogrio.read_dataframe(address, on_invalid="ignore", use_arrow=True)
    except (
        *(pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError),
        *(OSError, pyarrow.ArrowException, ValueError, KeyError, TypeError, RuntimeError, shapely.errors.GEOSException),
    ) as error:
        if isinstance(error, JobError):
            raise
        raise JobError(
            f"the footprints {path} cannot be read: {str(error)[:160]}",
            expected=FORMATS,
            fix="open the file in a GIS and export it again",
        ) from error
    raise JobError(f"the footprints {path} are no vector data", expected=FORMATS)


def _address(path: Path, head: bytes) -> str | None:
    """What GDAL is given; None for a file of a format that it is not asked to guess."""
    if head.startswith(b"PK\x03\x04"):
        return f"/vsizip/{path.resolve()}"
    if head.startswith(b"\x00\x00\x27\x0a"):
        return str(path.with_suffix(".shp"))
    known = head.startswith((b"SQLite format 3", b"fgb\x03")) or head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"
    return str(path) if known else None


def _check_layers(address: str, path: Path) -> None:
    """Raises JobError unless the file has one layer with geometry."""
    import pyogrio

    names = [str(name) for name, kind in pyogrio.list_layers(address) if kind is not None]
    if len(names) != 1:
        has = f"the layers {', '.join(names)}" if names else "no layer with geometry"
        raise JobError(
            f"the footprints {path} have {has}",
            expected="one layer of polygons",
            fix="export the buildings alone",
        )


def _in_degrees(frame: Any, path: str) -> NDArray[np.object_]:
    """The geometries in EPSG:4326. Raises JobError for a file without CRS whose coordinates are no degrees."""
    series = frame.geometry
    if series.crs is None:
        west, south, east, north = series.total_bounds
        if max(abs(west), abs(east)) > 360.0 or max(abs(south), abs(north)) > 90.0:
            raise JobError(
                f"the footprints {path} name no CRS, and their coordinates are no degrees",
                expected="longitude and latitude, or a file that names its CRS",
                fix="export them again with their CRS",
            )
    elif not is_lonlat(series.crs):
        series = series.to_crs("EPSG:4326")
    given: NDArray[np.object_] = np.asarray(series.array, object)
    return given


def _ids(frame: Any) -> NDArray[np.object_]:
    """The column `id` as text; where it says nothing the number of the row, from 1 on."""
    import pandas

    numbers = pandas.Series(np.arange(1, len(frame) + 1)).astype(str).to_numpy(object)
    name = next((name for name in frame.columns if str(name).casefold() == "id"), None)
    if name is None or name == frame.geometry.name:
        return numbers
    column = frame[name]
    if column.dtype.kind == "f" and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")  # whole numbers become broken ones where one is missing
    missing = column.isna().to_numpy()
    found: NDArray[np.object_] = np.where(missing, numbers, column.astype(str).to_numpy(object))
    return found


def _properties(frame: Any) -> NDArray[np.object_]:
    """All columns but the geometry, row by row as JSON."""
    plain = frame.drop(columns=[frame.geometry.name])
    found = np.full(len(frame), "{}", object)
    if len(plain.columns):
        for name in plain.columns:
            if plain[name].dtype == object and plain[name].map(lambda value: isinstance(value, bytes)).any():
                plain[name] = plain[name].map(lambda value: value.hex() if isinstance(value, bytes) else value)
        plain.columns = [str(name) for name in plain.columns]
        text = plain.to_json(orient="records", lines=True, date_format="iso", default_handler=str, force_ascii=False)
        found[:] = text.removesuffix("\n").split("\n")
    return found


# ── the outlines ─────────────────────────────────────────────────────────────────────────────────────────────


def _faults(given: NDArray[np.object_]) -> NDArray[np.object_]:
    """Why nothing can be asked about each; empty where something can."""
    faults = np.full(len(given), "", object)
    kinds = shapely.get_type_id(given)
    areal = np.isin(kinds, (3, 6))  # Polygon, MultiPolygon; whether it has area is seen when it is mended
    faults[~areal & (kinds != 0)] = NO_AREA
    west, south, east, north = shapely.bounds(given).T
    with np.errstate(invalid="ignore"):
        placed = (west >= -360.0) & (east <= 360.0) & (south >= -90.0) & (north <= 90.0)
    faults[~(placed & np.isfinite(shapely.area(given)))] = NO_PLACE
    faults[(kinds == -1) | shapely.is_empty(given)] = NO_GEOMETRY
    return faults


def _mended(given: NDArray[np.object_], faults: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """Valid shapes between -180 and 180 degrees, and which of the given ones cross themselves; adds to `faults`."""
    shapes = given.copy()
    shapes[faults != ""] = None
    crossed = (faults == "") & ~shapely.is_valid(given)
    shapes[crossed] = shapely.make_valid(shapes[crossed], method="structure", keep_collapsed=False)
    west, _, east, _ = shapely.bounds(shapes).T
    with np.errstate(invalid="ignore"):
        turned = np.flatnonzero((west < -180.0) | (east > 180.0) | (east - west > 180.0))
    for index in turned.tolist():  # buildings on the antimeridian: few
        shapes[index] = _on_this_turn(given[index])
    lost = (faults == "") & (
        shapely.is_empty(shapes) | ((shapely.get_type_id(given) != 0) & (shapely.area(shapes) <= 0))
    )
    faults[lost] = NO_AREA
    shapes[lost] = None
    return shapes, crossed & ~lost


def _on_this_turn(geometry: Any) -> Any:
    if geometry.geom_type == "Point":
        return shapely.Point(float(wrap_longitude(geometry.x)), geometry.y)
    return as_meant(geometry)


def _centroids(shapes: NDArray[np.object_]) -> NDArray[np.float64]:
    """(n, 2) longitude and latitude; of what is split at the antimeridian that of its larger part."""
    places = shapely.centroid(shapes)
    west, _, east, _ = shapely.bounds(shapes).T
    for index in np.flatnonzero(east - west > 180.0).tolist():
        places[index] = max(shapely.get_parts(shapes[index]), key=lambda part: part.area).centroid
    found = np.column_stack([shapely.get_x(places), shapely.get_y(places)])
    found[:, 0] = wrap_longitude(found[:, 0])
    return found


def _repeated(
    given: NDArray[np.object_], ids: NDArray[np.object_], faults: NDArray[np.object_]
) -> Iterator[tuple[int, str]]:
    """Rows whose outline, or whose id, an earlier row has."""
    import pandas

    usable = np.flatnonzero(faults == "")
    outlines = pandas.Series(shapely.to_wkb(shapely.normalize(given[usable])))
    codes = outlines.factorize()[0]
    first = np.unique(codes, return_index=True)[1]
    for place in np.flatnonzero(outlines.duplicated().to_numpy()).tolist():
        yield int(usable[place]), f"the outline is that of {ids[usable[first[codes[place]]]]} too"
    for index in np.flatnonzero(pandas.Series(ids).duplicated().to_numpy()).tolist():
        yield index, "an earlier footprint has the same id"
