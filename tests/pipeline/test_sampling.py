"""From a finished run to a corrected area: drawn scenes, thresholds that are wrong, labels from the drawn truth."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from earthmap.cli import main
from earthmap.errors import JobError, RunFolderError
from earthmap.grid import Cell, owner, pixel_area_m2
from earthmap.metrics.sampling import BOUNDARY, OUTSIDE, SKIPPED, UNSEEN_GROUND
from earthmap.pipeline import Run, Sample, SampleSpec, draw_sample, open_run, parse_job, run_job
from earthmap.pipeline.class_maps import ClassMap, choose_layer
from earthmap.pipeline.design import Design, read_design
from earthmap.synthetic import World, small_world, standing_on, truth_on, write_world
from earthmap.tasks import UNSEEN

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(280)]

PRESENCE, WATER, CHANGE = "Is there any snow?", "Where is water?", "Where did water appear or disappear?"
FEW = SampleSpec(units=150)
"""As many as three strata have at least."""


@pytest.fixture(scope="module")
def mapped(drawn_world: World, drawn_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run by thresholds, to look at; samples may be added to it."""
    values = {
        "area": drawn_world.area,
        "catalog": str(drawn_catalog),
        "collections": ["drawn-sentinel-2-l2a"],
        "queries": [PRESENCE, WATER, CHANGE],
        "predictor": "spectral",
        "tile_size": 128,
        "scenes": "all",
        "out": str(tmp_path_factory.mktemp("mapped") / "run"),
    }  # fmt: skip
    return run_job(parse_job(values))


