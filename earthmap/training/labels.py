"""Labelled polygons of a file, mended where they cross themselves, in any CRS that the file names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.errors import TrainingError
from earthmap.tasks.query import MAX_TARGETS
from earthmap.tasks.serialization import plain_label
from earthmap.training.faults import Fault, Unfit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.grid import AreaOfInterest

COLUMNS = ("class", "label", "class_name", "category", "type", "name")
"""Where the name of a class is looked for, in this order, when no column is named."""

FORMATS = "GeoJSON, GeoPackage, GeoParquet or Shapefile (zipped too)"

_EDGE_PARTS = 64
"""Parts of each side of the labelled ground, so that it stays a rectangle of the labels' own CRS in any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What a file of labels says."""

    classes: tuple[str, ...]
    """Names of the classes, sorted."""
    codes: NDArray[np.int64] = field(repr=False)
    """Which of `classes`, of each polygon."""
    geometries: NDArray[np.object_] = field(repr=False)
    """Valid (multi)polygons in `crs`."""
    crs: Any
    """A `pyproj.CRS`."""
    ground: Any = field(repr=False)
    """(Multi)polygon in `crs`: what no label covers there belongs to none of the classes."""
    faults: tuple[Fault, ...] = ()
    repaired: int = 0
    """Polygons that crossed themselves, or whose holes lay outside."""

    def within(self, epsg: int) -> tuple[NDArray[np.object_], Any, bool]:
        """The polygons and the labelled ground in a zone's CRS, and whether that is another one than the labels'.

        What lies so far from the zone that it has no place there becomes empty.
        """
        import pyproj

        wanted = pyproj.CRS.from_epsg(epsg)
        if self.crs.equals(wanted, ignore_axis_order=True):
            return self.geometries, self.ground, False
        there = shapely.transform(self.geometries, _mover(self.crs, wanted))
        there[~np.isfinite(shapely.bounds(there)).all(axis=1)] = shapely.Polygon()
        crossed = ~shapely.is_valid(there)
        there[crossed] = shapely.make_valid(there[crossed], method="structure", keep_collapsed=False)
        return there, shapely.transform(self.ground, _mover(self.crs, wanted)), True


