"""The least cloud over a cell is measured where a layer knows it, and kept; nothing is decided on a guess."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from earthmap.catalog import observe
from earthmap.catalog.scene import BandSource, Observation, Scene
from earthmap.cube import ArrayImage, MemoryReader, Patience, SourceGrid, clear_share, glance
from earthmap.errors import ReadError
from earthmap.grid import AreaOfInterest, Cell, Grid, Zone, owned_ground
from earthmap.pipeline.clearness import best_first
from earthmap.pipeline.context import Context
from earthmap.pipeline.plan import CellWork, Question
from earthmap.sensors import Calibration
from earthmap.sensors.masks import Reason
from earthmap.storage import Storage
from tests.catalog.drawn_scenes import DAY, NOON

CELL = Cell(Grid(resolution_m=10.0, picture_px=128), Zone(31, True), 1103, 99)
CLEAR, CLOUD, SHADOW = 4, 9, 3


class Counted:
    """A reader that counts what is read."""

    def __init__(self, images: dict[str, Any]) -> None:
        self.inner, self.read_hrefs = MemoryReader(images=images), list[str]()

    def read(self, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None = None) -> Any:
        self.read_hrefs.append(source.href)
        return self.inner.read(source, geobox, frame=frame)


def image(cloudy_share: float, code: int = CLOUD) -> ArrayImage:
    """Scene classes of 20 m over the cell and its surroundings: the west of the cell is `code`, all around clear."""
    box = CELL.core_geobox.boundingbox
    side = 400
    left, top = box.left - 1000, box.top + 1000
    classes = np.full((1, side, side), CLEAR, np.uint8)
    width = round(cloudy_share * (box.right - box.left) / 20)
    classes[:, :, 50 : 50 + width] = code
    grid = SourceGrid(transform=Affine(20, 0, left, 0, -20, top), shape=(side, side), crs=CELL.core_geobox.crs)
    return ArrayImage(bands=classes, grid=grid)


def scene(name: str, day: int, *, cloud: float, masked: bool = True) -> Scene:
    ground = shapely.box(*owned_ground(CELL).buffer(0.02).bounds)
    return Scene(
        id=name,
        collection="drawn",
        sensor="sentinel-2-l2a",
        datetime=NOON + day * DAY,
        footprint=shapely.to_wkb(ground),
        resolution_m=10.0,
        sources=(BandSource(band="red", href=f"/{name}_red.tif", calibration=Calibration()),),
        mask_sources=(BandSource(band="scl", href=f"/{name}_scl.tif", calibration=Calibration(categorical=True)),)
        if masked
        else (),
        cloud_cover=cloud,
    )


def context(tmp_path: Path, observations: list[Observation], images: dict[str, Any], *, by_cloud: bool = True) -> Any:
    return Context(
        store=Storage(str(tmp_path)),
        execution=1,
        job="j",
        area=AreaOfInterest.from_bbox(2.9, 49.9, 3.1, 50.1),
        queries={},
        observations={one.id: one for one in observations},
        predictor={"name": "spectral"},
        reader=Counted({f"/{name}_scl.tif": picture for name, picture in images.items()}),
        patience=Patience(cell_s=0.0, run_s=0.0),
        by_cloud=by_cloud,
    )


def work(observations: list[Observation]) -> CellWork:
    names = [one.id for one in observations]
    question = Question(query="q", observations=(names[0],), fallbacks=tuple(names[1:]))
    return CellWork(cell=CELL, tiles=1, questions=(question,))


def order(observations: list[Observation], made: CellWork) -> list[str]:
    (question,) = made.questions
    by_name = {one.id: one.scenes[0].id for one in observations}
    return [by_name[name] for name in (*question.observations, *question.fallbacks)]


def three() -> list[Observation]:
    """What is stated puts them in the order in which they are made."""
    return observe([scene("a", 0, cloud=1.0), scene("b", 1, cloud=20.0), scene("c", 2, cloud=40.0)])


def test_what_covers_the_cell_decides_not_what_the_scene_states(tmp_path: Path) -> None:
    observations = three()
    images = {"a": image(0.8), "b": image(0.3), "c": image(0.0)}
    settings = context(tmp_path, observations, images)
    assert order(observations, best_first(work(observations), settings)) == ["c", "b", "a"]
    assert len(settings.reader.read_hrefs) == 3
    again = dataclasses.replace(settings, execution=2)
    assert order(observations, best_first(work(observations), again)) == ["c", "b", "a"]
    assert len(settings.reader.read_hrefs) == 3  # kept
    off = dataclasses.replace(settings, by_cloud=False)
    assert best_first(work(observations), off) == work(observations)


def test_flood_water_classed_as_shadow_is_not_cloud(tmp_path: Path) -> None:
    observations = three()
    settings = context(tmp_path, observations, {"a": image(0.9, SHADOW), "b": image(0.1), "c": image(0.1)})
    assert order(observations, best_first(work(observations), settings)) == ["a", "b", "c"]


def test_where_nothing_can_be_measured_the_stated_cloud_counts(tmp_path: Path) -> None:
    observations = observe([scene("a", 0, cloud=30.0), scene("b", 1, cloud=50.0, masked=False)])
    settings = context(tmp_path, observations, {"a": image(0.75)})
    assert order(observations, best_first(work(observations), settings)) == ["b", "a"]


@pytest.mark.parametrize(("reason", "expected"), [("damaged", ["b", "c", "a"]), ("refused", ["a", "b", "c"])])
def test_what_cannot_be_measured(tmp_path: Path, reason: str, expected: list[str]) -> None:
    """A damaged layer is the last choice; where it may yet come the plan's order stands, and nothing is kept."""
    observations = three()
    error = ReadError(reason, address="/a_scl.tif", reason=reason)
    settings = context(tmp_path, observations, {"a": error, "b": image(0.3), "c": image(0.3)})
    assert order(observations, best_first(work(observations), settings)) == expected


