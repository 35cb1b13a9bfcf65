"""What the predictor is not asked, on drawn worlds with rare ships: why, and what the audit makes of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from earthmap.cube import RasterioReader
from earthmap.errors import JobError
from earthmap.grid import AreaOfInterest, Tile
from earthmap.merge import Sums, merge_cell, summarize
from earthmap.merge.triaged import describe_triage, holds_target
from earthmap.outputs.numbers import headlines
from earthmap.pipeline import make_plan, parse_job, triage
from earthmap.pipeline.audit import plan_triage
from earthmap.pipeline.context import Committed, Context, record_attempt
from earthmap.pipeline.reading import read_work
from earthmap.pipeline.run import predictor_spec
from earthmap.pipeline.stages import gather, predict_stage, read_part
from earthmap.pipeline.triage import audit_draw, audit_limit, is_triaged, unseen_answer
from earthmap.predict import OraclePredictor
from earthmap.sensors.masks import Reason
from earthmap.storage import Storage
from earthmap.synthetic import World, small_world, write_world
from earthmap.tasks import Answer, make_query
from tests.worlds import clear_picture, middle_tile

SHIPS = "Find the ships"


@pytest.fixture(scope="module")
def world() -> World:
    """A valley with a few ships on its river, under a clear sky."""
    return small_world(5, place=(3.0, 45.7), size_m=3500.0, cloud_share=0.0, ships=0.5)


@pytest.fixture(scope="module")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(world, tmp_path_factory.mktemp("ships"), sensors=("sentinel-2",))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """One for the module: the same ground is read once."""
    return Storage(str(tmp_path_factory.mktemp("store")))


@pytest.fixture
def fresh(store: Storage, world: World, catalog: Path, tmp_path: Path) -> Storage:
    """One without answers, on the same pixels."""
    if not store.list("cube"):
        _ask(world, catalog, store)
    shutil.copytree(Path(store.address, "cube"), tmp_path / "fresh" / "cube")
    return Storage(str(tmp_path / "fresh"))


@dataclass
class Asked:
    """All cells of a job, asked and merged without Ray."""

    rows: dict[tuple[str, str], dict[str, Any]]
    """By text of the question and tile."""
    layers: dict[str, dict[str, Any]]
    """Of the summary, by text of the question."""
    summary: dict[str, Any]
    coverage: list[dict[str, Any]]
    paths: list[str]
    fresh: int
    """Parts that were computed just now."""


def _inside(world: World) -> dict[str, Any]:
    """Ground that the scenes show to its border."""
    area = shapely.box(*world.bounds).buffer(-60, join_style="mitre")
    return AreaOfInterest.from_geometry(area, f"EPSG:{world.epsg}").to_geojson()


def _ask(world: World, catalog: Path, store: Storage, queries: Sequence[str] = (SHIPS,), **changes: Any) -> Asked:
    values = {
        "area": _inside(world), "catalog": str(catalog), "queries": list(queries), "predictor": "oracle",
        "tile_size": 128, "scenes": "latest", "out": "nowhere",
    }  # fmt: skip
    job = parse_job({**values, **changes})
    plan = make_plan(job)
    context = Context(
        store=store, execution=1, job=job.content_key(), area=job.area, observations=plan.observations,
        queries={query.content_key(): query for query in job.queries}, predictor=predictor_spec(job, plan),
        reader=RasterioReader(), triage=plan_triage(job, plan),
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    coverage: list[dict[str, Any]] = []
    parts: list[Committed] = []
    sums = Sums()
    for work in plan.work():
        reads = read_work(work, context)
        done = predict_stage(work, {name: one.path for name, one in reads.items()}, context)
        table = gather(work, done, context)
        merge = merge_cell(
            work.cell, table, area=job.area, queries=context.queries, tiles=work.tiles, by_observation=False
        )
        sums.update(merge.sums)
        parts += done.values()
        rows += table.to_pylist()
        coverage += merge.coverage.to_pylist()
    texts = {key: query.text for key, query in context.queries.items()}
    summary = summarize(sums, area=job.area, queries=context.queries)
    return Asked(
        rows={(texts[row["query"]], row["tile_id"]): row for row in rows},
        layers={query["text"]: query["observations"][0] for query in summary["queries"]},
        summary=summary,
        coverage=coverage,
        paths=[part.path for part in parts],
        fresh=sum(part.fresh for part in parts),
    )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit of four tiles at least, so that small worlds have tiles that are not of it."""
    monkeypatch.setattr(triage, "AUDIT_LEAST", 4)


