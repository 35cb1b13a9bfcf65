"""Observations: scenes grouped by pass, reprocessings collapsed.

Nothing here depends on the area of a job: a pass is recognised from its scenes alone. `narrow` leaves in an
observation only the scenes over one ground, so that a larger area, which brings more scenes of the same pass, does
not change what a cell is read from.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.catalog.parts import join_parts
from earthmap.catalog.scene import Observation, Scene
from earthmap.content import content_key
from earthmap.errors import JobError
from earthmap.grid.lonlat import middle_longitude

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

UNKNOWN_CLOUD_PERCENT = 50.0
"""What a scene counts for that does not state its cloud cover."""

KEY_DIGITS = 8
"""Of the key of its pass in an observation's id."""

_SAME_PASS = datetime.timedelta(minutes=50)
"""Longest gap inside a named pass: half an orbit; the same orbit returns days later under the same name."""
_SAME_STRIP = datetime.timedelta(minutes=15)
_SAME_TIME = datetime.timedelta(seconds=1)
_SAME_FOOTPRINT = 0.95
"""Intersection over union from which two footprints are one: reprocessing moves an edge by some pixels."""
_SAME_TILE_TIME = datetime.timedelta(minutes=1)
"""Archives give a tile the time of its datatake, of its strip or of its own first line."""
_SAME_TILE_FOOTPRINT = 0.9
"""Archives draw the outline of a tile's data more or less exactly; the two halves of a tile that a change of strips
cuts in two are far below, and stay two scenes."""


def observe(scenes: Iterable[Scene]) -> list[Observation]:
    """The observations that `scenes` make, sorted by id; the order of `scenes` does not matter.

    One observation is the scenes of one sensor and convention with the same pass_id and no gap of 50 minutes; scenes
    without a pass_id belong together by platform (collection where that is unknown too), with no gap of 15 minutes
    and no local solar midnight (UTC + longitude / 15 h) between them, so that a pass over midnight UTC or over the
    antimeridian, where the solar date jumps by a day, stays whole. A vintage is one observation however many days it
    took. Of scenes with the same time, tile (or footprint) and bands, which are reprocessings of one another, only the
    one of the highest baseline, then `created` last, then of the greatest id is a scene of it, and the older ones are
    its copies. Inside, the least cloudy scene comes first, then by id.
    """
    grouped: dict[tuple[str, str], list[Scene]] = {}
    for scene in scenes:
        grouped.setdefault((scene.sensor, _pass_key(scene)), []).append(scene)  # the key holds the convention
    passes = [part for members in grouped.values() for part in _split_at_gaps(members)]
    return sorted((_observation(*_newest(part)) for part in passes), key=lambda observation: observation.id)


def _pass_key(scene: Scene) -> str:
    if scene.vintage is not None:
        return content_key("vintage", scene.vintage, scene.convention)
    if scene.pass_id is not None:
        return content_key("pass", scene.pass_id, scene.convention)
    return content_key("strip", scene.platform or scene.collection, scene.convention)


def _midnight_between(before: Scene, after: Scene) -> bool:
    """Whether the local solar day changes from one scene to the next; the antimeridian changes none."""
    west, east = (middle_longitude(shapely.from_wkb(scene.footprint)) for scene in (before, after))
    days = [
        (scene.datetime.astimezone(datetime.UTC) + datetime.timedelta(hours=longitude / 15.0)).date()
        for scene, longitude in ((before, west), (after, west + (east - west + 180.0) % 360.0 - 180.0))
    ]
    return days[0] != days[1]


def _split_at_gaps(scenes: Sequence[Scene]) -> Iterator[list[Scene]]:
    ordered = sorted(scenes, key=lambda scene: (scene.datetime, scene.collection, scene.id))
    longest = _SAME_STRIP if ordered[0].pass_id is None else _SAME_PASS
    if ordered[0].vintage is not None:
        longest = datetime.timedelta.max
    part = ordered[:1]
    for before, after in itertools.pairwise(ordered):
        night = before.pass_id is None and before.vintage is None and _midnight_between(before, after)
        if after.datetime - before.datetime > longest or night:
            yield part
            part = []
        part.append(after)
    yield part


