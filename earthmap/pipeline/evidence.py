"""Which tiles a report shows as evidence, and what the cube has of them.

The rule is fixed, so that nobody picks: of what has a probability the four most and the four least certain, different
answers first; where nothing has one the four largest finds; and of what failed, then of what was skipped, four tiles of
different reasons first. Ties are broken by tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.catalog import narrow
from earthmap.cube import CellGroup, CellRead, find_cell, open_cell
from earthmap.errors import GridError, StorageError
from earthmap.grid import Tile, owned_ground
from earthmap.outputs.evidence import Evidence
from earthmap.outputs.numbers import date_label, format_share, looks_at_several, parse_time
from earthmap.pipeline.context import failed_path
from earthmap.sensors import SENSORS, default_view, make_view
from earthmap.tasks import TASKS

if TYPE_CHECKING:
    import geopandas
    from numpy.typing import NDArray

    from earthmap.catalog import Observation
    from earthmap.grid import Cell
    from earthmap.pipeline.plan import Plan
    from earthmap.predict import Picture
    from earthmap.storage import Storage

EACH = 4
"""Tiles of one group."""

POINT_SHARE = 0.03
"""Radius of the ring around a point, as a share of the tile's side."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    group: str
    tile_ids: tuple[str, ...]
    title: str
    lines: tuple[str, ...]
    scenes: frozenset[str]
    geometry: Any = None
    is_square: bool = False
    """The geometry is the tile's own: nothing to draw."""


def collect_evidence(
    features: geopandas.GeoDataFrame, coverage: geopandas.GeoDataFrame, *, plan: Plan, store: Storage
) -> list[Evidence]:
    """The tiles that a report shows, with their pictures where the cube has them."""
    return [_shown(one, plan, store) for one in (*_answered(features), *_unanswered(coverage))]


# ── which ────────────────────────────────────────────────────────────────────────────────────────────────────


def _answered(features: geopandas.GeoDataFrame) -> Iterator[_Chosen]:
    sure = features[features["probability"].notna()]
    if not len(sure):
        order = sorted(range(len(features)), key=lambda row: (-_number(features["area_m2"].iloc[row]), row))
        for row in _varied(order, lambda row: _kind(features, row)):
            yield _found(features, row, "The largest finds (the predictor gives no probability)")
        return
    rows = sorted(range(len(sure)), key=lambda row: (-float(sure["probability"].iloc[row]), _tile_of(sure, row)))
    most = list(_varied(rows, lambda row: _kind(sure, row)))
    for row in most:
        yield _found(sure, row, "The most certain")
    for row in _varied([row for row in reversed(rows) if row not in most], lambda row: _kind(sure, row)):
        yield _found(sure, row, "The least certain")


def _varied(rows: Sequence[int], kind: Callable[[int], Any]) -> list[int]:
    """EACH of `rows`: the first of every kind in their order, then the rest in theirs."""
    first = list({kind(row): row for row in reversed(rows)}.values())
    order = {row: place for place, row in enumerate(rows)}
    chosen = sorted(first, key=lambda row: order[row])[:EACH]
    rest = [row for row in rows if row not in chosen]
    return [*chosen, *rest[: EACH - len(chosen)]]


def _kind(features: geopandas.GeoDataFrame, row: int) -> tuple[str, str]:
    return str(features["query_key"].iloc[row]), str(features["answer"].iloc[row])


def _number(value: Any) -> float:
    return float(value) if value == value and value is not None else 0.0


def _tile_of(features: geopandas.GeoDataFrame, row: int) -> str:
    return str(next(iter(features["tile_ids"].iloc[row]), ""))


def _found(features: geopandas.GeoDataFrame, row: int, group: str) -> _Chosen:
    one = features.iloc[row]
    start, end = parse_time(one["datetime_min"]), parse_time(one["datetime_max"])
    sure = one["probability"]
    lines = [
        str(one["query"]),
        f"{date_label(start, end, pair=looks_at_several(str(one['task'])))} · {one['sensor']}",
        *([f"probability {format_share(float(sure))}"] if sure == sure and sure is not None else []),
    ]
    title, task = str(one["answer"]), str(one["task"])
    if task == "fraction":
        title = f"{format_share(_number(one['fraction']))} of the seen ground"
    is_square = task in TASKS and TASKS[task].merge == "tiles"
    return _Chosen(
        group, tuple(one["tile_ids"]), title, tuple(lines), frozenset(one["scenes"]), one.geometry, is_square=is_square
    )


def _unanswered(coverage: geopandas.GeoDataFrame) -> Iterator[_Chosen]:
    for status, group in (("failed", "Failed"), ("skipped", "Not seen")):
        own = coverage[coverage["status"] == status].drop_duplicates(["tile_id", "observation"])
        for row in _varied(range(len(own)), [str(reason) for reason in own["reason"]].__getitem__):
            one = own.iloc[row]
            said = [str(one[name]) for name in ("message", "tile_id", "observation") if isinstance(one[name], str)]
            reason = str(one["reason"]).replace("_", " ") if isinstance(one["reason"], str) else "no reason given"
            yield _Chosen(group, (str(one["tile_id"]),), reason, tuple(said), frozenset(one["scenes"]))


