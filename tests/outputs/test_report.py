from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image

from earthmap.outputs import pictures
from earthmap.outputs.backdrop import Backdrop, mosaic_backdrop, warp_backdrop
from earthmap.outputs.drawing import list_moments
from earthmap.outputs.evidence import Evidence
from earthmap.outputs.numbers import format_answer, headlines, read_numbers
from earthmap.outputs.pictures import hidden, veil
from earthmap.outputs.provenance import MAX_SCENES, Provenance
from earthmap.outputs.report import latest_by_sensor, render_report
from earthmap.outputs.swipe import find_swipes
from earthmap.sensors.masks import Reason
from tests.outputs import drawn_results as drawn

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 1'> $$x$$ Where is water?"
WHEN = dt.datetime(2024, 5, 4, 10, tzinfo=dt.UTC)


def page(results: Any, title: str = "A drawn valley", **more: Any) -> str:
    features, coverage, summary, backdrops = results
    job = {"area": [3.46, 45.67, 3.54, 45.73], "queries": [query["text"] for query in summary["queries"]]}
    provenance = Provenance(job=job, versions={"earthmap": "0.1.0"}, **more)
    return render_report(
        features, coverage, summary, backdrops=backdrops, title=title, provenance=provenance, evidence=tiles(title)
    )


def tiles(title: str) -> list[Evidence]:
    rgb = np.full((60, 60, 3), 90, np.uint8)
    ring = np.array([[10, 10], [50, 10], [50, 50], [10, 10]], float)
    return [
        Evidence(group="The most certain", title=title, lines=("2024-05-04",), rgb=(rgb,), outlines=(ring,)),
        Evidence(group="Failed", title="damaged", lines=(title,)),
    ]


def test_headlines_say_what_where_and_how_much() -> None:
    _, _, summary, _ = drawn.water_results(1)
    summary["queries"][0]["observations"][0]["km2"] = {"water": 1.745}
    assert headlines(summary) == [
        "Where is water?  2024-05-04, sentinel-2-l2a: 1.75 km² of 34.9 km² seen (5 %)",
        "2 of 100 tile answers could not be seen (cloud)",
        "1 of 100 tile answers failed (damaged)",
    ]


def test_headlines_count_tiles_for_presence_and_stop_at_a_dozen() -> None:
    _, _, summary, _ = drawn.presence_results()
    assert headlines(summary)[0].endswith("yes in 25 of 97 tiles")
    seen = summary["queries"][0]["observations"]
    summary["queries"][0]["observations"] = [
        {**seen[0], "observation": f"o{day}", "datetime_min": f"2024-05-{day:02}T10:00:00Z"} for day in range(1, 21)
    ]
    assert sum("Is there any snow?" in line for line in headlines(summary)) == 13
    assert "Is there any snow?  and 8 more observations" in headlines(summary)


def test_bounds_hold_whatever_the_unseen_ground_is() -> None:
    row = read_numbers(drawn.water_results(1)[2])[0]
    assert row.bounds is not None
    found = row.km2["water"]
    assert row.bounds == pytest.approx((found / 36.0, (found + 36.0 - 34.9) / 36.0))


