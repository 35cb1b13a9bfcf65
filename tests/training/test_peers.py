"""Workers that share a step: however rows are split, the step is that of one process, and nobody waits for ever."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
import torch

from earthmap.errors import StorageError, TrainingError
from earthmap.model.words import Words
from earthmap.training import Alone, Learned, Learner, Peers, Row, agree
from tests.training.learners import make, row, table

T = TypeVar("T")


@dataclass
class Table:
    """Where threads that share a step lay down what they tell."""

    barrier: threading.Barrier
    laid: dict[int, object] = field(default_factory=dict)


@dataclass
class Together:
    """`Peers` of threads."""

    rank: int
    table: Table

    @property
    def count(self) -> int:
        return self.table.barrier.parties

    def gather(self, mine: T) -> list[T]:
        self.table.laid[self.rank] = mine
        self.table.barrier.wait(20)
        told = [self.table.laid[rank] for rank in range(self.count)]
        self.table.barrier.wait(20)
        return told  # type: ignore[return-value]

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        told = self.gather([tensor.clone() for tensor in tensors])
        for number, tensor in enumerate(tensors):
            tensor.copy_(torch.stack([one[number] for one in told]).sum(dim=0))


def by_threads(count: int, work: Callable[[Peers], T]) -> list[T]:
    """What `work` returns for each of `count` peers."""
    table = Table(threading.Barrier(count))
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda rank: work(Together(rank, table)), range(count)))


def _rows() -> list[Row]:
    """Of two sizes, with and without shares, captions and answers of different number."""
    rows = [row(number, size=96 if number % 3 == 0 else 64) for number in range(7)]
    rows[1] = replace(rows[1], asked=rows[1].asked[:1])
    rows[2] = replace(rows[2], shares=None)
    rows[4].shares[0, 1] = torch.nan  # type: ignore[index]
    return rows


def _steps(words: Words, parts: list[list[Row]]) -> list[tuple[list[Learned], Learner]]:
    """Three steps of as many workers as there are parts."""

    learners = [make(words, table()) for _ in parts]  # they are drawn with torch's one generator

    def work(peers: Peers) -> tuple[list[Learned], Learner]:
        learner = learners[peers.rank]
        learner.peers = peers
        return [learner.learn(parts[peers.rank]) for _ in range(3)], learner

    return by_threads(len(parts), work)


@pytest.mark.parametrize("split", [(3,), (1,), (0,), (2, 5)])
def test_workers_make_the_step_of_one_process(words: Words, split: tuple[int, ...]) -> None:
    """Also where one has nothing to do, and where they have unequal numbers of answers, blocks and layouts."""
    rows = _rows()
    edges = [0, *split, len(rows)]
    parts = [rows[start:end] for start, end in itertools.pairwise(edges)]
    [(expected, alone)] = _steps(words, [rows])
    done = _steps(words, parts)
    for learned, learner in done:
        for mine, theirs in zip(learned, expected, strict=True):
            assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)
            assert mine.alignment == pytest.approx(theirs.alignment, rel=1e-4)
            assert (mine.right, mine.gradient) == pytest.approx((theirs.right, theirs.gradient), rel=1e-3)
        for name, weight in alone.model.model.named_parameters():
            torch.testing.assert_close(learner.model.model.get_parameter(name), weight, atol=2e-4, rtol=1e-3)
            same = done[0][1].model.model.get_parameter(name)
            assert torch.equal(learner.model.model.get_parameter(name), same), name
        assert learned == done[0][0]


def test_small_forwards_have_the_gradients_of_one(words: Words) -> None:
    gradients = []
    for at_once in (7, 2):
        learner = make(words, table(), at_once=at_once)
        learner._gradients(_rows(), learner.stage)
        gradients.append({name: p.grad for name, p in learner.model.model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_a_fault_of_one_is_the_fault_of_all() -> None:
    def work(peers: Peers) -> str:
        def act() -> str:
            if peers.rank:
                raise StorageError(f"no space left on worker {peers.rank}")
            return "done"

        with pytest.raises(StorageError) as caught:
            agree(peers, act)
        return str(caught.value)

    assert by_threads(3, work) == ["no space left on worker 1"] * 3
    assert agree(Alone(), lambda: 5) == 5


def test_no_rows_for_anybody_is_told(words: Words) -> None:
    with pytest.raises(TrainingError, match="without rows"):
        _steps(words, [[], []])
