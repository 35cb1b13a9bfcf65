"""What is known of the two dates of a change before it is asked for: how they lie on each other, and how alike the
conditions were under which they were seen. Pure but for the pixels of the two groups.

docs/decisions/0024-what-does-not-lie-on-the-other-date.md says why so.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from earthmap.catalog import Scene
from earthmap.cube import CellGroup, Shift, estimate_shift
from earthmap.sensors import SENSORS
from earthmap.tasks import TASKS, Answer, Query

APPLY_FROM_PX = 0.2
"""Smaller shifts are left as they are: over vegetation dates must lie within 0.2 pixels for an error of a tenth of the
differences (Townshend et al., IEEE Transactions on Geoscience and Remote Sensing 30, 1992)."""

MAX_RESIDUAL_PX = 2.0
"""Dates that lie further apart are not compared pixel by pixel."""

SEASON_DAYS = 30
"""Days of the year between dates from which on a note says so. Reviews ask for anniversary dates and name no number
(Coppin et al., International Journal of Remote Sensing 25, 2004); this one is ours."""

SUN_ELEVATION_DEG, SUN_AZIMUTH_DEG, OFF_NADIR_DEG = 10.0, 20.0, 10.0
"""The same for the light and the view; ours too. Ten degrees of view move the top of a house of ten metres by 1.8 m."""

MOVED, IN_PLACE, TORN, UNKNOWN = "moved", "in place", "torn", "unknown"
"""How the dates lie: the second one was moved by what was found; what was found is too small to move it; parts of the
ground are surely displaced by different amounts; nothing was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Two dates of one cell."""

    shift: Shift
    """What the pixels say."""
    resolution_m: float
    placed_m: float | None
    """What the products promise of two dates, metres; None where nobody says."""
    conditions: Conditions

    @property
    def alignment(self) -> str:
        """`moved`, `in place`, `torn` or `unknown`."""
        if self.shift.is_good:
            return MOVED if self.shift.length_px >= APPLY_FROM_PX else IN_PLACE
        return TORN if self.shift.is_torn else UNKNOWN

    @property
    def applied_px(self) -> tuple[float, float]:
        """Rows and columns that the second date's pixels are moved back by."""
        return (self.shift.down_px, self.shift.right_px) if self.alignment == MOVED else (0.0, 0.0)

    @property
    def residual_px(self) -> float | None:
        """How far apart at most three quarters of the ground lie as they are compared; None where nobody knows."""
        if self.alignment == UNKNOWN:
            return None
        left = 0.0 if self.alignment == MOVED else self.shift.length_px
        return round(max(left, self.shift.spread_px or 0.0), 3)

    def refusal(self, query: Query) -> Answer | None:
        """Why the dates are not compared pixel by pixel; None where they are, or the query needs no pixels to fit."""
        task = TASKS[query.task]
        if task.dates != 2 or task.answer != "mask":
            return None
        residual = self.residual_px
        if residual is not None and residual > MAX_RESIDUAL_PX:
            what = f"parts of the cell are displaced differently, or all too far: by {residual:.1f} pixels or more"
        elif residual is None and self.placed_m is not None and self.placed_m > MAX_RESIDUAL_PX * self.resolution_m:
            pixels = self.placed_m / self.resolution_m
            what = f"no shift could be told, and the products may lie {pixels:.1f} pixels apart"
        else:
            return None
        message = (
            f"the dates do not lie on each other: {what}; expected at most {MAX_RESIDUAL_PX:g}; "
            "fix: ask on coarser pixels (--resolution), or for the kind of change of whole tiles (--task change-type)"
        )
        return Answer(status="skipped", reason="misaligned", message=message)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the answers should know; without numbers, which are in `to_json`."""
        said = {
            MOVED: "the second date was moved onto the first",
            TORN: "the dates do not lie on each other",
            UNKNOWN: "no shift between the dates could be told; they lie as their products place them",
        }
        found = [said[self.alignment]] if self.alignment in said else []
        return (*found, *self.conditions.notes)

    def to_json(self) -> str:
        """Its one JSON form, for the columns `pair`."""
        shift = self.shift
        record: dict[str, Any] = {
            "alignment": self.alignment,
            "shift_px": {"down": shift.down_px, "right": shift.right_px},
            "shift_m": {
                "east": round(shift.right_px * self.resolution_m, 3),
                "north": round(-shift.down_px * self.resolution_m, 3),
            },
            "residual_px": self.residual_px,
            **{name: getattr(shift, name) for name in _QUALITIES},
            **self.conditions.to_dict(),
        }
        return json.dumps(record, sort_keys=True)


_QUALITIES = ("peak", "certainty", "ratio", "agreement", "windows", "sure_windows", "spread_px")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How two dates differ in season, light and view; None for what a catalogue does not say."""

    season_days: int
    """Days of the year between them, 0 to 183."""
    sun_elevation_deg: float | None = None
    sun_azimuth_deg: float | None = None
    off_nadir_deg: float | None = None
    relative_orbits: tuple[int | None, ...] = ()
    """Of radar, those of both dates; empty for all else."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is more than the thresholds of this module."""

        def over(value: float | None, most: float) -> bool:
            return value is not None and value > most

        found = {
            f"the dates are of different seasons, more than {SEASON_DAYS} days of the year apart": over(
                self.season_days, SEASON_DAYS
            ),
            "the sun stood differently on the dates: shadows differ": over(self.sun_elevation_deg, SUN_ELEVATION_DEG)
            or over(self.sun_azimuth_deg, SUN_AZIMUTH_DEG),
            "the dates were seen from different directions: what is high leans differently": over(
                self.off_nadir_deg, OFF_NADIR_DEG
            ),
            "the catalogue does not say from which orbits the radar looked": None in self.relative_orbits,
        }
        return tuple(note for note, holds in found.items() if holds)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "season_days": self.season_days,
            "sun_elevation_apart_deg": self.sun_elevation_deg,
            "sun_azimuth_apart_deg": self.sun_azimuth_deg,
            "off_nadir_apart_deg": self.off_nadir_deg,
            "relative_orbits": list(self.relative_orbits),
        }

    @classmethod
    def of(cls, first: Sequence[Scene], second: Sequence[Scene]) -> Conditions:
        """Those of the scenes of both dates; of several scenes the mean of what they state."""
        both = (first, second)
        radar = [SENSORS[scenes[0].sensor].is_sar for scenes in both]
        return cls(
            season_days=days_of_year_apart(first[0].datetime, second[0].datetime),
            sun_elevation_deg=_apart(*([scene.sun_elevation_deg for scene in scenes] for scenes in both)),
            sun_azimuth_deg=_apart(*([scene.sun_azimuth_deg for scene in scenes] for scenes in both), circle=360.0),
            off_nadir_deg=None
            if any(radar)
            else _apart(*([scene.off_nadir_deg for scene in scenes] for scenes in both)),
            relative_orbits=tuple(scenes[0].relative_orbit for scenes in both) if all(radar) else (),
        )


