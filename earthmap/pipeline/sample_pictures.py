"""The pictures of a sample's units: cut from the cube behind a run, as far as it is still there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.cube import CellGroup, find_cell, open_cell, stored_groups
from earthmap.errors import StorageError
from earthmap.grid import Tile
from earthmap.outputs.chips import ChipPanel, cut_around, render_chip
from earthmap.pipeline.class_maps import MapLayer
from earthmap.pipeline.design import Design, Unit
from earthmap.pipeline.folder import LEDGER_PATH, Run
from earthmap.pipeline.stages import read_part
from earthmap.sensors import SENSORS, default_view, make_view, sensor_views
from earthmap.storage import Storage

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAR_PX, NEAR_PX = 80, 12
"""Pixels on each side of the one in question, from afar and near."""

TILE_PX = 900
"""Side of a tile's picture, about, so that small things can be counted."""


def unit_pictures(run: Run, layer: MapLayer, design: Design) -> Iterator[tuple[str, bytes]]:
    """Id and PNG of each unit that the cube has a picture of, cell by cell.

    Raises:
        StorageError: for a cube that is damaged.
    """
    store = _store(run)
    wanted: dict[str, list[Unit]] = {}
    for unit in design.units:
        wanted.setdefault(unit.cell_id, []).append(unit)
    if store is None:
        return
    looked_at = _looked_at(run, store, layer, set(wanted))
    groups = _groups(store, set(wanted))
    for cell_id, units in wanted.items():
        names = looked_at.get(cell_id, ())
        opened = [open_cell(store, groups[cell_id, name]) for name in names if (cell_id, name) in groups]
        if opened:
            pictures = [_pictures(group) for group in opened]
            for unit in units:
                yield unit.id, (_tile_chip if design.counts else _chip)(unit, pictures)


def _store(run: Run) -> Storage | None:
    """The store with the run's cube; None where it is gone."""
    for storage in (Storage(run.job.store), run.storage.sub("store")):
        if next(iter(stored_groups(storage)), None) is not None:
            return storage
    return None


def _looked_at(run: Run, store: Storage, layer: MapLayer, cells: set[str]) -> dict[str, tuple[str, ...]]:
    """By cell, the observations that the layer's answers looked at, in order of time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [("query", "=", layer.query_key), ("cell_id", "in", sorted(cells))]
    if not layer.mosaic:
        wanted.append(("observation", "=", layer.observation))
    table = pq.read_table(pa.BufferReader(run.storage.read(LEDGER_PATH)), columns=["cell_id", "part"], filters=wanted)
    found: dict[str, tuple[str, ...]] = {}
    for cell, part in sorted(
        set(zip(*(table[name].to_pylist() for name in ("cell_id", "part")), strict=True)), key=str
    ):
        if part is None:
            continue
        try:
            rows = read_part(store, part).select(["observation", "sensor"]).to_pylist()
        except StorageError:
            continue  # a store may be cleared when its run is finished; the sample needs no picture
        names = [row["observation"] for row in rows if row["sensor"] == layer.sensor and row["observation"]]
        if names:
            found[cell] = tuple(max(sorted(set(names)), key=names.count).split(".."))
    return found


def _groups(store: Storage, cells: set[str]) -> dict[tuple[str, str], str]:
    """Paths in the cube by cell and observation."""
    found = {}
    for cell, path in stored_groups(store):
        if cell.id in cells:
            manifest = find_cell(store, path)
            if manifest is not None:
                found[cell.id, manifest.observation] = path
    return found


@dataclass(frozen=True, slots=True)
class _Picture:
    """One view of a cell with its halo, and what to call it."""

    rgb: NDArray[np.uint8]
    name: str
    datetime: dt.datetime
    halo_px: int
    resolution_m: float


def _pictures(group: CellGroup) -> list[_Picture]:
    """A cell's pictures at one date: as people know it, and one more of what else the sensor measures."""
    manifest = group.manifest
    data, mask = group.read()
    names = [default_view(manifest.sensor, manifest.bands)]
    names += [name for name in sensor_views(manifest.sensor, manifest.bands) if name not in names][1:2]
    grid = manifest.cell.grid
    pictures = []
    for name in names:
        rgb = make_view(name, manifest.bands, data, mask)
        if SENSORS[manifest.sensor].is_sar:
            rgb = np.repeat(rgb[..., :1], 3, axis=-1)  # people read radar in grey
        pictures.append(_Picture(rgb, name, manifest.datetime, grid.halo_px, grid.resolution_m))
    return pictures


def _chip(unit: Unit, dates: Sequence[Sequence[_Picture]]) -> bytes:
    """From afar and near in the first view, near in the others; a row for each date."""
    rows = [
        [_panel(unit, pictures[0], FAR_PX), *(_panel(unit, picture, NEAR_PX) for picture in pictures)]
        for pictures in dates
    ]
    return render_chip(rows, title=unit.id)


def _panel(unit: Unit, picture: _Picture, reach: int) -> ChipPanel:
    rgb = cut_around(picture.rgb, unit.row + picture.halo_px, unit.column + picture.halo_px, reach)
    width = (2 * reach + 1) * picture.resolution_m
    caption = f"{picture.datetime:%Y-%m-%d}  {picture.name}  {width:,.0f} m across"
    return ChipPanel(rgb=rgb, caption=caption)


def _tile_chip(unit: Unit, dates: Sequence[Sequence[_Picture]]) -> bytes:
    """The tile with its halo in the first view, its core framed; a row for each date."""
    tile = Tile.parse(unit.tile_id)
    grid = tile.grid
    times, width = max(1, round(TILE_PX / grid.picture_px)), grid.picture_px * grid.resolution_m
    rows = [
        [
            ChipPanel(
                rgb=pictures[0].rgb[tile.picture_slices],
                caption=f"{pictures[0].datetime:%Y-%m-%d}  {pictures[0].name}  {width:,.0f} m across",
                frame=(grid.halo_px, grid.picture_px - grid.halo_px),
                side_px=times * grid.picture_px,
            )
        ]
        for pictures in dates
    ]
    return render_chip(rows, title=unit.id)
