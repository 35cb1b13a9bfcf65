from __future__ import annotations

import dataclasses
import io
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from PIL import Image

from earthmap.outputs.backdrop import pole_of
from earthmap.outputs.drawing import in_one_piece, look_of, pole_in, scale_bar_m, squeeze_at
from earthmap.outputs.panels import lay_out, letters, wrap
from earthmap.outputs.preview import render_preview
from earthmap.sensors.masks import Reason
from tests.outputs import drawn_results as drawn


def pixels(results: Any) -> Any:
    features, coverage, summary, backdrops = results
    data = render_preview(features, coverage, summary, backdrops=backdrops, title="A drawn valley $x$ <b>")
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def blue(image: Any) -> int:
    return int(((image[..., 2] - image[..., 0] > 60) & (image[..., 2] > 110)).sum())


def test_preview_is_a_picture_of_the_stated_size_with_the_water_in_it() -> None:
    image = pixels(drawn.water_results(1))
    assert image.shape == (900, 1200, 3)
    assert blue(image) > 5_000


def test_equal_results_give_equal_bytes() -> None:
    features, coverage, summary, backdrops = drawn.water_results(2)
    first, second = (render_preview(features, coverage, summary, backdrops=backdrops, title="t") for _ in range(2))
    assert first == second
    assert b"Software" not in first


def test_a_notebook_goes_on_drawing_its_own_way() -> None:
    import matplotlib

    features, coverage, summary, backdrops = drawn.water_results(1)
    with matplotlib.rc_context():
        matplotlib.rcParams["backend"] = "svg"
        render_preview(features, coverage, summary, backdrops=backdrops, title="t")
        assert matplotlib.rcParams["backend"] == "svg"
        matplotlib.rcParams["backend"] = "agg"  # a context does not take it back


def test_a_series_is_small_multiples() -> None:
    image = pixels(drawn.water_results(8))
    left, right = image[:450, :320], image[450:, 900:]
    assert blue(left) > 3 * blue(right[:380]) > 0  # the drawn lake shrinks from the first date to the last


def test_holes_stay_open() -> None:
    features, coverage, summary, _ = drawn.water_results(1)
    west, south, east, north = coverage.total_bounds
    ring = shapely.box(west, south, east, north)
    features = features.iloc[:1].copy()
    features.geometry = [ring.difference(ring.centroid.buffer((north - south) / 3))]
    coverage = coverage[coverage["status"] == "answered"]
    image = pixels((features, coverage, summary, []))
    assert image[475, 627].min() > 200  # the middle of the map
    assert blue(image) > 50_000


def test_a_result_of_nothing_is_still_a_picture() -> None:
    features, coverage, summary, _ = drawn.water_results(1)
    nothing = {**summary, "queries": []}
    assert pixels((features.iloc[:0], coverage.iloc[:0], nothing, [])).shape == (900, 1200, 3)


def test_a_change_is_shown_beside_its_two_dates() -> None:
    image = pixels(drawn.change_results())
    assert blue(image[:, 800:]) > 3_000
    assert blue(image[:, :790]) < 500


def test_a_number_goes_to_the_next_line_rather_than_being_cut() -> None:
    note = "vegetation gained 0.028 km², vegetation lost 0.149 km², of 0.582 km² seen on both dates"
    assert " ".join(wrap(note, 52)) == note
    assert len(wrap(note, 20)) == 3
    assert wrap(note, 20)[2].endswith("…")


def test_each_question_about_tiles_has_a_panel_of_its_own() -> None:
    image = pixels(drawn.presence_results())[200:800]
    snow = (image - np.array([190, 234, 244]) < 14) & (image - np.array([190, 234, 244]) > -14)
    assert snow.all(-1)[:, :600].sum() > 4 * snow.all(-1)[:, 600:].sum()


def test_ground_on_both_sides_of_the_antimeridian_is_drawn_as_one_piece() -> None:
    features, coverage, _, _ = drawn.water_results(1)
    both = shapely.MultiPolygon([shapely.box(179.9, -17.0, 180.0, -16.9), shapely.box(-180.0, -17.0, -179.8, -16.9)])
    features, coverage = features.iloc[:2].copy(), coverage.iloc[:1].copy()
    features.geometry = [both, shapely.box(-179.9, -17.0, -179.85, -16.95)]
    coverage.geometry = [shapely.box(179.9, -17.0, 180.0, -16.9)]
    shapes, _, _, frame = in_one_piece(features, coverage, [])
    assert frame == pytest.approx((179.9, -17.0, 180.2, -16.9))
    assert shapes[0].geom_type == "Polygon"
    assert shapes[0].area == pytest.approx(both.area)
    assert shapes[1].bounds == pytest.approx((180.1, -17.0, 180.15, -16.95))


def test_gained_and_lost_do_not_look_alike() -> None:
    gained, lost = (look_of(f"water {way}", task="change") for way in ("gained", "lost"))
    assert lost.lost
    assert not gained.lost
    assert gained.fill != lost.fill
    assert gained != look_of("water", task="segment")


