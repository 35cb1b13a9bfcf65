"""Masks as polygons: traced along pixel edges, joined across cells and zones, carried to longitude and latitude.

In a zone everything is whole numbers: pixels counted eastwards and northwards from the lattice's anchor. Regions are
4-connected. Straight stretches hold no vertices, so a region has one outline whatever tiles it was cut from. A vertex
on every 16th lattice line is added only before the curve of the projection matters; 16 divides every core, so that
a tile's border falls on such a line and leaves no trace either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from earthmap.grid.projection import Plane, Pole, gap_in_degrees, plane_of, quarters_to_lonlat, reproject
from earthmap.grid.tiling import UTM_NORTH_DEG, UTM_SOUTH_DEG, Grid, Zone

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Geometries = NDArray[np.object_]

DENSIFY_PX = 16
"""A long edge gets a vertex on every lattice line of this count, so that it stays true in EPSG:4326."""
CAP_TOLERANCE_PX = 0.005
"""How far an edge in a polar cap, where degrees turn quickly, may be from its place."""
BORDER_PARALLELS = (0.0, UTM_NORTH_DEG, UTM_SOUTH_DEG)
"""Latitudes on which zones meet."""
SNAP_DEG = 1e-11
"""Vertices nearer than this (a micrometre) to a zone's border are on it."""

_STEPS_IJ = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])  # east, south, west, north, on the screen


def label_regions(mask: NDArray[np.uint8], *, ignore: tuple[int, ...] = (0, 255)) -> NDArray[np.int32]:
    """(y, x) numbers from 1 of the 4-connected regions of equal codes; 0 where the code is one of `ignore`."""
    from skimage.measure import label

    codes = np.arange(256, dtype=np.uint8)
    codes[list(ignore)] = 0
    shown = codes[mask]
    if not shown.any():
        return np.zeros(mask.shape, np.int32)
    labels: NDArray[np.int32] = np.asarray(label(shown, background=0, connectivity=1), np.int32)  # type: ignore[no-untyped-call]
    return labels


def _link_edges(labels: NDArray[np.int32]) -> tuple[Ints, Ints, Ints, Ints]:
    """The unit edges around regions, the region on their right: start vertex, direction, label, number of the next.

    At a vertex where a region meets itself across a corner the outline turns towards the region (left), which closes
    what it encloses there as a hole of its own: rings never pass a vertex twice, as simple features demand.
    """
    padded = np.pad(labels, 1)
    northwest, northeast = padded[:-1, :-1].ravel(), padded[:-1, 1:].ravel()
    southwest, southeast = padded[1:, :-1].ravel(), padded[1:, 1:].ravel()
    inside = (southeast, southwest, northwest, northeast)  # right of an edge that leaves a vertex east, south, …
    outside = (northeast, southeast, southwest, northwest)
    ahead_left, ahead_right = outside, inside  # of an edge that arrives at a vertex
    width = padded.shape[1] - 1
    starts = [np.flatnonzero((own != other) & (own != 0)) for own, other in zip(inside, outside, strict=True)]
    number = np.zeros((4, northwest.size), np.int32)
    first = 0
    for heading, start in enumerate(starts):
        number[heading, start] = np.arange(first, first + len(start))
        first += len(start)
    following = []
    for heading, start in enumerate(starts):
        label = inside[heading][start]
        end = start + int(_STEPS_IJ[heading] @ (width, 1))
        left, straight = ahead_left[heading][end] == label, ahead_right[heading][end] == label
        turned = (heading + np.where(left, -1, np.where(straight, 0, 1))) % 4
        following.append(number[turned, end])
    headings = np.repeat(np.arange(4), [len(start) for start in starts])
    owner = np.concatenate([inside[heading][start] for heading, start in enumerate(starts)])
    return np.concatenate(starts), headings, owner.astype(np.int64), np.concatenate(following).astype(np.int64)


def _walk(following: Ints) -> tuple[Ints, Ints]:
    """The cycles of a permutation: its numbers cycle by cycle, and where each cycle starts in that list."""
    after = following.tolist()
    seen = bytearray(len(after))
    order: list[int] = []
    starts: list[int] = []
    for first in range(len(after)):
        if seen[first]:
            continue
        starts.append(len(order))
        edge = first
        while not seen[edge]:
            seen[edge] = 1
            order.append(edge)
            edge = after[edge]
    return np.array(order, np.int64), np.array(starts, np.int64)