# ── their pictures ───────────────────────────────────────────────────────────────────────────────────────────


def _shown(chosen: _Chosen, plan: Plan, store: Storage) -> Evidence:
    tile = _tile_with(chosen)
    pictures: list[Picture] = []
    if tile is not None:
        own = [one for one in plan.observations.values() if chosen.scenes & {scene.id for scene in one.scenes}]
        dates = sorted(own, key=lambda one: (one.datetime, one.id))
        pictures = [found for one in dict.fromkeys([*dates[:1], *dates[-1:]]) for found in _pictures(store, tile, one)]
    return Evidence(
        group=chosen.group,
        title=chosen.title,
        lines=chosen.lines,
        rgb=tuple(_rgb(tile, picture) for picture in pictures if tile is not None),
        outlines=_outlines(tile, chosen.geometry) if pictures and tile is not None and not chosen.is_square else (),
    )


def _tile_with(chosen: _Chosen) -> Tile | None:
    """Of the tiles that something was found in, the one that a place inside it lies in."""
    tiles = [tile for name in chosen.tile_ids if (tile := _parse(name)) is not None]
    if chosen.geometry is None or len(tiles) < 2:
        return next(iter(tiles), None)
    place = chosen.geometry.representative_point()
    inside = (tile for tile in tiles if _is_inside(tile, _pixels(tile, place)))
    return next(inside, tiles[0])


def _is_inside(tile: Tile, pixels: NDArray[np.float64]) -> bool:
    return bool(((pixels >= 0) & (pixels < tile.grid.core_px)).all())


def _parse(tile_id: str) -> Tile | None:
    """The tile; None for a block of several tiles, which has no picture."""
    try:
        return Tile.parse(tile_id)
    except GridError:
        return None


def _pictures(store: Storage, tile: Tile, observation: Observation) -> Iterator[Picture]:
    """What the cube has of a tile at an observation: one picture, or none."""
    group = open_observed(store, tile.cell, observation)
    if group is not None and not any(failure.tile_id == tile.id for failure in group.manifest.failures):
        try:
            yield group.picture(tile)
        except StorageError:
            return


def open_observed(store: Storage, cell: Cell, observation: Observation) -> CellGroup | None:
    """The group that has what an observation shows of a cell, of reads with failures the latest; None without any."""
    own = narrow(observation, owned_ground(cell))
    if own is None:
        return None
    path = CellRead.of(cell, own).path
    found = path if find_cell(store, path) is not None else next(_failed_paths(store, path), None)
    return None if found is None else open_cell(store, found)


def _failed_paths(store: Storage, path: str) -> Iterator[str]:
    """The groups of `path` that were read with failures, latest execution first."""
    folder, _, name = path.rpartition("/")
    found = {entry.split("/")[len(folder.split("/"))] for entry in store.list(folder)}
    numbers = [int(entry.rpartition("~x")[2]) for entry in found if entry.startswith(f"{name}~x")]
    paths = (failed_path(path, number) for number in sorted(numbers, reverse=True))
    return (other for other in paths if find_cell(store, other) is not None)


def rgb_view(sensor: str, bands: Sequence[str], data: NDArray[np.float32], mask: NDArray[np.uint8]) -> Any:
    """(y, x, 3) uint8 as people look at it: radar in grey, where the model sees three channels."""
    rgb = make_view(default_view(sensor, bands), bands, data, mask)
    return np.repeat(rgb[..., :1], 3, axis=-1) if SENSORS[sensor].is_sar else rgb


def _rgb(tile: Tile, picture: Picture) -> NDArray[np.uint8]:
    """The tile's core."""
    halo = tile.grid.halo_px
    inner = (slice(halo, -halo), slice(halo, -halo))
    shown: NDArray[np.uint8] = rgb_view(
        picture.sensor, picture.bands, picture.data[(slice(None), *inner)], picture.mask[inner]
    )
    return shown


def _outlines(tile: Tile, geometry: Any) -> tuple[NDArray[np.float64], ...]:
    """Rings of a geometry in EPSG:4326 as columns and rows of the tile's core; around a point or line a ring."""
    if geometry is None:
        return ()
    parts = shapely.get_parts(geometry)
    placed = [shapely.transform(part, lambda xy: _pixels(tile, shapely.points(xy))) for part in parts]
    areas = [part if part.geom_type == "Polygon" else part.buffer(POINT_SHARE * tile.grid.core_px) for part in placed]
    return tuple(shapely.get_coordinates(ring) for ring in shapely.get_rings(areas))


def _pixels(tile: Tile, places: Any) -> NDArray[np.float64]:
    """(n, 2) columns and rows of the tile's core for points in EPSG:4326."""
    from pyproj import Transformer

    lattice = tile.core_geobox
    there = Transformer.from_crs("EPSG:4326", str(lattice.crs), always_xy=True)
    x, y = (np.asarray(axis) for axis in there.transform(*shapely.get_coordinates(places).T))
    inverse = ~lattice.affine
    return np.column_stack([inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f])
