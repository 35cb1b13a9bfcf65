from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from earthmap.catalog.items import scene_from_item
from earthmap.catalog.scene import Scene
from earthmap.predict.rules import UNCALIBRATED_SAR, rules_for, why_not
from earthmap.sensors.recognition import NOT_TERRAIN_CORRECTED
from earthmap.sensors.registry import SENSORS
from earthmap.sensors.views import default_view


def grd(*channels: str, annotated: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    assets: dict[str, Any] = {
        channel: {
            "href": f"measurement/{channel}.tiff",
            "type": "image/tiff; application=geotiff",
            "raster:bands": [{"data_type": "uint16", "nodata": 0}],
        }
        for channel in channels
    }
    for channel in annotated:
        for kind in ("calibration", "noise", "product"):
            assets[f"schema-{kind}-{channel}"] = {"href": f"annotation/{kind}-{channel}.xml", "type": "application/xml"}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S1A_IW_GRDH",
        "geometry": {"type": "Polygon", "coordinates": [[[10, 45], [13, 45], [13, 47], [10, 47], [10, 45]]]},
        "properties": {
            "datetime": "2024-06-01T05:00:00Z",
            "platform": "sentinel-1a",
            "sar:product_type": "GRD",
            "proj:epsg": 4326,
            "proj:transform": [0.00023, 0, 10, 0, -0.00009, 47],
            **properties,
        },
        "assets": assets,
    }


def scene_of(item: dict[str, Any]) -> Scene:
    return scene_from_item(item, base="/data/scene/item.json")


def test_grd_with_its_annotation_is_backscatter() -> None:
    scene = scene_of(grd("vv", "vh", annotated=("vv", "vh"), **{"sar:pixel_spacing_range": 10}))
    assert (scene.sensor, scene.resolution_m, scene.notes) == ("sentinel-1-grd", 10.0, (NOT_TERRAIN_CORRECTED,))
    for source in scene.sources:
        assert source.annotation is not None
        assert source.annotation.calibration == f"/data/scene/annotation/calibration-{source.band}.xml"
        assert source.annotation.noise == f"/data/scene/annotation/noise-{source.band}.xml"
        assert (source.calibration.amplitude, source.calibration.nodata) == (True, 0.0)


def test_grd_without_all_of_its_annotation_is_uncalibrated() -> None:
    scene = scene_of(grd("vv", "vh", annotated=("vv",)))
    assert (scene.sensor, scene.notes) == ("radar-uncalibrated", ("uncalibrated", NOT_TERRAIN_CORRECTED))
    assert all(source.annotation is None and source.calibration.amplitude for source in scene.sources)


@pytest.mark.parametrize(
    ("properties", "metres"),
    [
        ({"sar:pixel_spacing_range": 40, "sar:pixel_spacing_azimuth": 40.0}, 40.0),
        ({"sar:instrument_mode": "EW"}, 40.0),
        ({"sar:instrument_mode": "IW"}, 10.0),
        ({}, 10.0),
        ({"sar:pixel_spacing_range": "wide"}, 10.0),
    ],
)
def test_pixels_are_as_large_as_the_radar_says(properties: dict[str, Any], metres: float) -> None:
    """And not as the box around a turned swath does: its pixels are 25 by 10 metres."""
    assert scene_of(grd("vv", annotated=("vv",), **properties)).resolution_m == metres
    assert scene_of(grd("vv", **properties)).resolution_m == metres


def test_complex_radar_of_an_aircraft_is_read_as_power() -> None:
    item = grd("hh", "hv", "vh", "vv", platform="aircraft", **{"sar:product_type": "SLC", "gsd": 0.5})
    item["properties"].pop("proj:transform")
    scene = scene_of(item)
    assert (scene.sensor, scene.notes, len(scene.sources)) == ("radar-uncalibrated", ("uncalibrated",), 4)


def test_uncalibrated_radar_answers_no_threshold() -> None:
    row = SENSORS["radar-uncalibrated"]
    assert row.is_sar
    assert not row.calibrated
    assert rules_for(UNCALIBRATED_SAR, row.bands) == {}
    reason, message = why_not("water", UNCALIBRATED_SAR, ("vv",))
    assert reason == "uncalibrated"
    assert "calibration annotation" in message
    assert default_view(row, ("vv", "vh")) == "sar-vv-vh-stored"


@pytest.mark.real
def test_real_items_of_earth_search(real_data: Path) -> None:
    paths = sorted((real_data / "17_stac_items").glob("earth-search*/sentinel-1-grd/*.json"))
    assert len(paths) == 2
    for path in paths:
        scene = scene_from_item(json.loads(path.read_text()), base=str(path))
        assert (scene.sensor, scene.resolution_m, scene.pass_id) == (
            "sentinel-1-grd", 10.0, "sentinel-1a datatake_id 491390",
        )  # fmt: skip
        (source,) = scene.sources
        assert source.band == "hh"
        assert source.annotation is not None
        assert source.annotation.calibration.endswith("annotation/calibration/calibration-iw-hh.xml")
        assert source.annotation.noise is not None
        assert source.annotation.noise.endswith("annotation/calibration/noise-iw-hh.xml")
