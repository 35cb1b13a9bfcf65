"""Every real item of every provider: the sensor, bands and calibration that it becomes, or why it is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from earthmap.catalog.items import scene_from_item
from earthmap.catalog.scene import Scene, scene_from_dict, scene_to_dict
from earthmap.errors import CatalogError, SensorError
from earthmap.sensors.registry import SENSORS
from earthmap.sensors.views import default_view

pytestmark = pytest.mark.real


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the items of one dialect become."""

    items: int
    """How many there are."""
    sensor: str
    bands: int
    resolution_m: float
    calibration: tuple[float, float, float | None]
    """Scale, offset and nodata of every band."""
    masks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    convention: str = ""


S2_OLD, S2_NEW = (1e-4, 0.0, 0.0), (1e-4, -0.1, 0.0)
LANDSAT = (2.75e-5, -0.2, 0.0)
PLAIN = (1.0, 0.0, None)
_PICTURE: dict[str, Any] = {
    "sensor": "optical-uncalibrated",
    "bands": 3,
    "calibration": PLAIN,
    "notes": ("uncalibrated",),
    "convention": "picture",
}
_L8: dict[str, Any] = {
    "sensor": "landsat-c2-l2",
    "bands": 7,
    "resolution_m": 30.0,
    "calibration": LANDSAT,
    "masks": ("qa_pixel", "qa_radsat"),
}
_S2: dict[str, Any] = {"sensor": "sentinel-2-l2a", "bands": 12, "resolution_m": 10.0, "masks": ("scl",)}

READ = {
    "earth-search*/sentinel-2-l2a/*.json": Expected(items=3, calibration=S2_OLD, **_S2),  # the flag goes before -0.1
    "earth-search*/sentinel-2-c1-l2a/*.json": Expected(items=3, calibration=S2_NEW, **_S2),
    "earth-search*/sentinel-2-l1c/*.json": Expected(
        items=1, sensor="sentinel-2-l1c", bands=13, resolution_m=10.0, calibration=S2_NEW
    ),
    "planetary*/sentinel-2-l2a/*.json": Expected(items=3, calibration=S2_OLD, **_S2),  # baseline 02.12
    "odc-stac/S2A_28QCH*.json": Expected(items=1, calibration=S2_OLD, **_S2),  # STAC 1.0.0-beta.1, Earth Search v0
    "odc-stac/S2B_MSIL2A*.json": Expected(items=1, calibration=S2_OLD, **_S2),
    "planetary*/landsat-c2-l2/*.json": Expected(items=3, **_L8),
    "odc-stac/LC08*.json": Expected(items=1, **_L8),  # states no scale
    "planetary*/naip/*.json": Expected(
        items=3,
        sensor="optical-uncalibrated",
        bands=4,
        resolution_m=0.6,
        calibration=PLAIN,
        notes=("uncalibrated",),
    ),
    "planetary*/aster-l1t/*.json": Expected(
        items=1,
        sensor="optical-uncalibrated",
        bands=5,
        resolution_m=15.0,
        calibration=(1.0, 0.0, 0.0),
        notes=("uncalibrated",),
    ),
    "stac.eoapi.dev/*/*.json": Expected(items=6, resolution_m=0.305, **_PICTURE),  # Maxar: the picture is the finest
    "pystac/**/20170831_162740_ssc1d1.json": Expected(items=1, resolution_m=0.9, **_PICTURE),
    "pystac/**/20170831_172754_101c.json": Expected(items=1, resolution_m=2.6, **_PICTURE),
    "pystac/**/*_SS02.json": Expected(items=2, resolution_m=1.1, **_PICTURE),
    "stac-spec/core-item.json": Expected(items=1, resolution_m=0.512, **_PICTURE),
    "stac-spec/extended-item.json": Expected(
        items=1,
        sensor="optical-uncalibrated",
        bands=4,
        resolution_m=0.5,
        calibration=PLAIN,
        notes=("uncalibrated",),
    ),
    "../09_landsat_thermal/*/*_SR_stac.json": Expected(items=1, **_L8),  # STAC 0.7.0
    "../09_landsat_thermal/*/item_SR.local.json": Expected(items=1, **{**_L8, "masks": ("qa_pixel",)}),
    "../09_landsat_thermal/*/*_ST_stac.json": Expected(
        items=1, **{**_L8, "bands": 1, "calibration": (0.00341802, 149.0, 0.0)}
    ),
    "../09_landsat_thermal/*/item_ST.local.json": Expected(
        items=1, **{**_L8, "bands": 1, "calibration": (0.00341802, 149.0, 0.0), "masks": ("qa_pixel",)}
    ),
}

