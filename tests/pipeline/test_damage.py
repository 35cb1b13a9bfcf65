"""Damage of footprints on a drawn town: every footprint comes out as it was given, with the grade that is true."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

from earthmap.errors import BadRequestError, JobError, RunFolderError
from earthmap.grid import AreaOfInterest
from earthmap.merge import merge_cell
from earthmap.outputs.evidence import Evidence
from earthmap.pipeline import Job, export_run, make_plan, open_run, parse_job, read_job, run_job
from earthmap.pipeline.batches import _ledger
from earthmap.pipeline.class_maps import choose_layer
from earthmap.pipeline.crops import crops_of, export_crops, worst_first
from earthmap.pipeline.flood_parts import predict_work
from earthmap.pipeline.folder import RUN_PATH
from earthmap.pipeline.footprint_cells import lay_out
from earthmap.pipeline.merged import MergedCells
from earthmap.pipeline.plan import _Asking, _of_finest, read_plan, write_plan
from earthmap.pipeline.publish import publish
from earthmap.pipeline.reading import read_work
from earthmap.pipeline.run import claim
from earthmap.pipeline.stages import gather
from earthmap.storage import Storage
from earthmap.synthetic import World, building_grades, quake_world, standing_on, write_world
from earthmap.tasks.damage import EMS_GRADES, NOT_ANALYSED, SCALE
from tests.pipeline.cells import context_of
from tests.pipeline.commands import command, wait_until

QUESTION = "Which buildings are damaged?"


@dataclass(frozen=True)
class Town:
    """A drawn town, its catalogue and footprints of its buildings, and of some things that are none."""

    world: World
    catalog: Path
    footprints: Path
    truth: Mapping[str, str]
    """EMS's grade by id of the footprints of buildings."""
    frame: Any


def _odd(world: World) -> Any:
    """Footprints that nothing can be said of, and a building given twice."""
    west, south, east, north = world.bounds
    building = standing_on(world, "building").outlines[0]
    bow = shapely.Polygon([(west, south), (west + 9, south + 9), (west + 9, south), (west, south + 9)])
    return {
        "twice": building,
        "far": shapely.box(east + 500, north, east + 510, north + 10),
        "none": None,
        "meadow": shapely.box(west + 5, north - 20, west + 15, north - 5),
        "tiny": shapely.box(west + 50, north - 20, west + 50.4, north - 19.6),
        "bow": bow,
        "middle": building.centroid,
    }


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """On the border of two zones, in tiles of 90 m: many footprints lie across seams."""
    folder = tmp_path_factory.mktemp("town")
    world = quake_world(85, place=(6.0, 45.7), size_m=480.0, resolution_m=0.8)
    catalog = write_world(world, folder / "scenes", sensors=("rgb",), columns=1)
    buildings, odd = standing_on(world, "building").outlines, _odd(world)
    ids = [*(f"b{number}" for number in range(len(buildings))), *odd]
    frame = geopandas.GeoDataFrame(
        {"id": ids, "floors": range(len(ids))}, geometry=[*buildings, *odd.values()], crs=f"EPSG:{world.epsg}"
    )
    frame.to_parquet(folder / "buildings.parquet")
    grades = [SCALE[grade].ems for grade in building_grades(world).tolist()]
    truth = dict(zip(ids, grades, strict=False)) | {"twice": grades[0], "middle": grades[0]}
    return Town(world, catalog, folder / "buildings.parquet", truth, frame.to_crs(4326))


def _job(town: Town, out: Path, **more: Any) -> Job:
    values: dict[str, Any] = {
        "area": town.world.area.to_geojson(),
        "catalog": str(town.catalog),
        "queries": [QUESTION],
        "out": str(out),
    }
    values |= {"predictor": "oracle", "footprints": str(town.footprints), "tile_size": 128}
    return parse_job({**values, **more})


