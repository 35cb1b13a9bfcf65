"""Footprints: every row comes out, whatever is wrong with it, and one file is one content."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from earthmap.errors import BadRequestError, JobError
from earthmap.grid import AreaOfInterest
from earthmap.pipeline.footprints import NO_AREA, NO_GEOMETRY, NO_PLACE, footprints_key, read_footprints
from earthmap.pipeline.job import parse_job

AREA = AreaOfInterest.from_bbox(8.0, 50.0, 8.1, 50.1)
SQUARES = [shapely.box(8 + i / 64, 50, 8 + (i + 0.5) / 64, 50 + 1 / 128) for i in range(3)]


def _frame(geometries: list[Any] | None = None, *, crs: str | None = "EPSG:4326", **columns: Any) -> Any:
    return geopandas.GeoDataFrame(columns or None, geometry=geometries or SQUARES, crs=crs)


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.fgb", "a.parquet", "a.shp", "a.shp.zip"])
def test_every_format_gives_the_same(tmp_path: Path, name: str) -> None:
    frame = _frame(id=["x", "y", "z"], floors=[1, 2, 3])
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_file(path)
    found = read_footprints(path, area=AREA)
    order = np.argsort(found.ids.astype(str))  # FlatGeobuf is written in an order of its own
    assert found.ids[order].tolist() == ["x", "y", "z"]
    assert [json.loads(found.properties[row]) for row in order] == [
        {"id": name, "floors": number} for name, number in zip("xyz", (1, 2, 3), strict=True)
    ]
    assert shapely.equals(found.geometries[order], SQUARES).all()
    assert found.faults.tolist() == [""] * 3 == found.notes.tolist()
    assert found.of(AREA).all()
    assert found.on(AREA).all()


def test_geometries_in_degrees_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    _frame().to_parquet(path)
    found = read_footprints(path)
    assert shapely.to_wkb(found.geometries).tolist() == shapely.to_wkb(SQUARES).tolist()
    assert found.ids.tolist() == ["1", "2", "3"]


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3857", "EPSG:25832"])
def test_other_crs_come_to_the_same_place(tmp_path: Path, crs: str) -> None:
    path = tmp_path / "a.gpkg"
    _frame().to_crs(crs).to_file(path)
    found = read_footprints(path, area=AREA)
    assert np.allclose(found.centroids, shapely.get_coordinates(shapely.centroid(SQUARES)), atol=1e-8)


def test_nothing_is_left_out(tmp_path: Path) -> None:
    bow = shapely.Polygon([(8.02, 50.02), (8.021, 50.021), (8.021, 50.02), (8.02, 50.021)])
    geometries = [
        SQUARES[0],
        None,
        shapely.Polygon(),
        bow,
        shapely.LineString([(8, 50), (8.1, 50.1)]),
        shapely.box(8, 95, 8.1, 96),
        SQUARES[0].reverse(),
        shapely.Point(8.05, 50.05),
        shapely.Polygon([(8, 50), (8, 50), (8, 50), (8, 50)]),
    ]
    path = tmp_path / "a.parquet"
    _frame(geometries, id=["a", "b", "c", "d", "e", "f", "g", "a", None]).to_parquet(path)
    found = read_footprints(path, area=AREA)
    assert found.faults.tolist() == ["", NO_GEOMETRY, NO_GEOMETRY, "", NO_AREA, NO_PLACE, "", "", NO_AREA]
    assert found.notes[3] == "the outline crosses itself"
    assert found.shapes[3].is_valid
    assert found.geometries[3].equals_exact(bow)
    assert found.notes[6] == "the outline is that of a too"
    assert found.notes[7] == "an earlier footprint has the same id"
    assert found.ids[8] == "9"
    assert len(found) == len(geometries) == len(found.properties)
    assert found.of(AREA).tolist() == [fault == "" for fault in found.faults]


def test_the_antimeridian(tmp_path: Path) -> None:
    jumping = shapely.Polygon([(179.999, 10), (-179.9995, 10), (-179.9995, 10.001), (179.999, 10.001)])
    turned = shapely.box(190.0, 10.0, 190.001, 10.001)
    path = tmp_path / "a.parquet"
    _frame([jumping, turned, shapely.Point(-181.0, 5.0)]).to_parquet(path)
    found = read_footprints(path, area=AreaOfInterest.from_bbox(179.0, 9.0, -169.0, 11.0))
    assert found.geometries[0].equals_exact(jumping)
    assert shapely.area(found.shapes[0]) == pytest.approx(0.0015 * 0.001)
    assert 179.999 < found.centroids[0, 0] < 180.0
    assert found.centroids[1] == pytest.approx([-169.9995, 10.0005])
    assert found.centroids[2] == pytest.approx([179.0, 5.0])


def test_whole_numbers_stay_whole_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    _frame(ID=[7.0, float("nan"), 9.0]).to_parquet(path)
    assert read_footprints(path).ids.tolist() == ["7", "2", "9"]


def test_properties_hold_any_text(tmp_path: Path) -> None:
    texts = ['a "b"', "line\u2028\x85end", None]
    path = tmp_path / "a.parquet"
    _frame(name=texts, code=[b"\xff", b"\x00", None]).to_parquet(path)
    found = [json.loads(text) for text in read_footprints(path).properties]
    assert [row["name"] for row in found] == texts
    assert found[0]["code"] == "ff"


def _wrong_files(folder: Path) -> dict[str, Path]:
    paths = {
        name: folder / name for name in ("empty.geojson", "text.geojson", "cut.geojson", "cut.gpkg", "none.parquet")
    }
    paths["empty.geojson"].write_text('{"type":"FeatureCollection","features":[]}')
    paths["text.geojson"].write_text("buildings")
    paths["cut.geojson"].write_text('{"type":"FeatureCollection","features":[{"type":')
    paths["cut.gpkg"].write_bytes(b"SQLite format 3\0" + bytes(90))
    paths["none.parquet"].write_bytes(b"PAR1" + bytes(20))
    paths["metres.parquet"] = folder / "metres.parquet"
    _frame(crs="EPSG:32632", geometries=[shapely.box(4e5, 5e6, 4.1e5, 5.1e6)]).set_crs(
        None, allow_override=True
    ).to_parquet(paths["metres.parquet"])
    paths["elsewhere.parquet"] = folder / "elsewhere.parquet"
    _frame([shapely.box(0, 0, 1, 1)]).to_parquet(paths["elsewhere.parquet"])
    paths["two.gpkg"] = folder / "two.gpkg"
    for layer in ("one", "other"):
        _frame().to_file(paths["two.gpkg"], layer=layer)
    paths["folder"] = folder
    paths["missing"] = folder / "missing.gpkg"
    return paths


def test_what_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for name, path in _wrong_files(tmp_path).items():
        with pytest.raises(BadRequestError) as caught:
            read_footprints(path, area=AREA)
        assert "footprints" in str(caught.value), name
        assert "\n" not in str(caught.value), name


def test_none_on_the_area_says_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    _frame([shapely.box(0, 0, 1, 1)]).to_parquet(path)
    with pytest.raises(JobError, match=r"none of the 1 footprints .* between 0\.5000,0\.5000"):
        read_footprints(path, area=AREA)


def test_the_content_is_in_the_key_of_the_job(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.geojson", tmp_path / "b.geojson"
    _frame().to_file(path)
    copy.write_bytes(path.read_bytes())

    def key(footprints: str) -> str:
        values = {"area": "8,50,8.1,50.1", "catalog": "c.json", "queries": "Where is water?", "out": "o"}
        return parse_job({**values, "footprints": footprints, "predictor": "spectral"}, base=tmp_path).content_key()

    first = key("a.geojson")
    assert first == key(str(copy))
    _frame(SQUARES[:2]).to_file(path)
    assert key("a.geojson") != first
    with pytest.raises(JobError, match="no footprints file"):
        key("c.geojson")


def test_the_job_of_a_run_whose_footprints_are_gone_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    _frame().to_file(path)
    values = {"area": "8,50,8.1,50.1", "catalog": "c.json", "queries": "Where is water?", "out": "o"}
    job = parse_job({**values, "footprints": str(path), "predictor": "spectral"})
    path.unlink()
    assert parse_job(job.to_dict()).content_key() == job.content_key()


def test_a_shapefile_is_all_of_its_files(tmp_path: Path) -> None:
    path = tmp_path / "a.shp"
    _frame(id=[1, 2, 3]).to_file(path)
    before = footprints_key(path)
    _frame(id=[1, 2, 4]).to_file(path)
    assert footprints_key(path) != before


@pytest.mark.slow
def test_a_million_rows(tmp_path: Path) -> None:
    side = np.arange(1000) * 5e-5
    x, y = (axis.ravel() for axis in np.meshgrid(8.0 + side, 50.0 + side))
    path = tmp_path / "a.parquet"
    _frame(list(shapely.box(x, y, x + 2e-5, y + 2e-5)), id=np.arange(1_000_000), kind="house").to_parquet(path)
    started = time.monotonic()
    found = read_footprints(path, area=AREA)
    assert len(found) == 1_000_000
    assert found.of(AREA).all()
    assert time.monotonic() - started < 60
