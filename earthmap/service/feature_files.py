"""Features of a run by page, straight from its GeoParquet file: on disk or S3, and never more than a row group of it.

A feature's id is the number of its row, from 1 on: the file of a finished run is never written again (equal runs write
equal bytes), so that ids stay, and a page starts where the one before it ended, whatever happens in between.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.catalog import Interval
from earthmap.catalog.intervals import format_time
from earthmap.catalog.ranges import RangedFile
from earthmap.outputs.exchange import DIGITS, Asked, as_exported, read_asked
from earthmap.service.parameters import Box
from earthmap.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

PAGE_BYTES = 16 * 2**20
"""Of a page's features at most, or one feature; a page that would be larger ends earlier."""

BATCH_ROWS = 1_000

_EDGES = ("xmin", "ymin", "xmax", "ymax")

_TIMES = ("datetime_min", "datetime_max")

_NEEDED = frozenset(("geometry", "query_key", "sensor", *_TIMES))
"""Columns that are read even where they hold nothing."""

_KEPT_BACK = frozenset(("bbox", "embedding"))

_PART_BYTES = 256 * 1024
"""What is read at once from S3 at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which features are meant. Hashable: counts are kept by it."""

    boxes: tuple[Box, ...] = ()
    """They meet one of these, none of which crosses the antimeridian; or have no geometry. Empty for anywhere."""
    interval: Interval | None = None
    """They were seen then, or have no time. None for any time."""
    equal: tuple[tuple[str, str], ...] = ()
    """Columns, and the text that each must hold."""

    @property
    def is_all(self) -> bool:
        """Whether every feature is meant."""
        return not (self.boxes or self.interval or self.equal)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturePage:
    """Some features in the order of their ids."""

    features: tuple[str, ...]
    """GeoJSON text (RFC 7946)."""
    last: int | None
    """Id of the last of them; None where there is none."""
    matched: int
    """Features that are meant in all."""
    is_last: bool
    """Whether no page follows."""


