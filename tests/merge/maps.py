"""A whole map in memory, made of cells as publishing makes it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import geopandas
import pyarrow as pa

from earthmap.grid import AreaOfInterest, Cell
from earthmap.merge import (
    COVERAGE_ORDER,
    FEATURE_ORDER,
    CellMerge,
    Joining,
    Sums,
    coverage_schema,
    feature_schema,
)
from earthmap.outputs import Ordering, write_geoparquet
from earthmap.tasks import Query


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The map of some cells."""

    features: geopandas.GeoDataFrame = field(repr=False)
    coverage: geopandas.GeoDataFrame = field(repr=False)
    sums: Sums = field(repr=False)
    features_bytes: bytes = field(repr=False)
    """`features.parquet`."""


def joined(merges: Iterable[CellMerge], *, area: AreaOfInterest, queries: Mapping[str, Query]) -> Merged:
    """The map that cells make together."""
    merges = list(merges)
    joining = Joining({Cell.parse(merge.cell_id) for merge in merges}, area, queries)
    sums, features = Sums(), list[pa.Table]()
    for merge in merges:
        sums.update(merge.sums)
        features += [merge.features, *joining.add(merge)]
    features += joining.finish()
    sums.update(joining.sums)
    found = _written(features, FEATURE_ORDER, feature_schema())
    seen = _written([merge.coverage for merge in merges], COVERAGE_ORDER, coverage_schema())
    return Merged(features=_frame(found), coverage=_frame(seen), sums=sums, features_bytes=found)


def _written(tables: Iterable[pa.Table], keys: tuple[str, ...], schema: pa.Schema) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        ordering = Ordering(Path(folder), keys=keys)
        for table in tables:
            ordering.add(table)
        path = Path(folder) / "written.parquet"
        write_geoparquet(path, ordering.in_order(), schema)
        return path.read_bytes()


def _frame(data: bytes) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(io.BytesIO(data))
