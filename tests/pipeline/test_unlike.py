"""A change is asked of two observations that mean the same, or of none; the plan says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from earthmap.catalog import MemoryCatalog
from earthmap.errors import StorageError
from earthmap.pipeline.job import parse_job
from earthmap.pipeline.plan import PLAN_PATH, make_plan, read_plan, write_plan
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


L1C, L2A = "sentinel-2-l1c", "sentinel-2-l2a"


def plan_of(tmp_path: Path, items: list[dict[str, Any]], **question: Any) -> Any:
    predictor = "vlm" if question else "spectral"
    job = parse_job(
        {
            "area": [WEST, SOUTH, EAST, NORTH],
            "catalog": "memory",
            "queries": [{"text": "What changed?", **question}],
            "predictor": predictor,
            "out": str(tmp_path / "run"),
        }
    )
    return make_plan(job, MemoryCatalog(items, address="memory"))


@pytest.mark.parametrize(
    ("items", "unfound", "sensors"),
    [
        ([item(1, "S2MSI1C"), item(11, "S2MSI2A")], {""}, (L1C, L2A)),
        ([item(1, "S2MSI2A"), item(11, "S2MSI1C")], {""}, (L2A, L1C)),
        ([item(1, "S2MSI1C"), item(11, "S2MSI1C"), item(21, "S2MSI2A")], {""}, (L1C, L1C)),
        ([item(1, "S2MSI1C"), item(1, "S2MSI2A")], {"one_date"}, ()),
        ([item(1, "S2MSI1C")], {"one_date"}, ()),
    ],
)
def test_unlike_levels_are_compared_only_where_there_are_no_others(
    tmp_path: Path, items: list[dict[str, Any]], unfound: set[str], sensors: tuple[str, ...]
) -> None:
    plan = plan_of(tmp_path, items)
    assert set(plan.table["unfound"].to_pylist()) == unfound
    for work in plan.work():
        for question in work.questions:
            assert tuple(plan.observations[name].sensor for name in question.observations) == sensors
            assert question.fallbacks == question.later_fallbacks == ()
    storage = Storage(tmp_path / "store")
    write_plan(storage, plan)
    back = read_plan(storage)
    assert back is not None
    assert back.table.to_pylist() == plan.table.to_pylist()


def test_a_plan_of_another_version_is_no_damage(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "store")
    write_plan(storage, plan_of(tmp_path, [item(1, "S2MSI1C")]))
    table = pq.read_table(pa.BufferReader(storage.read(PLAN_PATH)))
    sink = pa.BufferOutputStream()
    pq.write_table(table.drop_columns(["members"]), sink)
    storage.write(PLAN_PATH, sink.getvalue().to_pybytes())
    with pytest.raises(StorageError, match=r"another version of earthmap.*--refresh"):
        read_plan(storage)


def test_only_masks_can_be_made_of_each_date_by_itself(tmp_path: Path) -> None:
    items = [item(1, "S2MSI1C"), item(11, "S2MSI2A")]
    plan = plan_of(tmp_path, items, task="change-type")
    assert set(plan.table["unfound"].to_pylist()) == {"unlike_conventions"}


def radar(at: str) -> dict[str, Any]:
    """A pass of radar over the same ground."""
    found = item(1, "S2MSI1C")
    properties = {
        "datetime": at, "platform": "sentinel-1a", "sar:instrument_mode": "IW", "sar:product_type": "GRD",
        "sar:polarizations": ["VV"], "sar:frequency_band": "C", "gsd": 10,
    }  # fmt: skip
    asset = {"href": "./vv.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}
    collection = "sentinel-1-rtc"
    return {**found, "id": f"radar_{at}", "collection": collection, "properties": properties, "assets": {"vv": asset}}


@pytest.mark.parametrize(
    ("at", "unfound"),
    [("2024-06-01T17:00:00Z", {"one_date"}), ("2024-06-02T05:00:00Z", {""})],
    ids=["the same day", "the next morning"],
)
def test_two_sensors_of_one_day_show_no_change(tmp_path: Path, at: str, unfound: set[str]) -> None:
    plan = plan_of(tmp_path, [item(1, "S2MSI2A"), radar(at)])
    assert set(plan.table["unfound"].to_pylist()) == unfound
