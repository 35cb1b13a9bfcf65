"""Drawn pixels cover what real ones measure: where there is a label, most real numbers lie among the drawn."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from earthmap.synthetic import draw_tiles, plan_tiles

pytestmark = [pytest.mark.real, pytest.mark.slow]

BARS = {
    ("flood", "sentinel-2-l1c", "water"): 0.75,
    ("flood", "sentinel-2-l1c", "land"): 0.9,
    ("flood", "sentinel-1-rtc", "water"): 0.8,
    ("flood", "sentinel-1-rtc", "land"): 0.85,
    ("desert", "sentinel-2-l2a", "bare"): 0.85,
    ("slovenia", "sentinel-2-l1c", "vegetation"): 0.85,
    ("slovenia", "sentinel-2-l1c", "built-up"): 0.6,
}
"""Share of the real numbers, over the bands, that must lie between the 1st and 99th percentile of the drawn."""


def test_real_numbers_lie_among_the_drawn(real_data: Path) -> None:
    path = Path(__file__).parents[2] / "jobs" / "compare_drawn.py"
    spec = importlib.util.spec_from_file_location("compare_drawn", path)
    assert spec is not None
    assert spec.loader is not None
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    inside = defaultdict(list)
    for row in job.rows(real_data, draw_tiles(plan_tiles(range(96)))):
        inside[row["source"], row["sensor"], row["class"]].append(row["inside"])
    found = {key: float(np.mean(shares)) for key, shares in inside.items()}
    assert {key: share for key, share in found.items() if share < BARS.get(key, 0.0)} == {}
    assert set(BARS) <= set(found)
