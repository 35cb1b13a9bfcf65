"""What there is of an area: every observation once, in order of time, with what its layers measure."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from earthmap.cli import main
from earthmap.errors import AreaError, CatalogError
from earthmap.grid import AreaOfInterest
from earthmap.outputs import StripPanel, render_strip
from earthmap.pipeline import Sightings, find_sightings
from earthmap.synthetic import World


def request(catalog: Path | str, area: Any, **changes: Any) -> dict[str, Any]:
    values = {"area": area, "catalog": str(catalog), "images": (), "bands": (), "datetime": None, "collections": ()}
    return {**values, "sensor": None, **changes}


@pytest.fixture(scope="module")
def found(drawn_world: World, drawn_catalog: Path) -> Sightings:
    return find_sightings(request(drawn_catalog, drawn_world.area), pictures=True)


def test_every_observation_once_in_order_of_time(found: Sightings) -> None:
    times = [row.datetime for row in found.rows]
    assert times == sorted(times)
    assert len({row.observation for row in found.rows}) == len(found.rows) == len(found.panels)
    assert found.refused == ()
    assert {row.sensor for row in found.rows} >= {"sentinel-2-l2a", "sentinel-1-db"}
    for row in found.rows:
        assert row.cover == pytest.approx(1.0, abs=0.02)
        assert row.problem is None
        assert row.scenes
        hours, minutes = map(int, row.solar_time.split(":"))
        assert 0 <= hours < 24
        assert 0 <= minutes < 60


def test_cloud_is_measured_from_the_layers(found: Sightings) -> None:
    optical = [row for row in found.rows if row.sensor == "sentinel-2-l2a"]
    assert [row.cloud_measured for row in optical] == [True, True]
    assert optical[0].cloud == pytest.approx(0.0, abs=0.01)
    assert 0.02 < (optical[1].cloud or 0) < 0.6
    assert all(row.cloud is None for row in found.rows if row.sensor == "sentinel-1-db")


def test_a_clear_corner_has_no_cloud_whatever_the_scene_says(drawn_world: World, drawn_catalog: Path) -> None:
    """Cloud over small areas differs from that of the whole; their mean is that of the whole."""
    west, south, east, north = drawn_world.area.bounds
    middle = (west + east) / 2
    clouds = []
    for left, right in ((west, middle), (middle, east)):
        half = AreaOfInterest.from_bbox(left, south, right, north)
        rows = find_sightings(request(drawn_catalog, half, sensor="sentinel-2-l2a")).rows
        clouds.append(rows[1].cloud or 0.0)
    whole = find_sightings(request(drawn_catalog, drawn_world.area, sensor="sentinel-2-l2a")).rows[1].cloud
    assert np.mean(clouds) == pytest.approx(whole, abs=0.02)


def test_half_covered_areas_say_so(drawn_world: World, drawn_catalog: Path) -> None:
    west, south, east, north = drawn_world.area.bounds
    wide = AreaOfInterest.from_bbox(west - (east - west), south, east, north)
    found = find_sightings(request(drawn_catalog, wide, sensor="sentinel-2-l2a"), pictures=True)
    assert [row.cover for row in found.rows] == pytest.approx([0.5, 0.5], abs=0.02)
    for panel in found.panels:
        shown = panel.rgba[..., 3] > 0
        assert shown.mean() == pytest.approx(0.5, abs=0.06)
        assert shown[:, -20:].mean() > 0.8
        assert not shown[:, : shown.shape[1] // 3].any()


@pytest.mark.parametrize("bbox", [(-180.0, -90.0, 180.0, 90.0), (-170.0, -60.0, 170.0, 60.0)])
def test_any_part_of_the_earth_is_a_picture(drawn_catalog: Path, bbox: tuple[float, float, float, float]) -> None:
    """Also what reaches to the other side of it."""
    found = find_sightings(request(drawn_catalog, AreaOfInterest.from_bbox(*bbox)), pictures=True)
    assert len(found.rows) == len(found.panels)
    for panel in found.panels:
        outline = np.concatenate(panel.outline)
        assert np.isfinite(outline).all()
        assert outline.min() > -1.0
        assert (outline.max(axis=0) <= np.array(panel.rgba.shape[1::-1]) + 1.0).all()


def test_a_file_that_is_gone_is_said(drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "scenes"
    shutil.copytree(drawn_catalog.parent, folder)
    for path in folder.rglob("*"):
        if path.suffix == ".tif" and "scl" in path.name.lower():
            path.unlink()
    found = find_sightings(request(folder / drawn_catalog.name, drawn_world.area, sensor="sentinel-2-l2a"))
    assert all(row.problem for row in found.rows)
    assert all(not row.cloud_measured for row in found.rows)


def test_nothing_there(drawn_catalog: Path) -> None:
    with pytest.raises(CatalogError, match="no item"):
        find_sightings(request(drawn_catalog, AreaOfInterest.from_bbox(100, 10, 101, 11)))
    with pytest.raises(AreaError):
        find_sightings(request(drawn_catalog, "100,10,99,9,1"))


def test_the_command(
    drawn_world: World, drawn_catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    west, south, east, north = drawn_world.area.bounds
    area = f"{west:.5f},{south:.5f},{east:.5f},{north:.5f}"
    strip = tmp_path / "strip.png"
    flags = ["--sensor", "sentinel-2-l2a", "--out", str(strip), "--json"]
    assert main(["scenes", "--area", area, "--catalog", str(drawn_catalog), *flags]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    content = json.loads(lines[-1])
    assert lines[0].split() == ["UTC", "solar", "time", "sensor", "platform", "cover", "cloud", "off", "nadir", "sun",
                                "orbit", "scenes"]  # fmt: skip
    assert len(lines) == 2 + len(content["observations"])
    assert content["refused"] == []
    assert content["observations"][0]["datetime"].endswith("+00:00")
    assert Image.open(strip).size[0] > 400
    assert main(["scenes", "--catalog", str(drawn_catalog)]) == 2
    assert "--area" in capsys.readouterr().err


def panels(count: int) -> list[StripPanel]:
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[10:30, 20:50] = (200, 30, 30, 255)
    ring = np.array([[5.0, 5.0], [55.0, 5.0], [55.0, 35.0], [5.0, 35.0], [5.0, 5.0]])
    return [StripPanel(rgba=rgba, outline=(ring,), title=f"2024-06-{n:02d}", lines=("a", "b")) for n in range(count)]


@pytest.mark.parametrize(("count", "rows"), [(0, 1), (1, 1), (6, 1), (7, 2), (24, 4)])
def test_a_strip_of_any_length(count: int, rows: int) -> None:
    data = render_strip(panels(count), title="x")
    assert data == render_strip(panels(count), title="x")
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    red = (np.abs(picture - (200, 30, 30)).sum(axis=-1) < 12).any(axis=1)
    starts = int((np.diff(red.astype(int)) == 1).sum())
    assert starts == (rows if count else 0)


def test_real_series_in_seconds(real_data: Path) -> None:
    catalog = real_data / "stac" / "catalog.json"
    found = find_sightings(request(catalog, "-74.8,-8.6,-74.35,-8.25", collections=("landsat-ucayali",)), pictures=True)
    assert [row.datetime.year for row in found.rows] == [1985, 1990, 1995, 2000, 2005, 2010, 2015, 2020]
    assert all(0.55 < row.cover < 0.7 and row.cloud is None for row in found.rows)
    desert = find_sightings(request(catalog, "-11.9,24.4,-10.9,25.2")).rows
    assert [row.cloud_measured for row in desert] == [True]
    assert (desert[0].cloud or 0) < 0.1
