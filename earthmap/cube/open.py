"""The cube as xarray: one lazy Dataset for each zone, made of the cores of its cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.catalog.intervals import Interval, parse_datetime
from earthmap.cube.plan import CUBE
from earthmap.cube.store import MANIFEST, CellGroup, find_cell
from earthmap.errors import GridError, StorageError
from earthmap.grid.area import AreaLike, AreaOfInterest
from earthmap.grid.ownership import owned_ground
from earthmap.grid.tiling import Cell, Grid, Zone
from earthmap.storage import Storage

if TYPE_CHECKING:
    import xarray
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

_GROUP = re.compile(rf"({CUBE}/([^/]+)/([^/]+)_([0-9a-f]+)(~x\d+)?)/{re.escape(MANIFEST)}")
"""Path of a group's manifest: group, cell, observation, key, and the mark of an execution whose read had failures."""


def open_cube(
    storage: Storage, *, area: AreaLike | None = None, sensor: str | None = None, dates: str | None = None
) -> dict[str, xarray.Dataset]:
    """One lazy Dataset for each zone (`31N`): dims (time, y, x), a variable for each band, and `mask`.

    x ascends and y descends, as odc-stac has them; they are pixel centres in the zone's own UTM CRS. One dask block is
    one cell's core at one observation: what is not computed is not read. Bands are float32 and NaN, `mask` is uint8
    and nodata, where a cell was not read. `time` is UTC; the coordinate `observation` names each date.

    Args:
        storage: what holds the cube.
        area: only cells that touch it; everything by default.
        sensor: only observations of this sensor.
        dates: a STAC datetime or interval, such as `2024-06-01/2024-06-30`.

    Raises:
        GridError: when what is left lies on several lattices, which no Dataset can hold together.
        JobError: for dates that cannot be read.
        StorageError: when the cube cannot be read.
    """
    return open_groups(_chosen(storage, area=area, sensor=sensor, dates=dates))


def open_groups(groups: Sequence[CellGroup]) -> dict[str, xarray.Dataset]:
    """The Datasets of `open_cube` of these groups, of which a cell and observation has one at most.

    Raises:
        GridError: for groups of several lattices.
    """
    lattices = sorted({group.manifest.cell.grid.id for group in groups})
    if len(lattices) > 1:
        raise GridError(
            f"the cube holds several lattices: {', '.join(lattices)}", expected="one", fix="name a sensor or an area"
        )
    zones = sorted({group.manifest.cell.zone for group in groups})
    return {
        zone.id: _zone_dataset(zone, [group for group in groups if group.manifest.cell.zone == zone]) for zone in zones
    }


def _chosen(storage: Storage, *, area: AreaLike | None, sensor: str | None, dates: str | None) -> list[CellGroup]:
    """One group for each (cell, observation) that is asked for."""
    wanted = None if dates is None else parse_datetime(dates)
    ground = None if area is None else AreaOfInterest.normalize(area)
    return [
        CellGroup(storage=storage, path=path, manifest=manifest)
        for _, path in stored_groups(storage, ground=ground)
        if (manifest := find_cell(storage, path)) is not None
        and (sensor is None or manifest.sensor == sensor)
        and (wanted is None or Interval(start=manifest.datetime, end=manifest.datetime).overlaps(wanted))
    ]


def stored_groups(storage: Storage, *, ground: AreaOfInterest | None = None) -> Iterator[tuple[Cell, str]]:
    """Each cell of the cube that touches `ground`, with the path of one group for each observation of it.

    A group without failures goes before one with, and a later one before an earlier.
    """
    best: dict[tuple[str, str], tuple[tuple[bool, int, str], str]] = {}
    for path in storage.list(CUBE):
        match = _GROUP.fullmatch(path)
        if match:
            mark = match[5]
            rank = (mark is None, int(mark[2:]) if mark else 0, match[4])
            place = (match[2], match[3])
            if place not in best or rank > best[place][0]:
                best[place] = (rank, match[1])
    for (cell_id, _), (_, path) in sorted(best.items()):
        cell = Cell.parse(cell_id)
        if ground is None or owned_ground(cell).intersects(ground.geometry):
            yield cell, path


# ── one zone ─────────────────────────────────────────────────────────────────────────────────────────────────