@pytest.fixture(scope="module")
def sampled(mapped: Run, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A sample of the first question with classes, as the latest date shows it."""
    return draw_sample(mapped, FEW, out=str(tmp_path_factory.mktemp("sampled")))


def _classes(run: Run, question: str, observation: str | None = None) -> Iterator[tuple[Cell, np.ndarray, np.ndarray]]:
    with ClassMap(run, choose_layer(run, question=question, observation=observation)) as classes:
        for part in classes.cells():
            yield part.cell, part.codes, part.strata


def test_strata_are_the_ground_that_the_run_counts_as_it_counts_it(mapped: Run) -> None:
    for question in (WATER, CHANGE):
        layer = choose_layer(mapped, question=question)
        with ClassMap(mapped, layer) as classes:
            legend, found = classes.legend, dict[int, float]()
            for part in classes.cells():
                counted = part.strata != OUTSIDE
                for code in np.unique(part.codes[counted]).tolist():
                    area = float(part.area_m2[counted & (part.codes == code)].sum())
                    found[code] = found.get(code, 0.0) + area
                assert ((part.strata == UNSEEN_GROUND) == (counted & (part.codes == UNSEEN))).all()
        (numbers,) = (
            entry for entry in mapped.summary["queries"][layer.number - 1]["observations"]
            if entry["observation"] == layer.observation
        )  # fmt: skip
        assert sum(found.values()) / 1e6 == pytest.approx(numbers["area_km2"], abs=1e-4)
        assert found.get(UNSEEN, 0.0) / 1e6 == pytest.approx(numbers["area_km2"] - numbers["seen_km2"], abs=2e-4)
        for code, name in legend.items():
            if code:
                assert found.get(code, 0.0) / 1e6 == pytest.approx(numbers["km2"].get(name, 0.0), abs=1e-4)


def test_boundaries_go_on_across_the_seams_of_cells(mapped: Run) -> None:
    """What one raster of the whole zone says of the boundary is what the cells say one by one."""
    import rasterio

    from earthmap.metrics import boundary_strata

    layer = choose_layer(mapped, question=WATER)
    with ClassMap(mapped, layer) as classes:
        ((path, _),) = classes.rasters.items()
        parts = list(classes.cells())
    assert len(parts) > 1
    with rasterio.open(Path(mapped.address, path)) as source:
        whole, corner = boundary_strata(source.read(1), nothing=UNSEEN), source.transform
    for part in parts:
        place = part.cell.core_geobox.affine
        row, column = round((corner.f - place.f) / -place.e), round((place.c - corner.c) / place.a)
        expected = whole[row : row + part.codes.shape[0], column : column + part.codes.shape[1]]
        seen = (part.strata != OUTSIDE) & (part.strata < SKIPPED)
        np.testing.assert_array_equal(part.strata[seen], expected[seen])


def test_units_are_pixels_of_their_strata_on_ground_that_their_cell_owns(mapped: Run, sampled: Sample) -> None:
    design = sampled.design
    assert len(design.units) == 150
    assert len({unit.id for unit in design.units}) == len(
        {(unit.cell_id, unit.row, unit.column) for unit in design.units}
    )
    maps = {cell.id: (codes, strata) for cell, codes, strata in _classes(mapped, WATER)}
    for unit in design.units:
        cell = Cell.parse(unit.cell_id)
        codes, strata = (values[unit.row, unit.column] for values in maps[unit.cell_id])
        assert unit.mapped == ("none", "water")[codes]
        assert unit.stratum == ("boundary" if strata == BOUNDARY else unit.mapped)
        zone, north, row, column = (part.item() for part in owner(cell.grid, [unit.lon], [unit.lat]))
        assert (cell.zone.number, cell.zone.north) == (zone, north)
        assert unit.tile_id.endswith(f"_t{row}_{column}")
        assert unit.area_m2 == pytest.approx(pixel_area_m2(cell.core_geobox)[unit.row, unit.column])
    by_stratum = Counter(unit.stratum for unit in design.units)
    for stratum in design.strata:
        assert by_stratum[stratum.name] >= min(50, stratum.size)
        drawn = [unit for unit in design.units if unit.stratum == stratum.name]
        assert sum(unit.area_m2 / unit.inclusion for unit in drawn) == pytest.approx(stratum.area, rel=1e-6)


def test_what_is_labelled_is_blind_and_has_a_picture_of_each_unit(sampled: Sample) -> None:
    folder = Path(sampled.folder)
    sheet = geopandas.read_file(folder / "sample.gpkg", layer="sample")
    assert list(sheet.columns) == ["id", "label", "date", "note", "lon", "lat", "chip", "geometry"]
    assert set(sheet["date"]) == {sampled.layer.datetime_min[:10]}
    assert sampled.chips == len(sheet) == len(sampled.design.units)
    assert all((folder / chip).is_file() for chip in sheet["chip"])
    assert "earthmap estimate" in (folder / "HOW-TO.txt").read_text()
    named = [unit.stratum for unit in sorted(sampled.design.units, key=lambda unit: unit.id)]
    assert named != sorted(named)


def test_a_seed_gives_one_sample_and_another_seed_another(mapped: Run, sampled: Sample, tmp_path: Path) -> None:
    again = draw_sample(mapped, FEW, out=str(tmp_path / "again"))
    assert again.design == sampled.design
    for name in ("sample.gpkg", f"chips/{sampled.design.units[0].id}.png"):
        assert (tmp_path / "again" / name).read_bytes() == Path(sampled.folder, name).read_bytes()
    other = draw_sample(mapped, SampleSpec(units=150, seed=1), out=str(tmp_path / "other")).design
    assert other.key != sampled.design.key
    assert {(unit.row, unit.column) for unit in other.units} != {(unit.row, unit.column) for unit in again.design.units}


def _true_labels(world: World, design: Design, *, change: bool) -> dict[str, str]:
    """What the drawn truth says of each unit."""
    labels, truths = {}, {}
    for unit in design.units:
        if unit.cell_id not in truths:
            geobox = Cell.parse(unit.cell_id).core_geobox
            truths[unit.cell_id] = [truth_on(world, geobox, date) == 1 for date in (world.before, world.after)]
        before, after = (bool(water[unit.row, unit.column]) for water in truths[unit.cell_id])
        if change:
            labels[unit.id] = "water gained" if after > before else "water lost" if before > after else "none"
        else:
            labels[unit.id] = "water" if after else "none"
    return labels


def _true_m2(run: Run, world: World, question: str, name: str) -> float:
    """Ground of the area that the drawn truth gives a class, seen or not."""
    total = 0.0
    for cell, _, strata in _classes(run, question):
        before, after = (truth_on(world, cell.core_geobox, date) == 1 for date in (world.before, world.after))
        is_it = {"water": after, "water gained": after & ~before, "water lost": before & ~after}[name]
        total += float(pixel_area_m2(cell.core_geobox)[is_it & (strata != OUTSIDE)].sum())
    return total


@pytest.mark.parametrize(("question", "name"), [(WATER, "water"), (CHANGE, "water gained")])
def test_labels_from_the_truth_give_the_true_area_from_the_command_line(
    question: str, name: str, mapped: Run, drawn_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["sample", mapped.address, "--question", question, "--out", str(out), "--n", "200", "--json"]) == 0
    shown = capsys.readouterr().out
    assert "how to label them" in shown
    key = json.loads(shown.splitlines()[-1])["sample"]
    labels = _true_labels(drawn_world, read_design(mapped.storage, key), change=question == CHANGE)
    sheet = geopandas.read_file(out / "sample.gpkg", layer="sample")
    sheet["label"] = sheet["id"].map(labels)
    sheet.to_file(tmp_path / "labelled.gpkg", layer="sample")
    assert main(["estimate", mapped.address, str(tmp_path / "labelled.gpkg"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads(mapped.storage.read(f"samples/{key}/estimate.json")) == told
    (found,) = (one for one in told["classes"] if one["class"] == name)
    truth = _true_m2(mapped, drawn_world, question, name) / 1e6
    assert found["bounds_km2"][0] <= truth <= found["bounds_km2"][1]
    unseen = told["unseen_km2"]
    assert found["interval_km2"][0] - 1e-9 <= truth <= found["interval_km2"][1] + unseen
    assert found["bounds_km2"][1] == pytest.approx(found["interval_km2"][1] + unseen, abs=1e-5)
    assert sum(one["km2"] for one in told["classes"]) == pytest.approx(told["estimated_km2"], abs=1e-4)
    assert told["area_km2"] == pytest.approx(told["estimated_km2"] + unseen, abs=1e-5)


def test_a_mosaic_is_sampled_with_the_date_of_each_cell(
    drawn_world: World, drawn_catalog: Path, tmp_path: Path
) -> None:
    values = {
        "area": drawn_world.area,
        "catalog": str(drawn_catalog),
        "collections": ["drawn-sentinel-2-l2a"],
        "queries": [WATER],
        "predictor": "spectral",
        "tile_size": 128,
        "resolution": 5,  # so that there are cells enough for the clouds to be over some of them only
        "out": str(tmp_path / "run"),
    }
    run = run_job(parse_job(values))
    design = draw_sample(run, FEW, out=str(tmp_path / "out")).design
    (numbers,) = run.summary["queries"][0]["observations"]
    assert numbers["observation"] == design.observation == "sentinel-2-l2a_mosaic"
    assert {unit.date for unit in design.units} == {
        f"{date:%Y-%m-%d}" for date in (drawn_world.before, drawn_world.after)
    }
    found = sum(stratum.mapped.get("water", 0.0) for stratum in design.strata)
    assert found / 1e6 == pytest.approx(numbers["km2"]["water"], abs=1e-4)
    total = sum(stratum.area for stratum in (*design.strata, *design.unsampled))
    assert total / 1e6 == pytest.approx(numbers["area_km2"], abs=1e-4)


# ── things ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def ships(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Run]:
    """A world over the border of two zones, in which the oracle finds the ships."""
    world = small_world(3, place=(6.0, 45.7), size_m=6000.0, cloud_share=0.0, ships=0.9)
    folder = tmp_path_factory.mktemp("ships")
    values = {
        "area": world.area,
        "catalog": str(write_world(world, folder / "scenes", sensors=("sentinel-2",))),
        "queries": ["How many ships are there?", WATER],
        "predictor": "oracle",
        "tile_size": 128,
        "scenes": "latest",
        "out": str(folder / "run"),
    }
    return world, run_job(parse_job(values))


def _middles(world: World) -> np.ndarray:
    """Longitude and latitude of the middle of each ship."""
    from pyproj import Transformer

    turn = Transformer.from_crs(world.epsg, 4326, always_xy=True)
    points = shapely.centroid(shapely.envelope(standing_on(world, "ship").outlines))
    return shapely.transform(points, lambda xy: np.column_stack(turn.transform(xy[:, 0], xy[:, 1])))


def test_tiles_are_drawn_by_what_was_found_and_counts_give_the_true_number(
    ships: tuple[World, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world, run = ships
    sample = draw_sample(run, SampleSpec(units=400), out=str(tmp_path / "out"))
    design = sample.design
    assert design.counts
    assert {Cell.parse(unit.cell_id).zone.id for unit in design.units} == {"31N", "32N"}
    assert sample.chips == len(design.units) == sum(stratum.size for stratum in design.strata)
    assert sum(design.found.values()) == run.summary["queries"][0]["observations"][0]["total"]
    sheet = geopandas.read_file(tmp_path / "out" / "sample.gpkg", layer="sample")
    assert shapely.union_all(sheet.geometry.values).area == pytest.approx(run.job.area.geometry.area, rel=1e-3)
    middles = _middles(world)
    labels = {
        name: int(shapely.contains(ground, middles).sum())
        for name, ground in zip(sheet["id"], sheet.geometry, strict=True)
    }
    assert sum(labels.values()) == len(middles) > 5
    table = tmp_path / "labels.csv"
    table.write_text("id,label\n" + "\n".join(f"{name},{count}" for name, count in labels.items()))
    assert main(["estimate", run.address, str(table), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["count"] == told["interval_count"][0] == told["interval_count"][1] == len(middles)
    assert told["answer"] == "enough evidence"


def test_ground_is_owned_once_where_two_zones_meet(ships: tuple[World, Run]) -> None:
    _, run = ships
    layer = choose_layer(run, question=WATER)
    total, zones = 0.0, set()
    with ClassMap(run, layer) as classes:
        for part in classes.cells():
            total += float(part.area_m2[part.strata != OUTSIDE].sum())
            zones.add(part.cell.zone.id)
    assert zones == {"31N", "32N"}
    assert total / 1e6 == pytest.approx(run.summary["queries"][1]["observations"][0]["area_km2"], abs=1e-4)
    assert total / 1e6 == pytest.approx(run.job.area.area_km2, rel=2e-3)


# ── what cannot be sampled ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (SampleSpec(question=PRESENCE), "about whole tiles"),
        (SampleSpec(question="1"), "about whole tiles"),
        (SampleSpec(question="9"), "no question '9'; expected one of 1: Is there any snow\\?; 2: Where is water\\?"),
        (SampleSpec(observation="yesterday"), "no observation 'yesterday'; expected one of sentinel-2-l2a_"),
    ],
)
def test_what_has_no_class_of_a_pixel_is_refused(spec: SampleSpec, what: str, mapped: Run, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=what):
        draw_sample(mapped, spec, out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunFolderError):
        open_run(tmp_path)
    assert main(["sample", str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err


def test_unseen_ground_is_drawn_where_somebody_has_other_pictures(mapped: Run, tmp_path: Path) -> None:
    plain = draw_sample(mapped, SampleSpec(units=100), out=str(tmp_path / "plain")).design
    more = draw_sample(mapped, SampleSpec(units=100, unseen=True), out=str(tmp_path / "more")).design
    (unseen,) = plain.unsampled
    assert unseen.name == "unseen"
    assert more.unsampled == ()
    assert sum(unit.stratum == "unseen" for unit in more.units) >= min(50, unseen.size)
    assert {unit.mapped for unit in more.units if unit.stratum == "unseen"} == {""}


def test_a_run_without_its_cube_is_sampled_without_pictures(mapped: Run, sampled: Sample, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(mapped.address, folder, ignore=shutil.ignore_patterns("store", "samples"))
    job = (folder / "job.json").read_text()
    assert mapped.address in job
    (folder / "job.json").write_text(job.replace(mapped.address, str(folder)))
    sample = draw_sample(open_run(folder), FEW, out=str(tmp_path / "out"))
    assert sample.chips == 0
    assert [unit.lon for unit in sample.design.units] == [unit.lon for unit in sampled.design.units]


def test_labels_of_another_run_and_of_a_map_that_changed_are_refused(
    mapped: Run, sampled: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\n" + "\n".join(f"{unit.id},none" for unit in sampled.design.units))
    folder = tmp_path / "run"
    shutil.copytree(mapped.address, folder, ignore=shutil.ignore_patterns("store"))
    raster = next(iter(sampled.design.files))
    (folder / raster).write_bytes((folder / raster).read_bytes() + b" ")
    assert main(["estimate", str(folder), str(labels)]) == 2
    assert "was mapped anew since the sample" in capsys.readouterr().err
    shutil.rmtree(folder / "samples")
    assert main(["estimate", str(folder), str(labels)]) == 2
    assert f"has no sample '{sampled.design.key}'" in capsys.readouterr().err
