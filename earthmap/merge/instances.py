"""Things found by several tiles, told apart and joined: one thing on the ground for each thing that is there.

A tile sees a thing whole where no edge of its picture cuts it, else a piece of it. Views of two tiles show the same
thing where they agree on the ground that both see. Of whole views one tile has at most one of each thing; a piece is
what another tile saw whole, or it is joined with the pieces that agree with it, by connected components. A thing is the
view of the tile whose ground holds its centroid, decided in longitude and latitude; where that tile does not know of
it, it is nothing (its neighbours see less of that ground). What is joined of pieces is kept. It counts where its
centroid lies in the area, and is drawn whole.

Everything is decided on outlines in pixels of a zone's lattice (x eastwards, y northwards), never on boxes around them.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from earthmap.grid import AreaOfInterest, Cell, Grid, Tile, Zone, owner, split_antimeridian, to_lonlat
from earthmap.grid.projection import METRES_PER_DEGREE, SOUTH_NORTHING_M, plane_of, wrap_longitude
from earthmap.merge.georeference import areas_m2
from earthmap.merge.layers import Layer, Source
from earthmap.merge.regions import about
from earthmap.merge.vectors import group
from earthmap.tasks import Query
from earthmap.tasks.serialization import Instance, parse, plain_label

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    Geometries = NDArray[np.object_]
    Floats = NDArray[np.float64]

SAME_SHARE = 0.5
"""Two views are one thing where what they share is this much of both together, or of the smaller where one is cut."""

SAME_CUT_BOX_SHARE = 0.25
"""The same for two pieces of which one is a box: a box around a piece is not the piece of the box."""

SAME_TWICE = 0.8
"""What one tile tells twice: shapes of one class that share this much of both together."""

POINT_PX = 2.5
"""Two points are one thing where discs of this radius around them are: half of the five pixels a thing must have."""

EDGE = 5e-4
"""A view nearer to the picture's edge than this (half a step of SLIS) is cut by it."""

BORDER_PICTURES = 1.5
"""How far, in sides of pictures, tiles of another zone can see across the border."""

CUT_OFF = "cut off at the edge of a picture"
"""Note of a thing of which no tile saw more."""

BEND_PX = 0.02
"""How far the straight edge of a thing may be from its place in EPSG:4326 before it gets more vertices, in pixels."""

_LOOSE = ("box", "oriented_box")
_EARTH_M = 6_378_137.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One date of a thing that a tile follows through time."""

    date: str
    """Name of the observation, which all cells of a pass share."""
    time: datetime.datetime
    """When the tile's cell was seen by it (UTC)."""
    track: int
    """Number of the thing in the tile's answer, the same on each of its dates."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """What one tile's answer says of one thing."""

    tile: Tile
    kind: str
    """Of `earthmap.tasks.serialization.KINDS`, but for masks, which are polygons here."""
    geometry: BaseGeometry
    """Point or (Multi)Polygon in pixels of the zone's lattice, x eastwards and y northwards from the anchor."""
    score: float | None
    """0 to 1; None where the predictor has none to give."""
    cut: bool
    """It reaches the edge of the picture."""
    source: Source
    sighting: Sighting | None = None
    """When it was seen, and as what; None of a question about one date."""

    @property
    def date(self) -> str:
        """What views of one date have in common; empty of a question about one date."""
        return self.sighting.date if self.sighting is not None else ""

    @property
    def key(self) -> tuple[str, bytes]:
        """What views of one date are brought into order by."""
        wkb: bytes = shapely.to_wkb(self.geometry)
        return self.tile.id, wkb


# ── from answers to views ────────────────────────────────────────────────────────────────────────────────────


def views_of(row: Mapping[str, Any], query: Query, source: Source) -> Iterator[tuple[str, View]]:
    """The views in a row of answers (`answer_schema`), each with what it is said to be; of repetitions the first."""
    for label, _, view in told_views(row, query, source):
        yield label, view