# ── the coarse pass ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("few")
def test_what_is_asked_has_the_answers_that_it_has_without_triage(world: World, catalog: Path, store: Storage) -> None:
    queries = [SHIPS, "Where is snow?", "How much is water?"]
    plain, spared = (_ask(world, catalog, store, queries, **more) for more in ({}, {"triage": "coarse"}))
    skipped = {key for key, row in spared.rows.items() if row["status"] == "skipped"}
    assert plain.rows.keys() == spared.rows.keys()
    assert 0 < len(skipped) < len(plain.rows)
    for key, row in spared.rows.items():
        if key in skipped:
            assert (row["reason"], row["mask"], row["seen_px"]) == ("triage", None, 0)
            assert "not looked at: pixels of 20 m show no" in row["message"]
            assert not holds_target(plain.rows[key], "detect" if key[0] == SHIPS else "segment")
        else:
            assert {**row, "triage": None} == plain.rows[key]
    assert not any(row["triage"] for key, row in spared.rows.items() if key[0] == "How much is water?")
    assert spared.layers[SHIPS]["count"] == plain.layers[SHIPS]["count"]
    # The answers to triaged questions stand elsewhere; those to the third, a part a cell, are the same.
    assert len(set(spared.paths) & set(plain.paths)) * 3 == len(plain.paths)


@pytest.mark.usefixtures("few")
def test_the_summary_counts_and_bounds(world: World, catalog: Path, store: Storage) -> None:
    spared = _ask(world, catalog, store, [SHIPS, "Where is snow?"], triage="coarse")
    for text, layer in spared.layers.items():
        told, audit = layer["triage"], layer["triage"]["audit"]
        verdicts = [json.loads(row["triage"]) for (asked, _), row in spared.rows.items() if asked == text]
        assert told["skipped_tiles"] == layer["skipped"]["triage"] > 0
        assert audit["drawn"] == audit["audited"] == sum(verdict["audited"] for verdict in verdicts) == 4
        assert layer["planned"] == layer["answered"] + told["skipped_tiles"]
        assert told["missed_tiles_at_most"] is not None
        assert told["missed_tiles_at_most"] <= told["skipped_tiles"]
    snow = spared.layers["Where is snow?"]
    low, high = snow["bounds_km2"]["snow"]
    assert low == snow["km2"]["snow"]
    assert high == pytest.approx(low + snow["area_km2"] - snow["seen_km2"], abs=1e-3)
    key = next(query["query_key"] for query in spared.summary["queries"] if query["text"] == "Where is snow?")
    skipped = [row for row in spared.coverage if (row["query_key"], row["reason"]) == (key, "triage")]
    unseen_km2 = sum(row["area_km2"] for row in skipped)
    assert snow["area_km2"] - snow["seen_km2"] == pytest.approx(unseen_km2, abs=1e-3)
    assert unseen_km2 > 0
    said = " ".join(headlines(spared.summary))
    assert "bounds count them as unseen" in said
    assert "(triage)" in said
    marked = [row for row in spared.coverage if row["audited"]]
    assert len(marked) == 8
    assert all(row["status"] == "answered" and row["triage_score"] in (0.0, 1.0) for row in marked)


