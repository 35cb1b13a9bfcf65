"""What the oracle finds: the buildings and ships of a drawn world that pictures show, as a model would name them.

A thing that the picture's edge cuts is told as far as it is seen, a point where its middle is. An oriented box around a
piece would reach beyond the picture; it is the part of the thing's own box, cut across, that lies in the picture.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import shapely

from earthmap.grid import Tile
from earthmap.grid.projection import plane_of
from earthmap.predict.protocol import Picture, TileInput
from earthmap.sensors.masks import unseen
from earthmap.synthetic.standing import STANDING, standing_on
from earthmap.synthetic.truth import World
from earthmap.tasks.answer import UNSEEN, Answer
from earthmap.tasks.query import Query
from earthmap.tasks.serialization import Instance
from earthmap.tasks.times import time_texts

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

SMALLEST_PX = 1.0
"""Less of a thing than these square pixels is not seen."""

_FRAME = shapely.box(0.0, 0.0, 1.0, 1.0)


def beyond_standing(query: Query) -> str | None:
    """Why a query cannot be answered from what stands on a drawn world; None where it can."""
    beyond = [target for target in query.targets if _kind_of(target) is None]
    if beyond or not query.targets:
        what = ", ".join(beyond) if beyond else "nothing"
        there = " and ".join(f"{name}s" for name in STANDING)
        return f"the question names {what}; a drawn world has {there}, other things need the vision-language model"
    return None


def _kind_of(target: str) -> str | None:
    """The kind of thing that a target is, by its last word: the largest ship is a ship."""
    last = target.split()[-1] if target.split() else ""
    return next((name for name in STANDING if last in (name, f"{name}s")), None)


def find_things(world: World, item: TileInput, query: Query, seen: NDArray[np.bool_]) -> Answer:
    """The things that the query names in the picture of a tile; `seen` are the core's pixels that are."""
    (picture,) = item.pictures
    instances = [instance for _, _, instance in _found(world, item, picture, query)]
    return Answer(
        status="answered",
        value=str(len(instances)),
        probability=1.0,
        mask=np.where(seen, np.uint8(0), np.uint8(UNSEEN)),
        seen_px=int(seen.sum()),
        instances=tuple(instances),
        instance_scores=(1.0,) * len(instances),
    )


def find_any(world: World, item: TileInput, query: Query, seen: NDArray[np.bool_]) -> Answer:
    """Whether a thing that the query names has its middle in a tile's core; `seen` are the core's pixels that are."""
    found = find_things(world, item, query, seen)
    low, high = (edge / item.side_px for edge in (item.core[0].start, item.core[0].stop))
    middles = [one.geometry.centroid for one in found.instances if one.geometry is not None]
    there = any(low <= middle.x < high and low <= middle.y < high for middle in middles)
    return replace(found, value="yes" if there else "no", instances=(), instance_scores=())


def find_tracks(world: World, item: TileInput, query: Query, seen: NDArray[np.bool_]) -> Answer:
    """The things that the query names in the pictures of a tile, each followed from date to date; `seen` are the core's
    pixels that are on two dates or more."""
    texts = time_texts([picture.datetime for picture in item.pictures if picture.datetime is not None])
    found = [
        (label, number, text, instance)
        for picture, text in zip(item.pictures, texts, strict=True)
        for label, number, instance in _found(world, item, picture, query)
    ]
    tracks = {key: place for place, key in enumerate(sorted({(label, number) for label, number, *_ in found}), 1)}
    instances = tuple(
        replace(instance, track=tracks[label, number], time=text) for label, number, text, instance in found
    )
    return Answer(
        status="answered",
        value=str(len(tracks)),
        probability=1.0,
        mask=np.where(seen, np.uint8(0), np.uint8(UNSEEN)),
        seen_px=int(seen.sum()),
        instances=instances,
        instance_scores=(1.0,) * len(instances),
    )


def _found(world: World, item: TileInput, picture: Picture, query: Query) -> Iterator[tuple[str, int, Instance]]:
    """What one picture shows of what the query names: kind, number and shape."""
    shown = _shown(picture, query)
    for label in dict.fromkeys(_kind_of(target) or "" for target in query.targets):
        if item.tile is not None:
            for number, instance in numbered_on(
                world, item.tile, label, query.shape or "box", date=picture.datetime
            ):  # fmt: skip
                if _is_seen(instance, shown):
                    yield label, number, instance


def _shown(picture: Picture, query: Query) -> NDArray[np.bool_]:
    """(y, x) the picture's pixels, halo included, that the query does not call unseen."""
    shown: NDArray[np.bool_] = ~unseen(picture.mask, query.unseen) & np.isfinite(picture.data).any(axis=0)
    return shown


