"""NetCDF 4 files as images: which variables lie on a grid, where, when, and what their numbers mean.

Conventions: CF 1.11 (grid mappings, time coordinates, packed data) and the netCDF attribute conventions (`_FillValue`,
`_Unsigned`). The file is HDF5, read by h5py and not by GDAL's driver: GDAL gives no transform to coordinates without a
standard name, which is how xarray writes them. A file is somebody else's word: links and storage that lead to other
files are not followed, and nothing larger than its limits is read.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.errors import CatalogError, ReadError

if TYPE_CHECKING:
    import h5py
    from affine import Affine
    from numpy.typing import NDArray

SUFFIXES = (".nc", ".nc4")

MAX_AXIS = 1_000_000
"""Numbers along one coordinate."""

MAX_STEPS = 20_000
"""Steps of time in one file: daily images of fifty years."""

MAX_CHUNK_BYTES = 2**28
"""Largest chunk that is decoded."""

AXIS_TOLERANCE = 0.05
"""How far a coordinate may lie from an even spacing, in pixels."""

_ADDRESS = re.compile(r"(?P<path>.+\.nc4?)#(?P<variable>[^#@/]+)@(?P<step>\d{1,6})", re.IGNORECASE | re.DOTALL)
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_UNITS = {"second": 1.0, "sec": 1.0, "s": 1.0, "minute": 60.0, "min": 60.0, "hour": 3600.0, "hr": 3600.0, "h": 3600.0,
          "day": 86400.0, "d": 86400.0, "millisecond": 1e-3, "microsecond": 1e-6, "nanosecond": 1e-9}  # fmt: skip
_SINCE = re.compile(r"\s*([a-z]+?)s?\s+since\s+(.+?)\s*", re.IGNORECASE)
_CALENDARS = ("", "standard", "gregorian", "proleptic_gregorian")


@dataclass(frozen=True, slots=True)
class VariableStep:
    """What the address `file.nc#B04@3` names: a variable at a step of time, counted from 0."""

    path: str
    variable: str
    step: int

    @property
    def address(self) -> str:
        """The inverse of `split_variable`."""
        return f"{self.path}#{self.variable}@{self.step}"


def split_variable(address: str) -> VariableStep | None:
    """The variable and step that an address names; None for an address of any other kind.

    Example:
        >>> split_variable("/data/s2.nc#B04@3")
        VariableStep(path='/data/s2.nc', variable='B04', step=3)
    """
    match = _ADDRESS.fullmatch(address)
    return VariableStep(match["path"], match["variable"], int(match["step"])) if match else None


class NetcdfError(ValueError):
    """What is wrong with a file; the caller knows its address."""


@contextlib.contextmanager
def open_netcdf(path: str) -> Iterator[h5py.File]:
    """The file's root group, open for reading.

    Raises:
        NetcdfError: for a file that is not there, is not NetCDF 4, or leads to other files.
    """
    import h5py

    try:
        with Path(path).open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise NetcdfError(f"there is no file {path}") from error
    if start != _SIGNATURE:
        kind = "NetCDF 3 (nccopy -k nc4 makes it NetCDF 4)" if start[:3] == b"CDF" else "no NetCDF 4"
        raise NetcdfError(f"{path} is {kind}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        if isinstance(error, (NetcdfError, ReadError, CatalogError)):
            raise
        raise NetcdfError(f"{path} is damaged: {error}") from error


def dataset_of(file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset of the root group that has this name. Raises NetcdfError where it leads elsewhere, or is none."""
    import h5py

    if name not in file or not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise NetcdfError(f"there is no variable {name}")
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise NetcdfError(f"the variable {name} lies in another file")
    item = found.dtype.itemsize
    if found.chunks and int(np.prod(found.chunks)) * item > MAX_CHUNK_BYTES:
        raise NetcdfError(f"the variable {name} is stored in chunks of more than {MAX_CHUNK_BYTES // 2**20} MB")
    return found


def text_attribute(holder: Any, name: str) -> str | None:
    """An attribute as text; None where it has none, or one that is no text or number."""
    value = holder.attrs.get(name)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return str(value) if isinstance(value, (str, np.generic, int, float)) else None


def number_attribute(holder: Any, name: str) -> float | None:
    """An attribute as a finite number; None for anything else."""
    text = text_attribute(holder, name)
    try:
        number = float(text) if text is not None else float("nan")
    except ValueError:
        return None
    return number if np.isfinite(number) else None


# ── where ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class NetcdfGrid:
    """Where the pixels of a variable lie."""

    shape: tuple[int, int]
    transform: Affine
    crs: str
    """WKT, or an authority's code."""


def axis_names(dataset: h5py.Dataset) -> tuple[str, ...]:
    """The names of a variable's dimensions; an empty text for one without a name."""
    return tuple(dim[0].name.rpartition("/")[2] if len(dim) else "" for dim in dataset.dims)


def grid_of(file: h5py.File, dataset: h5py.Dataset) -> NetcdfGrid:
    """The grid of a variable whose last two dimensions are rows and columns.

    Raises:
        NetcdfError: where it is not evenly spaced, or does not say in which reference system.
    """
    from affine import Affine

    *_, down, across = axis_names(dataset)
    y, x = (_coordinate(file, name) for name in (down, across))
    if (len(y), len(x)) != dataset.shape[-2:]:
        raise NetcdfError("coordinates that are not as long as their dimensions")
    (x0, dx), (y0, dy) = _even(x), _even(y)
    return NetcdfGrid(
        shape=(len(y), len(x)),
        transform=Affine(dx, 0.0, x0 - dx / 2, 0.0, dy, y0 - dy / 2),
        crs=_crs(file, dataset, across),
    )


