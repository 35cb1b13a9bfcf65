"""Geometry in whole bins of the tile, in one canonical form: what SLIS (`earthmap.tasks.serialization`) writes.

Coordinates are integers 0 to 1000 of the tile's side, x to the right, y downwards. Rings run clockwise on the screen
(holes against it) from their topmost, then leftmost corner; parts and holes are sorted. All of that is decided on the
integers, so that equal geometry has one form.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Point, Polygon

from earthmap.errors import QueryError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

BINS = 1000
"""Steps along one side of the tile; a coordinate is off by at most half a step."""

MENDABLE_CORNERS = 256
"""A broken outline of more corners is thinned to these before it is mended: crossings grow with their square."""

Corner = tuple[int, int]
"""x, y in bins."""
Ring = tuple[Corner, ...]
"""Corners without the first one repeated."""
Part = tuple[Ring, ...]
"""An outline, then its holes."""


def _bin(value: float) -> int:
    """The whole bin of a coordinate; what lies outside the tile is moved to its edge."""
    return min(max(round(value), 0), BINS)


def _area(ring: Ring) -> int:
    """Twice the signed area; positive where the ring runs clockwise on the screen (y downwards)."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True))


def _from_top(ring: Ring) -> Ring:
    """The ring from its topmost, then leftmost corner on; of several such starts the one whose rest sorts first."""
    keys = [(y, x) for x, y in ring]
    top = min(keys)
    starts = [index for index, key in enumerate(keys) if key == top]
    if len(starts) > 1:  # a corner that the ring touches twice
        starts = [min(starts, key=lambda index: keys[index:] + keys[:index])]
    return ring[starts[0] :] + ring[: starts[0]]


def _turned(ring: Ring, *, clockwise: bool) -> Ring:
    return ring if (_area(ring) >= 0) == clockwise else ring[::-1]


def _canonical_part(part: Sequence[Ring]) -> Part:
    outline = _from_top(_turned(part[0], clockwise=True))
    holes = sorted((_from_top(_turned(hole, clockwise=False)) for hole in part[1:]), key=_by_corners)
    return (outline, *holes)


def _by_corners(ring: Ring) -> list[tuple[int, int]]:
    return [(y, x) for x, y in ring]


def _ring(coordinates: Iterable[Sequence[float]]) -> Ring:
    """Integer corners of a closed ring in bins, the last one left out."""
    return tuple((round(x), round(y)) for x, y, *_ in coordinates)[:-1]


def _polygons(geometry: BaseGeometry) -> list[Polygon]:
    flat = shapely.get_parts(shapely.get_parts(geometry))  # parts of a collection may have parts
    return [one for one in flat if one.geom_type == "Polygon" and not one.is_empty]


def canonical_parts(geometry: BaseGeometry) -> tuple[Part, ...]:
    """The canonical parts of a valid geometry in whole bins; what has no area is left out."""
    parts = [
        _canonical_part([_ring(one.exterior.coords), *(_ring(hole.coords) for hole in one.interiors)])
        for one in _polygons(geometry)
    ]
    return tuple(sorted(parts, key=lambda part: [_by_corners(ring) for ring in part]))


