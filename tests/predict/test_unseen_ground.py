"""What counts as unseen by default, sensor by sensor: ground of which nothing was measured, and no more."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from earthmap.predict import SpectralPredictor, TileInput
from earthmap.sensors.masks import Reason
from earthmap.sensors.registry import SENSORS
from earthmap.tasks import Answer, make_query
from earthmap.tasks.answer import UNSEEN
from tests.predict.test_barred import GRID, TILE, picture

MEASURED = [Reason.CLEAR, Reason.CIRRUS, Reason.SHADOW, Reason.DARK, Reason.SNOW, Reason.SATURATED, Reason.UNKNOWN]


def answered(sensor: str, reason: Reason, **query: tuple[str, ...]) -> Answer:
    """Dark water everywhere, the western half under `reason`."""
    shown = picture(sensor)
    data = np.full_like(shown.data, 1e-4 if SENSORS[sensor].is_sar else 0.02)
    if "green" in shown.bands:
        data[shown.bands.index("green")] = 0.08
    mask = shown.mask.copy()
    mask[:, :64] = reason
    item = TileInput(tile=TILE, pictures=(dataclasses.replace(shown, data=data, mask=mask),))
    ((answer,),) = SpectralPredictor().predict([item], [make_query("Where is water?", **query)])
    assert answer.status == "answered"
    assert answer.mask is not None
    assert (answer.mask[:, GRID.core_px // 2 :] == 1).all()
    return answer


@pytest.mark.parametrize("sensor", ["sentinel-2-l2a", "landsat-c2-l2", "sentinel-1-rtc", "sentinel-1-db"])
@pytest.mark.parametrize("reason", Reason)
def test_only_what_was_not_measured_is_unseen(sensor: str, reason: Reason) -> None:
    answer = answered(sensor, reason)
    assert answer.mask is not None
    west = answer.mask[:, : GRID.core_px // 2]
    if reason in MEASURED:
        assert (west == 1).all()
        assert reason in (Reason.CLEAR,) or f"{reason.label} counted as seen" in answer.notes
    else:
        assert (west == UNSEEN).all()


def test_a_query_may_see_layover() -> None:
    answer = answered("sentinel-1-rtc", Reason.LAYOVER, unseen=("nodata",))
    assert answer.mask is not None
    assert (answer.mask == 1).all()
    assert "layover counted as seen" in answer.notes
