"""Rows of drawn tiles: what a user's tile would show, asked in the predictor's words, the same for the same seed."""

from __future__ import annotations

import dataclasses
import datetime as dt
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from earthmap.errors import TrainingError
from earthmap.model.words import nano_words
from earthmap.predict.protocol import Picture, TileInput
from earthmap.predict.vlm import _look_at
from earthmap.synthetic import CLASSES, draw_tiles, facts_of, ground_distances, measure, plan_tiles
from earthmap.tasks import TASKS
from earthmap.training import MODALITIES, Row, default_table, parse_table
from earthmap.training.ahead import ahead
from earthmap.training.drawn import GROUP, SIGHTINGS, WORDS, DrawnRows, Sighting
from tests.training.learners import few_words, make

SOURCE = DrawnRows(seed=3, questions=6)
RATES = "{decoder: 0.001, vision_blocks: 0.001, alignment_heads: 0.001}"
ASKED = {"classify": 1.0, "label": 1.0, "vqa": 2.0, "change": 1.0, "track": 1.0}


def _table(tokens: int = 6000) -> str:
    rows = [
        f"{{name: {name}, modalities: [{name}], rates: {RATES}, steps: 2, tokens: {tokens}, alignment_weight: 1.0,"
        f" replay: {0.5 if number else 0.0}}}"
        for number, name in enumerate(MODALITIES)
    ]
    return f"stages: [{', '.join(rows)}]"


TABLE = parse_table(_table(), source="t")


def _same(one: Row, other: Row) -> bool:
    pictures = np.array_equal(one.pictures, other.pictures)
    shares = (one.shares is None) == (other.shares is None)
    if one.shares is not None and other.shares is not None:
        shares = np.array_equal(one.shares, other.shares, equal_nan=True)
    return one == other and pictures and shares


def _rows(modality: str, sighting: Sighting, *, seed: int = 7 << 9) -> list[Row]:
    return list(SOURCE.draw(modality, sighting, dates=sighting.dates[0], seed=seed, mixture=ASKED))


def test_a_step_has_the_same_rows_each_time_and_no_other_step_has_them() -> None:
    first, again = SOURCE.rows(TABLE, 1), SOURCE.rows(TABLE, 1)
    assert first
    assert len(first) == len(again)
    assert all(_same(one, other) for one, other in zip(first, again, strict=True))
    others = [*SOURCE.rows(TABLE, 0), *dataclasses.replace(SOURCE, seed=4).rows(TABLE, 1)]
    assert not {row.id for row in first} & {row.id for row in others}
    assert SOURCE.key != dataclasses.replace(SOURCE, seed=4).key != dataclasses.replace(SOURCE, questions=5).key


def test_each_row_of_a_step_falls_to_one_worker() -> None:
    whole = {row.id for row in SOURCE.rows(TABLE, 3)}
    parts = [{row.id for row in SOURCE.rows(TABLE, 3, part=part, parts=3)} for part in range(3)]
    assert sorted(name for part in parts for name in part) == sorted(whole)


def test_a_step_is_filled_and_replays_what_was_learned() -> None:
    rows = [row for step in (12, 13) for row in DrawnRows(seed=5).rows(parse_table(_table(20_000), source="t"), step)]
    seen = Counter(row.modality for row in rows)
    assert seen["fusion"] >= GROUP
    assert sum(seen.values()) > seen["fusion"]
    assert len(DrawnRows(seed=5).rows(TABLE, 0)) < len(rows) / 2


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_way_of_seeing_gives_rows_that_can_be_learned_from(modality: str) -> None:
    words = few_words()
    learner = make(words, TABLE)
    small = dataclasses.replace(SOURCE, side_px=64)
    for sighting in SIGHTINGS[modality]:
        rows = list(small.draw(modality, sighting, dates=sighting.dates[-1], seed=7 << 9, mixture=ASKED))
        assert rows, sighting
        assert {row.modality for row in rows} == {modality}
        assert learner.learn(rows[:2]).loss > 0
        learner.step = 0


