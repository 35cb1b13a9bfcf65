"""Results in the formats of other programs: GeoPackage, GeoJSON (RFC 7946) and FlatGeobuf.

GDAL writes them from Arrow, a batch at a time, so that a result of any size passes. Each file has the columns of
features.parquet or coverage.parquet, and PLACE: date and sensor in words, to filter and to label by.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.errors import StorageError
from earthmap.outputs.drawing import Look, is_shared, legend_name, legend_order, look_of
from earthmap.outputs.numbers import date_label, looks_at_several, parse_time
from earthmap.outputs.selection import READ_ROWS

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Objects = NDArray[np.object_]

PLACE = "date_and_sensor"
"""Column that every exported file has: `2024-05-04, sentinel-2-l2a`."""

GEOMETRY = "geom"
"""Name of the geometry column of a GeoPackage."""

DIGITS = 7
"""Of a degree in GeoJSON: 6 mm at most, a fiftieth of the finest pixel that is read; beyond it numbers are noise."""

_GPKG_VERSION = "1.2"
"""Of OGC 12-128: what QGIS 3 and ArcGIS read without a warning; nothing of a later version is used."""

_KEPT_BACK = ("bbox", "embedding")
"""Columns that other programs get no good of: an index of GeoParquet's, and vectors of hundreds of numbers."""

KINDS = ("Point", "LineString", "Polygon")
"""By dimension, 0 to 2."""

