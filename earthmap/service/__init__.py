"""earthmap as a service: OGC API – Processes over jobs that outlive the process that took them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earthmap.service.access import Service
    from earthmap.service.app import check_address, create_app
    from earthmap.service.database import Database, open_database
    from earthmap.service.jobs import Foreman, ProcessRunner, Runner, Standing
    from earthmap.service.processes import PROCESSES, Offer
    from earthmap.service.state import JobRecord, JobStore, Selection, Status
    from earthmap.service.tokens import Holder, Quotas, Role, TokenStore

__all__ = [
    "PROCESSES",
    "Database",
    "Foreman",
    "Holder",
    "JobRecord",
    "JobStore",
    "Offer",
    "ProcessRunner",
    "Quotas",
    "Role",
    "Runner",
    "Selection",
    "Service",
    "Standing",
    "Status",
    "TokenStore",
    "check_address",
    "create_app",
    "open_database",
]

_HOMES = {
    "PROCESSES": "processes",
    "Database": "database",
    "Foreman": "jobs",
    "Holder": "tokens",
    "JobRecord": "state",
    "JobStore": "state",
    "Offer": "processes",
    "ProcessRunner": "jobs",
    "Quotas": "tokens",
    "Role": "tokens",
    "Runner": "jobs",
    "Selection": "state",
    "Service": "access",
    "Standing": "jobs",
    "Status": "state",
    "TokenStore": "tokens",
    "check_address": "app",
    "create_app": "app",
    "open_database": "database",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'earthmap.service' has no attribute {name!r}")
    return getattr(importlib.import_module(f"earthmap.service.{_HOMES[name]}"), name)