REFUSED = {
    "earth-search*/cop-dem-glo-30/*.json": (1, "no data band is recognised"),
    "pystac/**/Houston-East*.json": (1, "no data band is recognised"),  # "3 Band RGB Mosaic" says so in words only
    "stac-spec/simple-item.json": (1, "ground distance"),
}

ELSEWHERE = "earth-search*/sentinel-1-grd/*.json"
"""Items whose place in the table is tested with radar."""


def paths_of(folder: Path, pattern: str) -> list[Path]:
    return sorted(path.resolve() for path in (folder / "17_stac_items").glob(pattern) if path.name != "catalog.json")


def scene_of(path: Path) -> Scene:
    return scene_from_item(json.loads(path.read_text()), base=str(path))


@pytest.mark.parametrize("pattern", READ)
def test_what_items_become(real_data: Path, pattern: str) -> None:
    expected, paths = READ[pattern], paths_of(real_data, pattern)
    assert len(paths) == expected.items
    for path in paths:
        scene = scene_of(path)
        stated = [source.calibration for source in scene.sources]
        assert (scene.sensor, len(scene.sources), scene.resolution_m) == (
            expected.sensor, expected.bands, expected.resolution_m,
        )  # fmt: skip
        assert {(one.scale, one.offset, one.nodata) for one in stated} == {expected.calibration}
        assert tuple(source.band for source in scene.mask_sources) == expected.masks
        assert (scene.notes, scene.convention) == (expected.notes, expected.convention)
        row = SENSORS[scene.sensor]
        assert [source.band for source in scene.sources] == [
            band for band in row.bands if band in {source.band for source in scene.sources}
        ]
        assert scene_from_dict(json.loads(json.dumps(scene_to_dict(scene)))) == scene


@pytest.mark.parametrize("pattern", REFUSED)
def test_why_items_are_refused(real_data: Path, pattern: str) -> None:
    count, said = REFUSED[pattern]
    paths = paths_of(real_data, pattern)
    assert len(paths) == count
    for path in paths:
        with pytest.raises((SensorError, CatalogError), match=said) as caught:
            scene_of(path)
        assert json.loads(path.read_text())["id"] in str(caught.value)
        assert "\n" not in str(caught.value)


def test_no_real_item_is_left_out(real_data: Path) -> None:
    listed = {path for pattern in (*READ, *REFUSED, ELSEWHERE) for path in paths_of(real_data, pattern)}
    for path in (real_data / "17_stac_items").rglob("*.json"):
        item = json.loads(path.read_text())
        if isinstance(item, dict) and item.get("type") == "Feature":
            assert path.resolve() in listed


def test_geometry_of_the_view(real_data: Path) -> None:
    los_angeles = scene_of(paths_of(real_data, "stac.eoapi.dev/*/*320_*.json")[0])
    assert (los_angeles.off_nadir_deg, los_angeles.sun_elevation_deg) == (29.8, 33.2)
    assert los_angeles.sources[0].href.endswith("-visual.tif")
    old = scene_of(paths_of(real_data, "../09_landsat_thermal/*/*_SR_stac.json")[0])
    assert (old.off_nadir_deg, old.platform) == (0.0, "landsat-8")
    assert old.sun_elevation_deg == pytest.approx(64.45, abs=0.01)
    assert {source.band for source in old.sources} == {
        "coastal", "blue", "green", "red", "nir08", "swir16", "swir22",
    }  # fmt: skip


