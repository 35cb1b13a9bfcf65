"""Finished runs whose tiles have given vectors."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np

from earthmap.grid import AreaOfInterest, Grid, Tile, Zone, owned_ground
from earthmap.pipeline import Run
from tests.pipeline.finished import finished_run

GRID = Grid(resolution_m=10, picture_px=128)
DAY = dt.datetime(2024, 5, 4, 10, 50, tzinfo=dt.UTC)
ZONE = Zone(31, True)
S2, S1 = "sentinel-2-l2a", "sentinel-1-db"


@dataclass(frozen=True)
class Seen:
    """A tile and what its vector is; None where it was not seen."""

    tile: Tile
    vector: Sequence[float] | None
    day: int = 0
    sensor: str = S2

    @property
    def observation(self) -> str:
        return f"{self.sensor}_{self.day}"


def block(rows: int, columns: int, *, zone: Zone = ZONE, corner: tuple[int, int] = (4518, 490)) -> list[Tile]:
    """Tiles row by row, which lie at 3.6° east and 45.7° north unless another corner is given."""
    return [Tile(GRID, zone, corner[0] + row, corner[1] + column) for row in range(rows) for column in range(columns)]


def middle_of(tile: Tile) -> tuple[float, float]:
    """A point of its ground."""
    point = owned_ground(tile).representative_point()
    return point.x, point.y


def run_of(folder: Path, seen: Sequence[Seen], *, task: str = "embed") -> Run:
    """A run whose rows are in the order of `seen`."""
    rows = [
        {
            "geometry": AreaOfInterest.from_geometry(owned_ground(one.tile), "EPSG:4326").geometry,
            "query": "Embed this area.", "query_key": "key", "task": task, "sensor": one.sensor,
            "observation": one.observation, "tile_ids": [one.tile.id], "tile_id": one.tile.id, "area_m2": 1e6,
            "datetime_min": DAY + dt.timedelta(days=one.day), "datetime_max": DAY + dt.timedelta(days=one.day),
            "scenes": [f"scene-{one.day}"], "embedding": None if one.vector is None else list(one.vector),
            "status": "skipped" if one.vector is None else "answered",
            "reason": "cloud" if one.vector is None else None,
            "message": "12% of the core could be seen" if one.vector is None else None,
        }
        for one in seen
    ]  # fmt: skip
    frame = geopandas.GeoDataFrame(rows, crs="EPSG:4326")
    layers = sorted({(one.sensor, one.observation) for one in seen})
    answered = {name: sum(one.observation == name and one.vector is not None for one in seen) for _, name in layers}
    entries = [{"sensor": sensor, "observation": name, "answered": answered[name]} for sensor, name in layers]
    summary = {"queries": [{"query_key": "key", "task": task, "text": "Embed", "observations": entries}]}
    return finished_run(folder, frame[frame["status"] == "answered"], frame, summary)


def directions(count: int, *, seed: int = 0, width: int = 6) -> np.ndarray:
    """(count, width) different vectors of length 1, rounded as answers are."""
    drawn = np.random.default_rng(seed).normal(size=(count, width))
    return np.round(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), 4).astype(np.float32)
