from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas
import numpy as np
import pandas
import pyogrio  # type: ignore[import-untyped]
import pytest
import shapely

from earthmap.cli import main
from earthmap.errors import JobError, RunFolderError, StorageError
from earthmap.outputs.exchange import PLACE
from earthmap.outputs.qgis import MAX_RULES
from earthmap.pipeline import export_run
from earthmap.pipeline.export import FORMATS
from tests.outputs import drawn_results as drawn
from tests.pipeline.finished import finished_run

HOSTILE = [
    "a \"quoted\" 'single' & <b>bold</b>",
    '=HYPERLINK("http://example.org","x")',
    '["looks", "like JSON"]',
    '{"a": 1}',
    "2024-05-04",
    "[% env('HOME') %] $[name]",
    "水 🌊 ÅÄÖ \u202egnp.exe",
    "<script>window.owned = 1</script>]]>",
    "back\\slash and\nline",
    " outer spaces ",
]
METRE = 1 / 111_320


def hostile_results() -> tuple[geopandas.GeoDataFrame, geopandas.GeoDataFrame, dict[str, Any]]:
    """Tile squares whose answers and notes are HOSTILE, of a question that is hostile too."""
    features, coverage, summary, _ = drawn.water_results(1, text=HOSTILE[0])
    features = features.iloc[np.arange(40) % len(features)].reset_index(drop=True)
    features["answer"] = [HOSTILE[row % len(HOSTILE)] for row in range(len(features))]
    features["notes"] = [[HOSTILE[row % len(HOSTILE)], "second"] for row in range(len(features))]
    features["probability"] = np.linspace(0.1, 0.9, len(features))
    features.loc[::7, "probability"] = np.nan
    features["tile_ids"] = [[f"row-{row}"] for row in range(len(features))]
    coverage["message"] = [HOSTILE[row % len(HOSTILE)] for row in range(len(coverage))]
    return features, coverage, summary


def read_features(path: Path) -> geopandas.GeoDataFrame:
    """All features of an exported file, in the order of `tile_ids`."""
    if path.suffix == ".kml":
        names = [name for name, _ in pyogrio.list_layers(path)]
        layers = [pyogrio.read_dataframe(path, layer=name) for name in names]
        frame = pandas.concat([layer for layer in layers if "tile_ids" in layer and len(layer)], ignore_index=True)
        frame = frame[frame["tile_ids"].notna()]
    elif path.suffix == ".geojson":
        frame = geopandas.GeoDataFrame.from_features(json.loads(path.read_text())["features"], crs="EPSG:4326")
        frame["tile_ids"] = [json.dumps(own) for own in frame["tile_ids"]]
        frame["notes"] = [json.dumps(own, ensure_ascii=False) for own in frame["notes"]]
    else:
        frame = pyogrio.read_dataframe(path, layer="features" if path.suffix == ".gpkg" else None)
    place = [int(json.loads(ids)[0].removeprefix("row-")) for ids in frame["tile_ids"]]
    return geopandas.GeoDataFrame(frame).iloc[np.argsort(place)].reset_index(drop=True)


def furthest_m(found: Any, expected: Any) -> float:
    """Largest distance of a vertex from the same vertex, in metres of latitude; the same parts are expected."""
    ours, theirs = (shapely.normalize(shapely.multipolygons(shapely.get_parts(one))) for one in (found, expected))
    a, b = shapely.get_coordinates(ours), shapely.get_coordinates(theirs)
    if a.shape != b.shape:  # the first vertex of a ring may differ by rounding
        return float(shapely.hausdorff_distance(ours, theirs)) / METRE
    return min(float(np.abs(a - b).max()), float(shapely.hausdorff_distance(ours, theirs))) / METRE


