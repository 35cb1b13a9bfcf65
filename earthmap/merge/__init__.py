"""Tile answers as ground: exact across seams, whatever the order of cells (layer 4)."""

from earthmap.merge.aggregate import summarize
from earthmap.merge.cells import CellMerge, Layer, Pieces, Source, TileRow, merge_cell
from earthmap.merge.georeference import areas_m2
from earthmap.merge.join import COVERAGE_COLUMNS, FEATURE_COLUMNS, Merged, join
from earthmap.merge.rasters import cell_codes, counted_pixels

__all__ = [
    "COVERAGE_COLUMNS",
    "FEATURE_COLUMNS",
    "CellMerge",
    "Layer",
    "Merged",
    "Pieces",
    "Source",
    "TileRow",
    "areas_m2",
    "cell_codes",
    "counted_pixels",
    "join",
    "merge_cell",
    "summarize",
]