def test_a_backdrop_lies_where_its_pixels_are() -> None:
    rgb = np.zeros((200, 300, 3), np.uint8)
    rgb[:, 150:] = (200, 10, 10)
    lattice = GeoBox((200, 300), Affine(10, 0, 500_000, 0, -10, 5_060_000), "EPSG:32631")
    backdrop = warp_backdrop(rgb, lattice, title="t", datetime=WHEN, sensor="s", max_px=150)
    west, south, east, north = backdrop.bounds
    height, width = backdrop.alpha.shape
    assert max(height, width) <= 151
    corner = drawn.degrees(shapely.Point(502_500, 5_059_000), lattice)
    row, column = int((north - corner.y) / (north - south) * height), int((corner.x - west) / (east - west) * width)
    assert backdrop.alpha[row, column] == 255
    assert backdrop.rgb[row, column].tolist() == [200, 10, 10]
    assert backdrop.rgb[row, width // 8].tolist() == [0, 0, 0]


def test_a_backdrop_across_the_antimeridian_is_one_piece() -> None:
    eastern = GeoBox((100, 100), Affine(100, 0, 825_000, 0, -100, 8_150_000), "EPSG:32760")
    western = GeoBox((100, 100), Affine(100, 0, 165_000, 0, -100, 8_150_000), "EPSG:32701")
    rgb, clear = np.full((100, 100, 3), 90, np.uint8), np.full((100, 100), Reason.CLEAR, np.uint8)
    for order in ((eastern, western), (western, eastern)):
        shown = [(rgb, clear, lattice) for lattice in order]
        backdrop = mosaic_backdrop(shown, title="t", datetime=WHEN, sensor="s")
        west, _, east, _ = backdrop.bounds
        assert 179 < west < 180 < east < 181
        assert (backdrop.alpha > 0).mean() > 0.6


def clouded(reason: Reason = Reason.CLOUD) -> Backdrop:
    """A picture whose east lies under `reason`."""
    lattice = GeoBox((64, 64), Affine(10, 0, 500_000, 0, -10, 5_060_000), "EPSG:32631")
    rgb, reasons = np.full((64, 64, 3), 90, np.uint8), np.full((64, 64), Reason.CLEAR, np.uint8)
    reasons[:, 32:] = reason
    return mosaic_backdrop([(rgb, reasons, lattice)], title="t", datetime=WHEN, sensor="s")


def test_pixels_without_data_are_transparent() -> None:
    backdrop = clouded(Reason.NODATA)
    assert (backdrop.alpha[20:40, 4:28] == 255).all()
    assert (backdrop.alpha[20:40, 36:] == 0).all()
    assert veil(backdrop, ["nodata", "cloud"]) is None  # there is no picture to hatch


def test_what_a_question_counts_as_unseen_is_hatched() -> None:
    backdrop = clouded()
    assert hidden(backdrop, ["nodata", "cloud"])[20:40, 36:60].all()
    assert not hidden(backdrop, ["nodata", "cloud"])[20:40, 4:28].any()
    assert not hidden(backdrop, ["shadow"]).any()
    text = veil(backdrop, ["cloud"])
    assert text is not None
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2]))))
    assert len({tuple(place) for place in pixels[20:40, 36:60].reshape(-1, 4).tolist()}) == 2  # lines and between
    assert (pixels[20:40, 4:28, 3] == 0).all()


def test_pictures_of_a_page_stay_below_their_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PICTURE_BYTES", 150_000)
    noise = np.random.default_rng(0).integers(0, 255, (500, 500, 3)).astype(np.uint8)
    full = np.full((500, 500), 255, np.uint8)
    backdrop = Backdrop(
        title="t", datetime=WHEN, sensor="s", rgb=noise, alpha=full, reasons=full * 0, bounds=(3.0, 45.0, 3.1, 45.1)
    )
    made = pictures.encode_pictures([backdrop] * 3)
    assert len(made) == 3
    assert 75_000 < sum(map(len, made)) <= 150_000 * 4 / 3 + 1000


def test_nothing_from_outside_becomes_markup() -> None:
    features, coverage, summary, backdrops = drawn.water_results(1, text=HOSTILE)
    coverage.loc[coverage["status"] != "answered", "message"] = HOSTILE
    text = page((features, coverage, summary, backdrops), title=HOSTILE)
    assert "<script>window.owned" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;window.owned" in text


def test_an_empty_result_has_an_honest_page() -> None:
    features, coverage, summary, _ = drawn.water_results(1)
    summary["queries"][0]["observations"][0]["km2"] = {}
    text = page((features.iloc[:0], coverage, summary, []))
    assert "Nothing was found on the ground that was seen." in text
    assert "No picture of the ground is shown" in text
    assert "0 km² of 34.9 km² seen (0 %)" in text


