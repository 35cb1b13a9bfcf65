"""The engine: a tile is encoded once, and every question about it is answered from there. It knows token ids only.

A batch is tiles with the same layout: the same views of the same size, the same words before them. What tiles share
is computed once: the positions of the patches, the mask of the tree of questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earthmap.errors import ModelError
from earthmap.model.config import MAX_TOKENS
from earthmap.model.language import Cache, Node, StaticCache, TreeLayout, lay_out, read
from earthmap.model.processing import MERGE, PatchGrid, patch_grid, patchify
from earthmap.model.vision import GridPositions, VisualFeatures, encode, grid_positions

if TYPE_CHECKING:
    from torch import Tensor

    from earthmap.model.decoding import TokenAutomaton


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place for one picture, or one pair of video frames, among the words."""

    grid: PatchGrid
    token: int
    """The id that stands for each of its merged blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StemLayout:
    """What all tiles of a batch begin with: words, and places for their pictures."""

    tokens: Tensor
    """(S,) ids."""
    positions: Tensor
    """(3, S) in time, height and width (Qwen3-VL's interleaved rotary positions)."""
    pictured: Tensor
    """(S,) True where a token is a picture's."""
    after: int
    """Position of the first token behind it."""


def lay_out_stem(parts: Sequence[Sequence[int] | Slot], *, device: Any = None) -> StemLayout:
    """The layout of words and pictures in their order. Raises ModelError where it is longer than the model reads."""
    import torch

    tokens: list[Tensor] = []
    positions: list[Tensor] = []
    pictured: list[Tensor] = []
    at = 0
    for part in parts:
        if isinstance(part, Slot):
            rows, columns = part.grid.rows // MERGE, part.grid.columns // MERGE
            down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            places = torch.stack([torch.zeros_like(down), down, across]).flatten(1) + at
            ids = torch.full((rows * columns,), part.token)
            at += max(rows, columns)
        else:
            ids = torch.tensor(list(part), dtype=torch.long)
            places = (torch.arange(len(ids)) + at).expand(3, -1)
            at += len(ids)
        tokens.append(ids)
        positions.append(places)
        pictured.append(torch.full((len(ids),), isinstance(part, Slot)))
    whole = torch.cat(tokens)
    if len(whole) > MAX_TOKENS:
        raise ModelError(
            f"pictures and words of {len(whole)} tokens",
            expected=f"at most {MAX_TOKENS}",
            fix="use fewer views or dates",
        )
    return StemLayout(
        tokens=whole.to(device),
        positions=torch.cat(positions, dim=1).to(device),
        pictured=torch.cat(pictured).to(device),
        after=at,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stem:
    """A batch of tiles that were read: what every question about them starts from."""

    cache: Cache
    last: Tensor
    """(B, D) final state of the last token."""
    after: int
    """Position of the next token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A question with its possible answers, all in tokens, the answers with the token that ends them."""

    question: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One decoded answer."""

    tokens: tuple[int, ...]
    """Without the one that ended it."""
    log_probabilities: tuple[float, ...]
    """Of each token and of the end, among all tokens, whatever the grammar allowed."""
    ended: bool
    """False where the budget ran out."""


class Engine:
    """Answers questions in tokens about batches of tiles. Not for several threads at once.

    `model` is a `Qwen3VLForConditionalGeneration` in evaluation mode, on the device and in the type to be used.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._decoder = model.model.language_model
        self._tower = model.model.visual
        self._places: dict[PatchGrid, GridPositions] = {}

    @property
    def device(self) -> Any:
        """Where it computes."""
        return self._decoder.embed_tokens.weight.device

    # ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────

    def encode(self, pixels: Tensor) -> VisualFeatures:
        """The tower's features of (B, V, 3, H, W) views, or (B, V, 2, 3, H, W) pairs of video frames: (B, V · N, D)."""
        import torch

        grid = patch_grid(*pixels.shape[-2:])
        if grid not in self._places:
            self._places[grid] = grid_positions(self._tower, grid)
        with torch.inference_mode():
            patches = patchify(pixels.to(self.device, non_blocking=True).flatten(0, 1))
            found = encode(self._tower, patches, self._places[grid])
        batch, views = pixels.shape[:2]
        return VisualFeatures(
            last=found.last.view(batch, views * grid.tokens, -1),
            levels=tuple(level.view(batch, views * grid.tokens, -1) for level in found.levels),
        )

    def read_stem(self, layout: StemLayout, features: VisualFeatures) -> Stem:
        """Read words and pictures, once for all questions. Raises ModelError where pictures and places differ."""
        import torch

        places = int(layout.pictured.sum())
        if features.last.shape[1] != places:
            raise ModelError(f"pictures of {features.last.shape[1]} tokens", expected=f"the layout's {places}")
        batch = features.last.shape[0]
        with torch.inference_mode():
            embedded = self._decoder.embed_tokens(layout.tokens).expand(batch, -1, -1).clone()
            embedded[:, layout.pictured] = features.last.to(embedded.dtype)
            cache = Cache()
            states = read(
                self._decoder,
                embedded,
                layout.positions[:, None].expand(-1, batch, -1),
                memory=cache,
                visual=(layout.pictured, features.levels),
            )
        return Stem(cache=cache, last=states[:, -1], after=layout.after)

    def _branches(self, stem: Stem, tree: TreeLayout) -> tuple[Tensor, Cache]:
        """Final states (B, S, D) of a tree that grows from the stem, and its own keys and values."""
        import torch

        batch = stem.last.shape[0]
        embedded = self._decoder.embed_tokens(tree.tokens).expand(batch, -1, -1)
        positions = (tree.depth + stem.after).expand(3, batch, -1)
        stems = torch.ones(len(tree.tokens), stem.cache.length, dtype=torch.bool, device=self.device)
        mask = torch.cat([stems, tree.visible], dim=1)[None, None]
        cache = Cache(stem=stem.cache)
        return read(self._decoder, embedded, positions, memory=cache, mask=mask), cache

    # ── closed questions ─────────────────────────────────────────────────────────────────────────────────────

    def score(self, stem: Stem, questions: Sequence[Closed]) -> list[Tensor]:
        """For each question the log-probability of each whole choice, (B, choices) float32, in one pass for all.

        The last token of a choice is predicted and never read.
        """
        import torch

        nodes: list[Node] = []
        for closed in questions:
            nodes.append(Node(tokens=closed.question, parent=-1))
            parent = len(nodes) - 1
            nodes += [Node(tokens=choice[:-1], parent=parent) for choice in closed.choices]
        tree = lay_out(nodes, self.device)
        with torch.inference_mode():
            states, _ = self._branches(stem, tree)
            places, tokens, choices = _predictions(questions, tree)
            scores = self._log_probabilities(states[:, places], torch.tensor(tokens, device=self.device))
        sums = torch.zeros(scores.shape[0], choices[-1] + 1, device=self.device)
        sums.index_add_(1, torch.tensor(choices, device=self.device), scores)
        return list(torch.split(sums, [len(closed.choices) for closed in questions], dim=1))

    def _log_probabilities(self, states: Tensor, tokens: Tensor) -> Tensor:
        """(B, M) log-probability of one token after each state, (B, M, D), tile by tile to bound the logits' memory."""
        import torch

        found = []
        at_once = max(1, _LOGITS // (states.shape[1] * self._model.lm_head.out_features))
        for state in torch.split(states, at_once):
            logits = self._model.lm_head(state).float()
            index = tokens.expand(len(state), -1)[..., None]
            found.append(logits.gather(2, index)[..., 0] - logits.logsumexp(dim=2))
        return torch.cat(found)

    # ── open and spatial answers ─────────────────────────────────────────────────────────────────────────────

    def write(
        self,
        stem: Stem,
        prompts: Sequence[Sequence[int]],
        *,
        most: int,
        end: int,
        grammar: TokenAutomaton | None = None,
    ) -> list[list[Written]]:
        """Greedy answers of at most `most` tokens, by tile and prompt; with `grammar` what it allows, ended in time.

        Rows that have ended leave the batch.
        """
        import torch

        with torch.inference_mode():
            rows = self._first_rows(stem, prompts, most=most)
            if grammar is not None:
                grammar = grammar.to(self.device)
            answers = [_Answer() for _ in range(len(rows.logits))]
            for step in range(most):
                tokens = rows.choose(grammar, budget=most - step)
                rows.record(answers, tokens, end=end)
                going = (tokens != end).nonzero()[:, 0]
                if not len(going) or step + 1 == most:
                    break
                if len(going) < len(tokens):
                    rows, tokens = rows.keep(going), tokens[going]
                self._step(rows, tokens)
        written = [answer.written() for answer in answers]
        return [written[start : start + len(prompts)] for start in range(0, len(written), len(prompts))]

    def _first_rows(self, stem: Stem, prompts: Sequence[Sequence[int]], *, most: int) -> _Rows:
        """One row for each tile and prompt, with what it has read so far."""
        import torch

        tree = lay_out([Node(tokens=tuple(prompt), parent=-1) for prompt in prompts], self.device)
        states, branches = self._branches(stem, tree)
        batch, count, told = stem.last.shape[0], len(prompts), stem.cache.length
        sizes = [end - start for start, end in tree.spans]
        longest = told + max(sizes) + most

        def laid(stems: Tensor, own: Tensor) -> Tensor:
            heads, width = own.shape[1], own.shape[3]
            whole = own.new_zeros(batch, count, heads, longest, width)
            whole[:, :, :, :told] = stems[:, None]
            for number, (start, end) in enumerate(tree.spans):
                whole[:, number, :, told : told + end - start] = own[:, :, start:end]
            return whole.flatten(0, 1)

        cache = StaticCache(
            keys=[laid(stems, own) for stems, own in zip(stem.cache.keys, branches.keys, strict=True)],
            values=[laid(stems, own) for stems, own in zip(stem.cache.values, branches.values, strict=True)],
            lengths=torch.tensor([told + size for size in sizes] * batch, device=self.device),
        )
        ends = [end - 1 for _, end in tree.spans]
        return _Rows(
            cache=cache,
            logits=self._model.lm_head(states[:, ends].flatten(0, 1)).float(),
            positions=torch.tensor([stem.after + size for size in sizes] * batch, device=self.device),
            answer=torch.arange(batch * count, device=self.device),
            state=torch.zeros(batch * count, dtype=torch.long, device=self.device),
        )

    def _step(self, rows: _Rows, tokens: Tensor) -> None:
        """Read one token a row."""
        embedded = self._decoder.embed_tokens(tokens)[:, None]
        positions = rows.positions[None, :, None].expand(3, -1, 1)
        states = read(self._decoder, embedded, positions, memory=rows.cache, mask=rows.cache.mask())
        rows.logits = self._model.lm_head(states[:, 0]).float()
        rows.cache.lengths += 1
        rows.positions += 1


_LOGITS = 2**27
"""Logits computed at once, about: half a gigabyte."""


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


@dataclass(slots=True)
class _Rows:
    """Answers that are being written, all of the same number of tokens so far."""

    cache: StaticCache
    logits: Tensor
    """(R, V) float32 for the next token."""
    positions: Tensor
    """(R,) of the next token."""
    answer: Tensor
    """(R,) number of the answer that a row writes."""
    state: Tensor
    """(R,) state of the grammar."""

    def choose(self, grammar: TokenAutomaton | None, *, budget: int) -> Tensor:
        """The likeliest token of each row, of those that the grammar allows."""
        if grammar is None:
            return self.logits.argmax(dim=1)
        offered = self.logits[:, grammar.ids].masked_fill(~grammar.allowed(self.state, budget=budget), -float("inf"))
        column = offered.argmax(dim=1)
        self.state = grammar.following[self.state, column]
        return grammar.ids[column]

    def record(self, answers: Sequence[_Answer], tokens: Tensor, *, end: int) -> None:
        """Write down a token a row."""
        chosen = self.logits.gather(1, tokens[:, None])[:, 0] - self.logits.logsumexp(dim=1)
        for number, token, score in zip(self.answer.tolist(), tokens.tolist(), chosen.tolist(), strict=True):
            answers[number].scores.append(score)
            if token == end:
                answers[number].ended = True
            else:
                answers[number].tokens.append(token)

    def keep(self, rows: Tensor) -> _Rows:
        """Some of the rows."""
        return _Rows(
            cache=self.cache.keep(rows),
            logits=self.logits[rows],
            positions=self.positions[rows],
            answer=self.answer[rows],
            state=self.state[rows],
        )


class _Answer:
    """An answer that is being written."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.scores: list[float] = []
        self.ended = False

    def written(self) -> Written:
        return Written(tokens=tuple(self.tokens), log_probabilities=tuple(self.scores), ended=self.ended)
