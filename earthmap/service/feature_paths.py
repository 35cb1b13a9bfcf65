"""What the document of the API says of collections of features: OGC API – Features, Part 1: Core (17-069r4)."""

from __future__ import annotations

from typing import Any

from earthmap.service.operations import TEXT, asked, named, reads

CONFORMANCE = tuple(
    f"http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/{name}" for name in ("core", "geojson", "oas30")
)
"""What is declared; tests/service/test_features.py tests each."""

LIMIT = 10
LIMIT_MOST = 10_000
"""Features of a page: where nothing is said, and at most. What the standard proposes."""

COLLECTION_LIMIT = 100
COLLECTION_LIMIT_MOST = 1_000
"""Runs of a page of collections, each of two collections."""

GEOJSON = "application/geo+json"

SCHEMA = "application/schema+json"

BBOX = asked(
    "bbox",
    {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 6},
    "West, south, east, north in degrees (or with heights, as six numbers, of which heights are passed over); west may"
    " exceed east across the antimeridian.",
)

DATETIME = asked(
    "datetime", TEXT, "An RFC 3339 time, or two of them with a slash between them, one of which may be `..`."
)

_LINKS = {"type": "array", "items": {"$ref": "#/components/schemas/link"}}

_BOX = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 6}

EXTENT = {
    "type": "object",
    "properties": {
        "spatial": {
            "type": "object",
            "properties": {"bbox": {"type": "array", "minItems": 1, "items": _BOX}, "crs": TEXT},
        },
        "temporal": {
            "type": "object",
            "properties": {
                "interval": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "array",
                        "minItems": 2,
                        "maxItems": 2,
                        "items": {"type": "string", "format": "date-time", "nullable": True},
                    },
                },
                "trs": TEXT,
            },
        },
    },
}
"""extent.yaml."""

_FEATURE = {
    "type": "object",
    "required": ["type", "geometry", "properties"],
    "properties": {
        "type": {"type": "string", "enum": ["Feature"]},
        "id": {"type": "integer"},
        "geometry": {
            "type": "object",
            "nullable": True,
            "required": ["type"],
            "properties": {"type": TEXT, "coordinates": {"type": "array", "items": {}}},
        },
        "properties": {"type": "object"},
        "links": _LINKS,
    },
}


def feature_schemas() -> dict[str, Any]:
    """The schemas of the answers, by name (17-069r4, annex B)."""
    return {
        "collection": {
            "type": "object",
            "required": ["id", "links"],
            "properties": {
                "id": TEXT,
                "title": TEXT,
                "description": TEXT,
                "links": _LINKS,
                "extent": EXTENT,
                "itemType": TEXT,
                "crs": {"type": "array", "items": TEXT},
            },
        },
        "collections": {
            "type": "object",
            "required": ["links", "collections"],
            "properties": {
                "links": _LINKS,
                "collections": {"type": "array", "items": {"$ref": "#/components/schemas/collection"}},
            },
        },
        "featureGeoJSON": _FEATURE,
        "featureCollectionGeoJSON": {
            "type": "object",
            "required": ["type", "features"],
            "properties": {
                "type": {"type": "string", "enum": ["FeatureCollection"]},
                "features": {"type": "array", "items": {"$ref": "#/components/schemas/featureGeoJSON"}},
                "links": _LINKS,
                "timeStamp": {"type": "string", "format": "date-time"},
                "numberMatched": {"type": "integer", "minimum": 0},
                "numberReturned": {"type": "integer", "minimum": 0},
            },
        },
    }


def limit_parameter(*, usual: int, most: int, what: str) -> dict[str, Any]:
    """The parameter `limit`."""
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": usual}
    return asked("limit", schema, f"{what} of a page; more than {most:,} is taken as that.")


def feature_paths() -> dict[str, Any]:
    """The operations, by path."""
    collection = named("collectionId", "Id of a collection: a job's, with -features or -coverage behind it.")
    items = [
        limit_parameter(usual=LIMIT, most=LIMIT_MOST, what="Features"),
        BBOX,
        DATETIME,
        asked("after", {"type": "integer", "minimum": 0}, "The last feature of the page before, by its id."),
        *(asked(name, schema, "Features that hold this.") for name, schema in _filters().items()),
    ]
    runs = limit_parameter(usual=COLLECTION_LIMIT, most=COLLECTION_LIMIT_MOST, what="Runs")
    return {
        "/collections": {
            "get": {
                **reads("collections", "collections", "Collections of features: two of each finished run"),
                "parameters": [runs, asked("after", TEXT, "Where the page before ended, as it says.")],
            }
        },
        "/collections/{collectionId}": {
            "parameters": [collection],
            "get": reads("collection", "collection", "A collection of features", missing=True),
        },
        "/collections/{collectionId}/schema": {
            "parameters": [collection],
            "get": reads("schema", None, "What features of the collection have", missing=True, media_type=SCHEMA),
        },
        "/collections/{collectionId}/items": {
            "parameters": [collection],
            "get": {
                **reads("features", "featureCollectionGeoJSON", "Features by page", missing=True, media_type=GEOJSON),
                "parameters": items,
            },
        },
        "/collections/{collectionId}/items/{featureId}": {
            "parameters": [collection, named("featureId", "Id of a feature.")],
            "get": reads("feature", "featureGeoJSON", "A feature", missing=True, media_type=GEOJSON),
        },
    }


def _filters() -> dict[str, dict[str, Any]]:
    """Columns that features can be chosen by, with their schemas; a collection has some of them."""
    import pyarrow.types as kinds

    from earthmap.merge import coverage_schema, feature_schema

    found: dict[str, dict[str, Any]] = {}
    for field in (*feature_schema(), *coverage_schema()):
        if kinds.is_string(field.type):
            found[field.name] = TEXT
        elif kinds.is_integer(field.type):
            found[field.name] = {"type": "integer"}
        elif kinds.is_boolean(field.type):
            found[field.name] = {"type": "boolean"}
    return dict(sorted(found.items()))