def test_a_result_of_skipped_tiles_alone_says_so() -> None:
    features, coverage, summary, _ = drawn.water_results(1)
    coverage["status"], coverage["reason"] = "skipped", "cloud"
    observed = summary["queries"][0]["observations"][0]
    observed.update(answered=0, seen_km2=0.0, km2={}, skipped={"cloud": 100}, failed={})
    summary.update(answered=0, skipped={"cloud": 100}, failed={}, seen_km2=0.0)
    text = page((features.iloc[:0], coverage, summary, []))
    assert "none of 100 tiles could be seen" in text
    assert "100 of 100 tile answers could not be seen (cloud)" in text


def test_a_result_without_any_tile_is_still_a_page() -> None:
    features, coverage, summary, _ = drawn.water_results(1)
    summary = {**summary, "planned": 0, "answered": 0, "skipped": {}, "failed": {}, "queries": []}
    text = page((features.iloc[:0], coverage.iloc[:0], summary, []))
    assert "no tile was planned" in text


# ── in a browser ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}; apt-get install chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=[*flags, "--no-first-run"])
        yield started
        started.close()


def opened(browser: Any, path: Path, text: str, *, size: tuple[int, int] = (1280, 1200)) -> tuple[Any, list[str]]:
    """The page, settled, and what it complained of or asked for from elsewhere."""
    path.write_text(text, encoding="utf-8")
    view, faults = browser.new_page(viewport={"width": size[0], "height": size[1]}), []
    view.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.on("request", lambda request: None if request.url.startswith(LOCAL) else faults.append(request.url))
    view.goto(path.as_uri())
    view.wait_for_function("window.Bokeh && Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle")
    view.wait_for_timeout(300)
    return view, faults


LOCAL = ("file:", "data:", "blob:", "about:")
MODEL = "Bokeh.documents.map(d => d.get_model_by_name('%s')).find(m => m)"


def photographed(view: Any, what: str) -> Any:
    """(y, x, 3) what the browser paints of an element."""
    return np.asarray(Image.open(io.BytesIO(view.locator(what).first.screenshot())).convert("RGB")).astype(int)


def blue(view: Any) -> int:
    """Pixels of the map that are painted as water."""
    pixels = photographed(view, "#map-view")
    return int(((pixels[..., 2] - pixels[..., 0] > 70) & (pixels[..., 2] > 120)).sum())


@pytest.mark.slow
def test_page_draws_switches_hides_and_answers(browser: Any, tmp_path: Path) -> None:
    features, coverage, summary, _ = drawn.water_results(2)
    view, faults = opened(browser, tmp_path / "report.html", page((features, coverage, summary, [])))
    flood = blue(view)
    assert flood > 20_000
    view.evaluate(f"{MODEL % 'date'}.value = '2024-05-04'")
    view.wait_for_timeout(300)
    assert 2_000 < blue(view) < 0.7 * flood
    lake = max(features[features["datetime_min"] == features["datetime_min"].min()].geometry, key=lambda g: g.area)
    place = lake.representative_point()
    at = view.evaluate(
        f"(([x, y]) => {{ const f = Bokeh.index.find_one({MODEL % 'map'}).frame; const b = f.bbox;"
        " return [f.x_scale.compute(x), f.y_scale.compute(y)]; })",
        [place.x, place.y],
    )
    box = view.locator(".bk-events").first.bounding_box()
    view.mouse.move(box["x"] + at[0], box["y"] + at[1])
    view.wait_for_timeout(300)
    said = view.locator(".bk-tooltip-row-value, .bk-tooltip").all_inner_texts()
    assert any("Where is water?" in line for line in said), said
    before = blue(view)
    assert view.locator(".bk-item .bk-label").all_inner_texts() == ["water", "not seen", "failed"]
    view.locator(".bk-item").first.click()
    view.wait_for_timeout(300)
    assert blue(view) < before / 5
    assert faults == []


