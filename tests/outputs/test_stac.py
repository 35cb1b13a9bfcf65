from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pystac
import pytest

from earthmap.errors import BadRequestError
from earthmap.outputs.stac import result_item

DAY = dt.datetime(2024, 5, 4, 10, 50, 31, tzinfo=dt.UTC)
SQUARE = {"type": "Polygon", "coordinates": [[[3.0, 45.0], [4.0, 45.0], [4.0, 46.0], [3.0, 46.0], [3.0, 45.0]]]}
SPLIT = {
    "type": "MultiPolygon",
    "coordinates": [
        [[[179.0, -17.0], [180.0, -17.0], [180.0, -16.0], [179.0, -16.0], [179.0, -17.0]]],
        [[[-180.0, -17.0], [-178.0, -17.0], [-178.0, -16.0], [-180.0, -16.0], [-180.0, -17.0]]],
    ],
}
SUMMARY: dict[str, Any] = {
    "planned": 10, "answered": 8, "skipped": {"cloud": 2}, "failed": {}, "area_km2": 8.7, "seen_km2": 7.1,
    "queries": [{"query_key": "q", "text": "Where is water?", "task": "segment", "targets": ["water"],
                 "observations": []}],
}  # fmt: skip


def item(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "area_geometry": SQUARE, "bbox": (3.0, 45.0, 4.0, 46.0), "datetimes": [DAY, DAY + dt.timedelta(days=35)],
        "summary": SUMMARY, "scenes": ["b", "a", "a"], "version": "0.1.0",
        "assets": {
            "features": ("./features.parquet", "application/vnd.apache.parquet", ("data",), "What was found"),
            "report": ("./report.html", "text/html", ("overview",), "The page"),
        },
    }  # fmt: skip
    return result_item("valley", **{**arguments, **changes})


def validator(schemas: Path, name: str) -> Any:
    """The validator of one schema, with those it refers to read from the folder."""
    jsonschema = pytest.importorskip("jsonschema")
    referencing = pytest.importorskip("referencing")
    from referencing.jsonschema import DRAFT7

    base = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/"
    stored = {f"{base}{path.name}": path for path in (schemas / "v1.1.0-flat").glob("*.json")}
    stored |= {f"https://geojson.org/schema/{path.name}": path for path in (schemas / "geojson").glob("*.json")}
    resources = [(address, DRAFT7.create_resource(json.loads(path.read_text()))) for address, path in stored.items()]
    registry = referencing.Registry().with_resources(resources)
    return jsonschema.Draft7Validator({"$ref": base + name}, registry=registry)


@pytest.mark.real
@pytest.mark.parametrize(
    "changes", [{}, {"area_geometry": SPLIT, "bbox": (-180, -17, 180, -16)}, {"datetimes": [DAY], "created": DAY}]
)
def test_item_is_valid_stac(real_data: Path, changes: dict[str, Any]) -> None:
    schemas = real_data / "19_schemas" / "stac"
    if not schemas.is_dir():
        pytest.skip(f"no schemas at {schemas}")
    checked = validator(schemas, "item.json")
    assert [error.message for error in checked.iter_errors(item(**changes))] == []
    assert list(checked.iter_errors({**item(), "properties": {}}))


def test_pystac_reads_it_back() -> None:
    read = pystac.Item.from_dict(item())
    assert read.assets["features"].href == "./features.parquet"
    assert read.properties["earthmap:scenes"] == ["a", "b"]
    assert read.properties["earthmap:skipped"] == 2
    assert read.properties["start_datetime"] == "2024-05-04T10:50:31Z"
    assert read.datetime is None


def test_bbox_across_the_antimeridian_runs_west_to_east() -> None:
    assert item(area_geometry=SPLIT, bbox=(-180, -17, 180, -16))["bbox"] == [179.0, -17.0, -178.0, -16.0]
    assert item(area_geometry=SPLIT, bbox=(179, -17, 182, -16))["bbox"] == [179.0, -17.0, -178.0, -16.0]
    assert item(area_geometry=SPLIT, bbox=(179, -17, -178, -16))["bbox"] == [179.0, -17.0, -178.0, -16.0]
    world = {"type": "Polygon", "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]]}
    assert item(area_geometry=world, bbox=(-180, -90, 180, 90))["bbox"] == [-180.0, -90.0, 180.0, 90.0]


def test_only_addresses_are_linked() -> None:
    made = item(scenes=["S2A_1", "https://example.com/items/S2A_2"])
    assert [link["href"] for link in made["links"]] == ["https://example.com/items/S2A_2"]
    assert made["properties"]["earthmap:scenes"] == ["S2A_1", "https://example.com/items/S2A_2"]


def test_order_of_arguments_does_not_matter_and_time_is_needed() -> None:
    assert json.dumps(item()) == json.dumps(item(scenes=["a", "b"], datetimes=[DAY + dt.timedelta(days=35), DAY]))
    with pytest.raises(BadRequestError, match="no time"):
        item(datetimes=[])
