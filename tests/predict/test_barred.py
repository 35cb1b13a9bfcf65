"""What has no physical unit answers by ratios or not at all; a temperature answers no question about land cover."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from earthmap.grid.tiling import Grid, Tile, Zone
from earthmap.predict import Picture, SpectralPredictor, TileInput
from earthmap.predict.rules import RULES, SAR, UNCALIBRATED
from earthmap.sensors.bands import OPTICAL_BANDS
from earthmap.sensors.masks import Reason
from earthmap.sensors.registry import SENSORS
from earthmap.tasks import TARGETS, make_query

GRID = Grid(resolution_m=30, picture_px=128)
TILE = Tile(GRID, Zone(31, True), 500, 40)


def picture(sensor: str) -> Picture:
    bands = SENSORS[sensor].bands
    random = np.random.default_rng(0)
    return Picture(
        sensor=sensor,
        observation="o",
        datetime=datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC),
        bands=bands,
        data=random.uniform(0.01, 0.6, (len(bands), 128, 128)).astype(np.float32),
        mask=np.full((128, 128), Reason.CLEAR, np.uint8),
    )


@pytest.mark.parametrize("sensor", SENSORS)
def test_what_each_sensor_may_be_asked(sensor: str) -> None:
    row = SENSORS[sensor]
    queries = [make_query(f"Where is {target}?", task="segment", targets=[target]) for target in TARGETS]
    (answers,) = SpectralPredictor().predict([TileInput(tile=TILE, pictures=(picture(sensor),))], queries)
    answered = {target for target, answer in zip(TARGETS, answers, strict=True) if answer.status == "answered"}
    assert all(answer.status in ("answered", "skipped") for answer in answers)
    if row.calibrated and row.is_sar:
        expected = {rule.target for rule in RULES if rule.kind == SAR}
    elif row.calibrated and row.quantity == "reflectance":
        expected = set(TARGETS)
    elif not row.calibrated and set(row.bands) & set(OPTICAL_BANDS):
        expected = {rule.target for rule in RULES if rule.kind == UNCALIBRATED}
    else:
        expected = set()  # radar and thermal numbers without a scale, and temperatures
    assert answered == expected
    for answer in answers:
        if answer.status == "skipped":
            assert answer.reason in ("missing_band", "uncalibrated", "not_supported")
            assert answer.message
