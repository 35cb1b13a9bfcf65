"""Answers token by token, in rows at fixed places in memory, so that a GPU replays a step as one graph.

A step of a large model is hundreds of small kernels; asked for one by one they take longer than the arithmetic. On a
CPU a step is computed plainly, and rows that have ended leave at once; on a GPU they leave when half of them have
ended, because every number of rows is a graph of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earthmap.model.language import PLAIN, Cache, StaticCache, TreeLayout, read

if TYPE_CHECKING:
    from torch import Tensor

    from earthmap.model.decoding import TokenAutomaton
    from earthmap.model.fusing import Parts

_ALIGNED = 16
"""Rows are whole multiples of so many tokens long: what kernels with masks want."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One decoded answer."""

    tokens: tuple[int, ...]
    """Without the one that ended it."""
    log_probabilities: tuple[float, ...]
    """Of each token and of the end, among all tokens, whatever the grammar allowed."""
    ended: bool
    """False where the budget ran out."""


class Slate:
    """Rows in which answers are written, tile by tile and, within a tile, prompt by prompt.

    One that is large enough is used again: its graphs hold for its own memory only. `model` is a
    `Qwen3VLForConditionalGeneration`; each row holds at least `longest` tokens.
    """

    def __init__(self, model: Any, *, rows: int, longest: int, parts: Parts = PLAIN) -> None:
        import torch

        self._decoder, self._head, self._parts = model.model.language_model, model.lm_head, parts
        weight, config = self._decoder.embed_tokens.weight, self._decoder.config
        room = -(-longest // _ALIGNED) * _ALIGNED
        size = (rows, config.num_key_value_heads, room, config.head_dim)
        self._cache = StaticCache(
            keys=[weight.new_zeros(size) for _ in self._decoder.layers],
            values=[weight.new_zeros(size) for _ in self._decoder.layers],
            lengths=torch.zeros(rows, dtype=torch.long, device=weight.device),
        )
        self._tokens, self._positions, self._state, self._answer = (
            torch.zeros(rows, dtype=torch.long, device=weight.device) for _ in range(4)
        )
        self._ended = torch.zeros(rows, dtype=torch.bool, device=weight.device)
        self._logits = torch.zeros(rows, self._head.out_features, device=weight.device)
        self._rows = rows
        self._graphs: dict[int, Any] = {}
        self._pool: Any = None

    def holds(self, rows: int, longest: int) -> bool:
        """True where so many rows of so many tokens fit."""
        most, _, room, _ = self._cache.keys[0].shape
        return rows <= most and longest <= room

    @property
    def replays(self) -> bool:
        """True where steps are replayed as graphs: on NVIDIA's GPUs."""
        return bool(self._tokens.is_cuda)

    # ── what was read before ─────────────────────────────────────────────────────────────────────────────────

    def begin(self, stem: Cache, branches: Cache, tree: TreeLayout, *, states: Tensor, after: int) -> None:
        """Fill the rows with a stem and its prompts, whose final states are (B, S, D), `after` the stem's positions."""
        import torch

        told, sizes = stem.length, [end - start for start, end in tree.spans]
        batch, count = len(states), len(sizes)
        rows = batch * count
        for mine, stems, own in (
            *zip(self._cache.keys, stem.keys, branches.keys, strict=True),
            *zip(self._cache.values, stem.values, branches.values, strict=True),
        ):
            whole = mine[:rows].view(batch, count, *mine.shape[1:])
            whole[:, :, :, :told] = stems[:, None]
            whole[:, :, :, told:] = 0
            for number, (start, end) in enumerate(tree.spans):
                whole[:, number, :, told : told + end - start] = own[:, :, start:end]
        lengths = torch.tensor(sizes * batch, device=self._tokens.device)
        self._rows = rows
        self._cache.lengths[:rows] = lengths + told
        self._positions[:rows] = lengths + after
        self._answer[:rows] = torch.arange(rows)
        self._state.zero_()
        self._ended.zero_()
        ends = [end - 1 for _, end in tree.spans]
        self._logits[:rows] = self._head(states[:, ends].flatten(0, 1)).float()

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, *, most: int, end: int, grammar: TokenAutomaton | None) -> list[Written]:
        """Greedy answers of at most `most` tokens, row by row."""
        import torch

        tokens = torch.full((self._rows, most), end, device=self._tokens.device)
        scores = torch.zeros(self._rows, most, device=self._tokens.device)
        for step in range(most):
            rows = self._rows
            self._tokens[:rows] = self._choose(grammar, budget=most - step)
            chosen, logits = self._tokens[:rows], self._logits[:rows]
            tokens[self._answer[:rows], step] = chosen
            scores[self._answer[:rows], step] = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(dim=1)
            self._ended[:rows] |= chosen == end
            going = (~self._ended[:rows]).nonzero()[:, 0]
            if not len(going) or step + 1 == most:
                break
            self._leave(going)
            self._read()
        return [_written(*row, end=end) for row in zip(tokens.tolist(), scores.tolist(), strict=True)]

    def _choose(self, grammar: TokenAutomaton | None, *, budget: int) -> Tensor:
        """The likeliest token of each row, of those that the grammar allows."""
        logits = self._logits[: self._rows]
        if grammar is None:
            return logits.argmax(dim=1)
        column, self._state[: self._rows] = grammar.choose(logits, self._state[: self._rows], budget=budget)
        return grammar.ids[column]

    def _leave(self, going: Tensor) -> None:
        """Move the rows that go on to the front, and leave others behind."""
        import torch

        rows = len(going)
        if self.replays:
            rows = self._rows
            while len(going) <= rows // 2:
                rows //= 2
        if rows == self._rows:
            return
        others = self._ended[: self._rows].nonzero()[: rows - len(going), 0]
        kept = torch.cat([going, others])
        self._cache.gather(kept)
        for tensor in (self._tokens, self._positions, self._state, self._answer, self._ended):
            tensor[:rows] = tensor[kept]
        self._rows = rows

    def _read(self) -> None:
        """Read the token of each row."""
        if not self.replays:
            self._step()
            return
        if self._rows not in self._graphs:
            self._graphs[self._rows] = self._captured()
        self._graphs[self._rows].replay()

    def _step(self) -> None:
        """Logits behind the token of each row: nothing in it depends on values, so that it can be replayed."""
        rows = self._rows
        cache = self._cache.first(rows)
        embedded = self._decoder.embed_tokens(self._tokens[:rows])[:, None]
        positions = self._positions[None, :rows, None].expand(3, -1, 1)
        states = read(self._decoder, embedded, positions, memory=cache, mask=cache.mask(), parts=self._parts)
        self._logits[:rows] = self._head(states[:, 0]).float()
        cache.lengths += 1
        self._positions[:rows] += 1

    def _captured(self) -> Any:
        """A step of so many rows as a graph. The first run of its kernels, which moves places on, is taken back."""
        import torch

        lengths, positions = self._cache.lengths.clone(), self._positions.clone()
        with torch.cuda.device(self._tokens.device):
            aside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                self._step()
            torch.cuda.current_stream().wait_stream(aside)
            self._cache.lengths.copy_(lengths)
            self._positions.copy_(positions)
            graph = torch.cuda.CUDAGraph()
            # One pool for all: they run one after the other, and leave nothing in it that is used later.
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self._pool):
                self._step()
        return graph


def _written(tokens: Sequence[int], scores: Sequence[float], *, end: int) -> Written:
    """An answer up to its end; what its row went on to write behind it is none of it."""
    ended = end in tokens
    count = tokens.index(end) if ended else len(tokens)
    return Written(tokens=tuple(tokens[:count]), log_probabilities=tuple(scores[: count + ended]), ended=ended)
