"""What can be asked of the service, and whether a request asks it: OGC API – Processes, Part 1 (18-062r2), 7.8 to 7.10.

A process's inputs are fields of `JobSpec`, listed by name: what is not listed cannot be said. So a request is data:
areas, dates, questions, and names that the operator gave to catalogues and models; never code, a path, an address or
where the result goes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal

import pydantic

import earthmap
from earthmap.catalog import parse_datetime
from earthmap.content import canonical_json
from earthmap.errors import AreaError, EarthmapError, EarthmapWarning, JobError
from earthmap.grid import AreaOfInterest
from earthmap.pipeline import Job, parse_job
from earthmap.pipeline.job import JobSpec, QuestionSpec
from earthmap.sensors import SENSORS
from earthmap.service.errors import ProblemError, problem, problem_of, problem_of_inputs

PUBLIC = (
    "collections", "datetime", "sensor", "resolution", "tile_size", "scenes", "date", "looks", "predictor",
    "least_seen", "triage", "triage_scale", "triage_threshold", "max_tiles", "rush", "seen", "certainty",
)  # fmt: skip
"""Fields of a job that a request may say as a job file says them."""

NARROWED = ("area", "catalog", "model", "queries")
"""Those that it may say in fewer ways: no files, no addresses."""

WITHHELD = (
    "images", "images_key", "bands", "model_key", "footprints", "footprints_key", "reference_water",
    "reference_water_key", "points", "patience", "out", "store", "cluster",
)  # fmt: skip
"""Those that it may not say: paths, and what is derived or the operator's."""

MAX_QUESTIONS = 32
"""Of one request."""

_QUALIFIERS = {"value", "mediaType", "encoding", "schema"}

_MOST_DIGITS = 18
"""Of a whole number: any such fits 64 bits."""

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
    "description": "Ground on the Earth, in degrees of longitude and latitude.",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What an operator lets requests name.

    Example:
        >>> Offer(catalogs={"earth-search": "https://earth-search.aws.element84.com/v1"}).models
        {}
    """

    catalogs: Mapping[str, str]
    """Address or path by name; the first is what a request means that names none."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Folder of the checkpoint by name."""

    def __post_init__(self) -> None:
        if not self.catalogs:
            raise JobError("the service has no catalogue", fix="name at least one: NAME=ADDRESS")

    def hide(self, text: str) -> str:
        """`text` with names in place of addresses, as those who ask may read it."""
        for name, address in (*self.catalogs.items(), *self.models.items()):
            text = text.replace(address, name)
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One result of a process."""

    title: str
    path: str
    """In the run folder."""
    media_type: str
    by_value: bool = False
    """Given in the document of results itself, else by its address."""

    @property
    def schema(self) -> dict[str, Any]:
        """Of what is given."""
        if self.by_value:
            return {"type": "object"}
        return {"type": "string", "format": "binary", "contentMediaType": self.media_type}


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of the service."""

    id: str
    title: str
    description: str
    outputs: Mapping[str, Output]


MAP = Process(
    id="map",
    title="Map an area",
    description="Answer one or several questions over all of an area, with satellite imagery of the dates asked for.",
    outputs={
        "summary": Output(
            title="Numbers, and how far they can be trusted",
            path="summary.json",
            media_type="application/json",
            by_value=True,
        ),
        "features": Output(
            title="Features on the ground", path="features.parquet", media_type="application/vnd.apache.parquet"
        ),
        "coverage": Output(
            title="What was seen, skipped and failed, and why",
            path="coverage.parquet",
            media_type="application/vnd.apache.parquet",
        ),
        "item": Output(title="STAC item", path="item.json", media_type="application/geo+json"),
        "report": Output(title="Page to look at", path="report.html", media_type="text/html"),
        "preview": Output(title="Picture", path="preview.png", media_type="image/png"),
    },
)

PROCESSES: Mapping[str, Process] = {MAP.id: MAP}