def told_views(row: Mapping[str, Any], query: Query, source: Source) -> Iterator[tuple[str, Instance, View]]:
    """The same, each with what the tile says, which may have a time and the number of a track; the surest first."""
    instances = parse(row["instances"] or "").instances
    scores = row["instance_scores"]
    if len(scores) != len(instances):
        scores = [None] * len(instances)
    tile = Tile.parse(row["tile_id"])
    ordered = sorted(zip(instances, scores, strict=True), key=lambda pair: -(pair[1] or 0.0))
    told = [(*_shape(instance), _label(instance, query), instance, score) for instance, score in ordered]
    told = [one for one in told if one[1] is not None]
    shapes = np.empty(len(told), object)
    shapes[:] = [shape for _, shape, _, _, _ in told]
    low_x, low_y, high_x, high_y = shapely.bounds(shapes).reshape(-1, 4).T
    cut = np.minimum.reduce([low_x, low_y, 1.0 - high_x, 1.0 - high_y]) < EDGE
    shapes = shapely.transform(shapes, lambda xy: _in_lattice(xy, tile))
    broken = ~shapely.is_valid(shapes)  # rounding can move a corner across the edge that it touches
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure")
    for index in _told_first(shapes, [f"{label}@{instance.time}" for _, _, label, instance, _ in told]):
        kind, _, label, instance, score = told[index]
        at_edge = bool(cut[index]) and kind != "point"
        view = View(tile=tile, kind=kind, geometry=shapes[index], score=score, cut=at_edge, source=source)
        yield label, instance, view


def _told_first(shapes: Geometries, said: Sequence[str]) -> list[int]:
    """Indices of those that are not nearly what one before them is: models repeat themselves."""
    left, right = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    later = (left < right) & (np.array(said, object)[left] == np.array(said, object)[right])
    order = np.lexsort((left[later], right[later]))
    left, right = left[later][order], right[later][order]
    shared = shapely.area(shapely.intersection(shapes[left], shapes[right]))
    both = shapely.area(shapes[left]) + shapely.area(shapes[right]) - shared
    again = np.zeros(len(shapes), bool)
    for one, other, alike in zip(left.tolist(), right.tolist(), (shared >= SAME_TWICE * both).tolist(), strict=True):
        again[other] |= alike and not again[one]
    return np.flatnonzero(~again).tolist()


def _in_lattice(xy: Floats, tile: Tile) -> Floats:
    grid = tile.grid
    west = tile.column * grid.core_px - grid.halo_px
    north = (tile.row + 1) * grid.core_px + grid.halo_px
    return np.column_stack([west + xy[:, 0] * grid.picture_px, north - xy[:, 1] * grid.picture_px])


def _label(instance: Instance, query: Query) -> str:
    """What a thing is said to be: the target that its label names, else its label, else the one thing asked for."""
    targets = [name for target in query.targets if (name := plain_label(target))]
    said = instance.label
    if said is None:
        return targets[0] if len(targets) == 1 else "thing"
    forms = (said, said.removesuffix("s"), said.removesuffix("es"), f"{said}s", f"{said}es")
    return next((form for form in forms if form in targets), said)


def _shape(instance: Instance) -> tuple[str, BaseGeometry | None]:
    """Kind and valid geometry in tile coordinates; what has no area is a point, a mask the polygons of its cells."""
    kind, shape = instance.kind, instance.geometry
    if instance.mask is not None:
        side = len(instance.mask)
        rows, columns = np.nonzero(instance.mask)
        cells = shapely.box(columns / side, rows / side, (columns + 1) / side, (rows + 1) / side)
        kind, shape = "polygon", shapely.union_all(cells)
    if shape is None or shape.is_empty:
        return kind, None
    if kind == "point":
        return kind, shape
    if kind == "oriented_box" and not shape.is_valid:
        shape = shape.convex_hull
    return (kind, shape) if shape.area > 0.0 else ("point", shape.centroid)


# ── which views show the same thing ──────────────────────────────────────────────────────────────────────────


