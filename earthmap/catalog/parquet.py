"""stac-geoparquet, read with pyarrow: only rows whose box and collection can match become items.

The columns are those of the stac-geoparquet specification 1.0 and 1.1, as the packages stac-geoparquet and rustac
write them: an item's properties stand at the top level, its geometry is WKB, its bbox a struct, and what an item lacks
is null. Parts of a file (row groups) whose statistics exclude the request are not fetched.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import shapely
import shapely.geometry

from earthmap.catalog.documents import local_path
from earthmap.catalog.intervals import format_time
from earthmap.catalog.source import Extent, SourceItem, Wanted, item_base, items_extent, read_box
from earthmap.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from earthmap.catalog.transport import CatalogIO

MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""

_TOP_LEVEL = ("type", "stac_version", "stac_extensions", "id", "bbox", "geometry", "collection", "links", "assets")
_NEEDED = ("id", "geometry", "assets")
_BATCH_ROWS = 1_000

Range = tuple[Any, Any]
"""Least and greatest value of a column in a row group."""


class ParquetCatalog:
    """Items in one or more stac-geoparquet files, local, http(s) or s3."""

    def __init__(self, io: CatalogIO, *, address: str, files: Sequence[str]) -> None:
        self._io = io
        self._address = address
        self._files = tuple(files)

    @property
    def address(self) -> str:
        """The path or address of the file, folder or pattern."""
        return self._address

    def collections(self) -> Mapping[str, Extent]:
        """The extents of the items themselves, by the collections that they name."""
        grouped: dict[str, list[SourceItem]] = {}
        for found in self.items(Wanted()):
            if found.collection:
                grouped.setdefault(found.collection, []).append(found)
        return {name: items_extent(members) for name, members in sorted(grouped.items())}

    def items(self, wanted: Wanted) -> Iterator[SourceItem]:
        """The items of the wanted collections whose box meets the wanted ground's box."""
        for number, file in enumerate(self._files):
            if number and number % 100 == 0:
                self._io.say(f"{number:,} of {len(self._files):,} files of {self._address} read")
            yield from self._items_of(file, wanted)

    def _items_of(self, file: str, wanted: Wanted) -> Iterator[SourceItem]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with _opened(file, self._io) as stream, pq.ParquetFile(pa.PythonFile(stream, mode="r")) as parquet:
                _check_columns(parquet.schema_arrow, file)
                groups = [n for n in range(parquet.num_row_groups) if _may_match(parquet.metadata.row_group(n), wanted)]
                condition = _filter(parquet.schema_arrow, wanted)
                for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=groups) if groups else ():
                    table = pa.Table.from_batches([batch])
                    for row in (table if condition is None else table.filter(condition)).to_pylist():
                        item = decode_row(row)
                        yield SourceItem(item, item_base(item, file))
        except (pa.ArrowException, OSError, ValueError, shapely.errors.ShapelyError) as error:
            if isinstance(error, CatalogError):
                raise
            raise CatalogError(
                f"the catalogue {file} cannot be read as Parquet: {error}", expected="a whole stac-geoparquet file"
            ) from error


@contextlib.contextmanager
def _opened(file: str, io: CatalogIO) -> Iterator[IO[bytes]]:
    """`file` as a seekable stream; a remote one is fetched in ranges."""
    if "://" in file and not file.startswith("file://"):
        with io.open(file) as stream:
            yield stream
        return
    with local_path(file).open("rb") as stream:
        yield stream


def _check_columns(schema: pa.Schema, file: str) -> None:
    missing = [name for name in _NEEDED if name not in schema.names]
    if missing:
        raise CatalogError(
            f"the catalogue {file} is Parquet without the column {missing[0]!r}",
            expected="stac-geoparquet, with the columns id, geometry and assets",
            fix="an area belongs to --area",
        )


def _ranges(group: pq.RowGroupMetaData) -> dict[str, Range]:
    """The range of each column that has one and, except for parts of a box, is set in every row."""
    ranges = {}
    for number in range(group.num_columns):
        column = group.column(number)
        known = column.statistics
        if known is None or not known.has_min_max:
            continue
        if column.path_in_schema.startswith("bbox.") or (known.has_null_count and known.null_count == 0):
            ranges[column.path_in_schema] = (known.min, known.max)
    return ranges


def _may_match(group: pq.RowGroupMetaData, wanted: Wanted) -> bool:
    """False where the statistics of a row group exclude every row of it. Rows without a box match no ground."""
    ranges = _ranges(group)
    names = ranges.get("collection")
    known = names is not None and all(isinstance(name, str) for name in names)
    if wanted.collections and names and known and not any(names[0] <= name <= names[1] for name in wanted.collections):
        return False
    return wanted.geometry is None or _meets(ranges, wanted.geometry.bounds)


def _meets(ranges: Mapping[str, Range], bounds: tuple[float, float, float, float]) -> bool:
    west, south, east, north = bounds
    try:
        x_min, y_min, x_max, y_max = (ranges[f"bbox.{name}"] for name in ("xmin", "ymin", "xmax", "ymax"))
    except KeyError:
        return True
    if y_min[0] > north or y_max[1] < south:
        return False
    # A box that crosses the antimeridian has its west end in the east and its east end in the west.
    across = x_max[0] < 0 < x_min[1]
    return bool(across or not (x_min[0] > east or x_max[1] < west))


def _filter(schema: pa.Schema, wanted: Wanted) -> pc.Expression | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    conditions = []
    if wanted.collections and "collection" in schema.names:
        conditions.append(pc.field("collection").isin(list(wanted.collections)))
    if wanted.geometry is not None and "bbox" in schema.names and pa.types.is_struct(schema.field("bbox").type):
        west, south, east, north = wanted.geometry.bounds
        x_min, y_min, x_max, y_max = (pc.field("bbox", name) for name in ("xmin", "ymin", "xmax", "ymax"))
        # A box that crosses the antimeridian has xmin > xmax; its geometry decides later.
        across = (x_min > x_max) | ((x_min <= east) & (x_max >= west))
        inside = across & (y_min <= north) & (y_max >= south)
        conditions.append(inside | pc.field("bbox").is_null())
    if not conditions:
        return None
    combined = conditions[0]
    for condition in conditions[1:]:
        combined = combined & condition
    return combined


def decode_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row as the STAC item that it was made from: nulls are what the item lacked."""
    item: dict[str, Any] = {key: _json(row[key]) for key in _TOP_LEVEL if row.get(key) is not None}
    for key in ("assets", "links", "stac_extensions"):
        if isinstance(item.get(key), str):  # databases write nested values as JSON
            item[key] = json.loads(item[key])
    item["type"] = "Feature"
    geometry = row.get("geometry")
    item["geometry"] = shapely.geometry.mapping(shapely.from_wkb(geometry)) if geometry is not None else None
    if box := read_box(row.get("bbox")):
        item["bbox"] = list(box)
    properties = {key: _json(value) for key, value in row.items() if key not in _TOP_LEVEL and value is not None}
    item["properties"] = {"datetime": None, **properties}
    return item


def _json(value: Any) -> Any:
    """A value of Arrow as JSON has it, without the nulls that stand for keys of other rows."""
    if isinstance(value, datetime.datetime):
        return format_time(value if value.tzinfo else value.replace(tzinfo=datetime.UTC))
    if isinstance(value, Mapping):
        return {key: _json(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, (list, tuple)):
        return [_json(entry) for entry in value]
    if isinstance(value, bytes):  # proj:geometry, which the specification stores as WKB
        return shapely.geometry.mapping(shapely.from_wkb(value))
    return value
