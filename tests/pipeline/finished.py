"""A finished run's folder with any features and coverage in it, made without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas
import pyarrow as pa
import shapely

from earthmap.merge import coverage_schema, feature_schema
from earthmap.outputs import write_geoparquet
from earthmap.pipeline import Run, open_run


def table_of(frame: geopandas.GeoDataFrame, schema: pa.Schema) -> pa.Table:
    """Rows of a frame as the merge hands them over; columns that it lacks hold nothing."""
    columns: dict[str, Any] = {}
    for field in schema:
        if field.name == "geometry":
            columns["geometry"] = pa.array(list(shapely.to_wkb(frame.geometry.to_numpy())), pa.binary())
        elif field.name in frame:
            values = [None if isinstance(v, float) and v != v else v for v in frame[field.name].tolist()]
            columns[field.name] = pa.array(values, field.type, from_pandas=True)
        else:
            columns[field.name] = pa.nulls(len(frame), field.type)
    return pa.table(columns, schema=schema)


def finished_run(
    folder: Path, features: geopandas.GeoDataFrame, coverage: geopandas.GeoDataFrame, summary: Mapping[str, Any]
) -> Run:
    """The run, whose job asks the summary's questions as `Where is water?` where they cannot be read as a job's."""
    folder.mkdir(parents=True, exist_ok=True)
    job = {"area": "3.4,45.6,3.6,45.8", "catalog": "catalog.json", "queries": ["Where is water?"], "out": str(folder)}
    (folder / "job.json").write_text(json.dumps({"job": job}))
    (folder / "summary.json").write_text(json.dumps(summary, default=str))
    write_geoparquet(folder / "features.parquet", [table_of(features, feature_schema())], feature_schema())
    write_geoparquet(folder / "coverage.parquet", [table_of(coverage, coverage_schema())], coverage_schema())
    (folder / "run.json").write_text("{}")
    return open_run(folder)


def texts(values: Sequence[Any]) -> list[str]:
    """Values as text, nothing as the empty one."""
    return ["" if value is None or value != value else str(value) for value in values]
