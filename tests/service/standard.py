"""The standard's own schemas (OGC API – Processes 1.0), which are YAML beside each other; skipped where absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import referencing
import referencing.jsonschema
import yaml

_FOLDER = Path(__file__).parents[3] / "shared/data/19_schemas/ogcapi-processes/1.0/schemas"


class Standard:
    """Checks documents against the schemas of the standard, by their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._registry: Any = referencing.Registry(retrieve=self._retrieve)  # type: ignore[call-arg]

    def _retrieve(self, uri: str) -> Any:
        path = self._folder / uri.rpartition("/")[2]
        return referencing.jsonschema.DRAFT4.create_resource(draft4(yaml.safe_load(path.read_text())))

    def check(self, name: str, value: Any) -> None:
        """Raises where `value` is not as the schema `name` says."""
        schema = {"$ref": f"standard:///{name}.yaml"}
        jsonschema.Draft4Validator(schema, registry=self._registry).validate(value)


def draft4(schema: Any) -> Any:
    """A schema of OpenAPI 3.0 for a validator of JSON Schema's fourth draft, from which it comes."""
    if isinstance(schema, list):
        return [draft4(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: draft4(value) for key, value in schema.items()}
    return {**plain, "type": [plain["type"], "null"]} if schema.get("nullable") is True and "type" in plain else plain


def find_standard() -> Standard:
    """The schemas; the test is skipped where there are none."""
    if not (_FOLDER / "process.yaml").is_file():
        pytest.skip(f"the schemas of OGC API - Processes are not at {_FOLDER}")
    return Standard(_FOLDER)
