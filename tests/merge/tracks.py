"""Ships that sail as answers of tiles, as the oracle gives them and a store keeps them, and what they are merged to."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import shapely
import shapely.affinity

from earthmap.grid import AreaOfInterest, Cell, Grid, Tile, touched
from earthmap.merge import CellMerge, merge_cell
from earthmap.predict.oracle import OraclePredictor
from earthmap.predict.protocol import Picture, TileInput
from earthmap.synthetic import World, ships_on, standing_on
from earthmap.tasks import Answer, Query, answer_columns, answer_schema, make_query
from earthmap.tasks.serialization import Instance
from tests.merge.maps import Merged, joined

FRAME = shapely.box(0, 0, 1, 1)
Says = Callable[[Tile], Answer]


def query_of(kind: str = "box") -> Query:
    """The question for the ways of all ships, answered in a shape."""
    return make_query("Track the ships", task="track", targets=["ship"], shape=kind, open_vocabulary=True)


def area_of(world: World, margin_m: float = 120.0) -> AreaOfInterest:
    """The world without its edge, where no tile sees ships whole."""
    return AreaOfInterest.from_geometry(shapely.box(*world.bounds).buffer(-margin_m), f"EPSG:{world.epsg}")


def pictures_of(tile: Tile, world: World, hidden: Sequence[int] = ()) -> TileInput:
    """What a tile shows on each date of a world; nothing but cloud on the dates numbered `hidden`."""
    side = tile.grid.picture_px
    data = np.zeros((1, side, side), np.float32)
    pictures = [
        Picture(
            sensor="sentinel-2-l2a", observation=f"pass {number:02d}", datetime=date, bands=("red",), data=data,
            mask=np.full((side, side), 2 if number in hidden else 0, np.uint8),
        )
        for number, date in enumerate(world.dates)
    ]  # fmt: skip
    return TileInput(tile=tile, pictures=tuple(pictures))


def oracle(world: World, query: Query, hidden: Sequence[int] = ()) -> Says:
    """What the oracle says of each tile."""
    predictor = OraclePredictor(world)
    return lambda tile: predictor.predict([pictures_of(tile, world, hidden)], [query])[0][0]


def row_of(tile: Tile, query: Query, answer: Answer, world: World) -> dict[str, Any]:
    """A row of answers, through SLIS."""
    dates = [
        {"number": number, "observation": f"pass {number:02d}", "time": date}
        for number, date in enumerate(world.dates)
    ]  # fmt: skip
    return {
        "cell_id": tile.cell.id, "tile_id": tile.id, "query": query.content_key(), "observation": "series",
        "datetime_min": world.before, "datetime_max": world.after, "sensor": "sentinel-2-l2a", "scenes": ["a"],
        "predictor": "oracle", "dates": dates, **answer_columns(answer),
    }  # fmt: skip


def merges_of(says: Says, query: Query, world: World, area: AreaOfInterest, grid: Grid) -> list[CellMerge]:
    """What each cell of the area comes to."""
    merges = []
    for cell, bits in zip(*touched(area, grid), strict=True):
        mine = [tile for bit, tile in enumerate(cell.tiles()) if int(bits) >> bit & 1]
        rows = [row_of(tile, query, says(tile), world) for tile in mine]
        merges.append(merge_rows(cell, rows, query, area, int(bits)))
    return merges


def merge_rows(
    cell: Cell, rows: Sequence[Mapping[str, Any]], query: Query, area: AreaOfInterest, tiles: int
) -> CellMerge:
    """What rows of answers of one cell come to."""
    table = pa.Table.from_pylist(list(rows), schema=answer_schema())
    queries = {query.content_key(): query}
    return merge_cell(cell, table, area=area, queries=queries, tiles=tiles, by_observation=False)


def jittered(says: Says, *, seed: int, bins: int, dropped: float, lost: float = 0.0) -> Says:
    """The same answers with boxes moved by up to some steps of SLIS, a share of the pieces at the edges of pictures not
    said, and a share of all states."""

    def say(tile: Tile) -> Answer:
        dice = random.Random(f"{seed} {tile.id}")
        answer = says(tile)
        kept = tuple(
            _moved(one, dice, bins)
            for one in answer.instances
            if dice.random() >= (lost if FRAME.contains_properly(one.geometry) else max(dropped, lost))
        )
        return replace(answer, instances=kept, instance_scores=(1.0,) * len(kept))

    return say


def _moved(instance: Instance, dice: random.Random, bins: int) -> Instance:
    low, high = (np.array(instance.geometry.bounds)[part] for part in (slice(2), slice(2, 4)))
    step = np.array([dice.randint(-bins, bins) / 1000 for _ in range(2)])
    at_edge = (low <= 0.0005) | (high >= 0.9995)
    step = np.where(at_edge, 0.0, np.clip(step, 0.001 - low, 0.999 - high))
    return replace(instance, geometry=shapely.affinity.translate(instance.geometry, *step.tolist()))


def merged(world: World, grid: Grid, *, query: Query | None = None, says: Says | None = None) -> Merged:
    """The tracks of a world over its area."""
    query, area = query or query_of(), area_of(world)
    merges = merges_of(says or oracle(world, query), query, world, area, grid)
    return joined(merges, area=area, queries={query.content_key(): query})


def true_tracks(world: World, area: AreaOfInterest, hidden: Sequence[int] = ()) -> list[dict[Hashable, Any]]:
    """Of each ship whose middle is in the area on some date that is shown, its envelope in the world's CRS by date."""
    tracks: dict[int, dict[Hashable, Any]] = {}
    for number, date in enumerate(world.dates):
        outlines = standing_on(world, "ship", date).outlines
        middles = geopandas.GeoSeries(shapely.centroid(outlines), crs=f"EPSG:{world.epsg}").to_crs("EPSG:4326")
        inside = shapely.intersects(area.geometry, middles.to_numpy())
        for ship, outline, there in zip(ships_on(world, date)[0].tolist(), outlines, inside, strict=True):
            if there and number not in hidden:
                tracks.setdefault(ship, {})[date] = shapely.envelope(outline)
    return list(tracks.values())


def found_tracks(features: geopandas.GeoDataFrame, world: World) -> list[Mapping[Hashable, Any]]:
    """The boxes of tracks by date, in the world's CRS."""
    tracks = []
    for times, edges in zip(features["times"], features["boxes"], strict=True):
        boxes = [_box(*four) for four in np.array(edges).reshape(-1, 4)]
        placed = geopandas.GeoSeries(boxes, crs="EPSG:4326").to_crs(f"EPSG:{world.epsg}")
        tracks.append(dict(zip(_plain(times), placed, strict=True)))
    return tracks


def _box(west: float, south: float, east: float, north: float) -> Any:
    return shapely.box(west, south, east + (360.0 if east < west else 0.0), north)


def _plain(times: Iterable[Any]) -> list[Any]:
    import pandas

    return [pandas.Timestamp(time).tz_localize("UTC").to_pydatetime() for time in times]
