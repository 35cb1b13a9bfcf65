"""Things followed through time: one track on the ground for each thing that is there, whatever tiles it passes.

On each date views are told apart as things are (`earthmap.merge.instances`): one thing for each that is there, owned by
the tile whose ground holds its centroid. Which of two dates' things are one a tile says that saw both, from core or
halo. Tracks are the connected components of these links, the shortest in time and those that most tiles say first, no
two things of one date in one. A thing that no tile saw on two dates, because it went further than a halo between them,
becomes two tracks (docs/tracks.md).
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.grid import AreaOfInterest
from earthmap.merge.aggregate import Sums
from earthmap.merge.instances import (
    Shapes,
    Sighting,
    Thing,
    View,
    centroids_of,
    meetings,
    on_ground,
    tell_apart,
    thing_rows,
    told_apart,
    told_views,
)
from earthmap.merge.layers import Layer, Source
from earthmap.merge.regions import about
from earthmap.tasks import Query
from earthmap.tasks.times import numbers_by_text

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

STILL_PX = 2.0
"""What stays within this of its first place stands: dates lie on each other to a pixel or so, corners to half a one."""

DISAGREE = "tiles say differently how it went on"
"""Note of a track that a link would have joined with another one that has things of the same dates."""


# ── from answers to views ────────────────────────────────────────────────────────────────────────────────────


def sightings_of(row: Mapping[str, Any], query: Query, source: Source) -> Iterator[tuple[str, View]]:
    """The views in a row of answers to a question about a series, each with what its track is said to be.

    Of a track that has several states of one date the surest is one; states of no date of the series are none.
    """
    dates = row["dates"] or []
    numbers = numbers_by_text([date["time"] for date in dates])
    taken: set[tuple[int, int]] = set()
    labels: dict[int, str] = {}
    for index, (label, instance, view) in enumerate(told_views(row, query, source)):
        track = -1 - index if instance.track is None else instance.track
        number = numbers.get(instance.time or "")
        if number is None or (track, number) in taken:
            continue
        taken.add((track, number))
        date = dates[number]
        sighting = Sighting(date=date["observation"], time=date["time"], track=track)
        yield labels.setdefault(track, label), dataclasses.replace(view, sighting=sighting)


# ── which views are of one track ─────────────────────────────────────────────────────────────────────────────


def together(views: Sequence[View]) -> NDArray[np.int64]:
    """(n, 2) indices of views that are of one thing: those of one date that agree, and those of one track of a tile."""
    shapes = Shapes.of(views)
    pairs = [np.empty((0, 2), np.int64)]
    for members in _by(views, lambda view: view.date):
        index = np.array(members, np.int64)
        pairs.append(index[meetings(shapes.taken(index))[0]])
    for members in _by(views, _track_of):
        pairs.append(np.array(list(itertools.pairwise(members)), np.int64).reshape(-1, 2))
    return np.concatenate(pairs)


def _track_of(view: View) -> tuple[str, int] | None:
    return None if view.sighting is None else (view.tile.id, view.sighting.track)


def _by(views: Sequence[View], key_of: Any) -> list[list[int]]:
    """Indices of views with one key; those of the key None are left out."""
    found: dict[Any, list[int]] = {}
    for index, view in enumerate(views):
        key = key_of(view)
        if key is not None:
            found.setdefault(key, []).append(index)
    return list(found.values())


# ── tracks ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One thing through time."""

    states: tuple[Thing, ...]
    """In order of time, at most one of each date; each view has its sighting."""
    disagree: bool
    """Tiles say differently how it went on."""


@dataclass(frozen=True, slots=True)
class _Node:
    """What views of one date have in common."""

    rank: int
    """Of its date."""
    key: tuple[str, bytes]
    things: Sequence[Thing]
    """What it is on the ground; empty where the tile that owns the place does not know of it."""


def follow(groups: Sequence[Sequence[View]]) -> list[Track]:
    """The tracks that groups of views show; no view of one group belongs together with one of another. No order
    matters."""
    return [track for views in groups for track in _tracks_in(views)]