@pytest.mark.parametrize("to", list(FORMATS))
def test_a_round_trip_keeps_number_geometry_and_attributes(tmp_path: Path, to: str) -> None:
    features, coverage, summary = hostile_results()
    run = finished_run(tmp_path / "run", features, coverage, summary)
    done = export_run(run, to=to, out=str(tmp_path / f"out.{to}"))
    assert done.features == len(features)
    found = read_features(tmp_path / f"out.{to}")
    assert len(found) == len(features)
    exact = to in ("gpkg", "fgb")
    for own, expected in zip(found.geometry, features.geometry, strict=True):
        assert furthest_m(own, expected) < (1e-6 if exact else 0.012)
        assert shapely.area(own) == pytest.approx(shapely.area(expected), rel=1e-9 if exact else 1e-3)
    answers = features["answer"].tolist()
    if to == "kml":  # libkml takes outer spaces away as it reads; they are in the file
        tree = ElementTree.parse(tmp_path / "out.kml")
        written = [node.text for node in tree.iterfind(".//{*}SimpleData[@name='answer']")]
        assert sorted(text or "" for text in written) == sorted(answers)
        answers = [answer.strip() for answer in answers]
    assert found["answer"].tolist() == answers
    assert found["query"].tolist() == [HOSTILE[0]] * len(features)
    assert [json.loads(notes) for notes in found["notes"]] == features["notes"].tolist()
    assert found["probability"].to_numpy(float) == pytest.approx(features["probability"].to_numpy(), nan_ok=True)
    assert found["area_m2"].to_numpy(float) == pytest.approx(features["area_m2"].to_numpy())
    assert set(found[PLACE]) == {"2024-05-04, sentinel-2-l2a"}
    times = pandas.to_datetime(found["datetime_min"], utc=True)
    assert (times == features["datetime_min"]).all()


@pytest.mark.parametrize("to", ["geojson", "fgb", "gpkg"])
def test_the_coverage_goes_with_the_features(tmp_path: Path, to: str) -> None:
    run = finished_run(tmp_path / "run", *hostile_results())
    done = export_run(run, to=to, out=str(tmp_path / f"out.{to}"))
    path, layer = (tmp_path / "out.gpkg", "coverage") if to == "gpkg" else (tmp_path / f"out_coverage.{to}", None)
    found = pyogrio.read_dataframe(path, layer=layer)
    assert found["status"].value_counts().to_dict() == {"answered": 97, "skipped": 2, "failed": 1}
    assert set(found["message"]) == set(HOSTILE)
    assert set(found["query"]) == {HOSTILE[0]}
    names = {Path(name).name for name in done.files}
    assert names == (
        {"out.gpkg"} if to == "gpkg" else {f"out.{to}", "out.qml", f"out_coverage.{to}", "out_coverage.qml"}
    )


