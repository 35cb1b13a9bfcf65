"""A sample of tiles for a question that finds things: drawn by how many were found in them, for people to count in."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from earthmap.errors import BadRequestError
from earthmap.grid import CELL_TILES, Grid, Tile, Zone, owner
from earthmap.metrics.area import Stratum
from earthmap.metrics.sampling import SKIPPED, TRIAGED, UNSEEN_GROUND, allocate
from earthmap.pipeline.class_maps import DAYS, MapLayer, days_of, layer_coverage, unanswered_stratum
from earthmap.pipeline.design import UNMAPPED, Design, Unit, unit_name
from earthmap.pipeline.folder import FEATURES_PATH, Run

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

NONE, FEW, MANY = 0, 1, 2
"""Strata by what was found: nothing, up to the median of the tiles with any, more."""

_NAMES = {
    NONE: "none found",
    FEW: "few found",
    MANY: "many found",
    SKIPPED: "skipped",
    UNSEEN_GROUND: "unseen",
    TRIAGED: "skipped by triage",
}


@dataclass(frozen=True, slots=True)
class _TileFound:
    """One tile of the layer."""

    tile: Tile
    ground: BaseGeometry
    """Its own ground in the area, EPSG:4326."""
    area_m2: float
    found: int
    date: str
    kind: int
    """SKIPPED, UNSEEN_GROUND, TRIAGED, or NONE where it was answered."""


def draw_tiles(run: Run, layer: MapLayer, *, total: int, seed: int, unseen: bool) -> tuple[Design, list[BaseGeometry]]:
    """A design, and the ground of each of its units in EPSG:4326; tiles of a stratum have equal chances.

    Args:
        run: a finished run.
        layer: one that finds things.
        total: units, but for the least that each stratum has.
        seed: of the draw.
        unseen: draw tiles too that no picture shows.

    Raises:
        BadRequestError: for a sample of no units, and a run that saw no ground.
        StorageError: for a run that cannot be read.
    """
    if total < 1 or seed < 0:
        raise BadRequestError(
            f"a sample of {total} units with the seed {seed}", expected="one unit, and a seed from 0 on"
        )
    members = _strata(_tiles(run, layer))
    left_out = () if unseen else (UNSEEN_GROUND,)
    if not set(members) - set(left_out):
        raise BadRequestError(f"{layer.title}: no tile of the area was seen", expected="some ground to sample")
    sizes = {kind: len(tiles) for kind, tiles in members.items() if kind not in left_out}
    areas = {kind: sum(tile.area_m2 for tile in tiles) for kind, tiles in members.items()}
    numbers = allocate(areas, sizes, total=total)
    chosen = [
        (kind, number / sizes[kind], tile)
        for kind, number in numbers.items()
        for tile in sorted(members[kind], key=lambda one: _chance(one.tile, seed))[:number]
    ]
    files = {FEATURES_PATH: hashlib.sha256(run.storage.read(FEATURES_PATH)).hexdigest()}
    key = layer.sample_key(run, files, (total, seed, unseen))
    order = np.random.default_rng(seed).permutation(len(chosen)).tolist()
    strata = {kind: Stratum(name=_NAMES[kind], area=areas[kind], size=len(members[kind])) for kind in sorted(members)}
    design = Design(
        key=key,
        question=layer.number,
        text=layer.query.text,
        query_key=layer.query_key,
        observation=layer.observation,
        dates=layer.dates,
        seed=seed,
        classes=(),
        files=files,
        strata=tuple(one for kind, one in strata.items() if kind not in left_out),
        unsampled=tuple(one for kind, one in strata.items() if kind in left_out),
        units=tuple(_unit(unit_name(key, place), *chosen[index]) for place, index in enumerate(order, 1)),
        found={_NAMES[kind]: sum(tile.found for tile in tiles) for kind, tiles in sorted(members.items())},
    )
    return design, [chosen[index][2].ground for index in order]


def _chance(tile: Tile, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {tile.id}".encode()).digest()


def _unit(name: str, kind: int, inclusion: float, one: _TileFound) -> Unit:
    point = shapely.point_on_surface(one.ground)
    tile, core = one.tile, one.tile.grid.core_px
    return Unit(
        id=name,
        stratum=_NAMES[kind],
        mapped=UNMAPPED,
        area_m2=one.area_m2,
        inclusion=inclusion,
        cell_id=tile.cell.id,
        tile_id=tile.id,
        row=(CELL_TILES - 1 - tile.row % CELL_TILES) * core,
        column=tile.column % CELL_TILES * core,
        lon=round(point.x, 9),
        lat=round(point.y, 9),
        date=one.date,
        found=one.found,
    )


def _tiles(run: Run, layer: MapLayer) -> Iterator[_TileFound]:
    """Every tile of the layer that has ground in the area."""
    columns = ("tile_id", "status", "stage", "reason", *DAYS, "area_km2", "geometry")
    rows = {row["tile_id"]: row for row in layer_coverage(run, layer, columns=columns)}
    found = _found_in(run, layer, set(rows))
    for name, row in sorted(rows.items()):
        if row["area_km2"] > 0:
            kind = NONE if row["status"] == "answered" else unanswered_stratum(row)
            ground = shapely.from_wkb(row["geometry"])
            yield _TileFound(Tile.parse(name), ground, row["area_km2"] * 1e6, found[name], days_of(row), kind)


def _strata(tiles: Iterator[_TileFound]) -> dict[int, list[_TileFound]]:
    """Tiles by stratum; those that were answered by what was found in them."""
    known = list(tiles)
    some = [one.found for one in known if one.kind == NONE and one.found]
    middle = float(np.median(some)) if some else 0.0
    members: dict[int, list[_TileFound]] = {}
    for one in known:
        kind = one.kind if one.kind != NONE or not one.found else FEW if one.found <= middle else MANY
        members.setdefault(kind, []).append(one)
    return members


def _found_in(run: Run, layer: MapLayer, tiles: set[str]) -> Counter[str]:
    """How many of the layer's things have their middle on the ground of each tile."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [("query_key", "=", layer.query_key), ("sensor", "=", layer.sensor)]
    columns = ["geometry", "tile_ids", "datetime_min"]
    table = pq.read_table(pa.BufferReader(run.storage.read(FEATURES_PATH)), columns=columns, filters=wanted)
    rows = [row for row in table.to_pylist() if layer.shows(row["datetime_min"])]
    if not rows or not tiles:
        return Counter()
    middles = shapely.centroid(shapely.from_wkb([row["geometry"] for row in rows]))
    owners = _owners(Tile.parse(min(tiles)).grid, middles)
    # A thing at the area's edge may have its middle beyond it.
    return Counter(
        name if name in tiles else next((own for own in row["tile_ids"] if own in tiles), "")
        for name, row in zip(owners, rows, strict=True)
    )


def _owners(grid: Grid, points: np.ndarray) -> list[str]:
    """The tile that owns each point."""
    own = owner(grid, shapely.get_x(points), shapely.get_y(points))
    return [
        Tile(grid, Zone(zone, bool(north)), row, column).id
        for zone, north, row, column in zip(*(part.tolist() for part in own), strict=True)
    ]