def _tracks_in(views: Sequence[View]) -> list[Track]:
    nodes, node_of = _nodes(views)
    links = _links(views, nodes, node_of)
    members = {number: [number] for number in range(len(nodes))}
    disagree: set[int] = set()
    for one, other in links:
        mine, theirs = members[one], members[other]
        if mine is theirs:
            continue
        if {nodes[number].rank for number in mine} & {nodes[number].rank for number in theirs}:
            disagree |= {one, other}
            continue
        mine += theirs
        members.update(dict.fromkeys(theirs, mine))
    tracks = []
    for own in {id(numbers): numbers for numbers in members.values()}.values():
        ordered = sorted((nodes[number] for number in own), key=lambda node: node.rank)
        states = [node.things[0] for node in ordered if node.things]
        if states:
            tracks.append(Track(states=tuple(states), disagree=not disagree.isdisjoint(own)))
    return tracks


def _nodes(views: Sequence[View]) -> tuple[list[_Node], dict[int, int]]:
    """What there is on each date, in an order of its own; and the number of the node of each view, by the view's id."""
    dates = _by(views, lambda view: view.date)
    first = {views[own[0]].date: min(_time(views[index]) for index in own) for own in dates}
    ranks = {date: rank for rank, date in enumerate(sorted(first, key=lambda date: (first[date], date)))}
    found: list[tuple[_Node, list[View]]] = []
    for own in dates:
        for members, things in told_apart([views[index] for index in own]):
            key = min(view.key for view in members)
            ordered = sorted(things, key=lambda thing: thing.view.key)
            found.append((_Node(ranks[members[0].date], key, ordered), members))
    found.sort(key=lambda pair: (pair[0].rank, pair[0].key))
    node_of = {id(view): number for number, (_, members) in enumerate(found) for view in members}
    return [node for node, _ in found], node_of


def _time(view: View) -> datetime.datetime:
    return view.source.datetime_min if view.sighting is None else view.sighting.time


def _links(
    views: Sequence[View], nodes: Sequence[_Node], node_of: Mapping[int, int]
) -> list[tuple[int, int]]:  # fmt: skip
    """Pairs of nodes that a tile saw as one thing, the surest first: those nearest in time, then said by most tiles,
    then of the highest score."""
    said: dict[tuple[int, int], list[float]] = {}
    for own in _by(views, _track_of):
        chain = sorted({node_of[id(views[index])] for index in own}, key=lambda number: nodes[number].rank)
        score = min(views[index].score or 0.0 for index in own)
        for one, other in itertools.pairwise(chain):
            if nodes[one].rank != nodes[other].rank:
                said.setdefault((one, other), []).append(score)

    def order(pair: tuple[int, int]) -> tuple[float, ...]:
        scores = said[pair]
        return nodes[pair[1]].rank - nodes[pair[0]].rank, -len(scores), -max(scores), *pair

    return sorted(said, key=order)


# ── on the ground ────────────────────────────────────────────────────────────────────────────────────────────


def found_rows(
    groups: Sequence[Sequence[View]], layer: Layer, label: str, query: Query, *, area: AreaOfInterest, sums: Sums
) -> list[dict[str, Any]]:
    """Rows of the features of what groups of views show, things or tracks, as the query asks; counted in `sums`."""
    if not query.is_followed:
        rows = thing_rows(tell_apart(groups), layer, label, query, area=area)
        sums.find(layer, label, len(rows), task=query.task)
        return rows
    rows = track_rows(follow(groups), layer, label, query, area=area)
    known = [row["length_m"] for row in rows if row["length_m"] is not None]
    moved = sum(length > 0.0 for length in known)
    sums.find(layer, label, len(rows), task=query.task, moved=moved, stood=len(known) - moved)
    return rows


def track_rows(
    tracks: Sequence[Track], layer: Layer, label: str, query: Query, *, area: AreaOfInterest
) -> list[dict[str, Any]]:
    """Rows of the features (`feature_schema`, geometries as shapely's) of the tracks, as far as they lie in the area.

    A LineString through the middles of the thing on its dates, a Point for what stands or was seen once. `times` are
    those of the vertices of a line, but of those that the antimeridian adds; `boxes` four degrees for each time.
    """
    states = [(number, thing) for number, track in enumerate(tracks) for thing in track.states]
    places = centroids_of([thing.view for _, thing in states])
    shapely.prepare(area.geometry)
    inside = shapely.intersects_xy(area.geometry, *places)
    kept: list[list[tuple[Thing, tuple[float, float]]]] = [[] for _ in tracks]
    for (number, thing), x, y, there in zip(states, *(axis.tolist() for axis in places), inside, strict=True):
        if there:
            kept[number].append((thing, (x, y)))
    return [
        _row(track, own, layer, label, query) for track, own in zip(tracks, kept, strict=True) if own
    ]  # fmt: skip


