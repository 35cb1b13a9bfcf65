"""How long merging things takes, and how much memory: instances cell by cell, joined cell after cell.

Made-up ships as oriented boxes lie at random, twenty in a tile of 448 pixels at 10 m; every picture tells all that it
shows, also those that its edge cuts, as SLIS. What is timed, in processor time, is what a run does with such answers:
`merge_cell` for each cell (the workers' part) and `Joining` for all (the driver's). Each size has a process of its own,
so that its peak of memory is its own.

    python jobs/bench_merge.py --things 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import shapely

from earthmap.grid import CELL_TILES, AreaOfInterest, Cell, Grid, Tile, Zone
from earthmap.merge import Joining, merge_cell
from earthmap.tasks import Answer, Query, answer_columns, answer_schema, make_query
from earthmap.tasks.serialization import Instance

GRID = Grid(resolution_m=10.0, picture_px=448)
PER_TILE = 20
FIRST = (80, 16)
"""Row and column of the south-western cell, in zone 31 N."""
ACROSS = 24
"""Cells of one row at most: the zone is no wider."""


def main() -> None:
    """Print one JSON line for each number of things."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--things", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--here", action="store_true", help="measure in this process, one number only")
    arguments = parser.parse_args()
    for number in arguments.things:
        if arguments.here:
            print(json.dumps(measure(number)))
        else:
            command = [sys.executable, __file__, "--here", "--things", str(number)]
            print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="", flush=True)


def measure(things: int) -> dict[str, float]:
    """Seconds and megabytes for about so many things."""
    query = make_query("Find the ships", task="detect", shape="oriented_box", open_vocabulary=True)
    queries, cells = {query.content_key(): query}, _cells(things)
    area = AreaOfInterest.from_bbox(0.0, 0.0, 6.0, 60.0)
    joining, seconds = Joining(set(cells), area, queries), {"merge": 0.0, "join": 0.0}
    told = found = 0
    start_mb = _peak_mb()
    for cell in cells:
        answers, number = _answers(cell, query)
        told += number
        started = time.process_time()
        merge = merge_cell(cell, answers, area=area, queries=queries, tiles=0xFFFF, by_observation=False)
        merged = time.process_time()
        found += len(merge.features) + sum(len(table) for table in joining.add(merge))
        seconds["merge"] += merged - started
        seconds["join"] += time.process_time() - merged
    started = time.process_time()
    found += sum(len(table) for table in joining.finish())
    seconds["join"] += time.process_time() - started
    return {
        "things": found,
        "cells": len(cells),
        "views": told,
        "merge_us_per_thing": round(seconds["merge"] / found * 1e6, 1),
        "join_us_per_thing": round(seconds["join"] / found * 1e6, 1),
        "peak_mb": round(_peak_mb()),
        "of_it_before_mb": round(start_mb),
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cells(things: int) -> list[Cell]:
    """Cells in the order of a plan, row by row, near a square of them."""
    number = max(1, round(things / (PER_TILE * CELL_TILES**2)))
    across = min(ACROSS, max(1, round(number**0.5)))
    return [Cell(GRID, Zone(31, True), FIRST[0] + at // across, FIRST[1] + at % across) for at in range(number)]


def _answers(cell: Cell, query: Query) -> tuple[pa.Table, int]:
    """What the oracle would say of a cell's tiles, and how many things they tell together."""
    first, around = cell.tiles()[0], range(-1, CELL_TILES + 1)
    ships = np.concatenate(
        [_ships(Tile(GRID, cell.zone, first.row - down, first.column + right)) for down in around for right in around]
    )
    tree = shapely.STRtree(ships)
    rows = [_row(tile, ships, tree, query) for tile in cell.tiles()]
    return pa.Table.from_pylist(rows, schema=answer_schema()), sum(int(str(row["value"])) for row in rows)


def _ships(tile: Tile) -> np.ndarray:
    """The ships whose middle lies on a tile's ground, in pixels of the lattice; the same whoever asks."""
    dice = np.random.default_rng([tile.row, tile.column])
    x = (tile.column + dice.random(PER_TILE)) * GRID.core_px
    y = (tile.row + dice.random(PER_TILE)) * GRID.core_px
    turn, length = dice.random(PER_TILE) * np.pi, 4.0 + 16.0 * dice.random(PER_TILE) ** 2
    u = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    v = np.stack([-u[:, 1], u[:, 0]], axis=-1) * (length / 5)[:, None]
    u = u * length[:, None]
    middle = np.stack([x, y], axis=-1)
    return np.asarray(
        shapely.polygons(np.stack([middle - u - v, middle + u - v, middle + u + v, middle - u + v], axis=1)), object
    )


def _row(tile: Tile, ships: np.ndarray, tree: shapely.STRtree, query: Query) -> dict[str, object]:
    west = tile.column * GRID.core_px - GRID.halo_px
    north = (tile.row + 1) * GRID.core_px + GRID.halo_px
    frame = shapely.box(west, north - GRID.picture_px, west + GRID.picture_px, north)
    near = ships[np.sort(tree.query(frame, predicate="intersects"))]
    placed = shapely.transform(near, lambda xy: np.column_stack([xy[:, 0] - west, north - xy[:, 1]]) / GRID.picture_px)
    instances = tuple(Instance(kind="oriented_box", geometry=shape, label="ship") for shape in placed)
    answer = Answer(
        status="answered", value=str(len(instances)), probability=1.0, instances=instances, seen_px=GRID.core_px**2,
        instance_scores=(1.0,) * len(instances), mask=np.zeros((GRID.core_px, GRID.core_px), np.uint8),
    )  # fmt: skip
    return {
        "cell_id": tile.cell.id, "tile_id": tile.id, "query": query.content_key(), "observation": "one",
        "datetime_min": 0, "datetime_max": 0, "sensor": "sentinel-2-l2a", "scenes": ["a"], "predictor": "oracle",
        **answer_columns(answer),
    }  # fmt: skip


if __name__ == "__main__":
    main()
