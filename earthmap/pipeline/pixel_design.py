"""A sample of pixels: drawn from the classes of a map, their boundaries, and what was not looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import shapely

from earthmap.errors import BadRequestError
from earthmap.grid import Cell, pixel_to_lonlat
from earthmap.metrics.area import Stratum
from earthmap.metrics.sampling import BOUNDARY, OUTSIDE, SKIPPED, TRIAGED, UNSEEN_GROUND, Drawn, StratifiedDraw
from earthmap.pipeline.class_maps import DAYS, ClassMap, MapLayer, days_of, layer_coverage
from earthmap.pipeline.design import UNMAPPED, Design, Unit, unit_name
from earthmap.pipeline.folder import Run
from earthmap.tasks import UNSEEN

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

_NAMES = {BOUNDARY: "boundary", SKIPPED: "skipped", UNSEEN_GROUND: "unseen", TRIAGED: "skipped by triage"}


def draw_pixels(run: Run, layer: MapLayer, *, total: int, seed: int, unseen: bool) -> tuple[Design, list[BaseGeometry]]:
    """A design, and the square of each of its units in EPSG:4326.

    Args:
        run: a finished run.
        layer: one with a class map.
        total: units, but for the least that each stratum has.
        seed: of the draw.
        unseen: draw ground too that no picture shows.

    Raises:
        BadRequestError: for a run that saw no ground.
        StorageError: for a run that cannot be read.
    """
    draw = StratifiedDraw(total=total, seed=seed)
    with ClassMap(run, layer) as classes:
        for part in classes.cells():
            draw.add(part.cell.id, part.strata, part.codes, part.area_m2)
        legend, files = classes.legend, classes.rasters
    if not any(key not in (UNSEEN_GROUND, OUTSIDE) for key in draw.sizes):
        raise BadRequestError(f"{layer.title}: no pixel of the area was seen", expected="some ground to sample")
    left_out = () if unseen else (UNSEEN_GROUND,)
    drawn = draw.finish(left_out=left_out)
    key = layer.sample_key(run, files, (total, seed, unseen))
    order = np.random.default_rng(seed).permutation(len(drawn)).tolist()
    strata = {number: _stratum(number, draw, legend) for number in sorted(draw.sizes)}
    days = {row["tile_id"]: days_of(row) for row in layer_coverage(run, layer, columns=("tile_id", *DAYS))}
    placed = [_unit(unit_name(key, place), drawn[index], legend, days) for place, index in enumerate(order, 1)]
    design = Design(
        key=key,
        question=layer.number,
        text=layer.query.text,
        query_key=layer.query_key,
        observation=layer.observation,
        dates=layer.dates,
        seed=seed,
        classes=tuple(legend.values()),
        files=files,
        strata=tuple(one for number, one in strata.items() if number not in left_out),
        unsampled=tuple(one for number, one in strata.items() if number in left_out),
        units=tuple(unit for unit, _ in placed),
    )
    return design, [square for _, square in placed]


def _stratum(number: int, draw: StratifiedDraw, legend: Mapping[int, str]) -> Stratum:
    says = {legend[code]: area for code, area in sorted(draw.mapped[number].items()) if code != UNSEEN}
    return Stratum(name=_name(number, legend), area=draw.areas[number], size=draw.sizes[number], mapped=says)


def _name(number: int, legend: Mapping[int, str]) -> str:
    return _NAMES[number] if number in _NAMES else legend[number]


def _unit(name: str, drawn: Drawn, legend: Mapping[int, str], days: Mapping[str, str]) -> tuple[Unit, BaseGeometry]:
    cell = Cell.parse(drawn.block)
    core = cell.grid.core_px
    tile = cell.tiles()[drawn.row // core * (cell.grid.cell_core_px // core) + drawn.column // core]
    rows = np.array([0.5, 0, 0, 1, 1]) + drawn.row
    columns = np.array([0.5, 0, 1, 1, 0]) + drawn.column
    lon, lat = (np.asarray(axis).round(9).tolist() for axis in pixel_to_lonlat(cell.core_geobox, rows, columns))
    lon = [lon[0], *(value + 360.0 * round((lon[0] - value) / 360.0) for value in lon[1:])]
    unit = Unit(
        id=name,
        stratum=_name(drawn.stratum, legend),
        mapped=UNMAPPED if drawn.mapped == UNSEEN else legend[drawn.mapped],
        area_m2=drawn.area_m2,
        inclusion=drawn.inclusion,
        cell_id=cell.id,
        tile_id=tile.id,
        row=drawn.row,
        column=drawn.column,
        lon=lon[0],
        lat=lat[0],
        date=days.get(tile.id, ""),
    )
    return unit, shapely.Polygon(zip(lon[1:], lat[1:], strict=True))
