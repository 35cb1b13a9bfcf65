"""The engine against stock transformers: batched, cached, shared and dense are what plain forwards give."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from earthmap.errors import ModelError
from earthmap.model.decoding import over_tokens
from earthmap.model.engine import Closed, Engine, Slot, Stem, StemLayout, lay_out_stem
from earthmap.model.processing import patch_grid
from earthmap.tasks.grammar import build_automaton
from earthmap.tasks.serialization import parse
from tests.model.conftest import stock_logits

END = 3
QUESTIONS = (
    Closed(question=(10, 11, 12), choices=((20, END), (21, END))),
    Closed(question=(13, 14, 15, 16, 17), choices=((22, 23, 24, END), (22, END), (25, 26, END))),
    Closed(question=(18,), choices=((27, END), (END,))),
)


def _pixels(tiles: int, views: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(tiles)
    return torch.randint(0, 256, (tiles, views, 3, 64, 96), dtype=torch.uint8, generator=generator)


def _layout(model: Any, views: int = 2) -> StemLayout:
    slot = Slot(grid=patch_grid(64, 96), token=model.config.image_token_id)
    start, end = model.config.vision_start_token_id, model.config.vision_end_token_id
    parts: list[Any] = [(5, 6)]
    for view in range(views):
        parts += [(30 + view, start), slot, (end,)]
    return lay_out_stem(parts)


def _stem(engine: Engine, model: Any, pixels: torch.Tensor) -> Stem:
    return engine.read_stem(_layout(model, pixels.shape[1]), engine.encode(pixels))


def _rows(model: Any, tail: tuple[int, ...], tiles: int) -> torch.Tensor:
    stem = _layout(model).tokens
    return torch.cat([stem, torch.tensor(tail)]).expand(tiles, -1)


def _stock_score(model: Any, question: tuple[int, ...], choice: tuple[int, ...], pixels: torch.Tensor) -> torch.Tensor:
    rows = _rows(model, question + choice, len(pixels))
    scores = stock_logits(model, rows, pixels).log_softmax(dim=2)
    first = rows.shape[1] - len(choice)
    return sum(scores[:, first + i - 1, token] for i, token in enumerate(choice))  # type: ignore[return-value]


def test_choices_have_the_log_probabilities_of_plain_forwards(tiny: Any) -> None:
    pixels = _pixels(3)
    engine = Engine(tiny)
    scores = engine.score(_stem(engine, tiny, pixels), QUESTIONS)
    for closed, found in zip(QUESTIONS, scores, strict=True):
        for number, choice in enumerate(closed.choices):
            torch.testing.assert_close(
                found[:, number], _stock_score(tiny, closed.question, choice, pixels), atol=1e-4, rtol=1e-4
            )


def test_questions_do_not_see_each_other_nor_tiles_their_neighbours(tiny: Any) -> None:
    pixels = _pixels(4)
    engine = Engine(tiny)
    together = engine.score(_stem(engine, tiny, pixels), QUESTIONS)
    for number, closed in enumerate(QUESTIONS):
        alone = torch.cat([engine.score(_stem(engine, tiny, tile[None]), [closed])[0] for tile in pixels])
        torch.testing.assert_close(together[number], alone, atol=1e-5, rtol=1e-5)


def _stock_greedy(model: Any, prompt: tuple[int, ...], pixels: torch.Tensor, most: int) -> list[int]:
    written: list[int] = []
    for _ in range(most):
        rows = _rows(model, (*prompt, *written), 1)
        written.append(int(stock_logits(model, rows, pixels)[0, -1].argmax()))
        if written[-1] == END:
            break
    return written


def test_written_answers_are_those_of_plain_forwards(tiny: Any) -> None:
    pixels, prompts = _pixels(3), ((10, 11), (12, 13, 14, 15, 16), (17,))
    engine = Engine(tiny)
    answers = engine.write(_stem(engine, tiny, pixels), prompts, most=12, end=END)
    assert len({answer.tokens for row in answers for answer in row}) > 4, "the model says different things"
    for tile, row in enumerate(answers):
        for prompt, answer in zip(prompts, row, strict=True):
            plain = _stock_greedy(tiny, prompt, pixels[tile : tile + 1], 12)
            assert list(answer.tokens) == [token for token in plain if token != END]
            assert answer.ended == (plain[-1] == END)


def test_rows_that_end_leave_the_others_as_they_are(tiny: Any) -> None:
    """With the likeliest second token of one row as the end, that row stops there and no other changes."""
    pixels, prompts = _pixels(3), ((10, 11), (12, 13, 14))
    engine = Engine(tiny)
    stem = _stem(engine, tiny, pixels)
    whole = engine.write(stem, prompts, most=10, end=-1)
    end = whole[1][0].tokens[1]
    cut = engine.write(stem, prompts, most=10, end=end)
    for long_row, short_row in zip(whole, cut, strict=True):
        for long, short in zip(long_row, short_row, strict=True):
            stop = long.tokens.index(end) if end in long.tokens else len(long.tokens)
            assert short.tokens == long.tokens[:stop]
            assert short.ended == (end in long.tokens)
            count = len(short.log_probabilities)
            assert short.log_probabilities == pytest.approx(long.log_probabilities[:count], abs=1e-4)


@pytest.mark.parametrize("budget", [2, 5, 12, 30])
def test_with_a_grammar_every_answer_parses_and_ends_in_time(tiny: Any, budget: int) -> None:
    automaton = build_automaton(["box", "polygon"], labels=["ship", "ship yard"])
    spelling = {terminal: (100 + number,) for number, terminal in enumerate(automaton.terminals)}
    spelling |= {"ship": (200, 201), "ship yard": (200, 201, 202), "none": (203, 204)}
    texts = {ids: terminal for terminal, ids in spelling.items()}
    grammar = over_tokens(automaton, spelling, end=END)
    engine = Engine(tiny)
    answers = engine.write(
        _stem(engine, tiny, _pixels(4)), ((10, 11), (12, 13, 14)), most=max(budget, 3), end=END, grammar=grammar
    )
    for answer in (answer for row in answers for answer in row):
        assert answer.ended
        assert len(answer.tokens) < max(budget, 3)
        text, rest = "", list(answer.tokens)
        while rest:
            size = next(size for size in (3, 2, 1) if tuple(rest[:size]) in texts)
            text += texts[tuple(rest[:size])]
            rest = rest[size:]
        assert not set(parse(text).rejected) & {"cut off", "numbers"}


def test_a_stem_too_long_and_pictures_too_many_are_refused(tiny: Any) -> None:
    with pytest.raises(ModelError, match="expected 1 to 5400"):
        lay_out_stem([tuple(range(6000))])
    engine = Engine(tiny)
    with pytest.raises(ModelError, match="expected the layout's"):
        engine.read_stem(_layout(tiny, views=1), engine.encode(_pixels(1, views=2)))