def _published(job: Job) -> Storage:
    """The run folder of a job, worked on in this process."""
    plan, out = make_plan(job), Storage(job.spec.out)
    claim(out, job)
    write_plan(out, plan)
    context = dataclasses.replace(context_of(job, plan), footprints=lay_out(job, plan.grid, Storage(job.store)))
    merged = MergedCells.of(context.store, out, execution=1)
    for work in plan.work():
        groups = {name: committed.path for name, committed in read_work(work, context).items()}
        parts = predict_work(work, groups, context)
        answers = gather(work, parts, context)
        given = context.footprints.of_cell(work.cell) if context.footprints is not None else None
        merge = merge_cell(
            work.cell,
            answers,
            area=job.area,
            queries=context.queries,
            tiles=work.tiles,
            by_observation=False,
            footprints=given.given if given is not None else None,
        )
        merged.write(merge, _ledger(answers, parts, context))
    publish(out, job=job, plan=plan, merged=merged)
    out.write(RUN_PATH, b"{}")
    return out


def _features(out: Storage) -> Any:
    return geopandas.read_parquet(Path(out.address) / "features.parquet")


@pytest.fixture(scope="module")
def graded(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return _published(_job(town, tmp_path_factory.mktemp("run")))


def test_footprints_in_are_footprints_out(town: Town, graded: Storage) -> None:
    found = _features(graded).sort_values("footprint")
    assert found["footprint"].tolist() == list(range(1, len(town.frame) + 1))
    assert found["id"].tolist() == town.frame["id"].tolist()
    wkb = [None if shape is None else shapely.to_wkb(shape) for shape in town.frame.geometry]
    assert [None if shape is None else shapely.to_wkb(shape) for shape in found.geometry] == wkb
    assert [json.loads(text)["floors"] for text in found["properties"]] == town.frame["floors"].tolist()


def test_the_grades_are_those_of_the_buildings(town: Town, graded: Storage) -> None:
    found = _features(graded).set_index("id")
    assert {name: found.at[name, "answer"] for name in town.truth} == dict(town.truth)
    assert set(town.truth.values()) == set(EMS_GRADES) - {NOT_ANALYSED}
    told = found.loc[list(town.truth)]
    assert (told["probability"] == 1.0).all()
    assert told["reason"].isna().all()
    xbd = {grade.ems: grade.xbd for grade in SCALE}
    assert told["grade_xbd"].tolist() == [xbd[answer] for answer in told["answer"]]
    assert (told["datetime_max"] > told["datetime_min"]).all()
    assert (told["scenes"].map(len) == 2).all()
    zones = {name.split("_")[3] for names in told["tile_ids"] for name in names}
    assert zones == {"31N", "32N"}
    assert (told["tile_ids"].map(len) == 1).all()


def test_what_is_not_analysed_says_why(graded: Storage) -> None:
    found = _features(graded).set_index("id")
    lost = found[found["answer"] == NOT_ANALYSED]
    reasons = {
        "far": "outside",
        "none": "no_geometry",
        "meadow": "no_building",
        "tiny": "too_small",
        "bow": "no_building",
    }
    assert lost["reason"].to_dict() == reasons
    assert lost["message"].map(lambda text: len(text) > 10).all()
    assert lost["probability"].isna().all()
    assert lost["grade_xbd"].isna().all()
    assert "crosses itself" in "; ".join(found.at["bow", "notes"])
    assert "is that of b0 too" in "; ".join(found.at["twice", "notes"])


def test_the_summary_counts_by_grade_with_what_has_none_apart(town: Town, graded: Storage) -> None:
    (query,) = json.loads(graded.read("summary.json"))["queries"]
    counted = pd.Series(list(town.truth.values())).value_counts().to_dict()
    assert query["by_grade"] == counted
    assert query["footprints"] == len(town.frame)
    assert query["graded"] == len(town.truth)
    assert query["not_analysed"] == {"no_building": 2, "no_geometry": 1, "outside": 1, "too_small": 1}


def _change(crop: Evidence) -> float:
    """Mean difference of the dates inside the bounds of the outline."""
    low, high = (np.round(edge(crop.outlines[0], axis=0)).astype(int) for edge in (np.min, np.max))
    inner = slice(max(low[1], 0) + 2, high[1] - 2), slice(max(low[0], 0) + 2, high[0] - 2)
    before, after = (rgb[inner].astype(float) for rgb in crop.rgb)
    return float(np.abs(before - after).mean())


def test_pictures_before_and_after_are_of_the_worst(town: Town, graded: Storage) -> None:
    from PIL import Image

    index = json.loads(graded.read("crops/index.json"))
    order = [EMS_GRADES.index(one["answer"]) for one in index]
    assert order == sorted(order)
    assert {one["id"] for one in index} == set(town.truth)
    assert index[0]["answer"] == "destroyed"
    assert index[-1]["answer"] == "no visible damage"

    with Image.open(Path(graded.address) / "crops" / index[0]["file"]) as picture:
        assert picture.size == (2 * 176 + 4, 176)
    plan = read_plan(graded)
    assert plan is not None
    worst = worst_first(_features(graded))
    by_grade: dict[str, list[float]] = {}
    store = Storage(f"{graded.address}/store")
    for crop, grade in zip(crops_of(worst, plan=plan, store=store), worst["answer"], strict=True):
        if crop.outlines:  # a point has none
            by_grade.setdefault(grade, []).append(_change(crop))
    assert min(by_grade["destroyed"]) > 2 * max(by_grade["no visible damage"])
    page = graded.read("report.html").decode()
    for said in ("The worst damaged, before and after", "not analysed", "#c61a1a", "footprints outside the area"):
        assert said in page


@pytest.mark.slow
def test_pictures_of_all_are_exported(town: Town, graded: Storage, tmp_path: Path) -> None:
    run = open_run(graded.address)
    folder, count = export_crops(run, out=str(tmp_path / "all"))
    assert Path(folder) == tmp_path / "all"
    assert count == len(town.truth) == len(list(Path(folder).glob("*.png")))
    with pytest.raises(RunFolderError, match="--overwrite"):
        export_crops(run, out=str(tmp_path / "all"))
    assert export_crops(run, out=str(tmp_path / "all"), overwrite=True)[1] == count


def test_grades_are_not_sampled_as_pixels(graded: Storage) -> None:
    with pytest.raises(JobError, match="its answers are about footprints"):
        choose_layer(open_run(graded.address))


@pytest.mark.parametrize("to", ["gpkg", "geojson", "fgb", "kml"])
def test_an_export_leaves_no_footprint_out(town: Town, graded: Storage, tmp_path: Path, to: str) -> None:
    done = export_run(open_run(graded.address), to=to, out=str(tmp_path / f"a.{to}"))
    assert done.features == len(town.frame)
    if to == "geojson":
        found = json.loads((tmp_path / "a.geojson").read_text())["features"]
        assert sum(one["geometry"] is None for one in found) == 1
        assert {one["properties"]["id"] for one in found} == set(town.frame["id"])


@pytest.mark.slow
def test_other_tiles_and_areas_change_no_grade(town: Town, graded: Storage, tmp_path: Path) -> None:
    whole = _features(graded).set_index("id")
    large = _features(_published(_job(town, tmp_path / "a", tile_size=448))).set_index("id")
    assert large["answer"].to_dict() == whole["answer"].to_dict()
    west, south, east, north = town.world.area.bounds
    half = [west, south, (west + east) / 2, north]
    part = _features(_published(_job(town, tmp_path / "b", area=half, store=f"{graded.address}/store"))).set_index("id")
    assert len(part) == len(whole)
    inside = AreaOfInterest.from_bbox(*half).geometry
    places = town.frame.set_index("id").geometry
    for name, grade in town.truth.items():
        expected = grade if inside.intersects(shapely.centroid(places[name])) else NOT_ANALYSED
        assert part.at[name, "answer"] == expected


@pytest.mark.slow
def test_the_same_footprints_give_the_same_bytes(town: Town, graded: Storage, tmp_path: Path) -> None:
    again = _published(_job(town, tmp_path, store=f"{graded.address}/store"))
    assert again.read("features.parquet") == graded.read("features.parquet")
    parts = [path for path in Storage(f"{graded.address}/store").list("parts") if path.endswith("manifest.json")]
    fewer = tmp_path / "fewer.parquet"
    geopandas.read_parquet(town.footprints).iloc[:-1].to_parquet(fewer)
    _published(_job(town, tmp_path / "c", store=f"{graded.address}/store", footprints=str(fewer)))
    now = [path for path in Storage(f"{graded.address}/store").list("parts") if path.endswith("manifest.json")]
    assert len(now) == len(parts) + 1  # of the one cell that has other footprints


@pytest.mark.slow
def test_coarse_pixels_are_refused_with_a_sentence(town: Town, tmp_path: Path) -> None:
    found = _features(_published(_job(town, tmp_path, resolution=1.6, queries=[QUESTION, "Where is water?"])))
    found = found[found["task"] == "damage"]
    inside = found[~found["reason"].isin(["outside", "no_geometry"])]
    assert set(inside["reason"]) == {"too_coarse"}
    assert "0.8 m at most" in inside["message"].iloc[0]
    assert set(found["answer"]) == {NOT_ANALYSED}


@pytest.mark.slow
def test_a_date_without_scenes_leaves_every_footprint_with_its_reason(town: Town, tmp_path: Path) -> None:
    asked = {"text": QUESTION, "after": "2030-01-01/2030-02-01"}
    found = _features(_published(_job(town, tmp_path, queries=[asked, "Where is water?"])))
    found = found[found["task"] == "damage"]
    assert set(found["answer"]) == {NOT_ANALYSED}
    assert set(found["reason"]) == {"one_date", "outside", "no_geometry"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"footprints": None, "queries": [{"text": QUESTION, "task": "damage"}]}, "--footprints"),
        ({"predictor": "spectral"}, "spectral cannot grade"),
    ],
)
def test_what_cannot_be_graded_is_refused_before_anything_is_spent(
    town: Town, tmp_path: Path, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadRequestError, match=says):
        _job(town, tmp_path, **more)