class Shapes(NamedTuple):
    """What is compared of views, in one plane, in parallel."""

    outlines: Geometries
    """Polygons; discs around points."""
    frames: Geometries
    """The pictures that they were seen in."""
    cut: NDArray[np.bool_]
    loose: NDArray[np.bool_]
    """Boxes: of a piece they say less than an outline does."""
    tiles: NDArray[np.int64]
    """Numbers that tell tiles apart."""

    @classmethod
    def of(cls, views: Sequence[View]) -> Shapes:
        """Those of views, each in the plane of its own zone."""
        number: dict[Tile, int] = {}
        tiles = np.array([number.setdefault(view.tile, len(number)) for view in views], np.int64)
        frames = np.empty(len(number), object)
        frames[:] = [_frame(tile) for tile in number]
        outlines = np.empty(len(views), object)
        outlines[:] = [view.geometry for view in views]
        points = np.array([view.kind == "point" for view in views], bool)
        outlines[points] = shapely.buffer(outlines[points], POINT_PX, quad_segs=4)
        cut = np.array([view.cut for view in views], bool)
        loose = np.array([view.kind in _LOOSE for view in views], bool)
        return cls(outlines, frames[tiles], cut, loose, tiles)

    def taken(self, index: NDArray[Any]) -> Shapes:
        """Those at `index`."""
        return Shapes(*(column[index] for column in self))

    def carried(self, grid: Grid, zones: Sequence[Zone], to: Zone) -> Shapes:
        """The same in the plane of one zone; `zones` are those that they are in."""
        outlines, frames = self.outlines.copy(), self.frames.copy()
        for zone in dict.fromkeys(zones):
            if zone != to:
                mine = np.flatnonzero([one == zone for one in zones])
                outlines[mine] = _carried(outlines[mine], grid, zone, to)
                frames[mine] = _carried(frames[mine], grid, zone, to)
        return self._replace(outlines=outlines, frames=frames)


def _frame(tile: Tile) -> BaseGeometry:
    grid, halo = tile.grid, tile.grid.halo_px
    west, south = tile.column * grid.core_px - halo, tile.row * grid.core_px - halo
    return shapely.box(west, south, west + grid.picture_px, south + grid.picture_px)


def _carried(geometries: Geometries, grid: Grid, zone: Zone, to: Zone) -> Geometries:
    """Geometries of one zone's lattice in another's."""
    there, middle = plane_of(to.epsg), (to.strip[0] + to.strip[2]) / 2

    def moved(xy: Floats) -> Floats:
        longitude, latitude = _unprojected(xy, grid, zone)
        x, y = there.project(middle + wrap_longitude(longitude - middle), latitude)
        return (np.column_stack([x, y]) - grid.origin_m(to)) / grid.resolution_m

    result: Geometries = shapely.transform(shapely.segmentize(geometries, grid.picture_px / 16), moved)
    return result


def _unprojected(xy: Floats, grid: Grid, zone: Zone) -> tuple[Floats, Floats]:
    """Longitude (continuous) and latitude of places in pixels of a zone's lattice."""
    metres = grid.origin_m(zone) + xy * grid.resolution_m
    return plane_of(zone.epsg).unproject(metres[:, 0], metres[:, 1])


def likeness(some: Shapes, others: Shapes) -> tuple[NDArray[np.bool_], Floats]:
    """Whether views show the same thing, pair by pair, and how much of what both tiles see of them is shared."""
    shared = shapely.area(shapely.intersection(some.outlines, others.outlines))
    one = shapely.area(shapely.intersection(some.outlines, others.frames))
    other = shapely.area(shapely.intersection(others.outlines, some.frames))
    cut = some.cut | others.cut
    whole = np.where(cut, np.minimum(one, other), one + other - shared)
    share = np.divide(shared, whole, out=np.zeros(len(whole)), where=whole > 0)
    boxes = some.cut & others.cut & (some.loose | others.loose)
    return share >= np.where(boxes, SAME_CUT_BOX_SHARE, SAME_SHARE), share


def meetings(shapes: Shapes, others: Shapes | None = None) -> tuple[NDArray[np.int64], Floats]:
    """Views of different tiles that agree, and how much.

    (n, 2) indices, of `shapes` and of `others` (else of `shapes` too, the smaller first), and n shares (`likeness`).
    """
    mine = others is None
    others = shapes if others is None else others
    tree = shapely.STRtree(others.outlines)
    left, right = tree.query(shapes.outlines, predicate="intersects")
    if mine:
        kept = (left < right) & (shapes.tiles[left] != shapes.tiles[right])
        left, right = left[kept], right[kept]
    same, share = likeness(shapes.taken(left), others.taken(right))
    return np.column_stack([left[same], right[same]]), share[same]


# ── one thing of several views ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing, in the plane of one zone."""

    view: View
    """What it is: a tile's view, or what pieces come to."""
    tiles: frozenset[str]
    """Ids of the tiles whose views it is made of."""
    sources: frozenset[Source]