@pytest.mark.parametrize("modality", [name for name in MODALITIES if name != "video"])
def test_a_row_shows_what_the_predictor_shows(modality: str) -> None:
    """The same names and levels, but for the days, which are drawn, and a decibel's last bit."""
    words = nano_words()
    for sighting in SIGHTINGS[modality][:2]:
        sensors = tuple(sensor for sensor, _ in sighting.sensors)
        recipe = plan_tiles(np.arange(GROUP) + (7 << 9), dates=sighting.dates[0], gsd_m=ground_distances(*sensors))
        tiles = draw_tiles(recipe)
        measured = [measure(tiles, sensor, bands=bands or None) for sensor, bands in sighting.sensors]
        for row in _rows(modality, sighting)[:3]:
            place = int(row.id.rpartition("/")[2])
            pictures = tuple(
                Picture(
                    observation="drawn",
                    sensor=one.sensor,
                    datetime=dt.datetime(2020 + date, 6, 1, tzinfo=dt.UTC),
                    bands=one.bands,
                    data=one.data[place, date].numpy(),
                    mask=one.mask[place, date].numpy(),
                )
                for date in range(recipe.dates)
                for one in measured
            )
            sight = _look_at(TileInput(tile=None, pictures=pictures), words.encode)
            undated = [re.sub(r", \d{4}-\d\d-\d\d", "", name) for name in (*sight.names, *row.names)]
            assert undated[: len(sight.names)] == undated[len(sight.names) :]
            assert np.abs(sight.pixels.astype(int) - row.pictures.astype(int)).max() <= 1


def test_shares_of_blocks_are_those_of_the_ground() -> None:
    """Where all of a tile is seen, its blocks' mean is the share that questions are answered by."""
    sighting = SIGHTINGS["sar"][0]
    tiles = draw_tiles(plan_tiles(np.arange(GROUP) + (7 << 9), gsd_m=ground_distances("sentinel-1-db")))
    facts = facts_of(tiles, sensors=("sentinel-1-db",))
    checked = 0
    for row in _rows("sar", sighting):
        fact = facts[int(row.id.rpartition("/")[2])]
        if row.shares is None or fact.seen[0] < 1.0:
            continue
        found = row.shares[0].mean(axis=0)
        for number, name in enumerate(CLASSES):
            assert np.isnan(found[number]) == (name not in fact.classes)
            assert np.isnan(found[number]) or abs(found[number] - fact.share(name)) < 1e-4
            checked += 1
    assert checked > 10


def test_what_a_sensor_cannot_tell_or_does_not_see_has_no_share() -> None:
    fused = SIGHTINGS["fusion"][0]
    rows = _rows("fusion", fused)
    hidden = 0
    for row in rows:
        assert row.shares is not None
        optical, radar = row.shares
        assert np.isnan(radar[:, WORDS.index("snow")]).all()
        covered = np.isnan(optical[:, 0])
        hidden += int(covered.sum())
        assert not (np.isnan(radar[:, 0]) & ~covered).any(), "radar sees what light sees"
    assert hidden, "some ground lies under clouds"


def test_questions_are_in_the_predictors_words() -> None:
    rows = [row for seed in range(6) for row in _rows("optical", SIGHTINGS["optical"][seed % 4], seed=seed << 12)]
    asked = [one for row in rows for one in row.asked]
    assert all(one.task in TASKS and one.answer for one in asked)
    assert "fraction" not in {one.task for one in asked}, "shares are asked of the heads"
    orders = Counter(one.choices for one in asked if one.task == "presence")
    assert set(orders) == {("yes", "no"), ("no", "yes")}
    assert min(orders.values()) > 0.3 * sum(orders.values())
    assert all(one.question.endswith(f"{'; '.join(one.choices)}.") for one in asked if one.choices)
    assert all(len(row.asked) <= 6 for row in rows)


def test_only_some_tasks_are_asked_where_they_are_named() -> None:
    source = DrawnRows(seed=3, tasks=("presence", "label"))
    rows = list(source.draw("optical", SIGHTINGS["optical"][0], dates=1, seed=5 << 9, mixture=ASKED))
    assert {one.task for row in rows for one in row.asked} == {"presence", "label"}


