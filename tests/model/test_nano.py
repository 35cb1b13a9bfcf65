"""Preset `nano`: its size, its words, and what a question costs it."""

from __future__ import annotations

import time
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earthmap.model.config import PRESETS, get_preset
from earthmap.model.earth_onevision import EarthOneVision, new_earth_onevision
from earthmap.model.engine import Closed, lay_out_stem
from earthmap.model.processing import patch_grid
from earthmap.model.words import MARKS, NANO_WORDS, Words, nano_words
from earthmap.tasks import TARGETS, TASKS, make_query, picture_name, question_prompt
from earthmap.tasks.grammar import build_automaton
from earthmap.tasks.serialization import KINDS
from jobs import train_words

VIEWS = ("rgb", "rededge", "swir", "nir-coastal")


@pytest.fixture(scope="module")
def words() -> Words:
    return nano_words()


@pytest.fixture(scope="module")
def nano(words: Words) -> EarthOneVision:
    return new_earth_onevision("nano", words, seed=0)


def test_trained_again_the_words_are_the_same_bytes() -> None:
    assert train_words.train().encode() == NANO_WORDS.read_bytes()


def test_the_text_is_gathered_alike_each_time() -> None:
    """What is gathered now may be more than what the words were trained from, but it is always the same."""
    assert train_words.gather() == train_words.gather()
    assert len(set(train_words.TEXT.read_text(encoding="utf-8").splitlines())) > 1_000


def test_the_words_fill_the_preset(words: Words) -> None:
    assert len(words.tokenizer) == get_preset("nano").vocabulary
    assert [words.marks[mark] for mark in MARKS] == list(range(4096 - len(MARKS), 4096))
    assert words.tokenizer.chat_template


@cache
def nano_words_once() -> Words:
    return nano_words()


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    words = nano_words_once()
    ids = words.encode(text)
    assert words.decode(ids) == text
    assert not set(ids) & set(words.marks.values())


@given(st.integers(0, 10**12))
def test_digits_are_single(number: int) -> None:
    assert len(nano_words_once().encode(str(number))) == len(str(number))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("none", 1),
        ("box[100,200,300,400]", 1 + 2 + 3 + 12),
        ("ship:box[100,200,300,400]", 2 + 1 + 2 + 3 + 12),
        ("point[5,1000]", 1 + 2 + 1 + 5),
        ("obox[10,20,30,40,50,60,70,80]", 1 + 2 + 7 + 16),
    ],
)
def test_what_spatial_answers_cost(words: Words, text: str, tokens: int) -> None:
    """A token for each terminal: a box of four numbers of three digits is 18."""
    assert len(words.spell(text)) == tokens


def test_questions_are_short(words: Words) -> None:
    for target in TARGETS:
        assert len(words.encode(target)) == 1 + 2 * target.count("-"), target
    for task in (row for row in TASKS.values() if row.template):
        choices = TARGETS if task.chooses else None
        targets = None if task.chooses else ("water",)
        shape = task.shapes[0] if task.shapes else None
        query = make_query(
            task.example, task=task.id, targets=targets, choices=choices, shape=shape, open_vocabulary=True
        )
        prompt = question_prompt(query)
        assert len(words.encode(prompt)) <= 1.6 * len(prompt.split()) + 14, prompt
    assert all(len(words.encode(picture_name(view))) <= 6 for view in VIEWS)


def test_every_grammar_can_be_spelt(words: Words) -> None:
    grammar = words.grammar(build_automaton(KINDS, labels=["ship", "storage tank"]))
    assert set(words.spell("storage tank:box[0,123456789]")) <= set(grammar.ids.tolist())


def test_it_is_small(nano: EarthOneVision) -> None:
    assert sum(weight.numel() for weight in nano.model.parameters()) <= 8_000_000
    assert "nano" in PRESETS
    assert nano.card.tile_sizes == (128,)


def _closed_question(nano: EarthOneVision, pixels: torch.Tensor) -> list[torch.Tensor]:
    grid = patch_grid(128, 128)
    names = [picture_name(view) for view in VIEWS[: pixels.shape[1]]]
    layout = lay_out_stem(nano.words.opening([(name, grid) for name in names]))
    question = nano.words.asking(question_prompt(make_query("Is there any water?")))
    choices = tuple(nano.words.answering(choice) for choice in ("yes", "no"))
    stem = nano.engine.read_stem(layout, nano.engine.encode(pixels))
    return nano.engine.score(stem, [Closed(question=question, choices=choices)])


def test_a_closed_question_about_four_views_takes_under_100_ms_of_one_core(nano: EarthOneVision) -> None:
    """CPU time, of one thread: about 45 ms where this was written."""
    pixels = torch.randint(0, 256, (1, 4, 3, 128, 128), dtype=torch.uint8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _closed_question(nano, pixels)
        took = []
        for _ in range(5):
            start = time.process_time()
            found = _closed_question(nano, pixels)
            took.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert found[0].shape == (1, 2)
    assert bool(torch.isfinite(found[0]).all())
    assert min(took) < 0.1
