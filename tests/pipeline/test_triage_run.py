"""Runs with triage from end to end: killed and started again, told on the page, sampled by its strata."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio

from earthmap.metrics.sampling import MINIMUM
from earthmap.outputs.numbers import headlines
from earthmap.pipeline import Run, SampleSpec, draw_sample, open_run, read_job, run_job
from earthmap.pipeline.folder import COVERAGE_PATH, FEATURES_PATH, LEDGER_PATH
from earthmap.synthetic import World, small_world, write_world
from earthmap.tasks import UNSEEN
from tests.pipeline.commands import command, wait_until, write_job

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

SHIPS, SNOW, SHARE = "Find the ships", "Where is snow?", "How much is water?"


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(5, place=(3.0, 45.7), size_m=4500.0, cloud_share=0.0, ships=0.5)


def _job(folder: Path, world: World, catalog: Path) -> Path:
    return write_job(
        folder, world, catalog, out=str(folder / "run"), queries=[SHIPS, SNOW, SHARE], scenes="latest",
        collections=["drawn-aerial"],
        resolution=2.5, triage="coarse",
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Run:
    """Killed while answers are written, and started again."""
    folder = tmp_path_factory.mktemp("killed")
    catalog = write_world(world, tmp_path_factory.mktemp("ships"), sensors=("rgb",))
    job, parts = _job(folder, world, catalog), folder / "run" / "store" / "parts"
    with command(str(job), "--quiet") as running:
        landed = wait_until(lambda: len(list(parts.glob("*/*/manifest.json"))) >= 4, running)
        assert running.kill() == {}
    assert landed
    assert not (folder / "run" / "run.json").exists()
    run_job(read_job(str(job)))
    whole = tmp_path_factory.mktemp("whole")
    run_job(read_job(str(_job(whole, world, catalog))))
    assert (whole / "run" / FEATURES_PATH).read_bytes() == (folder / "run" / FEATURES_PATH).read_bytes()
    assert (whole / "run" / COVERAGE_PATH).read_bytes() == (folder / "run" / COVERAGE_PATH).read_bytes()
    return open_run(folder / "run")


def test_everything_planned_is_answered_or_skipped_by_triage(run: Run) -> None:
    ledger = pq.read_table(io.BytesIO(run.storage.read(LEDGER_PATH))).to_pylist()
    texts = {query["query_key"]: query["text"] for query in run.summary["queries"]}
    counted = Counter((texts[row["query"]], row["status"], row["reason"]) for row in ledger)
    tiles = run.summary["tiles"]
    assert tiles > 160
    for text in (SHIPS, SNOW):
        assert counted[text, "answered", None] + counted[text, "skipped", "triage"] == tiles
        assert counted[text, "skipped", "triage"] > 0
        (layer,) = next(query for query in run.summary["queries"] if query["text"] == text)["observations"]
        assert layer["triage"]["audit"]["audited"] == 150
        audited = [json.loads(row["triage"])["audited"] for row in ledger if texts[row["query"]] == text]
        assert sum(audited) == 150
    assert counted[SHARE, "answered", None] == tiles
    coverage = geopandas.read_parquet(io.BytesIO(run.storage.read(COVERAGE_PATH)))
    assert (coverage.loc[coverage["reason"] == "triage", "seen_share"] == 0.0).all()


def test_the_page_and_the_terminal_tell_what_may_be_missed(run: Run) -> None:
    page = run.storage.read("report.html").decode()
    said = "\n".join(headlines(run.summary))
    assert "What was not looked at" in page
    assert "of 150 drawn" in page
    assert "bounds count them as unseen" in said
    assert "of all tiles with a target are missed (95 %)" in said
    assert "Hatched ground was not seen, or not asked" in page


def test_skipped_ground_is_a_stratum_of_samples_of_pixels_and_of_tiles(run: Run) -> None:
    for text in (SNOW, SHIPS):
        sample = draw_sample(run, SampleSpec(units=150, question=text))
        strata = {one["name"]: one for one in sample.to_dict()["strata"]}
        skipped = strata["skipped by triage"]
        assert skipped["drawn"] >= min(MINIMUM, skipped["units"]) > 0
        assert "unseen" not in strata
        units = [unit for unit in sample.design.units if unit.stratum == "skipped by triage"]
        coverage = geopandas.read_parquet(io.BytesIO(run.storage.read(COVERAGE_PATH)))
        of_triage = set(coverage.loc[coverage["reason"] == "triage", "tile_id"])
        assert {unit.tile_id for unit in units} <= of_triage


def test_class_rasters_have_probabilities_beside_them_where_answers_state_any(run: Run) -> None:
    """The oracle is sure of all that it saw; the item names both."""
    assets = json.loads(run.storage.read("item.json"))["assets"]
    assert assets["probabilities_1"]["href"] == assets["classes_1"]["href"].replace("classes/", "probabilities/")
    with (
        rasterio.open(Path(run.address, assets["classes_1"]["href"])) as classes,
        rasterio.open(Path(run.address, assets["probabilities_1"]["href"])) as sure,
    ):
        assert (sure.transform, sure.crs, sure.shape) == (classes.transform, classes.crs, classes.shape)
        codes, percent = classes.read(1), sure.read(1)
    np.testing.assert_array_equal(percent, np.where(codes == UNSEEN, UNSEEN, 100))
    assert 0 < (codes == UNSEEN).sum() < codes.size
