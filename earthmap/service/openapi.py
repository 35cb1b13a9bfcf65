"""The OpenAPI 3.0 document of the service, made of the records that its answers are made of."""

from __future__ import annotations

from typing import Any

import earthmap
from earthmap.service.processes import PROCESSES, Offer, Process, describe
from earthmap.service.state import Status

_CLASSES = "http://www.opengis.net/spec/ogcapi-processes-1/1.0/conf/"

CONFORMANCE = tuple(
    f"{_CLASSES}{name}" for name in ("core", "ogc-process-description", "json", "oas30", "job-list", "dismiss")
)
"""What is declared; tests/service/test_app.py tests each."""

JOB_LIMIT = 10
JOB_LIMIT_MOST = 1_000
"""Of the parameter `limit`: where nothing is said, and at most."""

_TEXT = {"type": "string"}
_LINK = {
    "type": "object",
    "required": ["href"],
    "properties": {"href": _TEXT, "rel": _TEXT, "type": _TEXT, "title": _TEXT},
}
_TIME = {"type": "string", "format": "date-time"}

_SCHEMAS: dict[str, Any] = {
    "link": _LINK,
    "exception": {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "instance": _TEXT,
        },
    },
    "landingPage": {
        "type": "object",
        "required": ["links"],
        "properties": {
            "title": _TEXT,
            "description": _TEXT,
            "links": {"type": "array", "items": {"$ref": "#/components/schemas/link"}},
        },
    },
    "confClasses": {
        "type": "object",
        "required": ["conformsTo"],
        "properties": {"conformsTo": {"type": "array", "items": _TEXT}},
    },
    "processSummary": {
        "type": "object",
        "required": ["id", "version"],
        "properties": {
            "id": _TEXT,
            "version": _TEXT,
            "title": _TEXT,
            "description": _TEXT,
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
            "processID": _TEXT,
            "type": {"type": "string", "enum": ["process"]},
            "jobID": _TEXT,
            "status": {"type": "string", "enum": [str(status) for status in Status]},
            "message": _TEXT,
            "created": _TIME,
            "started": _TIME,
            "finished": _TIME,
            "updated": _TIME,
            "progress": {"type": "integer", "minimum": 0, "maximum": 100},
            "links": {"type": "array", "items": {"$ref": "#/components/schemas/link"}},
            "messages": {
                "type": "array",
                "items": {"type": "object", "properties": {"at": _TIME, "text": _TEXT}},
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

_LIMIT = {
    "name": "limit",
    "in": "query",
    "description": f"How many at most; more than {JOB_LIMIT_MOST:,} is taken as that.",
    "schema": {"type": "integer", "minimum": 1, "default": JOB_LIMIT},
}


def document(offer: Offer, *, base: str, secured: bool) -> dict[str, Any]:
    """The document for what is offered at the address `base`; `secured` where a token is needed."""
    components: dict[str, Any] = {"schemas": dict(_SCHEMAS)}
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
    job, process = _named("job", "Id of a job."), _named("process", "Id of a process.")
    paths: dict[str, Any] = {
        "/": {"get": {**_reads("landingPage", "landingPage", "Links to everything else"), "security": []}},
        "/conformance": {"get": {**_reads("conformance", "confClasses", "What is conformed to"), "security": []}},
        "/api": {"get": {**_reads("api", None, "This document"), "security": []}},
        "/processes": {"get": {**_reads("processes", "processList", "What can be asked"), "parameters": [_LIMIT]}},
        "/processes/{process}": {
            "parameters": [process],
            "get": _reads("process", "process", "Inputs and outputs of a process", missing=True),
        },
        "/jobs": {"get": {**_reads("jobs", "jobList", "What was asked, the newest first"), "parameters": _job_query()}},
        "/jobs/{job}": {
            "parameters": [job],
            "get": _reads("job", "statusInfo", "How a job stands", missing=True),
            "delete": _reads("dismiss", "statusInfo", "Stop a job, and give its results no longer", missing=True),
        },
        "/jobs/{job}/results": {
            "parameters": [job],
            "get": _reads("results", "results", "What a job came to", missing=True),
        },
        "/jobs/{job}/results/{output}": {
            "parameters": [job, _named("output", "Name of an output.")],
            "get": _file(),
        },
    }
    for one in PROCESSES.values():
        paths[f"/processes/{one.id}/execution"] = {"post": _executes(one)}
    return paths


def _named(name: str, about: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": about, "schema": _TEXT}


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
        "datetime": (_TEXT, "When they were accepted: a time, or an interval FROM/TO."),
        "minDuration": ({"type": "integer", "minimum": 0}, "Seconds that they worked at least."),
        "maxDuration": ({"type": "integer", "minimum": 0}, "Seconds that they worked at most."),
        "after": ({"type": "string", "format": "uuid"}, "The last job of the page before."),
    }
    texts = [
        {"name": name, "in": "query", "schema": schema, "description": about} for name, (schema, about) in plain.items()
    ]
    return [_LIMIT, *lists, *texts]


def _reads(name: str, schema: str | None, about: str, *, missing: bool = False) -> dict[str, Any]:
    """An operation that answers with one JSON object."""
    content = {"type": "object"} if schema is None else {"$ref": f"#/components/schemas/{schema}"}
    media_type = "application/json" if schema is not None else "application/vnd.oai.openapi+json;version=3.0"
    return {
        "operationId": name,
        "summary": about,
        "responses": {
            "200": {"description": about, "content": {media_type: {"schema": content}}},
            **({"404": _problem("There is none, or not yet")} if missing else {}),
            "default": _problem("What is wrong"),
        },
    }


def _file() -> dict[str, Any]:
    content = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "operationId": "output",
        "summary": "One file of the results",
        "responses": {
            "200": {"description": "The file", "content": content},
            "404": _problem("There is none, or not yet"),
            "default": _problem("What is wrong"),
        },
    }


def _executes(process: Process) -> dict[str, Any]:
    body = {"$ref": f"#/components/schemas/execute-{process.id}"}
    created = {
        "description": "The job is accepted.",
        "headers": {"Location": {"description": "Address of the job", "schema": _TEXT}},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/statusInfo"}}},
    }
    return {
        "operationId": f"execute-{process.id}",
        "summary": process.title,
        "description": process.description,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "201": created,
            "400": _problem("The request cannot be run as it stands"),
            "default": _problem("What is wrong"),
        },
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


def _problem(about: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/exception"}
    return {"description": about, "content": {"application/problem+json": {"schema": schema}}}
