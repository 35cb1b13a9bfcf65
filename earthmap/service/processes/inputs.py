"""Inputs that several processes have: ground, catalogues, models, jobs, GeoJSON by value; and fields of a job.

A field of `JobSpec` is said as a job file says it, and described by its own docstring.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal

import pydantic

from earthmap.errors import AreaError, EarthmapWarning, JobError
from earthmap.grid import AreaOfInterest
from earthmap.pipeline.job import JobSpec, QuestionSpec
from earthmap.service.processes.scope import JOB_PATTERN, OF_JOB, Offer

MAX_QUESTIONS = 32
"""Of one request."""

CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"

_BBOX = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 4,
    "maxItems": 4,
    "description": "west, south, east, north in degrees; west may exceed east across the antimeridian",
}

_AREA = {
    "title": "Area",
    "oneOf": [
        _BBOX,
        {
            "type": "object",
            "title": "Bounding box",
            "required": ["bbox"],
            "properties": {"bbox": _BBOX, "crs": {"type": "string", "enum": [CRS84]}},
            "additionalProperties": False,
        },
        {
            "type": "object",
            "title": "GeoJSON (RFC 7946)",
            "required": ["type"],
            "properties": {
                "type": {
                    "type": "string",
                    "enum": ["Polygon", "MultiPolygon", "GeometryCollection", "Feature", "FeatureCollection"],
                }
            },
        },
    ],
}

AreaInput = Annotated[list[Any] | dict[str, Any], pydantic.WithJsonSchema(_AREA)]
"""Ground, in any of the forms that `area_of` reads."""

_FEATURES = {
    "type": "object",
    "title": "GeoJSON FeatureCollection (RFC 7946)",
    "required": ["type", "features"],
    "properties": {
        "type": {"type": "string", "enum": ["FeatureCollection"]},
        "features": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["type", "properties"],
                "properties": {
                    "type": {"type": "string", "enum": ["Feature"]},
                    "properties": {"type": "object", "nullable": True},
                    "geometry": {"type": "object", "nullable": True},
                },
            },
        },
    },
}

FeaturesInput = Annotated[dict[str, Any], pydantic.WithJsonSchema(_FEATURES)]
"""GeoJSON by value, as `features_of` reads it."""

JobInput = Annotated[str, pydantic.Field(pattern=f"^{JOB_PATTERN}$")]
"""The id of a job."""

_MODEL_OF_JOB = Annotated[str, pydantic.Field(pattern=f"^{OF_JOB}{JOB_PATTERN}$")]

CONFIG = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
"""Of every model of inputs."""


@cache
def model_input(models: tuple[str, ...]) -> Any:
    """The type of a model's name, where these are offered."""
    return Literal[models] | _MODEL_OF_JOB if models else _MODEL_OF_JOB


def question_fields(offer: Offer, names: Iterable[str]) -> dict[str, Any]:
    """Fields that ask about ground: `area`, `queries`, `catalog`, `model`, and those of a job named `names`.

    As `pydantic.create_model` takes them.
    """
    catalogs, models = tuple(offer.catalogs), tuple(offer.models)
    fields: dict[str, Any] = {
        "area": (
            AreaInput,
            pydantic.Field(description="Ground on the Earth, in degrees of longitude and latitude."),
        ),
        "queries": (
            tuple[str | QuestionSpec, ...],
            pydantic.Field(
                min_length=1,
                max_length=MAX_QUESTIONS,
                description="What is asked, in words such as 'Where is water?', or with details beside the words.",
            ),
        ),
        "catalog": (
            Literal[catalogs],
            pydantic.Field(default=catalogs[0], description="Where the imagery is looked for."),
        ),
        "model": (
            model_input(models) | None,
            pydantic.Field(
                default=None,
                description="Who answers: a model that the operator named, or `job:ID`, that which a job of finetune "
                "trained; none for what the service uses by itself.",
            ),
        ),
    }
    return fields | {name: (JobSpec.model_fields[name].annotation, JobSpec.model_fields[name]) for name in names}


def area_of(value: Any) -> AreaOfInterest:
    """The area of a request. Raises AreaError; a `crs` that is not the standard's own is refused, not looked up."""
    if isinstance(value, Mapping) and "type" not in value:
        if set(value) - {"bbox", "crs"} or "bbox" not in value or value.get("crs", CRS84) != CRS84:
            expected = f'{{"bbox": [W, S, E, N]}}, {CRS84}'
            raise AreaError("the area is neither GeoJSON nor a bounding box", expected=expected)
        return _box(value["bbox"])
    if not isinstance(value, Mapping):
        return _box(value)
    if "crs" in value:
        raise AreaError("the area has a crs", expected="degrees, as RFC 7946 says", fix="leave crs out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EarthmapWarning)  # of rings across the antimeridian, which are read so
        return AreaOfInterest.from_geojson(value)


def _box(value: Any) -> AreaOfInterest:
    numbers = isinstance(value, list) and all(type(edge) in (int, float) for edge in value)
    if not numbers or len(value) != 4:
        raise AreaError("the bounding box is not four numbers", expected="west, south, east, north in degrees")
    return AreaOfInterest.from_bbox(*value)


def features_of(value: Mapping[str, Any], *, name: str, most: int) -> list[Mapping[str, Any]]:
    """The features of a GeoJSON FeatureCollection. Raises JobError for what is none, an empty one, and one too many."""
    features = value.get("features") if value.get("type") == "FeatureCollection" else None
    whole = isinstance(features, list) and all(
        isinstance(one, Mapping) and isinstance(one.get("properties"), (Mapping, type(None))) for one in features
    )
    if not whole or not isinstance(features, list):
        raise JobError(f"{name} is no GeoJSON FeatureCollection", expected="features with properties, in degrees")
    if not 0 < len(features) <= most:
        raise JobError(f"{name} has {len(features):,} features", expected=f"1 to {most:,}")
    if "crs" in value:
        raise JobError(f"{name} has a crs", expected="degrees, as RFC 7946 says", fix="leave crs out")
    return features
