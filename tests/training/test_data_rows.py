"""Prepared rows: read without Ray, the same rows for a step however it is asked for, in the shares that are wanted."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from earthmap.errors import TrainingError
from earthmap.model.alignment import AlignmentHeads
from earthmap.model.earth_onevision import EarthOneVision
from earthmap.model.words import Words
from earthmap.training import Row, StageTable, begin, pack, parse_table, save_checkpoint
from earthmap.training.data import DataSpec
from earthmap.training.data_rows import DataRows, Weights
from earthmap.training.row_files import MANIFEST, granularity_of, read_prepared
from tests.training.data_sets import picture, prepared, turns, write_records
from tests.training.learners import make
from tests.training.learners import table as table_of_one

SCENES = 40


def _records(folder: Path) -> list[dict[str, Any]]:
    """Optical and radar scenes; every fourth has a box, and every fifth of the optical ones a mask."""
    found = []
    for number in range(SCENES):
        name = picture(folder, f"{number}.png", seed=number).name
        said = ["<image>\nIs there any water?", "yes", "What is this?", f"place {number}"]
        said += ["Find the ships.", f"ship:box[{number},2,300,400]"] if number % 4 == 0 else []
        said += ["Where is water?", "water:mask[8|0:0+8]"] if number % 5 == 0 and number % 2 else []
        more = {"modality": "sar"} if number % 2 == 0 else {}
        found.append({"image": name, "conversations": turns(*said), **more})
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SCENES scenes."""
    top = tmp_path_factory.mktemp("rows")
    write_records(top / "data.jsonl", _records(top))
    return prepared(DataSpec(path=str(top / "data.jsonl")), out=top / "out").folder


def _table(*modalities: str, tokens: int = 300, steps: int = 20, **options: Any) -> StageTable:
    rows = [
        {"name": name, "modalities": name.split("+"), "rates": {"decoder": 0.1}, "steps": steps, "tokens": tokens}
        | (options if place else {key: value for key, value in options.items() if key != "replay"})
        for place, name in enumerate(modalities)
    ]
    return parse_table(json.dumps({"stages": rows}), source="t")


def _same(one: list[Row], other: list[Row]) -> bool:
    return one == other and all((a.pictures == b.pictures).all() for a, b in zip(one, other, strict=True))


def test_what_goes_in_comes_out(folder: Path) -> None:
    found = read_prepared(folder)
    assert found is not None
    assert (found.places, found.rows, found.faults) == (SCENES, SCENES, {})
    assert found.counts["modality"] == {"optical": 2 * 20 + 4, "sar": 2 * 20 + 10}
    assert found.counts["granularity"] == {"patch": 4, "region": 10, "scene": 80}
    source = DataRows(folder=folder, seed=1, held_out_share=0.0)
    rows = source.rows(_table("optical+sar", mixture={"vqa": 1.0}, tokens=9_000, steps=1), 0)
    assert {one.answer for row in rows for one in row.asked} == {"yes", *(f"place {n}" for n in range(SCENES))}
    for row in rows:
        number = next(int(one.answer[6:]) for one in row.asked if one.answer.startswith("place"))
        with Image.open(folder.parent / f"{number}.png") as image:
            assert (np.moveaxis(row.pictures[0], 0, -1) == np.asarray(image)).all()
        assert row.names == ("rgb-8bit: ",)
        assert row.modality == ("optical" if number % 2 else "sar")


def test_a_step_is_the_same_whoever_asks_for_it(folder: Path) -> None:
    table = _table("optical", "sar", replay=0.5)
    one, other = (DataRows(folder=folder, seed=3) for _ in range(2))
    backwards = {step: other.rows(table, step) for step in reversed(range(table.steps))}
    for step in range(table.steps):
        whole = one.rows(table, step)
        assert _same(whole, backwards[step])
        parts = [pickle.loads(pickle.dumps(one)).rows(table, step, part=part, parts=3) for part in range(3)]
        assert sorted(row.id for part in parts for row in part) == sorted(row.id for row in whole)
        assert all(_same(part, whole[number::3]) for number, part in enumerate(parts))


