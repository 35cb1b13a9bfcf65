"""Which observations a cell is read from: by a rule, from the cell's ground alone, and never from the job's area."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.catalog.intervals import Interval, parse_datetime
from earthmap.catalog.observations import KEY_DIGITS, cloud_share, narrow, share_ground
from earthmap.catalog.scene import Observation
from earthmap.errors import JobError, QueryError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

RULES = ("least_cloud", "nearest", "latest", "all", "median")
"""How a cell's observations are chosen; the first is the default."""

NEARLY_WHOLE = 0.9
"""`latest` and `nearest` take an observation that covers at least this share of what the widest one covers."""

FALLBACKS = 2
"""Next-best observations that a cell knows beside the one that was chosen."""

LOOKS = 8
"""Observations that a median composite is made of, at most."""

UNLIKE_APART = datetime.timedelta(hours=12)
"""Two observations of different sensors that are nearer than this show one date: what differs is how they measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRule:
    """How the observations of a cell are chosen."""

    name: str = RULES[0]
    """One of `RULES`."""
    date: str | None = None
    """STAC datetime text that `nearest` is measured from."""
    looks: int = LOOKS
    """Observations of one `median`, at most."""

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise JobError(f"there is no rule {self.name!r} to choose scenes by", expected=f"one of {', '.join(RULES)}")
        if (self.name == "nearest") != (self.date is not None):
            raise JobError(
                "a date stands beside scenes: nearest, and beside nothing else",
                fix="give --nearest DATE, or `scenes: nearest` and `date: DATE` in the job file",
            )
        if self.date is not None:
            parse_datetime(self.date)

    @property
    def most(self) -> int | None:
        """How many observations of a cell it ranks; None for all of them."""
        if self.name == "all":
            return None
        return self.looks if self.name == "median" else 1 + FALLBACKS


def rank_many(
    observations: Sequence[Observation], grounds: Sequence[BaseGeometry], *, rule: SceneRule
) -> list[list[int]]:
    """For each ground the indices of its best observations, the best first and at most `rule.most`.

    `least_cloud` and `median`: the most clear ground, covered share × (1 − stated cloud cover), in whole percents,
    unknown cloud as 50 %. `latest`: the latest of those that cover at least 90 % of what the widest covers, then the
    others. `nearest`: the same with the least distance to the date. Ties go to the latest, then to the smallest key
    of the pass. `all`: every one, in order of time. The observations themselves are whole: `narrow` them to a cell's
    ground before their scenes are read or hashed.

    Args:
        observations: of one sensor, as `observe` gives them.
        grounds: owned grounds of cells, EPSG:4326.
        rule: which are better.
    """
    ranked: list[list[int]] = [[] for _ in grounds]
    if not observations or not grounds:
        return ranked
    cover = _cover(observations, np.asarray(grounds, dtype=object))
    # An observation's own time and id may come from a scene elsewhere in its pass: only what is over the cell counts.
    name = _ranks([(observation.id[-KEY_DIGITS:], observation.id) for observation in observations])[cover.observation]
    order = np.lexsort((name, *reversed(_merits(cover, rule)), cover.cell))
    cells = cover.cell[order]
    if rule.most is not None:
        first = np.searchsorted(cells, cells)  # where the run of each cell begins
        kept = np.arange(len(cells)) - first < rule.most
        order, cells = order[kept], cells[kept]
    for cell, observation in zip(cells.tolist(), cover.observation[order].tolist(), strict=True):
        ranked[cell].append(observation)
    return ranked


def stated_clear(observation: Observation, ground: BaseGeometry) -> float:
    """Share of `ground` that the observation shows without cloud, by what its scenes state."""
    cover = _cover([observation], np.asarray([ground], dtype=object))
    return float(cover.clear[0]) if len(cover.clear) else 0.0


def _merits(cover: _Cover, rule: SceneRule) -> tuple[NDArray[np.int64], ...]:
    """What observations are ordered by, the most important first, the least first."""
    if rule.name == "all":
        return (cover.time,)
    if rule.name == "latest":
        return -_nearly_widest(cover), -cover.time
    if rule.name == "nearest":
        return -_nearly_widest(cover), _distance(cover.time, parse_datetime(rule.date or "")), -cover.time
    return -_percent(cover.clear), -cover.time


def _distance(time: NDArray[np.int64], date: Interval) -> NDArray[np.int64]:
    """Microseconds between times and an interval, 0 inside it."""
    far = np.zeros_like(time)
    if date.start is not None:
        far = np.maximum(far, _microseconds(date.start) - time)
    if date.end is not None:
        far = np.maximum(far, time - _microseconds(date.end))
    return far


def _microseconds(time: datetime.datetime) -> int:
    return round(time.timestamp() * 1e6)


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
    clearness = 1.0 - np.array([cloud_share(scene) for scene in scenes])
    times = np.array([_microseconds(scene.datetime) for scene in scenes], np.int64)
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
    shares[edge] = share_ground(grounds[cell[edge]], footprints[scene[edge]])
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
    """The two observations between which change is asked for; None where there are not two of one convention.

    Args:
        observations: narrowed to the ground that is asked about. Those of different sensors, or of one sensor and
            different conventions (sigma0 and gamma0, 8 bits and 16), are never compared; of radar none of different
            relative orbits or polarizations.
        before: STAC datetime text; the least cloudy observation in it is the first, the latest of equals. None for
            the earliest of all.
        after: the same for the second, the earliest of equals, always later than the first. None for the latest.

    Raises:
        JobError: for a datetime that cannot be read.
        QueryError: where `before` lies wholly after `after`.
    """
    ordered = sorted(observations, key=lambda observation: (observation.datetime, observation.id))
    like = [[one for one in ordered if _way(one) == way] for way in dict.fromkeys(map(_way, ordered))]
    early, late = change_intervals(before, after)
    pairs = [two for members in like if (two := _pair(members, early, late)) is not None]
    return min(pairs, key=lambda two: (two[0].datetime, two[0].id)) if pairs else None


def series(
    observations: Sequence[Observation], *, before: str | None = None, after: str | None = None, most: int
) -> tuple[list[Observation], int]:
    """The observations along which something is followed, in order of time, and how many others were passed over.

    They share one convention, of radar one relative orbit and polarization: that of which there are most. Of more than
    `most` those at even steps are taken, the first and the last among them. Fewer than two are none.

    Args:
        observations: narrowed to the ground that is asked about, of one sensor.
        before: STAC datetime text from whose start on they are taken; None for the earliest of all.
        after: the same to whose end they are taken; None for the latest of all.
        most: how many are taken at most.

    Raises:
        JobError: for a datetime that cannot be read.
        QueryError: where `before` lies wholly after `after`.
    """
    early, late = change_intervals(before, after)
    start, end = early.start if early else None, late.end if late else None
    ordered = sorted(observations, key=lambda observation: (observation.datetime, observation.id))
    inside = [one for one in ordered if (not start or one.datetime >= start) and (not end or one.datetime <= end)]
    like = [[one for one in inside if _way(one) == way] for way in dict.fromkeys(map(_way, inside))]
    chosen = list({one.datetime: one for one in reversed(max(like, key=len, default=[]))}.values())[::-1]
    if len(chosen) < 2:
        return [], 0
    steps = np.unique(np.linspace(0, len(chosen) - 1, min(most, len(chosen))).round().astype(int))
    return [chosen[step] for step in steps.tolist()], len(inside) - len(steps)


def next_best(
    observations: Sequence[Observation],
    two: tuple[Observation, Observation],
    *,
    before: str | None = None,
    after: str | None = None,
) -> tuple[list[Observation], list[Observation]]:
    """What stands in for the first and for the second of `two`, which `pair` found among the same, the best first.

    At most `FALLBACKS` each, of the same convention, of radar from the same viewpoint, and of the date's own interval
    (all that is before the second, and after the first, where none is given), in the order in which `pair` would have
    taken them.
    """
    first, second = two
    like = [one for one in observations if _way(one) == _way(first) and one.id not in (first.id, second.id)]
    ordered = sorted(like, key=lambda one: (one.datetime, one.id))
    early, late = change_intervals(before, after)
    firsts = ordered if early is None else sorted(_within(ordered, early), key=_least_cloud_latest)
    seconds = ordered[::-1] if late is None else sorted(_within(ordered, late), key=_mean_cloud)
    return (
        [one for one in firsts if one.datetime < second.datetime][:FALLBACKS],
        [one for one in seconds if one.datetime > first.datetime][:FALLBACKS],
    )


def _way(observation: Observation) -> tuple[object, ...]:
    """What two observations must share to be compared."""
    return observation.convention, observation.viewpoint


def has_unlike_pair(
    observations: Sequence[Observation], *, before: str | None = None, after: str | None = None
) -> bool:
    """True where `pair` finds none only because the two observations follow different conventions, or are of radar that
    looked from different orbits."""
    ordered = sorted(observations, key=lambda observation: (observation.datetime, observation.id))
    two = _pair(ordered, *change_intervals(before, after))
    return two is not None and not _show_one_date(two) and pair(observations, before=before, after=after) is None


def unlike_pair(
    observations: Sequence[Observation], ground: BaseGeometry, *, before: str | None = None, after: str | None = None
) -> tuple[Observation, Observation] | None:
    """Two observations of different sensors, whose maps can be compared where `pair` finds no two of `ground` that can
    be looked at together; None where there are none, or the two are of one sensor, as radar of different orbits is, or
    of one date."""
    whole = {part.id: one for one in observations if (part := narrow(one, ground)) is not None}
    parts = [part for one in observations if (part := narrow(one, ground)) is not None]
    if pair(parts, before=before, after=after) is not None:
        return None
    ordered = sorted(parts, key=lambda observation: (observation.datetime, observation.id))
    two = _pair(ordered, *change_intervals(before, after))
    if two is None or two[0].sensor == two[1].sensor or _show_one_date(two):
        return None
    return whole[two[0].id], whole[two[1].id]


def _show_one_date(two: tuple[Observation, Observation]) -> bool:
    """Whether two of different sensors are too near in time to be compared."""
    return two[0].sensor != two[1].sensor and two[1].datetime - two[0].datetime < UNLIKE_APART


def change_intervals(before: str | None, after: str | None) -> tuple[Interval | None, Interval | None]:
    """The intervals of the first and of the second date of a change; None where any will do.

    They may overlap: the second date is always later than the first. Raises JobError for a datetime that cannot be
    read, QueryError where `before` lies wholly after `after`.
    """
    early, late = (parse_datetime(text) if text else None for text in (before, after))
    if early and late and early.start and late.end and early.start > late.end:
        raise QueryError(
            f"the first date {before} of the change is later than the second, {after}",
            expected="before and then after",
            fix="exchange the two",
        )
    return early, late


def _pair(
    ordered: Sequence[Observation], early: Interval | None, late: Interval | None
) -> tuple[Observation, Observation] | None:
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
    return round(100 * sum(map(cloud_share, observation.scenes)) / len(observation.scenes))
