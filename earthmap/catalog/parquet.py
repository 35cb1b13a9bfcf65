"""A stac-geoparquet file, read with pyarrow: only the rows whose box and collection can match become items.

The columns are those of the stac-geoparquet specification 1.0 and 1.1: an item's properties stand at the top level,
its geometry is WKB, its bbox a struct, and what an item lacks is null.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import shapely
import shapely.geometry

from earthmap.catalog.intervals import format_time
from earthmap.catalog.source import Extent, SourceItem, Wanted, item_base, items_extent, read_box
from earthmap.catalog.transport import is_remote, local_path
from earthmap.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""

_TOP_LEVEL = ("type", "stac_version", "stac_extensions", "id", "bbox", "geometry", "collection", "links", "assets")
_NEEDED = ("id", "geometry", "assets")
_BATCH_ROWS = 1_000


class ParquetCatalog:
    """Items in one stac-geoparquet file; `data` are its bytes where it is not a local file."""

    def __init__(self, *, address: str, data: bytes | None = None) -> None:
        self._address = address
        self._data = data

    @property
    def address(self) -> str:
        """The path or address of the file."""
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
        import pyarrow as pa

        try:
            dataset = self._dataset()
            for batch in dataset.to_batches(filter=_filter(dataset.schema, wanted), batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    item = decode_row(row)
                    yield SourceItem(item, item_base(item, self._address))
        except (pa.ArrowException, OSError, shapely.errors.ShapelyError) as error:
            raise CatalogError(
                f"the catalogue {self._address} cannot be read as Parquet: {error}",
                expected="a whole stac-geoparquet file",
            ) from error

    def _dataset(self) -> ds.Dataset:
        import pyarrow.dataset as ds
        import pyarrow.parquet as pq

        if self._data is None and not is_remote(self._address):
            dataset = ds.dataset(str(local_path(self._address)), format="parquet")
        else:
            dataset = ds.dataset(pq.read_table(io.BytesIO(self._data or b"")))
        missing = [name for name in _NEEDED if name not in dataset.schema.names]
        if missing:
            raise CatalogError(
                f"the catalogue {self._address} is Parquet without the column {missing[0]!r}",
                expected="stac-geoparquet, with the columns id, geometry and assets",
                fix="an area belongs to --area",
            )
        return dataset


def _filter(schema: pa.Schema, wanted: Wanted) -> ds.Expression | None:
    import pyarrow as pa
    import pyarrow.dataset as ds

    conditions = []
    if wanted.collections and "collection" in schema.names:
        conditions.append(ds.field("collection").isin(list(wanted.collections)))
    if wanted.geometry is not None and "bbox" in schema.names and pa.types.is_struct(schema.field("bbox").type):
        west, south, east, north = wanted.geometry.bounds
        x_min, y_min, x_max, y_max = (ds.field("bbox", name) for name in ("xmin", "ymin", "xmax", "ymax"))
        # A box that crosses the antimeridian has xmin > xmax; its geometry decides later.
        across = (x_min > x_max) | ((x_min <= east) & (x_max >= west))
        conditions.append(across & (y_min <= north) & (y_max >= south))
    if not conditions:
        return None
    combined = conditions[0]
    for condition in conditions[1:]:
        combined = combined & condition
    return combined


def decode_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row as the STAC item that it was made from: nulls are what the item lacked."""
    item: dict[str, Any] = {key: _json(row[key]) for key in _TOP_LEVEL if row.get(key) is not None}
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