def test_another_seed_is_another_order_and_key(folder: Path) -> None:
    table = _table("optical+sar")
    sources = [DataRows(folder=folder, seed=seed) for seed in (1, 2)]
    assert not _same(sources[0].rows(table, 0), sources[1].rows(table, 0))
    keys = {source.key for source in (*sources, DataRows(folder=folder, seed=1, questions=3))}
    keys.add(DataRows(folder=folder, seed=1, weights=Weights(modality={"sar": 2.0})).key)
    assert len(keys) == 4


def test_rows_do_not_depend_on_the_order_and_the_files_that_data_came_in(folder: Path, tmp_path: Path) -> None:
    records = _records(tmp_path)
    write_records(tmp_path / "a.jsonl", records[::-2])
    write_records(tmp_path / "b.json", records[::2])
    specs = [DataSpec(path=str(tmp_path / name)) for name in ("b.json", "a.jsonl")]
    other = prepared(*specs, out=tmp_path / "out")
    mine = DataRows(folder=folder, seed=1)
    assert read_prepared(folder).key == other.key  # type: ignore[union-attr]
    table = _table("optical+sar")
    for step in range(5):
        assert _same(mine.rows(table, step), DataRows(folder=other.folder, seed=1).rows(table, step))


def test_every_place_has_its_turn_before_any_comes_again(folder: Path) -> None:
    table = _table("sar", mixture={"vqa": 1.0}, steps=200)
    source = DataRows(folder=folder, seed=1, held_out_share=0.0)
    places = [row.id.split("/")[0] for step in range(200) for row in source.rows(table, step)]
    epochs = [places[first : first + 20] for first in range(0, len(places) - 19, 20)]
    assert len(epochs) > 2
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert epochs[0] != epochs[1]


def _leads(source: DataRows, table: StageTable) -> Counter[tuple[str, str]]:
    rows = [row for step in range(table.steps) for row in source.rows(table, step)]
    assert all(len(row.asked) == 1 for row in rows)
    return Counter((row.modality, row.asked[0].category) for row in rows)


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        (Weights(), {("optical", "vqa"): 0.25, ("optical", "segment"): 0.25, ("sar", "vqa"): 0.25}),
        (Weights(modality={"sar": 3.0}, category={"vqa": 4.0}), {("sar", "vqa"): 0.6, ("sar", "detect"): 0.15}),
        (Weights(category={"vqa": 0.0}), {("optical", "segment"): 0.5, ("sar", "detect"): 0.5}),
    ],
)
def test_weights_are_shares_of_the_questions(
    folder: Path, weights: Weights, wanted: Mapping[tuple[str, str], float]
) -> None:
    source = DataRows(folder=folder, seed=1, weights=weights, questions=1, held_out_share=0.0)
    found = _leads(source, _table("optical+sar", steps=150))
    for what, share in wanted.items():
        assert found[what] / found.total() == pytest.approx(share, abs=0.06)


def test_granularities_are_weighed_within_a_category(tmp_path: Path) -> None:
    for number in range(8):
        picture(tmp_path, f"{number}.png", seed=number)
    records = [
        {"image": f"{number}.png", "task": "change", "conversations": turns("What changed?", answer)}
        for number in range(8)
        for answer in (["nothing"] if number else ["water gained:mask[8|0:0+8]"])
    ]
    write_records(tmp_path / "d.json", records)
    found = prepared(DataSpec(path=str(tmp_path / "d.json")), out=tmp_path / "out")
    weights = Weights(granularity={"patch": 3.0})
    source = DataRows(folder=found.folder, seed=1, weights=weights, questions=1, held_out_share=0.0)
    rows = [row for step in range(200) for row in source.rows(_table("optical", steps=200), step)]
    counts = Counter(granularity_of(one) for row in rows for one in row.asked)
    assert counts["patch"] / counts.total() == pytest.approx(0.75, abs=0.06)


def test_weights_are_read_from_one_line() -> None:
    found = Weights.parse("sar=2, detect=0.5,patch=3,vqa=0")
    assert found == Weights(modality={"sar": 2.0}, category={"detect": 0.5, "vqa": 0.0}, granularity={"patch": 3.0})
    assert Weights.parse("") == Weights()
    for text in ("sar", "radio=1", "sar=-1", "sar=nan", "sar=1e9", "=1"):
        with pytest.raises(TrainingError, match="expected NAME=NUMBER with one of optical, sar"):
            Weights.parse(text)


