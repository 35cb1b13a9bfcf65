"""Labels of any format and CRS, broken rings and all, become true questions about the tiles of a cube."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from earthmap.cube import CellPixels, CellRead, stored_groups, write_cell
from earthmap.errors import TrainingError
from earthmap.grid.tiling import Cell, Grid, Zone
from earthmap.sensors.masks import Reason
from earthmap.sensors.views import NODATA_GREY, make_view
from earthmap.storage import Storage
from earthmap.tasks.serialization import parse
from earthmap.training import Row, parse_table
from earthmap.training.data import DataSpec
from earthmap.training.data_rows import DataRows
from earthmap.training.labelled_tiles import CellUnit, cell_units
from earthmap.training.labels import Labels, read_labels
from earthmap.training.row_files import Prepared
from tests.cube.conftest import observation, scene, source
from tests.training.data_sets import prepared

CELL = Cell(Grid(resolution_m=10.0, picture_px=128), Zone(31, True), 1103, 99)
LEFT, BOTTOM, RIGHT, TOP = CELL.geobox.extent.boundingbox.bbox
MIDDLE = LEFT + 0.4 * (RIGHT - LEFT)
"""Lake to the west of it, field to the east."""

LAKE = shapely.box(LEFT - 500, BOTTOM - 500, MIDDLE, TOP + 500)
FIELD = shapely.box(MIDDLE, BOTTOM - 500, RIGHT + 500, TOP + 500)


def _barns() -> list[Any]:
    """Barns of 80 by 60 metres on the field, turned, at places that differ."""
    rng = np.random.default_rng(1)
    found = []
    for x in np.linspace(MIDDLE + 150, RIGHT - 150, 7):
        for y in np.linspace(BOTTOM + 150, TOP - 150, 9):
            if rng.random() < 0.6:
                barn = shapely.box(x - 40, y - 30, x + 40, y + 30)
                found.append(shapely.affinity.rotate(barn, float(rng.uniform(0, 90))))
    return found


BARNS = _barns()


def parcels(**more: Any) -> geopandas.GeoDataFrame:
    """Lake, field and barns as a table."""
    names = ["lake", "field", *["barn"] * len(BARNS)]
    return geopandas.GeoDataFrame({"class": names, **more}, geometry=[LAKE, FIELD, *BARNS], crs=CELL.zone.epsg)


def cube(folder: Path, *, sensor: str = "sentinel-2-l2a", cloud: bool = False) -> Storage:
    """One observation of CELL; with `cloud` its northern half is hidden."""
    storage = Storage(folder)
    bands = ("vv", "vh") if sensor.startswith("sentinel-1") else ("blue", "green", "red", "nir")
    one = scene("one", *(source("a", band) for band in bands), sensor=sensor)
    time = datetime.datetime(2024, 6, 1, 10, 30, tzinfo=datetime.UTC)
    read = CellRead.of(CELL, observation(one, name=f"{sensor}_20240601T103000_0a1b2c3d", time=time))
    side = CELL.grid.cell_px
    data = np.random.default_rng(0).uniform(0.01, 0.5, (len(bands), side, side)).astype(np.float32)
    mask = np.full((side, side), Reason.CLEAR, np.uint8)
    if cloud:
        mask[: side // 2] = Reason.CLOUD
    # Bands stand as the sensor's row orders them.
    write_cell(storage, read, CellPixels(bands=read.bands, data=data, mask=mask))
    return storage


def _units(
    labels: Labels, file: Path, store: Storage, *, things: tuple[str, ...] | None = None
) -> tuple[list[CellUnit], int]:
    """Those of a whole store."""
    return cell_units(labels, file=file, store=store, groups=list(stored_groups(store)), things=things)


def _prepared(folder: Path, frame: geopandas.GeoDataFrame, **options: Any) -> Prepared:
    cube(folder / "store", **options)
    frame.to_file(folder / "labels.gpkg")
    spec = DataSpec(path=str(folder / "store"), labels=str(folder / "labels.gpkg"), things="Barn")
    return prepared(spec, out=folder / "out")


def _rows(found: Prepared, modality: str = "optical") -> list[Row]:
    """A row of every tile, with all that is asked."""
    text = f"stages: [{{name: a, modalities: {modality}, rates: {{decoder: 0.1}}, steps: 1, tokens: 200000}}]"
    source = DataRows(folder=found.folder, seed=1, questions=64, held_out_share=0.0)
    rows = {row.id.split("/")[0]: row for row in source.rows(parse_table(text, source="t"), 0)}
    return list(rows.values())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Labels in the CRS of the cube."""
    return _prepared(tmp_path_factory.mktemp("labels"), parcels())