@pytest.mark.slow
def test_hostile_text_stays_text_in_the_browser(browser: Any, tmp_path: Path) -> None:
    features, coverage, summary, backdrops = drawn.water_results(2, text=HOSTILE)
    coverage["message"] = HOSTILE
    view, faults = opened(browser, tmp_path / "hostile.html", page((features, coverage, summary, backdrops), HOSTILE))
    box = view.locator("#map-view").bounding_box()
    for step in range(20):
        view.mouse.move(box["x"] + 60 + step * 40, box["y"] + 130 + step * 25)
        view.wait_for_timeout(30)
    for part in view.locator("summary").all():
        part.click()
    assert view.evaluate("window.owned") is None
    assert view.locator("h1").inner_text() == " ".join(HOSTILE.split())
    assert faults == []


@pytest.mark.slow
def test_a_change_shows_either_picture(browser: Any, tmp_path: Path) -> None:
    view, faults = opened(browser, tmp_path / "change.html", page(drawn.change_results()))
    after = view.evaluate(f"{MODEL % 'map'}.title.text")
    view.evaluate(f"{MODEL % 'sides'}.active = 0")
    assert [after, view.evaluate(f"{MODEL % 'map'}.title.text")] == [
        "sentinel-2-l2a, 2024-06-08",
        "sentinel-2-l2a, 2024-05-04",
    ]
    assert faults == []


@pytest.mark.slow
def test_the_divider_is_dragged_and_moved_by_keys(browser: Any, tmp_path: Path) -> None:
    view, faults = opened(browser, tmp_path / "swipe.html", page(drawn.change_results()))
    two = view.locator(".two").first
    two.scroll_into_view_if_needed()
    half = photographed(view, ".two")
    box = two.bounding_box()
    view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    view.mouse.down()
    view.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + box["height"] / 2, steps=4)
    view.mouse.up()
    at = float(two.evaluate("one => getComputedStyle(one).getPropertyValue('--at').replace('%', '')"))
    assert at == pytest.approx(20, abs=2)
    dragged = photographed(view, ".two")
    changed = (np.abs(half - dragged).max(axis=-1) > 40)[60:-60]
    wide = changed.shape[1]
    assert changed[:, int(0.25 * wide) : int(0.45 * wide)].mean() > 0.01  # the other date
    assert changed[:, int(0.6 * wide) :].mean() < 0.001
    slider = view.locator(".two input").first
    slider.focus()
    for _ in range(10):
        view.keyboard.press("ArrowRight")
    assert float(slider.input_value()) == pytest.approx(at + 5, abs=0.6)
    view.keyboard.press("Home")
    assert slider.input_value() == "0"
    drawn_over = photographed(view, ".two")
    view.locator(".results").first.click()
    assert (np.abs(drawn_over - photographed(view, ".two")).max(axis=-1) > 20).mean() > 0.01
    assert faults == []