_SINGLE: Mapping[str, Callable[..., Any]] = {
    "Point": shapely.multipoints,
    "LineString": shapely.multilinestrings,
    "Polygon": shapely.multipolygons,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question of the run."""

    text: str
    task: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendLine:
    """What is drawn alike: one answer to one question at one date."""

    query_key: str
    query: str
    task: str
    place: str
    """Value of PLACE."""
    answer: str
    """Value of `answer`; empty for all of them together."""
    name: str
    look: Look


def read_asked(summary: Mapping[str, Any]) -> dict[str, Asked]:
    """The questions of a summary by their keys, in their order."""
    return {
        str(query["query_key"]): Asked(
            text=str(query.get("text", "")), task=str(query.get("task", "")), targets=tuple(query.get("targets") or ())
        )
        for query in summary.get("queries") or ()
    }


def geometry_types(path: Path) -> list[str]:
    """The types of geometry in a GeoParquet file, as its metadata list them."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path).metadata or {}
    return [str(name) for name in json.loads(metadata[b"geo"])["columns"]["geometry"]["geometry_types"]]


def kinds_in(path: Path) -> list[str]:
    """Members of KINDS that a GeoParquet file has; polygons where it has nothing."""
    found = {name.removeprefix("Multi") for name in geometry_types(path)}
    return [kind for kind in KINDS if kind in found] or ["Polygon"]


def read_legend(path: Path, asked: Mapping[str, Asked]) -> list[LegendLine]:
    """What a features file must be drawn as: question by question, date by date, answer by answer."""
    found: dict[tuple[str, str, str], None] = {}
    for batch in exported(
        path, asked, columns=["query_key", "task", "answer", "datetime_min", "datetime_max", "sensor"]
    ):
        rows = zip(*(batch[name].to_pylist() for name in ("query_key", "task", PLACE, "answer")), strict=True)
        for key, task, place, answer in rows:
            found[key, place, "" if is_shared(task) else str(answer)] = None
    targets = {key: one.targets for key, one in asked.items()}

    def order(line: tuple[str, str, str]) -> tuple[Any, ...]:
        key, place, answer = line
        return (list(asked).index(key), place, legend_order((key, answer), targets))

    ordered = sorted(found, key=order)
    return [
        LegendLine(
            query_key=key,
            query=asked[key].text,
            task=asked[key].task,
            place=place,
            answer=answer,
            name=legend_name(answer, task=asked[key].task, targets=asked[key].targets),
            look=look_of(answer, task=asked[key].task, targets=asked[key].targets),
        )
        for key, place, answer in ordered
    ]


def read_places(path: Path, asked: Mapping[str, Asked]) -> list[tuple[str, str]]:
    """(query key, value of PLACE) of a coverage file, questions in their order, then by date."""
    columns = ["query_key", "datetime_min", "datetime_max", "sensor"]
    found = {
        pair
        for batch in exported(path, asked, columns=columns)
        for pair in zip(batch["query_key"].to_pylist(), batch[PLACE].to_pylist(), strict=True)
    }
    keys = list(asked)
    return sorted(found, key=lambda pair: (keys.index(pair[0]), pair[1]))


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────


def exported(
    path: Path, asked: Mapping[str, Asked], *, columns: Sequence[str] | None = None, lists: bool = False
) -> Iterator[pa.RecordBatch]:
    """Rows of a features or coverage file as they are exported, geometry as WKB in EPSG:4326.

    Args:
        path: features.parquet or coverage.parquet, a local file.
        asked: the questions, for what the coverage only has keys of.
        columns: those to read; None for all.
        lists: whether lists stay lists; else they become JSON text, for formats without them.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = [name for name in columns or file.schema_arrow.names if name not in _KEPT_BACK]
        for batch in file.iter_batches(batch_size=READ_ROWS, columns=names):
            yield as_exported(batch, asked, lists=lists)


def exported_schema(path: Path, asked: Mapping[str, Asked], *, lists: bool = False) -> pa.Schema:
    """Columns of `exported`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([field for field in pq.read_schema(path) if field.name not in _KEPT_BACK])
    empty = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
    return as_exported(empty, asked, lists=lists).schema


def as_exported(batch: pa.RecordBatch, asked: Mapping[str, Asked], *, lists: bool) -> pa.RecordBatch:
    """Rows of a features or coverage file as `exported` gives them; the same arguments."""
    import pyarrow as pa

    keys = batch["query_key"].to_pylist()
    columns: dict[str, Any] = {}
    for name in batch.schema.names:
        column = _texts_of_times(batch[name])
        if pa.types.is_list(column.type) and not lists:
            column = pa.array([None if row is None else _json(row) for row in column.to_pylist()], pa.string())
        columns[name] = column
        if name == "query_key" and "query" not in batch.schema.names:
            columns["query"] = pa.array([asked[key].text for key in keys], pa.string())
    columns[PLACE] = pa.array(_places(batch, [asked[key].task for key in keys]), pa.string())
    return pa.RecordBatch.from_pydict(columns)


def _texts_of_times(column: pa.Array) -> pa.Array:
    """Lists of times as lists of texts, `2024-06-01T10:30:00Z`: no other format has the former."""
    import pyarrow as pa

    if not pa.types.is_list(column.type) or not pa.types.is_timestamp(column.type.value_type):
        return column
    rows = [None if row is None else [f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in row] for row in column.to_pylist()]
    return pa.array(rows, pa.list_(pa.string()))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _places(batch: pa.RecordBatch, tasks: Sequence[str]) -> list[str]:
    times = ([parse_time(value) for value in batch[name].to_pylist()] for name in ("datetime_min", "datetime_max"))
    rows = zip(*times, batch["sensor"].to_pylist(), tasks, strict=True)
    return [
        ", ".join(part for part in (date_label(start, end, pair=looks_at_several(task)), sensor) if part)
        for start, end, sensor, task in rows
    ]


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────


def write_geojson(source: Path, asked: Mapping[str, Asked], *, path: Path) -> int:
    """A FeatureCollection by RFC 7946 (WGS 84, exterior rings anticlockwise, DIGITS digits); returns its features."""
    schema = exported_schema(source, asked, lists=True)
    # Text stays text: the driver would write what looks like JSON as JSON.
    options = {"RFC7946": "YES", "COORDINATE_PRECISION": str(DIGITS), "AUTODETECT_JSON_STRINGS": "NO"}
    return _write(
        exported(source, asked, lists=True), schema, path=path, driver="GeoJSON", kind="Unknown", layer_options=options
    )


def write_flatgeobuf(source: Path, asked: Mapping[str, Asked], *, path: Path) -> int:
    """A FlatGeobuf file, with its spatial index unless a row has no geometry; returns its features."""
    kinds = kinds_in(source)
    kind, batches = _of_one_type(exported(source, asked), kinds[0] if len(kinds) == 1 else None)
    options = {"SPATIAL_INDEX": "NO"} if _lacks_geometry(source) else {}
    return _write(
        batches, exported_schema(source, asked), path=path, driver="FlatGeobuf", kind=kind, layer=path.stem,
        layer_options=options,
    )  # fmt: skip


def _lacks_geometry(path: Path) -> bool:
    """Whether some row has none, as a footprint may."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return any(batch["geometry"].null_count for batch in file.iter_batches(columns=["geometry"]))


def write_geopackage_layer(
    source: Path, asked: Mapping[str, Asked], *, path: Path, layer: str, kind: str, about: Mapping[str, str]
) -> int:
    """The rows of one kind of geometry as one more layer of a GeoPackage; returns their number.

    Args:
        source: features.parquet or coverage.parquet.
        asked: the questions.
        path: the GeoPackage; made where there is none.
        layer: name of the layer.
        kind: member of KINDS.
        about: what is recorded of the layer (`gpkg_metadata`).
    """
    only = kind if len(kinds_in(source)) > 1 else None
    kind, batches = _of_one_type(exported(source, asked), kind, only=only)
    return _write(
        batches, exported_schema(source, asked), path=path, driver="GPKG", kind=kind, layer=layer, append=path.exists(),
        dataset_options={} if path.exists() else {"VERSION": _GPKG_VERSION},
        layer_options={"GEOMETRY_NAME": GEOMETRY, "IDENTIFIER": layer}, layer_metadata=dict(about),
    )  # fmt: skip


def _of_one_type(
    batches: Iterator[pa.RecordBatch], kind: str | None, *, only: str | None = None
) -> tuple[str, Iterator[pa.RecordBatch]]:
    """Batches with every geometry as Multi… of `kind`, and that type; as they are and Unknown where it is None.

    `only` leaves out rows of any other kind.
    """
    if kind is None:
        return "Unknown", batches
    return f"Multi{kind}", (_promoted(batch, kind, only) for batch in batches)


def _promoted(batch: pa.RecordBatch, kind: str, only: str | None) -> pa.RecordBatch:
    import pyarrow as pa

    shapes = shapely.from_wkb(batch["geometry"].to_numpy(zero_copy_only=False))
    if only:
        mine = shapely.get_dimensions(shapes) == KINDS.index(only)
        if only == KINDS[-1]:
            mine |= shapes == None  # noqa: E711 - element by element: what has no geometry is left out of no layer
        batch, shapes = batch.filter(pa.array(mine)), shapes[mine]
    parts, row = shapely.get_parts(shapes, return_index=True)
    whole = np.empty(len(shapes), object)
    if len(parts):
        _SINGLE[kind](parts, indices=row, out=whole)
    return batch.set_column(
        batch.schema.get_field_index("geometry"), "geometry", pa.array(shapely.to_wkb(whole), pa.binary())
    )


def _write(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, *, path: Path, driver: str, kind: str | None, **options: Any
) -> int:
    import pyarrow as pa
    import pyogrio  # type: ignore[import-untyped]

    written = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal written
        for batch in batches:
            written += len(batch)
            yield batch

    rows = pa.RecordBatchReader.from_batches(schema, counted())
    place = {"geometry_name": "geometry", "geometry_type": kind, "crs": "EPSG:4326"} if kind else {}
    failures = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError)
    try:
        pyogrio.write_arrow(rows, path, driver=driver, **place, **options)
    except failures as error:
        raise StorageError(f"{path.name} cannot be written: {error}", fix="make room in TMPDIR") from error
    return written