def _thinned(ring: Any) -> list[Any]:
    step = -(-len(ring) // MENDABLE_CORNERS)
    return list(ring[::step])


def _mended(geometry: BaseGeometry) -> BaseGeometry:
    """A valid geometry near a broken one (crossing itself, holes outside), in time that does not explode."""
    if geometry.is_valid:
        return geometry
    small = [
        Polygon(
            _thinned(one.exterior.coords), [_thinned(hole.coords) for hole in one.interiors if len(hole.coords) > 3]
        )
        for one in _polygons(geometry)[:MENDABLE_CORNERS]
        if len(one.exterior.coords) > 3
    ]
    return shapely.union_all([shapely.make_valid(one, method="structure", keep_collapsed=False) for one in small])


_FRAME = shapely.box(0, 0, BINS, BINS)


def snapped(geometry: BaseGeometry) -> BaseGeometry:
    """The part inside the tile of a geometry in bins, valid, with whole corners; empty where no area is left."""
    if _FRAME.covers(geometry) and geometry.is_valid and _is_whole(geometry):
        return geometry  # snapping once more could still add a corner where an edge passes near one
    flat = _mended(geometry)
    inside = flat if _FRAME.covers(flat) else flat.intersection(_FRAME)
    # Lines and points that an intersection leaves beside polygons would be snapped apart from them.
    whole = shapely.set_precision(MultiPolygon(_polygons(inside)), 1.0)
    return whole if whole.is_valid else shapely.set_precision(_mended(whole), 1.0)


def _is_whole(geometry: BaseGeometry) -> bool:
    coordinates = shapely.get_coordinates(geometry)
    return bool((coordinates == np.round(coordinates)).all())


def _scaled(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tile coordinates as bins: finite, at most ten tiles away, without digits that only upset the geometry library."""
    return np.round(np.clip(np.nan_to_num(coordinates, nan=0.0, posinf=10.0, neginf=-10.0), -10.0, 10.0) * BINS, 6)


def canonical_quad(corners: Sequence[Corner]) -> Ring:
    """Four corners in their canonical order: convex where they can be, clockwise, from the topmost."""
    orders = [tuple(corners), *((corners[0], corners[a], corners[b], corners[c]) for a, b, c in ((2, 1, 3), (1, 3, 2)))]
    ring = next((order for order in orders if _is_convex(order)), orders[0])
    area = _area(ring)
    ways = [ring, ring[::-1]] if area == 0 else [_turned(ring, clockwise=True)]
    turns = [way[start:] + way[:start] for way in ways for start in range(4)]
    return min(turns, key=_by_corners)


def _is_convex(ring: Sequence[Corner]) -> bool:
    turns = [
        (x1 - x0) * (y2 - y1) - (y1 - y0) * (x2 - x1)
        for (x0, y0), (x1, y1), (x2, y2) in ((ring[i], ring[(i + 1) % 4], ring[(i + 2) % 4]) for i in range(4))
    ]
    return all(turn >= 0 for turn in turns) or all(turn <= 0 for turn in turns)


def _oriented_bins(geometry: BaseGeometry) -> Ring:
    whole = shapely.get_coordinates(geometry)
    if geometry.geom_type == "Polygon" and len(whole) == 5 and _is_whole(geometry):
        # Four whole corners are what was written: a rectangle around them would be another one each time.
        return canonical_quad([(_bin(x), _bin(y)) for x, y in whole[:4].tolist()])
    turned = shapely.minimum_rotated_rectangle(geometry)
    corners = [(float(x), float(y)) for x, y in shapely.get_coordinates(turned)]
    if turned.geom_type != "Polygon":  # of a point or a line
        corners = [corners[0], corners[0], corners[-1], corners[-1]]
    return canonical_quad([(_bin(x), _bin(y)) for x, y in corners[:4]])


def to_bins(kind: str, geometry: BaseGeometry) -> tuple[Part, ...]:
    """The geometry in canonical integers, as parts of rings for every kind; empty where nothing of it is left.

    A point is one corner, a box its topmost left and its lowest right one.
    """
    if geometry.is_empty:
        return ()
    scaled = shapely.transform(shapely.force_2d(geometry), _scaled)
    if kind == "point":
        ((x, y),) = shapely.get_coordinates(shapely.centroid(scaled))
        return ((((_bin(x), _bin(y)),),),)
    if kind == "box":
        left, top, right, bottom = (_bin(value) for value in scaled.bounds)
        return ((((left, top), (right, bottom)),),)
    if kind == "oriented_box":
        return ((_oriented_bins(scaled),),)
    return canonical_parts(snapped(scaled))


def from_bins(kind: str, parts: Sequence[Part]) -> BaseGeometry:
    """The inverse of `to_bins`."""
    ring = parts[0][0]
    if kind == "point":
        return Point(ring[0][0] / BINS, ring[0][1] / BINS)
    if kind == "box":
        (left, top), (right, bottom) = ring
        return shapely.box(left / BINS, top / BINS, right / BINS, bottom / BINS)
    polygons = [Polygon(*_unit_rings(part)) for part in parts]
    return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)


def _unit_rings(part: Part) -> tuple[list[tuple[float, float]], list[list[tuple[float, float]]]]:
    outline, *holes = ([(x / BINS, y / BINS) for x, y in ring] for ring in part)
    return outline, holes


# ── fewer corners ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Simplified:
    """An outline of fewer corners."""

    geometry: BaseGeometry
    error: float
    """Hausdorff distance between both outlines in tile coordinates, 0 where nothing was left out."""
    dropped: int = 0
    """Holes and parts that were left out, the smallest first."""


def corner_count(geometry: BaseGeometry) -> int:
    """Corners of all rings, the closing ones not counted."""
    parts = _polygons(geometry)
    return sum(len(ring.coords) - 1 for one in parts for ring in (one.exterior, *one.interiors))


def simplify(geometry: BaseGeometry, *, corners: int) -> Simplified:
    """`geometry` with at most `corners` corners: the finest tolerance of Douglas and Peucker that gets there.

    Where even that is too much the smallest holes and parts go. Raises QueryError for fewer than three corners.
    """
    if corners < 3:
        raise QueryError(f"an outline of {corners} corners", expected="at least three")
    valid = _mended(geometry)
    if corner_count(valid) <= corners:
        return Simplified(geometry=valid, error=0.0)
    low, high = 0.0, 1.5
    for _ in range(24):
        middle = (low + high) / 2
        few = corner_count(shapely.simplify(valid, middle, preserve_topology=True)) <= corners
        low, high = (low, middle) if few else (middle, high)
    coarse = shapely.simplify(valid, high, preserve_topology=True)
    kept, dropped = _largest(coarse, corners)
    return Simplified(geometry=kept, error=float(shapely.hausdorff_distance(valid, kept)), dropped=dropped)


def _largest(geometry: BaseGeometry, corners: int) -> tuple[BaseGeometry, int]:
    """The largest parts, then the largest holes of them, as far as the budget of corners goes."""
    polygons = sorted(_polygons(geometry), key=lambda one: (-one.area, one.wkb))
    rings = [(shapely.area(Polygon(one.exterior)), 0, index, one.exterior) for index, one in enumerate(polygons)]
    rings += [
        (shapely.area(Polygon(hole)), 1, index, hole) for index, one in enumerate(polygons) for hole in one.interiors
    ]
    rings.sort(key=lambda ring: (ring[1], -ring[0], ring[2]))
    kept: dict[int, list[Any]] = {}
    left, dropped = corners, 0
    for _, is_hole, index, ring in rings:
        size = len(ring.coords) - 1
        if size > left or (is_hole and index not in kept):
            dropped += 1
            continue
        left -= size
        kept.setdefault(index, []).append(ring)
    if not kept:  # not one outline fits: a triangle or four corners around the largest
        return shapely.minimum_rotated_rectangle(polygons[0]) if corners > 3 else _triangle(polygons[0]), dropped
    shapes = [Polygon(part[0], part[1:]) for part in kept.values()]
    return (shapes[0] if len(shapes) == 1 else MultiPolygon(shapes)), dropped


def _triangle(polygon: Polygon) -> Polygon:
    left, top, right, bottom = polygon.bounds
    return Polygon([(left, top), (2 * right - left, top), (left, 2 * bottom - top)])