@pytest.mark.usefixtures("few")
def test_nothing_depends_on_the_area(world: World, catalog: Path, store: Storage) -> None:
    """But which tiles are of the audit, whose number goes with that of all tiles."""
    west, south, east, north = world.bounds
    box = shapely.box(west + 100, south + 100, (west + east) / 2, (south + north) / 2)
    part = AreaOfInterest.from_geometry(box, f"EPSG:{world.epsg}")
    whole = _ask(world, catalog, store, triage="coarse")
    half = _ask(world, catalog, store, triage="coarse", area=part.to_geojson())
    assert 0 < len(half.rows) < len(whole.rows)
    for key, row in half.rows.items():
        mine, other = (json.loads(one["triage"]) for one in (row, whole.rows[key]))
        assert (mine["score"], mine["skips"]) == (other["score"], other["skips"])
        if row["status"] == whole.rows[key]["status"]:
            assert {**row, "triage": None} == {**whole.rows[key], "triage": None}
        assert mine["audited"] >= other["audited"]  # of fewer tiles a larger share


@pytest.mark.usefixtures("few")
def test_again_computes_nothing_and_another_rule_everything(
    world: World, catalog: Path, fresh: Storage, store: Storage
) -> None:
    first = _ask(world, catalog, fresh, triage="coarse")
    again = _ask(world, catalog, fresh, triage="coarse")
    assert first.fresh == len(first.paths)
    assert (again.fresh, again.paths, again.rows) == (0, first.paths, first.rows)
    other = _ask(world, catalog, fresh, triage="coarse", triage_scale=4)
    assert other.fresh == len(other.paths)
    elsewhere = _ask(world, catalog, store, triage="coarse")
    assert (elsewhere.paths, elsewhere.rows) == (first.paths, first.rows)