def _tile_of(row: Row, folder: Path) -> Any:
    """The tile that a row shows, found by those of its pixels that show something."""
    group = next(_groups(folder))
    for tile in CELL.tiles():
        picture = group.picture(tile)
        shown = np.moveaxis(make_view("rgb", picture.bands, picture.data, picture.mask), -1, 0)
        if ((shown == row.pictures[0]) | (row.pictures[0] == NODATA_GREY)).all():
            return tile
    raise AssertionError("no tile looks like that")


def _groups(folder: Path) -> Any:
    from earthmap.cube import open_cell, stored_groups

    storage = Storage(folder / "store")
    return (open_cell(storage, path) for _, path in stored_groups(storage))


def test_tiles_show_what_a_user_sees_and_know_their_blocks(found: Prepared) -> None:
    rows = _rows(found)
    assert len(rows) == 16
    for row in rows:
        assert row.names == ("rgb, 2024-06-01: ", "nir-red-green, 2024-06-01: ")
        assert row.classes == ("barn", "field", "lake")
        assert row.shares is not None
        assert row.shares.shape == (2, 16, 3)
        assert (row.shares[0] == row.shares[1]).all()
        west, _, east, _ = _tile_of(row, found.folder.parent).geobox.extent.boundingbox.bbox
        share = np.clip((MIDDLE - west) / (east - west), 0, 1)
        assert row.shares[0, :, 2].mean() == pytest.approx(share, abs=0.006)
        blocks = row.shares[0, :, 2].reshape(4, 4)
        assert (np.diff(blocks, axis=1) <= 0).all()  # water in the west, row by row
        assert (np.diff(blocks, axis=0) == 0).all()


def _shapes(row: Row, task: str) -> dict[str, list[Any]]:
    return {one.question: list(parse(one.answer).instances) for one in row.asked if one.task == task}


def test_every_answer_is_true(found: Prepared) -> None:
    tasks: Counter[str] = Counter()
    for row in _rows(found):
        tile = _tile_of(row, found.folder.parent)
        west, south, east, north = tile.geobox.extent.boundingbox.bbox
        frame = shapely.box(west, south, east, north)
        barns = [barn.intersection(frame) for barn in BARNS if barn.intersection(frame).area > 0]
        there = {"lake": LAKE.intersects(frame), "field": FIELD.intersects(frame), "barn": bool(barns)}
        for one in row.asked:
            tasks[one.task] += 1
            name = next((name for name in there if name in one.question), "")
            read = parse(one.answer)
            assert not read.rejected
            assert read.repaired == 0
            if one.task == "presence" or one.task == "label":
                assert one.answer == ("yes" if there[name] else "no")
                assert set(one.choices) == {"yes", "no"}
            elif one.task in ("detect", "count"):
                assert len(read.instances) == len(barns)
                for instance in read.instances:
                    assert instance.geometry is not None
                    centre = instance.geometry.centroid
                    x, y = west + centre.x * (east - west), north - centre.y * (north - south)
                    assert min(barn.centroid.distance(shapely.Point(x, y)) for barn in barns) < 12.0
            elif one.task == "segment" and there[name]:
                instance = read.instances[0]
                share = shapely.area(instance.geometry) if instance.mask is None else instance.mask.mean()
                truth = {"lake": LAKE, "field": FIELD, "barn": shapely.union_all(BARNS)}[name].intersection(frame)
                assert share == pytest.approx(truth.area / frame.area, abs=0.04)
            elif one.task in ("classify", "choose"):
                lake = LAKE.intersection(frame).area / frame.area
                assert one.answer == ("lake" if lake > 0.5 else "field")
                assert one.answer in one.choices
    assert {"presence", "label", "detect", "count", "segment"} <= set(tasks)
    assert tasks["classify"] + tasks["choose"] >= 8


