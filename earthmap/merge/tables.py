"""The tables of a map, and the order that their rows have whatever the area, the tiling and the order of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

PLACE = "place"
"""Name of the column that rows are brought into order by, and which no file has."""
FEATURE_ORDER = (PLACE, "query_key", "answer", "datetime_min", "geometry")
COVERAGE_ORDER = (PLACE, "tile_id", "query_key", "observation", "datetime_min", "geometry")
"""Keys of the order of rows, the first decides first; nothing comes before anything."""

_LEVEL = 16
"""Of the Hilbert curve: 2^16 steps of longitude, and as many of latitude."""


def feature_schema() -> pa.Schema:
    """`features.parquet` (geometry as WKB, EPSG:4326): what was found."""
    import pyarrow as pa

    text, time = pa.string(), pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("geometry", pa.binary()),
            ("query", text),
            ("query_key", text),
            ("task", text),
            ("answer", text),
            ("probability", pa.float64()),
            ("fraction", pa.float64()),
            ("area_m2", pa.float64()),
            ("tile_ids", pa.list_(text)),
            ("scenes", pa.list_(text)),
            ("datetime_min", time),
            ("datetime_max", time),
            ("sensor", text),
            ("predictor", text),
            ("notes", pa.list_(text)),
            ("id", text),  # of task damage: the footprint's own
            ("footprint", pa.int64()),  # and the number of its row in its file, from 1 on
            ("grade_xbd", text),  # xBD's name of the grade; `answer` is that of Copernicus EMS
            ("scores", text),  # probability of each grade by its word, as JSON
            ("reason", text),  # why it is not analysed
            ("message", text),  # the same for people
            ("properties", text),  # the other columns of its row, as JSON
            ("observation", text),  # of an answer about a whole tile
            ("embedding", pa.list_(pa.float32())),  # of task embed: all of one sensor have one length
            ("times", pa.list_(time)),  # of tasks track and series: when it was seen, in order
            ("boxes", pa.list_(pa.float64())),  # of task track: west, south, east, north at each time
            ("length_m", pa.float64()),  # of its way
            ("speed_m_s", pa.float64()),  # the mean along it
        ]
    )


def coverage_schema() -> pa.Schema:
    """`coverage.parquet` (geometry as WKB, EPSG:4326): one row for each planned tile, query and observation."""
    import pyarrow as pa

    text, time = pa.string(), pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("geometry", pa.binary()),
            ("tile_id", text),
            ("query_key", text),
            ("observation", text),
            ("status", text),
            ("stage", text),
            ("reason", text),
            ("message", text),
            ("address", text),
            ("seen_share", pa.float64()),
            ("area_km2", pa.float64()),
            ("seen_km2", pa.float64()),
            ("datetime_min", time),
            ("datetime_max", time),
            ("sensor", text),
            ("scenes", pa.list_(text)),
            ("alignment", text),  # of a change: how its dates lie on each other (earthmap.pipeline.pairing)
            ("shift_east_m", pa.float64()),  # how far the second date showed the ground off the first
            ("shift_north_m", pa.float64()),
            ("residual_px", pa.float64()),  # how far apart they lie as they were compared; null where nobody knows
            ("orders_agree", pa.float64()),  # share of the seen ground of which both orders of the dates say the same
            ("pair", text),  # all that is known of the two dates, as JSON
            ("triage_score", pa.float64()),  # of the targets on the coarse picture; null where it did not tell
            ("triage_skips", pa.bool_()),  # that score is too low; null where the question is not triaged
            ("audited", pa.bool_()),  # of the sample that is asked whatever the score
        ]
    )


def region_schema() -> pa.Schema:
    """Regions of a cell that may go on in another: what they are, and where they come from."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("geometry", pa.binary()),  # whole pixels of the zone's lattice, x eastwards and y northwards
            ("query", text),
            ("sensor", text),
            ("observation", text),
            ("answer", text),
            ("tiles", pa.uint16()),  # bit i: it has a pixel of cell.tiles()[i]
            ("source", text),  # Source.to_json
        ]
    )


def view_schema() -> pa.Schema:
    """Things that a cell found and another may know of: what each tile says of each, and where that comes from."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("geometry", pa.binary()),  # pixels of the zone's lattice, x eastwards and y northwards
            ("query", text),
            ("sensor", text),
            ("observation", text),
            ("answer", text),
            ("group", pa.int32()),  # views of the cell that agree have one number
            ("kind", text),
            ("tile", text),  # Tile.id
            ("score", pa.float64()),
            ("cut", pa.bool_()),  # by the edge of the tile's picture
            ("source", text),  # Source.to_json
            ("date", text),  # of what is followed through time, the observation; else empty
            ("time", pa.timestamp("us", tz="UTC")),  # and when the tile was seen by it
            ("track", pa.int32()),  # and the number of the thing in the tile's answer
        ]
    )


def placed_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows whose `geometry` is a shapely one as a table of `schema` with a column PLACE; what a row does not name is
    null."""
    import pyarrow as pa

    if not rows:
        return schema.append(pa.field(PLACE, pa.uint32())).empty_table()
    geometries = np.empty(len(rows), object)
    geometries[:] = [row["geometry"] for row in rows]
    columns = [
        pa.array(shapely.to_wkb(geometries), pa.binary())
        if name == "geometry"
        else pa.array([row.get(name) for row in rows], schema.field(name).type)
        for name in schema.names
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    return table.append_column(PLACE, pa.array(hilbert_places(geometries), pa.uint32()))


def hilbert_places(geometries: NDArray[np.object_]) -> NDArray[np.uint32]:
    """How far along the Hilbert curve over all longitudes and latitudes the middle of each geometry's bounds lies.

    The curve is that over the whole Earth, so that an area decides nothing about the order; its first step from the
    south-western corner goes east, as in Hilbert's own figure turned upright, and as geopandas walks it.
    """
    if not len(geometries):
        return np.empty(0, np.uint32)
    west, south, east, north = shapely.bounds(geometries).T
    side = 2**_LEVEL - 1
    x, y = ((west + east) / 2 + 180.0) * (side / 360.0), ((south + north) / 2 + 90.0) * (side / 180.0)
    # What has no place, or none on the Earth, comes with what is nearest; nothing comes first.
    x, y = (np.floor(np.clip(np.nan_to_num(axis), 0, side)).astype(np.int64) for axis in (x, y))
    place = np.zeros(len(x), np.int64)
    for level in reversed(range(_LEVEL)):
        right, up = x >> level & 1, y >> level & 1
        place += (3 * right ^ up) << 2 * level
        # The quarter that the curve walks next, turned so that it starts in the south-west again.
        flipped = (up == 0) & (right == 1)
        x, y = np.where(flipped, side - x, x), np.where(flipped, side - y, y)
        x, y = np.where(up == 0, y, x), np.where(up == 0, x, y)
    return place.astype(np.uint32)
