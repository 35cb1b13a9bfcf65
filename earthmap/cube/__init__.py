"""Pixels: from the files of an observation to one immutable Zarr group for each cell, and back as xarray."""

from earthmap.cube.cells import CellPixels, TileFailure, TilePixels, assemble, read_cell, read_tile
from earthmap.cube.composite import compose
from earthmap.cube.glance import Glance, clear_share, glance, is_classified, look_closely
from earthmap.cube.open import open_cube, open_groups, stored_groups
from earthmap.cube.patience import Budget, Patience, PatientReader, Spent
from earthmap.cube.photograph import Photograph, decode_photograph, is_photograph, read_photograph
from earthmap.cube.plan import CellRead, estimated_bytes
from earthmap.cube.rasters import RasterioReader, close_files
from earthmap.cube.reader import ArrayImage, MemoryReader, Reader
from earthmap.cube.shift import SHIFT_FORMAT, Shift, estimate_shift, moved_part
from earthmap.cube.store import CellGroup, CellManifest, find_cell, open_cell, verify_cell, write_cell
from earthmap.cube.warp import SourceGrid

__all__ = [
    "SHIFT_FORMAT",
    "ArrayImage",
    "Budget",
    "CellGroup",
    "CellManifest",
    "CellPixels",
    "CellRead",
    "Glance",
    "MemoryReader",
    "Patience",
    "PatientReader",
    "Photograph",
    "RasterioReader",
    "Reader",
    "Shift",
    "SourceGrid",
    "Spent",
    "TileFailure",
    "TilePixels",
    "assemble",
    "clear_share",
    "close_files",
    "compose",
    "decode_photograph",
    "estimate_shift",
    "estimated_bytes",
    "find_cell",
    "glance",
    "is_classified",
    "is_photograph",
    "look_closely",
    "moved_part",
    "open_cell",
    "open_cube",
    "open_groups",
    "read_cell",
    "read_photograph",
    "read_tile",
    "stored_groups",
    "verify_cell",
    "write_cell",
]
