"""Which tiles of a finished run look like the one at a place: `earthmap similar`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import GridError, JobError
from earthmap.grid import Tile, Zone, owner
from earthmap.outputs import StripPanel, render_strip, write_geoparquet
from earthmap.pipeline.embeddings import Vectors, find_vectors, unit, vector_at
from earthmap.pipeline.evidence import open_observed, rgb_view
from earthmap.pipeline.folder import COVERAGE_PATH
from earthmap.pipeline.plan import read_plan
from earthmap.storage import Storage

if TYPE_CHECKING:
    import geopandas
    import pyarrow as pa
    from numpy.typing import NDArray

    from earthmap.catalog import Observation
    from earthmap.pipeline.folder import Run

DIGITS = 6
"""Of a likeness: beyond them the order in which numbers are added up shows."""

MOST_PICTURES = 12
"""Tiles on a picture, the one at the place among them."""

ENDINGS = (".parquet", ".geojson")
"""Of the files that a ranking is written to."""


def find_similar(
    run: Run,
    to: str | tuple[float, float],
    *,
    n: int = 20,
    sensor: str | None = None,
    observation: str | None = None,
) -> geopandas.GeoDataFrame:
    """The `n` tiles that look most like the one that owns a point, the most alike first, in EPSG:4326.

    Rows have `rank` (0 is the point's own tile), `likeness` (the cosine of the vectors, from -1 to 1), `tile_id`, `lon`
    and `lat` of the tile's middle, `datetime`, `observation`, `sensor`, `scenes`, and the tile's square. Equally alike
    tiles come in the order of their ids. One pass over the vectors, a piece at a time.

    Args:
        run: a finished run that was asked to embed, at once or later (`earthmap.pipeline.ask_run`).
        to: longitude and latitude in degrees, or both as text: `2.35,48.86`.
        n: how many beside the point's own; at least 1.
        sensor: whose vectors; needed where the run has several sensors'.
        observation: as the summary names it; None for the latest of each tile.

    Raises:
        JobError: where the run has no vectors, or none of the point's ground, with what to do.
    """
    if n < 1:
        raise JobError(f"--n {n}", expected="1 or more")
    point = parse_point(to)
    vectors = find_vectors(run, sensor=sensor, observation=observation)
    place = _place(vectors, point)
    likeness = np.empty(len(vectors.tiles))
    reference = vector_at(vectors, place)
    for places, batch in vectors.batches():
        likeness[places] = np.clip(unit(batch) @ reference, -1.0, 1.0)
    likeness = np.round(likeness, DIGITS) + 0.0
    order = np.argsort(-likeness, kind="stable")  # of equal ones by tile_id, as the tiles are ordered
    chosen = np.concatenate([[place], order[order != place][:n]])
    frame = vectors.frame(chosen)
    middles = np.array([_middle(name) for name in frame["tile_id"]])
    frame.insert(0, "rank", np.arange(len(frame)))
    frame.insert(1, "likeness", likeness[chosen])
    frame.insert(3, "lon", middles[:, 0])
    frame.insert(4, "lat", middles[:, 1])
    frame["sensor"] = vectors.sensor
    frame = frame.rename(columns={"datetime_max": "datetime"})
    return frame[[*COLUMNS, "geometry"]]


COLUMNS = ("rank", "likeness", "tile_id", "lon", "lat", "datetime", "observation", "sensor", "scenes")
"""Of a ranking, without its geometry."""


def parse_point(to: str | tuple[float, float]) -> tuple[float, float]:
    """Longitude and latitude in degrees. Raises JobError."""
    parts = to.split(",") if isinstance(to, str) else list(to)
    try:
        lon, lat = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise JobError(
            f"--to {to!r} is no place", expected="longitude and latitude in degrees, such as --to 2.35,48.86"
        ) from None
    if not (-360.0 <= lon <= 360.0 and -90.0 <= lat <= 90.0):
        raise JobError(
            f"--to {lon:g},{lat:g} is not on the Earth",
            expected="a longitude from -180 to 180, then a latitude from -90 to 90",
        )
    return lon, lat


def _place(vectors: Vectors, point: tuple[float, float]) -> int:
    """The position of the tile that owns a point. Raises JobError where it has no vector."""
    lon, lat = point
    try:
        own = owner(vectors.grid, [lon], [lat])
    except GridError as error:
        raise JobError(str(error)) from error
    zone = Zone(int(own.zone[0]), bool(own.north[0]))
    tile = Tile(vectors.grid, zone, int(own.row[0]), int(own.column[0]))
    found = np.flatnonzero(vectors.tiles["tile_id"].to_numpy() == tile.id)
    if len(found):
        return int(found[0])
    reasons = _reasons(vectors, tile.id)
    if reasons:
        raise JobError(
            f"the tile at {lon:g},{lat:g} has no vector: {reasons[0]}",
            expected=f"a place that {vectors.title} shows",
            fix="choose another place; coverage.parquet and report.html say what was seen",
        )
    west, south, east, north = vectors.run.job.area.bounds
    zones = sorted({Tile.parse(name).zone.id for name in vectors.tiles["tile_id"]})
    elsewhere = f", in zone {zone.id}, where the run has no tile" if zone.id not in zones else ""
    raise JobError(
        f"{lon:g},{lat:g} lies outside the run's ground{elsewhere}",
        expected=f"a place between {west:.4f},{south:.4f} and {east:.4f},{north:.4f}",
        fix="give longitude before latitude; for ground elsewhere map an area that holds both",
    )


def _reasons(vectors: Vectors, tile_id: str) -> list[str]:
    """Why a tile of the run has no vector, by observation; empty for a tile that the run does not have."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [("tile_id", "=", tile_id), ("query_key", "=", vectors.query_key)]
    data = pa.BufferReader(vectors.run.storage.read(COVERAGE_PATH))
    rows = pq.read_table(data, columns=["sensor", "reason", "message"], filters=wanted).to_pylist()
    mine = [row for row in rows if row["sensor"] in (vectors.sensor, None)] or rows
    return [str(row["message"] or row["reason"] or "it was answered for another observation") for row in mine]


def _middle(tile_id: str) -> tuple[float, float]:
    """Longitude and latitude of the middle of a tile's core."""
    from pyproj import Transformer

    lattice = Tile.parse(tile_id).core_geobox
    x, y = lattice.affine @ (lattice.shape[1] / 2, lattice.shape[0] / 2)
    lon, lat = Transformer.from_crs(str(lattice.crs), "EPSG:4326", always_xy=True).transform(x, y)
    return round(float(lon), 6), round(float(lat), 6)


# ── what it looks like ───────────────────────────────────────────────────────────────────────────────────────


def draw_similar(run: Run, found: geopandas.GeoDataFrame) -> bytes:
    """The first of `find_similar` as PNG: the point's own tile, and those that look most like it."""
    rows = list(found.head(MOST_PICTURES).to_dict("records"))
    pictures = tile_pictures(run, [(row["tile_id"], row["observation"]) for row in rows])
    panels = [
        StripPanel(
            rgba=picture,
            outline=(),
            title="the place" if not row["rank"] else f"{row['rank']}: {row['likeness']:.3f}",
            lines=(f"{row['lon']:.4f}, {row['lat']:.4f}", f"{row['datetime']:%Y-%m-%d}"),
        )
        for row, picture in zip(rows, pictures, strict=True)
    ]
    first = rows[0]
    return render_strip(panels, title=f"What looks like {first['lon']:.4f}, {first['lat']:.4f} ({first['sensor']})")


def tile_pictures(run: Run, tiles: Sequence[tuple[str, str]]) -> list[NDArray[np.uint8]]:
    """(y, x, 4) of the core of each tile, given with the name of its observation, as people look at it.

    All of one shape; alpha 0 where the cube has nothing any more.
    """
    plan = read_plan(run.storage)
    known: Mapping[str, Observation] = {} if plan is None else plan.observations
    store = Storage(run.job.store)
    return [_picture(store, Tile.parse(name), known.get(observation)) for name, observation in tiles]


def _picture(store: Storage, tile: Tile, observation: Observation | None) -> NDArray[np.uint8]:
    side, halo = tile.grid.core_px, tile.grid.halo_px
    rgba = np.zeros((side, side, 4), np.uint8)
    group = None if observation is None else open_observed(store, tile.cell, observation)
    if group is None or any(failure.tile_id == tile.id for failure in group.manifest.failures):
        return rgba
    picture = group.picture(tile)
    core = (slice(halo, halo + side), slice(halo, halo + side))
    data = picture.data[(slice(None), *core)]
    rgba[..., :3] = rgb_view(picture.sensor, picture.bands, data, picture.mask[core])
    rgba[..., 3] = np.where(np.isfinite(data).any(axis=0), 255, 0)
    return rgba


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────


def write_similar(run: Run, found: geopandas.GeoDataFrame, out: str) -> tuple[str, str]:
    """Write a ranking as GeoParquet or GeoJSON, by the ending of `out`, and its picture beside it; their addresses.

    Raises:
        JobError: for another ending.
        StorageError: where it cannot be written.
    """
    folder, _, name = out.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    if not stem or f"{dot}{ending}" not in ENDINGS:
        raise JobError(f"--out {out!r}", expected=f"a file's name that ends with {' or '.join(ENDINGS)}")
    storage = Storage(folder or ("/" if out.startswith("/") else "."))
    with tempfile.TemporaryDirectory(prefix="earthmap-") as scratch:
        path = Path(scratch) / name
        if ending == "parquet":
            write_geoparquet(path, [_table(found)], ranking_schema())
        else:
            path.write_text(_geojson(found), encoding="utf-8")
        storage.write_file(name, path)
    storage.write(f"{stem}.png", draw_similar(run, found))
    return storage.locate(name), storage.locate(f"{stem}.png")


def ranking_schema() -> pa.Schema:
    """Columns of a written ranking; geometry as WKB, EPSG:4326."""
    import pyarrow as pa

    kinds = {"rank": pa.int32(), "likeness": pa.float64(), "lon": pa.float64(), "lat": pa.float64()}
    kinds |= {"datetime": pa.timestamp("us", tz="UTC"), "scenes": pa.list_(pa.string())}
    return pa.schema([("geometry", pa.binary()), *((name, kinds.get(name, pa.string())) for name in COLUMNS)])


def _table(found: geopandas.GeoDataFrame) -> pa.Table:
    import pyarrow as pa

    schema = ranking_schema()
    columns = [pa.array(found.geometry.to_wkb(), pa.binary())]
    columns += [pa.array(found[name], schema.field(name).type, from_pandas=True) for name in COLUMNS]
    return pa.Table.from_arrays(columns, schema=schema)


def _geojson(found: geopandas.GeoDataFrame) -> str:
    """A FeatureCollection by RFC 7946."""
    import shapely

    rows = found.drop(columns=["geometry"]).to_dict("records")
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shape),
            "properties": row | {"datetime": row["datetime"].isoformat(), "scenes": list(row["scenes"])},
        }
        for row, shape in zip(rows, found.geometry, strict=True)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False)


def tell_similar(found: geopandas.GeoDataFrame) -> list[str]:
    """A ranking as lines for people."""
    lines = [f"{'rank':>4}  {'likeness':>8}  {'longitude':>11}  {'latitude':>10}  {'date':10}  tile"]
    for row in found.to_dict("records"):
        lines.append(
            f"{row['rank']:>4}  {row['likeness']:>8.4f}  {row['lon']:>11.5f}  {row['lat']:>10.5f}  "
            f"{row['datetime']:%Y-%m-%d}  {row['tile_id']}" + ("" if row["rank"] else "  (the place)")
        )
    return lines
