"""Composites and measured choices from end to end: which observations answered is said everywhere alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from earthmap.catalog import narrow
from earthmap.cube import CellRead, compose, open_cell
from earthmap.grid import AreaOfInterest, owned_ground
from earthmap.pipeline import Run, make_plan, parse_job, publish_report, run_job
from earthmap.pipeline.plan import Plan, read_plan
from earthmap.storage import Storage
from earthmap.synthetic import World

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(280)]


def job(world: World, catalog: Path, out: Path, share: float = 0.5, **changes: Any) -> Any:
    west, south, east, north = world.bounds
    dx, dy = (east - west) * (1 - share) / 2, (north - south) * (1 - share) / 2
    box = shapely.box(west + dx, south + dy, east - dx, north - dy)
    values = {
        "area": AreaOfInterest.from_geometry(box, f"EPSG:{world.epsg}"),
        "catalog": str(catalog),
        "collections": ["drawn-sentinel-2-l2a"],
        "queries": ["Where is water?"],
        "tile_size": 128,
        "out": str(out),
    }
    return parse_job({**values, **changes})


def ledger(run: Run) -> Any:
    return pq.read_table(Path(run.address) / "ledger.parquet")


@pytest.fixture(scope="module")
def median(drawn_world: World, drawn_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_job(job(drawn_world, drawn_catalog, tmp_path_factory.mktemp("median") / "run", scenes="median"))


def plan_of(run: Run) -> Plan:
    plan = read_plan(run.storage)
    assert plan is not None
    return plan


def test_a_composite_is_one_observation_whose_scenes_are_all_named(median: Run) -> None:
    plan = plan_of(median)
    composites = [one for one in plan.observations.values() if one.members]
    assert composites
    assert all(len(one.members) == 2 for one in composites)
    assert set(ledger(median)["observation"].to_pylist()) == {one.id for one in composites}
    every = {scene.id for one in composites for scene in one.scenes}
    features = median.features
    assert len(features)
    named = {name for names in features.scenes for name in names}
    assert named <= every
    assert {name[:-2] for name in named} == {name[:-2] for name in every}  # both dates; the last digit is the granule
    assert (features.datetime_min < features.datetime_max).all()
    item = json.loads(median.storage.read("item.json"))
    assert item["properties"]["start_datetime"][:10] != item["properties"]["end_datetime"][:10]
    publish_report(median)


def test_its_pixels_are_the_median_of_its_members(median: Run) -> None:
    plan, store = plan_of(median), Storage(median.job.store)
    for work in plan.work():
        (name,) = {name for question in work.questions for name in question.observations}
        own = narrow(plan.observations[name], owned_ground(work.cell))
        assert own is not None
        read = CellRead.of(work.cell, own)
        group = open_cell(store, read.path)
        data, mask = group.read()
        again = compose(read, [open_cell(store, part.path) for part in read.members])
        assert again.data.tobytes() == data.tobytes()
        assert again.mask.tobytes() == mask.tobytes()
        looks = group.read_rows("looks", slice(None))
        assert looks.max() == 2
        np.testing.assert_array_equal(looks > 0, mask == 0)


def test_a_composite_is_made_once(median: Run, drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> None:
    """The same composite in a larger area comes from the same groups: nothing of it is read again."""
    wider = job(drawn_world, drawn_catalog, tmp_path / "run", share=0.55, scenes="median", store=median.job.store)
    again = json.loads(run_job(wider).storage.read("run.json"))
    cells = plan_of(median).cells
    assert again["groups"]["reused"] >= cells


def test_the_least_cloud_over_the_cell_answers(drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> None:
    """The catalogue says that the cloudy date is clear and the clear one cloudy; the layers know better."""
    import shutil

    folder = tmp_path / "scenes"
    shutil.copytree(drawn_catalog.parent, folder)
    for path in folder.rglob("*.json"):
        text = json.loads(path.read_text())
        if text.get("type") == "Feature":
            clear = text["properties"]["datetime"].startswith(drawn_world.before.date().isoformat())
            text["properties"]["eo:cloud_cover"] = 60.0 if clear else 0.0
            path.write_text(json.dumps(text))
    asked = job(drawn_world, folder / drawn_catalog.name, tmp_path / "run")
    plan = make_plan(asked)
    stated = {name for work in plan.work() for question in work.questions for name in question.observations}
    assert all(f"{drawn_world.after:%Y%m%d}" in name for name in stated)
    run = run_job(asked)
    names = set(ledger(run)["observation"].to_pylist())
    assert all(f"{drawn_world.before:%Y%m%d}" in name for name in names)
    item = json.loads(run.storage.read("item.json"))
    assert item["properties"]["datetime"][:10] == drawn_world.before.date().isoformat()
    publish_report(run)


def test_a_larger_plan_contains_the_smaller(drawn_world: World, drawn_catalog: Path, tmp_path: Path) -> None:
    for rule in ({"scenes": "median"}, {"scenes": "least_cloud"}, {"scenes": "nearest", "date": "2024-06-01"}):
        small, large = (
            make_plan(job(drawn_world, drawn_catalog, tmp_path / "run", share=share, **rule)) for share in (0.3, 0.8)
        )

        def paths(plan: Plan) -> dict[str, list[str]]:
            return {work.cell.id: reads(work, plan) for work in plan.work()}

        def reads(work: Any, plan: Plan) -> list[str]:
            ground = owned_ground(work.cell)
            names = [name for one in work.questions for name in (*one.observations, *one.fallbacks)]
            narrowed = [narrow(plan.observations[name], ground) for name in names]
            return [CellRead.of(work.cell, own).path for own in narrowed if own is not None]

        inner, outer = paths(small), paths(large)
        assert set(inner) <= set(outer)
        assert all(outer[cell] == of for cell, of in inner.items())
