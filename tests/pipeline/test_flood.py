"""Flood is water that is not there otherwise: as two observations before show, or a file says, or else it is said that
nobody knows."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from earthmap.errors import JobError, QueryError
from earthmap.merge import Sums, summarize
from earthmap.outputs import headlines
from earthmap.pipeline import make_plan, parse_job
from earthmap.pipeline.flood import BY_DATES, BY_FILE, INCLUDED, MOMENT, UNDETECTABLE, compare_water, water_query
from earthmap.pipeline.plan import plan_again, read_plan, write_plan
from earthmap.pipeline.reference_water import open_reference_water
from earthmap.storage import Storage
from earthmap.synthetic import World, small_world, true_km2, write_world
from earthmap.tasks import UNSEEN, Answer, make_query
from earthmap.tasks.query import mask_legend
from earthmap.tasks.vocabulary import FLOOD, PERMANENT
from tests.pipeline.cells import context_of, worked_cells

ASKED = make_query("What is flooded?", before="2024-05", after="2024-06")
MASKS = arrays(np.uint8, (4, 5, 5), elements=st.sampled_from([0, 1, UNSEEN]))
BEFORE, AFTER = "2024-05", "2024-06"


def told(mask: NDArray[np.uint8]) -> Answer:
    seen = mask != UNSEEN
    if not seen.any():
        return Answer(status="skipped", reason="cloud", message="cloud")
    return Answer(
        status="answered", value="water", mask=mask, legend={1: "water"}, seen_px=int(seen.sum()), notes=("by rule",)
    )


# ── the question ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("open_vocabulary", [False, True])
@pytest.mark.parametrize("text", ["What is flooded?", "Where is the flood?", "How much of the valley is under water?"])
def test_words_about_flood_with_dates_ask_for_a_map_of_it(text: str, open_vocabulary: bool) -> None:
    query = make_query(text, before=BEFORE, after=AFTER, open_vocabulary=open_vocabulary)
    assert (query.is_flood, query.dates, mask_legend(query)) == (True, 1, {1: FLOOD, 2: PERMANENT})
    asked = water_query(query)
    assert asked.content_key() == make_query("Where is water?", open_vocabulary=open_vocabulary).content_key()


def test_without_dates_words_about_flood_mean_water_and_the_target_means_flood() -> None:
    assert make_query("What is flooded?").targets == ("water",)
    assert make_query("Where is it?", task="segment", targets=["flood"]).is_flood
    assert not make_query("Where did flooding appear?", before=BEFORE, after=AFTER).is_flood
    assert make_query("Where is water?", after=AFTER).after == AFTER
    with pytest.raises(QueryError, match="looks at one date"):
        make_query("Where is water?", before=BEFORE, after=AFTER)


# ── one tile ─────────────────────────────────────────────────────────────────────────────────────────────────


@given(masks=MASKS)
def test_flood_is_water_now_and_in_less_than_two_of_those_before(masks: NDArray[np.uint8]) -> None:
    answer = compare_water(ASKED, told(masks[0]), [told(mask) for mask in masks[1:]])
    seen = masks[0] != UNSEEN
    if not seen.any():
        assert answer.reason == "cloud"
        return
    assert answer.mask is not None
    wet, known = (masks[1:] == 1).sum(axis=0), (masks[1:] != UNSEEN).sum(axis=0)
    np.testing.assert_array_equal(answer.mask == UNSEEN, ~seen)
    np.testing.assert_array_equal(answer.mask == 1, (masks[0] == 1) & (known >= 2) & (wet < 2))
    np.testing.assert_array_equal(answer.mask == 2, (masks[0] == 1) & (known < 2))
    assert answer.fraction == pytest.approx(np.isin(answer.mask, [1, 2]).sum() / seen.sum())
    assert set(np.unique(answer.mask)) - {0, UNSEEN} <= set(answer.legend)
    assert {MOMENT, UNDETECTABLE, "by rule"} <= set(answer.notes)
    assert (BY_DATES in answer.notes) == (seen & (known >= 2)).any()
    assert (INCLUDED in answer.notes) == (answer.mask == 2).any()
    turned = compare_water(ASKED, told(masks[0]), [told(mask) for mask in masks[:0:-1]])
    np.testing.assert_array_equal(turned.mask, answer.mask)


def test_one_observation_before_is_not_enough() -> None:
    wet = np.ones((4, 4), np.uint8)
    for before in ([], [told(np.zeros_like(wet))], [told(wet)]):
        answer = compare_water(ASKED, told(wet), before)
        assert (answer.value, dict(answer.legend)) == (PERMANENT, {2: PERMANENT})


def test_a_file_is_asked_in_place_of_observations() -> None:
    wet, known = np.ones((2, 3), np.uint8), np.array([[0, 1, UNSEEN]] * 2, np.uint8)
    answer = compare_water(ASKED, told(wet), [told(wet), told(wet)], known=known)
    assert answer.mask is not None
    np.testing.assert_array_equal(answer.mask, [[1, 0, 2]] * 2)
    assert BY_FILE in answer.notes


def test_what_could_not_be_asked_stays_so() -> None:
    failed = Answer(status="failed", stage="read", reason="server", message="no answer")
    assert compare_water(ASKED, failed, []) is failed


# ── cells of a drawn valley ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def world() -> World:
    """A valley on three dates before a flood and one in it, with clouds on that one."""
    small = small_world(3, size_m=2400.0, cloud_share=0.1)
    return dataclasses.replace(
        small, between=tuple(small.before + number * datetime.timedelta(days=5) for number in (1, 2))
    )


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(world, tmp_path_factory.mktemp("flood"), sensors=("sentinel-1",), columns=1)


def job_of(world: World, catalog: Path, out: Path, **changes: Any) -> Any:
    question = {"text": "What is flooded?", "before": BEFORE, "after": AFTER, **changes.pop("question", {})}
    values = {
        "area": world.area, "catalog": str(catalog), "queries": [question], "predictor": "oracle", "tile_size": 128,
        "out": str(out),
    }  # fmt: skip
    return parse_job({**values, **changes})


def summary_of(job: Any, plan: Any = None) -> dict[str, Any]:
    plan = plan or make_plan(job)
    context, sums = context_of(job, plan), Sums()
    for _, merge in worked_cells(plan, context):
        sums.update(merge.sums)
    return summarize(sums, area=job.area, queries=context.queries)


def mapped_km2(job: Any, plan: Any = None) -> dict[str, float]:
    (query,) = summary_of(job, plan)["queries"]
    (layer,) = query["observations"]
    assert layer["datetime_min"] == layer["datetime_max"] == "2024-06-08T17:50:31+00:00"
    km2: dict[str, float] = layer["km2"]
    return km2


def test_the_flood_of_a_drawn_valley_is_its_truth(world: World, catalog: Path, tmp_path: Path) -> None:
    job = job_of(world, catalog, tmp_path / "run")
    plan = make_plan(job)
    assert {len(names) for names in plan.table["references"].to_pylist()} == {3}
    before, after = (true_km2(world, date)["water"] for date in (world.before, world.after))
    assert mapped_km2(job, plan) == {FLOOD: pytest.approx(after - before, abs=2e-4)}
    # Asked again, nothing is computed; maps of water stand beside it for whoever asks for them.
    store = Storage(job.store)
    attempts = store.list("attempts")
    mapped_km2(job, plan)
    assert store.list("attempts") == attempts
    water = {"text": "Where is water?", "before": None, "after": None}
    mapped_km2(job_of(world, catalog, tmp_path / "run", question=water, scenes="latest"))
    assert store.list("attempts") == attempts
    write_plan(Storage(tmp_path / "again"), plan)
    back = read_plan(Storage(tmp_path / "again"))
    assert back is not None
    assert back.table.to_pylist() == plan.table.to_pylist()
    assert set(back.observations) == set(plan.observations)


def test_a_date_before_that_tells_too_little_is_said(world: World, catalog: Path, tmp_path: Path) -> None:
    job = job_of(world, catalog, tmp_path / "run", question={"before": "2024-05-04"})
    assert mapped_km2(job) == {PERMANENT: pytest.approx(true_km2(world, world.after)["water"], abs=2e-4)}
    (line,) = headlines(summary_of(job))
    assert line.startswith("What is flooded?  2024-06-08 17:50 UTC, sentinel-1-db: flood, includes permanent water ")


def test_a_question_about_the_same_ground_finds_what_was_looked_at(world: World, catalog: Path, tmp_path: Path) -> None:
    first = make_plan(job_of(world, catalog, tmp_path / "run"))
    again = plan_again(job_of(world, catalog, tmp_path / "asked", question={"text": "Is there a flood?"}), first)
    assert again.table.drop(["query"]).to_pylist() == first.table.drop(["query"]).to_pylist()
    water = job_of(world, catalog, tmp_path / "asked", question={"text": "Where is water?", "before": None})
    assert set(map(tuple, plan_again(water, first).table["references"].to_pylist())) == {()}


# ── reference water ──────────────────────────────────────────────────────────────────────────────────────────


def raster(path: Path, world: World, numbers: NDArray[Any], *, nodata: float | None = None) -> Path:
    import rasterio

    west, south, east, north = world.bounds
    size = (east - west) / numbers.shape[1]
    transform = Affine(size, 0, west, 0, -(north - south) / numbers.shape[0], north)
    profile = {"driver": "GTiff", "count": 1, "dtype": numbers.dtype, "crs": f"EPSG:{world.epsg}", "nodata": nodata}
    with rasterio.open(
        path, "w", width=numbers.shape[1], height=numbers.shape[0], transform=transform, **profile
    ) as file:
        file.write(numbers, 1)
    return path


def test_polygons_and_rasters_tell_the_same(world: World, catalog: Path, tmp_path: Path) -> None:
    west, south, east, north = world.bounds
    half = (east - west) / 2
    crs = {"type": "name", "properties": {"name": f"EPSG:{world.epsg}"}}
    ground = json.loads(shapely.to_geojson(shapely.box(west, south, west + half, north)))
    outline = tmp_path / "water.geojson"
    outline.write_text(json.dumps({**ground, "crs": crs}))
    percent = np.repeat(np.array([[90, 20]], np.uint8), 2, axis=0).repeat(60, axis=0).repeat(60, axis=1)
    by_file = {"polygons": outline, "percent": raster(tmp_path / "often.tif", world, percent)}
    by_file["share"] = raster(tmp_path / "share.tif", world, (percent / 100).astype(np.float32))
    by_file["mask"] = raster(tmp_path / "mask.tif", world, (percent > 50).astype(np.uint8))
    store = str(tmp_path / "store")
    found = {
        name: mapped_km2(job_of(world, catalog, tmp_path / name, reference_water=str(path), store=store))
        for name, path in by_file.items()
    }
    assert found["percent"] == found["share"] == found["mask"] == found["polygons"]
    assert 0 < found["percent"][FLOOD] < true_km2(world, world.after)["water"]
    keys = {
        job_of(world, catalog, tmp_path / "one", reference_water=str(path)).content_key() for path in by_file.values()
    }
    assert len(keys) == len(by_file)


def test_what_a_raster_does_not_know_is_said(world: World, catalog: Path, tmp_path: Path) -> None:
    numbers = np.full((4, 4), 255, np.uint8)
    numbers[0, 0] = 100
    path = raster(tmp_path / "often.tif", world, numbers)
    found = mapped_km2(job_of(world, catalog, tmp_path / "run", reference_water=str(path)))
    assert set(found) >= {PERMANENT}
    water = open_reference_water(str(path))
    assert water is not None
    assert (water.threshold, water.highest) == (50.0, 100.0)


@pytest.mark.parametrize("name", ["missing.gpkg", "missing.tif", "text.geojson", "text.tif", "empty.tif"])
def test_files_that_tell_no_water_are_refused_before_anything_is_searched(
    world: World, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("no water here")
    if name == "empty.tif":
        raster(path, world, np.full((2, 2), 255, np.uint8), nodata=255)
    with pytest.raises(JobError, match=r"reference water .*(missing|text|empty)"):
        job_of(world, tmp_path / "no catalogue", tmp_path / "run", reference_water=str(path))


def test_reference_water_without_a_question_about_flood_is_refused(world: World, tmp_path: Path) -> None:
    path = tmp_path / "water.geojson"
    path.write_text(shapely.to_geojson(world.area.geometry))
    with pytest.raises(JobError, match="no question asks for flood"):
        job_of(
            world, tmp_path, tmp_path / "run", reference_water=str(path), queries=["Where is water?"]
        )  # fmt: skip