def test_presence_is_asked_in_equal_parts(tmp_path: Path) -> None:
    # A class that is on few tiles would else be answered by its name alone.
    frame = geopandas.GeoDataFrame(
        {"class": ["field", *["barn"] * 3]},
        geometry=[
            shapely.box(LEFT, BOTTOM, RIGHT, TOP),
            *(shapely.box(LEFT + 60 * k, TOP - 300, LEFT + 60 * k + 50, TOP - 250) for k in (1, 3, 5)),
        ],
        crs=CELL.zone.epsg,
    )
    units, _ = _units(_labels(tmp_path, frame), tmp_path, cube(tmp_path / "store"))
    assert units[0].legend.often == pytest.approx((1 / 16, 1.0))
    assert units[0].legend.things == (False, False)  # all the ground is labelled
    (tmp_path / "sparse").mkdir()
    sparse = _labels(tmp_path / "sparse", frame[frame["class"] == "barn"])
    units, _ = _units(sparse, tmp_path, Storage(tmp_path / "store"))
    assert units[0].legend.things == (True,)
    with pytest.raises(TrainingError, match="'house' is no class of"):
        _units(sparse, tmp_path, Storage(tmp_path / "store"), things=("house",))
    found = _prepared(tmp_path / "two", frame)
    told = Counter(
        one.answer
        for row in _rows(found)
        for one in row.asked
        if one.task in ("presence", "label") and "barn" in one.question
    )
    assert told["no"] <= 6  # of 2 × 15 that could be asked


def _labels(folder: Path, frame: geopandas.GeoDataFrame) -> Any:
    folder.mkdir(exist_ok=True)
    frame.to_file(folder / "labels.gpkg")
    return read_labels(folder / "labels.gpkg")


def test_labels_in_another_crs_are_reprojected(found: Prepared, tmp_path: Path) -> None:
    other = _prepared(tmp_path, parcels().to_crs(4326))
    assert other.notes == {"labels reprojected": 2 + len(BARNS)}
    assert "labels reprojected" not in found.notes
    mine = {row.pictures.tobytes(): row for row in _rows(found)}
    theirs = {row.pictures.tobytes(): row for row in _rows(other)}
    # The edge of a field bends by less than a pixel between the two.
    for key, row in mine.items():
        assert row.shares is not None
        assert theirs[key].shares == pytest.approx(row.shares, abs=0.02)


