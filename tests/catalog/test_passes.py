"""One pass has one name in every archive, and a tile of it one newest version."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import shapely

from earthmap.catalog.items import scene_from_item
from earthmap.catalog.observations import observe
from earthmap.catalog.passes import (
    baseline_of,
    orbit_direction_of,
    pass_id_of,
    relative_orbit_of,
    tile_of,
    vintage_of,
)
from tests.catalog.drawn_scenes import DAY, MINUTE, NOON, SQUARE, ids, scene

S2 = "S2A_MSIL2A_20200714T115221_N0214_R123_T28QCH_20200714T191310"


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"properties": {"s2:datatake_id": "GS2A_20200714T115221_026434_N05.00"}}, "S2A_20200714T115221"),
        ({"properties": {"sentinel:product_id": S2}}, "S2A_20200714T115221"),
        ({"id": S2, "properties": {}}, "S2A_20200714T115221"),
        ({"properties": {"catalog_id": "103001010C12B000"}}, "103001010C12B000"),
        ({"properties": {"s1:datatake_id": "491390", "sat:absolute_orbit": 60328}}, "x s1 491390"),
        ({"properties": {"landsat:wrs_path": "084", "landsat:wrs_row": "073"}}, "x path 084"),
        ({"id": "S2A_28QCH_20200714_0_L2A", "properties": {}}, None),
    ],
)
def test_passes(item: dict[str, Any], expected: str | None) -> None:
    found = pass_id_of(item, "x")
    assert found is None if expected is None else found is not None and found.split()[-1] == expected.split()[-1]


def test_what_names_say() -> None:
    v0 = {"id": "S2A_28QCH_20200714_0_L2A", "properties": {"sentinel:product_id": S2}}
    c1 = {"id": "S2A_T28QCH_20200714T115551_L2A", "properties": {"grid:code": "MGRS-28QCH"}}
    for item in (v0, c1, {"id": S2, "properties": {}}, {"properties": {"s2:mgrs_tile": "28QCH"}}):
        assert tile_of(item) == "28QCH"
    assert tile_of({"properties": {"s2:mgrs_tile": "06VVN"}}) == tile_of({"properties": {"grid:code": "MGRS-6VVN"}})
    assert (baseline_of(v0), relative_orbit_of(v0)) == ("02.14", 123)
    assert baseline_of({"properties": {"s2:processing_baseline": "05.11"}}) == "05.11"
    assert orbit_direction_of({"properties": {"sat:orbit_state": "Descending"}}) == "descending"
    assert orbit_direction_of({"properties": {"sat:orbit_state": "geostationary"}}) is None
    assert relative_orbit_of({"properties": {"landsat:wrs_path": "084"}}) == 84
    assert vintage_of({"id": "mt_m_4911558_sw_11_060_20231117_20240103", "properties": {}}) == "naip mt 2023"
    assert vintage_of({"id": "x", "properties": {"naip:state": "MT", "naip:year": "2023"}}) == "naip mt 2023"
    empty: dict[str, Any] = {"properties": {}}
    for read in (tile_of, baseline_of, relative_orbit_of, orbit_direction_of, vintage_of):
        assert read(empty) is None


def test_versions_of_a_tile_collapse_whatever_the_archives_call_them() -> None:
    """Times within seconds, outlines that differ a little, ids of two styles: the highest baseline is the newest."""
    rough = shapely.box(10.0, 50.0, 11.0, 50.93)
    versions = [
        scene("S2A_28QCH_20240601_0_L2A", pass_id="p", tile="28QCH", baseline="02.14", created="2030-01-01"),
        scene("S2A_28QCH_20240601_1_L2A", pass_id="p", tile="28QCH", baseline="02.14", created="2030-01-02"),
        scene("S2A_T28QCH_20240601T1", at=NOON + MINUTE / 4, pass_id="p", tile="28QCH", baseline="05.00", ground=rough),
    ]
    (one,) = observe(versions)
    assert ids([one]) == [["S2A_T28QCH_20240601T1"]]
    assert [copy.id for copy in one.copies] == ["S2A_28QCH_20240601_1_L2A", "S2A_28QCH_20240601_0_L2A"]


def test_halves_of_a_tile_and_tiles_over_each_other_stay() -> None:
    west, east = shapely.box(10.0, 50.0, 10.6, 51.0), shapely.box(10.5, 50.0, 11.0, 51.0)
    halves = [
        scene("S2A_28QCH_20240601_0_L2A", pass_id="p", tile="28QCH", ground=west),
        scene("S2A_28QCH_20240601_1_L2A", pass_id="p", tile="28QCH", ground=east),
        scene("S2A_29QAB_20240601_0_L2A", pass_id="p", tile="29QAB", ground=east),
    ]
    (one,) = observe(halves)
    assert len(one.scenes) == 3
    assert one.copies == ()


def test_an_older_version_with_a_band_more_stays() -> None:
    from earthmap.catalog.scene import BandSource
    from earthmap.sensors.calibration import Calibration

    more = tuple(BandSource(band=band, href=f"/{band}.tif", calibration=Calibration()) for band in ("red", "nir"))
    old = scene("old", pass_id="p", tile="t", baseline="04.00", sources=more, ground=SQUARE)
    (one,) = observe([old, scene("new", pass_id="p", tile="t", baseline="05.00", ground=SQUARE)])
    assert {member.id for member in one.scenes} == {"old", "new"}


def test_a_vintage_is_one_observation_however_long_it_took() -> None:
    flown = [
        scene(f"m_{day}", at=NOON + day * DAY, ground=shapely.box(10 + day, 50, 11 + day, 51), vintage="naip mt 2023")
        for day in (0, 3, 70)
    ]
    other = scene("m_2021", at=NOON - 700 * DAY, vintage="naip mt 2021")
    assert ids(observe([*flown, other])) == [["m_2021"], ["m_0", "m_3", "m_70"]]


def test_two_strips_of_one_minute_stay_apart() -> None:
    first, second = (scene(name, at=NOON + MINUTE * n, pass_id=name) for n, name in enumerate(("1030A", "1030B")))
    assert ids(observe([first, second])) == [["1030A"], ["1030B"]]


def _real(real_data: Path, pattern: str) -> list[Any]:
    paths = sorted((real_data / "17_stac_items").glob(pattern))
    assert paths
    return [scene_from_item(json.loads(path.read_text()), base=str(path)) for path in paths]


def test_real_archives_of_one_day_agree_on_the_pass(real_data: Path) -> None:
    """Earth Search's two collections of one day: two passes of one datatake each, every tile once, the other a copy."""
    scenes = _real(real_data, "earth-search*/sentinel-2-*l2a/*.json")
    observations = observe(scenes)
    assert [len(one.scenes) for one in observations] == [2, 1]
    assert [len(one.copies) for one in observations] == [2, 1]
    assert {member.tile for one in observations for member in one.scenes} == {"24MUV", "24MVV", "20EPT"}
    assert {member.relative_orbit for one in observations for member in one.scenes} == {95}


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("planetary*/landsat-c2-l2/*.json", 1),  # three rows of one path
        ("planetary*/naip/*.json", 1),
        ("stac.eoapi.dev/Wild*/*.json", 1),  # six tiles of one strip
        ("earth-search*/sentinel-1-grd/*.json", 1),  # two slices of one datatake
        ("planetary*/sentinel-2-l2a/*.json", 1),
    ],
)
def test_real_items_of_one_pass_are_one_observation(real_data: Path, pattern: str, count: int) -> None:
    scenes = _real(real_data, pattern)
    observations = observe(scenes)
    assert len(observations) == count
    assert len(observations[0].scenes) == len(scenes)
    spread = max(one.datetime for one in scenes) - min(one.datetime for one in scenes)
    assert spread < datetime.timedelta(days=1)
