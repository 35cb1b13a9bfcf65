"""Observations: scenes grouped by pass, and the choice of those that a cell is read from.

Nothing here depends on the area of a job: a pass is recognised from its scenes alone, and a cell's observations from
the cell's ground alone. `narrow` leaves in an observation only the scenes over one ground, so that a larger area,
which brings more scenes of the same pass, does not change what a cell is read from.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.catalog.intervals import Interval, parse_datetime
from earthmap.catalog.scene import Observation, Scene
from earthmap.content import content_key
from earthmap.errors import JobError, QueryError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

RULES = ("least_cloud", "latest", "all")
"""How a cell's observations are chosen; the first is the default."""

UNKNOWN_CLOUD_PERCENT = 50.0
"""What a scene counts for that does not state its cloud cover."""

NEARLY_WHOLE = 0.9
"""`latest` takes an observation that covers at least this share of what the widest one covers."""

_KEY_DIGITS = 8
_SAME_PASS = datetime.timedelta(minutes=50)
"""Longest gap inside a named pass: half an orbit; the same orbit returns days later under the same name."""
_SAME_STRIP = datetime.timedelta(minutes=15)
_SAME_TIME = datetime.timedelta(seconds=1)
_SAME_FOOTPRINT = 0.95
"""Intersection over union from which two footprints are one: reprocessing moves an edge by some pixels."""


def observe(scenes: Iterable[Scene]) -> list[Observation]:
    """The observations that `scenes` make, sorted by id; the order of `scenes` does not matter.

    One observation is the scenes of one sensor with the same pass_id and no gap of 50 minutes; scenes without a
    pass_id belong together by platform (collection where that is unknown too), local solar day (UTC + longitude / 15
    h, so that a pass that crosses midnight UTC stays whole) and no gap of 15 minutes. Of scenes with the same time,
    bands and footprint, which are reprocessings of one another, only the one `created` last (then the greatest id)
    stays. Inside, the least cloudy scene comes first, then by id.
    """
    grouped: dict[tuple[str, str], list[Scene]] = {}
    for scene in scenes:
        grouped.setdefault((scene.sensor, _pass_key(scene)), []).append(scene)
    passes = [part for members in grouped.values() for part in _split_at_gaps(members)]
    return sorted((_observation(_newest(part)) for part in passes), key=lambda observation: observation.id)


def _pass_key(scene: Scene) -> str:
    if scene.pass_id is not None:
        return content_key("pass", scene.pass_id)
    centre = shapely.from_wkb(scene.footprint).centroid
    longitude = 0.0 if centre.is_empty else centre.x
    solar = scene.datetime.astimezone(datetime.UTC) + datetime.timedelta(hours=longitude / 15.0)
    return content_key("strip", scene.platform or scene.collection, solar.date().isoformat())


def _split_at_gaps(scenes: Sequence[Scene]) -> Iterator[list[Scene]]:
    ordered = sorted(scenes, key=lambda scene: (scene.datetime, scene.collection, scene.id))
    longest = _SAME_STRIP if ordered[0].pass_id is None else _SAME_PASS
    part = ordered[:1]
    for before, after in itertools.pairwise(ordered):
        if after.datetime - before.datetime > longest:
            yield part
            part = []
        part.append(after)
    yield part


def _newest(scenes: Sequence[Scene]) -> list[Scene]:
    """`scenes` without those that a newer version of themselves stands beside."""
    kept: list[tuple[Scene, BaseGeometry]] = []
    for scene in sorted(scenes, key=lambda scene: (scene.created or "", scene.id, scene.collection), reverse=True):
        footprint = shapely.from_wkb(scene.footprint)
        if not any(_reprocessed(scene, footprint, other, ground) for other, ground in kept):
            kept.append((scene, footprint))
    return [scene for scene, _ in kept]


def _reprocessed(scene: Scene, footprint: BaseGeometry, other: Scene, ground: BaseGeometry) -> bool:
    if abs(scene.datetime - other.datetime) > _SAME_TIME or not footprint.intersects(ground):
        return False
    if {source.band for source in scene.sources} != {source.band for source in other.sources}:
        return False
    shared = footprint.intersection(ground).area
    return bool(shared > 0 and shared >= _SAME_FOOTPRINT * footprint.union(ground).area)


def _cloud(scene: Scene) -> float:
    """Cloud cover as a share of one."""
    return (UNKNOWN_CLOUD_PERCENT if scene.cloud_cover is None else scene.cloud_cover) / 100.0


