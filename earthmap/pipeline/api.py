"""`earthmap.map`: the job as one call, for notebooks and scripts."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from earthmap.grid import AreaLike
from earthmap.pipeline.folder import Run
from earthmap.pipeline.job import parse_job
from earthmap.pipeline.run import run_job


def map_area(
    area: AreaLike | None,
    query: str | Sequence[str],
    *,
    catalog: str | Path | None = None,
    datetime: str | None = None,
    out: str | Path | None = None,
    options: dict[str, Any] | None = None,
) -> Run:
    """Answer one question, or several, over an area; returns the finished run.

    Args:
        area: Four numbers (west, south, east, north in degrees), a shapely geometry in EPSG:4326, a GeoDataFrame,
            GeoJSON, WKT, or the path of a file; None for the ground of the `images` among the options.
        query: Such as "Where is water?".
        catalog: STAC API, static catalogue, ItemCollection or stac-geoparquet file; None where `options` has `images`.
        datetime: STAC datetime or interval, such as "2024-06-01/2024-06-30".
        out: Run folder or s3:// address; None for a new temporary folder.
        options: Anything else that a job file may say, such as `{"scenes": "all", "resolution": 20}`.

    Raises:
        BadRequestError: for a request that cannot be run, with what was expected and how to fix it.
    """
    values: dict[str, Any] = {
        **(options or {}),
        "area": area,
        "queries": [query] if isinstance(query, str) else list(query),
        "catalog": None if catalog is None else str(catalog),
        "out": str(out) if out is not None else tempfile.mkdtemp(prefix="earthmap-"),
    }
    if datetime is not None:
        values["datetime"] = datetime
    return run_job(parse_job(values))
