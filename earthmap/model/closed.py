"""Closed questions as one tree of tokens: each question continues what the tiles share, each choice its question.

A choice is scored by the log-probabilities of all of its tokens, the end included. Its last token is predicted and
never read, so that of "yes" and "no" one token each is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earthmap.model.language import Node, TreeLayout, lay_out

if TYPE_CHECKING:
    from torch import Tensor

TREE_TOKENS = 1024
"""Tokens of questions and choices that are read in one pass; the memory of a pass grows with their square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A question with its possible answers, all in tokens, the answers with the token that ends them."""

    question: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]


def _size(closed: Closed) -> int:
    return len(closed.question) + sum(len(choice) - 1 for choice in closed.choices)


def _pieces(closed: Closed) -> Iterator[Closed]:
    """A question as it is, or, where its choices are too many for one pass, with some of them at a time."""
    taken: list[tuple[int, ...]] = []
    size = len(closed.question)
    for choice in closed.choices:
        if taken and size + len(choice) > TREE_TOKENS:
            yield Closed(question=closed.question, choices=tuple(taken))
            taken, size = [], len(closed.question)
        taken.append(choice)
        size += len(choice) - 1
    yield Closed(question=closed.question, choices=tuple(taken))


def passes(questions: Sequence[Closed]) -> Iterator[list[tuple[int, Closed]]]:
    """Questions in their order, each with its number, as many at a time as one pass takes."""
    group: list[tuple[int, Closed]] = []
    size = 0
    for number, piece in ((number, piece) for number, closed in enumerate(questions) for piece in _pieces(closed)):
        if group and size + _size(piece) > TREE_TOKENS:
            yield group
            group, size = [], 0
        group.append((number, piece))
        size += _size(piece)
    if group:
        yield group


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Closed questions as one tree, and where the tokens of their choices are predicted: M tokens of all choices."""

    tree: TreeLayout
    places: Tensor
    """(N,) places of the tree behind which something is predicted."""
    columns: Tensor
    """(M,) which of the places predicts each token."""
    tokens: Tensor
    """(M,) the tokens."""
    choices: Tensor
    """(M,) number of the choice that each token belongs to, over all questions."""
    sizes: list[int]
    """Choices of each question."""


def lay_out_sheet(questions: Sequence[Closed], device: Any) -> Sheet:
    """The tree of some questions, and where it predicts their choices."""
    import torch

    nodes: list[Node] = []
    for closed in questions:
        nodes.append(Node(tokens=closed.question, parent=-1))
        parent = len(nodes) - 1
        nodes += [Node(tokens=choice[:-1], parent=parent) for choice in closed.choices]
    tree = lay_out(nodes, device)
    places, tokens, choices = _predictions(questions, tree)
    distinct = sorted(set(places))
    column = {place: number for number, place in enumerate(distinct)}
    return Sheet(
        tree=tree,
        places=torch.tensor(distinct, device=device),
        columns=torch.tensor([column[place] for place in places], device=device),
        tokens=torch.tensor(tokens, device=device),
        choices=torch.tensor(choices, device=device),
        sizes=[len(closed.choices) for closed in questions],
    )


def _predictions(questions: Sequence[Closed], tree: TreeLayout) -> tuple[list[int], list[int], list[int]]:
    """Place whose state predicts a token, the token, and the number of its choice, for all tokens of all choices."""
    places: list[int] = []
    tokens: list[int] = []
    choices: list[int] = []
    node = number = 0
    for closed in questions:
        for choice in closed.choices:
            node += 1
            start, end = tree.spans[node]
            places += [tree.before[node], *range(start, end)]
            tokens += choice
            choices += [number] * len(choice)
            number += 1
        node += 1
    return places, tokens, choices