def _owned(views: Sequence[View]) -> NDArray[np.bool_]:
    """Which views have their centroid on their own tile's ground, decided in longitude and latitude."""
    found = np.zeros(len(views), bool)
    by_zone: dict[tuple[Grid, Zone], list[int]] = {}
    for index, view in enumerate(views):
        by_zone.setdefault((view.tile.grid, view.tile.zone), []).append(index)
    for (grid, zone), members in by_zone.items():
        own = owner(grid, *_centroids([views[index].geometry for index in members], grid, zone))
        place = np.array([(views[index].tile.row, views[index].tile.column) for index in members])
        here = (own.zone == zone.number) & (own.north == zone.north)
        found[members] = here & (own.row == place[:, 0]) & (own.column == place[:, 1])
    return found


def centroids_of(views: Sequence[View]) -> tuple[Floats, Floats]:
    """Longitudes in [-180, 180) and latitudes of the centroids of views of any zones."""
    places = np.empty((2, len(views)))
    by_zone: dict[tuple[Grid, Zone], list[int]] = {}
    for index, view in enumerate(views):
        by_zone.setdefault((view.tile.grid, view.tile.zone), []).append(index)
    for (grid, zone), members in by_zone.items():
        places[:, members] = _centroids([views[index].geometry for index in members], grid, zone)
    return places[0], places[1]


def _centroids(geometries: Sequence[BaseGeometry], grid: Grid, zone: Zone) -> tuple[Floats, Floats]:
    """Longitudes in [-180, 180) and latitudes of centroids."""
    xy = shapely.get_coordinates(shapely.centroid(np.asarray(geometries, object)))
    longitude, latitude = _unprojected(xy, grid, zone)
    return wrap_longitude(longitude), np.asarray(latitude, float)


def tell_apart(groups: Sequence[Sequence[View]]) -> list[Thing]:
    """The things that groups of views show; no view of one group meets one of another. No order matters."""
    owned = iter(_owned([view for views in groups for view in views]).tolist())
    things = []
    for views in groups:
        mine = [(view, next(owned)) for view in views]
        things += _alone(*mine[0]) if len(mine) == 1 else _things_of(mine)
    return things


def _alone(view: View, own: bool) -> list[Thing]:
    return [Thing(view=view, tiles=frozenset([view.tile.id]), sources=frozenset([view.source]))] if own else []


def told_apart(views: Sequence[View]) -> list[tuple[list[View], list[Thing]]]:
    """The views by thing, each with what `tell_apart` makes of it: nothing where the tile that owns the place does not
    know of it. No order matters."""
    return _told_apart(list(zip(views, _owned(views).tolist(), strict=True)))


def _things_of(marked: Sequence[tuple[View, bool]]) -> list[Thing]:
    return [thing for _, things in _told_apart(marked) for thing in things]


def _told_apart(marked: Sequence[tuple[View, bool]]) -> list[tuple[list[View], list[Thing]]]:
    marked = sorted(marked, key=lambda pair: pair[0].key)
    views, owned = [view for view, _ in marked], [own for _, own in marked]
    pairs, share = _all_meetings(views)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -share))
    wholes, pieces = _clusters(views, [(one, other) for one, other in pairs[order].tolist()])
    found = [([views[index] for index in members], _seen_whole(members, views, owned)) for members in wholes]
    for members in pieces:
        own = [views[index] for index in members]
        found.append((own, _alone(*marked[members[0]]) if len(own) == 1 else _joined(own)))
    return found


def _all_meetings(views: Sequence[View]) -> tuple[NDArray[np.int64], Floats]:
    """`meetings` of views of any zones, the smaller index first."""
    zones = [view.tile.zone for view in views]
    shapes = Shapes.of(views)
    found = [meetings_across(views, shapes)]
    for zone in dict.fromkeys(zones):
        mine = np.flatnonzero([one == zone for one in zones])
        pairs, share = meetings(shapes.taken(mine))
        found.append((mine[pairs], share))
    pairs, share = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return np.sort(pairs, axis=1), share


