"""What a GPU does, held on a CPU: steps that are replayed, slates that are used again, halves that are compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from earthmap.model import language, vision
from earthmap.model.closed import Closed
from earthmap.model.engine import Engine, Slot, Stem, lay_out_stem
from earthmap.model.processing import patch_grid
from earthmap.model.writing import Slate, Written

PROMPTS = ((10, 11), (12, 13, 14, 15, 16), (17,))


class _Graph:
    """In the place of a CUDA graph: the same step, computed."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.replay = step


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Slates believe themselves on a GPU; the numbers of rows for which a graph was made."""
    made: list[int] = []

    def captured(slate: Any) -> _Graph:
        made.append(slate._rows)
        return _Graph(slate._step)

    monkeypatch.setattr(Slate, "replays", True)
    monkeypatch.setattr(Slate, "_captured", captured)
    return made


def _stem(engine: Engine, model: Any, tiles: int, side: int = 64) -> Stem:
    pixels = torch.randint(0, 256, (tiles, 1, 3, side, side), generator=torch.Generator().manual_seed(tiles))
    slot = Slot(grid=patch_grid(side, side), token=model.config.image_token_id)
    layout = lay_out_stem([(5, model.config.vision_start_token_id), slot, (model.config.vision_end_token_id,)])
    return engine.read_stem(layout, engine.encode(pixels.to(torch.uint8)))


def _same(found: list[list[Written]], expected: list[list[Written]]) -> None:
    for row, other in zip(found, expected, strict=True):
        for answer, plain in zip(row, other, strict=True):
            assert (answer.tokens, answer.ended) == (plain.tokens, plain.ended)
            assert answer.log_probabilities == pytest.approx(plain.log_probabilities, abs=1e-4)


def test_replayed_steps_write_what_plain_ones_do(
    tiny: Any, replayed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows leave by halves there, and ended ones among them go on unseen; the slate is used again, for less as well."""
    with monkeypatch.context() as plainly:
        plainly.setattr(Slate, "replays", False)
        plain = Engine(tiny)
        stems = {tiles: _stem(plain, tiny, tiles) for tiles in (5, 3)}
        end = plain.write(stems[5], PROMPTS, most=8, end=-1)[0][0].tokens[2]
        expected = [
            plain.write(stems[tiles], PROMPTS, most=most, end=end) for tiles, most in ((5, 12), (3, 7), (5, 12))
        ]
    engine = Engine(tiny)
    found = [engine.write(stems[tiles], PROMPTS, most=most, end=end) for tiles, most in ((5, 12), (3, 7), (5, 12))]
    for ours, theirs in zip(found, expected, strict=True):
        _same(ours, theirs)
    assert len(replayed) == len(set(replayed)), "a graph serves every batch of its size"
    assert {15, 9} <= set(replayed)


def test_a_larger_answer_gets_a_larger_slate(tiny: Any, replayed: list[int]) -> None:
    engine = Engine(tiny)
    stem = _stem(engine, tiny, 2)
    engine.write(stem, PROMPTS[:1], most=3, end=-1)
    long = engine.write(stem, PROMPTS[:1], most=60, end=-1)
    assert replayed == [2, 2]
    _same(long, Engine(tiny).write(stem, PROMPTS[:1], most=60, end=-1))


@pytest.mark.slow
def test_compiled_halves_give_the_same_and_are_compiled_a_few_times_only(tiny: Any) -> None:
    """Traced by the compiler, whose own arithmetic needs a GPU to be worth it; eight traces are where it gives up."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    engine, plain = Engine(tiny), Engine(tiny)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own deprecations
        engine._seeing, engine._reading = (part.PLAIN.fused(backend="eager") for part in (vision, language))
        for tiles, side in ((4, 64), (3, 64), (1, 64), (5, 96), (1, 96), (2, 32)):
            stems = [_stem(each, tiny, tiles, side) for each in (engine, plain)]
            closed = [Closed(question=(10, 11, 12), choices=((20, 3), (21, 22, 3)))] * tiles
            for ours, theirs in zip(engine.score(stems[0], closed), plain.score(stems[1], closed), strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
            _same(
                *(each.write(stem, PROMPTS, most=4, end=-1) for each, stem in zip((engine, plain), stems, strict=True))
            )
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 4 * 5, "two halves of two kinds of layers, each at most five times"


def test_nothing_is_compiled_on_a_cpu(tiny: Any) -> None:
    engine = Engine(tiny)
    engine.fuse()
    assert engine._seeing is vision.PLAIN
    assert engine._reading is language.PLAIN
