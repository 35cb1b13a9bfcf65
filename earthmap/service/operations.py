"""Parts that operations in an OpenAPI 3.0 document are made of, whichever standard describes them."""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}


def named(name: str, about: str) -> dict[str, Any]:
    """A part of the path."""
    return {"name": name, "in": "path", "required": True, "description": about, "schema": TEXT}


def asked(name: str, schema: dict[str, Any], about: str) -> dict[str, Any]:
    """A parameter of the query; a list is written with commas."""
    plain = {"style": "form", "explode": False} if schema.get("type") == "array" else {}
    return {"name": name, "in": "query", "required": False, "description": about, "schema": schema, **plain}


def reads(
    name: str, schema: str | None, about: str, *, missing: bool = False, media_type: str = "application/json"
) -> dict[str, Any]:
    """An operation that answers with one JSON object, by the name of its schema; None for any object."""
    content = {"type": "object"} if schema is None else {"$ref": f"#/components/schemas/{schema}"}
    return {
        "operationId": name,
        "summary": about,
        "responses": {
            "200": {"description": about, "content": {media_type: {"schema": content}}},
            **({"404": refused("There is none, or not yet")} if missing else {}),
            "default": refused("What is wrong"),
        },
    }


def fetches(name: str, about: str) -> dict[str, Any]:
    """An operation that answers with a file of any kind."""
    content = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "operationId": name,
        "summary": about,
        "responses": {
            "200": {"description": "The file", "content": content},
            "404": refused("There is none, or not yet"),
            "default": refused("What is wrong"),
        },
    }


def refused(about: str) -> dict[str, Any]:
    """An answer that is a problem document."""
    schema = {"$ref": "#/components/schemas/exception"}
    return {"description": about, "content": {"application/problem+json": {"schema": schema}}}