def _observation(scenes: Iterable[Scene]) -> Observation:
    ordered = sorted(scenes, key=lambda scene: (_cloud(scene), scene.id, scene.collection))
    first = min(ordered, key=lambda scene: scene.datetime)
    time = first.datetime.astimezone(datetime.UTC)
    return Observation(
        id=f"{first.sensor}_{time:%Y%m%dT%H%M%S}_{_pass_key(first)[:_KEY_DIGITS]}",
        sensor=first.sensor,
        datetime=time,
        scenes=tuple(ordered),
    )


def narrow(observation: Observation, ground: BaseGeometry) -> Observation | None:
    """The observation with only the scenes that cover some of `ground` (EPSG:4326); None where none does."""
    footprints = [shapely.from_wkb(scene.footprint) for scene in observation.scenes]
    areas = shapely.area(shapely.intersection(footprints, ground))
    inside = [scene for scene, area in zip(observation.scenes, areas, strict=True) if area > 0]
    return _observation(inside) if inside else None


def choose(observations: Sequence[Observation], ground: BaseGeometry, *, rule: str = RULES[0]) -> list[Observation]:
    """The observations (of one sensor) that one cell is read from, in order of time, narrowed to the cell's ground.

    Args:
        observations: of one sensor, as `observe` gives them.
        ground: the cell's owned ground, EPSG:4326.
        rule: `least_cloud`, the one with the most clear ground: covered share × (1 − cloud cover), in whole percents,
            unknown cloud as 50 %, ties to the latest, then to the smallest key of its pass; `latest`, the latest of
            those that cover at least 90 % of what the widest covers; `all`.

    Raises:
        JobError: for an unknown rule.
    """
    (chosen,) = choose_many(observations, [ground], rule=rule)
    narrowed = (narrow(observations[index], ground) for index in chosen)
    return [observation for observation in narrowed if observation is not None]


def choose_many(
    observations: Sequence[Observation], grounds: Sequence[BaseGeometry], *, rule: str = RULES[0]
) -> list[list[int]]:
    """`choose` for many cells at once: for each ground the indices of its observations, in order of time.

    The observations themselves are whole: `narrow` them to a cell's ground before its scenes are read or hashed.
    Raises JobError for an unknown rule.
    """
    if rule not in RULES:
        raise JobError(f"there is no rule {rule!r} to choose scenes by", expected=f"one of {', '.join(RULES)}")
    chosen: list[list[int]] = [[] for _ in grounds]
    if not observations or not grounds:
        return chosen
    cover = _cover(observations, np.asarray(grounds, dtype=object))
    # An observation's own time and id may come from a scene elsewhere in its pass: only what is over the cell counts.
    name = _ranks([(observation.id[-_KEY_DIGITS:], observation.id) for observation in observations])[cover.observation]
    if rule == "all":
        ranked = np.lexsort((name, cover.time, cover.cell))
    else:
        merit = _nearly_widest(cover) if rule == "latest" else _percent(cover.clear)
        ranked = np.lexsort((name, -cover.time, -merit, cover.cell))
        first = np.ones(len(ranked), bool)
        first[1:] = cover.cell[ranked][1:] != cover.cell[ranked][:-1]
        ranked = ranked[first]
    for cell, observation in zip(cover.cell[ranked].tolist(), cover.observation[ranked].tolist(), strict=True):
        chosen[cell].append(observation)
    return chosen


