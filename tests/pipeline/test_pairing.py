"""Two dates that do not lie on each other: moved where that can be told, refused where it cannot be mended."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from earthmap.catalog import Scene
from earthmap.cube import RasterioReader, Shift, open_cell
from earthmap.grid import AreaOfInterest
from earthmap.merge import merge_cell, summarize
from earthmap.outputs.numbers import headlines
from earthmap.pipeline import make_plan, parse_job, stages
from earthmap.pipeline.context import Context
from earthmap.pipeline.pairing import Conditions, Pairing, days_of_year_apart
from earthmap.pipeline.plan import CellWork
from earthmap.pipeline.reading import read_work
from earthmap.pipeline.run import predictor_spec
from earthmap.pipeline.stages import gather, predict_stage
from earthmap.pipeline.two_maps import COMPARED
from earthmap.sensors import SENSORS
from earthmap.storage import Storage
from earthmap.synthetic import World, small_world
from earthmap.synthetic.sensors import draw_rgb
from earthmap.tasks import decode_mask, make_query
from tests.catalog.image_files import write_raster

SIDE = 464


@dataclasses.dataclass
class Asked:
    """One cell of a job, asked without Ray."""

    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    coverage: list[dict[str, Any]]
    context: Context
    work: CellWork
    groups: dict[str, str]
    parts: dict[Any, Any]


def ask_cell(values: dict[str, Any], tmp_path: Path, **changes: Any) -> Asked:
    """The fullest cell of a job, asked and merged."""
    job = parse_job({"predictor": "spectral", "tile_size": 128, "out": str(tmp_path / "run"), **values})
    plan = make_plan(job)
    queries = {query.content_key(): query for query in job.queries}
    context = Context(
        store=Storage(str(tmp_path / "store")), execution=1, job=job.content_key(), area=job.area, queries=queries,
        observations=plan.observations, predictor=predictor_spec(job, plan), reader=RasterioReader(), **changes,
    )  # fmt: skip
    work = max(plan.work(), key=lambda work: work.tiles.bit_count())
    groups = {name: committed.path for name, committed in read_work(work, context).items()}
    parts = predict_stage(work, groups, context)
    table = gather(work, parts, context)
    merge = merge_cell(work.cell, table, area=job.area, queries=queries, tiles=work.tiles, by_observation=False)
    summary = summarize(merge.sums, area=job.area, queries=queries)
    return Asked(table.to_pylist(), summary, merge.coverage.to_pylist(), context, work, groups, parts)


def write_dates(folder: Path, *seconds: Callable[[World, tuple[float, float]], np.ndarray]) -> list[str]:
    """A drawn world as aerial pictures, one of which each function draws; their files."""
    world = small_world(1, size_m=12_000)
    west, south, _, _ = world.bounds
    cell_m, halo_m = 4480, 80  # one cell of the lattice with its halo
    corner = ((west // cell_m + 1) * cell_m - halo_m, (south // cell_m + 2) * cell_m + halo_m)
    for number, second in enumerate((drawn(0.0, 0.0), *seconds)):
        path = folder / f"field_2024-0{5 + number}-01.tif"
        write_raster(path, second(world, corner), corner=corner, crs=f"EPSG:{world.epsg}", photometric="RGB")
    return [str(folder)]


def drawn(down: float, right: float) -> Callable[[World, tuple[float, float]], np.ndarray]:
    """Pictures of the ground that many pixels off its place; nothing changes but that."""

    def draw(world: World, corner: tuple[float, float]) -> np.ndarray:
        affine = Affine(10.0, 0.0, corner[0] - 10 * right, 0.0, -10.0, corner[1] + 10 * down)
        return draw_rgb(world, GeoBox((SIDE, SIDE), affine, f"EPSG:{world.epsg}"), world.before)[0].data[:3]

    return draw


CHANGE = {"text": "What changed?", "task": "change", "targets": ["vegetation"]}


def changed_share(asked: Asked) -> float:
    found = [row for row in asked.rows if row["status"] == "answered"]
    return float(np.average([row["fraction"] for row in found], weights=[row["seen_px"] for row in found]))


def test_a_displaced_date_is_moved_and_the_answer_says_so(tmp_path: Path) -> None:
    images = write_dates(tmp_path / "images", drawn(-3.3, 5.4))
    moved = ask_cell({"images": images, "queries": [CHANGE]}, tmp_path)
    (pair,) = {row["pair"] for row in moved.rows if row["status"] == "answered"}
    record = json.loads(pair)
    assert record["alignment"] == "moved"
    # The noise of one drawn date sticks to whole pixels, which real noise does not: a fifth of a pixel.
    assert record["shift_m"]["east"] == pytest.approx(54, abs=2)
    assert record["shift_m"]["north"] == pytest.approx(33, abs=2)
    assert record["residual_px"] < 0.3
    assert record["season_days"] == 31
    notes = moved.summary["queries"][0]["observations"][0]["notes"]
    assert "the second date was moved onto the first" in notes
    assert {row["alignment"] for row in moved.coverage} == {"moved"}
    assert moved.coverage[0]["shift_east_m"] == record["shift_m"]["east"]
    assert all(row["orders_agree"] == 1.0 for row in moved.coverage if row["status"] == "answered")
    layer = moved.summary["queries"][0]["observations"][0]
    assert layer["alignment"] == {"moved": len(moved.rows)}
    assert layer["orders_disagree_share"] == 0.0


def test_moving_takes_away_the_change_that_was_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_dates(tmp_path / "images", drawn(-3.3, 5.4))
    moved = changed_share(ask_cell({"images": images, "queries": [CHANGE]}, tmp_path / "one"))
    monkeypatch.setattr(Pairing, "applied_px", (0.0, 0.0))
    as_it_was = changed_share(ask_cell({"images": images, "queries": [CHANGE]}, tmp_path / "two"))
    assert moved < as_it_was / 3


def test_the_halo_gives_what_moving_takes_and_the_rest_is_unseen(tmp_path: Path) -> None:
    """Eight pixels of halo are less than the ten that the second date lies off: two rows of the cell are not seen."""
    images = write_dates(tmp_path / "images", drawn(10.0, 0.0))
    asked = ask_cell({"images": images, "queries": [CHANGE]}, tmp_path)
    cell = asked.work.cell
    masks = {row["tile_id"]: row["mask"] for row in asked.rows if row["mask"] is not None}
    whole = open_cell(asked.context.store, next(iter(asked.groups.values()))).manifest
    assert whole.cell_id == cell.id
    inner = [
        decode_mask(masks[tile.id], cell.grid.core_px)
        for tile in cell.tiles()
        if tile.id in masks and tile.picture_slices[0].stop + 10 <= cell.grid.cell_px
    ]
    assert inner
    assert json.loads(asked.rows[0]["pair"])["shift_px"]["down"] == pytest.approx(10, abs=0.1)
    assert not any((mask[20:] == 255).all() for mask in inner)


def test_a_small_shift_is_left_and_nothing_is_interpolated(tmp_path: Path) -> None:
    images = write_dates(tmp_path / "images", drawn(0.1, 0.05))
    asked = ask_cell({"images": images, "queries": [CHANGE]}, tmp_path)
    record = json.loads(asked.rows[0]["pair"])
    assert record["alignment"] == "in place"
    assert 0 <= record["residual_px"] < 0.2
    assert not any("moved" in note for note in asked.rows[0]["notes"])


def test_torn_ground_is_not_compared_pixel_by_pixel_and_stays_in_coverage(tmp_path: Path) -> None:
    def torn(world: World, corner: tuple[float, float]) -> np.ndarray:
        up, down = drawn(-5.0, 0.0)(world, corner), drawn(5.0, 0.0)(world, corner)
        return np.where(np.arange(SIDE) < SIDE // 2, up, down)

    asked = ask_cell({"images": write_dates(tmp_path / "images", torn), "queries": [CHANGE]}, tmp_path)
    assert {(row["status"], row["reason"]) for row in asked.rows} == {("skipped", "misaligned")}
    assert "expected at most 2" in asked.rows[0]["message"]
    assert {row["reason"] for row in asked.coverage} == {"misaligned"}
    assert asked.summary["skipped"] == {"misaligned": len(asked.rows)}
    assert any("misaligned" in line for line in headlines(asked.summary))


def test_even_ground_is_not_displaced_ground(tmp_path: Path) -> None:
    def even(world: World, corner: tuple[float, float]) -> np.ndarray:
        return np.full((3, SIDE, SIDE), 120, np.uint8)

    folder = tmp_path / "images"
    write_dates(folder, even, even)
    (folder / "field_2024-05-01.tif").unlink()
    asked = ask_cell({"images": [str(folder)], "queries": [CHANGE]}, tmp_path)
    assert {row["alignment"] for row in asked.coverage} == {"unknown"}
    answered = [row for row in asked.rows if row["status"] == "answered"]
    assert answered
    assert all(any("no shift between the dates could be told" in note for note in row["notes"]) for row in answered)
    assert json.loads(answered[0]["pair"])["residual_px"] is None


def test_answers_stand_elsewhere_where_shifts_are_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [CHANGE, "Where is vegetation?"]
    asked = ask_cell({"images": write_dates(tmp_path / "images", drawn(0.0, 3.0)), "queries": queries}, tmp_path)
    again = predict_stage(asked.work, asked.groups, asked.context)
    assert {part.path for part in again.values()} == {part.path for part in asked.parts.values()}
    assert not any(part.fresh for part in again.values())
    monkeypatch.setattr(stages, "SHIFT_FORMAT", -1)
    other = predict_stage(asked.work, asked.groups, asked.context)
    assert {question.query: part.fresh for question, part in other.items()} == {
        question.query: len(question.observations) == 2 for question in asked.parts
    }


def test_unchanged_ground_and_ground_that_a_cloud_hides_are_kept_apart(
    drawn_world: World, drawn_catalog: Path, tmp_path: Path
) -> None:
    west, south, east, north = drawn_world.bounds
    area = AreaOfInterest.from_geometry(shapely.box(west, south, east, north), f"EPSG:{drawn_world.epsg}")
    values = {"area": area, "catalog": str(drawn_catalog), "collections": ["drawn-sentinel-2-l2a"]}
    asked = ask_cell({**values, "queries": ["Where did water appear?"], "predictor": "oracle"}, tmp_path)
    layer = asked.summary["queries"][0]["observations"][0]
    parts = [*layer["km2"].values(), layer["unchanged_km2"], layer["unobserved_km2"]]
    assert all(part > 0 for part in (layer["km2"]["water gained"], layer["unchanged_km2"], layer["unobserved_km2"]))
    assert sum(parts) == pytest.approx(layer["area_km2"], abs=1e-3)
    halo = asked.work.cell.grid.halo_px
    masks = [
        open_cell(asked.context.store, path).read()[1][halo:-halo, halo:-halo] for path in asked.groups.values()
    ]  # fmt: skip
    hidden = np.isin(masks[0], (1, 2)) | np.isin(masks[1], (1, 2))
    for tile in asked.work.cell.tiles():
        rows = [row for row in asked.rows if row["tile_id"] == tile.id and row["mask"] is not None]
        for row in rows:
            unseen = decode_mask(row["mask"], tile.grid.core_px) == 255
            np.testing.assert_array_equal(unseen, hidden[tile.core_slices])


def test_scenes_that_do_not_overlap_are_no_pair_and_stay_in_coverage(tmp_path: Path) -> None:
    world, folder = small_world(1), tmp_path / "images"
    west, _, _, north = world.bounds
    for month, east in ((5, 0.0), (6, 6000.0)):
        corner = (west + east, north)
        pixels = drawn(0.0, 0.0)(world, corner)
        write_raster(folder / f"field_2024-0{month}-01.tif", pixels, corner=corner, crs=f"EPSG:{world.epsg}")
    asked = ask_cell({"images": [str(folder)], "queries": [CHANGE]}, tmp_path)
    apart = [row for row in asked.coverage if row["reason"] == "one_date"]
    assert apart
    assert {row["status"] for row in apart} == {"skipped"}
    assert asked.summary["queries"][0]["observations"][-1]["unobserved_km2"] > 0
    assert "no two observations to compare" in apart[0]["message"]


def test_the_headline_says_where_swapped_dates_disagree() -> None:
    seen = {"observation": "a..b", "answered": 4, "planned": 4, "area_km2": 2.0, "seen_km2": 2.0, "sensor": "s"}
    query = {"query_key": "q", "text": "What changed?", "task": "change", "targets": ["water"]}
    for share, says in (
        (0.25, "swapped dates disagree on 25 % of it"),
        (0.0, "seen on both dates"),
        (None, "seen on both dates"),
    ):
        layer = {**seen, "km2": {"water gained": 0.5}, "orders_disagree_share": share}
        assert headlines({"queries": [{**query, "observations": [layer]}]})[0].endswith(says)


def test_of_unlike_sensors_two_maps_are_compared_and_the_answer_says_so(
    drawn_world: World, drawn_catalog: Path, tmp_path: Path
) -> None:
    west, south, east, north = drawn_world.bounds
    area = AreaOfInterest.from_geometry(shapely.box(west, south, east, north), f"EPSG:{drawn_world.epsg}")
    optical_then_radar = {"before": "2024-05-04T10:00:00Z/2024-05-04T11:00:00Z", "after": "2024-06-08T17:00:00Z/.."}
    questions = [{"text": "What changed?", "targets": ["water", "snow"], **optical_then_radar}]
    collections = ["drawn-sentinel-2-l2a", "drawn-sentinel-1"]
    values = {"area": area, "catalog": str(drawn_catalog), "collections": collections, "queries": questions}
    asked = ask_cell({**values, "predictor": "oracle"}, tmp_path / "oracle")
    same = ask_cell(
        {**values, "predictor": "oracle", "collections": collections[:1], "queries": ["What changed?"]},
        tmp_path / "same",
    )
    layer, like = (one.summary["queries"][0]["observations"][0] for one in (asked, same))
    assert COMPARED in layer["notes"]
    assert COMPARED not in like["notes"]
    assert [one["sensor"] for one in (layer, like)] == ["sentinel-2-l2a..sentinel-1-db", "sentinel-2-l2a"]
    assert layer["km2"]["water gained"] >= like["km2"]["water gained"] > 0  # the radar sees through the second's clouds
    assert {row["orders_agree"] for row in asked.rows if row["status"] == "answered"} == {1.0}
    rules = ask_cell({**values, "predictor": "spectral"}, tmp_path / "spectral")
    found = rules.summary["queries"][0]["observations"][0]
    assert "snow not compared: a date cannot tell it" in found["notes"]
    assert found["km2"].get("snow gained", 0) == 0 < found["km2"]["water gained"]


# ── what follows from what is known ──────────────────────────────────────────────────────────────────────────

FOUND = Shift(
    down_px=1.5, right_px=-2.0, peak=0.5, certainty=12.0, ratio=3.0, agreement=1.0, windows=64, sure_windows=40,
    spread_px=0.2,
)  # fmt: skip
LOST = dataclasses.replace(FOUND, certainty=2.0, ratio=1.1, agreement=0.0, sure_windows=0, spread_px=None)


def pairing(shift: Shift, *, resolution: float = 10.0, placed: float | None = 12.5) -> Pairing:
    return Pairing(shift=shift, resolution_m=resolution, placed_m=placed, conditions=Conditions(season_days=0))


@pytest.mark.parametrize(
    ("known", "refused"),
    [
        (pairing(FOUND), False),
        (pairing(dataclasses.replace(FOUND, spread_px=2.5)), True),
        (pairing(LOST), False),
        (pairing(LOST, resolution=5.0), True),
        (pairing(LOST, resolution=0.5, placed=None), False),
    ],
    ids=["found", "spread", "nothing found", "nothing found on fine pixels", "nobody promises"],
)
def test_only_pixels_need_to_fit(known: Pairing, refused: bool) -> None:
    change = make_query("Where did water appear?")
    kind, caption = (
        make_query("What happened here?", task=task, open_vocabulary=True) for task in ("change-type", "change-caption")
    )
    answer = known.refusal(change)
    assert (answer is not None) == refused
    assert answer is None or (answer.status, answer.reason) == ("skipped", "misaligned")
    assert known.refusal(kind) is known.refusal(caption) is None
    assert json.loads(known.to_json())["alignment"] == known.alignment


def scene(**values: Any) -> Scene:
    plain: dict[str, Any] = {
        "id": "one", "collection": "c", "sensor": "sentinel-2-l2a", "footprint": b"", "resolution_m": 10.0,
        "sources": (), "datetime": datetime.datetime(2024, 1, 10, tzinfo=datetime.UTC),
    }  # fmt: skip
    return Scene(**{**plain, **values})


def test_conditions_that_differ_are_noted_and_others_are_not() -> None:
    first = scene(sun_elevation_deg=30.0, sun_azimuth_deg=355.0, off_nadir_deg=2.0)
    near = scene(sun_elevation_deg=33.0, sun_azimuth_deg=5.0, off_nadir_deg=4.0)
    far = scene(
        datetime=datetime.datetime(2023, 7, 10, tzinfo=datetime.UTC), sun_elevation_deg=60.0, off_nadir_deg=29.8
    )  # fmt: skip
    alike, unlike = Conditions.of([first], [near]), Conditions.of([first], [far])
    assert alike.notes == ()
    assert alike.sun_azimuth_deg == 10.0
    assert [note.split(":")[0] for note in unlike.notes] == [
        "the dates are of different seasons, more than 30 days of the year apart",
        "the sun stood differently on the dates",
        "the dates were seen from different directions",
    ]
    assert unlike.sun_azimuth_deg is None
    radar = Conditions.of(
        [scene(sensor="sentinel-1-rtc", relative_orbit=59, off_nadir_deg=39.0)], [scene(sensor="sentinel-1-rtc")]
    )
    assert radar.relative_orbits == (59, None)
    assert radar.off_nadir_deg is None
    assert any("orbits" in note for note in radar.notes)


@pytest.mark.parametrize(
    ("first", "second", "days"),
    [("2024-01-05", "2023-12-31", 5), ("2024-06-01", "2020-06-01", 0), ("2023-01-01", "2023-07-02", 182)],
)
def test_seasons_go_round_the_year(first: str, second: str, days: int) -> None:
    one, other = (datetime.datetime.fromisoformat(text) for text in (first, second))
    assert days_of_year_apart(one, other) == days_of_year_apart(other, one) == days


def test_what_products_promise_is_no_finer_than_a_pixel_of_theirs() -> None:
    """Else nothing on even ground would ever be compared at the sensor's own pixels."""
    for sensor in SENSORS.values():
        if sensor.placed_m is not None and sensor.nominal_m is not None:
            assert sensor.placed_m <= 2 * sensor.nominal_m
