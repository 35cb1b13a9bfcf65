"""A change is asked of two observations that mean the same, or of none; the plan says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from earthmap.catalog import MemoryCatalog
from earthmap.pipeline.job import parse_job
from earthmap.pipeline.plan import make_plan, read_plan, write_plan
from earthmap.storage import Storage

WEST, SOUTH, EAST, NORTH = 10.0, 45.0, 10.05, 45.05


def item(day: int, level: str) -> dict[str, Any]:
    ring = [[WEST, SOUTH], [EAST, SOUTH], [EAST, NORTH], [WEST, NORTH], [WEST, SOUTH]]
    assets = {
        name: {"href": f"./{day}_{name}.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}
        for name in ("B03", "B11")
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"{level}_{day}",
        "collection": level,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [WEST, SOUTH, EAST, NORTH],
        "properties": {
            "datetime": f"2024-06-{day:02d}T10:00:00Z",
            "platform": "sentinel-2a",
            "gsd": 10,
            "s2:product_type": level,
            "s2:processing_baseline": "05.10",
        },
        "links": [],
        "assets": assets,
    }


@pytest.mark.parametrize(
    ("items", "unfound"),
    [
        ([item(1, "S2MSI1C"), item(11, "S2MSI2A")], {"unlike_conventions"}),
        ([item(1, "S2MSI1C"), item(11, "S2MSI1C"), item(21, "S2MSI2A")], {""}),
        ([item(1, "S2MSI1C"), item(1, "S2MSI2A")], {"one_date"}),
        ([item(1, "S2MSI1C")], {"one_date"}),
    ],
)
def test_levels_are_not_compared(tmp_path: Path, items: list[dict[str, Any]], unfound: set[str]) -> None:
    job = parse_job(
        {
            "area": [WEST, SOUTH, EAST, NORTH],
            "catalog": "memory",
            "queries": ["What changed?"],
            "out": str(tmp_path / "run"),
        }
    )
    plan = make_plan(job, MemoryCatalog(items, address="memory"))
    assert set(plan.table["unfound"].to_pylist()) == unfound
    for work in plan.work():
        for question in work.questions:
            assert {plan.observations[name].sensor for name in question.observations} <= {"sentinel-2-l1c"}
            assert len(question.observations) == (0 if unfound != {""} else 2)
    storage = Storage(tmp_path / "store")
    write_plan(storage, plan)
    back = read_plan(storage)
    assert back is not None
    assert back.table.to_pylist() == plan.table.to_pylist()