def _mover(source: Any, target: Any) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Corners (x, y) from one CRS to another."""
    import pyproj

    transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    return lambda corners: np.column_stack(transformer.transform(corners[:, 0], corners[:, 1]))


def _ground(area: AreaOfInterest | None, crs: Any, shapes: Sequence[Any]) -> Any:
    """The area in `crs`, or without one the rectangle around all shapes; with corners enough for any other CRS."""
    whole = shapely.box(*shapely.total_bounds(shapes)) if area is None else area.geometry
    west, south, east, north = whole.bounds
    fine = shapely.segmentize(whole, max(east - west, north - south, 1e-9) / _EDGE_PARTS)
    return fine if area is None else shapely.transform(fine, _mover("EPSG:4326", crs))


def read_labels(path: Path, *, column: str = "", label: str = "", area: AreaOfInterest | None = None) -> Labels:
    """The labels of a file.

    Args:
        path: GeoJSON, GeoPackage, GeoParquet or Shapefile.
        column: That holds the names of the classes; empty for the first of COLUMNS that there is.
        label: The class that all of them are; empty where a column tells.
        area: In which all there is of the classes is labelled; None for the rectangle around the labels.

    Raises:
        TrainingError: for a file that cannot be read, names no CRS, has no such column, more than MAX_TARGETS classes,
            or no polygon with a name.
    """
    frame = _frame(path)
    if frame.crs is None:
        raise TrainingError(f"the labels {path} name no CRS", expected="one", fix="export them again with their CRS")
    names = _names(frame, path, column=column, label=label)
    found: list[tuple[str, Any]] = []
    faults, repaired = [], 0
    for number, (name, geometry) in enumerate(zip(names, frame.geometry, strict=True), 1):
        try:
            if not name:
                raise Unfit("label", "no name of a class")
            shape, was_broken = _mended(geometry)
        except Unfit as unfit:
            faults.append(unfit.at(str(path), f"feature {number}"))
        else:
            found.append((name, shape))
            repaired += was_broken
    classes = tuple(sorted({name for name, _ in found}))
    if not 0 < len(classes) <= MAX_TARGETS:
        raise TrainingError(
            f"the labels {path} have {len(classes)} classes with polygons",
            expected=f"1 to {MAX_TARGETS}",
            fix="name the column of the classes with column=, or what all of them are with label=",
        )
    return Labels(
        classes=classes,
        codes=np.array([classes.index(name) for name, _ in found]),
        geometries=np.array([shape for _, shape in found], object),
        crs=frame.crs,
        ground=_ground(area, frame.crs, [shape for _, shape in found]),
        faults=tuple(faults),
        repaired=repaired,
    )


def _mended(geometry: Any) -> tuple[Any, bool]:
    """The polygons of a geometry, valid, and whether they were not. Raises Unfit where there are none."""
    if geometry is None or geometry.is_empty:
        raise Unfit("geometry", "no geometry, or one that could not be read")
    broken = not geometry.is_valid
    whole = shapely.make_valid(geometry, method="structure", keep_collapsed=False) if broken else geometry
    flat = shapely.get_parts(shapely.get_parts(shapely.force_2d(whole)))  # parts of a collection may have parts
    parts = [part for part in flat if part.geom_type == "Polygon"]
    if not parts or not sum(part.area for part in parts):
        raise Unfit("geometry", f"a {geometry.geom_type} without area; expected a polygon")
    return (parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)), broken


def _frame(path: Path) -> Any:
    """The table of a file of one of the formats, which its first bytes tell. Raises TrainingError."""
    import geopandas
    import pyarrow
    import pyogrio  # type: ignore[import-untyped]

    try:
        with path.open("rb") as file:
            head = file.read(16)
        with warnings.catch_warnings():  # what readers drop (M values, odd times) is no label
            warnings.simplefilter("ignore")
            if head.startswith(b"PAR1"):
                return geopandas.read_parquet(path)
            address = _address(path, head)
            if address is not None:
                _check_layers(address, path)
                return pyogrio.read_dataframe(address, on_invalid="ignore")
    except (
        *(pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError),
        *(OSError, pyarrow.ArrowException, ValueError, KeyError, TypeError, shapely.errors.GEOSException),
    ) as error:
        raise TrainingError(f"the labels {path} cannot be read: {str(error)[:160]}", expected=FORMATS) from error
    raise TrainingError(f"the labels {path} are no vector data", expected=FORMATS)


def _check_layers(address: str, path: Path) -> None:
    """Raises TrainingError where a file has several layers with geometry: which of them are the labels?"""
    import pyogrio

    names = [str(name) for name, kind in pyogrio.list_layers(address) if kind is not None]
    if len(names) > 1:
        raise TrainingError(
            f"the labels {path} have the layers {', '.join(names)}", expected="one", fix="export one of them"
        )


def _address(path: Path, head: bytes) -> str | None:
    """What GDAL is given; None for a file of a format that it is not asked to guess."""
    if head.startswith(b"PK\x03\x04"):
        return f"/vsizip/{path.resolve()}"
    known = (
        head.startswith((b"SQLite format 3", b"\x00\x00\x27\x0a")) or head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"
    )
    return str(path) if known else None


def _names(frame: Any, path: Path, *, column: str, label: str) -> Sequence[str | None]:
    """The class of each row."""
    if label:
        return [plain_label(label)] * len(frame)
    have = {str(name).casefold(): name for name in frame.columns if name != frame.geometry.name}
    wanted = [column.casefold()] if column else list(COLUMNS)
    found = next((have[name] for name in wanted if name in have), None)
    if found is None:
        raise TrainingError(
            f"the labels {path} have no column {column or ' or '.join(COLUMNS)}",
            expected=f"one of {', '.join(map(str, have.values())) or 'none'}",
            fix="name the column of the classes with column=, or what all of them are with label=",
        )
    return [plain_label(value) if isinstance(value, str) else _number(value) for value in frame[found]]


def _number(value: Any) -> str | None:
    """The name of a class that is a number; None for a missing one."""
    if value is None or value != value:
        return None
    return plain_label(f"{value:g}" if isinstance(value, float) else str(value))