def item_of_collection(path: Path, *leave_out: str, **properties: Any) -> dict[str, Any]:
    """An item with the assets that a real collection says its items have."""
    collection = json.loads(path.read_text())
    assets = {
        key: {"href": f"./{key}.tif", **asset}
        for key, asset in collection["item_assets"].items()
        if key not in leave_out
    }
    ring = [[10, 45], [10.1, 45], [10.1, 45.1], [10, 45.1], [10, 45]]
    return {
        "type": "Feature",
        "id": collection["id"],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": "2024-06-01T10:00:00Z", **properties},
        "assets": assets,
    }


@pytest.mark.parametrize(
    ("platform", "instruments", "absent"),
    [("landsat-9", ["oli", "tirs"], "lwir"), ("landsat-7", ["etm+"], "lwir11"), ("landsat-5", ["tm"], "lwir11")],
)
def test_landsat_of_earth_search(real_data: Path, platform: str, instruments: list[str], absent: str) -> None:
    path = real_data / "17_stac_items/earth-search.aws.element84.com/collections/landsat-c2-l2.json"
    stated = {"platform": platform, "instruments": instruments, "landsat:correction": "L2SP"}
    left_out = (absent, "coastal") if absent == "lwir11" else (absent,)
    scene = scene_from_item(item_of_collection(path, *left_out, **stated), base="/a/i.json")
    assert (scene.sensor, scene.resolution_m) == ("landsat-c2-l2", 30.0)
    bands = {source.band: source.calibration for source in scene.sources}
    assert list(bands) == [band for band in SENSORS["landsat-c2-l2"].bands if band not in left_out or band == "lwir11"]
    assert (bands["lwir11"].scale, bands["lwir11"].offset) == (0.00341802, 149.0)
    assert {(one.scale, one.offset) for band, one in bands.items() if band != "lwir11"} == {(2.75e-5, -0.2)}
    assert [source.band for source in scene.mask_sources] == ["qa_pixel", "qa_radsat"]


@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("CBERS4MUX", ["blue", "green", "red", "nir"]),
        ("CBERS4AWFI", ["blue", "green", "red", "nir"]),
        ("CBERS4PAN10M", ["green", "red", "nir"]),
    ],
)
def test_cbers_is_uncalibrated(real_data: Path, name: str, bands: list[str]) -> None:
    path = real_data / f"17_stac_items/pystac/cbers-partial/{name}/collection.json"
    scene = scene_from_item(item_of_collection(path, platform="cbers-4", gsd=20), base="/a/i.json")
    assert (scene.sensor, scene.notes) == ("optical-uncalibrated", ("uncalibrated",))
    assert [source.band for source in scene.sources] == bands


def test_a_panchromatic_band_is_read_where_there_is_no_other(real_data: Path) -> None:
    path = real_data / "17_stac_items/pystac/cbers-partial/CBERS4PAN5M/collection.json"
    item = item_of_collection(path, platform="cbers-4", gsd=5)
    scene = scene_from_item(item, base="/a/i.json")
    assert (scene.sensor, [source.band for source in scene.sources]) == ("optical-uncalibrated", ["pan"])
    assert default_view(scene.sensor, ["pan"]) == "pan-8bit"
    colours = path.parents[1] / "CBERS4PAN10M" / "collection.json"
    item["assets"] |= item_of_collection(colours)["assets"]
    assert [one.band for one in scene_from_item(item, base="/a/i.json").sources] == ["green", "red", "nir"]


def test_sentinel_2_of_earth_search(real_data: Path) -> None:
    path = real_data / "17_stac_items/earth-search.aws.element84.com/collections/sentinel-2-l2a.json"
    scene = scene_from_item(item_of_collection(path, platform="sentinel-2a"), base="/a/i.json")
    assert (scene.sensor, len(scene.sources)) == ("sentinel-2-l2a", 12)
    assert not any("jp2" in source.href for source in scene.sources)
    assert {source.calibration.offset for source in scene.sources} == {0.0}  # as raster:bands states there