def _coordinate(file: h5py.File, name: str) -> NDArray[np.float64]:
    dataset = dataset_of(file, name)
    if dataset.ndim != 1 or not 2 <= dataset.size <= MAX_AXIS or dataset.dtype.kind not in "iuf":
        raise NetcdfError(f"the coordinate {name} is no list of numbers")
    return np.asarray(dataset[()], np.float64)


def _even(values: NDArray[np.float64]) -> tuple[float, float]:
    """First value and step of an even spacing."""
    step = float(values[-1] - values[0]) / (len(values) - 1)
    off = np.abs(values - (values[0] + step * np.arange(len(values))))
    if not np.isfinite(values).all() or step == 0 or float(off.max()) > AXIS_TOLERANCE * abs(step):
        raise NetcdfError("a coordinate that is not evenly spaced")
    return float(values[0]), step


def _crs(file: h5py.File, dataset: h5py.Dataset, across: str) -> str:
    """By the grid mapping, the file's own code, or the units of its coordinates."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    mapping = text_attribute(dataset, "grid_mapping")
    holder = dataset_of(file, mapping) if mapping and mapping in file else None
    stated = [text_attribute(holder, name) for name in ("crs_wkt", "spatial_ref")] if holder is not None else []
    code = text_attribute(file, "epsg")
    degrees = (text_attribute(file[across], "units") or "").lower().startswith("degree")
    for text in (*stated, f"EPSG:{code}" if code else None, "EPSG:4326" if degrees else None):
        with contextlib.suppress(CRSError):
            if text:
                found = CRS.from_user_input(text)
                epsg = found.to_epsg()
                return f"EPSG:{epsg}" if epsg else found.to_wkt()
    raise NetcdfError("a grid without a reference system")


# ── when ─────────────────────────────────────────────────────────────────────────────────────────────────────


def times_of(file: h5py.File, dataset: h5py.Dataset) -> list[tuple[datetime.datetime, datetime.datetime]]:
    """First and last moment (UTC) of each step along a variable's first dimension: a day where only it is stated.

    Raises:
        NetcdfError: for a calendar that is not ours, or what is no time.
    """
    name = axis_names(dataset)[0]
    axis = dataset_of(file, name)
    if axis.ndim != 1 or len(axis) != len(dataset) or len(axis) > MAX_STEPS:
        raise NetcdfError(f"{name} is no list of at most {MAX_STEPS} times")
    values = axis[()]
    if axis.dtype.kind in "OSU":
        return [_written(text) for text in values]
    match = _SINCE.fullmatch(text_attribute(axis, "units") or "")
    seconds = _UNITS.get(match[1].lower()) if match else None
    if match is None or seconds is None or (text_attribute(axis, "calendar") or "").lower() not in _CALENDARS:
        raise NetcdfError(f"{name} is not in seconds, minutes, hours or days since a date of our calendar")
    start, _ = _written(match[2])
    try:
        moments = [start + datetime.timedelta(seconds=float(value) * seconds) for value in values]
    except (OverflowError, ValueError) as error:
        raise NetcdfError(f"{name} holds what is no time") from error
    whole_days = seconds == 86400.0 and all(moment.time() == datetime.time(0) for moment in moments)
    return [(moment, moment + _DAY if whole_days else moment) for moment in moments]


_DAY = datetime.timedelta(days=1) - datetime.timedelta(seconds=1)


def _written(text: bytes | str) -> tuple[datetime.datetime, datetime.datetime]:
    plain = text.decode("ascii", errors="replace") if isinstance(text, bytes) else str(text)
    plain = re.sub(r"\s*(?:UTC|Z)$", "", plain.strip())
    try:
        moment = datetime.datetime.fromisoformat(plain)
    except ValueError as error:
        raise NetcdfError(f"{plain[:40]!r} is no time") from error
    moment = moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)
    return moment, moment + (_DAY if len(plain) == 10 else datetime.timedelta())


# ── what ─────────────────────────────────────────────────────────────────────────────────────────────────────


def stored_type(dataset: h5py.Dataset) -> np.dtype[Any]:
    """The type of its numbers; `_Unsigned` makes signed integers unsigned."""
    unsigned = (text_attribute(dataset, "_Unsigned") or "").lower() == "true"
    return np.dtype(f"u{dataset.dtype.itemsize}") if unsigned and dataset.dtype.kind == "i" else dataset.dtype


def fill_of(dataset: h5py.Dataset) -> float | None:
    """The stored number that means "no measurement"; None where there is none, or where it is NaN."""
    for name in ("_FillValue", "missing_value"):
        fill = number_attribute(dataset, name)
        if fill is not None:
            kind = stored_type(dataset)
            return float(np.array(fill).astype(dataset.dtype).view(kind)) if kind.kind == "u" else fill
    return None


def image_variables(file: h5py.File) -> Sequence[str]:
    """Variables of numbers over time, rows and columns."""
    import h5py

    names = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
    found = [name for name in names if isinstance(file[name], h5py.Dataset)]
    return [
        name
        for name in found
        if file[name].ndim == 3 and file[name].dtype.kind in "iuf" and all(axis_names(file[name]))
    ]
