"""A run's page inside a notebook's: it is drawn there, and cannot reach what is around it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from earthmap.errors import JobError
from earthmap.pipeline import Run
from tests.outputs import drawn_results as drawn
from tests.outputs.test_report import CHROMIUM
from tests.outputs.test_report import page as report_of
from tests.pipeline.finished import finished_run

REACHES = """
<script>
try { parent.document.title = "taken"; } catch (error) { document.title = "kept"; }
</script>
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with its page."""
    features, coverage, summary, _ = drawn.water_results(2)
    run = finished_run(tmp_path_factory.mktemp("run") / "one", features, coverage, summary)
    text = report_of((features, coverage, summary, []))
    head, end, rest = text.rpartition("</body>")
    (Path(run.address) / "report.html").write_text(f"{head}{REACHES}{end}{rest}", encoding="utf-8")
    return run


def test_heights_that_show_nothing_are_refused(run: Run) -> None:
    assert "height: 1000px" in run.explore()._repr_html_()
    assert "height: 300px" in run.explore(height_px=300)._repr_html_()
    with pytest.raises(JobError, match="0 pixels high"):
        run.explore(height_px=0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}; apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.mark.slow
def test_it_is_drawn_in_a_notebook_and_reaches_nothing_there(run: Run, browser: Any, tmp_path: Path) -> None:
    notebook = tmp_path / "notebook.html"
    body = run.explore(height_px=900)._repr_html_()
    notebook.write_text(f"<!DOCTYPE html><title>a notebook</title><body>{body}</body>", encoding="utf-8")
    view, asked = browser.new_page(viewport={"width": 1100, "height": 950}), []
    view.on("request", lambda request: asked.append(request.url))
    view.goto(notebook.as_uri())
    frame = view.frames[1]
    frame.wait_for_function("window.Bokeh && Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle")
    assert frame.title() == "kept"
    assert view.title() == "a notebook"
    view.wait_for_timeout(300)
    shot = frame.locator("#map-view").first.screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
    assert ((pixels[..., 2] - pixels[..., 0] > 70) & (pixels[..., 2] > 120)).sum() > 5_000  # the water is painted
    assert view.locator("iframe").bounding_box()["height"] == 900
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
