"""Areas come out right from every form, and bad ones with one line that helps."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import geopandas
import pyproj
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st

from earthmap.errors import AreaError, EarthmapWarning
from earthmap.grid import AreaOfInterest
from earthmap.grid.lonlat import as_meant, middle_longitude

BOX = AreaOfInterest.from_bbox(5.1, 45.2, 5.4, 45.5)
FRAME = geopandas.GeoDataFrame(geometry=[shapely.box(5.1, 45.2, 5.4, 45.5)], crs="EPSG:4326")


def geod_km2(area: AreaOfInterest) -> float:
    geod = pyproj.Geod(ellps="WGS84")
    parts = shapely.get_parts(shapely.segmentize(area.geometry, 0.01))
    return sum(abs(geod.geometry_area_perimeter(part)[0]) for part in parts) / 1e6


edges = st.integers(-1_800_000_000, 1_800_000_000)


@given(edges, edges, edges, edges)
def test_round_trips(west: int, east: int, south: int, north: int) -> None:
    w, e, s, n = west / 1e7, east / 1e7, *sorted([south / 2e7, north / 2e7])
    if w == e or s == n or {w, e} == {180.0, -180.0}:
        return
    area = AreaOfInterest.from_bbox(w, s, e, n)
    # An edge of more than half a turn would be read as one over the antimeridian.
    written = shapely.segmentize(area.geometry, 120.0).wkt
    assert AreaOfInterest.from_wkt(written).content_key() == area.content_key()
    again = AreaOfInterest.from_geojson(json.dumps(area.to_geojson()))
    assert again == area
    assert again.content_key() == area.content_key()
    assert AreaOfInterest(geometry=again.geometry).geometry.wkb == area.geometry.wkb


def test_one_ground_one_key() -> None:
    forms = [
        "5.1,45.2,5.4,45.5",
        "[5.1, 45.2, 5.4, 45.5]",
        "POLYGON ((5.4 45.5, 5.1 45.5, 5.1 45.2, 5.4 45.2, 5.4 45.5))",
        "SRID=4326;POLYGON ((5.4 45.5, 5.1 45.5, 5.1 45.2, 5.25 45.2, 5.4 45.2))",
        "MULTIPOLYGON (((5.1 45.2, 5.3 45.2, 5.3 45.5, 5.1 45.5, 5.1 45.2)), ((5.2 45.2, 5.4 45.2, 5.4 45.5, 5.2 45.5, 5.2 45.2)))",  # noqa: E501
        '{"type": "Polygon", "coordinates": [[[5.1, 45.2, 7], [5.4, 45.2, 7], [5.4, 45.2, 7], [5.4, 45.5, 7], [5.1, 45.5, 7]]]}',  # noqa: E501
    ]
    for form in forms:
        assert AreaOfInterest.parse(form).content_key() == BOX.content_key(), form
    for value in (BOX, (5.1, 45.2, 5.4, 45.5), FRAME, FRAME.geometry, BOX.geometry, BOX.to_geojson()):
        assert AreaOfInterest.normalize(value) == BOX


def test_self_crossing_is_repaired_and_said() -> None:
    with pytest.warns(EarthmapWarning, match=r"crosses itself at 0\.5,0\.5"):
        area = AreaOfInterest.from_wkt("POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))")
    assert len(area.geometry.geoms) == 2
    assert area.geometry.area == pytest.approx(0.5)


@pytest.mark.parametrize(
    "area",
    [
        AreaOfInterest.from_bbox(175, 10, -175, 20),
        AreaOfInterest.from_wkt("POLYGON ((175 10, 185 10, 185 20, 175 20, 175 10))"),
        AreaOfInterest.from_wkt("POLYGON ((-185 10, -175 10, -175 20, -185 20, -185 10))"),
        AreaOfInterest.from_wkt(
            "MULTIPOLYGON (((175 10, 180 10, 180 20, 175 20, 175 10)), ((-180 10, -175 10, -175 20, -180 20, -180 10)))"
        ),
        AreaOfInterest.from_geometry(
            shapely.transform(
                shapely.box(-5, 10, 5, 20),
                pyproj.Transformer.from_crs(4326, "+proj=merc +lon_0=0", always_xy=True).transform,
                interleaved=False,
            ),
            "+proj=merc +lon_0=180",
        ),
    ],
)
def test_antimeridian(area: AreaOfInterest) -> None:
    assert area.bounds == pytest.approx((-180.0, 10.0, 180.0, 20.0), abs=1e-7)
    assert len(area.geometry.geoms) == 2
    assert area.area_km2 == pytest.approx(AreaOfInterest.from_bbox(0, 10, 10, 20).area_km2, rel=1e-9)


def test_longitudes_to_360() -> None:
    assert AreaOfInterest.from_bbox(200, -5, 210, 5) == AreaOfInterest.from_bbox(-160, -5, -150, 5)
    whole = AreaOfInterest.from_bbox(0, -90, 360, 90)
    assert whole == AreaOfInterest.from_bbox(-180, -90, 180, 90)
    assert whole.area_km2 == pytest.approx(510_065_621.724, rel=1e-9)


@pytest.mark.parametrize("bbox", [(5, 45, 6, 46), (-60, -30, 10, 20), (100, 70, 130, 89), (-1, -0.5, 1, 0.5)])
def test_area_is_geodesic(bbox: tuple[float, float, float, float]) -> None:
    area = AreaOfInterest.from_bbox(*bbox)
    assert area.area_km2 == pytest.approx(geod_km2(area), rel=1e-6)


def test_pole_as_bbox_and_in_a_polar_crs() -> None:
    cap = AreaOfInterest.from_bbox(-180, 80, 180, 90)
    ring = shapely.Point(0, 0).buffer(500_000, quad_segs=256)
    polar = AreaOfInterest.from_geometry(ring, "+proj=laea +lat_0=90 +datum=WGS84")
    assert polar.area_km2 == pytest.approx(ring.area / 1e6, rel=1e-5)
    assert cap.geometry.contains(polar.geometry)
    south = AreaOfInterest.from_geometry(ring, "+proj=laea +lat_0=-90 +datum=WGS84")
    assert south.bounds[1] == -90.0
    assert south.area_km2 == pytest.approx(polar.area_km2, rel=1e-6)


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:3857", "EPSG:4258", "EPSG:3035"])
def test_other_crs_and_back(crs: str) -> None:
    planar = FRAME.geometry.segmentize(0.001).to_crs(crs)
    area = AreaOfInterest.normalize(planar)
    assert shapely.hausdorff_distance(area.geometry, BOX.geometry) < 1e-6
    assert area.area_km2 == pytest.approx(BOX.area_km2, rel=1e-6)


def test_long_edges_are_densified() -> None:
    square = shapely.box(300_000, 5_000_000, 700_000, 5_400_000)
    area = AreaOfInterest.from_geometry(square, 32631)
    fine = AreaOfInterest.from_geometry(shapely.segmentize(square, 500), 32631)
    assert area.geometry.symmetric_difference(fine.geometry).area * 1e10 < 400_000 * 4 * 0.06


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.parquet", "a.shp", "a.zip", "a.wkt"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32631"])
def test_files(tmp_path: Path, name: str, crs: str) -> None:
    path = tmp_path / name
    frame = geopandas.GeoDataFrame(geometry=FRAME.segmentize(0.01).to_crs(crs))
    if name == "a.parquet":
        frame.to_parquet(path)
    elif name == "a.wkt":
        path.write_text(f"SRID={crs[5:]};{frame.geometry[0].wkt}")
    elif name == "a.zip":
        frame.to_file(tmp_path / "b.shp")
        with zipfile.ZipFile(path, "w") as archive:
            for part in tmp_path.glob("b.*"):
                archive.write(part, part.name)
    elif name == "a.geojson":
        document = json.loads(frame.to_json())
        document["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs[5:]}"}}
        path.write_text(json.dumps(document))
    else:
        frame.to_file(path)
    area = AreaOfInterest.parse(str(path))
    assert shapely.hausdorff_distance(area.geometry, BOX.geometry) < 1e-6


def test_every_layer_counts(tmp_path: Path) -> None:
    path = tmp_path / "two.gpkg"
    FRAME.to_file(path, layer="one")
    FRAME.translate(1, 0).to_crs("EPSG:3857").to_file(path, layer="two")
    assert len(AreaOfInterest.from_file(path).geometry.geoms) == 2


def test_shapefile_without_crs(tmp_path: Path) -> None:
    FRAME.to_file(tmp_path / "a.shp")
    (tmp_path / "a.prj").unlink()
    assert AreaOfInterest.from_file(tmp_path / "a.shp") == BOX
    FRAME.to_crs("EPSG:32631").to_file(tmp_path / "m.shp")
    (tmp_path / "m.prj").unlink()
    with pytest.raises(AreaError, match="names its CRS"):
        AreaOfInterest.from_file(tmp_path / "m.shp")


BAD_TEXTS = {
    "": "empty",
    "no/such/file.geojson": "no area file",
    "valley.gpkg": "no area file",
    "somewhere": "is not an area",
    "1,2,3": "3 numbers",
    "1,2,3,4,5": "5 numbers",
    "5,46,6,45": "above",
    "5,45,5,46": "no area",
    "5,nan,6,46": "NaN",
    "5,45,6,inf": "NaN or infinite",
    "45,100,46,101": "swapped",
    "500000,4000000,510000,4010000": "latitude",
    "400,10,410,20": "unwrapped",
    "POINT (5 45)": "buffer",
    "LINESTRING (5 45, 6 46)": "buffer",
    "POLYGON EMPTY": "empty",
    "POLYGON ((5 45, 6 45": "not WKT",
    "POLYGON ((0 0, 1 1, 2 2, 0 0))": "no area",
    "POLYGON ((nan 0, 1 1, 0 2, nan 0))": "NaN",
    "CURVEPOLYGON (CIRCULARSTRING (0 0, 1 1, 2 0, 1 -1, 0 0))": "not WKT",
    "SRID=32631;POLYGON ((5e9 0, 6e9 0, 6e9 1, 5e9 0))": "outside the range",
    "SRID=999999;POLYGON ((0 0, 1 0, 1 1, 0 0))": "CRS",
    "{": "not JSON",
    "{}": "not GeoJSON",
    '{"type": "Polygon"}': "without coordinates",
    '{"type": "Polygon", "coordinates": []}': "empty",
    '{"type": "Polygon", "coordinates": [[[0, 0], [1]]]}': "cannot be read",
    '{"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [2, 0]]]}': "cannot be read",
    '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}': "expected",
    '{"type": "Polygon", "coordinates": 5}': "without coordinates",
    '{"type": "Polygon", "coordinates": [5]}': "cannot be read",
    '{"type": "Point", "coordinates": [5, 45]}': "buffer",
    '{"type": "Feature", "geometry": null}': "empty",
    '{"type": "FeatureCollection"}': "without a list",
    '{"type": "FeatureCollection", "features": []}': "empty",
    '{"type": "FeatureCollection", "features": [3]}': "not GeoJSON",
    '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [2, 0]]], "crs": {"properties": {"name": "moon"}}}': "CRS",
    '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [2, 0]]], "crs": 5}': "crs member",
    "x" * 10_000: "not an area",
    "a\0b": "not an area",
}


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_bad_text(text: str) -> None:
    with pytest.raises(AreaError, match=BAD_TEXTS[text]) as caught:
        AreaOfInterest.parse(text)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


BAD_FILES = {
    "empty.geojson": (b"", "is empty"),
    "blank.geojson": (b"  \n", "is empty"),
    "text.geojson": (b"hello", "not geometry"),
    "page.geojson": (b"<html></html>", "not geometry"),
    "list.geojson": (b"[1, 2]", "not GeoJSON"),
    "cut.geojson": (b'{"type": "FeatureColl', "not JSON"),
    "binary.tif": (b"II*\0\xff\xfe\xfd" * 9, "not geometry"),
    "cut.gpkg": (b"SQLite format 3\0" + b"\0" * 40, "cannot be read"),
    "cut.parquet": (b"PAR1abcdPAR1", "cannot be read"),
    "cut.shp": (b"\x00\x00\x27\x0a" + b"\0" * 50, "cannot be read"),
    "cut.zip": (b"PK\x03\x04" + b"\0" * 50, "damaged zip"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(tmp_path: Path, name: str) -> None:
    content, words = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AreaError, match=words):
        AreaOfInterest.parse(str(tmp_path / name))


def test_a_crs_of_no_place() -> None:
    with pytest.raises(AreaError, match="no place on the Earth"):
        AreaOfInterest.from_geometry(shapely.box(0, 0, 1, 1), 'LOCAL_CS["site",UNIT["metre",1]]')


def test_other_bad_files(tmp_path: Path) -> None:
    with pytest.raises(AreaError, match="is a folder"):
        AreaOfInterest.from_file(tmp_path)
    with pytest.raises(AreaError, match="no area file"):
        AreaOfInterest.from_file(tmp_path / "none.gpkg")
    FRAME.drop(columns="geometry").assign(a=1).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(AreaError, match="without geometry"):
        AreaOfInterest.from_file(tmp_path / "table.parquet")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "none")
    with pytest.raises(AreaError, match="without a layer"):
        AreaOfInterest.from_file(tmp_path / "a.zip")
    geopandas.GeoDataFrame(geometry=[shapely.Point(5, 45)]).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(AreaError, match="buffer"):
        AreaOfInterest.from_file(tmp_path / "p.parquet")


@pytest.mark.parametrize("value", [5, None, [1, 2], ["a", "b", "c", "d"], {"type": "x"}, b"1,2,3,4", object()])
def test_bad_values(value: object) -> None:
    with pytest.raises(AreaError):
        AreaOfInterest.normalize(value)  # type: ignore[arg-type]


pieces = st.sampled_from(
    ["POLYGON ((", "0 0", ", ", "1 1", "))", "{", '"type":', '"Polygon"', "[", "]", "nan", "1e400", "-", "5"]
)


@given(
    st.one_of(
        st.text(), st.lists(pieces).map("".join), st.lists(st.floats(), max_size=5).map(lambda v: ",".join(map(str, v)))
    )
)
@example("1e308,1e308,1e308,1e308")
def test_parse_never_fails_otherwise(text: str) -> None:
    try:
        area = AreaOfInterest.parse(text)
    except AreaError:
        return
    assert area.geometry.is_valid
    assert math.isfinite(area.area_km2)


@pytest.mark.real
@pytest.mark.parametrize(
    ("pattern", "km2"),
    [("**/LULC.gpkg", 2.095), ("**/18_geoparquet/example.parquet", 20_596_344), ("**/Libya-Floods*.geojson", 966.356)],
)
def test_real_files(real_data: Path, pattern: str, km2: float) -> None:
    path = next(real_data.glob(pattern), None)
    if path is None:
        pytest.skip(f"no {pattern} at {real_data}")
    area = AreaOfInterest.from_file(path)
    assert area.geometry.is_valid
    assert area.area_km2 == pytest.approx(km2, rel=1e-3)
    assert area.area_km2 == pytest.approx(geod_km2(area), rel=1e-5)


def _ring(*corners: tuple[float, float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[list(corner) for corner in (*corners, corners[0])]]}


@pytest.mark.parametrize("latitudes", [(-18.0, -16.0), (51.0, 53.0)])
def test_a_ring_that_was_not_split_is_read_the_short_way(latitudes: tuple[float, float]) -> None:
    south, north = latitudes
    meant = AreaOfInterest.from_bbox(179, south, -179, north)
    for ring in (
        _ring((179, south), (-179, south), (-179, north), (179, north)),
        _ring((-179, south), (-179, north), (179, north), (179, south)),
        _ring((179, south), (180, south), (-179, south), (-179, north), (179, north)),
    ):
        with pytest.warns(EarthmapWarning, match="short way"):
            area = AreaOfInterest.from_geojson(ring)
        assert area == meant
        assert AreaOfInterest.from_geojson(area.to_geojson()) == area
    # Longitudes beyond 180 and rings that are split say what they mean.
    assert AreaOfInterest.from_geojson(_ring((179, south), (181, south), (181, north), (179, north))) == meant
    assert AreaOfInterest.from_geojson(meant.to_geojson()) == meant


def test_a_hole_over_the_antimeridian_stays_one() -> None:
    document = _ring((178, -19), (-178, -19), (-178, -15), (178, -15))
    document["coordinates"] += _ring((179, -18), (-179, -18), (-179, -16), (179, -16))["coordinates"]
    with pytest.warns(EarthmapWarning, match="short way"):
        area = AreaOfInterest.from_geojson(document)
    assert area.geometry.area == pytest.approx(4 * 4 - 2 * 2)


def test_a_ring_around_a_pole_holds_it() -> None:
    with pytest.warns(EarthmapWarning, match="pole"):
        area = AreaOfInterest.from_geojson(_ring((0, -75), (90, -75), (180, -75), (-90, -75)))
    assert area.bounds == (-180.0, -90.0, 180.0, -75.0)
    assert area == AreaOfInterest.from_bbox(-180, -90, 180, -75)


@pytest.mark.parametrize("bbox", [(-180, -60, 180, 60), (-170, -60, 170, 60), (-100, 0, 100, 50), (-180, -90, 180, 90)])
def test_what_is_wide_on_purpose_stays_wide(bbox: tuple[float, float, float, float]) -> None:
    area = AreaOfInterest.from_bbox(*bbox)
    assert area.bounds == bbox
    assert AreaOfInterest.from_geojson(area.to_geojson()) == area
    assert AreaOfInterest.parse(json.dumps(area.to_geojson())) == area


def test_a_wide_triangle_is_no_crossing() -> None:
    assert AreaOfInterest.from_geojson(_ring((-100, 0), (100, 0), (0, 50))).bounds == (-100, 0, 100, 50)


# ── footprints, as catalogues write them ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "written",
    [
        shapely.box(179, -18, 181, -16),
        shapely.box(-181, -18, -179, -16),
        shapely.Polygon([(179, -18), (-179, -18), (-179, -16), (179, -16)]),
        shapely.MultiPolygon([shapely.box(179, -18, 180, -16), shapely.box(-180, -18, -179, -16)]),
    ],
)
def test_footprints_over_the_antimeridian_are_one_ground(written: shapely.Geometry) -> None:
    ground = as_meant(written)
    expected = AreaOfInterest.from_bbox(179, -18, -179, -16).geometry
    assert shapely.symmetric_difference(ground, expected).area < 1e-12
    assert abs(middle_longitude(ground)) == pytest.approx(180.0)


def test_footprints_that_mean_what_they_say_stay() -> None:
    for ground in (shapely.box(-180, -90, 180, 90), shapely.box(3, 4, 5, 6), shapely.Point(3, 4)):
        assert as_meant(ground) is ground
    around = as_meant(shapely.Polygon([(-45, 89.9), (45, 89.9), (135, 89.9), (-135, 89.9)]))
    assert around.covers(shapely.box(-180, 89.91, 180, 90))
    assert as_meant(around).equals(around)
    assert middle_longitude(shapely.Polygon()) == 0.0