def _zone_geobox(grid: Grid, zone: Zone, rows: range, columns: range) -> GeoBox:
    """The cores of a rectangle of cells, row 0 in the north."""
    from odc.geo.geobox import GeoBox

    side = grid.cell_core_px
    corner = Cell(grid, zone, rows[-1], columns[0]).core_geobox
    return GeoBox((len(rows) * side, len(columns) * side), corner.affine, corner.crs)


def _read_block(storage: Storage, path: str, band: int | None, halo: int) -> NDArray[Any]:
    """The core of one band, or of the mask, as (1, cell_core_px, cell_core_px)."""
    import zarr

    try:
        group = zarr.open_group(storage.zarr(path, read_only=True), mode="r", zarr_format=3)
        core = slice(halo, -halo)
        if band is None:
            return np.asarray(group["mask"][core, core])[np.newaxis]  # type: ignore[index]
        return np.asarray(group["data"][band, core, core])[np.newaxis]  # type: ignore[index]
    except Exception as error:  # codecs and stores raise errors of no common base
        raise StorageError(f"the group {storage.locate(path)} cannot be read: {error}") from error


def _times(groups: Sequence[CellGroup]) -> list[tuple[Any, str]]:
    return sorted({(group.manifest.datetime, group.manifest.observation) for group in groups})


def _variable(
    places: Mapping[tuple[int, int, int], CellGroup], shape: tuple[int, int, int], *, band: str | None
) -> Any:
    """A dask array (time, y, x) of one band, or of the mask: one block for each cell and time."""
    import dask.array

    grid = next(iter(places.values())).manifest.cell.grid
    side = grid.cell_core_px
    dtype, nothing = (np.uint8, _nodata()) if band is None else (np.float32, np.nan)
    paths = sorted(group.path for group in places.values())
    addresses = sorted({group.storage.address for group in places.values()})
    name = f"earthmap-{dask.base.tokenize(addresses, band, paths, shape)}"
    graph: dict[Any, Any] = {}
    for place in np.ndindex(shape):
        group = places.get(place)
        if group is None or (band is not None and band not in group.manifest.bands):
            graph[(name, *place)] = (np.full, (1, side, side), nothing, dtype)
        else:
            index = None if band is None else group.manifest.bands.index(band)
            graph[(name, *place)] = (_read_block, group.storage, group.path, index, grid.halo_px)
    chunks = ((1,) * shape[0], (side,) * shape[1], (side,) * shape[2])
    return dask.array.Array(graph, name, chunks, dtype=dtype)  # type: ignore[no-untyped-call]


def _nodata() -> int:
    from earthmap.sensors.masks import Reason

    return int(Reason.NODATA)


def _zone_dataset(zone: Zone, groups: Sequence[CellGroup]) -> xarray.Dataset:
    import xarray
    from odc.geo.xr import xr_coords

    cells = [group.manifest.cell for group in groups]
    rows = range(min(cell.row for cell in cells), max(cell.row for cell in cells) + 1)
    columns = range(min(cell.column for cell in cells), max(cell.column for cell in cells) + 1)
    times = _times(groups)
    when = {observation: index for index, (_, observation) in enumerate(times)}
    places = {
        (when[group.manifest.observation], rows[-1] - cell.row, cell.column - columns[0]): group
        for group, cell in zip(groups, cells, strict=True)
    }
    shape = (len(times), len(rows), len(columns))
    dims = ("time", "y", "x")
    ordered = sorted(groups, key=lambda group: (group.manifest.datetime, group.manifest.observation))
    bands = list(dict.fromkeys(band for group in ordered for band in group.manifest.bands))
    variables: dict[str, Any] = {
        band: (dims, _variable(places, shape, band=band), {"grid_mapping": "spatial_ref"}) for band in bands
    }
    variables["mask"] = (dims, _variable(places, shape, band=None), {"grid_mapping": "spatial_ref"})
    coords = {
        "time": np.array([time.replace(tzinfo=None) for time, _ in times], "datetime64[ns]"),
        "observation": ("time", [observation for _, observation in times]),
        **xr_coords(_zone_geobox(cells[0].grid, zone, rows, columns)),
    }
    return xarray.Dataset(variables, coords=coords, attrs={"zone": zone.id, "grid": cells[0].grid.id})