@pytest.mark.slow
def test_clouds_are_hatched_and_the_legend_hides_them(browser: Any, tmp_path: Path) -> None:
    features, coverage, summary, backdrops = drawn.water_results(1)
    reasons = np.where(backdrops[0].alpha > 0, Reason.CLEAR, Reason.NODATA).astype(np.uint8)
    reasons[: len(reasons) // 2][backdrops[0].alpha[: len(reasons) // 2] > 0] = Reason.CLOUD
    backdrops = [dataclasses.replace(backdrops[0], reasons=reasons)]
    coverage["status"] = "answered"
    view, faults = opened(browser, tmp_path / "veil.html", page((features.iloc[:0], coverage, summary, backdrops)))
    assert view.locator(".bk-item .bk-label").all_inner_texts() == ["not seen"]
    hatched = photographed(view, "#map-view")
    view.locator(".bk-item").first.click()
    view.wait_for_timeout(300)
    changed = np.abs(hatched - photographed(view, "#map-view")).max(axis=-1) > 30
    high, wide = changed.shape
    assert changed[int(0.2 * high) : int(0.4 * high), int(0.3 * wide) : int(0.7 * wide)].mean() > 0.5
    assert changed[int(0.55 * high) : int(0.7 * high), int(0.3 * wide) : int(0.7 * wide)].mean() < 0.01
    assert faults == []


@pytest.mark.slow
def test_the_page_fits_a_phone_and_prints(browser: Any, tmp_path: Path) -> None:
    view, faults = opened(browser, tmp_path / "phone.html", page(two_questions()), size=(360, 740))
    assert view.evaluate("document.documentElement.scrollWidth") <= 360
    inside = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > 361).length"
    assert view.evaluate(f"{MODEL % 'map'}.frame_width") < 300
    assert view.evaluate(f"{inside}") == 0
    assert blue(view) > 1_000
    view.emulate_media(media="print")
    assert view.locator(".noprint:visible").count() == 0
    assert len(view.pdf(format="A4", print_background=True)) > 50_000
    view.set_viewport_size({"width": 1100, "height": 800})
    view.wait_for_timeout(500)
    assert view.evaluate(f"{MODEL % 'map'}.frame_width") > 600
    assert view.locator(".bk-Figure").first.bounding_box()["width"] < 700  # what a sheet of A4 has room for
    assert faults == []


@pytest.mark.slow
def test_charts_and_evidence_are_painted(browser: Any, tmp_path: Path) -> None:
    view, faults = opened(browser, tmp_path / "series.html", page(drawn.water_results(5)))
    chart = photographed(view, ".chart")
    assert (np.abs(chart - 255).max(axis=-1) > 60).mean() > 0.003
    dots = view.locator(".chart .dot title").all_text_contents()
    assert len(dots) == 5
    assert all(text.startswith(("19", "20")) and "km²" in text for text in dots)
    sizes = view.evaluate("[...document.querySelectorAll('.tile img')].map(one => one.naturalWidth)")
    assert sizes == [176]
    assert view.locator(".tile .none").all_inner_texts() == ["no picture"]
    assert faults == []


def two_questions() -> tuple[Any, Any, dict[str, Any], list[Backdrop]]:
    water, change = drawn.water_results(1), drawn.change_results()
    features, coverage = (pandas.concat([water[part], change[part]], ignore_index=True) for part in (0, 1))
    summary = {**water[2], "queries": water[2]["queries"] + change[2]["queries"]}
    return features, coverage, summary, change[3]


@pytest.mark.slow
def test_the_legend_is_that_of_the_chosen_question(browser: Any, tmp_path: Path) -> None:
    view, faults = opened(browser, tmp_path / "two.html", page(two_questions()))
    lines = view.locator(".bk-item:visible .bk-label")
    assert lines.all_inner_texts() == ["water", "not seen", "failed"]
    view.evaluate(f"(d => {{ d.value = d.options[d.options.length - 1]; }})({MODEL % 'date'})")
    view.wait_for_timeout(400)
    assert lines.all_inner_texts() == ["water gained", "water lost", "not seen", "failed"]
    assert faults == []


def test_a_card_shows_the_sensor_that_saw_most_and_names_the_others() -> None:
    early, late = read_numbers(drawn.water_results(2)[2])
    radar = dataclasses.replace(late, sensor="sentinel-1-db", seen_km2=20.0)
    blind = dataclasses.replace(late, sensor="sentinel-3", answered=0, seen_km2=0.0)
    assert latest_by_sensor([early, radar, late, blind]) == [late, radar]
    assert latest_by_sensor([blind]) == [blind]


def test_the_job_is_on_the_page_as_it_can_be_run() -> None:
    import html
    import re

    found = re.search(r'<pre id="job">(.*?)</pre>', page(drawn.water_results(1)), re.DOTALL)
    assert found is not None
    assert json.loads(html.unescape(found[1]))["queries"] == ["Where is water?"]


