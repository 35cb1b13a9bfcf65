"""The engine: a tile is encoded once, and every question about it is answered from there. It knows token ids only.

A batch is tiles with the same layout: the same views of the same size, the same words before them. What tiles share
is computed once: the positions of the patches, the mask of the tree of questions.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from earthmap.errors import ModelError
from earthmap.model import language, vision
from earthmap.model.closed import Closed, Sheet, lay_out_sheet, passes
from earthmap.model.config import MAX_TOKENS
from earthmap.model.language import Cache, Node, TreeLayout, lay_out, read
from earthmap.model.processing import MERGE, PatchGrid, patch_grid, patchify
from earthmap.model.vision import GridPositions, VisualFeatures, encode, grid_positions
from earthmap.model.writing import Slate, Written

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from earthmap.model.decoding import TokenAutomaton

Input = TypeVar("Input")
Output = TypeVar("Output")


def dtype_policy(device: Any, dtype: torch.dtype | None = None) -> torch.dtype:
    """The type that weights are loaded and computed in: bfloat16 on a GPU, float32 on a CPU, unless `dtype` says which.

    float32 is what stock transformers is matched in. float16 overflows in this model's decoder: it and other types
    raise ModelError. Log-probabilities and rotary angles are float32 throughout.
    """
    import torch

    if dtype is None:
        return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    if dtype not in (torch.float32, torch.bfloat16):
        raise ModelError(f"a model in {dtype}", expected="torch.float32 or torch.bfloat16")
    return dtype


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
    """(N,) places of the pictures' tokens."""
    highest: int
    """The largest id."""
    after: int
    """Position of the first token behind it."""