@pytest.mark.usefixtures("few")
def test_a_coarse_pass_that_sees_nothing_is_found_out(
    world: World, catalog: Path, fresh: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would skip everything: what the audit finds is all missed, and in the map all the same."""
    answer = OraclePredictor._answer

    def blind(self: OraclePredictor, item: Any, query: Any, truths: Any) -> Answer:
        found = answer(self, item, query, truths)
        return dataclasses.replace(found, value="no") if query.task == "presence" else found

    monkeypatch.setattr(OraclePredictor, "_answer", blind)
    asked = _ask(world, catalog, fresh, ["Where is vegetation?"], triage="coarse")
    (layer,) = asked.layers.values()
    told = layer["triage"]
    assert layer["answered"] == told["audit"]["audited"] == told["audit"]["would_skip"] == 4
    assert told["audit"]["missed"] == told["audit"]["with_target"] == told["tiles_with_target"] > 0
    assert told["missed_share"] == told["missed_share_at_most"] == 1.0
    assert layer["km2"]["vegetation"] > 0
    assert layer["bounds_km2"]["vegetation"][1] > layer["area_km2"] * 0.75


def test_what_no_audited_tile_tells_is_absent_with_its_reason() -> None:
    nothing = dict.fromkeys(("tiles", "skipped", "found", "drawn", "audited", "with_target", "would_skip", "missed"), 0)
    told = describe_triage({**nothing, "drawn": 150})
    assert (told["missed_share_at_most"], told["missed_tiles_at_most"]) == (None, 0)
    assert told["absent"] == "no tile of the audit could be answered"
    told = describe_triage({**nothing, "drawn": 150, "audited": 150, "would_skip": 150, "skipped": 8000})
    assert told["absent"] == "no audited tile holds a target: a share of none cannot be told"
    assert told["skipped_with_target_at_most"] == pytest.approx(1 - 0.05 ** (1 / 150), abs=1e-4)
    assert told["missed_tiles_at_most"] == int((1 - 0.05 ** (1 / 150)) * 8150)


def test_of_fewer_than_150_tiles_all_are_of_the_audit(world: World, catalog: Path, store: Storage) -> None:
    plain, spared = _ask(world, catalog, store), _ask(world, catalog, store, triage="coarse")
    assert {key: {**row, "triage": None} for key, row in spared.rows.items()} == plain.rows
    told = spared.layers[SHIPS]["triage"]
    assert told["skipped_tiles"] == told["missed_tiles_at_most"] == 0
    assert told["audit"]["audited"] == len(plain.rows)


@pytest.mark.usefixtures("few")
def test_a_coarse_pass_that_breaks_skips_nothing(
    world: World, catalog: Path, fresh: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = OraclePredictor._answer

    def breaks(self: OraclePredictor, item: Any, query: Any, truths: Any) -> Any:
        if query.task == "presence":
            raise RuntimeError("no")
        return answer(self, item, query, truths)

    monkeypatch.setattr(OraclePredictor, "_answer", breaks)
    asked = _ask(world, catalog, fresh, triage="coarse")
    assert {row["status"] for row in asked.rows.values()} == {"answered"}
    assert {json.loads(row["triage"])["score"] for row in asked.rows.values()} == {None}


@pytest.mark.usefixtures("few")
def test_tiles_asked_one_by_one_in_processes_of_their_own_say_the_same(
    world: World, catalog: Path, fresh: Storage, store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after two attempts that were killed."""
    usual = _ask(world, catalog, store, triage="coarse")
    monkeypatch.setattr("earthmap.pipeline.stages.isolated", lambda work, limits: work())
    for path in usual.paths:
        for _ in range(2):
            record_attempt(fresh, path)
    assert _ask(world, catalog, fresh, triage="coarse").rows == usual.rows


def test_a_job_that_triage_cannot_help_is_refused(world: World, catalog: Path, store: Storage) -> None:
    with pytest.raises(JobError, match="no question looks for named targets on one date"):
        _ask(world, catalog, store, ["How much is water?", "Where did water appear?"], triage="coarse")
    for changes in ({"triage": "fine"}, {"triage_scale": 3}, {"triage_threshold": 1.5}, {"least_seen": -0.1}):
        with pytest.raises(JobError):
            _ask(world, catalog, store, **changes)


def test_what_the_model_does_not_answer_is_not_asked_of_coarse_pictures_either(
    world: World, catalog: Path, store: Storage
) -> None:
    """The built-in checkpoint refuses to detect: each tile says so, and no score stands in for that."""
    queries = [SHIPS, "Is there any snow?"]
    values = {"area": _inside(world), "catalog": str(catalog), "queries": queries, "scenes": "latest", "out": "nowhere"}
    job = parse_job({**values, "predictor": "vlm", "triage": "coarse"})
    coarse = plan_triage(job, make_plan(job)).coarse
    assert coarse is not None
    assert list(coarse.audited) == [job.queries[1].content_key()]


# ── the audit ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_audit_is_two_percent_or_150_tiles_or_all() -> None:
    for tiles, expected in ((0, 0), (1, 1), (149, 149), (151, 150), (7_500, 150), (7_501, 151), (20_000, 400)):
        draws = [audit_draw("query", f"tile {number}") for number in range(tiles)]
        limit = audit_limit(draws)
        assert sum(draw <= limit for draw in draws) == expected
    assert [audit_draw("a", "b"), audit_draw("b", "a")] == [audit_draw("a", "b"), audit_draw("b", "a")]
    both = [(audit_draw("one", name), audit_draw("two", name)) for name in map(str, range(2000))]
    assert abs(np.corrcoef(np.array(both, float).T)[0, 1]) < 0.1


def test_what_is_triaged() -> None:
    asked = {
        "Is there any water?": True, "Where is water?": True, "How much is water?": False, "What changed?": False,
        SHIPS: True, "How many ships are there?": True, "Describe this place.": False,
    }  # fmt: skip
    assert {text: is_triaged(make_query(text, open_vocabulary=True)) for text in asked} == asked


# ── what shows nothing ───────────────────────────────────────────────────────────────────────────────────────


def test_a_tile_that_shows_nothing_is_not_asked_about_and_the_commonest_reason_is_named(world: World) -> None:
    tile = middle_tile(world)
    picture, query = clear_picture(tile, world.before), make_query("Where is water?")
    halo = tile.grid.halo_px
    core = (slice(halo, -halo), slice(halo, -halo))
    assert unseen_answer([picture], core, query) is None
    picture.mask[...] = Reason.CLOUD
    picture.mask[core][0] = Reason.LAYOVER
    answer = unseen_answer([picture], core, query)
    assert answer is not None
    assert (answer.status, answer.reason) == ("skipped", "cloud")
    picture.mask[core][:5] = Reason.SHADOW  # which counts as seen
    assert unseen_answer([picture], core, query) is None
    tight = unseen_answer([picture], core, query, least_seen=0.1)
    assert tight is not None
    assert "4.5% of the core could be seen, less than the 10% that are asked for" in (tight.message or "")
    picture.mask[...] = Reason.CLEAR
    picture.data[:, core[0], core[1]] = np.nan
    answer = unseen_answer([picture], core, query)
    assert answer is not None
    assert answer.reason == "nodata"
    picture.data[3, core[0], core[1]] = 0.3  # one band is enough for the next to tell
    assert unseen_answer([picture], core, query) is None


@pytest.mark.usefixtures("few")
def test_under_cloud_nothing_is_asked_not_even_of_coarse_pictures(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = small_world(5, place=(3.0, 45.7), size_m=3000.0, cloud_share=0.97, ships=0.5)
    drawn = write_world(hidden, tmp_path / "drawn", sensors=("sentinel-2",))
    asked_of: list[Any] = []
    predict = OraclePredictor.predict

    def noting(self: OraclePredictor, inputs: Any, queries: Any) -> Any:
        asked_of.extend(inputs)
        return predict(self, inputs, queries)

    monkeypatch.setattr(OraclePredictor, "predict", noting)
    asked = _ask(hidden, drawn, Storage(str(tmp_path / "store")), triage="coarse", least_seen=0.5)
    shown = [row for row in asked.rows.values() if row["status"] != "skipped"]
    hidden_ones = [row for row in asked.rows.values() if row["reason"] == "cloud"]
    assert len(hidden_ones) > len(asked.rows) / 2
    assert not {row["tile_id"] for row in hidden_ones} & {item.tile.id for item in asked_of}
    assert all(json.loads(row["triage"])["score"] is None for row in hidden_ones)
    told = asked.layers[SHIPS]["triage"]
    assert told["audit"]["drawn"] == 4
    assert told["audit"]["audited"] == sum(json.loads(row["triage"])["audited"] for row in shown)


def test_a_part_of_the_lattice_outside_the_area_is_left_out_of_a_triaged_question_only(
    world: World, catalog: Path, store: Storage
) -> None:
    west, south, east, north = world.bounds
    x, y = (west + east) / 2, (south + north) / 2
    spot = AreaOfInterest.from_geometry(shapely.box(x, y, x + 50, y + 50), f"EPSG:{world.epsg}")
    asked = _ask(world, catalog, store, [SHIPS, "How much is water?"], triage="coarse", area=spot.to_geojson())
    tables = [read_part(store, path).to_pylist() for path in asked.paths]
    outside = [sum(row["reason"] == "outside" for row in rows) for rows in tables]
    assert sorted(outside) == [0, 16 - len({Tile.parse(tile).id for _, tile in asked.rows})]
    assert not any(row["reason"] == "outside" for row in asked.rows.values())


def test_the_path_of_an_untriaged_part_is_as_it_was(world: World, catalog: Path, store: Storage) -> None:
    """Whatever else the job says, so that its answers serve every job."""
    plain = _ask(world, catalog, store, ["How much is water?"])
    beside = _ask(world, catalog, store, ["How much is water?", SHIPS], triage="coarse")
    assert set(plain.paths) <= set(beside.paths)