class FeatureFile:
    """`features.parquet` or `coverage.parquet` of a finished run; open for one request.

    Example:
        >>> with open_features(storage, "features.parquet", "summary.json") as file:  # doctest: +SKIP
        ...     file.page(Wanted(boxes=((4.0, 45.0, 4.1, 45.1),)), limit=10).matched
        3
    """

    def __init__(self, file: Any, *, asked: Mapping[str, Asked], key: tuple[str, str]) -> None:
        self._file, self._asked, self._key = file, asked, key
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum([group.num_rows for group in groups])]).astype(int)

    @property
    def rows(self) -> int:
        """Features in all."""
        return int(self._starts[-1])

    @property
    def filters(self) -> dict[str, pa.DataType]:
        """Columns that features can be chosen by: those of text, whole numbers, and yes or no."""
        import pyarrow.types as kinds

        plain = (kinds.is_string, kinds.is_integer, kinds.is_boolean)
        return {field.name: field.type for field in self._file.schema_arrow if any(is_(field.type) for is_ in plain)}

    @property
    def properties(self) -> dict[str, dict[str, Any]]:
        """What features have, each with its JSON Schema; any of it may be null."""
        exported = as_exported(_none_of(self._file.schema_arrow, self._columns()), self._asked, lists=True).schema
        return {field.name: _json_schema(field.type) for field in exported if field.name != "geometry"}

    def page(self, wanted: Wanted, *, limit: int, after: int = 0) -> FeaturePage:
        """The first `limit` of the features that are meant behind the id `after`.

        Raises:
            StorageError: where the file cannot be read.
        """
        known = self.rows if wanted.is_all else _COUNTS.get((self._key, wanted))
        numbers, matched = self._find(wanted, after=after, most=limit + 1, count=known is None)
        if known is None:
            _COUNTS.put((self._key, wanted), matched)
        features = self._features(numbers[:limit])
        shown = len(features)
        return FeaturePage(
            features=tuple(features),
            last=numbers[shown - 1] + 1 if shown else None,
            matched=matched if known is None else known,
            is_last=shown == len(numbers),
        )

    def one(self, number: int) -> str | None:
        """The feature of that id as GeoJSON text; None where there is none."""
        found = self._features([number - 1]) if 1 <= number <= self.rows else []
        return found[0] if found else None

    def _find(self, wanted: Wanted, *, after: int, most: int, count: bool) -> tuple[list[int], int]:
        """Rows behind the first `after`, `most` at most, and with `count` how many are meant in all."""
        found, matched = list[int](), 0
        for group, (start, end) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            if not count and (end <= after or len(found) >= most):
                continue
            rows = np.nonzero(self._mask(group, wanted))[0] + int(start)
            matched += len(rows)
            found += rows[np.searchsorted(rows, after) :][: most - len(found)].tolist()
        return found, matched

    # ── which rows ───────────────────────────────────────────────────────────────────────────────────────────

    def _mask(self, group: int, wanted: Wanted) -> Mask:
        """(rows,) which rows of a row group are meant."""
        rows = self._file.metadata.row_group(group).num_rows
        mask: Mask = np.ones(rows, bool)
        if wanted.is_all:
            return mask
        if self._is_elsewhere(group, wanted.boxes):
            return np.zeros(rows, bool)
        columns = [name for name, _ in wanted.equal]
        columns += [*(_TIMES if wanted.interval else ()), *(["bbox"] if wanted.boxes else [])]
        table = self._file.read_row_group(group, columns=columns)
        for name, text in wanted.equal:
            mask &= _holds(table[name], text)
        if wanted.interval is not None:
            mask &= _overlaps(table, wanted.interval)
        if wanted.boxes:
            mask &= self._meets(group, table, wanted.boxes, mask)
        return mask

    def _meets(self, group: int, table: pa.Table, boxes: Sequence[Box], asked: Mask) -> Mask:
        """(rows,) which rows meet a box: by their bounds where these tell, by their geometry where they do not."""
        import pyarrow.compute as pc

        edges = [pc.struct_field(table["bbox"], name).to_numpy() for name in _EDGES]
        nowhere = np.isnan(edges[0])
        sure: Mask = nowhere.copy()
        near: Mask = np.zeros(len(nowhere), bool)
        for west, south, east, north in boxes:
            near |= (edges[0] <= east) & (edges[2] >= west) & (edges[1] <= north) & (edges[3] >= south)
            sure |= (edges[0] >= west) & (edges[2] <= east) & (edges[1] >= south) & (edges[3] <= north)
        unsure = np.nonzero(near & ~sure & asked)[0]
        if len(unsure):
            shapes = self._file.read_row_group(group, columns=["geometry"])["geometry"].take(unsure)
            ground = shapely.MultiPolygon([shapely.box(*box) for box in boxes])
            shapely.prepare(ground)
            sure[unsure] = shapely.intersects(ground, shapely.from_wkb(shapes.to_numpy()))
        return sure

    def _is_elsewhere(self, group: int, boxes: Sequence[Box]) -> bool:
        """Whether statistics show that no row of the row group meets a box; False where they do not tell."""
        if not boxes:
            return False
        about = self._file.metadata.row_group(group)
        columns = {about.column(index).path_in_schema: about.column(index) for index in range(about.num_columns)}
        kept = [columns[f"bbox.{name}"].statistics for name in _EDGES]
        if any(one is None or not one.has_min_max or one.null_count for one in kept):
            return False
        low_x, low_y, high_x, high_y = kept[0].min, kept[1].min, kept[2].max, kept[3].max
        return not any(
            low_x <= east and high_x >= west and low_y <= north and high_y >= south
            for west, south, east, north in boxes
        )

    # ── what rows say ────────────────────────────────────────────────────────────────────────────────────────

    def _features(self, numbers: Sequence[int]) -> list[str]:
        """The rows as GeoJSON features, PAGE_BYTES of them at most, or one."""
        found, size = list[str](), 0
        for batch, first in self._batches(numbers):
            for text in _as_features(as_exported(batch, self._asked, lists=True), first):
                size += len(text)
                if found and size > PAGE_BYTES:
                    return found
                found.append(text)
        return found

    def _batches(self, numbers: Sequence[int]) -> Iterator[tuple[pa.RecordBatch, list[int]]]:
        """The rows of those numbers, a few at a time, with their numbers."""
        rows, columns = np.array(numbers, int), self._columns()
        for group, (start, end) in enumerate(zip(self._starts, self._starts[1:], strict=False)):
            mine = rows[(rows >= start) & (rows < end)]
            place = int(start)
            if not len(mine):
                continue
            for batch in self._file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=columns):
                here = mine[(mine >= place) & (mine < place + len(batch))]
                if len(here):
                    yield batch.take((here - place).tolist()), here.tolist()
                place += len(batch)
                if place > mine[-1]:
                    break

    def _columns(self) -> list[str]:
        """The columns that say something, by the statistics of the file."""
        about = self._file.metadata
        silent: dict[str, bool] = {}
        for group in range(about.num_row_groups):
            for index in range(about.num_columns):
                column = about.row_group(group).column(index)
                kept = column.statistics
                nothing = kept is not None and kept.null_count == column.num_values
                name = column.path_in_schema.partition(".")[0]
                silent[name] = silent.get(name, True) and nothing
        return [
            name
            for name in self._file.schema_arrow.names
            if name not in _KEPT_BACK and (name in _NEEDED or not silent.get(name, False))
        ]


def _none_of(schema: pa.Schema, names: Sequence[str]) -> pa.RecordBatch:
    """No rows of some columns."""
    import pyarrow as pa

    fields = [schema.field(name) for name in names]
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in fields], schema=pa.schema(fields))


