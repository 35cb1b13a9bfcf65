"""What can be asked of the service: processes of OGC API – Processes, each a module, and requests for them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earthmap.service.processes.descriptions import describe, openapi_schema, summary_of
    from earthmap.service.processes.process import Assignment, Checked, Labour, Output, Process, Site
    from earthmap.service.processes.registry import PROCESSES
    from earthmap.service.processes.requests import parse_execution
    from earthmap.service.processes.scope import Offer, Scope

__all__ = [
    "PROCESSES",
    "Assignment",
    "Checked",
    "Labour",
    "Offer",
    "Output",
    "Process",
    "Scope",
    "Site",
    "describe",
    "openapi_schema",
    "parse_execution",
    "summary_of",
]

_HOMES = {
    "PROCESSES": "registry",
    "Assignment": "process",
    "Checked": "process",
    "Labour": "process",
    "Offer": "scope",
    "Output": "process",
    "Process": "process",
    "Scope": "scope",
    "Site": "process",
    "describe": "descriptions",
    "openapi_schema": "descriptions",
    "parse_execution": "requests",
    "summary_of": "descriptions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'earthmap.service.processes' has no attribute {name!r}")
    return getattr(importlib.import_module(f"earthmap.service.processes.{_HOMES[name]}"), name)
