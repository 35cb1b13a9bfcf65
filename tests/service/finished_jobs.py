"""Finished jobs of a service, whose run folders no run made: drawn results, written by the pipeline's own writers."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas
import pandas
import shapely

from earthmap.outputs import result_item
from earthmap.service.state import JobStore
from tests.pipeline.finished import finished_run

SUMMARY = {
    "planned": 4, "answered": 4, "skipped": {}, "failed": {}, "area_km2": 1.0, "seen_km2": 1.0,
    "queries": [
        {"query_key": "q1", "text": "Where is water?", "task": "segment", "targets": ["water"], "observations": []},
        {"query_key": "q2", "text": "Where are ships?", "task": "ground", "targets": ["ship"], "observations": []},
    ],
}  # fmt: skip

DATE = datetime.datetime(2024, 6, 1, 10, 30, tzinfo=datetime.UTC)

_ASSETS = {
    "features": ("./features.parquet", "application/vnd.apache.parquet", ["data"], "What was found"),
    "coverage": ("./coverage.parquet", "application/vnd.apache.parquet", ["metadata"], "What was seen"),
    "classes_1": ("./classes/1_water.tif", "image/tiff; application=geotiff", ["data"], "Where is water?"),
}


def found(geometry: Any, **values: Any) -> dict[str, Any]:
    """A row of the features: water, unless `values` say something else."""
    row = {
        "geometry": geometry, "query": "Where is water?", "query_key": "q1", "task": "segment", "answer": "water",
        "probability": 0.5, "area_m2": 100.0, "tile_ids": ["t1"], "scenes": ["s1"], "datetime_min": DATE,
        "datetime_max": DATE, "sensor": "sentinel-2-l2a", "predictor": "spectral", "notes": [],
    }  # fmt: skip
    return {**row, **values}


def seen(geometry: Any, **values: Any) -> dict[str, Any]:
    """A row of the coverage."""
    row = {
        "geometry": geometry, "tile_id": "t1", "query_key": "q1", "observation": "o1", "status": "answered",
        "seen_share": 1.0, "area_km2": 1.0, "seen_km2": 1.0, "datetime_min": DATE, "datetime_max": DATE,
        "sensor": "sentinel-2-l2a", "scenes": ["s1"],
    }  # fmt: skip
    return {**row, **values}


def frame(rows: Sequence[Mapping[str, Any]]) -> geopandas.GeoDataFrame:
    """The rows as a table."""
    data = pandas.DataFrame(rows)
    for name in ("datetime_min", "datetime_max"):
        data[name] = pandas.to_datetime(data[name], utc=True)
    return geopandas.GeoDataFrame(data, geometry="geometry", crs="EPSG:4326")


def finish_job(
    jobs: JobStore,
    runs: Path,
    features: Sequence[Mapping[str, Any]],
    *,
    owner: str = "local",
    area: Any = None,
    date: datetime.datetime = DATE,
) -> str:
    """The id of a finished job with these features; its area is that of their bounds unless it is given."""
    table = frame(features)
    ground = shapely.box(*table.total_bounds) if area is None else area
    job = jobs.submit("map", {"queries": ["Where is water?"]}, owner=owner)
    assert job is not None
    worker = str(uuid.uuid4())
    claimed = jobs.claim(worker, lease_s=60)
    assert claimed is not None
    assert claimed.id == job.id
    folder = runs / job.id
    finished_run(folder, table, frame([seen(part) for part in shapely.get_parts(ground)]), SUMMARY)
    item = result_item(
        "earthmap-0123456789ab",
        area_geometry=shapely.geometry.mapping(ground),
        bbox=ground.bounds,
        datetimes=[date],
        summary=SUMMARY,
        assets=_ASSETS,
        scenes=["s1"],
        version="1",
    )
    (folder / "item.json").write_text(json.dumps(item))
    (folder / "classes").mkdir()
    (folder / "classes/1_water.tif").write_bytes(bytes(range(256)) * 4)
    assert jobs.finish(job.id, worker, result=str(folder))
    return job.id
