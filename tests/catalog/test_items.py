"""Items of every dialect → scenes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.assets import resolve_href
from earthmap.catalog.items import scene_from_item
from earthmap.catalog.scene import Scene, scene_from_dict, scene_to_dict
from earthmap.errors import CatalogError, SensorError
from earthmap.sensors.bands import BANDS, OPTICAL_BANDS

SQUARE = {"type": "Polygon", "coordinates": [[[10, 45], [10.1, 45], [10.1, 45.1], [10, 45.1], [10, 45]]]}


def drawn_item(assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
    stated = {"datetime": "2024-06-01T10:00:00Z", "gsd": 10, **properties}
    return {"type": "Feature", "id": "drawn", "geometry": SQUARE, "properties": stated, "assets": assets}


def asset(**fields: Any) -> dict[str, Any]:
    return {"href": "./a.tif", "type": "image/tiff; application=geotiff", "roles": ["data"], **fields}


def s2_assets(*names: str, **raster: Any) -> dict[str, Any]:
    return {name: asset(href=f"./{name}.tif", **({"raster:bands": [raster]} if raster else {})) for name in names}


def real_scene(path: Path) -> Scene:
    return scene_from_item(json.loads(path.read_text()), base=str(path))


def first(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


CATALOGUE = {
    "sentinel-2-l2a": ("sentinel-2-l2a", 100.0),
    "bigearthnet-s2": ("sentinel-2-l2a", 10.0),
    "sen1floods11-s2": ("sentinel-2-l1c", 10.0),
    "sen1floods11-s1": ("sentinel-1-db", 10.0),
    "bigearthnet-s1": ("sentinel-1-db", 10.0),
    "joplin-2011": ("optical-uncalibrated", 0.674),
    "naip": ("optical-uncalibrated", 5.0),
    "landsat-ucayali": ("optical-uncalibrated", 90.0),
    "spacenet6-optical": ("optical-uncalibrated", 1.0),
    "landsat-c2-l2": ("landsat-c2-l2", 601.0),
}


@pytest.mark.real
@pytest.mark.parametrize("collection", CATALOGUE)
def test_real_scenes_have_their_row(real_data: Path, collection: str) -> None:
    sensor, resolution_m = CATALOGUE[collection]
    items = list((real_data / "stac" / collection).glob("*/*.json"))
    assert items
    for path in items:
        scene = real_scene(path)
        assert (scene.sensor, scene.id) == (sensor, path.stem)
        assert scene.resolution_m == pytest.approx(resolution_m, rel=0.02)
        assert all(Path(source.href).is_file() for source in scene.sources)
        assert scene_from_dict(json.loads(json.dumps(scene_to_dict(scene)))) == scene
        assert len(scene.content_key()) == 32


@pytest.mark.real
def test_bands_win_over_the_picture(real_data: Path) -> None:
    scene = real_scene(first(real_data / "stac" / "sentinel-2-l2a", "*/*.json"))
    assert [source.band for source in scene.sources] == [
        "coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09",
        "swir16", "swir22",
    ]  # fmt: skip
    assert {source.calibration.offset for source in scene.sources} == {0.0}
    assert [source.band for source in scene.mask_sources] == ["scl"]
    assert scene.mask_sources[0].calibration.categorical
    assert scene.cloud_cover == 4


@pytest.mark.real
def test_one_file_with_thirteen_bands(real_data: Path) -> None:
    scene = real_scene(first(real_data / "stac" / "sen1floods11-s2", "*/*.json"))
    assert len(scene.sources) == 13
    assert {source.band: source.index for source in scene.sources}["cirrus"] == 11
    assert len({source.href for source in scene.sources}) == 1
    assert scene.mask_sources == ()


@pytest.mark.real
def test_uncalibrated_bands_keep_their_numbers(real_data: Path) -> None:
    river = real_scene(first(real_data / "stac" / "landsat-ucayali", "*/*.json"))
    assert [(source.band, source.index) for source in river.sources] == [
        ("green", 4), ("red", 3), ("nir", 2), ("swir16", 1),
    ]  # fmt: skip
    assert {(source.calibration.scale, source.calibration.nodata) for source in river.sources} == {(1.0, 0.0)}
    town = real_scene(first(real_data / "stac" / "joplin-2011", "*/*.json"))
    assert [source.band for source in town.sources] == ["blue", "green", "red"]
    assert "uncalibrated" in town.notes


@pytest.mark.real
@pytest.mark.parametrize(
    ("pattern", "sensor", "offset"),
    [
        ("earth-search*/sentinel-2-l2a/*.json", "sentinel-2-l2a", 0.0),  # flag and offset: the flag holds
        ("earth-search*/sentinel-2-c1-l2a/*.json", "sentinel-2-l2a", -0.1),
        ("earth-search*/sentinel-2-l1c/*.json", "sentinel-2-l1c", -0.1),
        ("planetarycomputer*/sentinel-2-l2a/*.json", "sentinel-2-l2a", 0.0),  # baseline 02.12
        ("odc-stac/S2A_28QCH*.json", "sentinel-2-l2a", 0.0),  # Earth Search v0, baseline 02.14 in the product
    ],
)
def test_real_sentinel_2_offsets(real_data: Path, pattern: str, sensor: str, offset: float) -> None:
    paths = sorted((real_data / "17_stac_items").glob(pattern))
    assert paths
    for path in paths:
        scene = real_scene(path)
        assert scene.sensor == sensor
        assert {source.calibration.offset for source in scene.sources} == {offset}
        assert {source.calibration.scale for source in scene.sources} == {1e-4}
        assert {source.calibration.nodata for source in scene.sources} == {0.0}
        assert scene.resolution_m == 10.0
        assert len(scene.sources) == (13 if sensor.endswith("l1c") else 12)
        assert not any(source.href.endswith(".jp2") for source in scene.sources) or sensor.endswith("l1c")
        assert [source.band for source in scene.mask_sources] == (["scl"] if sensor.endswith("l2a") else [])


def test_baseline_decides_where_nothing_else_is_said() -> None:
    for baseline, offset in (("04.00", -0.1), ("05.11", -0.1), ("03.01", 0.0)):
        item = drawn_item(
            s2_assets("B02", "B03", "B04", "SCL"), platform="Sentinel-2A", **{"s2:processing_baseline": baseline}
        )
        scene = scene_from_item(item, base="/a/item.json")
        assert {source.calibration.offset for source in scene.sources} == {offset}
        assert scene.notes == ()


def test_raster_bands_go_before_the_baseline() -> None:
    item = drawn_item(
        s2_assets("B02", "SCL", scale=1e-4, offset=0.0),
        platform="sentinel-2a",
        **{"s2:processing_baseline": "05.00", "earthsearch:boa_offset_applied": False},
    )
    assert scene_from_item(item, base="/a/i.json").sources[0].calibration.offset == 0.0


def test_what_is_assumed_is_noted() -> None:
    scene = scene_from_item(drawn_item(s2_assets("B02", "B04"), platform="sentinel-2b"), base="/a/i.json")
    assert scene.notes == (
        "level assumed L2A",
        "processing baseline not stated, offset -0.1 assumed from the date",
    )


def test_cirrus_without_layers_is_l1c() -> None:
    item = drawn_item(s2_assets("B02", "B04", "B10"), platform="sentinel-2b")
    assert scene_from_item(item, base="/a/i.json").sensor == "sentinel-2-l1c"


def test_stac_1_1_bands() -> None:
    bands = [
        {"name": "x", "eo:common_name": "red", "data_type": "uint16", "raster:scale": 0.001, "raster:offset": -0.2},
        {"name": "y", "eo:center_wavelength": 0.84, "data_type": "uint16", "raster:scale": 0.001, "nodata": 7},
    ]
    scene = scene_from_item(drawn_item({"image": asset(bands=bands)}, platform="a plane"), base="/a/i.json")
    assert scene.sensor == "optical-reflectance"
    red, nir = scene.sources
    assert (red.band, red.index, red.calibration.scale, red.calibration.offset) == ("red", 1, 0.001, -0.2)
    assert (nir.band, nir.index, nir.calibration.offset, nir.calibration.nodata) == ("nir", 2, 0.0, 7.0)


def test_planetary_computer_rtc() -> None:
    # The form of that collection's items: the unit stands in words only.
    text = "Terrain-corrected gamma naught values of signal transmitted with vertical polarization and received"
    assets = {
        name: asset(
            href=f"https://host/{name}.rtc.tiff",
            description=text,
            **{"raster:bands": [{"nodata": -32768, "data_type": "float32", "spatial_resolution": 10.0}]},
        )
        for name in ("vh", "vv")
    }
    item = drawn_item(assets, platform="SENTINEL-1A", **{"sar:product_type": "GRD", "sat:absolute_orbit": 47600})
    scene = scene_from_item(item, base="https://host/item.json")
    assert scene.sensor == "sentinel-1-rtc"
    assert [source.band for source in scene.sources] == ["vv", "vh"]
    assert not scene.sources[0].calibration.decibels
    assert scene.sources[0].calibration.nodata == -32768
    assert scene.pass_id == "sentinel-1a absolute_orbit 47600"


def test_decibels_and_nan_nodata() -> None:
    bands = [{"name": "VV", "unit": "dB", "data_type": "float32", "nodata": "nan"}]
    scene = scene_from_item(drawn_item({"vv": asset(bands=bands)}, platform="sentinel-1a"), base="/a/i.json")
    assert scene.sensor == "sentinel-1-db"
    assert scene.sources[0].calibration.decibels
    assert scene.sources[0].calibration.nodata is None


def test_cloud_optimised_file_is_preferred() -> None:
    item = drawn_item(
        {
            "blue-jp2": asset(href="./b.jp2", type="image/jp2", **{"eo:bands": [{"name": "B02"}]}),
            "blue": asset(type="image/tiff; profile=cloud-optimized", **{"eo:bands": [{"name": "B02"}]}),
        },
        platform="sentinel-2a",
    )
    scene = scene_from_item(item, base="/folder/i.json")
    assert [source.href for source in scene.sources] == ["/folder/a.tif"]


def test_middle_of_an_interval_and_passes() -> None:
    item = drawn_item(
        s2_assets("B02"),
        datetime=None,
        start_datetime="2024-06-01T10:00:00Z",
        end_datetime="2024-06-01T12:00:00Z",
        platform="sentinel-2a",
        **{"s2:datatake_id": "GS2A_20240601T100000_000001_N05.10", "earthmap:world": {"b": 1, "a": [2]}},
    )
    scene = scene_from_item(item, base="/a/i.json")
    assert scene.datetime.isoformat() == "2024-06-01T11:00:00+00:00"
    assert scene.pass_id == "S2A_20240601T100000"
    assert scene.world == '{"a":[2],"b":1}'


def test_footprint_over_the_antimeridian_is_split() -> None:
    item = drawn_item(s2_assets("B02"), platform="sentinel-2a")
    item["geometry"] = {
        "type": "Polygon", "coordinates": [[[179, 0], [-179, 0], [-179, 1], [179, 1], [179, 0]]]
    }  # fmt: skip
    ground = shapely.from_wkb(scene_from_item(item, base="/a/i.json").footprint)
    assert ground.geom_type == "MultiPolygon"
    assert ground.area == pytest.approx(2.0)


def test_degrees_become_metres() -> None:
    assets = s2_assets("B02")
    assets["B02"] |= {"proj:code": "EPSG:4326", "proj:transform": [1e-4, 0, 10, 0, -2e-4, 45]}
    assert scene_from_item(drawn_item(assets, platform="sentinel-2a"), base="/a/i.json").resolution_m == 22.3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"assets": None}, "has no assets"),
        ({"geometry": None}, "covers no ground"),
        ({"geometry": {"type": "Point", "coordinates": [1, 2]}}, "covers no ground"),
        ({"properties": {"gsd": 10, "platform": "sentinel-2a"}}, "no time"),
        ({"properties": {"datetime": "2024-06-01T00:00:00Z", "platform": "a plane"}}, "ground distance"),
        ({"assets": {"dem": asset()}}, "no data band is recognised"),
        ({"assets": {"B02": 5, "x": asset(bands=[3])}}, "no data band is recognised"),
    ],
)
def test_bad_items_get_one_sentence(change: dict[str, Any], said: str) -> None:
    item = {**drawn_item(s2_assets("B02"), platform="sentinel-2a"), **change}
    with pytest.raises((SensorError, CatalogError), match=said) as caught:
        scene_from_item(item, base="/a/i.json")
    assert "the item drawn" in str(caught.value)


@given(st.text(), st.text())
def test_names_of_item_and_collection_decide_nothing(name: str, collection: str) -> None:
    item = drawn_item(s2_assets("B02", "B04"), platform="sentinel-2a")
    plain = scene_from_item(item, base="/a/i.json")
    renamed = copy.deepcopy(item) | {"id": name, "collection": collection}
    scene = scene_from_item(renamed, base="/a/i.json")
    assert (scene.sensor, scene.sources, scene.notes) == (plain.sensor, plain.sources, plain.notes)


def landsat_l1(**properties: Any) -> dict[str, Any]:
    """A level 1 item with the factors of its MTL in raster:bands."""
    assets = {
        "red": asset(
            **{
                "eo:bands": [{"name": "OLI_B4"}],
                "raster:bands": [{"scale": 2e-5, "offset": -0.1, "data_type": "uint16"}],
            }
        ),
        "lwir11": asset(**{"eo:bands": [{"name": "TIRS_B10"}], "raster:bands": [{"scale": 3.342e-4, "offset": 0.1}]}),
        "qa_pixel": asset(href="./q.tif", roles=["cloud"]),
    }
    stated = {"platform": "LANDSAT_8", "landsat:correction": "L1TP", "landsat:collection_number": "02", **properties}
    return drawn_item(assets, **stated)


def test_landsat_level_1_is_divided_by_the_sun() -> None:
    scene = scene_from_item(landsat_l1(**{"view:sun_elevation": 30.0}), base="/a/i.json")
    assert scene.sensor == "landsat-c2-l1"
    (red,) = scene.sources  # radiance without K1 and K2 is no temperature
    assert red.calibration.scale == pytest.approx(4e-5)
    assert red.calibration.offset == pytest.approx(-0.2)
    assert red.calibration.nodata == 0.0
    assert [source.band for source in scene.mask_sources] == ["qa_pixel"]
    assert scene.notes == ("divided by the sine of the sun's elevation, 30.00°",)
    with pytest.raises(SensorError, match="Landsat level 1"):
        scene_from_item(landsat_l1(), base="/a/i.json")


def test_landsat_level_1_temperature_needs_its_constants() -> None:
    item = landsat_l1(**{"view:sun_elevation": 30.0})
    item["assets"]["lwir11"]["raster:bands"][0]["earthmap:planck"] = [774.8853, 1321.0789]
    scene = scene_from_item(item, base="/a/i.json")
    _, thermal = scene.sources
    assert (thermal.band, thermal.calibration.planck) == ("lwir11", (774.8853, 1321.0789))
    assert thermal.calibration.apply(np.array([26214], np.uint16))[0] == pytest.approx(295, abs=2)
    assert scene_from_dict(json.loads(json.dumps(scene_to_dict(scene)))) == scene
    item["assets"]["lwir11"]["raster:bands"][0]["earthmap:planck"] = ["x", 1]
    assert [source.band for source in scene_from_item(item, base="/a/i.json").sources] == ["red"]


def test_two_hundred_bands_are_read_by_wavelength() -> None:
    centres = [round(0.4 + index * 0.0105, 4) for index in range(200)]  # 0.4 to 2.49 µm, as EnMAP and EMIT have
    bands = [
        {"name": f"band_{index:03d}", "eo:center_wavelength": centre, "eo:full_width_half_max": 0.01}
        for index, centre in enumerate(centres)
    ]
    raster = {"data_type": "int16", "scale": 1e-4, "offset": 0.0, "nodata": -32768}
    item = drawn_item({"image": asset(bands=bands, **{"raster:bands": [raster] * 200})}, platform="enmap", gsd=30)
    scene = scene_from_item(item, base="/a/i.json")
    assert scene.sensor == "hyperspectral"
    assert [source.band for source in scene.sources] == list(OPTICAL_BANDS)
    for source in scene.sources:
        canonical = BANDS[source.band]
        found = centres[source.index - 1]
        assert canonical.range_um[0] <= found < canonical.range_um[1]
        assert abs(found - canonical.centre_um) <= 0.0105 / 2 + 1e-9, "the nearest of all"
        assert (source.calibration.scale, source.calibration.nodata) == (1e-4, -32768)
    nanometres = copy.deepcopy(item)
    for band in nanometres["assets"]["image"]["bands"]:
        band["eo:center_wavelength"] = round(band["eo:center_wavelength"] * 1000, 1)
    assert scene_from_item(nanometres, base="/a/i.json").sources == scene.sources


@pytest.mark.parametrize(("unit", "offset"), [("kelvin", 0.0), ("K", 0.0), ("°C", 273.15), ("celsius", 273.15)])
def test_temperatures_become_kelvin(unit: str, offset: float) -> None:
    bands = [{"name": "thermal", "eo:common_name": "lwir", "unit": unit, "data_type": "float32"}]
    item = drawn_item({"t": asset(bands=bands, description="Land surface temperature")}, platform="a drone")
    scene = scene_from_item(item, base="/a/i.json")
    assert (scene.sensor, scene.convention) == ("thermal", "surface")
    assert scene.sources[0].calibration.offset == pytest.approx(offset)


def test_temperature_without_a_unit_is_uncalibrated() -> None:
    bands = [{"name": "thermal", "eo:common_name": "lwir11", "data_type": "uint8"}]
    scene = scene_from_item(drawn_item({"t": asset(bands=bands)}, platform="a drone"), base="/a/i.json")
    assert (scene.sensor, scene.notes) == ("thermal-uncalibrated", ("uncalibrated",))


def test_cloud_probability_stands_in_for_the_classification() -> None:
    cloud = asset(href="./c.tif", roles=["data", "cloud"], title="Cloud Probabilities")
    item = drawn_item(
        {**s2_assets("B02", "B10"), "cloud": cloud}, platform="sentinel-2a", **{"s2:product_type": "S2MSI1C"}
    )
    scene = scene_from_item(item, base="/a/i.json")
    assert [source.band for source in scene.mask_sources] == ["cloud_probability"]
    cloud["title"] = "Cloud mask"  # of 0 and 1: no percents
    assert scene_from_item(item, base="/a/i.json").mask_sources == ()
    item["assets"]["SCL"] = asset(href="./s.tif")
    item["properties"]["s2:product_type"] = "S2MSI2A"
    assert [source.band for source in scene_from_item(item, base="/a/i.json").mask_sources] == ["scl"]


def test_the_picture_stands_in_for_bands_that_nobody_says_how_to_read() -> None:
    step = {"proj:code": "EPSG:32611"}
    names = [{"name": name, "common_name": name} for name in ("red", "green", "blue", "nir")]
    fine = {**step, "proj:transform": [0.3, 0, 0, 0, -0.3, 0]}
    coarse = {**step, "proj:transform": [1.2, 0, 0, 0, -1.2, 0]}
    picture = asset(href="./v.tif", roles=["visual"], **{"eo:bands": names[:3]}, **fine)
    item = drawn_item({"ms": asset(**{"eo:bands": names}, **coarse), "visual": picture}, platform="WV02")
    scene = scene_from_item(item, base="/a/i.json")
    assert {source.href for source in scene.sources} == {"/a/v.tif"}
    assert (scene.convention, scene.resolution_m) == ("picture", 0.3)
    item["assets"]["ms"]["raster:bands"] = [{"data_type": "uint16", "scale": 1e-4}] * 4
    scene = scene_from_item(item, base="/a/i.json")
    assert (scene.sensor, len(scene.sources), scene.resolution_m) == ("optical-reflectance", 4, 1.2)


def test_hrefs(tmp_path: Path) -> None:
    assert resolve_href("./x.tif", str(tmp_path)) == str(tmp_path / "x.tif")
    assert resolve_href("../x.tif", str(tmp_path / "i.json")) == str(tmp_path.parent / "x.tif")
    assert resolve_href("x.tif", "https://h/a/") == "https://h/a/x.tif"
    assert resolve_href("s3://b/x.tif", str(tmp_path)) == "s3://b/x.tif"
    assert resolve_href("file:///a%20b/x.tif", str(tmp_path)) == "/a b/x.tif"


@pytest.fixture(scope="module")
def drawn_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from earthmap.synthetic import small_world, write_world

    catalog = write_world(small_world(), tmp_path_factory.mktemp("world"), sensors=("sentinel-2", "sentinel-1", "rgb"))
    return catalog.parent


def test_drawn_worlds_are_read_as_they_were_drawn(drawn_world: Path) -> None:
    wanted = {
        "drawn-sentinel-2-l2a": ("sentinel-2-l2a", 12, -0.1),
        "drawn-sentinel-1": ("sentinel-1-db", 2, 0.0),
        "drawn-aerial": ("optical-uncalibrated", 4, 0.0),
    }
    for collection, (sensor, bands, offset) in wanted.items():
        paths = sorted((drawn_world / collection).glob("*/*.json"))
        assert paths
        for path in paths:
            scene = real_scene(path)
            assert (scene.sensor, len(scene.sources)) == (sensor, bands)
            assert {source.calibration.offset for source in scene.sources} == {offset}
            assert {source.calibration.decibels for source in scene.sources} == {sensor == "sentinel-1-db"}
            assert all(Path(source.href).is_file() for source in scene.sources)
            assert scene.world is not None
            assert scene.pass_id is not None or collection == "drawn-aerial"
            assert bool(scene.mask_sources) == (sensor == "sentinel-2-l2a")


def test_layover_is_known_by_its_words() -> None:
    gamma = "terrain-corrected gamma naught"
    assets = {
        "vv": asset(href="./vv.tif", description=gamma, **{"raster:bands": [{"data_type": "float32"}]}),
        "mask": asset(href="./m.tif", roles=["data-mask"], title="Layover and shadow mask"),
    }
    item = drawn_item(assets, platform="sentinel-1a", **{"sar:product_type": "RTC"})
    scene = scene_from_item(item, base="/a/i.json")
    assert [source.band for source in scene.mask_sources] == ["layover"]
    item["assets"]["mask"]["title"] = "Valid data"
    assert scene_from_item(item, base="/a/i.json").mask_sources == ()


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("geometry", "coordinates", 0, 1, 0), 1e9),  # millions of turns around the Earth
        (("geometry", "coordinates", 0, 1, 0), 1e308),
        (("geometry", "coordinates", 0, 1, 1), 10**400),
        (("geometry", "coordinates", 0, 1, 0), float("nan")),
        (("properties", "gsd"), 10**400),
        (("properties",), [1]),
        (("properties", "datetime"), 10**400),
        (("assets", "B02", "href"), "a\0b.tif"),
        (("assets", "B02"), [5]),
        (("bbox",), [1, 2]),
    ],
)
def test_hostile_items_end_in_one_sentence(at: tuple[Any, ...], value: Any) -> None:
    item = drawn_item(s2_assets("B02"), platform="sentinel-2a")
    item["geometry"] = copy.deepcopy(SQUARE)
    *path, last = at
    node: Any = item
    for step in path:
        node = node[step]
    node[last] = value
    said = "the item drawn"
    try:
        scene_from_item(item, base="/a/i.json")
    except (SensorError, CatalogError) as error:
        said = str(error)
    assert "the item drawn" in said
    assert "\n" not in said
