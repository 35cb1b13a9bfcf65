"""`features.parquet` as other programs read it: GeoPandas, DuckDB without its spatial extension, and the schema."""

from __future__ import annotations

import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely

from earthmap.outputs import write_geoparquet

NOON = datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC)


def frame(count: int) -> geopandas.GeoDataFrame:
    """Features with a list, a time, a number that may be missing, text that is not ASCII, and a MultiPolygon."""
    shapes: list[Any] = [shapely.box(10 + i, 50, 10.5 + i, 50.5) for i in range(count)]
    if count > 1:
        shapes[1] = shapely.MultiPolygon([shapely.box(179, 1, 180, 2), shapely.box(-180, 1, -179, 2)])
    data = {
        "query": pd.array(["Où est l'eau ?"] * count, dtype=pd.ArrowDtype(pa.string())),
        "probability": pd.array([None] * count, dtype="Float64"),
        "area_m2": np.arange(count, dtype=float),
        "tile_ids": pd.array([["a", "b"]] * count, dtype=pd.ArrowDtype(pa.list_(pa.string()))),
        "datetime_min": pd.Series([NOON] * count, dtype="datetime64[us, UTC]"),
    }
    return geopandas.GeoDataFrame(data, geometry=geopandas.GeoSeries(shapes, crs="EPSG:4326"), crs="EPSG:4326")


def geoparquet_bytes(features: geopandas.GeoDataFrame) -> bytes:
    """The file of a frame."""
    plain = pd.DataFrame(features.drop(columns="geometry"))
    plain.insert(0, "geometry", pd.array(shapely.to_wkb(features.geometry.to_numpy()), pd.ArrowDtype(pa.binary())))
    table = pa.Table.from_pandas(plain, preserve_index=False).replace_schema_metadata(None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.parquet"
        write_geoparquet(path, [table], table.schema)
        return path.read_bytes()


@pytest.fixture(params=[0, 3], ids=["empty", "three"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "features.parquet"
    path.write_bytes(geoparquet_bytes(frame(request.param)))
    return path


def test_geopandas_reads_what_was_written(written: Path) -> None:
    back = geopandas.read_parquet(written)
    expected = frame(len(back))
    assert back.crs == expected.crs
    assert shapely.equals_exact(back.geometry.to_numpy(), expected.geometry.to_numpy()).all()
    assert [list(ids) for ids in back.tile_ids] == [list(ids) for ids in expected.tile_ids]
    assert back.datetime_min.tolist() == expected.datetime_min.tolist()
    assert back["query"].tolist() == expected["query"].tolist()


def test_types_hold_without_rows_too(written: Path) -> None:
    schema = pq.read_schema(written)
    assert pa.types.is_timestamp(schema.field("datetime_min").type)
    assert schema.field("datetime_min").type.tz == "UTC"
    assert pa.types.is_list(schema.field("tile_ids").type)
    assert pa.types.is_struct(schema.field("bbox").type)


def test_the_metadata_are_geoparquet_1_1(written: Path, real_data: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    referencing = pytest.importorskip("referencing")
    metadata = pq.read_schema(written).metadata
    geo = json.loads(metadata[b"geo"])
    schema = json.loads((real_data / "19_schemas/geoparquet/schema-v1.1.0.json").read_text())
    # The schema asks the network for PROJJSON's; anything passes there, and pyproj reads the CRS below.
    anything = referencing.Resource(contents={}, specification=referencing.jsonschema.DRAFT7)
    registry = referencing.Registry(retrieve=lambda address: anything)
    jsonschema.Draft7Validator(schema, registry=registry).validate(geo)
    assert pyproj.CRS.from_user_input(geo["columns"]["geometry"]["crs"]).equals("OGC:CRS84", ignore_axis_order=True)
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["encoding"] == "WKB"
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert set(metadata) == {b"geo"}  # nothing of the libraries' versions or of the time


def test_duckdb_reads_plain_columns_and_the_bbox(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "features.parquet"
    path.write_bytes(geoparquet_bytes(frame(3)))
    found = duckdb.sql(f"SELECT area_m2, tile_ids FROM '{path}' WHERE bbox.xmin < 11 AND bbox.xmax > 10").fetchall()
    assert (0.0, ["a", "b"]) in found
    assert len(found) == 2  # the shape across the antimeridian spans every longitude


def test_equal_frames_give_equal_bytes() -> None:
    shuffled = frame(3).iloc[[2, 0, 1]].iloc[[1, 2, 0]]  # the same rows, another index
    assert geoparquet_bytes(frame(3)) == geoparquet_bytes(shuffled)


def test_zstd_and_small_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "many.parquet"
    many = frame(1).loc[[0] * 100_001]
    path.write_bytes(geoparquet_bytes(many))
    file = pq.ParquetFile(path)
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [100_000, 1]
    assert {groups[0].column(i).compression for i in range(groups[0].num_columns)} == {"ZSTD"}