def test_a_larger_area_measures_the_same(tmp_path: Path) -> None:
    """More scenes of the same passes elsewhere change neither the share nor where it is kept."""
    observations = three()
    images = {"a": image(0.8), "b": image(0.3), "c": image(0.0)}
    settings = context(tmp_path, observations, images)
    best_first(work(observations), settings)
    kept = sorted(settings.store.list("clearness"))
    away = dataclasses.replace(
        scene("away", 0, cloud=0.0), footprint=shapely.to_wkb(shapely.box(3.0, 60.0, 4.0, 61.0)), id="away"
    )
    wider = observe([away, *(one.scenes[0] for one in observations)])
    assert [one.id for one in wider] == [one.id for one in observations]
    larger = dataclasses.replace(settings, observations={one.id: one for one in wider})
    assert order(observations, best_first(work(observations), larger)) == ["c", "b", "a"]
    assert sorted(settings.store.list("clearness")) == kept


def test_the_share_is_right_to_a_pixel() -> None:
    (one,) = observe([scene("a", 0, cloud=0.0)])
    reader = MemoryReader(images={"/a_scl.tif": image(0.25)})
    seen = glance(reader, one, CELL.core_geobox.zoom_to((64, 64)))
    assert seen.data.shape == (0, 64, 64)
    assert clear_share(seen.mask) == pytest.approx(0.75, abs=1 / 64)
    west = np.zeros((64, 64), bool)
    west[:, :10] = True
    assert clear_share(seen.mask, west) == 0.0
    assert clear_share(seen.mask, np.zeros((64, 64), bool)) == 0.0


def test_outside_of_its_footprint_a_scene_shows_nothing() -> None:
    bounds = owned_ground(CELL).bounds
    west = shapely.box(bounds[0] - 1, bounds[1] - 1, (bounds[0] + bounds[2]) / 2, bounds[3] + 1)
    (one,) = observe([dataclasses.replace(scene("a", 0, cloud=0.0), footprint=shapely.to_wkb(west))])
    seen = glance(MemoryReader(images={"/a_scl.tif": image(0.0)}), one, CELL.core_geobox.zoom_to((64, 64)))
    assert (seen.mask == Reason.NODATA).mean() == pytest.approx(0.5, abs=0.05)
