"""Problem documents (RFC 7807): what went wrong with a request, as the standard's exceptions or as errors of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pydantic

from earthmap.errors import BadRequestError, CredentialsError, EarthmapError

_STANDARD = "http://www.opengis.net/def/exceptions/ogcapi-processes-1/1.0/"

NO_SUCH_PROCESS = f"{_STANDARD}no-such-process"
NO_SUCH_JOB = f"{_STANDARD}no-such-job"
NOT_READY = f"{_STANDARD}result-not-ready"

_OURS = "urn:earthmap:problem:"


def problem(status: int, title: str, detail: str, *, kind: str | None = None) -> dict[str, Any]:
    """A problem document; `kind` is its type: a URI, a word of ours, or None for what the status alone says."""
    uri = "about:blank" if kind is None else kind if ":" in kind else f"{_OURS}{kind}"
    return {"type": uri, "title": title, "status": status, "detail": detail}


def problem_of(error: EarthmapError) -> dict[str, Any]:
    """The problem document of an error of our tree: 400 for a request that cannot be run as it stands.

    What is beyond the request is 502 where a provider refuses this service, else 500.
    """
    word = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__.removesuffix("Error")).lower()
    status = 400 if isinstance(error, BadRequestError) else 502 if isinstance(error, CredentialsError) else 500
    title = "The request cannot be run as it stands" if status == 400 else "The run did not come to its end"
    return {**problem(status, title, str(error), kind=word), "expected": error.expected, "fix": error.fix}


def problem_of_inputs(error: pydantic.ValidationError) -> dict[str, Any]:
    """The problem document of a request that is not as its schema says, with every fault named."""
    faults = [
        {"where": ".".join(str(part) for part in fault["loc"]) or "the request", "what": fault["msg"]}
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    detail = "; ".join(f"{fault['where']}: {fault['what']}" for fault in faults)
    return {**problem(400, "The request is not as its schema says", detail, kind="schema"), "faults": faults}


class ProblemError(Exception):
    """Ends a request with its problem document; caught at the service's top only."""

    def __init__(self, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self.document = dict(document)
        self.headers = dict(headers or {})
        super().__init__(document["detail"])
