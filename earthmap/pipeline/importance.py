"""Which cells are worked on first: those around given places, else those that seem to have changed most.

How much a cell changed is told from the coarsest overviews of two observations, in seconds: the order of the work
follows from it, and nothing else does. What a run comes to is the same in any order.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.catalog import Observation
from earthmap.cube import Reader, glance
from earthmap.errors import JobError, ReadError
from earthmap.grid import Cell, owned_ground
from earthmap.pipeline.footprints import FORMATS, read_footprints
from earthmap.pipeline.plan import CellWork, Plan
from earthmap.sensors import SENSORS, Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

CELL_PX = 8
"""Side of a cell in the pixels that are looked at."""

MAX_PX = 2_048
"""Longer side of the ground in such pixels; of more they are larger."""

PATIENCE_S = 30.0
"""Seconds that are spent on looking; of pairs of observations that were not looked at by then nothing is known."""

_DRY = 1e-4
"""Least number that a ratio or logarithm is taken of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """In which order the cells of a plan are worked on."""

    places: tuple[int, ...]
    """Places in the plan's order, the most important first."""
    why: str
    """By what, in a few words."""


def order_cells(plan: Plan, reader: Reader, *, points: str | None, footprints: str | None = None) -> Order:
    """The order of the plan's cells: by points, or footprints, in and near them, else by how much they seem to have
    changed, else as they are planned. Equal ones stay in the plan's order.

    Raises:
        JobError: for a file of points that cannot be read, or none of which lies anywhere.
    """
    works = list(plan.work())
    if points is not None or footprints is not None:
        where = read_places(str(points or footprints))
        merits, why = _by_places(works, where), f"around {len(where):,} {'points' if points else 'footprints'}"
    else:
        merits = _by_change(works, plan.observations, reader)
        why = "by how much they seem to have changed" if merits.any() else "as they are planned"
    return Order(places=tuple(np.argsort(-merits, kind="stable").tolist()), why=f"cells {why}")


def in_order(plan: Plan, order: Order) -> Plan:
    """The same plan, its cells in that order."""
    if not order.places:
        return plan
    names = plan.table["cell_id"].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    rows = np.split(np.arange(len(names)), starts[1:])
    return dataclasses.replace(plan, table=plan.table.take(np.concatenate([rows[place] for place in order.places])))


# ── given places ─────────────────────────────────────────────────────────────────────────────────────────────


def read_places(address: str) -> NDArray[np.float64]:
    """(place, 2) longitudes and latitudes of a file's points, and of the middles of its other shapes.

    Any file of geometries, or a CSV with columns lon and lat (or longitude and latitude, or x and y).

    Raises:
        JobError: for a file that cannot be read, or holds no places on the Earth.
    """
    path = Path(address).expanduser()
    try:
        found = _table(path) if path.suffix.lower() == ".csv" else read_footprints(path).centroids
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise JobError(
            f"the points in {address} cannot be read: {error}", expected=f"points as {FORMATS}, or a CSV of lon and lat"
        ) from None
    found = found[np.isfinite(found).all(axis=1)]
    if not len(found) or (np.abs(found) > (360.0, 90.0)).any():
        raise JobError(
            f"the points in {address} lie nowhere on the Earth",
            expected="longitudes and latitudes in degrees, or a file that names its CRS",
        )
    found[:, 0] = (found[:, 0] + 180.0) % 360.0 - 180.0
    return found


_COLUMNS = (("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"), ("x", "y"))


def _table(path: Path) -> NDArray[np.float64]:
    import csv

    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        names = {name.strip().lower(): name for name in rows.fieldnames or ()}
        pair = next((pair for pair in _COLUMNS if set(pair) <= set(names)), None)
        if pair is None:
            raise ValueError(f"its columns are {', '.join(names) or 'none'}")
        numbers = [[float(row[names[name]]) for name in pair] for row in rows]
    return np.array(numbers, np.float64).reshape(-1, 2)


