"""The OpenAPI 3.0 document of the service, made of the records that its answers are made of."""

from __future__ import annotations

from typing import Any

import earthmap
from earthmap.service import cubes, measuring, previews
from earthmap.service.feature_paths import CONFORMANCE as FEATURES
from earthmap.service.feature_paths import feature_paths, feature_schemas
from earthmap.service.operations import TEXT, asked, fetches, named, reads, refused
from earthmap.service.processes import PROCESSES, Offer, Process, describe
from earthmap.service.stac_paths import stac_paths, stac_schemas
from earthmap.service.state import Status

_CLASSES = "http://www.opengis.net/spec/ogcapi-processes-1/1.0/conf/"

_PROCESSES = ("core", "ogc-process-description", "json", "oas30", "job-list", "dismiss")

CONFORMANCE = (*(f"{_CLASSES}{name}" for name in _PROCESSES), *FEATURES)
"""What is declared; tests/service/test_app.py and test_features.py test each."""

API_TYPE = "application/vnd.oai.openapi+json;version=3.0"

JOB_LIMIT = 10
JOB_LIMIT_MOST = 1_000
"""Of the parameter `limit`: where nothing is said, and at most."""

_LINK = {
    "type": "object",
    "required": ["href"],
    "properties": {"href": TEXT, "rel": TEXT, "type": TEXT, "title": TEXT},
}
_TIME = {"type": "string", "format": "date-time"}

_SCHEMAS: dict[str, Any] = {
    "link": _LINK,
    "exception": {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": TEXT,
            "title": TEXT,
            "status": {"type": "integer"},
            "detail": TEXT,
            "instance": TEXT,
        },
    },
    "landingPage": {
        "type": "object",
        "required": ["links"],
        "properties": {
            "title": TEXT,
            "description": TEXT,
            "links": {"type": "array", "items": {"$ref": "#/components/schemas/link"}},
        },
    },
    "confClasses": {
        "type": "object",
        "required": ["conformsTo"],
        "properties": {"conformsTo": {"type": "array", "items": TEXT}},
    },
    "processSummary": {
        "type": "object",
        "required": ["id", "version"],
        "properties": {
            "id": TEXT,
            "version": TEXT,
            "title": TEXT,
            "description": TEXT,
            "jobControlOptions": {
                "type": "array",
                "items": {"type": "string", "enum": ["sync-execute", "async-execute", "dismiss"]},
            },
            "outputTransmission": {"type": "array", "items": {"type": "string", "enum": ["value", "reference"]}},
            "links": {"type": "array", "items": {"$ref": "#/components/schemas/link"}},
        },
    },
    "processList": {
        "type": "object",
        "required": ["processes", "links"],
        "properties": {
            "processes": {"type": "array", "items": {"$ref": "#/components/schemas/processSummary"}},
            "links": {"type": "array", "items": {"$ref": "#/components/schemas/link"}},
        },
    },
    "process": {
        "allOf": [
            {"$ref": "#/components/schemas/processSummary"},
            {"type": "object", "properties": {"inputs": {"type": "object"}, "outputs": {"type": "object"}}},
        ]
    },
    "statusInfo": {
        "type": "object",
        "required": ["jobID", "status", "type"],
        "properties": {
            "processID": TEXT,
            "type": {"type": "string", "enum": ["process"]},
            "jobID": TEXT,
            "status": {"type": "string", "enum": [str(status) for status in Status]},
            "message": TEXT,
            "created": _TIME,
            "started": _TIME,
            "finished": _TIME,
            "updated": _TIME,
            "progress": {"type": "integer", "minimum": 0, "maximum": 100},
            "links": {"type": "array", "items": {"$ref": "#/components/schemas/link"}},
            "messages": {
                "type": "array",
                "items": {"type": "object", "properties": {"at": _TIME, "text": TEXT}},
            },
        },
    },
    "jobList": {
        "type": "object",
        "required": ["jobs", "links"],
        "properties": {
            "jobs": {"type": "array", "items": {"$ref": "#/components/schemas/statusInfo"}},
            "links": {"type": "array", "items": {"$ref": "#/components/schemas/link"}},
        },
    },
    "results": {"type": "object", "additionalProperties": {"type": "object"}},
}

_CREATED = {
    "201": {
        "description": "The job is accepted.",
        "headers": {"Location": {"description": "Address of the job", "schema": TEXT}},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/statusInfo"}}},
    }
}
"""What a process answers that makes a job."""

_LIMIT = {
    "name": "limit",
    "in": "query",
    "description": f"How many at most; more than {JOB_LIMIT_MOST:,} is taken as that.",
    "schema": {"type": "integer", "minimum": 1, "default": JOB_LIMIT},
}


def document(offer: Offer, *, base: str, secured: bool) -> dict[str, Any]:
    """The document for what is offered at the address `base`; `secured` where a token is needed."""
    components: dict[str, Any] = {"schemas": {**_SCHEMAS, **feature_schemas(), **stac_schemas()}}
    if secured:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for process in PROCESSES.values():
        components["schemas"][f"execute-{process.id}"] = _execute(process, offer)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "earthmap",
            "version": earthmap.__version__,
            "description": "Answers questions about areas of the Earth (OGC API – Processes, Part 1: Core).",
            "license": {"name": "Apache-2.0"},
        },
        "servers": [{"url": base}],
        "paths": _paths(),
        "components": components,
        **({"security": [{"token": []}]} if secured else {}),
    }