def test_kml_shows_what_was_not_seen(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", *hostile_results())
    export_run(run, to="kml", out=str(tmp_path / "out.kml"))
    tree = ElementTree.parse(tmp_path / "out.kml")
    names = [node.text for node in tree.iterfind(".//{*}Folder/{*}name")]
    assert names[:2] == [HOSTILE[0], "2024-05-04, sentinel-2-l2a"]
    assert names[-2:] == ["failed", "not seen"]
    unseen = [mark for mark in tree.iterfind(".//{*}Placemark") if mark.findtext("{*}styleUrl") == "#skipped"]
    assert len(unseen) == 2


# ── GeoJSON ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_geojson_is_as_the_standard_says(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", *hostile_results())
    export_run(run, to="geojson", out=str(tmp_path / "out.geojson"))
    text = (tmp_path / "out.geojson").read_text(encoding="utf-8")
    content = json.loads(text)
    assert content["type"] == "FeatureCollection"
    assert "crs" not in content  # RFC 7946, section 4
    for one in content["features"]:
        for part in shapely.get_parts(shapely.geometry.shape(one["geometry"])):
            assert part.exterior.is_ccw  # section 3.1.6
            assert not any(ring.is_ccw for ring in part.interiors)
        numbers = shapely.get_coordinates(shapely.geometry.shape(one["geometry"]))
        assert np.array_equal(np.round(numbers, 7), numbers)
    assert all(isinstance(one["properties"]["answer"], str) for one in content["features"])
    assert isinstance(content["features"][0]["properties"]["scenes"], list)


def test_ground_on_both_sides_of_the_antimeridian_stays_split(tmp_path: Path) -> None:
    features, coverage, summary = hostile_results()
    west, east = shapely.box(-180.0, 10.0, -179.9, 10.1), shapely.box(179.9, 10.0, 180.0, 10.1)
    features.loc[0, "geometry"] = shapely.MultiPolygon([west, east])
    run = finished_run(tmp_path / "run", features, coverage, summary)
    for to in FORMATS:
        export_run(run, to=to, out=str(tmp_path / f"out.{to}"))
        found = read_features(tmp_path / f"out.{to}").geometry.iloc[0]
        assert sorted(part.bounds for part in shapely.get_parts(found)) == [west.bounds, east.bounds]


# ── styles ───────────────────────────────────────────────────────────────────────────────────────────────────


def leaves(root: ElementTree.Element) -> list[list[str]]:
    """The filters on the way to each rule with a symbol."""

    def below(node: ElementTree.Element, above: list[str]) -> list[list[str]]:
        own = above + ([node.get("filter", "")] if node.get("filter") else [])
        inner = [leaf for child in node.findall("rule") for leaf in below(child, own)]
        return inner + ([own] if node.get("symbol") is not None else [])

    rules = root.find(".//rules")
    assert rules is not None
    return below(rules, [])


def test_the_table_of_styles_is_where_qgis_looks(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", *hostile_results())
    export_run(run, to="gpkg", out=str(tmp_path / "out.gpkg"))
    with sqlite3.connect(tmp_path / "out.gpkg") as file:
        kinds = dict(file.execute("SELECT table_name, data_type FROM gpkg_contents"))
        assert kinds == {"features": "features", "coverage": "features", "layer_styles": "attributes"}
        columns = [row[1] for row in file.execute("PRAGMA table_info(layer_styles)")]
        assert columns == [
            "id", "f_table_catalog", "f_table_schema", "f_table_name", "f_geometry_column", "styleName", "styleQML",
            "styleSLD", "useAsDefault", "description", "owner", "ui", "update_time",
        ]  # fmt: skip
        # QgsOgrUtils::loadStoredStyle asks just this.
        asked = "SELECT styleQML FROM layer_styles WHERE f_table_schema='' AND f_table_name=? AND f_geometry_column=?"
        for layer in ("features", "coverage"):
            column = file.execute(
                "SELECT column_name FROM gpkg_geometry_columns WHERE table_name=?", (layer,)
            ).fetchone()
            found = file.execute(f"{asked} AND useAsDefault", (layer, *column)).fetchall()
            assert len(found) == 1
            assert ElementTree.fromstring(found[0][0]).tag == "qgis"
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("layer", ["features", "coverage"])
@pytest.mark.parametrize("results", [drawn.presence_results, drawn.change_results, lambda: drawn.water_results(5)])
def test_each_row_is_drawn_by_one_rule(tmp_path: Path, layer: str, results: Any) -> None:
    features, coverage, summary, _ = results()
    run = finished_run(tmp_path / "run", features, coverage, summary)
    export_run(run, to="gpkg", out=str(tmp_path / "out.gpkg"))
    with sqlite3.connect(tmp_path / "out.gpkg") as file:
        style = file.execute("SELECT styleQML FROM layer_styles WHERE f_table_name=?", (layer,)).fetchone()[0]
        chosen = leaves(ElementTree.fromstring(style))
        counts = [
            file.execute(f"SELECT count(*) FROM {layer} WHERE {' AND '.join(filters)}").fetchone()[0]
            for filters in chosen
        ]
        rows = file.execute(f"SELECT count(*) FROM {layer}").fetchone()[0]
    assert sum(counts) == rows > 0


def test_of_very_many_answers_there_are_only_so_many_rules(tmp_path: Path) -> None:
    features, coverage, summary = hostile_results()
    features = features.iloc[np.arange(2000) % len(features)].reset_index(drop=True)
    features["task"], features["answer"] = "choose", [f"answer {row}" for row in range(len(features))]
    summary["queries"][0]["task"] = "choose"
    run = finished_run(tmp_path / "run", features, coverage, summary)
    export_run(run, to="fgb", out=str(tmp_path / "out.fgb"))
    style = ElementTree.parse(tmp_path / "out.qml").getroot()
    assert 1 < len(leaves(style)) <= MAX_RULES
    assert [rule.get("filter") for rule in style.iterfind(".//rule[@symbol]")][-1] == "ELSE"


QGIS = """
import sys
from qgis.core import QgsApplication, QgsVectorLayer
app = QgsApplication([], False)
app.initQgis()
for uri in sys.argv[1:]:
    layer = QgsVectorLayer(uri, "x", "ogr")
    rules = layer.renderer().rootRule().descendants()
    faults = [rule.filter().parserErrorString() for rule in rules if rule.filter() and rule.filter().hasParserError()]
    texts = [rule.filterExpression() for rule in rules if rule.symbol() is not None]
    print(layer.featureCount(), len(texts), faults)
app.exitQgis()
"""


@pytest.mark.slow
def test_qgis_itself_applies_the_styles(tmp_path: Path) -> None:
    python, surroundings = "/usr/bin/python3", {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    there = subprocess.run([python, "-c", "import qgis.core"], capture_output=True, env=surroundings, check=False)
    if there.returncode:
        pytest.skip("no QGIS; apt-get install python3-qgis (1 GB)")
    run = finished_run(tmp_path / "run", *hostile_results())
    for to in ("gpkg", "geojson", "fgb"):
        export_run(run, to=to, out=str(tmp_path / f"out.{to}"))
    uris = [f"{tmp_path}/out.gpkg|layername=features", f"{tmp_path}/out.geojson", f"{tmp_path}/out.fgb"]
    done = subprocess.run(
        [python, "-c", QGIS, *uris], capture_output=True, text=True, env=surroundings, check=False, timeout=120
    )
    assert done.stdout.splitlines() == [f"40 {len(HOSTILE)} []"] * 3, done.stderr


def test_a_rule_of_every_kind_of_geometry(tmp_path: Path) -> None:
    features, coverage, summary = hostile_results()
    features.loc[0, "geometry"] = shapely.Point(3.5, 45.7)
    features.loc[1, "geometry"] = shapely.LineString([(3.5, 45.7), (3.6, 45.71)])
    run = finished_run(tmp_path / "run", features, coverage, summary)
    done = export_run(run, to="gpkg", out=str(tmp_path / "out.gpkg"))
    assert done.features == len(features)
    layers = dict(pyogrio.list_layers(tmp_path / "out.gpkg"))
    assert layers == {
        "features": "MultiPolygon", "features_lines": "MultiLineString", "features_points": "MultiPoint",
        "coverage": "MultiPolygon", "layer_styles": None,
    }  # fmt: skip
    with sqlite3.connect(tmp_path / "out.gpkg") as file:
        styles = dict(file.execute("SELECT f_table_name, styleQML FROM layer_styles"))
    for layer, kind in (("features", "fill"), ("features_lines", "line"), ("features_points", "marker")):
        assert {node.get("type") for node in ElementTree.fromstring(styles[layer]).iterfind(".//symbol")} == {kind}
    for to in ("geojson", "fgb", "kml"):
        export_run(run, to=to, out=str(tmp_path / f"out.{to}"))
        assert read_features(tmp_path / f"out.{to}").geometry.iloc[:2].geom_type.tolist() == ["Point", "LineString"]


# ── KML ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_kml_has_no_heights_and_its_colours_are_turned(tmp_path: Path) -> None:
    features, coverage, summary, _ = drawn.water_results(1)
    run = finished_run(tmp_path / "run", features, coverage, summary)
    export_run(run, to="kml", out=str(tmp_path / "out.kml"))
    tree = ElementTree.parse(tmp_path / "out.kml")
    numbers = {
        len(place.split(",")) for node in tree.iterfind(".//{*}coordinates") for place in (node.text or "").split()
    }
    assert numbers == {2}
    assert not list(tree.iterfind(".//{*}altitudeMode"))
    assert tree.findtext(".//{*}Style/{*}PolyStyle/{*}color") == "8cc8781f"  # #1f78c8 at 0.55, as aabbggrr


def test_descriptions_are_html_in_which_nothing_runs(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", *hostile_results())
    export_run(run, to="kml", out=str(tmp_path / "out.kml"))
    says = [node.text or "" for node in ElementTree.parse(tmp_path / "out.kml").iterfind(".//{*}description")]
    assert any("&lt;script&gt;" in text for text in says)
    assert not any("<script" in text or "<b>" in text for text in says)


def test_what_xml_cannot_hold_is_replaced_there_and_kept_elsewhere(tmp_path: Path) -> None:
    features, coverage, summary = hostile_results()
    features.loc[0, "answer"] = "bell\x07 and \x1b[0m"
    run = finished_run(tmp_path / "run", features, coverage, summary)
    for to, expected in (("gpkg", "bell\x07 and \x1b[0m"), ("kml", "bell\ufffd and \ufffd[0m")):
        export_run(run, to=to, out=str(tmp_path / f"out.{to}"))
        assert read_features(tmp_path / f"out.{to}")["answer"].iloc[0] == expected


# ── nothing, and refusals ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("to", list(FORMATS))
def test_a_run_that_found_nothing_is_exported_too(tmp_path: Path, to: str) -> None:
    features, coverage, summary = hostile_results()
    run = finished_run(tmp_path / "run", features.iloc[:0], coverage, summary)
    done = export_run(run, to=to)
    assert done.features == 0
    assert done.files[0] == str(tmp_path / "run" / f"features.{to}")
    assert Path(done.files[0]).stat().st_size > 0


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", *hostile_results())
    (tmp_path / "out_coverage.qml").write_text("mine")
    with pytest.raises(RunFolderError, match=r"out_coverage\.qml is there already.*--overwrite"):
        export_run(run, to="geojson", out=str(tmp_path / "out.geojson"))
    assert not (tmp_path / "out.geojson").exists()
    assert (tmp_path / "out_coverage.qml").read_text() == "mine"
    export_run(run, to="geojson", out=str(tmp_path / "out.geojson"), overwrite=True)
    assert (tmp_path / "out_coverage.qml").read_text() != "mine"


def test_exporting_twice_over_gives_one_copy(tmp_path: Path) -> None:
    features, coverage, summary = hostile_results()
    run = finished_run(tmp_path / "run", features, coverage, summary)
    for _ in range(2):
        export_run(run, to="gpkg", out=str(tmp_path / "out.gpkg"), overwrite=True)
    assert len(pyogrio.read_dataframe(tmp_path / "out.gpkg", layer="features")) == len(features)


@pytest.mark.parametrize(
    ("to", "out"), [("shp", None), ("gpkg", "x.kml"), ("kml", ".kml"), ("fgb", "there.fgb"), ("GPKG", None)]
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, to: str, out: str | None) -> None:
    run = finished_run(tmp_path / "run", *hostile_results())
    (tmp_path / "there.fgb").mkdir()
    with pytest.raises(JobError, match=f"--to '{to}'" if out is None else "--out"):
        export_run(run, to=to, out=None if out is None else str(tmp_path / out))


def test_a_place_that_cannot_be_written_to_ends_in_one_line(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", *hostile_results())
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError):
        export_run(run, to="kml", out=str(tmp_path / "file" / "out.kml"))


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_run(tmp_path / "run", *hostile_results())
    folder, out = str(tmp_path / "run"), str(tmp_path / "out.gpkg")
    assert main(["export", folder, "--to", "gpkg", "--out", out, "--json"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == out
    assert json.loads(said[-1]) == {"features": 40, "files": [out]}
    assert main(["export", folder, "--to", "gpkg", "--out", out]) == 2
    assert main(["export", folder, "--to", "shp"]) == 2
    assert main(["export", str(tmp_path), "--to", "gpkg"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert ["--overwrite" in said[0], "gpkg, geojson, kml, fgb" in said[1], "no finished run" in said[2]] == [True] * 3
