"""Processes as the standard describes them: OGC API – Processes, Part 1 (18-062r2), 7.8 and 7.10."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import earthmap
from earthmap.service.processes.process import Process
from earthmap.service.processes.scope import Offer


def summary_of(process: Process) -> dict[str, Any]:
    """The process as a list of processes has it (processSummary.yaml), without links."""
    return {
        "id": process.id,
        "title": process.title,
        "description": process.description,
        "version": earthmap.__version__,
        "jobControlOptions": process.job_control,
        "outputTransmission": ["value", "reference"],
    }


def describe(process: Process, offer: Offer) -> dict[str, Any]:
    """The whole description of a process (process.yaml), without links; its schemas are of OpenAPI 3.0."""
    schema = process.inputs(offer).model_json_schema()
    required = schema.get("required", [])
    inputs = {
        name: {
            "title": part.get("title", name),
            **({"description": _one_line(part["description"])} if "description" in part else {}),
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
        elif key == "description":
            plain[key] = _one_line(value)
        elif key != "default" or value is not None:
            plain[key] = openapi_schema(value, definitions)
    return plain


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _either(options: list[Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """What `anyOf` means where OpenAPI 3.0 has no type null."""
    real = [openapi_schema(option, definitions) for option in options if option != {"type": "null"}]
    nullable = {"nullable": True} if len(real) < len(options) else {}
    return {**(real[0] if len(real) == 1 else {"anyOf": real}), **nullable}