def test_no_tile_is_drawn_that_nothing_can_be_asked_of() -> None:
    """A series has no question of pairs: with those alone, pairs are drawn."""
    source = dataclasses.replace(SOURCE, side_px=64, tasks=("presence", "change-type"))
    table = parse_table(_table().replace("[optical]", "[temporal]"), source="t")
    rows = [row for step in range(2) for row in source.rows(table, step)]
    assert rows
    assert {len({name.split(", ")[1] for name in row.names}) for row in rows} == {2}
    assert {one.task for row in rows for one in row.asked} == {"change-type"}
    video = parse_table(_table().replace("[optical]", "[video]"), source="t")
    with pytest.raises(TrainingError, match="of video tiles none of presence, change-type can be asked"):
        source.rows(video, 0)


@pytest.mark.slow
def test_yes_and_no_are_as_likely_for_every_word() -> None:
    """Otherwise the word alone would tell the answer."""
    source = DrawnRows(seed=11, questions=16, tasks=("presence", "label"))
    said: dict[str, Counter[str]] = {}
    for seed in range(60):
        sighting = SIGHTINGS["optical"][seed % 4]
        for row in source.draw("optical", sighting, dates=1, seed=seed << 12, mixture={"vqa": 1.0, "label": 1.0}):
            for one in row.asked:
                name = next(word for word in (*WORDS, "snow") if word.split("-")[0] in one.question.split("\nReply")[0])
                said.setdefault(name, Counter())[one.answer] += 1
    for name, counts in said.items():
        if counts.total() >= 150:
            least = 0.35 if name in CLASSES else 0.2  # how often things are there depends on the ground distance
            assert least < counts["yes"] / counts.total() < 1.0 - least, (name, counts)


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_a_process_that_dies_while_it_makes_rows_is_told() -> None:
    with ahead(SOURCE, workers=1) as made:
        made.rows(TABLE, 0)
        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, signal.SIGKILL)
        with pytest.raises(TrainingError, match="a process that makes the rows died"):
            made.rows(TABLE, TABLE.steps - 1)


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_rows_made_ahead_are_the_same_rows() -> None:
    with ahead(SOURCE, workers=1) as made:
        assert made.key == SOURCE.key
        for step in (0, 1, 5):
            pairs = zip(made.rows(TABLE, step), SOURCE.rows(TABLE, step), strict=True)
            assert all(_same(one, other) for one, other in pairs)
        last = made.rows(TABLE, TABLE.steps - 1)
    assert [row.id for row in last] == [row.id for row in SOURCE.rows(TABLE, TABLE.steps - 1)]


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_who_makes_rows_ends_with_who_was_killed() -> None:
    script = """
import os, signal
from earthmap.training import default_table
from earthmap.training.ahead import ahead
from earthmap.training.drawn import DrawnRows

if __name__ == "__main__":
    with ahead(DrawnRows(seed=1, side_px=64), workers=1) as made:
        made.rows(default_table(), 0)
        print(*made.pool._processes, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "killed.py"
        path.write_text(script)
        killed = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    worker = int(killed.stdout)
    until = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split()[2]:
        assert time.monotonic() < until, "the process that draws outlived the one that learns"
        time.sleep(0.1)


def test_the_default_table_can_be_drawn() -> None:
    table, first = default_table(), 0
    small = dataclasses.replace(SOURCE, side_px=64)
    for stage in table.stages:
        assert small.rows(table, first, part=0, parts=64) is not None
        first += stage.steps


def test_no_step_is_without_rows_where_something_can_be_asked() -> None:
    """Most videos show nothing that moves."""
    text = "stages: [{name: v, modalities: video, rates: {decoder: 0.1}, steps: 14, tokens: 1}]"
    table = parse_table(text, source="t")
    source = DrawnRows(seed=5, side_px=32)
    assert all(source.rows(table, step) for step in range(table.steps))