def _newest(scenes: Sequence[Scene]) -> tuple[list[Scene], list[Scene]]:
    """`scenes` without those that a newer version of themselves stands beside, parts of one scene joined, and then
    those, the newest first."""
    kept: list[tuple[Scene, BaseGeometry]] = []
    older: list[Scene] = []
    for scene in sorted(scenes, key=_version, reverse=True):
        footprint = shapely.from_wkb(scene.footprint)
        if any(_reprocessed(scene, footprint, other, ground) for other, ground in kept):
            older.append(scene)
        else:
            kept.append((scene, footprint))
    return join_parts([scene for scene, _ in kept]), older


def _version(scene: Scene) -> tuple[str, str, str, str]:
    return scene.baseline or "", scene.created or "", scene.id, scene.collection


def _reprocessed(scene: Scene, footprint: BaseGeometry, other: Scene, ground: BaseGeometry) -> bool:
    """True where `other` shows all that `scene` does, in a newer version."""
    known = scene.tile is not None and other.tile is not None
    apart = abs(scene.datetime - other.datetime)
    if (known and scene.tile != other.tile) or apart > (_SAME_TILE_TIME if known else _SAME_TIME):
        return False
    if not {source.band for source in scene.sources} <= {source.band for source in other.sources}:
        return False
    shared = footprint.intersection(ground).area
    least = _SAME_TILE_FOOTPRINT if known else _SAME_FOOTPRINT
    return bool(shared > 0 and shared >= least * footprint.union(ground).area)


def cloud_share(scene: Scene) -> float:
    """Cloud cover as a share of one."""
    return (UNKNOWN_CLOUD_PERCENT if scene.cloud_cover is None else scene.cloud_cover) / 100.0


def _observation(scenes: Iterable[Scene], copies: Sequence[Scene]) -> Observation:
    ordered = sorted(scenes, key=lambda scene: (cloud_share(scene), scene.id, scene.collection))
    first = min(ordered, key=lambda scene: scene.datetime)
    time = first.datetime.astimezone(datetime.UTC)
    return Observation(
        id=f"{first.sensor}_{time:%Y%m%dT%H%M%S}_{_pass_key(first)[:KEY_DIGITS]}",
        sensor=first.sensor,
        datetime=time,
        scenes=tuple(ordered),
        copies=tuple(copies),
    )


def composite(members: Iterable[Observation]) -> Observation:
    """The median composite of observations of one sensor and convention, which is an observation of its own.

    Raises:
        JobError: where there are none, or they differ in sensor or convention.
    """
    ordered = sorted(members, key=lambda member: (member.datetime, member.id))
    if len({member.convention for member in ordered}) != 1:
        raise JobError(
            f"a composite of {sorted({'/'.join(member.convention).strip('/') for member in ordered})}",
            expected="observations of one sensor and convention",
        )
    first, last = ordered[0], ordered[-1]
    key = content_key("median", [member.id for member in ordered])
    return Observation(
        id=f"{first.sensor}_{first.datetime:%Y%m%dT%H%M%S}_{key[:KEY_DIGITS]}",
        sensor=first.sensor,
        datetime=first.datetime,
        scenes=tuple(scene for member in ordered for scene in member.scenes),
        members=tuple(ordered),
        end=last.datetime,
    )


def narrow(observation: Observation, ground: BaseGeometry) -> Observation | None:
    """The observation with only the scenes that cover some of `ground` (EPSG:4326); None where none does."""
    if observation.members:
        own = [part for member in observation.members if (part := narrow(member, ground)) is not None]
        return composite(own) if own else None
    inside = _inside(observation.scenes, ground)
    return _observation(inside, _inside(observation.copies, ground)) if inside else None


def _inside(scenes: Sequence[Scene], ground: BaseGeometry) -> list[Scene]:
    footprints = shapely.from_wkb([scene.footprint for scene in scenes])
    return [scene for scene, there in zip(scenes, share_ground(ground, footprints), strict=True) if there]


def share_ground(grounds: Any, footprints: Any) -> NDArray[np.bool_]:
    """Which grounds of cells share some with which footprints, pair by pair.

    The one place that decides it: of geometries that only touch, rounding may leave a sliver or nothing, and not the
    same for a ∩ b and b ∩ a.
    """
    return np.asarray(shapely.area(shapely.intersection(grounds, footprints)) > 0.0)