def test_a_stage_replays_what_earlier_ones_learned(folder: Path) -> None:
    source = DataRows(folder=folder, seed=1, questions=1)
    table = _table("optical", "sar", steps=150, replay=0.25)
    rows = [row for step in range(150, 300) for row in source.rows(table, step)]
    assert sum(row.modality == "optical" for row in rows) / len(rows) == pytest.approx(0.25, abs=0.06)
    assert {row.modality for step in range(0, 150, 9) for row in source.rows(table, step)} == {"optical"}


def test_a_mixture_asks_nothing_else(folder: Path) -> None:
    source = DataRows(folder=folder, seed=1)
    rows = [row for step in range(9) for row in source.rows(_table("optical+sar", mixture={"detect": 1.0}), step)]
    assert {one.category for row in rows for one in row.asked} == {"detect"}


def test_a_step_has_about_as_many_tokens_as_its_stage_wants(folder: Path) -> None:
    source = DataRows(folder=folder, seed=1)
    few, many = (len(source.rows(_table("optical", tokens=tokens), 0)) for tokens in (400, 4000))
    assert many == pytest.approx(10 * few, rel=0.15)
    assert len(source.rows(_table("optical", tokens=1), 0)) == 1


def test_a_stage_without_data_is_told_before_the_first_step(folder: Path) -> None:
    source = DataRows(folder=folder, seed=1)
    with pytest.raises(TrainingError, match="the stage 'infrared' has nothing to learn from"):
        source.rows(_table("optical", "infrared"), 0)
    with pytest.raises(TrainingError, match="the stage 'optical' has nothing"):
        source.rows(_table("optical", mixture={"track": 1.0}), 0)


def test_what_is_held_out_is_never_learned(folder: Path) -> None:
    source = DataRows(folder=folder, seed=1, held_out_share=0.3)
    held = source.held_out()
    table = _table("optical+sar", steps=100)
    learned = {row.id.split("/")[0] for step in range(100) for row in source.rows(table, step)}
    kept = {row.id.split("/")[0] for row in held}
    assert len(held) == len(kept)
    assert not learned & kept
    assert len(learned | kept) == SCENES
    assert 4 <= len(kept) <= 20
    assert {row.modality for row in source.held_out(most=2)} == {"optical", "sar"}
    one_each = DataRows(folder=folder, seed=1, held_out_share=0.3, questions=2).held_out()
    assert _same(one_each, DataRows(folder=folder, seed=1, held_out_share=0.3, questions=2).held_out())
    drawn = {one.category for row in one_each for one in row.asked}
    assert drawn == {one.category for row in held for one in row.asked} >= {"vqa", "detect"}
    assert DataRows(folder=folder, seed=1, held_out_share=0.0).held_out() == []


def test_many_questions_are_packed_on_one_picture(tmp_path: Path, words: Words) -> None:
    picture(tmp_path, "a.png")
    # As visual question answering is stored: a record for each question about the same picture.
    records = [{"image": "a.png", "question": f"What is at {number}?", "answer": str(number)} for number in range(40)]
    write_records(tmp_path / "a.json", records[:30])
    write_records(tmp_path / "b.json", records[20:])
    specs = [DataSpec(path=str(tmp_path / name)) for name in ("a.json", "b.json")]
    found = prepared(*specs, out=tmp_path / "out")
    assert (found.places, found.rows) == (1, 2)
    stored = [pa.ipc.open_file(found.folder / name).read_all() for name in found.parts]
    assert sum(len(pictures) for table in stored for pictures in table["pictures"].to_pylist()) == 1
    source = DataRows(folder=found.folder, seed=1, questions=16, held_out_share=0.0)
    table = _table("optical", tokens=10, steps=60)
    asked = set()
    for step in range(60):
        (row,) = source.rows(table, step)
        assert len(row.asked) == 16
        asked |= {one.answer for one in row.asked}
        if step == 0:
            batch = pack([row], words)
            assert batch.stem.shape[0] == 1
            assert int(batch.question.max()) == 15
    assert asked == {str(number) for number in range(40)}


