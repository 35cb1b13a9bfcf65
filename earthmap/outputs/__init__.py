"""Results as files and pages: one writer for each format (layer 4)."""

from earthmap.outputs.backdrop import Backdrop, mosaic_backdrop, warp_backdrop
from earthmap.outputs.cog import class_cog, percent_cog
from earthmap.outputs.drawing import pole_in
from earthmap.outputs.event_page import render_event
from earthmap.outputs.evidence import Evidence
from earthmap.outputs.geoparquet import write_geoparquet, write_parquet
from earthmap.outputs.numbers import headlines
from earthmap.outputs.ordering import Ordering
from earthmap.outputs.preview import render_preview
from earthmap.outputs.provenance import Provenance
from earthmap.outputs.report import render_report
from earthmap.outputs.selection import select_results
from earthmap.outputs.sketch import Caption, Mark, Sketch, SketchPicture, render_sketch
from earthmap.outputs.stac import result_item
from earthmap.outputs.strip import StripPanel, render_strip

__all__ = [
    "Backdrop",
    "Caption",
    "Evidence",
    "Mark",
    "Ordering",
    "Provenance",
    "Sketch",
    "SketchPicture",
    "StripPanel",
    "class_cog",
    "headlines",
    "mosaic_backdrop",
    "percent_cog",
    "pole_in",
    "render_event",
    "render_preview",
    "render_report",
    "render_sketch",
    "render_strip",
    "result_item",
    "select_results",
    "warp_backdrop",
    "write_geoparquet",
    "write_parquet",
]
