"""Scenes of one band and a drawn footprint, for tests of passes and of choices."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import shapely
from hypothesis import strategies as st

from earthmap.catalog.scene import BandSource, Observation, Scene
from earthmap.sensors.calibration import Calibration

NOON = datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC)
MINUTE = datetime.timedelta(minutes=1)
DAY = datetime.timedelta(days=1)
SQUARE = shapely.box(10.0, 50.0, 11.0, 51.0)


def scene(name: str, *, at: datetime.datetime = NOON, ground: Any = SQUARE, **fields: Any) -> Scene:
    """A scene of one band."""
    source = BandSource(band="red", href=f"/scenes/{name}.tif", calibration=Calibration())
    values = {"collection": "c", "sensor": "s2", "resolution_m": 10.0, "sources": (source,), "platform": "sat-a"}
    return Scene(id=name, datetime=at, footprint=shapely.to_wkb(ground), **{**values, **fields})


def ids(observations: Sequence[Observation]) -> list[list[str]]:
    return [[member.id for member in observation.scenes] for observation in observations]


@st.composite
def many_scenes(draw: st.DrawFn) -> list[Scene]:
    def one(number: int) -> Scene:
        west, south = draw(st.integers(0, 4)), draw(st.integers(0, 2))
        return scene(
            f"s{number}",
            at=NOON + draw(st.sampled_from([0, 1, 14, 16, 40, 60, 1440])) * MINUTE,
            ground=shapely.box(west / 2, south / 2, west / 2 + 1, south / 2 + 1),
            pass_id=draw(st.sampled_from([None, "p", "q"])),
            cloud_cover=draw(st.sampled_from([None, 0.0, 20.0, 100.0])),
            created=draw(st.sampled_from([None, "2024-07-01", "2024-08-01"])),
        )

    return [one(number) for number in range(draw(st.integers(1, 12)))]