def lay_out_stem(parts: Sequence[Sequence[int] | Slot], *, device: Any = None) -> StemLayout:
    """The layout of words and pictures in their order. Raises ModelError where it is empty or longer than the limit."""
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
    count = sum(len(ids) for ids in tokens)
    if not 0 < count <= MAX_TOKENS:
        raise ModelError(
            f"pictures and words of {count} tokens", expected=f"1 to {MAX_TOKENS}", fix="use fewer views or dates"
        )
    whole = torch.cat(tokens)
    return StemLayout(
        tokens=whole.to(device),
        positions=torch.cat(positions, dim=1).to(device),
        pictured=torch.cat(pictured).nonzero()[:, 0].to(device),
        highest=int(whole.max()),
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


class Engine:
    """Answers questions in tokens about batches of tiles. Not for several threads at once.

    `model` is a `Qwen3VLForConditionalGeneration` in evaluation mode, on the device and in the type to be used.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._decoder = model.model.language_model
        self._tower = model.model.visual
        self._places: dict[PatchGrid, GridPositions] = {}
        self._seeing, self._reading = vision.PLAIN, language.PLAIN
        self._slate: Slate | None = None
        self._sheets: dict[tuple[Closed, ...], Sheet] = {}

    @property
    def device(self) -> Any:
        """Where it computes."""
        return self._decoder.embed_tokens.weight.device

    def fuse(self) -> None:
        """Compile the layers, for work of many batches on a GPU; elsewhere nothing, because nothing is gained there.

        The first batch then takes up to a minute longer. Needs a C compiler, as torch.compile does.
        """
        if self.device.type == "cuda" and self._seeing is vision.PLAIN:
            self._seeing, self._reading = vision.PLAIN.fused(), language.PLAIN.fused()

    # ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────

    def encode(self, pixels: Tensor | Sequence[Tensor]) -> VisualFeatures:
        """The tower's features of (B, V, 3, H, W) views, or (B, V, 2, 3, H, W) pairs of video frames: (B, V · N, D).

        Views of several sizes are encoded size by size and joined by `join_features`. Raises ModelError for other
        shapes, types and sizes, and for tiles of a sequence whose shapes differ.
        """
        import torch

        pixels = _batch(pixels)
        grid = patch_grid(*pixels.shape[-2:])
        with torch.inference_mode():
            if grid not in self._places:
                self._places[grid] = grid_positions(self._tower, grid)
            patches = patchify(pixels.to(self.device, non_blocking=True).flatten(0, 1))
            found = encode(self._tower, patches, self._places[grid], self._seeing)
        batch, views = pixels.shape[:2]
        return VisualFeatures(
            last=found.last.view(batch, views * grid.tokens, -1),
            levels=tuple(level.view(batch, views * grid.tokens, -1) for level in found.levels),
        )

    def read_stem(self, layout: StemLayout, features: VisualFeatures) -> Stem:
        """Read words and pictures, once for all questions. Raises ModelError where pictures and places differ."""
        import torch

        places, (batch, count, _) = len(layout.pictured), features.last.shape
        if count != places:
            raise ModelError(f"pictures of {count} tokens", expected=f"the layout's {places}")
        self._check_id(layout.highest)
        with torch.inference_mode():
            embedded = self._decoder.embed_tokens(layout.tokens).expand(batch, -1, -1)
            embedded = embedded.index_copy(1, layout.pictured, features.last.to(embedded.dtype))
            cache = Cache()
            states = read(
                self._decoder,
                embedded,
                layout.positions[:, None].expand(-1, batch, -1),
                memory=cache,
                visual=(layout.pictured, features.levels),
                parts=self._reading,
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
        return read(self._decoder, embedded, positions, memory=cache, mask=mask, parts=self._reading), cache

    def _check_id(self, highest: int) -> None:
        rows = self._decoder.embed_tokens.num_embeddings
        if highest >= rows:
            raise ModelError(
                f"a token of id {highest}",
                expected=f"ids below {rows}",
                fix="use the tokenizer that the checkpoint brings",
            )

    def _check_prompt(self, stem: Stem, prompt: Sequence[int], *, answer: int) -> None:
        """Raise ModelError for a question of no or unknown tokens, or of more than the limit with its answer."""
        if not prompt:
            raise ModelError("a question of no tokens", expected="at least one token", fix="ask something")
        whole = stem.cache.length + len(prompt) + answer
        if whole > MAX_TOKENS:
            raise ModelError(
                f"{whole} tokens: {stem.cache.length} of pictures, a question of {len(prompt)}, an answer of {answer}",
                expected=f"at most {MAX_TOKENS}",
                fix="ask a shorter question, or use fewer views or dates",
            )
        self._check_id(max(prompt))

    # ── closed questions ─────────────────────────────────────────────────────────────────────────────────────

    def score(self, stem: Stem, questions: Sequence[Closed]) -> list[Tensor]:
        """For each question the log-probability of each whole choice, (B, choices) float32, in one pass for all.

        The last token of a choice is predicted and never read. What has more than
        `earthmap.model.closed.TREE_TOKENS` takes several passes.

        Raises:
            ModelError: for a question or choice without tokens, or longer than the limit, one without choices, and
                ids that the model does not have.
        """
        import torch

        for closed in questions:
            self._check_closed(stem, closed)
        found: list[list[Tensor]] = [[] for _ in questions]
        for group in passes(questions):
            scores = self._score_once(stem, [piece for _, piece in group])
            for (number, _), score in zip(group, scores, strict=True):
                found[number].append(score)
        return [torch.cat(scores, dim=1) for scores in found]

    def _check_closed(self, stem: Stem, closed: Closed) -> None:
        if not closed.choices:
            raise ModelError("a closed question without choices", expected="at least one", fix="ask it openly")
        if not all(closed.choices):
            raise ModelError("a choice of no tokens", expected="at least the token that ends an answer")
        self._check_prompt(stem, closed.question, answer=max(map(len, closed.choices)))
        self._check_id(max(map(max, closed.choices)))

    def _score_once(self, stem: Stem, questions: Sequence[Closed]) -> list[Tensor]:
        """As `score`, in one pass."""
        import torch

        sheet = self._sheet(tuple(questions))
        with torch.inference_mode():
            states, _ = self._branches(stem, sheet.tree)
            scores = self._log_probabilities(states, sheet)
            sums = scores.new_zeros(scores.shape[0], sum(sheet.sizes)).index_add_(1, sheet.choices, scores)
        return list(torch.split(sums, sheet.sizes, dim=1))

    def _sheet(self, questions: tuple[Closed, ...]) -> Sheet:
        """How questions are laid out: they are the same for batch after batch, and a GPU need not wait for it again."""
        if questions not in self._sheets:
            if len(self._sheets) == _SHEETS:
                self._sheets.clear()
            self._sheets[questions] = lay_out_sheet(questions, self.device)
        return self._sheets[questions]

    def _log_probabilities(self, states: Tensor, sheet: Sheet) -> Tensor:
        """(B, M) log-probability of each token after the state at its place, few tiles at once to bound the memory."""
        import torch

        found = []
        at_once = max(1, _LOGITS // (len(sheet.places) * self._model.lm_head.out_features))
        for state in torch.split(states.index_select(1, sheet.places), at_once):
            logits = self._model.lm_head(state).float()
            found.append(logits[:, sheet.columns, sheet.tokens] - logits.logsumexp(dim=2)[:, sheet.columns])
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

        Raises:
            ModelError: for a prompt without tokens, one that is longer with its answer than the limit, no prompts, and
                a budget in which no answer ends.
        """
        import torch

        fewest = 1 if grammar is None else grammar.shortest
        if most < fewest or not prompts:
            raise ModelError(
                f"{len(prompts)} questions with answers of at most {most} tokens",
                expected=f"at least one question, and {fewest} tokens",
            )
        for prompt in prompts:
            self._check_prompt(stem, prompt, answer=most)
        with torch.inference_mode():
            slate = self._begun(stem, prompts, most=most)
            written = slate.write(most=most, end=end, grammar=None if grammar is None else grammar.to(self.device))
        self._slate = slate if slate.replays else None
        return [written[start : start + len(prompts)] for start in range(0, len(written), len(prompts))]

    def _begun(self, stem: Stem, prompts: Sequence[Sequence[int]], *, most: int) -> Slate:
        """A slate with one row for each tile and prompt, and what it has read so far."""
        tree = lay_out([Node(tokens=tuple(prompt), parent=-1) for prompt in prompts], self.device)
        states, branches = self._branches(stem, tree)
        rows = stem.last.shape[0] * len(prompts)
        longest = stem.cache.length + max(map(len, prompts)) + most
        slate, self._slate = self._slate, None
        if slate is None or not slate.holds(rows, longest):
            del slate
            slate = Slate(self._model, rows=rows, longest=longest, parts=self._reading)
        slate.begin(stem.cache, branches, tree, states=states, after=stem.after)
        return slate


_LOGITS = 2**27
"""Logits computed at once, about: half a gigabyte."""

_SHEETS = 16
"""Layouts of questions that are kept."""


def _batch(pixels: Tensor | Sequence[Tensor]) -> Tensor:
    """One tensor of (B, V, 3, H, W) or (B, V, 2, 3, H, W), of at least one picture."""
    import torch

    if not isinstance(pixels, torch.Tensor):
        shapes = sorted({tuple(tile.shape) for tile in pixels})
        if len(shapes) != 1:
            named = " and ".join(str(shape) for shape in shapes[:3]) or "nothing"
            raise ModelError(f"a batch of {named}", expected="tiles of one shape", fix="batch tiles by their size")
        pixels = torch.stack(list(pixels))
    channels = pixels.shape[2:3] if pixels.ndim == 5 else pixels.shape[2:4] if pixels.ndim == 6 else ()
    if tuple(channels) not in ((3,), (2, 3)) or not all(pixels.shape):
        raise ModelError(
            f"pixels of shape {tuple(pixels.shape)}", expected="(B, V, 3, H, W) or (B, V, 2, 3, H, W), none of them 0"
        )
    return pixels


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────


def halving(
    work: Callable[[Sequence[Input]], Sequence[Output]], inputs: Sequence[Input]
) -> tuple[list[Output | ModelError], tuple[int, ...]]:
    """What `work` makes of each input, in their order, with half as many at once each time that memory runs out.

    An input for which it does not suffice alone has a ModelError in its place; the others have their outputs.

    Returns:
        The outputs, and how many inputs were tried at once after each halving (empty where memory sufficed).

    Raises:
        ModelError: where `work` gives more or fewer outputs than it had inputs.
    """
    outputs: list[Output | ModelError] = []
    sizes: list[int] = []
    size = len(inputs)
    while len(outputs) < len(inputs):
        chunk = inputs[len(outputs) : len(outputs) + size]
        done, refused = _attempt(work, chunk)
        if done is not None and len(done) != len(chunk):
            raise ModelError(f"{len(done)} outputs of {len(chunk)} inputs", expected="one of each")
        if done is not None:
            outputs += done
        elif len(chunk) > 1:
            size = len(chunk) // 2
            sizes.append(size)
        else:
            outputs.append(
                ModelError(
                    f"one input does not fit into memory: {refused}",
                    expected="a model and pictures that the device holds",
                    fix="use fewer views or dates, smaller tiles, or a device with more memory",
                )
            )
    return outputs, tuple(sizes)


def _attempt(
    work: Callable[[Sequence[Input]], Sequence[Output]], chunk: Sequence[Input]
) -> tuple[Sequence[Output] | None, str]:
    """What `work` gives, or None and what was refused where memory ran out, whose remains are then freed."""
    import torch

    try:
        return work(chunk), ""
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        refused = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    # Behind the handler: until the error is gone, its traceback holds the tensors of the failed attempt.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None, refused


_REFUSALS = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
"""What allocators say, whose errors have no class of their own: CUDA's driver, the CPU's, cuBLAS's and cuDNN's."""


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error).lower()
    return any(refusal in said for refusal in _REFUSALS)