def test_broken_rings_are_mended_and_counted_and_what_is_no_label_is_named(tmp_path: Path) -> None:
    x, y = MIDDLE + 800, BOTTOM + 800
    bow = shapely.Polygon([(x, y), (x + 100, y + 100), (x + 100, y), (x, y + 100)])
    odd = [bow, shapely.Point(x, y), None, shapely.box(x, y, x + 9, y + 9), shapely.LineString([(x, y), (x + 9, y)])]
    frame = geopandas.GeoDataFrame(
        {"class": ["lake", "field", "barn", "barn", "barn", "", "barn"]},
        geometry=[LAKE, FIELD, *odd],
        crs=CELL.zone.epsg,
    )
    frame.to_parquet(tmp_path / "labels.parquet")
    labels = read_labels(tmp_path / "labels.parquet")
    assert labels.repaired == 1
    assert [labels.classes[code] for code in labels.codes] == ["lake", "field", "barn"]
    assert labels.geometries[2].is_valid
    assert labels.geometries[2].area == pytest.approx(5000)
    assert [(fault.place, fault.cause) for fault in labels.faults] == [
        ("feature 4", "geometry"),
        ("feature 5", "geometry"),
        ("feature 6", "label"),
        ("feature 7", "geometry"),
    ]
    cube(tmp_path / "store")
    spec = DataSpec.parse(f"{tmp_path / 'store'},labels={tmp_path / 'labels.parquet'}")
    found = prepared(spec, out=tmp_path / "out")
    assert found.notes == {"labels repaired": 1}
    assert found.faults == {"geometry": 3, "label": 1}
    assert pq.read_table(found.folder / "faults.parquet").num_rows == 4


def test_ground_beyond_the_labels_is_not_known(tmp_path: Path) -> None:
    # Labels on the southern half alone: nothing is said of the north, and no number of what a tile partly beyond shows.
    half = (BOTTOM + TOP) / 2
    south = shapely.box(LEFT - 500, BOTTOM - 500, RIGHT + 500, half)
    frame = parcels()
    frame.geometry = frame.geometry.intersection(south)
    found = _prepared(tmp_path, frame[~frame.geometry.is_empty])
    rows = _rows(found)
    assert 8 <= len(rows) <= 12
    for row in rows:
        assert row.shares is not None
        _, bottom, _, top = _tile_of(row, tmp_path).geobox.extent.boundingbox.bbox
        known = ~np.isnan(row.shares[0, :, 0]).reshape(4, 4)
        edges = np.linspace(top, bottom, 5)
        for number in range(4):
            wanted = (half - edges[number + 1]) / (edges[number] - edges[number + 1])
            assert (known[number] == (wanted >= 0.5)).all()
            hidden = row.pictures[0, :, 32 * number : 32 * (number + 1)] == NODATA_GREY
            assert abs(hidden.all(axis=0).mean() - (1.0 - min(max(wanted, 0.0), 1.0))) < 0.04
        if top > half:
            assert all("% seen" in name for name in row.names)  # what is not labelled is not shown
            assert not any(one.task in ("detect", "count") for one in row.asked)


def test_an_area_says_where_all_is_labelled(tmp_path: Path) -> None:
    # One barn in the south-west: its rectangle knows of one tile or a few, the area of all.
    cube(tmp_path / "run/store")
    barn = shapely.box(LEFT + 300, BOTTOM + 300, LEFT + 380, BOTTOM + 380)
    frame = geopandas.GeoDataFrame({"class": ["barn"]}, geometry=[barn], crs=CELL.zone.epsg)
    frame.to_file(tmp_path / "labels.gpkg")
    whole = geopandas.GeoSeries([shapely.box(LEFT - 900, BOTTOM - 900, RIGHT + 900, TOP + 900)], crs=CELL.zone.epsg)
    whole.to_crs(4326).to_file(tmp_path / "area.geojson")
    spec = f"{tmp_path / 'run'},labels={tmp_path / 'labels.gpkg'}"
    with pytest.raises(TrainingError, match="nothing can be learned"):  # its own rectangle is less than a tile
        prepared(DataSpec.parse(spec), out=tmp_path / "alone")
    found = prepared(DataSpec.parse(f"{spec},within={tmp_path / 'area.geojson'}"), out=tmp_path / "out")
    rows = _rows(found)
    assert 2 <= found.places < 16  # "no" is asked about as many tiles as "yes"
    assert all(row.shares is not None and not np.isnan(row.shares).any() for row in rows)
    assert {"no", "yes"} <= {one.answer for row in rows for one in row.asked}


