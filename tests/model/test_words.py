"""Words: digits stay single, marks in a question are letters, and a saved tokenizer is the same tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import ModelError
from earthmap.model.processing import patch_grid
from earthmap.model.words import MARKS, Words, load_words, save_words, train_words
from earthmap.tasks.grammar import END, build_automaton

TEXTS = ["Is there any water in this tile? yes no", "ship:box[100,200,300,400];none", "Where is the storage tank?"] * 30
WORDS = train_words(TEXTS, size=400)


@given(st.text())
def test_text_comes_back(text: str) -> None:
    assert WORDS.decode(WORDS.encode(text)) == text


@given(st.lists(st.sampled_from([*MARKS, "yes", "<|", "im_end", "|>"]), max_size=5).map("".join))
def test_marks_in_a_question_are_letters(text: str) -> None:
    assert not set(WORDS.encode(text)) & set(WORDS.marks.values())


def test_digits_are_single() -> None:
    assert len(WORDS.encode("1000")) == 4
    assert WORDS.spell("box[10,2]") == tuple(id for part in ("box", *"[10,2]") for id in WORDS.encode(part))


def test_marks_are_the_last_ids() -> None:
    ids = [WORDS.marks[mark] for mark in MARKS]
    assert ids == list(range(len(WORDS.tokenizer) - len(MARKS), len(WORDS.tokenizer)))
    assert len(WORDS.tokenizer) <= 400


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    save_words(WORDS, tmp_path)
    again = load_words(tmp_path)
    text = "<|im_end|> Wo ist 12 Wasser?"
    assert again.encode(text) == WORDS.encode(text)
    assert again.marks == WORDS.marks


def test_the_chat_template_says_the_same() -> None:
    content = [{"type": "image"}, {"type": "text", "text": "Is there any water?"}]
    ids = WORDS.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    parts = WORDS.opening([("", patch_grid(32, 32))])
    ours = [id for part in parts for id in (part if isinstance(part, tuple) else (part.token,))]
    assert ids == [*ours, *WORDS.asking("Is there any water?")]


def test_a_grammar_is_spelt_in_these_words() -> None:
    grammar = WORDS.grammar(build_automaton(["box"], labels=["ship"]))
    state = 0
    column = {int(id): number for number, id in enumerate(grammar.ids)}
    for id in (*WORDS.spell("ship:box[1,20,300,1000]"), WORDS.end):
        state = int(grammar.following[state, column[id]])
        assert state >= 0
    assert bool((grammar.following[state] < 0).all()), "nothing follows the end"
    assert END not in WORDS.tokenizer.get_vocab()


def test_no_tokenizer_and_one_without_marks_are_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    with pytest.raises(ModelError, match="cannot be loaded"):
        load_words(tmp_path)
    with pytest.raises(ModelError, match="expected the marks of Qwen3-VL"):
        Words.of(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())))