def _paths() -> dict[str, Any]:
    job, process = named("job", "Id of a job."), named("process", "Id of a process.")
    paths: dict[str, Any] = {
        "/": {"get": {**reads("landingPage", "landingPage", "Links to everything else"), "security": []}},
        "/conformance": {"get": {**reads("conformance", "confClasses", "What is conformed to"), "security": []}},
        "/api": {"get": {**reads("api", None, "This document", media_type=API_TYPE), "security": []}},
        "/processes": {"get": {**reads("processes", "processList", "What can be asked"), "parameters": [_LIMIT]}},
        "/processes/{process}": {
            "parameters": [process],
            "get": reads("process", "process", "Inputs and outputs of a process", missing=True),
        },
        "/jobs": {"get": {**reads("jobs", "jobList", "What was asked, the newest first"), "parameters": _job_query()}},
        "/jobs/{job}": {
            "parameters": [job],
            "get": reads("job", "statusInfo", "How a job stands", missing=True),
            "delete": reads("dismiss", "statusInfo", "Stop a job, and give its results no longer", missing=True),
        },
        "/jobs/{job}/results": {
            "parameters": [job],
            "get": reads("results", "results", "What a job came to", missing=True),
        },
        "/jobs/{job}/results/{output}": {
            "parameters": [
                job,
                named("output", "Name of an output."),
                asked("pass", TEXT, "Of `respond`: the folder of a pass, as `event` names it; else of the latest."),
            ],
            "get": fetches("output", "One file of the results"),
        },
    }
    for one in PROCESSES.values():
        paths[f"/processes/{one.id}/execution"] = {"post": _executes(one)}
    return (
        paths
        | previews.preview_paths()
        | feature_paths()
        | stac_paths()
        | cubes.paths({"default": refused("What is wrong")})
        | measuring.paths({"default": refused("What is wrong")})
    )


def _job_query() -> list[dict[str, Any]]:
    """Parameters of the list of jobs (18-062r2, 11.1)."""
    several = {"status": [str(status) for status in Status], "type": ["process"], "processID": None}
    lists = [
        {
            "name": name,
            "in": "query",
            "schema": {"type": "array", "items": {"type": "string", **({"enum": values} if values else {})}},
        }
        for name, values in several.items()
    ]
    plain = {
        "datetime": (TEXT, "When they were accepted: a time, or an interval FROM/TO."),
        "minDuration": ({"type": "integer", "minimum": 0}, "Seconds that they worked at least."),
        "maxDuration": ({"type": "integer", "minimum": 0}, "Seconds that they worked at most."),
        "after": ({"type": "string", "format": "uuid"}, "The last job of the page before."),
    }
    texts = [
        {"name": name, "in": "query", "schema": schema, "description": about} for name, (schema, about) in plain.items()
    ]
    return [_LIMIT, *lists, *texts]


def _executes(process: Process) -> dict[str, Any]:
    body = {"$ref": f"#/components/schemas/execute-{process.id}"}
    return {
        "operationId": f"execute-{process.id}",
        "summary": process.title,
        "description": process.description,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            **(_replies(process) if process.is_synchronous else _CREATED),
            "400": refused("The request cannot be run as it stands"),
            "default": refused("What is wrong"),
        },
    }


def _replies(process: Process) -> dict[str, Any]:
    """What a process answers that makes no job."""
    results = {
        "type": "object",
        "required": list(process.outputs),
        "properties": {
            name: {
                "type": "object",
                "required": ["value"],
                "properties": {"value": output.schema, "mediaType": {"type": "string", "enum": [output.media_type]}},
            }
            for name, output in process.outputs.items()
        },
    }
    content = {"application/json": {"schema": results}}
    busy = {"429": "Too many questions at once", "503": "Nobody can take it on now", "504": "It took too long"}
    later = {"Retry-After": {"description": "Seconds after which to ask again", "schema": {"type": "integer"}}}
    return {
        "200": {"description": "The results", "content": content},
        **{status: {**refused(about), "headers": later} for status, about in busy.items()},
    }


def _execute(process: Process, offer: Offer) -> dict[str, Any]:
    """execute.yaml with the inputs of one process."""
    inputs = describe(process, offer)["inputs"]
    return {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {
            "inputs": {
                "type": "object",
                "required": [name for name, one in inputs.items() if one["minOccurs"]],
                "additionalProperties": False,
                "properties": {name: one["schema"] for name, one in inputs.items()},
            },
            "outputs": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    name: {
                        "type": "object",
                        "properties": {
                            "transmissionMode": {
                                "type": "string",
                                "enum": ["value" if output.by_value else "reference"],
                            }
                        },
                    }
                    for name, output in process.outputs.items()
                },
            },
            "response": {"type": "string", "enum": ["document"], "default": "document"},
        },
    }
