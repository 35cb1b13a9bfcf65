"""What is handed to people who label: readable everywhere, and silent about the map."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image

from earthmap.outputs.chips import CAPTION_PX, GAP_PX, PANEL_PX, ChipPanel, cut_around, render_chip
from earthmap.outputs.labelling import LabelRow, labelling_guide, write_label_sheet
from earthmap.sensors.views import NODATA_GREY


def _rows() -> list[LabelRow]:
    return [
        LabelRow(
            id=f"k-{number}", date="2024-05-01", lon=3.0 + number, lat=45.0, chip=f"chips/k-{number}.png",
            stratum="boundary", mapped="water <deep> & \"blue\"", area_m2=100.0, inclusion=0.25,
            ground=shapely.box(3.0 + number, 44.9, 3.1 + number, 45.0),
        )
        for number in (2, 1, 3)
    ]  # fmt: skip


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "sample.gpkg"
    write_label_sheet(path, _rows(), choices=('water <deep> & "blue"', "none", "cannot tell"))
    return path


def test_the_layer_to_label_says_nothing_of_the_map(sheet: Path) -> None:
    layer = geopandas.read_file(sheet, layer="sample")
    assert list(layer.columns) == ["id", "label", "date", "note", "lon", "lat", "chip", "geometry"]
    assert layer["label"].isna().all()
    assert layer.crs == "EPSG:4326"
    assert layer.geometry.is_valid.all()
    assert list(layer["id"]) == ["k-2", "k-1", "k-3"]


def test_the_design_stands_beside_it(sheet: Path) -> None:
    design = geopandas.read_file(sheet, layer="design")
    assert list(design["id"]) == ["k-1", "k-2", "k-3"]
    assert set(design["inclusion_probability"]) == {0.25}
    assert set(design["stratum"]) == {"boundary"}


def test_qgis_offers_the_labels(sheet: Path) -> None:
    import xml.etree.ElementTree as ElementTree

    with closing(sqlite3.connect(sheet)) as base:
        name, style, default = base.execute("SELECT f_table_name, styleQML, useAsDefault FROM layer_styles").fetchone()
    assert (name, default) == ("sample", 1)
    tree = ElementTree.fromstring(style.partition(">")[2])
    options = tree.findall(".//field[@name='label']//Option[@name='map']/Option/Option")
    assert [one.get("value") for one in options] == ['water <deep> & "blue"', "none", "cannot tell"]


def test_equal_samples_are_equal_files_and_the_style_is_no_layer_of_squares(sheet: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.gpkg"
    write_label_sheet(again, _rows(), choices=('water <deep> & "blue"', "none", "cannot tell"))
    assert again.read_bytes() == sheet.read_bytes()
    kinds = geopandas.list_layers(sheet).set_index("name")["geometry_type"]
    assert kinds.notna().to_dict() == {"sample": True, "design": False, "layer_styles": False}


def test_the_guide_names_labels_dates_and_the_next_command() -> None:
    text = labelling_guide(
        text="Where is water?", dates=("2024-05-01",), choices={"water": "it is", "cannot tell": "who knows"},
        command="earthmap estimate run sample.gpkg", count=300,
    )  # fmt: skip
    for part in ("Where is water?", "2024-05-01", "cannot tell", "earthmap estimate run sample.gpkg", "300"):
        assert part in text


def test_counts_have_no_list_to_choose_from(tmp_path: Path) -> None:
    write_label_sheet(tmp_path / "counts.gpkg", _rows(), choices=())
    with closing(sqlite3.connect(tmp_path / "counts.gpkg")) as base:
        (style,) = base.execute("SELECT styleQML FROM layer_styles").fetchone()
    assert "ValueMap" not in style
    text = labelling_guide(text="How many?", dates=("2024",), choices={"0": "none"}, command="c", count=3, tiles=True)
    assert "each one tile of the map" in text


# ── chips ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cut_has_its_pixel_in_the_middle_and_grey_beyond_the_edge() -> None:
    rgb = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3)
    for row, column in ((0, 0), (5, 6), (9, 11), (0, 11)):
        cut = cut_around(rgb, row, column, 3)
        assert cut.shape == (7, 7, 3)
        np.testing.assert_array_equal(cut[3, 3], rgb[row, column])
        for down, right in np.ndindex(7, 7):
            there = (row + down - 3, column + right - 3)
            inside = 0 <= there[0] < 10 and 0 <= there[1] < 12
            np.testing.assert_array_equal(cut[down, right], rgb[there] if inside else NODATA_GREY)


def test_a_chip_shows_the_pixel_unhidden_in_a_frame() -> None:
    rgb = np.full((25, 25, 3), 90, np.uint8)
    rgb[12, 12] = (10, 200, 30)
    png = render_chip([[ChipPanel(rgb=rgb, caption="near")]], title="k-1")
    assert png == render_chip([[ChipPanel(rgb=rgb, caption="near")]], title="k-1")
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    middle = (CAPTION_PX + GAP_PX + PANEL_PX // 2, GAP_PX + PANEL_PX // 2)
    np.testing.assert_array_equal(sheet[middle], (10, 200, 30))
    framed = (sheet == (255, 255, 0)).all(axis=-1)
    rows, columns = np.nonzero(framed)
    assert np.ptp(rows) == pytest.approx(PANEL_PX / 25, abs=2)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(middle[0], abs=2)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(middle[1], abs=2)


def test_a_frame_may_be_any_ground_and_a_panel_any_size() -> None:
    png = render_chip(
        [[ChipPanel(rgb=np.zeros((30, 30, 3), np.uint8), caption="c", frame=(5, 25), side_px=600)]], title="t"
    )
    rows, columns = np.nonzero((np.asarray(Image.open(io.BytesIO(png))) == (255, 255, 0)).all(axis=-1))
    assert (np.ptp(rows), np.ptp(columns)) == pytest.approx((400, 400), abs=3)
