"""Pixels: from the files of an observation to one immutable Zarr group for each cell, and back as xarray."""

from earthmap.cube.cells import CellPixels, TileFailure, TilePixels, assemble, read_cell, read_tile
from earthmap.cube.open import open_cube
from earthmap.cube.plan import CellRead, estimated_bytes
from earthmap.cube.rasters import RasterioReader, close_files
from earthmap.cube.reader import ArrayImage, MemoryReader, Reader
from earthmap.cube.store import CellGroup, CellManifest, find_cell, open_cell, verify_cell, write_cell
from earthmap.cube.warp import SourceGrid

__all__ = [
    "ArrayImage",
    "CellGroup",
    "CellManifest",
    "CellPixels",
    "CellRead",
    "MemoryReader",
    "RasterioReader",
    "Reader",
    "SourceGrid",
    "TileFailure",
    "TilePixels",
    "assemble",
    "close_files",
    "estimated_bytes",
    "find_cell",
    "open_cell",
    "open_cube",
    "read_cell",
    "read_tile",
    "verify_cell",
    "write_cell",
]