class _Format(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    mediaType: str | None = None  # noqa: N815 (the standard's spelling)


class _OutputChoice(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    format: _Format | None = None
    transmissionMode: Literal["value", "reference"] | None = None  # noqa: N815 (the standard's spelling)


class ExecuteRequest(pydantic.BaseModel):
    """The body of an execution request (execute.yaml); callbacks are not offered."""

    model_config = pydantic.ConfigDict(extra="forbid")

    inputs: dict[str, Any] = {}
    outputs: dict[str, _OutputChoice] = {}
    response: Literal["document"] = "document"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A request that can be run."""

    inputs: dict[str, Any]
    """As they are kept with the job: JSON values, names instead of addresses."""
    job: Job
    """What they mean; its run folder is not decided yet."""


# ── descriptions ─────────────────────────────────────────────────────────────────────────────────────────────


def inputs_model(offer: Offer) -> type[pydantic.BaseModel]:
    """The inputs of `map` as a model whose fields are those of `JobSpec`."""
    return _inputs_model(tuple(offer.catalogs), tuple(offer.models))


@cache
def _inputs_model(catalogs: tuple[str, ...], models: tuple[str, ...]) -> type[pydantic.BaseModel]:
    fields: dict[str, Any] = {
        "area": (Annotated[list[Any] | dict[str, Any], pydantic.WithJsonSchema(_AREA)], ...),
        "queries": (tuple[str | QuestionSpec, ...], pydantic.Field(min_length=1, max_length=MAX_QUESTIONS)),
        "catalog": (Literal[catalogs], catalogs[0]),
    }
    if models:
        fields["model"] = (Literal[models] | None, None)
    for name in PUBLIC:
        fields[name] = (JobSpec.model_fields[name].annotation, JobSpec.model_fields[name])
    config = pydantic.ConfigDict(extra="forbid", frozen=True)
    return pydantic.create_model("MapInputs", __config__=config, **fields)


def summary_of(process: Process) -> dict[str, Any]:
    """The process as a list of processes has it (processSummary.yaml), without links."""
    return {
        "id": process.id,
        "title": process.title,
        "description": process.description,
        "version": earthmap.__version__,
        "jobControlOptions": ["async-execute", "dismiss"],
        "outputTransmission": ["value", "reference"],
    }


def describe(process: Process, offer: Offer) -> dict[str, Any]:
    """The whole description of a process (process.yaml), without links; its schemas are of OpenAPI 3.0."""
    schema = inputs_model(offer).model_json_schema()
    required = schema.get("required", [])
    inputs = {
        name: {
            "title": part.get("title", name),
            **({"description": part["description"]} if "description" in part else {}),
            "minOccurs": int(name in required),
            "schema": openapi_schema(part, schema.get("$defs", {})),
        }
        for name, part in schema["properties"].items()
    }
    outputs = {name: {"title": output.title, "schema": output.schema} for name, output in process.outputs.items()}
    return {**summary_of(process), "inputs": inputs, "outputs": outputs}


def openapi_schema(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A JSON Schema of pydantic's (2020-12) as a schema object of OpenAPI 3.0, which is what the standard describes."""
    if isinstance(schema, list):
        return [openapi_schema(part, definitions) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        return openapi_schema(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    plain: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            plain[key] = {name: openapi_schema(part, definitions) for name, part in value.items()}
        elif key == "const":
            plain["enum"] = [value]
        elif key in ("exclusiveMinimum", "exclusiveMaximum"):
            plain |= {key.replace("exclusiveM", "m"): value, key: True}
        elif key == "anyOf":
            plain |= _either(value, definitions)
        elif key != "default" or value is not None:
            plain[key] = openapi_schema(value, definitions)
    return plain


def _either(options: list[Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """What `anyOf` means where OpenAPI 3.0 has no type null."""
    real = [openapi_schema(option, definitions) for option in options if option != {"type": "null"}]
    nullable = {"nullable": True} if len(real) < len(options) else {}
    return {**(real[0] if len(real) == 1 else {"anyOf": real}), **nullable}


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────


def parse_execution(process: Process, body: bytes, offer: Offer) -> Checked:
    """The request in the body of an execution of `process`.

    Raises:
        ProblemError: 400, for whatever cannot be run, with every fault named.
    """
    try:
        request = ExecuteRequest.model_validate(_json(body), strict=True)
        inputs = {name: _plain_value(name, value) for name, value in request.inputs.items()}
        given = inputs_model(offer).model_validate_json(canonical_json(inputs), strict=True)
    except pydantic.ValidationError as error:
        raise ProblemError(problem_of_inputs(error)) from None
    for name, choice in request.outputs.items():
        _check_output(process, name, choice)
    kept = given.model_dump(mode="json", exclude_unset=True)
    try:
        job = job_of(kept, offer, out="run", store=None)
        _check_named(job)
        return Checked(inputs=kept, job=job)
    except EarthmapError as error:
        raise ProblemError(json.loads(offer.hide(json.dumps(problem_of(error))))) from None


def job_of(inputs: Mapping[str, Any], offer: Offer, *, out: str, store: str | None) -> Job:
    """The job that checked inputs mean. Raises BadRequestError."""
    values = {**inputs, "area": _area(inputs["area"]), "out": out, "store": store}
    values["catalog"] = offer.catalogs[inputs.get("catalog") or next(iter(offer.catalogs))]
    if inputs.get("model") is not None:
        values["model"] = offer.models[inputs["model"]]
    return parse_job(values)


def _check_named(job: Job) -> None:
    """Raises JobError for dates or a sensor that the search would refuse: the answer is due now."""
    for text in (job.spec.datetime, job.spec.date):
        if text is not None:
            parse_datetime(text)
    if job.spec.sensor is not None and job.spec.sensor not in SENSORS:
        raise JobError(f"there is no sensor {job.spec.sensor[:80]!r}", expected=", ".join(sorted(SENSORS)))


def _json(body: bytes) -> Any:
    """The JSON of a body. Raises ProblemError for what is none, or is JSON that not every reader can read."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant, parse_int=_short_int)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")  # no half characters, no 1e999
    except (ValueError, RecursionError) as error:
        detail = f"the body is not JSON: {str(error)[:200]}" if isinstance(error, ValueError) else "it is too deep"
        raise ProblemError(problem(400, "The body cannot be read", detail, kind="json")) from None
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _short_int(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{text[:20]}… has too many digits")
    return int(text)


def _plain_value(name: str, value: Any) -> Any:
    """The value of an input that may be qualified (qualifiedInputValue.yaml); none is fetched from elsewhere."""
    if isinstance(value, Mapping) and "href" in value:
        detail = f"the input {name} is given by reference"
        raise ProblemError(problem(400, "No input is fetched", f"{detail}; expected its value", kind="reference"))
    qualified = isinstance(value, Mapping) and "value" in value and set(value) <= _QUALIFIERS
    return value["value"] if qualified else value


def _check_output(process: Process, name: str, choice: _OutputChoice) -> None:
    """Raises ProblemError for an output that the process does not have, or not in that form."""
    output = process.outputs.get(name)
    if output is None:
        detail = f"there is no output {name[:80]!r}; expected {', '.join(process.outputs)}"
        raise ProblemError(problem(400, "No such output", detail, kind="output"))
    media_type = choice.format.mediaType if choice.format else None
    mode = "value" if output.by_value else "reference"
    if media_type not in (None, output.media_type) or choice.transmissionMode not in (None, mode):
        detail = f"the output {name} is given by {mode}, as {output.media_type}"
        raise ProblemError(problem(400, "No such form of this output", detail, kind="output"))


def _area(value: Any) -> AreaOfInterest:
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