def _by_places(works: Sequence[CellWork], where: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each cell the number of places in it; of those without any less than nothing, the more the farther away."""
    grounds = np.array([owned_ground(work.cell) for work in works], dtype=object)
    tree = shapely.STRtree([shapely.Point(*one) for one in where.tolist()])
    inside, _ = tree.query(grounds, predicate="intersects")
    merits = np.bincount(inside, minlength=len(works)).astype(np.float64)
    empty = np.flatnonzero(merits == 0)
    if len(empty):
        (_, _), apart = tree.query_nearest(grounds[empty], return_distance=True, all_matches=False)
        merits[empty] = -apart
    return merits


# ── change at a glance ───────────────────────────────────────────────────────────────────────────────────────


def _by_change(
    works: Sequence[CellWork], observations: Mapping[str, Observation], reader: Reader
) -> NDArray[np.float64]:
    """How much each cell seems to have changed between the dates that its questions compare, all of its tiles together;
    0 where nobody knows."""
    merits = np.zeros(len(works))
    pairs: dict[tuple[str, str, str], list[int]] = {}
    for place, work in enumerate(works):
        for before, after in _compared(work):
            pairs.setdefault((work.cell.zone.id, before, after), []).append(place)
    until = time.monotonic() + PATIENCE_S
    for (_, before, after), places in sorted(pairs.items(), key=lambda item: -len(item[1])):
        if time.monotonic() > until:
            break
        cells = [works[place].cell for place in places]
        changed = _changed(cells, observations[before], observations[after], reader)
        changed *= [works[place].tiles.bit_count() for place in places]
        merits[places] = np.maximum(merits[places], changed)
    return merits


def _compared(work: CellWork) -> set[tuple[str, str]]:
    """The pairs of observations, before and after, that a cell's questions compare."""
    pairs = set()
    for question in work.questions:
        if len(question.observations) >= 2:
            pairs.add((question.observations[0], question.observations[-1]))
        elif question.observations and question.references:
            pairs.add((question.references[0], question.observations[0]))
    return pairs


def _changed(
    cells: Sequence[Cell], before: Observation, after: Observation, reader: Reader
) -> NDArray[np.float64]:  # fmt: skip
    """Mean change of each cell, all of one zone; 0 where the observations cannot be read, compared or seen."""
    bands, index = _index_of(before, after)
    if index is None:
        return np.zeros(len(cells))
    rows, columns = np.array([cell.row for cell in cells]), np.array([cell.column for cell in cells])
    geobox, side = _coarse(cells, rows, columns)
    try:
        looks = [glance(reader, one, geobox, bands=bands) for one in (before, after)]
    except ReadError:
        return np.zeros(len(cells))
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.abs(index(looks[1].data) - index(looks[0].data))
    hidden = np.isin([look.mask for look in looks], [Reason.NODATA, Reason.CLOUD, Reason.CIRRUS]).any(axis=0)
    change[hidden | ~np.isfinite(change)] = np.nan
    means = []
    for row, column in zip((rows.max() - rows) * side, (columns - columns.min()) * side, strict=True):
        own = change[row : row + side, column : column + side]
        means.append(float(np.nansum(own) / max(1, np.isfinite(own).sum())))
    return np.array(means)


def _coarse(cells: Sequence[Cell], rows: NDArray[Any], columns: NDArray[Any]) -> tuple[GeoBox, int]:
    """The ground of all cells in few pixels, and the side of a cell in them."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    shape = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    side = max(1, min(CELL_PX, MAX_PX // max(shape)))
    grid = cells[0].grid
    corner = cells[int(np.argmax(rows))].core_geobox.affine.f, cells[int(np.argmin(columns))].core_geobox.affine.c
    pixel = grid.resolution_m * grid.cell_core_px / side
    affine = Affine(pixel, 0.0, corner[1], 0.0, -pixel, corner[0])
    return GeoBox((shape[0] * side, shape[1] * side), affine, cells[0].core_geobox.crs), side


_Index = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]


def _index_of(before: Observation, after: Observation) -> tuple[tuple[str, ...], _Index | None]:
    """Bands that both observations have, and what is made of them: decibels of radar, else how green differs from near
    infrared (McFeeters 1996), else brightness; None where the two cannot be compared."""
    sources = [source for one in (before, after) for scene in one.scenes for source in scene.sources]
    if before.convention != after.convention or any(source.annotation for source in sources):
        return (), None  # radar that is placed by control points has no overviews
    both = set.intersection(*({source.band for source in one.scenes[0].sources} for one in (before, after)))
    if SENSORS[before.sensor].is_sar:
        own = sorted(both & {"vv", "hh", "vh", "hv"}, reverse=True)[:1]
        return tuple(own), _decibels if own else None
    for near in ("nir", "nir08"):
        if {"green", near} <= both:
            return ("green", near), _water_index
    return (("green",), _brightness) if "green" in both else ((), None)


def _decibels(data: NDArray[np.float32]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.log10(np.maximum(data[0], _DRY))  # NaN stays NaN
    return values


def _water_index(data: NDArray[np.float32]) -> NDArray[np.float32]:
    green, near = np.maximum(data, _DRY)
    values: NDArray[np.float32] = (green - near) / (green + near)
    return values


def _brightness(data: NDArray[np.float32]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.sqrt(np.maximum(data[0], 0.0))
    return values
