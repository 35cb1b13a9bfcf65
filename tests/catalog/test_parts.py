"""Items that are parts of one scene."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.items import scene_from_item
from earthmap.catalog.observations import observe
from earthmap.catalog.parts import join_parts
from earthmap.catalog.scene import BandSource, Scene
from earthmap.sensors.calibration import Calibration

NOON = datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC)


SQUARE = shapely.box(10, 50, 11, 51)


def part(name: str, *bands: str, ground: Any = SQUARE, **fields: Any) -> Scene:
    sources = tuple(BandSource(band=band, href=f"/{name}/{band}.tif", calibration=Calibration()) for band in bands)
    values = {"collection": "c", "sensor": "landsat-c2-l2", "datetime": NOON, "resolution_m": 30.0, **fields}
    return Scene(id=name, sources=sources, footprint=shapely.to_wkb(ground), **values)


@given(st.permutations(["blue red", "lwir11", "swir16"]))
def test_parts_become_one_scene_in_any_order(order: list[str]) -> None:
    (scene,) = join_parts([part(bands.replace(" ", "_"), *bands.split()) for bands in order])
    assert [source.band for source in scene.sources] == ["blue", "red", "swir16", "lwir11"]
    assert scene.id == "blue_red"
    assert scene.notes == ("with lwir11 of lwir11", "with swir16 of swir16")


@pytest.mark.parametrize(
    "other",
    [
        part("b", "red"),
        part("b", "lwir11", datetime=NOON + datetime.timedelta(seconds=20)),
        part("b", "lwir11", ground=shapely.box(10.2, 50, 11.2, 51)),
        part("b", "lwir11", platform="landsat-9"),
        part("b", "lwir11", convention="other"),
        part("b", "lwir11", sensor="landsat-c2-l1"),
    ],
)
def test_others_stay_apart(other: Scene) -> None:
    scenes = [part("a", "red"), other]
    assert join_parts(scenes) == scenes


@pytest.mark.real
def test_real_reflectance_and_temperature(real_data: Path) -> None:
    folder = real_data / "09_landsat_thermal" / "LC08_L2SP_001062_20201031"
    items = [folder / "item_SR.local.json", folder / "item_ST.local.json"]
    scenes = [scene_from_item(json.loads(path.read_text()), base=str(path)) for path in items]
    (observation,) = observe(scenes)
    (scene,) = observation.scenes
    assert [source.band for source in scene.sources] == [
        "coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "lwir11",
    ]  # fmt: skip
    assert all(Path(source.href).is_file() for source in scene.sources)
    assert [source.band for source in scene.mask_sources] == ["qa_pixel"]
