"""The engine against stock transformers: batched, cached, shared and dense are what plain forwards give."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from earthmap.errors import ModelError
from earthmap.model.closed import Closed
from earthmap.model.decoding import over_tokens
from earthmap.model.engine import Engine, Slot, Stem, StemLayout, dtype_policy, lay_out_stem
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


def test_kernels_may_answer_in_any_order_of_memory(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's attention lays its answer out token by token where the CPU's does it head by head."""
    engine = Engine(tiny)
    stem = _stem(engine, tiny, _pixels(2))
    expected = engine.score(stem, QUESTIONS), engine.write(stem, ((10, 11),), most=5, end=END)
    attention = torch.nn.functional.scaled_dot_product_attention

    def turned(*given: Any, **options: Any) -> torch.Tensor:
        return attention(*given, **options).transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", turned)
    stem = _stem(engine, tiny, _pixels(2))
    for one, other in zip(expected[0], engine.score(stem, QUESTIONS), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert engine.write(stem, ((10, 11),), most=5, end=END)[0][0].tokens == expected[1][0][0].tokens


def test_the_same_questions_are_laid_out_once(tiny: Any) -> None:
    engine = Engine(tiny)
    for tiles in (1, 2, 3):
        engine.score(_stem(engine, tiny, _pixels(tiles)), QUESTIONS)
    assert len(engine._sheets) == 1
    stem = _stem(engine, tiny, _pixels(1))
    for number in range(40):
        engine.score(stem, [Closed(question=(10, 20 + number), choices=((20, END),))])
    assert len(engine._sheets) <= 16


def test_more_than_a_pass_holds_is_scored_as_in_one(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of 9 tokens split the questions, and the choices of one among them."""
    many = (*QUESTIONS, Closed(question=(40, 41), choices=tuple((50 + n, 60 + n, END) for n in range(30))))
    engine = Engine(tiny)
    stem = _stem(engine, tiny, _pixels(2))
    whole = engine.score(stem, many)
    passes: list[int] = []
    score_once = Engine._score_once

    def counted(self: Engine, stem: Stem, questions: Any) -> Any:
        passes.append(sum(len(q.question) + sum(len(choice) - 1 for choice in q.choices) for q in questions))
        return score_once(self, stem, questions)

    monkeypatch.setattr("earthmap.model.closed.TREE_TOKENS", 9)
    monkeypatch.setattr(Engine, "_score_once", counted)
    split = engine.score(stem, many)
    assert [scores.shape for scores in split] == [(2, len(closed.choices)) for closed in many]
    for one, other in zip(whole, split, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert len(passes) > 10
    assert max(passes) <= 9


def test_bfloat16_says_about_the_same(tiny: Any) -> None:
    """The same weights in the type of a GPU: log-probabilities in float32, close to those of float32."""
    plain, rounded = Engine(tiny), Engine(copy.deepcopy(tiny).to(torch.bfloat16))
    pixels = _pixels(2)
    expected, found = (engine.score(_stem(engine, tiny, pixels), QUESTIONS) for engine in (plain, rounded))
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=0.7, rtol=0.1)


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────

HUGE = tuple(range(5, 15)) * 10_000
"""A prompt of 100,000 tokens."""


@pytest.mark.parametrize(
    ("closed", "message"),
    [
        (Closed(question=(), choices=((20, END),)), "a question of no tokens; expected at least one"),
        (Closed(question=(10,), choices=()), "without choices; expected at least one; to fix"),
        (Closed(question=(10,), choices=((20, END), ())), "a choice of no tokens; expected at least"),
        (
            Closed(question=HUGE, choices=((20, END),)),
            "a question of 100000, an answer of 2; expected at most 5400; to fix",
        ),
        (Closed(question=(10,), choices=(HUGE,)), "an answer of 100000; expected at most 5400"),
        (Closed(question=(10, 512), choices=((20, END),)), "a token of id 512; expected ids below 512; to fix"),
        (Closed(question=(10,), choices=((20, END), (9_999_999,))), "a token of id 9999999"),
    ],
)
def test_questions_that_cannot_be_scored_are_refused(tiny: Any, closed: Closed, message: str) -> None:
    engine = Engine(tiny)
    stem = _stem(engine, tiny, _pixels(1))
    with pytest.raises(ModelError, match=message):
        engine.score(stem, [QUESTIONS[0], closed])


@pytest.mark.parametrize(
    ("prompts", "most", "message"),
    [
        ([], 5, "0 questions with answers of at most 5 tokens; expected at least one question"),
        ([(10,), ()], 5, "a question of no tokens"),
        ([(10,)], 0, "expected at least one question, and 1 tokens"),
        ([HUGE], 5, "at most 5400"),
        ([(10,)], 5400, "an answer of 5400; expected at most 5400"),
        ([(512,)], 5, "a token of id 512"),
    ],
)
def test_prompts_that_cannot_be_answered_are_refused(tiny: Any, prompts: Any, most: int, message: str) -> None:
    engine = Engine(tiny)
    stem = _stem(engine, tiny, _pixels(1))
    with pytest.raises(ModelError, match=message):
        engine.write(stem, prompts, most=most, end=END)


def test_a_budget_in_which_nothing_can_be_said_is_refused(tiny: Any) -> None:
    automaton = build_automaton(["box"], labels=["ship"])
    grammar = over_tokens(automaton, {name: (100 + n,) for n, name in enumerate(automaton.terminals)}, end=END)
    assert grammar.shortest == 2, "none, and the end"
    engine = Engine(tiny)
    with pytest.raises(ModelError, match="at most 1 tokens; expected at least one question, and 2 tokens"):
        engine.write(_stem(engine, tiny, _pixels(1)), [(10,)], most=1, end=END, grammar=grammar)


@pytest.mark.parametrize(
    "shape",
    [(3, 64, 64), (1, 3, 64, 64), (1, 1, 4, 64, 64), (1, 2, 1, 3, 64, 64), (0, 1, 3, 64, 64), (1, 0, 3, 64, 64)],
)
def test_pixels_that_are_no_batch_of_views_are_refused(tiny: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"expected \(B, V, 3, H, W\)"):
        Engine(tiny).encode(torch.zeros(shape, dtype=torch.uint8))


def test_nothing_is_no_batch_and_no_questions_have_no_answers(tiny: Any) -> None:
    engine = Engine(tiny)
    with pytest.raises(ModelError, match="a batch of nothing"):
        engine.encode([])
    assert engine.score(_stem(engine, tiny, _pixels(1)), []) == []


def test_a_type_is_chosen_by_the_device_or_refused() -> None:
    assert dtype_policy("cpu") == torch.float32
    assert dtype_policy("cuda") == torch.bfloat16
    assert dtype_policy("cpu", torch.bfloat16) == torch.bfloat16
    with pytest.raises(ModelError, match=r"a model in torch.float16; expected torch.float32 or torch.bfloat16"):
        dtype_policy("cuda", torch.float16)


def test_a_stem_too_long_and_pictures_too_many_are_refused(tiny: Any) -> None:
    with pytest.raises(ModelError, match="expected 1 to 5400"):
        lay_out_stem([tuple(range(6000))])
    with pytest.raises(ModelError, match="of 0 tokens; expected 1 to 5400"):
        lay_out_stem([])
    engine = Engine(tiny)
    with pytest.raises(ModelError, match="expected the layout's"):
        engine.read_stem(_layout(tiny, views=1), engine.encode(_pixels(1, views=2)))
