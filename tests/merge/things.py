"""Drawn things as answers of tiles, as the oracle gives them and a store keeps them, and what they are merged to."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import shapely

from earthmap.grid import AreaOfInterest, Cell, Grid, Tile, touched
from earthmap.merge import CellMerge, merge_cell
from earthmap.predict.standing import instances_on
from earthmap.synthetic import World, standing_on
from earthmap.tasks import Answer, Query, answer_columns, answer_schema, make_query
from earthmap.tasks.serialization import Instance

NOON = datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC)
FRAME = shapely.box(0, 0, 1, 1)
Says = Callable[[Tile], list[Instance]]


def query_of(label: str, kind: str) -> Query:
    """The question for all things of a kind, answered in a shape."""
    return make_query(f"Find the {label}s", task="detect", targets=[label], shape=kind, open_vocabulary=True)


def row_of(tile: Tile, query: Query, instances: list[Instance], **changes: Any) -> dict[str, Any]:
    """A row of answers that says `instances`, through SLIS."""
    core = tile.grid.core_px
    answer = Answer(
        status="answered", value=str(len(instances)), probability=1.0, mask=np.zeros((core, core), np.uint8),
        seen_px=core * core, instances=tuple(instances), instance_scores=(1.0,) * len(instances),
    )  # fmt: skip
    row = {
        "cell_id": tile.cell.id, "tile_id": tile.id, "query": query.content_key(), "observation": "one",
        "datetime_min": NOON, "datetime_max": NOON, "sensor": "sentinel-2-l2a", "scenes": ["a"],
        "predictor": "oracle", **answer_columns(answer),
    }  # fmt: skip
    return {**row, **changes}


def oracle(world: World, label: str, kind: str) -> Says:
    """What the oracle says of each tile."""
    return lambda tile: instances_on(world, tile, label, kind)


def merges_of(says: Says, query: Query, area: AreaOfInterest, grid: Grid) -> list[CellMerge]:
    """What each cell of the area comes to."""
    cells, bits = touched(area, grid)
    return [merge_of(says, query, area, cell, int(tiles)) for cell, tiles in zip(cells, bits, strict=True)]


def merge_of(says: Says, query: Query, area: AreaOfInterest, cell: Cell, tiles: int) -> CellMerge:
    """What one cell comes to."""
    rows = [row_of(tile, query, says(tile)) for bit, tile in enumerate(cell.tiles()) if tiles >> bit & 1]
    return merge_cell(
        cell, pa.Table.from_pylist(rows, schema=answer_schema()), area=area, queries={query.content_key(): query},
        tiles=tiles, by_observation=False,
    )  # fmt: skip


def truth_of(world: World, label: str, area: AreaOfInterest) -> np.ndarray:
    """The outlines of the things whose middle lies in the area, in the world's CRS."""
    outlines = standing_on(world, label).outlines
    there = geopandas.GeoSeries(shapely.centroid(outlines), crs=f"EPSG:{world.epsg}").to_crs("EPSG:4326")
    return outlines[shapely.intersects(area.geometry, there.to_numpy())]


def pairs_of(found: np.ndarray, true: np.ndarray, share: float = 0.3) -> list[tuple[int, int]]:
    """One to one pairs of what was found and what is there, the most alike first, in one CRS."""
    tree = shapely.STRtree(true)
    left, right = tree.query(found, predicate="intersects")
    both = shapely.area(shapely.intersection(found[left], true[right]))
    alike = both / (shapely.area(found[left]) + shapely.area(true[right]) - both)
    pairs, one, other = [], set[int](), set[int]()
    for index in np.argsort(-alike, kind="stable").tolist():
        a, b = int(left[index]), int(right[index])
        if alike[index] >= share and a not in one and b not in other:
            one.add(a)
            other.add(b)
            pairs.append((a, b))
    return pairs


def jittered(says: Says, *, seed: int, bins: int, dropped: float) -> Says:
    """The same answers with every corner moved by up to some steps of SLIS, and a share of the pieces not said."""

    def say(tile: Tile) -> list[Instance]:
        dice = random.Random(f"{seed} {tile.id}")
        kept = [one for one in says(tile) if dice.random() >= dropped * (not FRAME.contains_properly(one.geometry))]
        return [_moved(instance, dice, bins) for instance in kept]

    return say


def _moved(instance: Instance, dice: random.Random, bins: int) -> Instance:
    def shift(xy: np.ndarray) -> np.ndarray:
        moved = xy + np.array([[dice.randint(-bins, bins) / 1000 for _ in range(2)] for _ in xy])
        at_edge = (xy <= 0.0005) | (xy >= 0.9995)
        moved = np.where(at_edge, xy, np.clip(moved, 0.001, 0.999))
        return np.vstack([moved[:-1], moved[:1]]) if len(moved) > 1 else moved

    geometry = shapely.transform(instance.geometry, shift)
    if instance.kind == "box":
        geometry = geometry.envelope
    return Instance(kind=instance.kind, geometry=geometry, label=instance.label)