def test_none_on_the_area_is_refused_before_the_catalogue_is_read(town: Town, tmp_path: Path) -> None:
    job = _job(town, tmp_path, area=[10.0, 45.0, 10.01, 45.01], catalog=str(tmp_path / "missing.json"))
    with pytest.raises(JobError, match="overlaps the area"):
        make_plan(job)


def test_without_footprints_the_words_ask_for_what_they_did() -> None:
    from earthmap.tasks import guess_task

    assert guess_task(QUESTION, open_vocabulary=True) == "detect"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("ray_cluster")
def test_killed_and_started_again_it_gives_the_same_bytes(town: Town, graded: Storage, tmp_path: Path) -> None:
    """On Ray, by the command, ended without warning as soon as the first answers are there."""
    job = _job(town, tmp_path / "run")
    (tmp_path / "job.json").write_text(json.dumps(job.to_dict()))
    parts = tmp_path / "run" / "store" / "parts"
    with command(str(tmp_path / "job.json"), "--quiet") as running:
        assert wait_until(lambda: any(parts.rglob("manifest.json")), running)
        assert not running.kill()
    assert not (tmp_path / "run" / "run.json").exists()
    committed = {path: path.read_bytes() for path in parts.rglob("manifest.json")}
    run_job(read_job(str(tmp_path / "job.json")))
    assert (tmp_path / "run" / "features.parquet").read_bytes() == graded.read("features.parquet")
    assert {path: path.read_bytes() for path in committed} == committed


def test_of_several_sensors_the_finest_is_asked_once(town: Town, tmp_path: Path) -> None:
    seen = list(make_plan(_job(town, tmp_path)).observations.values())
    first, second = (one.id for one in seen)
    coarse = [
        dataclasses.replace(
            one,
            id=f"coarse {one.id}",
            scenes=tuple(dataclasses.replace(scene, resolution_m=10.0) for scene in one.scenes),
        )
        for one in seen
    ]
    askings = [_Asking(tuple(one.id for one in coarse)), _Asking((first, second)), _Asking((first, second))]
    assert _of_finest(askings, [*coarse, *seen]) == [_Asking((first, second))]
    assert _of_finest([_Asking(unfound="one_date")], seen) == [_Asking(unfound="one_date")]