def _json_schema(kind: pa.DataType) -> dict[str, Any]:
    """JSON Schema of the values of a column."""
    import pyarrow.types as kinds

    if kinds.is_list(kind):
        return {"type": "array", "items": _json_schema(kind.value_type)}
    if kinds.is_timestamp(kind):
        return {"type": "string", "format": "date-time"}
    for name, is_ in (("integer", kinds.is_integer), ("number", kinds.is_floating), ("boolean", kinds.is_boolean)):
        if is_(kind):
            return {"type": name}
    return {"type": "string"}


def _holds(column: pa.ChunkedArray, text: str) -> Mask:
    """(rows,) where a column holds what the text says; nowhere for a text that is no value of its kind."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        value = pa.scalar(text).cast(column.type)
    except pa.ArrowInvalid:
        return np.zeros(len(column), bool)
    found: Mask = pc.fill_null(pc.equal(column, value), False).to_numpy()
    return found


def _overlaps(table: pa.Table, interval: Interval) -> Mask:
    """(rows,) where the times of a row meet the interval, or are not known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    mask: Mask = np.ones(len(table), bool)
    kind = table.schema.field(_TIMES[0]).type
    if interval.end is not None:
        mask &= pc.fill_null(pc.less_equal(table[_TIMES[0]], pa.scalar(interval.end, kind)), True).to_numpy()
    if interval.start is not None:
        mask &= pc.fill_null(pc.greater_equal(table[_TIMES[1]], pa.scalar(interval.start, kind)), True).to_numpy()
    return mask


# ── GeoJSON ──────────────────────────────────────────────────────────────────────────────────────────────────


def _as_features(batch: pa.RecordBatch, rows: Sequence[int]) -> Iterator[str]:
    """Rows as GeoJSON features: DIGITS digits, exterior rings anticlockwise, nothing that is not JSON."""
    names = [name for name in batch.schema.names if name != "geometry"]
    columns = [batch[name].to_pylist() for name in names]
    shapes = _geojson(batch["geometry"])
    for index, row in enumerate(rows):
        properties = {name: _plain(column[index]) for name, column in zip(names, columns, strict=True)}
        told = json.dumps(properties, ensure_ascii=False, allow_nan=False)
        yield f'{{"type":"Feature","id":{row + 1},"geometry":{shapes[index]},"properties":{told}}}'


def _geojson(column: pa.Array) -> list[str]:
    shapes = shapely.from_wkb(column.to_numpy(zero_copy_only=False))
    rounded = shapely.transform(shapes, lambda places: np.round(places, DIGITS))
    texts = shapely.to_geojson(shapely.orient_polygons(rounded))
    return ["null" if text is None else str(text) for text in texts]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return format_time(value) if hasattr(value, "isoformat") else value


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def open_features(storage: Storage, path: str, summary: str) -> Iterator[FeatureFile]:
    """The features at `path` of a run folder whose summary is at `summary`.

    Raises:
        FileNotFoundError: where there is none.
        StorageError: where it cannot be read.
    """
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as stack:
        source = stack.enter_context(_open(storage, path))
        file = stack.enter_context(pq.ParquetFile(source, metadata=_footer(storage.address, path)))
        yield FeatureFile(file, asked=_asked(storage.address, summary), key=(storage.address, path))


def _open(storage: Storage, path: str) -> Any:
    if storage.is_local:
        return open(storage.locate(path), "rb")  # noqa: PTH123 (an address, which may be remote elsewhere)
    return io.BufferedReader(_Remote(storage, path), _PART_BYTES)


@functools.lru_cache(maxsize=128)
def _footer(address: str, path: str) -> Any:
    import pyarrow.parquet as pq

    with _open(Storage(address), path) as source:
        return pq.read_metadata(source)


@functools.lru_cache(maxsize=128)
def _asked(address: str, summary: str) -> Mapping[str, Asked]:
    return read_asked(json.loads(Storage(address).read(summary)))


class _Remote(RangedFile):
    """A file elsewhere, of which parts are read."""

    def __init__(self, storage: Storage, path: str) -> None:
        super().__init__(storage.size(path))
        self._storage, self._path = storage, path

    def fetch(self, start: int, count: int) -> bytes:
        return self._storage.read_part(self._path, start=start, end=start + count)


class _Counts:
    """How many features were found, by file and what was meant: pages of one question count once."""

    def __init__(self, most: int) -> None:
        self._most, self._kept = most, dict[Any, int]()

    def get(self, key: Any) -> int | None:
        return self._kept.get(key)

    def put(self, key: Any, count: int) -> None:
        while len(self._kept) >= self._most:
            with contextlib.suppress(KeyError, StopIteration, RuntimeError):  # another thread was first
                del self._kept[next(iter(self._kept))]
        self._kept[key] = count


_COUNTS = _Counts(1_000)