def days_of_year_apart(first: datetime.datetime, second: datetime.datetime) -> int:
    """Days between two dates if they were of one year, the shorter way round it."""
    apart = abs(first.timetuple().tm_yday - second.timetuple().tm_yday)
    return min(apart, 365 - apart) if apart <= 365 else 0


def _apart(
    first: Iterable[float | None], second: Iterable[float | None], *, circle: float | None = None
) -> float | None:
    """The difference of what is stated first on each side, the shorter way round a circle."""
    one, other = (next((value for value in values if value is not None), None) for values in (first, second))
    if one is None or other is None:
        return None
    apart = abs(one - other)
    return round(min(apart, circle - apart) if circle else apart, 2)


def pair_dates(first: CellGroup, second: CellGroup, *, scenes: Iterable[Scene]) -> Pairing:
    """What is known of two groups of one cell. Raises StorageError where one cannot be read.

    `scenes` are those of the plan, among which the groups' own are.
    """
    known = {scene.id: scene for scene in scenes}
    own = [[known[name] for name in group.manifest.scenes if name in known] for group in (first, second)]
    promised = [SENSORS[group.manifest.sensor].placed_m for group in (first, second)]
    conditions = (
        Conditions.of(own[0], own[1])
        if all(own)
        else Conditions(season_days=days_of_year_apart(first.manifest.datetime, second.manifest.datetime))
    )
    return Pairing(
        shift=estimate_shift(first.whole(), second.whole()),
        resolution_m=first.manifest.cell.grid.resolution_m,
        placed_m=None if None in promised else max(value for value in promised if value is not None),
        conditions=conditions,
    )