def test_a_backdrop_of_another_day_is_not_shown() -> None:
    features, coverage, summary, backdrops = drawn.water_results(1)
    first = backdrops[0]
    other = Backdrop(
        title="another day", datetime=first.datetime + dt.timedelta(days=30), sensor=first.sensor, rgb=first.rgb,
        alpha=first.alpha, reasons=first.reasons, bounds=first.bounds,
    )  # fmt: skip
    assert "No picture of the ground is shown" in page((features, coverage, summary, [other]))


def test_the_scenes_and_the_sample_are_on_the_page() -> None:
    scenes = tuple((f"S2A_{number}", "2024-05-04 10:50", "sentinel-2-l2a") for number in range(MAX_SCENES + 7))
    row = {
        "class": HOSTILE, "mapped_km2": 2.0, "km2": 2.5, "interval_km2": [2.1, 2.9], "answer": "enough evidence",
    }  # fmt: skip
    estimate = {
        "question": "Where is water?", "observation": "o1", "labelled": 290, "unlabelled": 10, "method": "design_based",
        "interval": "95 %", "area_km2": 36.0, "unseen_km2": 1.1, "classes": [row], "notes": ["no label of bare"],
    }  # fmt: skip
    text = page(drawn.water_results(1), scenes=scenes, estimates=[estimate])
    assert "S2A_199<" in text
    assert "S2A_200<" not in text
    assert "and 7 more; scenes.parquet has all" in text
    assert "2.50 km²" in text
    assert "2.10 km² – 2.90 km²" in text
    assert "the figures carry no confidence interval" not in text
    assert "<script>window.owned" not in text


def test_counts_from_a_sample_are_on_the_page() -> None:
    estimate = {
        "question": "Find the ships", "observation": "o1", "found": 19, "count": 23.4, "interval_count": [20.1, 27.9],
        "area_km2": 36.0, "estimated_km2": 30.0, "labelled": 90, "method": "design_based", "answer": "enough evidence",
    }  # fmt: skip
    text = page(drawn.water_results(1), estimates=[estimate])
    assert "<td class='n'>19</td><td class='n'><b>23</b></td><td class='n'>20 – 28</td>" in text
    assert "No interval speaks of 6.00 km² of 36.0 km²" in text


def test_an_estimate_of_another_version_breaks_no_page() -> None:
    assert "From a labelled sample" in page(drawn.water_results(1), estimates=[{"classes": [{}]}, {}])


def test_change_questions_are_swiped_and_else_the_first_and_last_date() -> None:
    for results, found in ((drawn.change_results(), "pair"), (drawn.water_results(4), "first and last")):
        moments, backdrops = list_moments(read_numbers(results[2])), results[3]
        swipes = find_swipes(moments, backdrops)
        assert [(swipe.before, swipe.after) for swipe in swipes] == [(0, len(backdrops) - 1)], found
        assert (swipes[0].moment is not None) is (found == "pair")
    assert find_swipes(moments, backdrops[:1]) == []
    assert find_swipes([], []) == []


def test_counts_are_read_as_the_most_frequent_first_whatever_the_file_says() -> None:
    summary = drawn.presence_results()[2]
    summary["queries"][0]["observations"][0]["tiles_by_answer"] = {"bare": 3, "water": 40, "a": 3}
    assert list(read_numbers(summary)[0].tiles) == ["water", "a", "bare"]


def test_ground_that_is_smaller_than_a_pixel_is_said_to_tell_nothing() -> None:
    entry = {"answered": 1, "planned": 1, "area_km2": 0.0, "seen_km2": 0.0, "km2": {"water": 0.0}}
    summary = {"queries": [{"task": "segment", "targets": ["water"], "observations": [entry]}]}
    (row,) = read_numbers(summary)
    assert format_answer(row) == "too little to tell: under 50 m² seen"
    (row,) = read_numbers({"queries": [{**summary["queries"][0], "observations": [{**entry, "seen_km2": 0.0001}]}]})
    assert format_answer(row) == "0 km² of under 0.001 km² seen (0 %)"
