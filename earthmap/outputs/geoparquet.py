"""GeoParquet 1.1 with a covering bbox: what GeoPandas, DuckDB and QGIS read today."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_ROWS = 100_000
ROW_GROUP_BYTES = 16 * 2**20
"""What a row group holds at most before it is compressed: small enough to skip by bbox, large enough to compress."""

GEOMETRY, BBOX = "geometry", "bbox"


def write_geoparquet(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write rows as a GeoParquet 1.1 file: WKB, covering bbox, zstd; equal tables give equal bytes.

    Rows are written in the order they come in, and no more of them than a row group are held. No version of a library
    and no time is written.

    Args:
        path: a local file; whole when this returns.
        tables: rows of `schema`; other columns are left out.
        schema: the file's columns, of which `geometry` is WKB in EPSG:4326.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = pa.schema([*schema.remove_metadata(), (BBOX, _bbox_type())])
    about = _About()
    # Without Arrow's own copy of the schema, beside which readers do not see what is added at the end.
    with pq.ParquetWriter(path, plain, compression="zstd", store_schema=False) as writer:
        for group in row_groups(about.with_bbox(table.select(schema.names).cast(schema), plain) for table in tables):
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata({"geo": json.dumps(about.geo(), sort_keys=True)})


def write_parquet(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write rows as a plain Parquet file with zstd, in the order they come in; other columns are left out.

    Args:
        path: a local file; whole when this returns.
        tables: rows of `schema`.
        schema: the file's columns.
    """
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in row_groups(table.select(schema.names).cast(schema) for table in tables):
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)


def _bbox_type() -> pa.DataType:
    import pyarrow as pa

    return pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])


class _About:
    """What the metadata say of all geometries, learned as they pass."""

    def __init__(self) -> None:
        self.types: set[str] = set()
        self.bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def with_bbox(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        """The rows with the bounds of each geometry."""
        import pyarrow as pa

        shapes = shapely.from_wkb(table[GEOMETRY].to_numpy(zero_copy_only=False))
        bounds = shapely.bounds(shapes).reshape(-1, 4)
        nowhere = np.isnan(bounds).any(axis=1)  # a footprint without geometry
        self.types |= {str(shape.geom_type) for shape in shapes if shape is not None}
        if not nowhere.all():
            self.bounds[:2] = np.fmin(self.bounds[:2], bounds[~nowhere, :2].min(axis=0))
            self.bounds[2:] = np.fmax(self.bounds[2:], bounds[~nowhere, 2:].max(axis=0))
        edges = [pa.array(edge, mask=nowhere) for edge in bounds.T]
        boxes = pa.StructArray.from_arrays(edges, fields=list(_bbox_type()))
        return table.append_column(schema.field(BBOX), boxes)

    def geo(self) -> dict[str, Any]:
        """The `geo` metadata of GeoParquet 1.1.0."""
        column: dict[str, Any] = {
            "encoding": "WKB",
            "crs": _crs(),
            "geometry_types": sorted(self.types),
            "covering": {"bbox": {name: [BBOX, name] for name in ("xmin", "ymin", "xmax", "ymax")}},
        }
        if np.isfinite(self.bounds).all():
            column["bbox"] = self.bounds.tolist()
        return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}


@lru_cache(maxsize=1)
def _crs() -> Any:
    """PROJJSON of EPSG:4326."""
    from pyproj import CRS

    return CRS.from_epsg(4326).to_json_dict()


def row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of many tables, gathered to what a row group holds."""
    import pyarrow as pa

    held: list[pa.Table] = []
    for table in tables:
        while len(table):
            room = ROW_GROUP_ROWS - sum(map(len, held))
            held.append(table.slice(0, room))
            table = table.slice(room)
            if len(table) or sum(part.nbytes for part in held) >= ROW_GROUP_BYTES:
                yield pa.concat_tables(held)
                held = []
    if held:
        yield pa.concat_tables(held)
