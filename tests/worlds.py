"""Drawn worlds that tests share: one small world, its catalogue, and pictures of its tiles."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from earthmap.grid.tiling import Grid, Tile, Zone
from earthmap.predict.protocol import Picture
from earthmap.sensors.masks import Reason
from earthmap.synthetic import World, small_world, write_world


@pytest.fixture(scope="session")
def drawn_world() -> World:
    """A small world on two dates, with clouds on the second."""
    return small_world()


@pytest.fixture(scope="session")
def drawn_catalog(drawn_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """catalog.json of `drawn_world`, drawn for every sensor; to read and never to change."""
    folder = tmp_path_factory.mktemp("drawn")
    return write_world(drawn_world, folder, sensors=("sentinel-2", "sentinel-1", "rgb"))


def wide_world(seed: int) -> World:
    """25 km of valley, in coarse pixels: three dozen cells that are drawn in a second."""
    west, south, side = 500_000.0, 5_060_000.0, 25_000.0
    return World(
        seed=seed,
        epsg=32631,
        bounds=(west, south, west + side, south + side),
        before=datetime.datetime(2024, 5, 1, 10, 30, tzinfo=datetime.UTC),
        after=datetime.datetime(2024, 5, 11, 10, 30, tzinfo=datetime.UTC),
        resolution_m=50.0,
    )


def cropped(geobox: GeoBox, rows: tuple[int, int], columns: tuple[int, int]) -> GeoBox:
    """A part of a straight lattice, from and to in pixels."""
    old = geobox.affine
    affine = Affine(old.a, 0.0, old.c + columns[0] * old.a, 0.0, old.e, old.f + rows[0] * old.e)
    return GeoBox((rows[1] - rows[0], columns[1] - columns[0]), affine, geobox.crs)


def middle_tile(world: World, *, picture_px: int = 128) -> Tile:
    """The tile under the middle of `world`, whose CRS is that of a zone."""
    west, south, east, north = world.bounds
    grid = Grid(resolution_m=world.resolution_m, picture_px=picture_px)
    zone = Zone(world.epsg % 100, world.epsg // 100 == 326)
    return Tile(grid, zone, int((south + north) / 2 // grid.core_m), int((west + east) / 2 // grid.core_m))


def clear_picture(tile: Tile, date: datetime.datetime, *, sensor: str = "sentinel-2-l2a") -> Picture:
    """A cloudless picture of `tile` in four bands of one number each: enough where its pixels do not matter."""
    side = tile.grid.picture_px
    values = np.array([0.04, 0.08, 0.05, 0.30], np.float32)
    return Picture(
        sensor=sensor,
        observation=f"{sensor}_{date:%Y%m%dT%H%M%S}_00000000",
        datetime=date,
        bands=("blue", "green", "red", "nir"),
        data=np.broadcast_to(values[:, None, None], (4, side, side)).copy(),
        mask=np.full((side, side), Reason.CLEAR, np.uint8),
    )