@pytest.mark.parametrize(("width", "bar"), [(8_000.0, 2_000.0), (7_999.0, 1_000.0), (210.0, 50.0), (3e6, 5e5)])
def test_the_scale_bar_is_a_round_number(width: float, bar: float) -> None:
    assert scale_bar_m(width) == pytest.approx(bar)


def test_a_map_around_a_pole_is_round() -> None:
    """Ground that holds a pole is drawn around it, without a seam where its polygon is split in degrees."""
    cap = geopandas.GeoDataFrame(geometry=[shapely.box(-180, 89.9, 180, 90)], crs="EPSG:4326")
    shapes, tiles, _, frame = in_one_piece(cap, cap, [])
    assert frame == pytest.approx((-0.1, -0.1, 0.1, 0.1), rel=5e-3)
    for shape in (*shapes, *tiles):
        assert shape.geom_type == "Polygon"
        assert shape.contains(shapely.Point(0, 0.05))
        assert shape.length == pytest.approx(2 * np.pi * 0.1, rel=5e-3)
    assert pole_in(cap) == 90.0
    assert squeeze_at((-1, -30, 1, -29), 90.0) == 1.0


@pytest.mark.parametrize(
    ("south", "north", "pole"),
    [(83, 84, None), (83, 84.1, 90.0), (-81, -79, -90.0), (-81, 10, None), (-90, 90, None), (89, 90, 90.0)],
)
def test_which_maps_are_drawn_around_a_pole(south: float, north: float, pole: float | None) -> None:
    assert pole_of(south, north) == pole


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("shape", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_panels_fill_the_page_and_leave_room_for_their_titles(count: int, shape: float) -> None:
    notes = ["2024-06-08 · sentinel-2-l2a: 11.8 % of 282 km² seen"] * count
    page = lay_out(notes, (0.0, 0.0, shape, 1.0), 1.0)
    assert 0 < page.height_in <= 9.0 + 1e-6
    assert 6.0 < page.width_in <= 12.0
    assert len(page.places) == count
    for index, (left, bottom, width, height) in enumerate(page.places):
        assert left * page.width_in >= 0.3
        assert bottom * page.height_in >= 0.5  # the legend
        assert (left + width) * page.width_in <= page.width_in - 0.3 + 1e-6
        assert bottom + height <= 0.93
        lines = len(wrap(notes[0], letters(width * page.width_in)))
        for other in page.places[:index]:  # a title fits between rows, and nothing lies on anything
            beside = left >= other[0] + other[2] or other[0] >= left + width
            above = (other[1] - bottom - height) * page.height_in >= 0.35 + 0.14 * lines
            assert beside or above
    used = sum(min(w * page.width_in, h * page.height_in * shape) * h * page.height_in for _, _, w, h in page.places)
    if count > 1 and 0.5 <= shape <= 2.0:
        assert used / (page.width_in * page.height_in) > 0.35  # a third and more is map


def test_what_clouds_cover_inside_an_answered_tile_is_hatched() -> None:
    features, coverage, summary, backdrops = drawn.water_results(1)
    coverage["status"] = "answered"
    results = features.iloc[:0], coverage, summary
    clear = backdrops[0]
    reasons = clear.reasons.copy()
    rows, columns = reasons.shape
    reasons[rows // 3 : rows // 2, columns // 3 : columns // 2] = Reason.CLOUD
    plain, hatched = (pixels((*results, [dataclasses.replace(clear, reasons=one)])) for one in (clear.reasons, reasons))
    changed = np.abs(plain - hatched).max(axis=-1)[:830] > 10  # above the legend, which gets a line
    assert changed[330:430, 480:580].mean() > 0.5
    assert changed[500:800].sum() == 0
    assert np.abs(plain - hatched)[830:].max() > 100


def test_points_and_lines_are_drawn_where_they_are() -> None:
    features, coverage, _, backdrops = drawn.water_results(1)
    west, south, east, north = coverage.total_bounds
    place = shapely.Point((west + east) / 2, (south + north) / 2)
    line = shapely.LineString([(west, north), (east, south)])
    features = features.iloc[:3].copy()
    whole = features.geometry.iloc[2]
    features.geometry = [place, line, whole]
    shapes, _, _, frame = in_one_piece(features, coverage, backdrops)
    assert shapes[2].equals(whole)
    assert [shape.geom_type for shape in shapes[:2]] == ["Polygon", "Polygon"]
    assert shapes[0].centroid.distance(place) < 1e-9
    wide, high = shapes[0].bounds[2] - shapes[0].bounds[0], shapes[0].bounds[3] - shapes[0].bounds[1]
    assert wide * squeeze_at(frame) == pytest.approx(high)  # round on the ground
    assert shapes[1].buffer(1e-9).covers(line)


def test_answers_without_a_colour_of_their_own_have_different_ones_and_keep_them() -> None:
    names = [
        "harbour",
        "airport",
        "farm",
        "forest",
        "school",
        "stadium",
        "bridge",
        "road",
        "ship",
        "car",
        "plane",
        "dam",
    ]
    fills = [look_of(name, task="choose").fill for name in names]
    assert len(set(fills)) >= 8
    assert fills == [look_of(name, task="detect").fill for name in names]
