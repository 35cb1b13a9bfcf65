"""The same calls here and on a service: `earthmap.connect()`, and jobs that are watched and fetched."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earthmap.client.connecting import Client, connect
    from earthmap.client.fetched import ServedRun
    from earthmap.client.live import LiveJob, Look
    from earthmap.client.replies import PlaceReply

__all__ = ["Client", "LiveJob", "Look", "PlaceReply", "ServedRun", "connect"]

_HOMES = {
    "Client": "connecting",
    "LiveJob": "live",
    "Look": "live",
    "PlaceReply": "replies",
    "ServedRun": "fetched",
    "connect": "connecting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'earthmap.client' has no attribute {name!r}")
    return getattr(importlib.import_module(f"earthmap.client.{_HOMES[name]}"), name)