def _is_seen(instance: Instance, shown: NDArray[np.bool_]) -> bool:
    """Whether the pixel in a thing's middle is seen; half of it is too much to ask under a ragged cloud."""
    if instance.geometry is None:
        return False
    x, y = (min(int(value * len(shown)), len(shown) - 1) for value in instance.geometry.centroid.coords[0])
    return bool(shown[y, x])


def instances_on(world: World, tile: Tile, label: str, kind: str) -> list[Instance]:
    """What the picture of a tile (core and halo) shows of a kind of things.

    Args:
        world: The drawn world.
        tile: The tile.
        label: One of `earthmap.synthetic.STANDING`.
        kind: Shape of the answer: box, oriented_box, point or polygon.
    """
    return [instance for _, instance in numbered_on(world, tile, label, kind)]


def numbered_on(
    world: World, tile: Tile, label: str, kind: str, *, date: datetime.datetime | None = None
) -> list[tuple[int, Instance]]:
    """The same on a date, each with the number that the thing has on every date."""
    found = []
    for number, outline in _outlines(world, tile, label, date):
        shape = _seen_part(outline, kind)
        pixels = shapely.intersection(outline, _FRAME).area * tile.grid.picture_px**2
        if shape is not None and pixels >= SMALLEST_PX:
            found.append((number, Instance(kind=kind, geometry=shape, label=label)))
    return found


def _outlines(
    world: World, tile: Tile, label: str, date: datetime.datetime | None
) -> list[tuple[int, BaseGeometry]]:  # fmt: skip
    """Numbers, and outlines in picture coordinates 0–1 (x right, y down), of the things that the picture shows some
    of."""
    grid, zone = tile.grid, tile.zone
    side = grid.picture_px * grid.resolution_m
    west = grid.origin_m(zone)[0] + (tile.column * grid.core_px - grid.halo_px) * grid.resolution_m
    south = grid.origin_m(zone)[1] + (tile.row * grid.core_px - grid.halo_px) * grid.resolution_m
    frame = shapely.segmentize(shapely.box(west, south, west + side, south + side), side / 16)
    things = standing_on(world, label, date)
    near = np.sort(things.tree.query(_between(np.array([frame]), zone.epsg, world.epsg)[0].buffer(grid.resolution_m)))
    outlines = _between(things.outlines[near], world.epsg, zone.epsg)
    placed = shapely.transform(
        outlines, lambda xy: np.column_stack([(xy[:, 0] - west) / side, 1.0 - (xy[:, 1] - south) / side])
    )
    shown = shapely.area(shapely.intersection(placed, _FRAME)) > 0.0
    return list(zip(things.numbers[near[shown]].tolist(), placed[shown], strict=True))


def _between(geometries: NDArray[np.object_], epsg: int, to: int) -> NDArray[np.object_]:
    """Geometries of one plane in another; unchanged where they are the same."""
    if epsg == to:
        return geometries
    here, there = plane_of(epsg), plane_of(to)
    moved: NDArray[np.object_] = shapely.transform(
        geometries, lambda xy: np.column_stack(there.project(*here.unproject(xy[:, 0], xy[:, 1])))
    )
    return moved


def _seen_part(outline: BaseGeometry, kind: str) -> BaseGeometry | None:
    """What the picture shows of an outline, as a shape of that kind."""
    if kind == "oriented_box":
        return outline if _FRAME.covers(outline) else _cut_across(shapely.get_coordinates(outline)[:4])
    if kind == "point":
        return outline.centroid if _FRAME.covers(outline.centroid) else None
    part = shapely.intersection(outline, _FRAME)
    return part.envelope if kind == "box" else part


def _cut_across(corners: NDArray[np.float64]) -> BaseGeometry | None:
    """The longest part of a rectangle that lies in the picture, cut across one of its sides; None for nothing."""
    parts = []
    for start in (0, 1):
        a, b, c, d = np.roll(corners, -start, axis=0)
        one, other = _inside(a, b), _inside(d, c)
        low, high = max(one[0], other[0]), min(one[1], other[1])
        if low < high:
            ring = [a + low * (b - a), a + high * (b - a), d + high * (c - d), d + low * (c - d)]
            parts.append(shapely.Polygon(ring))
    return max(parts, key=lambda part: part.area, default=None)


def _inside(start: NDArray[np.float64], end: NDArray[np.float64]) -> tuple[float, float]:
    """The shares of the way from start to end between which a line lies in the picture; (1, 0) where it does not."""
    low, high = 0.0, 1.0
    for at, way in zip(start.tolist(), (end - start).tolist(), strict=True):
        if way == 0.0:
            if not 0.0 <= at <= 1.0:
                return 1.0, 0.0
            continue
        edges = sorted((-at / way, (1.0 - at) / way))
        low, high = max(low, edges[0]), min(high, edges[1])
    return low, high