def test_a_folder_without_rows_and_odd_settings_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no prepared training data"):
        DataRows(folder=tmp_path, seed=1)
    for options in ({"questions": 0}, {"held_out_share": 1.0}, {"questions": 65}):
        with pytest.raises(TrainingError, match="expected 1 to 64 questions"):
            DataRows(folder=folder, seed=1, **options)
    for weights in (
        {"modality": {"radio": 1.0}},
        {"category": {"vqa": -1.0}},
        {"granularity": {"scene": float("nan")}},
    ):
        with pytest.raises(TrainingError, match="expected a number from 0 on for one of"):
            Weights(**weights)


def test_damaged_folders_are_told(folder: Path, tmp_path: Path) -> None:
    for name, text, said in (
        (MANIFEST, "{", "cannot be read"),
        (MANIFEST, '{"version": "0"}', "of version 0"),
        (MANIFEST, '{"version": "1", "parts": []}', "cannot be read"),
        ("rows-00000.arrow", "ARROW1", "cannot be read"),
    ):
        copy = tmp_path / f"{said}{len(text)}"
        shutil.copytree(folder, copy)
        (copy / name).write_text(text)
        with pytest.raises(TrainingError, match=said):
            DataRows(folder=copy, seed=1).rows(_table("optical"), 0)


def test_training_goes_on_in_the_middle_of_an_epoch(folder: Path, tmp_path: Path, words: Words) -> None:
    source = DataRows(folder=folder, seed=1, questions=3)
    table = table_of_one(steps=6)
    assert len(source.rows(table, 0)) < SCENES / 6  # six steps are less than an epoch

    def start() -> tuple[EarthOneVision, AlignmentHeads]:
        new = make(words, table)
        return new.model, new.heads

    def losses(out: Path, until: int) -> list[float]:
        learner = begin(out, table=table, source=source, start=start)
        told = [learner.learn(source.rows(table, step)).loss for step in range(learner.step, until)]
        save_checkpoint(learner, out)
        return told

    whole = losses(tmp_path / "whole", 6)
    assert losses(tmp_path / "parts", 3) + losses(tmp_path / "parts", 6) == whole
    other = DataRows(folder=folder, seed=2, questions=3)
    with pytest.raises(TrainingError, match="the rows are not those that"):
        begin(tmp_path / "parts", table=table, source=other, start=start)