def _row(
    track: Track, states: Sequence[tuple[Thing, tuple[float, float]]], layer: Layer, label: str, query: Query
) -> dict[str, Any]:
    things = [thing for thing, _ in states]
    source = about(query, layer, frozenset[Source]().union(*(thing.sources for thing in things)))
    times = [_time(thing.view) for thing in things]
    way = _way([place for _, place in states])
    still = STILL_PX * things[0].view.tile.grid.resolution_m
    seconds = (times[-1] - times[0]).total_seconds()
    geometry, length_m = _drawn(way, still)
    scores = [thing.view.score for thing in things if thing.view.score is not None]
    return {
        **source,
        "geometry": geometry,
        "answer": label,
        "notes": sorted({*source["notes"], *([DISAGREE] if track.disagree else [])}),
        "probability": round(sum(scores) / len(scores), 4) if scores else None,
        "tile_ids": sorted(frozenset[str]().union(*(thing.tiles for thing in things))),
        "datetime_min": times[0],
        "datetime_max": times[-1],
        "times": times,
        "boxes": [edge for thing in things for edge in _box(thing)],
        "length_m": length_m if len(things) > 1 else None,
        "speed_m_s": round(length_m / seconds, 4) if seconds else None,
    }


def _way(places: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """(n, 2) longitudes and latitudes, the longitudes within half a turn of the first."""
    way = np.array(places, float)
    way[:, 0] += 360.0 * np.rint((way[0, 0] - way[:, 0]) / 360.0)
    return way


def _drawn(way: NDArray[np.float64], still_m: float) -> tuple[BaseGeometry, float]:
    """The line of a way and its length in metres; a point, and nothing, for what never left its place."""
    steps, away = _metres(way[:-1], way[1:]), _metres(way, np.broadcast_to(way[0], way.shape))
    if away.max() <= still_m:
        longitude, latitude = way.mean(axis=0)
        return shapely.Point((longitude + 180.0) % 360.0 - 180.0, latitude), 0.0
    return _split(way), round(float(steps.sum()), 2)


def _split(way: NDArray[np.float64]) -> BaseGeometry:
    """A way as a line, cut where it crosses the antimeridian, in its own direction and with all its crossings of
    itself."""
    turns = np.floor((way[:, 0] + 180.0) / 360.0)
    parts: list[list[NDArray[np.float64]]] = [[way[0] - (360.0 * turns[0], 0.0)]]
    for start, end, turn, after in zip(way[:-1], way[1:], turns[:-1], turns[1:], strict=True):
        if turn != after:
            edge = 360.0 * max(turn, after) - 180.0
            crossing = start + (edge - start[0]) / (end[0] - start[0]) * (end - start)
            parts[-1].append(np.array([edge - 360.0 * turn, crossing[1]]))
            parts.append([np.array([edge - 360.0 * after, crossing[1]])])
        parts[-1].append(end - (360.0 * after, 0.0))
    lines = [shapely.LineString(part) for part in parts if len(part) > 1]
    lines = [line for line in lines if line.length > 0.0]
    return lines[0] if len(lines) == 1 else shapely.MultiLineString(lines)


def _metres(start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Geodesic distances between places in degrees, pair by pair."""
    found: NDArray[np.float64] = _ellipsoid().inv(start[:, 0], start[:, 1], end[:, 0], end[:, 1])[2]
    return np.asarray(found, float)


@lru_cache(maxsize=1)
def _ellipsoid() -> Any:
    from pyproj import Geod

    return Geod(ellps="WGS84")


def _box(thing: Thing) -> list[float]:
    """West, south, east, north of a thing in degrees; west is greater than east over the antimeridian."""
    (ground,) = on_ground([thing.view.geometry], thing.view.tile.grid, thing.view.tile.zone)
    west, south, east, north = ground.bounds
    if east - west > 180.0:
        edges = shapely.bounds(shapely.get_parts(ground))
        west, east = edges[edges[:, 0] > 0.0, 0].min(), edges[edges[:, 2] < 0.0, 2].max()
    return [round(float(edge), 7) for edge in (west, south, east, north)]