def _ranks(names: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """The place of each name in their sorted order."""
    ranks = np.empty(len(names), np.int64)
    ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return ranks


def _nearly_widest(cover: _Cover) -> NDArray[np.int64]:
    """1 for the observations that cover nearly as much of their cell as any does, else 0."""
    widest = np.zeros(int(cover.cell.max(initial=0)) + 1)
    np.maximum.at(widest, cover.cell, cover.covered)
    return (_percent(cover.covered) >= _percent(NEARLY_WHOLE * widest[cover.cell])).astype(np.int64)


def _percent(share: NDArray[np.float64]) -> NDArray[np.int64]:
    # The tiny amount keeps a share that is a whole half percent but for rounding errors from falling either way.
    return np.floor(share * 100.0 + 0.5 + 1e-6).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cover:
    """What observations show of cells: one entry for each cell and observation that share ground."""

    cell: NDArray[np.int64]
    observation: NDArray[np.int64]
    time: NDArray[np.int64]
    """When the first of its scenes over the cell was measured, in microseconds since 1970."""
    covered: NDArray[np.float64]
    """Share of the cell's ground that any scene covers."""
    clear: NDArray[np.float64]
    """The same, each part times one minus the cloud of the first scene that covers it."""


def _cover(observations: Sequence[Observation], grounds: NDArray[Any]) -> _Cover:
    scenes = [scene for observation in observations for scene in observation.scenes]
    owner = np.repeat(np.arange(len(observations)), [len(observation.scenes) for observation in observations])
    footprints = shapely.from_wkb([scene.footprint for scene in scenes])
    clearness = 1.0 - np.array([_cloud(scene) for scene in scenes])
    times = np.array([round(scene.datetime.timestamp() * 1e6) for scene in scenes], np.int64)
    cell, scene, whole = _pairs(footprints, grounds)
    order = np.lexsort((scene, owner[scene], cell))
    cell, scene, whole = cell[order], scene[order], whole[order]
    group_key = cell * len(observations) + owner[scene]
    keys, start, group = np.unique(group_key, return_index=True, return_inverse=True)
    rank = np.arange(len(cell)) - start[group]
    left = grounds[keys // len(observations)]
    total = shapely.area(left)
    left_area, clear = total.copy(), np.zeros(len(keys))
    for step in range(int(rank.max(initial=-1)) + 1):
        here = np.flatnonzero(rank == step)
        here = here[left_area[group[here]] > 0]
        gained = _take(left, left_area, group=group[here], whole=whole[here], footprints=footprints[scene[here]])
        clear[group[here]] += gained * clearness[scene[here]]
    return _Cover(
        cell=keys // len(observations),
        observation=keys % len(observations),
        time=np.minimum.reduceat(times[scene], start) if len(start) else np.empty(0, np.int64),
        covered=(total - left_area) / total,
        clear=clear / total,
    )


def _pairs(
    footprints: NDArray[Any], grounds: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Cells and scenes that share ground: index of the cell, of the scene, and whether the cell lies wholly inside."""
    tree = shapely.STRtree(grounds)
    scene, cell = tree.query(footprints, predicate="intersects")
    inside_scene, inside_cell = tree.query(footprints, predicate="covers")
    whole = np.isin(scene * len(grounds) + cell, inside_scene * len(grounds) + inside_cell)
    shares = shapely.area(grounds[cell]) > 0
    edge = np.flatnonzero(~whole & shares)
    shares[edge] = shapely.area(shapely.intersection(grounds[cell[edge]], footprints[scene[edge]])) > 0
    return cell[shares], scene[shares], whole[shares]


def _take(
    left: NDArray[Any],
    left_area: NDArray[np.float64],
    *,
    group: NDArray[np.int64],
    whole: NDArray[np.bool_],
    footprints: NDArray[Any],
) -> NDArray[np.float64]:
    """Take one footprint from what is left of each group's ground, in place; the areas that were taken."""
    before = left_area[group]
    edge = group[~whole]
    left[edge] = shapely.difference(left[edge], footprints[~whole])
    left_area[edge] = shapely.area(left[edge])
    left_area[group[whole]] = 0.0
    return before - left_area[group]


def pair(
    observations: Sequence[Observation], *, before: str | None = None, after: str | None = None
) -> tuple[Observation, Observation] | None:
    """The two observations (of one sensor) between which change is asked for; None where there are not two.

    Args:
        observations: of one sensor, narrowed to the ground that is asked about.
        before: STAC datetime text; the least cloudy observation in it is the first, the latest of equals. None for
            the earliest of all.
        after: the same for the second, the earliest of equals, always later than the first. None for the latest.

    Raises:
        JobError: for a datetime that cannot be read.
        QueryError: where `before` lies wholly after `after`.
    """
    ordered = sorted(observations, key=lambda observation: (observation.datetime, observation.id))
    early, late = (parse_datetime(text) if text else None for text in (before, after))
    if early and late and early.start and late.end and early.start > late.end:
        raise QueryError(
            f"the first date {before} of the change is later than the second, {after}",
            expected="before and then after",
            fix="exchange the two",
        )
    firsts = ordered[:1] if early is None else sorted(_within(ordered, early), key=_least_cloud_latest)
    for first in firsts:
        later = [observation for observation in ordered if observation.datetime > first.datetime]
        seconds = later[-1:] if late is None else sorted(_within(later, late), key=_mean_cloud)
        if seconds:
            return first, seconds[0]
    return None


def _within(observations: Sequence[Observation], interval: Interval) -> list[Observation]:
    return [
        observation
        for observation in observations
        if interval.overlaps(Interval(start=observation.datetime, end=observation.datetime))
    ]


def _least_cloud_latest(observation: Observation) -> tuple[int, float]:
    return _mean_cloud(observation), -observation.datetime.timestamp()


def _mean_cloud(observation: Observation) -> int:
    """Mean cloud cover of its scenes in whole percents."""
    return round(100 * sum(map(_cloud, observation.scenes)) / len(observation.scenes))
