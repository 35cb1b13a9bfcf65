"""earthmap answers a question about an area of the Earth.

    >>> import earthmap
    >>> run = earthmap.map((10.9, 45.1, 11.1, 45.2), "Where is water?", catalog="catalog.json")  # doctest: +SKIP
    >>> run.features  # a GeoDataFrame  # doctest: +SKIP

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earthmap.client import connect
    from earthmap.grid import AreaOfInterest
    from earthmap.pipeline import Job, Run, open_run
    from earthmap.pipeline import map_area as map

__version__ = "0.1.0"

__all__ = ["AreaOfInterest", "Job", "Run", "connect", "map", "open_run"]

_HOMES = {
    "AreaOfInterest": ("earthmap.grid", "AreaOfInterest"),
    "Job": ("earthmap.pipeline", "Job"),
    "Run": ("earthmap.pipeline", "Run"),
    "connect": ("earthmap.client", "connect"),
    "map": ("earthmap.pipeline", "map_area"),
    "open_run": ("earthmap.pipeline", "open_run"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'earthmap' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
