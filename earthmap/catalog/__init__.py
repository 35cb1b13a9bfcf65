"""STAC catalogues of any kind in; scenes and observations out (layer 2)."""

from earthmap.catalog.choice import (
    LOOKS,
    SceneRule,
    change_intervals,
    has_unlike_pair,
    next_best,
    pair,
    rank_many,
    series,
    stated_clear,
    unlike_pair,
)
from earthmap.catalog.images import ImageCatalog, JoinedCatalog, image_catalog, images_key
from earthmap.catalog.intervals import Interval, parse_datetime
from earthmap.catalog.items import scene_from_item
from earthmap.catalog.listing import split_date
from earthmap.catalog.observations import composite, narrow, observe
from earthmap.catalog.scene import BandSource, Observation, Scene, scene_from_dict, scene_to_dict
from earthmap.catalog.search import Found, RefusedItem, find_scenes, glimpse_scenes, open_catalog, search_items
from earthmap.catalog.source import CatalogSource, Extent, MemoryCatalog, SourceItem, Wanted

__all__ = [
    "LOOKS",
    "BandSource",
    "CatalogSource",
    "Extent",
    "Found",
    "ImageCatalog",
    "Interval",
    "JoinedCatalog",
    "MemoryCatalog",
    "Observation",
    "RefusedItem",
    "Scene",
    "SceneRule",
    "SourceItem",
    "Wanted",
    "change_intervals",
    "composite",
    "find_scenes",
    "glimpse_scenes",
    "has_unlike_pair",
    "image_catalog",
    "images_key",
    "narrow",
    "next_best",
    "observe",
    "open_catalog",
    "pair",
    "parse_datetime",
    "rank_many",
    "scene_from_dict",
    "scene_from_item",
    "scene_to_dict",
    "search_items",
    "series",
    "split_date",
    "stated_clear",
    "unlike_pair",
]