class Rings(NamedTuple):
    """Closed lines in one array of vertices (the last one is not the first again), and whose polygon each is of."""

    xy: Floats
    starts: Ints
    """Index of each ring's first vertex."""
    owner: Ints
    """The polygon of each ring; the shell comes first."""

    @property
    def ring(self) -> Ints:
        """The ring of each vertex."""
        return np.repeat(np.arange(len(self.starts)), np.diff(np.append(self.starts, len(self.xy))))

    def previous(self, values: Floats) -> Floats:
        """`values` of the vertices (or edges), moved on by one within each ring."""
        moved = np.roll(values, 1, axis=0)
        moved[self.starts] = values[np.append(self.starts[1:], len(self.xy)) - 1]
        return moved

    def kept(self, keep: NDArray[np.bool_]) -> Rings:
        """The rings without some of their vertices; each keeps three at least."""
        counts = np.bincount(self.ring[keep], minlength=len(self.starts))
        return Rings(self.xy[keep], np.cumsum(counts) - counts, self.owner)

    def polygons(self) -> Geometries:
        """One polygon for each owner, in their order."""
        if not len(self.starts):
            return np.empty(0, object)
        lines: Any = shapely.linearrings(self.xy, indices=self.ring)
        shell = np.diff(self.owner, prepend=-1) != 0
        result: Any = shapely.polygons(lines, indices=np.cumsum(shell) - 1)
        return np.asarray(result, object)