def test_a_file_of_several_layers_is_refused(tmp_path: Path) -> None:
    parcels().to_file(tmp_path / "l.gpkg", layer="one")
    parcels().to_file(tmp_path / "l.gpkg", layer="two")
    with pytest.raises(TrainingError, match="have the layers one, two; expected one"):
        read_labels(tmp_path / "l.gpkg")


def test_clouds_hide_what_is_under_them(tmp_path: Path) -> None:
    found = _prepared(tmp_path, parcels(), cloud=True)
    rows = _rows(found)
    assert 8 <= len(rows) < 16
    for row in rows:
        assert row.shares is not None
        assert np.nansum(row.shares[0], axis=1).max() <= 1.25  # a barn stands on the field


def test_radar_is_radar(tmp_path: Path) -> None:
    found = _prepared(tmp_path, parcels(), sensor="sentinel-1-rtc")
    assert found.counts["modality"].keys() == {"sar"}
    row = _rows(found, "sar")[0]
    assert row.names == ("sar-vv-vh, 2024-06-01: ",)


def test_tiles_of_a_cell_are_held_out_together(found: Prepared) -> None:
    for share in (0.0, 0.999999):
        source = DataRows(folder=found.folder, seed=1, held_out_share=share)
        assert len(source.held_out()) == (16 if share else 0)


def _geojson(*features: Any, **more: Any) -> str:
    return json.dumps({"type": "FeatureCollection", "features": list(features), **more})


def _feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties, "geometry": geometry}


SQUARE = {"type": "Polygon", "coordinates": [[[3, 45], [3.1, 45], [3.1, 45.1], [3, 45]]]}


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", {}, "no vector data"),
        ("hello", {}, "no vector data"),
        ('{"type": "FeatureColl', {}, "cannot be read"),
        (_geojson(_feature(SQUARE, colour="red")), {}, "have no column class or label.*expected one of colour"),
        (_geojson(_feature(SQUARE, colour="red")), {"column": "kind"}, "have no column kind"),
        (_geojson(_feature(SQUARE, name=None)), {}, "have 0 classes"),
        (_geojson(*(_feature(SQUARE, name=f"c{n}") for n in range(65))), {}, "have 65 classes"),
    ],
)
def test_files_that_are_no_labels_are_refused(tmp_path: Path, text: str, options: dict[str, str], said: str) -> None:
    (tmp_path / "l.geojson").write_text(text)
    with pytest.raises(TrainingError, match=said):
        read_labels(tmp_path / "l.geojson", column=options.get("column", ""))


def test_classes_come_from_a_column_a_number_or_one_word(tmp_path: Path) -> None:
    (tmp_path / "l.geojson").write_text(_geojson(_feature(SQUARE, LABEL="Storage Tank", code=3.0)))

    def classes(column: str = "", label: str = "") -> Sequence[str]:
        return read_labels(tmp_path / "l.geojson", column=column, label=label).classes

    assert classes() == ("storage tank",)
    assert classes(column="code") == ("3",)
    assert classes(label="Ship") == ("ship",)
    with pytest.raises(TrainingError, match="cannot be read"):
        read_labels(tmp_path / "gone.geojson")


def test_labels_elsewhere_and_cells_that_cannot_be_read(tmp_path: Path) -> None:
    storage = cube(tmp_path / "store")
    frame = parcels()
    away = _labels(tmp_path / "a", frame.set_geometry(frame.translate(1e5, 0)))
    with pytest.raises(TrainingError, match=r"no cell of the cube .* lies on the ground of"):
        _units(away, tmp_path, storage)
    units, _ = _units(_labels(tmp_path / "b", frame), tmp_path, storage)
    for file in (tmp_path / "store").rglob("c/*"):
        if file.is_file():
            file.write_bytes(b"x")
    for file in (tmp_path / "store").rglob("c/0/0/0"):
        file.write_bytes(b"x")
    (table,) = units[0].tables()
    assert table["fault"].to_pylist()[0]["cause"] == "cell"