def test_frames_of_a_video_are_learned_two_by_two(tmp_path: Path, words: Words) -> None:
    frames = [picture(tmp_path, f"{number}.png", seed=number).name for number in range(5)]
    said = turns("<image>" * 5 + "Track the ships.", "#1 ship:box[1,2,30,40]@0s;#1 ship:box[5,2,35,40]@0.5s")
    records = [
        {"images": frames, "modality": "video", "seconds": [0, 0.5, 1, 1.5, 4], "conversations": said},
        {"images": frames[:2], "modality": "video", "seconds": [1, 1], "conversations": turns("?", "!")},
        {"images": frames[:1], "modality": "video", "conversations": turns("?", "!")},
    ]
    write_records(tmp_path / "d.jsonl", records)
    found = prepared(DataSpec(path=str(tmp_path / "d.jsonl")), out=tmp_path / "out")
    assert found.faults == {"images": 1, "unknown": 1}
    (row,) = DataRows(folder=found.folder, seed=1, held_out_share=0).rows(_table("video", tokens=1), 0)
    assert row.names == ("<0.2 seconds>", "<1.2 seconds>", "<4.0 seconds>")
    assert row.pictures.shape == (3, 2, 3, 64, 64)
    for number, frame in enumerate((*frames, frames[-1])):
        with Image.open(tmp_path / frame) as image:
            assert (np.moveaxis(row.pictures[number // 2, number % 2], 0, -1) == np.asarray(image)).all()
    assert (row.asked[0].task, row.asked[0].spatial) == ("track", True)
    assert pack([row], words).pixels.shape == (1, 3, 2, 3, 64, 64)


# ── bad rows ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_bad_rows_are_counted_and_named_and_the_others_learned(tmp_path: Path) -> None:
    picture(tmp_path, "good.png")
    picture(tmp_path, "wide.png", size=(64, 32))
    picture(tmp_path, "tiny.png", size=(8, 8))
    (tmp_path / "cut.png").write_bytes(picture(tmp_path, "x.png").read_bytes()[:2000])
    fine = turns("What?", "That.")
    records: list[Any] = [
        {"image": "good.png", "conversations": fine},
        {"image": "gone.png", "conversations": fine},
        {"image": "cut.png", "conversations": fine},
        {"image": "tiny.png", "conversations": fine},
        {"image": "good.png", "width": 9, "height": 9, "conversations": fine},
        {"images": ["good.png", "wide.png"], "conversations": fine},
        {"image": "../good.png", "conversations": fine},
        {"image": "good.png", "conversations": turns("What?")},
        {"image": "good.png", "conversations": turns("What?", "That.", "Find it.", "at box[1,2,3,4] there")},
        {"images": ["good.png"] * 700, "conversations": fine},
        {"image": "good.png", "conversations": turns("What?", "That. " * 2000)},
        "nothing",
    ]
    write_records(tmp_path / "d.jsonl", records)
    found = prepared(DataSpec(path=str(tmp_path / "d.jsonl")), out=tmp_path / "out")
    assert (found.places, found.questions) == (1, 1)
    faults = pq.read_table(found.folder / "faults.parquet").to_pylist()
    named = sorted((fault["place"], fault["cause"]) for fault in faults)
    assert named == sorted(
        [
            ("line 2", "missing"),
            ("line 3", "damaged"),
            ("line 4", "size"),
            ("line 5", "size"),
            ("line 6", "size"),
            ("line 7", "outside"),
            ("line 8", "answer"),
            ("line 9", "repeated"),
            ("line 9", "coordinates"),
            ("line 10", "long"),
            ("line 11", "long"),
            ("line 12", "conversation"),
        ]
    )
    assert all(fault["file"].endswith("d.jsonl") and fault["message"] for fault in faults)
    assert found.faults == dict(sorted(Counter(fault["cause"] for fault in faults).items()))
    assert any("left out" in line for line in found.lines())


def test_data_without_a_good_row_say_what_is_wrong(tmp_path: Path) -> None:
    write_records(tmp_path / "d.json", [{"image": "gone.png", "conversations": turns("What?", "That.")}])
    with pytest.raises(TrainingError, match=r"the first is .*d.json line 2: there is no gone.png"):
        prepared(DataSpec(path=str(tmp_path / "d.json")), out=tmp_path / "out")
    with pytest.raises(TrainingError, match="there is no data set"):
        prepared(DataSpec(path=str(tmp_path / "e.json")), out=tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.json,colour=red", "the setting 'colour'"),
        ("a.json,view=a,view=b", "a setting twice"),
        ("a.json,kind=csv", "of the kind 'csv'"),
        ("a.json,modality=radio", "modality 'radio'"),
        ("a.json,labels=b.geojson,kind=conversations", "has labels, but is no cube"),
        ("store,kind=cube", "a cube without labels"),
        ("a.json,things=ship", "but no labels"),
        ("", "has no path"),
    ],
)
def test_odd_data_sets_are_refused(text: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        DataSpec.parse(text)


# ── Hugging Face ─────────────────────────────────────────────────────────────────────────────────────────────

_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_TURNS = pa.list_(pa.struct({"from": pa.string(), "value": pa.string()}))


def _stored(folder: Path, name: str, columns: dict[str, tuple[list[Any], pa.DataType]], *, rows: int = 2) -> Path:
    """A Parquet file as `datasets` writes it, with what its features are in the metadata."""
    schema = pa.schema(
        {column: kind for column, (_, kind) in columns.items()},
        metadata={"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})},
    )
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({column: values for column, (values, _) in columns.items()}, schema=schema)
    pq.write_table(table, folder / name, row_group_size=rows)
    return folder / name


def _embedded(folder: Path, count: int) -> list[dict[str, Any]]:
    return [{"bytes": picture(folder, f"{n}.png", seed=n).read_bytes(), "path": f"{n}.png"} for n in range(count)]


def test_parquet_of_hugging_face_is_read(tmp_path: Path) -> None:
    images = _embedded(tmp_path / "pictures", 5)
    said = [turns("<image>\nWhat is this?", f"place {number}") for number in range(5)]
    _stored(
        tmp_path / "set/data",
        "train-00000-of-00001.parquet",
        {"image": (images, _IMAGE), "conversations": (said, _TURNS)},
    )
    _stored(
        tmp_path / "set/data",
        "test-00000-of-00001.parquet",
        {"image": (images, _IMAGE), "conversations": (said, _TURNS)},
    )
    found = prepared(DataSpec(path=str(tmp_path / "set")), out=tmp_path / "out")
    assert (found.places, found.faults) == (5, {})
    assert found.notes == {"files of other splits left alone": 1}
    rows = DataRows(folder=found.folder, seed=1, held_out_share=0).rows(_table("optical", tokens=9000, steps=1), 0)
    assert {row.asked[0].answer for row in rows} == {f"place {number}" for number in range(5)}


def test_parquet_with_questions_and_lists_of_pictures(tmp_path: Path) -> None:
    images = _embedded(tmp_path, 2)
    outside = [[images[0], {"bytes": None, "path": "1.png"}], [{"bytes": None, "path": "gone.png"}], [images[0]], []]
    file = _stored(
        tmp_path,
        "pairs.parquet",
        {
            "images": (outside, pa.list_(_IMAGE)),
            "question": (["What changed?", "?", "Is there any water?", "?"], pa.string()),
            "answers": ([["a lake"], ["x"], ["No"], ["x"]], pa.list_(pa.string())),
            "unused": ([b"x" * 99] * 4, pa.binary()),
        },
    )
    found = prepared(DataSpec(path=str(file)), out=tmp_path / "out")
    faults = pq.read_table(found.folder / "faults.parquet").to_pylist()
    assert [(fault["place"], fault["cause"]) for fault in faults] == [("row 1", "missing"), ("row 3", "images")]
    assert found.counts["modality"] == {"optical": 1, "temporal": 1}
    (pair,) = DataRows(folder=found.folder, seed=1, held_out_share=0).rows(_table("temporal", tokens=1), 0)
    assert pair.pictures.shape == (2, 3, 64, 64)
    assert pair.asked[0].answer == "a lake"


def test_parquet_that_is_none_or_says_nothing_is_named(tmp_path: Path) -> None:
    images = _embedded(tmp_path, 2)
    good: dict[str, Any] = {
        "image": (images, _IMAGE),
        "question": (["What?"] * 2, pa.string()),
        "answer": (["a", "b"], pa.string()),
    }
    whole = _stored(tmp_path / "d", "a.parquet", good, rows=1)
    (tmp_path / "d/b.parquet").write_bytes(whole.read_bytes()[:-40])
    _stored(tmp_path / "d", "c.parquet", {"image": (images, _IMAGE), "height_m": ([1, 2], pa.int32())})
    damaged = bytearray(whole.read_bytes())
    damaged[200:900] = bytes(700)
    (tmp_path / "d/e.parquet").write_bytes(damaged)
    found = prepared(DataSpec(path=str(tmp_path / "d")), out=tmp_path / "out")
    faults = pq.read_table(found.folder / "faults.parquet").to_pylist()
    causes = {(Path(fault["file"]).name, fault["cause"]) for fault in faults}
    assert {("b.parquet", "format"), ("c.parquet", "format")} <= causes
    assert any(name == "e.parquet" for name, _ in causes)
    assert found.places == 2


@pytest.mark.parametrize(("grounds", "held"), [(1, 0), (3, 0), (4, 1), (19, 1), (40, 4)])
def test_of_own_data_a_tenth_of_the_grounds_is_held_out_and_one_at_least(grounds: int, held: int, folder: Path) -> None:
    names = [f"{hash_of:08x}" for hash_of in np.random.default_rng(grounds).integers(0, 2**32, grounds).tolist()]
    source = DataRows(folder=folder, seed=1)
    batches = ([pa.record_batch({"ground": names[::2]}), pa.record_batch({"ground": names[1::2] * 2})], None)
    source.__dict__["_batches"] = batches
    share = source.own_share()
    assert sum(int(name, 16) / 16**8 < share for name in names) == held
