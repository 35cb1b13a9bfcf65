"""A service's problem documents (RFC 7807) as errors of earthmap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from earthmap import errors
from earthmap.errors import BadRequestError, EarthmapError, JobError, ServiceError

_OURS = "urn:earthmap:problem:"

_PLAIN = {
    f"{name}Error": kind
    for kind in (errors.ClusterError, errors.CredentialsError, errors.LedgerError, errors.StorageError)
    for name in (kind.__name__.removesuffix("Error"),)
}
"""Errors beside those of requests that are made of nothing but their words."""


def error_of(document: Mapping[str, Any], *, status: int | None = None) -> EarthmapError:
    """The error that a problem document tells of: of the kind that the service met, where it says so.

    Requests that are not as their schema says, and those beyond a quota, are JobErrors.
    """
    expected, fix = (_text(document.get(name)) for name in ("expected", "fix"))
    what = _text(document.get("detail")) or _text(document.get("title")) or f"the service answers {status}"
    for word, more in (("to fix: ", fix), ("expected ", expected)):
        what = what.removesuffix(f"; {word}{more}") if more else what
    word = str(document.get("type", "")).removeprefix(_OURS)
    if word == "schema":
        return JobError(what, expected="what the process says of its inputs", fix="see /processes at the service")
    if word in ("quota", "json", "reference", "output"):
        return JobError(what, expected=expected, fix=fix)
    name = "".join(part.capitalize() for part in word.split("-")) + "Error"
    kind = _PLAIN.get(name) or getattr(errors, name, None)
    if isinstance(kind, type) and (issubclass(kind, BadRequestError) or name in _PLAIN):
        made: EarthmapError = kind(what, expected=expected, fix=fix)
        return made
    return ServiceError(what, expected=expected, fix=fix, status=status)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
