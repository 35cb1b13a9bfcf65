from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earthmap.grid import Grid, Tile, Zone, owned_ground
from earthmap.outputs.evidence import SIDE_PX, Evidence, evidence_section, thumbnail
from earthmap.pipeline.evidence import EACH, _answered, _Chosen, _outlines, _tile_with, _unanswered, _varied
from tests.outputs import drawn_results as drawn


def test_different_kinds_come_first_and_nothing_twice() -> None:
    kinds = "aaabbc"
    assert _varied(range(6), kinds.__getitem__) == [0, 3, 5, 1]
    assert _varied([5, 4, 3, 2, 1, 0], kinds.__getitem__) == [5, 4, 2, 3]
    assert _varied(range(2), kinds.__getitem__) == [0, 1]
    assert _varied([], kinds.__getitem__) == []


def squares(probabilities: list[float | None]) -> Any:
    features = drawn.presence_results()[0].iloc[: len(probabilities)].reset_index(drop=True)
    features["tile_ids"] = [[f"tile-{row:02}"] for row in range(len(features))]
    features["probability"] = np.array(probabilities, float)
    return features


def test_the_most_and_the_least_certain_are_shown() -> None:
    features = squares([0.9, 0.6, 0.99, None, 0.51, 0.7, 0.8, 0.95, 0.97, 0.55])
    features["answer"] = "yes"
    features["query_key"] = "q3"
    found = list(_answered(features))
    most = [one.tile_ids[0] for one in found if one.group == "The most certain"]
    least = [one.tile_ids[0] for one in found if one.group == "The least certain"]
    assert most == ["tile-02", "tile-08", "tile-07", "tile-00"]
    assert least == ["tile-04", "tile-09", "tile-01", "tile-05"]
    assert "probability 99 %" in found[0].lines


def test_of_few_tiles_none_is_shown_twice() -> None:
    features = squares([0.9, 0.6, 0.99])
    tiles = [one.tile_ids[0] for one in _answered(features)]
    assert sorted(tiles) == ["tile-00", "tile-01", "tile-02"]


def test_equal_certainty_is_decided_by_the_tile_whatever_the_order_of_rows() -> None:
    features = squares([0.9] * 9)
    features["answer"], features["query_key"] = "yes", "q3"
    chosen = [{one.tile_ids[0] for one in _answered(rows)} for rows in (features, features.iloc[::-1])]
    assert chosen[0] == chosen[1]


def test_without_probabilities_the_largest_finds_are_shown_and_it_is_said() -> None:
    features = drawn.water_results(1)[0]
    found = list(_answered(features))
    assert len(found) == EACH
    assert {one.group for one in found} == {"The largest finds (the predictor gives no probability)"}
    largest = features.geometry.iloc[int(features["area_m2"].to_numpy().argmax())]
    assert found[0].geometry.equals(largest)


def test_the_tile_is_the_one_that_the_find_lies_in_and_a_point_gets_a_ring() -> None:
    tiles = [Tile(Grid(resolution_m=10.0, picture_px=128), Zone(31, True), 4500, 484 + step) for step in range(3)]
    square = owned_ground(tiles[1])
    middle = square.centroid
    chosen = _Chosen("g", tuple(tile.id for tile in tiles), "ship", (), frozenset(), middle)
    assert _tile_with(chosen) == tiles[1]
    (ring,) = _outlines(tiles[1], middle)
    assert np.abs(ring.mean(axis=0) - 56).max() < 2
    assert 2 < np.ptp(ring[:, 0]) < 10
    (ring,) = _outlines(tiles[1], square)
    assert np.abs(np.sort(ring[:, 0])[[0, -1]] - (0, 112)).max() < 0.1


def test_what_failed_is_shown_with_its_reason() -> None:
    coverage = drawn.water_results(1)[1]
    found = list(_unanswered(coverage))
    assert [(one.group, one.title) for one in found] == [
        ("Failed", "damaged"), ("Not seen", "cloud"), ("Not seen", "cloud"),
    ]  # fmt: skip
    assert found[0].lines[:2] == ("98 % of it lies under cloud", "g15-31N-10-384-31")
    again = drawn.pandas.concat([coverage, coverage])  # the same tiles for another question
    assert len(list(_unanswered(again))) == len(found)


@pytest.mark.parametrize("shape", [(112, 112), (384, 384), (40, 60)])
def test_a_small_picture_is_small_and_its_lines_lie_where_they_are(shape: tuple[int, int]) -> None:
    import base64
    import io

    from PIL import Image

    rgb = np.full((*shape, 3), 60, np.uint8)
    ring = np.array([[0.25, 0.5], [0.75, 0.5], [0.25, 0.5]]) * (shape[1], shape[0])
    text = thumbnail(rgb, [ring])
    assert len(text) < 20_000
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2])))).astype(int)
    assert pixels.shape == (SIDE_PX, SIDE_PX, 3)
    yellow = (pixels[..., 0] - pixels[..., 2]) > 50
    rows, columns = np.nonzero(yellow)
    assert abs(rows.mean() - SIDE_PX / 2) < 2
    assert SIDE_PX / 4 - 3 <= columns.min() <= columns.max() <= 3 * SIDE_PX / 4 + 3


def test_a_page_with_as_much_evidence_as_there_can_be_stays_small() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (384, 384, 3)).astype(np.uint8)
    one = Evidence(group="g", title="<i>", rgb=(noise, noise))
    text = evidence_section([dataclasses.replace(one, group=f"g{number // EACH}") for number in range(4 * EACH)])
    assert len(text) < 1_500_000
    assert "<i>" not in text


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_shows_the_pixels_of_its_tiles(tmp_path: Path, drawn_catalog: Path, drawn_world: Any) -> None:
    """The tiles on the page are those of the cube, before and after, and the page has the scenes."""
    from earthmap.pipeline import parse_job, run_job
    from earthmap.pipeline.evidence import collect_evidence
    from earthmap.pipeline.plan import read_plan
    from earthmap.storage import Storage

    job = parse_job(
        {
            "area": drawn_world.area, "catalog": str(drawn_catalog), "queries": ["Where did water appear?"],
            "sensor": "sentinel-2-l2a", "tile_size": 128, "predictor": "spectral", "out": str(tmp_path / "run"),
        }
    )  # fmt: skip
    run = run_job(job)
    plan = read_plan(run.storage)
    assert plan is not None
    found = collect_evidence(run.features, run.coverage, plan=plan, store=Storage(run.job.store))
    finds = [one for one in found if one.group.startswith("The largest")]
    assert finds
    for one in finds:
        before, after = one.rgb
        assert before.shape == after.shape == (112, 112, 3)
        assert before.std() > 1
        assert one.outlines
    page = run.storage.read("report.html").decode()
    assert page.count('class="tile"') == len(found)
    for name in {scene for scenes in run.features["scenes"] for scene in scenes}:
        assert f"<code>{name}</code>" in page
