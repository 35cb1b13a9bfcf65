from __future__ import annotations

import dataclasses
import pickle

from earthmap.cube import CellRead, estimated_bytes
from earthmap.grid.tiling import Cell, Grid, Zone
from tests.cube.conftest import observation, scene, source

ONE = scene("one", source("/a.tif", "blue"), source("/a.tif", "red", index=2))
TWO = scene("two", source("/b.tif", "red"), source("/b.tif", "nir", index=2))


def test_address_lists_a_cells_observations(cell: Cell) -> None:
    read = CellRead.of(cell, observation(ONE))
    assert read.path == f"cube/{cell.id}/{read.observation.id}_{read.key}"
    assert len(read.key) == 32


def test_bands_are_those_of_all_scenes_in_order(cell: Cell) -> None:
    assert CellRead.of(cell, observation(ONE, TWO)).bands == ("blue", "red", "nir")


def test_key_is_that_of_the_content(cell: Cell) -> None:
    read = CellRead.of(cell, observation(ONE, TWO))
    assert pickle.loads(pickle.dumps(read)).key == read.key
    assert CellRead.of(cell, observation(ONE, TWO, name="another name")).key == read.key
    others = [
        CellRead.of(cell, observation(TWO, ONE)),
        CellRead.of(cell, observation(ONE)),
        CellRead.of(dataclasses.replace(cell, row=cell.row + 1), observation(ONE, TWO)),
        CellRead.of(dataclasses.replace(cell, zone=Zone(31, False)), observation(ONE, TWO)),
        CellRead.of(cell, observation(scene("one", source("/a.tif", scale=2.0)), TWO)),
        dataclasses.replace(read, bands=("blue",)),
    ]
    assert len({read.key, *(other.key for other in others)}) == 1 + len(others)


def test_estimate_counts_pixels_of_the_files_and_at_most_twice_the_targets() -> None:
    observed = observation(ONE)
    native = estimated_bytes(CellRead.of(Cell(Grid(resolution_m=10), Zone(31, True), 0, 0), observed))
    assert native == 1600 * 1600 * 2 * 2
    assert estimated_bytes(CellRead.of(Cell(Grid(resolution_m=5), Zone(31, True), 0, 0), observed)) == native // 4
    assert estimated_bytes(CellRead.of(Cell(Grid(resolution_m=100), Zone(31, True), 0, 0), observed)) == native * 4