def _clusters(views: Sequence[View], links: Sequence[tuple[int, int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Views by thing: those that were seen whole, each with its pieces behind them, and those of pieces alone.

    `links` are pairs that agree, the most alike first. A tile has one whole view of a thing, or pieces of it.
    """
    cluster = {index: [index] for index, view in enumerate(views) if not view.cut}
    for one, other in links:
        if one in cluster and other in cluster and cluster[one] is not cluster[other]:
            tiles = {views[index].tile for index in cluster[one]}
            if not tiles & {views[index].tile for index in cluster[other]}:
                cluster[one] += cluster[other]
                cluster.update(dict.fromkeys(cluster[other], cluster[one]))
    whole = dict(cluster)
    for one, other in links:
        piece, found = (one, other) if views[one].cut else (other, one)
        if piece in cluster or found not in whole:
            continue
        if all(views[index].cut or views[index].tile != views[piece].tile for index in whole[found]):
            cluster[piece] = whole[found]
            whole[found].append(piece)
    rest = [index for index in range(len(views)) if index not in cluster]
    number = {index: place for place, index in enumerate(rest)}
    pairs = [(number[one], number[other]) for one, other in links if one in number and other in number]
    pieces = [[rest[place] for place in own] for own in connected(len(rest), pairs)]
    return list({id(members): members for members in whole.values()}.values()), pieces


def _seen_whole(members: Sequence[int], views: Sequence[View], owned: Sequence[bool]) -> list[Thing]:
    """The view of the tile that owns the thing; none where no tile that sees it does.

    Where each of two tiles puts it just on the other's ground, both know of it: it is there.
    """
    whole = [index for index in members if not views[index].cut]
    knowing = {views[index].tile for index in members}
    if not any(owned[index] for index in whole) and knowing.isdisjoint(_owner_tile(views[index]) for index in whole):
        return []
    best = min(whole, key=lambda index: (not owned[index], -(views[index].score or 0.0), views[index].key))
    return _alone(views[best], True)


def _owner_tile(view: View) -> Tile:
    """The tile whose ground holds the centroid of a view."""
    own = owner(view.tile.grid, *_centroids([view.geometry], view.tile.grid, view.tile.zone))
    zone = Zone(int(own.zone[0]), bool(own.north[0]))
    return Tile(view.tile.grid, zone, int(own.row[0]), int(own.column[0]))


def _joined(pieces: Sequence[View]) -> list[Thing]:
    """One thing of its pieces; one in each zone where they lie in more than one plane can show."""
    zones = {view.tile.zone for view in pieces}
    if all(_may_meet(one, other) for one in zones for other in zones):
        return [_in_one_plane(pieces)]
    return [_in_one_plane([view for view in pieces if view.tile.zone == zone]) for zone in sorted(zones)]


def _in_one_plane(pieces: Sequence[View]) -> Thing:
    """One thing of its pieces, in the plane of the largest."""
    base = max(pieces, key=lambda view: view.geometry.area)
    outlines = np.empty(len(pieces), object)
    outlines[:] = [view.geometry for view in pieces]
    for index, view in enumerate(pieces):
        if view.tile.zone != base.tile.zone:
            outlines[index : index + 1] = _carried(
                outlines[index : index + 1], view.tile.grid, view.tile.zone, base.tile.zone
            )
    kinds = {view.kind for view in pieces}
    kind = kinds.pop() if len(kinds) == 1 else "polygon"
    whole = shapely.union_all(outlines)
    if kind == "box":
        whole = shapely.box(*whole.bounds)
    elif kind == "oriented_box":
        whole = shapely.minimum_rotated_rectangle(whole)
    scores = [view.score for view in pieces if view.score is not None]
    mean = round(sum(sorted(scores)) / len(scores), 4) if scores else None
    return Thing(
        view=replace(base, kind=kind, geometry=whole, score=mean, cut=False),
        tiles=frozenset(view.tile.id for view in pieces),
        sources=frozenset(view.source for view in pieces),
    )


# ── on the ground ────────────────────────────────────────────────────────────────────────────────────────────


def thing_rows(
    things: Sequence[Thing], layer: Layer, label: str, query: Query, *, area: AreaOfInterest
) -> list[dict[str, Any]]:
    """Rows of the features (`feature_schema`, geometries as shapely's) of the things that lie in the area."""
    rows: list[dict[str, Any]] = []
    by_zone: dict[tuple[Grid, Zone], list[Thing]] = {}
    for thing in things:
        by_zone.setdefault((thing.view.tile.grid, thing.view.tile.zone), []).append(thing)
    for (grid, zone), members in by_zone.items():
        places = _centroids([thing.view.geometry for thing in members], grid, zone)
        shapely.prepare(area.geometry)
        inside = [
            thing for thing, there in zip(members, shapely.intersects_xy(area.geometry, *places), strict=True) if there
        ]
        grounds = on_ground([thing.view.geometry for thing in inside], grid, zone)
        for thing, ground, size in zip(inside, grounds, areas_m2(grounds), strict=True):
            source = about(query, layer, thing.sources)
            rows.append(
                {
                    **source,
                    "geometry": ground,
                    "answer": label,
                    "notes": [*source["notes"], *([CUT_OFF] if thing.view.cut else [])],
                    "probability": thing.view.score,
                    "fraction": None,
                    "area_m2": round(float(size), 2),
                    "tile_ids": sorted(thing.tiles),
                }
            )
    return rows


def on_ground(geometries: Sequence[BaseGeometry], grid: Grid, zone: Zone) -> Geometries:
    """Geometries of a zone's lattice in EPSG:4326, split at the antimeridian, in normal form."""
    shapes = np.empty(len(geometries), object)
    shapes[:] = list(geometries)
    if not len(shapes):
        return shapes
    if zone.is_polar:
        metres = shapely.transform(shapes, lambda xy: grid.origin_m(zone) + xy * grid.resolution_m)
        shapes[:] = [_around_pole(shape, zone, BEND_PX * grid.resolution_m) for shape in metres]
    else:
        bent = shapely.segmentize(shapes, _straight_px(shapes, grid, zone))
        shapes = shapely.transform(bent, lambda xy: np.column_stack(_unprojected(xy, grid, zone)))
        bounds = shapely.bounds(shapes)
        over = np.flatnonzero((bounds[:, 0] < -180.0) | (bounds[:, 2] > 180.0))
        shapes[over] = [_within_turn(shape) for shape in shapes[over]]
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure")
    normal: Geometries = shapely.normalize(shapes)
    return normal


def _around_pole(shape: BaseGeometry, zone: Zone, tolerance_m: float) -> BaseGeometry:
    if shape.geom_type != "Point":
        return to_lonlat(shape, zone.epsg, tolerance_m=tolerance_m)
    degrees = plane_of(zone.epsg).unproject(*shapely.get_coordinates(shape).T)
    return _within_turn(shapely.Point(*np.column_stack(degrees)[0]))


def _within_turn(shape: BaseGeometry) -> BaseGeometry:
    if shape.geom_type != "Point":
        return split_antimeridian(shape)
    return shapely.transform(shape, lambda xy: np.column_stack([wrap_longitude(xy[:, 0]), xy[:, 1]]))


def _straight_px(shapes: Geometries, grid: Grid, zone: Zone) -> Floats:
    """The longest edge of each that may stay straight: an arc of length L bends L² tan(latitude) / 8R from a chord."""
    middle = shapely.bounds(shapes)[:, 1]
    metres = np.abs(grid.origin_m(zone)[1] + middle * grid.resolution_m - (0.0 if zone.north else SOUTH_NORTHING_M))
    slope = np.tan(np.radians(np.clip(metres / METRES_PER_DEGREE + 1.0, 1.0, 86.0)))
    return np.sqrt(8 * _EARTH_M * BEND_PX / (grid.resolution_m * slope))


# ── what other cells may know of ─────────────────────────────────────────────────────────────────────────────


def reach_of(cell: Cell) -> BaseGeometry:
    """What the pictures of a cell see, in pixels of its zone's lattice."""
    grid = cell.grid
    side, halo = grid.cell_core_px, grid.halo_px
    west, south = cell.column * side, cell.row * side
    return shapely.box(west - halo, south - halo, west + side + halo, south + side + halo)


def seen_elsewhere(cell: Cell, views: Sequence[View]) -> NDArray[np.bool_]:
    """Which views of a cell may meet those of another cell, of its zone or of another one."""
    outlines = Shapes.of(views).outlines
    grid = cell.grid
    side, halo = grid.cell_core_px, grid.halo_px
    west, south = cell.column * side, cell.row * side
    inner = shapely.box(west + halo, south + halo, west + side - halo, south + side - halo)
    inside: NDArray[np.bool_] = np.array(shapely.contains_properly(inner, outlines), bool)
    return ~inside | near_border(cell.grid, cell.zone, outlines)


def near_border(grid: Grid, zone: Zone, outlines: Geometries) -> NDArray[np.bool_]:
    """Which outlines of a zone's lattice lie where tiles of another zone may see them."""
    if not len(outlines):
        return np.zeros(0, bool)
    west, south, east, north = shapely.bounds(outlines).T
    corners = [(west, south), (west, north), (east, south), (east, north)]
    places = [_unprojected(np.column_stack(corner), grid, zone) for corner in corners]
    longitude, latitude = (np.array([place[axis] for place in places]) for axis in (0, 1))
    degrees = BORDER_PICTURES * grid.picture_px * grid.resolution_m / METRES_PER_DEGREE
    left, low, right, high = zone.strip
    near = (np.abs(latitude - low) < degrees) | (np.abs(latitude - high) < degrees)
    near |= (latitude < low) | (latitude > high)
    if not zone.is_polar:
        aside = degrees / np.cos(np.radians(np.clip(np.abs(latitude), 0.0, 85.0)))
        near |= (longitude - left < aside) | (right - longitude < aside)
    found: NDArray[np.bool_] = np.logical_or.reduce(near, axis=0)
    return found


def meetings_across(views: Sequence[View], shapes: Shapes) -> tuple[NDArray[np.int64], Floats]:
    """`meetings` of views of different zones; `shapes` are theirs. Views far from a border meet none."""
    zones = [view.tile.zone for view in views]
    found: list[tuple[NDArray[np.int64], Floats]] = [(np.empty((0, 2), np.int64), np.empty(0))]
    near = _near_borders(views, shapes) if len(set(zones)) > 1 else np.zeros(len(views), bool)
    for zone in sorted(set(zones)):
        mine = np.flatnonzero(near & np.array([one == zone for one in zones]))
        later = np.flatnonzero(near & np.array([one > zone and _may_meet(zone, one) for one in zones]))
        if len(mine) and len(later):
            grid = views[0].tile.grid
            carried = shapes.taken(later).carried(grid, [zones[index] for index in later], zone)
            pairs, share = meetings(shapes.taken(mine), carried)
            found.append((np.column_stack([mine[pairs[:, 0]], later[pairs[:, 1]]]), share))
    pairs, share = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return pairs, share


def _near_borders(views: Sequence[View], shapes: Shapes) -> NDArray[np.bool_]:
    """`near_border` of views of any zones."""
    near = np.zeros(len(views), bool)
    for zone in dict.fromkeys(view.tile.zone for view in views):
        mine = np.flatnonzero([view.tile.zone == zone for view in views])
        near[mine] = near_border(views[0].tile.grid, zone, shapes.outlines[mine])
    return near


def _may_meet(one: Zone, other: Zone) -> bool:
    """Whether two zones have a border in common, or a corner."""
    if one.is_polar or other.is_polar:
        return one.north == other.north
    return (one.number - other.number) % 60 in (0, 1, 59)


def connected(count: int, pairs: Sequence[tuple[int, int]] | NDArray[np.int64]) -> list[list[int]]:
    """The numbers below `count` by connected group."""
    if not len(pairs):
        return [[number] for number in range(count)]
    numbers = group(count, np.asarray(pairs, np.int64))
    members: list[list[int]] = [[] for _ in range(int(numbers.max(initial=-1)) + 1)]
    for index, number in enumerate(numbers.tolist()):
        members[number].append(index)
    return members


# ── between cells ────────────────────────────────────────────────────────────────────────────────────────────


def view_row(view: View, layer: Layer, label: str, *, number: int) -> dict[str, Any]:
    """A row of `view_schema`; `number` is that of the view's group."""
    return {
        "geometry": shapely.to_wkb(view.geometry),
        "query": layer.query,
        "sensor": layer.sensor,
        "observation": layer.observation,
        "answer": label,
        "group": number,
        "kind": view.kind,
        "tile": view.tile.id,
        "score": view.score,
        "cut": view.cut,
        "source": view.source.to_json(),
        "date": view.date,
        "time": view.sighting.time if view.sighting is not None else None,
        "track": view.sighting.track if view.sighting is not None else None,
    }


def read_views(table: pa.Table) -> Iterator[tuple[Layer, str, int, View]]:
    """The views of a table (`view_schema`), each with its layer, what it is said to be, and its group."""
    tiles, sources = lru_cache(maxsize=None)(Tile.parse), lru_cache(maxsize=None)(Source.from_json)
    shapes = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    for shape, row in zip(shapes, table.drop_columns(["geometry"]).to_pylist(), strict=True):
        layer = Layer(row["query"], row["sensor"], row["observation"])
        view = View(
            tile=tiles(row["tile"]),
            kind=row["kind"],
            geometry=shape,
            score=row["score"],
            cut=row["cut"],
            source=sources(row["source"]),
            sighting=Sighting(date=row["date"], time=row["time"], track=row["track"]) if row["date"] else None,
        )
        yield layer, row["answer"], row["group"], view
