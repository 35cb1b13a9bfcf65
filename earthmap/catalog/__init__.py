"""STAC catalogues of any kind in; scenes and observations out (layer 2)."""

from earthmap.catalog.intervals import Interval, parse_datetime
from earthmap.catalog.items import scene_from_item
from earthmap.catalog.observations import choose, choose_many, has_unlike_pair, narrow, observe, pair
from earthmap.catalog.scene import BandSource, Observation, Scene, scene_from_dict, scene_to_dict
from earthmap.catalog.search import Found, RefusedItem, find_scenes, open_catalog, search_items
from earthmap.catalog.source import CatalogSource, Extent, MemoryCatalog, SourceItem, Wanted

__all__ = [
    "BandSource",
    "CatalogSource",
    "Extent",
    "Found",
    "Interval",
    "MemoryCatalog",
    "Observation",
    "RefusedItem",
    "Scene",
    "SourceItem",
    "Wanted",
    "choose",
    "choose_many",
    "find_scenes",
    "has_unlike_pair",
    "narrow",
    "observe",
    "open_catalog",
    "pair",
    "parse_datetime",
    "scene_from_dict",
    "scene_from_item",
    "scene_to_dict",
    "search_items",
]