def rings_of(polygons: Geometries) -> Rings:
    """The rings of an array of Polygons."""
    lines, owner = shapely.get_rings(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(lines, return_index=True)
    last = np.append(np.diff(ring) != 0, True) if len(ring) else np.empty(0, bool)
    counts = np.bincount(ring[~last], minlength=len(lines))
    return Rings(xy[~last], np.cumsum(counts) - counts, owner.astype(np.int64))


def trace(labels: NDArray[np.int32], *, west_px: int = 0, north_px: int = 0) -> tuple[Geometries, Ints]:
    """Polygons of the labelled regions, sorted by label, and their labels.

    Args:
        labels: (y, x) numbers of 4-connected regions, 0 for none, row 0 in the north.
        west_px: x of the array's west edge in whole pixels, counted eastwards.
        north_px: y of its north edge, counted northwards.
    """
    rows, columns = (np.flatnonzero((labels != 0).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.empty(0, object), np.empty(0, np.int64)
    # Only the part with regions in it, which seldom is all.
    labels = labels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    west_px, north_px = west_px + int(columns[0]), north_px - int(rows[0])
    vertex, heading, owner, following = _link_edges(labels)
    order, starts = _walk(following)
    down, right = np.divmod(vertex[order], labels.shape[1] + 1)
    rings = Rings(np.column_stack([west_px + right, north_px - down]).astype(float), starts, owner[order][starts])
    direction = heading[order].astype(float)
    rings = rings.kept(direction != rings.previous(direction))
    # Clockwise shells come before the anticlockwise holes of the same region.
    clockwise = _signed_area(rings) < 0
    sequence = np.lexsort((~clockwise, rings.owner))
    rings = _reordered(rings, sequence)
    return rings.polygons(), np.unique(rings.owner)


def _signed_area(rings: Rings) -> Floats:
    before = rings.previous(rings.xy)
    cross = before[:, 0] * rings.xy[:, 1] - before[:, 1] * rings.xy[:, 0]
    return np.add.reduceat(cross, rings.starts) / 2.0


def _reordered(rings: Rings, sequence: Ints) -> Rings:
    counts = np.diff(np.append(rings.starts, len(rings.xy)))[sequence]
    starts = np.cumsum(counts) - counts
    index = np.repeat(rings.starts[sequence] - starts, counts) + np.arange(len(rings.xy))
    return Rings(rings.xy[index], starts, rings.owner[sequence])


def straighten(polygons: Geometries) -> Geometries:
    """Rectilinear polygons without the vertices that lie on straight stretches, in normal form."""
    if not len(polygons):
        return polygons
    rings = rings_of(polygons)
    back = rings.xy - rings.previous(rings.xy)
    vertical = back[:, 0] == 0.0
    ends = np.append(rings.starts[1:], len(rings.xy)) - 1
    onward = np.roll(vertical, -1)
    onward[ends] = vertical[rings.starts]
    result: Geometries = shapely.normalize(rings.kept(vertical != onward).polygons())
    return result


def _densified(rings: Rings) -> Rings:
    """A vertex more wherever an edge crosses a 16th lattice line."""
    ends = np.append(rings.starts[1:], len(rings.xy)) - 1
    onward = np.roll(rings.xy, -1, axis=0)
    onward[ends] = rings.xy[rings.starts]
    axis = (onward[:, 0] == rings.xy[:, 0]).astype(int)
    each = np.arange(len(axis))
    low, high = rings.xy[each, axis], onward[each, axis]
    upward = high > low
    first = np.where(upward, np.floor(low / DENSIFY_PX) + 1, np.ceil(low / DENSIFY_PX) - 1)
    last = np.where(upward, np.ceil(high / DENSIFY_PX) - 1, np.floor(high / DENSIFY_PX) + 1)
    extra = np.maximum(0, np.where(upward, last - first, first - last) + 1).astype(np.int64)
    edge = np.repeat(each, extra + 1)
    rank = np.arange(len(edge)) - np.repeat(np.cumsum(extra + 1) - extra - 1, extra + 1)
    xy = rings.xy[edge].copy()
    fresh = rank > 0
    line = first[edge] + np.where(upward[edge], 1, -1) * (rank - 1)
    xy[fresh, axis[edge[fresh]]] = line[fresh] * DENSIFY_PX
    counts = np.add.reduceat(extra + 1, rings.starts)
    return Rings(xy, np.cumsum(counts) - counts, rings.owner)


def snap_to_strip(xy: Floats, zone: Zone) -> Floats:
    """Longitudes and latitudes with those within a micrometre of the zone's border exactly on it."""
    west, south, east, north = zone.strip
    for axis, border in ((0, west), (0, east), (1, south), (1, north)):
        xy[np.abs(xy[:, axis] - border) < SNAP_DEG, axis] = border
    return xy


def to_ground(polygons: Geometries, *, grid: Grid, zone: Zone) -> tuple[Geometries, Ints]:
    """Lattice polygons in EPSG:4326, continuous in longitude and not yet clipped to the zone, and their numbers.

    Around a pole a polygon that reaches one of the meridians -180, -90, 0 and 90 is cut there, into several of its
    number.
    """
    numbers = np.arange(len(polygons))
    if not len(polygons):
        return polygons, numbers
    rings = _densified(rings_of(polygons))
    rings = Rings(grid.origin_m(zone) + rings.xy * grid.resolution_m, rings.starts, rings.owner)
    plane = plane_of(zone.epsg)
    if plane.pole is not None:
        return _around_pole(rings.polygons(), plane, plane.pole, tolerance_m=CAP_TOLERANCE_PX * grid.resolution_m)
    longitude, latitude = plane.unproject(rings.xy[:, 0], rings.xy[:, 1])
    xy = snap_to_strip(np.column_stack([longitude, latitude]), zone)
    return Rings(xy, rings.starts, rings.owner).polygons(), numbers


def _around_pole(polygons: Geometries, plane: Plane, pole: Pole, *, tolerance_m: float) -> tuple[Geometries, Ints]:
    """Polygons of a cap's plane in degrees, cut along four meridians, and the number of each piece."""
    west, south, east, north = shapely.bounds(polygons).T
    on_ray = ((west <= pole.x) & (east >= pole.x)) | ((south <= pole.y) & (north >= pole.y))
    plain = shapely.MultiPolygon(list(polygons[~on_ray]))
    image = reproject(plain, plane.unproject, gap=gap_in_degrees, tolerance_m=tolerance_m, step=np.inf)
    parts, numbers = [shapely.get_parts(image)], [np.flatnonzero(~on_ray)]
    for index in np.flatnonzero(on_ray).tolist():
        quarters = quarters_to_lonlat(polygons[index], plane, pole, tolerance_m=tolerance_m, step=np.inf)
        parts.append(shapely.get_parts(quarters))
        numbers.append(np.full(len(parts[-1]), index))
    return np.concatenate(parts), np.concatenate(numbers).astype(np.int64)


def clip_parts(polygons: Geometries, clip: shapely.Geometry) -> tuple[Geometries, Ints, NDArray[np.bool_]]:
    """The connected parts of `polygons` ∩ `clip` that have an area, the polygon of each, and True where it was cut."""
    shapely.prepare(clip)
    whole = shapely.covers(clip, polygons)
    near = ~whole & shapely.intersects(clip, polygons)
    cut = np.flatnonzero(near)
    clipped = shapely.intersection(shapely.make_valid(polygons[cut]), clip) if len(cut) else np.empty(0, object)
    parts, source = shapely.get_parts(clipped, return_index=True)
    parts, inner = shapely.get_parts(parts, return_index=True)
    source = source[inner] if len(inner) else source
    solid = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) > 0.0)
    index = np.concatenate([np.flatnonzero(whole), cut[source[solid]]]).astype(np.int64)
    geometries = np.concatenate([polygons[whole], parts[solid]])
    was_cut = np.concatenate([np.zeros(int(whole.sum()), bool), np.ones(int(solid.sum()), bool)])
    order = np.argsort(index, kind="stable")
    return geometries[order], index[order], was_cut[order]


def group(count: int, pairs: Ints) -> Ints:
    """For each of `count` members the number of its connected group; `pairs` is (n, 2)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def unite(polygons: Geometries, groups: Ints) -> Geometries:
    """The union of each group of polygons, by group number; one polygon alone is returned as it is."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    members = np.split(order, starts[1:]) if len(order) else []
    result = np.empty(len(members), object)
    for number, member in enumerate(members):
        if len(member) == 1:
            result[number] = polygons[member[0]]
            continue
        # In an order of their own content, so that no rounding depends on which cell came first.
        result[number] = shapely.union_all(sorted(polygons[member], key=lambda polygon: polygon.wkb))
    return result


class Stretches(NamedTuple):
    """Edges of polygons along lines that others may touch."""

    ends: Floats
    """(n, 2) where each starts and ends on its line, the smaller first."""
    member: Ints
    """The polygon of each."""
    line: Floats
    """(n, 2) axis that is constant along the line (0 for x), and its value there."""

    def taken(self, index: NDArray[Any]) -> Stretches:
        """Some of them."""
        return Stretches(self.ends[index], self.member[index], self.line[index])


def seam_stretches(polygons: Geometries, side_px: int) -> Stretches:
    """Where lattice polygons lie along the lines between cells; a corner is no stretch.

    `side_px` is the side of a cell's core.
    """
    return _stretches(polygons, lambda axis, at: np.mod(at, side_px) == 0.0)


def border_stretches(polygons: Geometries) -> Stretches:
    """Where polygons in EPSG:4326 lie along a zone's border.

    A border is a 6° meridian, of which 180 and -180 are one, the equator, 84° N or 80° S. The meridians that polygons
    were cut along around the poles are among them.
    """
    found = _stretches(
        polygons, lambda axis, at: np.mod(at, 6.0) == 0.0 if axis == 0 else np.isin(at, BORDER_PARALLELS)
    )
    return found._replace(line=np.where(found.line == -180.0, 180.0, found.line))


def _stretches(polygons: Geometries, on_line: Callable[[int, Floats], NDArray[np.bool_]]) -> Stretches:
    """The edges along lines of constant x, then y, that `on_line` chooses."""
    if not len(polygons):
        return Stretches(np.empty((0, 2)), np.empty(0, np.int64), np.empty((0, 2)))
    rings = rings_of(polygons)
    before, member = rings.previous(rings.xy), rings.owner[rings.ring]
    found = []
    for axis in (0, 1):
        at = rings.xy[:, axis]
        along = np.flatnonzero((at == before[:, axis]) & on_line(axis, at))
        ends = np.sort(np.column_stack([before[along, 1 - axis], rings.xy[along, 1 - axis]]), axis=1)
        found.append((ends, member[along], np.column_stack([np.full(len(along), float(axis)), at[along]])))
    return Stretches(*(np.concatenate(column) for column in zip(*found, strict=True)))


def overlaps(stretches: Stretches) -> Ints:
    """(n, 2) pairs of polygons with stretches of one line that overlap, each pair once, sorted."""
    ends, member, line = stretches
    order = np.lexsort((ends[:, 1], ends[:, 0], *line.T))
    pairs: set[tuple[int, int]] = set()
    unfinished: list[tuple[float, int]] = []
    here: list[float] = []
    rows = zip(*ends[order].T.tolist(), member[order].tolist(), line[order].tolist(), strict=True)
    for low, high, who, where in rows:
        if where != here:
            here, unfinished = where, []
        unfinished = [(end, other) for end, other in unfinished if end - low > SNAP_DEG]
        pairs |= {(min(who, other), max(who, other)) for _, other in unfinished if other != who}
        unfinished.append((high, who))
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)
