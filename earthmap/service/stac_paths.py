"""What the document of the API says of finished runs as a STAC API (1.0.0)."""

from __future__ import annotations

from typing import Any

from earthmap.service.feature_paths import BBOX, DATETIME, EXTENT, GEOJSON, limit_parameter
from earthmap.service.operations import TEXT, asked, fetches, named, reads, refused

ROOT = "/stac"
"""Below the service's own landing page."""

CONFORMANCE = (
    *(f"https://api.stacspec.org/v1.0.0/{name}" for name in ("core", "collections", "ogcapi-features", "item-search")),
    *(f"http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/{name}" for name in ("core", "geojson", "oas30")),
)
"""What is declared; tests/service/test_stac_api.py tests each."""

LIMIT = 10
LIMIT_MOST = 1_000
"""Items of a page: where nothing is said, and at most."""

_LINKS = {"type": "array", "items": {"$ref": "#/components/schemas/link"}}

_TEXTS = {"type": "array", "items": TEXT}

_TOKEN = "Where the page before ended, as it says."

_INTERSECTS = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {
            "type": "string",
            "enum": [
                "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection",
            ],
        }
    },
    "description": "A geometry of GeoJSON, in degrees; only one of bbox and intersects.",
}  # fmt: skip


_SEARCH = {
    "bbox": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 6},
    "datetime": TEXT,
    "intersects": _INTERSECTS,
    "ids": _TEXTS,
    "collections": _TEXTS,
    "limit": {"type": "integer", "minimum": 1, "default": LIMIT},
    "token": {**TEXT, "description": _TOKEN},
}


def stac_schemas() -> dict[str, Any]:
    """The schemas of the answers, by name; what they leave open is in the schemas of STAC 1.1."""
    return {**_catalog_schemas(), **_item_schemas()}


def _catalog_schemas() -> dict[str, Any]:
    return {
        "stacCatalog": {
            "type": "object",
            "required": ["type", "stac_version", "id", "description", "links", "conformsTo"],
            "properties": {
                "type": {"type": "string", "enum": ["Catalog"]},
                "stac_version": TEXT,
                "id": TEXT,
                "title": TEXT,
                "description": TEXT,
                "links": _LINKS,
                "conformsTo": _TEXTS,
            },
        },
        "stacCollection": {
            "type": "object",
            "required": ["type", "stac_version", "id", "description", "license", "extent", "links"],
            "properties": {
                "type": {"type": "string", "enum": ["Collection"]},
                **dict.fromkeys(("stac_version", "id", "title", "description", "license"), TEXT),
                "extent": EXTENT,
                "links": _LINKS,
            },
        },
        "stacCollections": {
            "type": "object",
            "required": ["collections", "links"],
            "properties": {
                "collections": {"type": "array", "items": {"$ref": "#/components/schemas/stacCollection"}},
                "links": _LINKS,
            },
        },
    }


def _item_schemas() -> dict[str, Any]:
    return {
        "stacItem": {
            "type": "object",
            "required": ["type", "stac_version", "id", "geometry", "bbox", "properties", "assets", "links"],
            "properties": {
                "type": {"type": "string", "enum": ["Feature"]},
                **dict.fromkeys(("stac_version", "id", "collection"), TEXT),
                **{name: {"type": "object"} for name in ("geometry", "properties", "assets")},
                "bbox": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
                "links": _LINKS,
            },
        },
        "stacItems": {
            "type": "object",
            "required": ["type", "features", "links"],
            "properties": {
                "type": {"type": "string", "enum": ["FeatureCollection"]},
                "features": {"type": "array", "items": {"$ref": "#/components/schemas/stacItem"}},
                "links": _LINKS,
                "timeStamp": {"type": "string", "format": "date-time"},
                "numberMatched": {"type": "integer", "minimum": 0},
                "numberReturned": {"type": "integer", "minimum": 0},
            },
        },
        "stacSearch": {"type": "object", "additionalProperties": False, "properties": _SEARCH},
    }


def stac_paths() -> dict[str, Any]:
    """The operations, by path."""
    limit = limit_parameter(usual=LIMIT, most=LIMIT_MOST, what="Items")
    collection, item = named("collectionId", "Id of a process."), named("itemId", "Id of a finished job.")
    places = [limit, BBOX, DATETIME, asked("token", TEXT, _TOKEN)]
    more = [
        asked("ids", _TEXTS, "Ids of items."),
        asked("collections", _TEXTS, "Ids of collections."),
        asked("intersects", TEXT, "A geometry of GeoJSON; only one of bbox and intersects."),
    ]
    found = reads("stac-search", "stacItems", "Finished runs, the last first", media_type=GEOJSON)
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/stacSearch"}}}
    one = f"{ROOT}/collections/{{collectionId}}"
    return {
        ROOT: {"get": {**reads("stac", "stacCatalog", "Finished runs as a STAC API"), "security": []}},
        f"{ROOT}/conformance": {
            "get": {**reads("stac-conformance", "confClasses", "What the STAC API conforms to"), "security": []}
        },
        f"{ROOT}/collections": {"get": reads("stac-collections", "stacCollections", "A collection for each process")},
        one: {
            "parameters": [collection],
            "get": reads("stac-collection", "stacCollection", "The runs of a process", missing=True),
        },
        f"{one}/items": {
            "parameters": [collection],
            "get": {
                **reads("stac-items", "stacItems", "Runs of a process", missing=True, media_type=GEOJSON),
                "parameters": places,
            },
        },
        f"{one}/items/{{itemId}}": {
            "parameters": [collection, item],
            "get": reads("stac-item", "stacItem", "A finished run", missing=True, media_type=GEOJSON),
        },
        f"{one}/items/{{itemId}}/assets/{{asset}}": {
            "parameters": [collection, item, named("asset", "Name of an asset of the item.")],
            "get": fetches("stac-asset", "A file of a run"),
        },
        f"{ROOT}/search": {
            "get": {**found, "parameters": [*places, *more]},
            "post": {
                **found,
                "operationId": "stac-search-post",
                "requestBody": {"required": True, "content": body},
                "responses": {**found["responses"], "415": refused("It is not said to be JSON")},
            },
        },
    }
