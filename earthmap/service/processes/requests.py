"""Whether the body of an execution can be run: OGC API – Processes, Part 1 (18-062r2), 7.9 and 7.11.

A request is data: areas, dates, questions, and names (`earthmap.service.processes.scope`); never code, a path, an
address or where the result goes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import pydantic

from earthmap.content import canonical_json
from earthmap.errors import EarthmapError
from earthmap.service.errors import ProblemError, problem, problem_of, problem_of_inputs
from earthmap.service.processes.process import Checked, Process
from earthmap.service.processes.scope import Scope

_QUALIFIERS = {"value", "mediaType", "encoding", "schema"}

_MOST_DIGITS = 18
"""Of a whole number: any such fits 64 bits."""


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


def parse_execution(process: Process, body: bytes, scope: Scope) -> Checked:
    """The request in the body of an execution of `process`.

    Raises:
        ProblemError: 400, for whatever cannot be run, with every fault named.
    """
    try:
        request = ExecuteRequest.model_validate(_json(body), strict=True)
        inputs = {name: _plain_value(name, value) for name, value in request.inputs.items()}
        given = process.inputs(scope.offer).model_validate_json(canonical_json(inputs), strict=True)
    except pydantic.ValidationError as error:
        raise ProblemError(problem_of_inputs(error)) from None
    for name, choice in request.outputs.items():
        _check_output(process, name, choice)
    try:
        return process.check(given.model_dump(mode="json", exclude_unset=True), scope)
    except EarthmapError as error:
        raise hidden_problem(error, scope) from None


def hidden_problem(error: EarthmapError, scope: Scope) -> ProblemError:
    """The problem of an error, with names in place of addresses."""
    return ProblemError(json.loads(scope.hide(json.dumps(problem_of(error)))))


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
