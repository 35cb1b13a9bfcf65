from __future__ import annotations

import dataclasses
import datetime as dt
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

from earthmap.outputs.backdrop import Backdrop, mosaic_backdrop, warp_backdrop
from earthmap.outputs.numbers import read_numbers
from earthmap.outputs.report import headlines, latest_by_sensor, render_report
from earthmap.outputs.webmap import build_chart
from tests.outputs import drawn_results as drawn

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 1'> $$x$$ Where is water?"
WHEN = dt.datetime(2024, 5, 4, 10, tzinfo=dt.UTC)


def page(results: Any, title: str = "A drawn valley") -> str:
    features, coverage, summary, backdrops = results
    job = {"area": [3.46, 45.67, 3.54, 45.73], "queries": [query["text"] for query in summary["queries"]]}
    return render_report(
        features, coverage, summary, backdrops=backdrops, job=job, versions={"earthmap": "0.1.0"}, title=title
    )


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
    rgb, valid = np.full((100, 100, 3), 90, np.uint8), np.ones((100, 100), bool)
    for order in ((eastern, western), (western, eastern)):
        pictures = [(rgb, valid, lattice) for lattice in order]
        backdrop = mosaic_backdrop(pictures, title="t", datetime=WHEN, sensor="s")
        west, _, east, _ = backdrop.bounds
        assert 179 < west < 180 < east < 181
        assert (backdrop.alpha > 0).mean() > 0.6


def test_unseen_pixels_are_transparent() -> None:
    lattice = GeoBox((64, 64), Affine(10, 0, 500_000, 0, -10, 5_060_000), "EPSG:32631")
    rgb, valid = np.full((64, 64, 3), 90, np.uint8), np.zeros((64, 64), bool)
    valid[:, :32] = True
    backdrop = mosaic_backdrop([(rgb, valid, lattice)], title="t", datetime=WHEN, sensor="s")
    assert (backdrop.alpha[20:40, 4:28] == 255).all()
    assert (backdrop.alpha[20:40, 36:] == 0).all()


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


def opened(browser: Any, path: Path, text: str) -> tuple[Any, list[str]]:
    """The page, settled, and what it complained of or asked for from elsewhere."""
    path.write_text(text, encoding="utf-8")
    view, faults = browser.new_page(viewport={"width": 1280, "height": 1200}), []
    view.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.on("request", lambda request: None if request.url.startswith(LOCAL) else faults.append(request.url))
    view.goto(path.as_uri())
    view.wait_for_function("window.Bokeh && Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle")
    view.wait_for_timeout(300)
    return view, faults


LOCAL = ("file:", "data:", "blob:", "about:")
MODEL = "Bokeh.documents.map(d => d.get_model_by_name('%s')).find(m => m)"


def blue(view: Any) -> int:
    """Pixels of the map that are painted as water."""
    import io

    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(view.locator("#map-view").screenshot())).convert("RGB")).astype(int)
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
        alpha=first.alpha, bounds=first.bounds,
    )  # fmt: skip
    assert "No picture of the ground is shown" in page((features, coverage, summary, [other]))


def test_the_chart_keeps_sensors_apart_and_its_legend_off_the_points() -> None:
    first, second = read_numbers(drawn.water_results(2)[2])
    chart = build_chart([first, dataclasses.replace(second, sensor="sentinel-1-db")])
    assert chart is not None
    assert [legend in chart.below for legend in chart.legend] == [True]
    dots = [one.glyph.marker for one in chart.renderers if hasattr(one.glyph, "marker")]
    assert len(set(dots)) == 2
