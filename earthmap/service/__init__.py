"""earthmap as a service: OGC API – Processes over jobs that outlive the process that took them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earthmap.service.database import Database, open_database
    from earthmap.service.state import JobRecord, JobStore, Selection, Status

__all__ = ["Database", "JobRecord", "JobStore", "Selection", "Status", "open_database"]

_HOMES = {
    "Database": "database",
    "JobRecord": "state",
    "JobStore": "state",
    "Selection": "state",
    "Status": "state",
    "open_database": "database",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'earthmap.service' has no attribute {name!r}")
    return getattr(importlib.import_module(f"earthmap.service.{_HOMES[name]}"), name)
