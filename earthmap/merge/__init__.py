"""Tile answers as ground: exact across seams, whatever the order of cells (layer 4)."""

from earthmap.merge.aggregate import Sums, summarize
from earthmap.merge.cells import CellMerge, merge_cell
from earthmap.merge.georeference import areas_m2
from earthmap.merge.gradings import GivenFootprints, graded_rows, ungraded_rows
from earthmap.merge.join import Joining
from earthmap.merge.layers import Layer
from earthmap.merge.rasters import cell_codes, counted_pixels
from earthmap.merge.tables import COVERAGE_ORDER, FEATURE_ORDER, PLACE, coverage_schema, feature_schema, placed_table

__all__ = [
    "COVERAGE_ORDER",
    "FEATURE_ORDER",
    "PLACE",
    "CellMerge",
    "GivenFootprints",
    "Joining",
    "Layer",
    "Sums",
    "areas_m2",
    "cell_codes",
    "counted_pixels",
    "coverage_schema",
    "feature_schema",
    "graded_rows",
    "merge_cell",
    "placed_table",
    "summarize",
    "ungraded_rows",
]
