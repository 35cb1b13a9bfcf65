"""One step of learning: rows in, weights moved. The same for a laptop, a notebook, a lent GPU and each worker of a
cluster; imports neither Ray nor rasterio.

A learner stands at a step of a stage table. What it is after a step depends on its weights, its optimiser and the rows
alone, so that one that was saved and read again goes on as if nothing had happened.

How the rows of a step are split, over forwards or over workers, changes its sums by rounding alone: every mean is one
over the whole step, and captions are contrasted with those of all rows of their layout, wherever these are.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from earthmap.errors import TrainingError
from earthmap.tasks import TASKS
from earthmap.training.extent import Extent, extent_of, shared
from earthmap.training.losses import alignment_losses, answer_losses, look
from earthmap.training.packing import layout_of, pack
from earthmap.training.parameters import freeze, optimiser_groups, parameters_by_group
from earthmap.training.peers import Alone, Peers, agree
from earthmap.training.stages import rate_at

if TYPE_CHECKING:
    from torch import Tensor

    from earthmap.model.alignment import AlignmentHeads
    from earthmap.model.card import Card
    from earthmap.model.earth_onevision import EarthOneVision
    from earthmap.training.rows import Row
    from earthmap.training.stages import Stage, StageTable

BETAS, DECAY, CLIP = (0.9, 0.95), 0.05, 1.0
"""AdamW's moments and weight decay, and the norm that gradients are clipped to."""

REMEMBERED, SPIKE = 50, 4.0
"""A loss of more than SPIKE times the median of the last REMEMBERED ends the training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What one step came to."""

    step: int
    """Its number, from 0."""
    stage: str
    loss: float
    """Of answers and alignment together."""
    answers: float
    """Mean loss of an answer's token, every answer weighing the same."""
    alignment: dict[str, float]
    """By granularity."""
    right: float
    """Share of the answers' tokens that were the likeliest."""
    tokens: int
    """That the decoder read."""
    gradient: float
    """Norm before clipping."""
    rate: float
    """Share of the peak rates."""


@dataclass(slots=True)
class _Sums:
    """Sums over the batches of one step."""

    answers: float = 0.0
    loss: float = 0.0
    right: int = 0
    targets: int = 0
    tokens: int = 0
    alignment: dict[str, float] = field(default_factory=dict)
    """Loss by granularity, each batch weighted by `weights`."""
    weights: dict[str, float] = field(default_factory=dict)
    tasks: set[str] = field(default_factory=set)
    """Ids of what was taught; the empty one where the data do not tell."""

    def add(self, other: _Sums) -> None:
        """Count `other` in."""
        self.answers += other.answers
        self.loss += other.loss
        self.right += other.right
        self.targets += other.targets
        self.tokens += other.tokens
        self.tasks |= other.tasks
        for name, weight in other.weights.items():
            self.align(name, other.alignment[name], weight)

    def align(self, name: str, loss: float, weight: float) -> None:
        """Count a weighted loss in."""
        self.alignment[name] = self.alignment.get(name, 0.0) + loss
        self.weights[name] = self.weights.get(name, 0.0) + weight


class Learner:
    """A model that learns, in one process or as one of several that share each step.

    Args:
        model: with float32 weights, on its device.
        heads: its alignment heads, on the same device.
        table: what to learn.
        source: key of the rows that it learns from (`RowSource.key`).
        at_once: rows of one forward; more are accumulated.
        peers: the workers that share each step.
    """

    def __init__(
        self,
        model: EarthOneVision,
        heads: AlignmentHeads,
        *,
        table: StageTable,
        source: str = "",
        at_once: int = 64,
        peers: Peers | None = None,
    ) -> None:
        import torch

        self.model, self.heads, self.table, self.source = model, heads, table, source
        self.step = 0
        """Steps that are done."""
        self.last_good: str | None = None
        """Where the last checkpoint lies."""
        self.peers = peers or Alone()
        self._at_once = at_once
        self._groups = parameters_by_group(model.model, heads)
        self.optimiser = torch.optim.AdamW(optimiser_groups(self._groups), lr=0.0, betas=BETAS, weight_decay=DECAY)
        for group in self.optimiser.param_groups:
            group["weight_decay"] = DECAY if group["decays"] else 0.0
        self.losses: deque[float] = deque(maxlen=REMEMBERED)
        """Of the last steps of the stage, for telling a spike."""

    @property
    def device(self) -> Any:
        """Where it learns."""
        return self.model.engine.device

    @property
    def stage(self) -> Stage:
        """That the next step belongs to."""
        return self.table.stages[self.table.at(self.step)[0]]

    def learn(self, rows: Sequence[Row]) -> Learned:
        """Move the weights by one step. Of several workers each has its own rows, and all end with the same weights.

        Raises:
            TrainingError: for no rows, a loss that is not a number, and one that leaps; names the last checkpoint.
        """
        import torch

        number, within = self.table.at(self.step)
        stage = self.table.stages[number]
        if within == 0:
            self.losses.clear()  # another stage has other rows and weights: its loss is no leap from the last one's
        freeze(self._groups, stage)
        self.model.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        sums = self._gradients(rows, stage)
        learning = [p for group in self.optimiser.param_groups for p in group["params"] if p.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(learning, CLIP))
        self._check(sums.loss, norm)
        rate = rate_at(stage, within)
        for group in self.optimiser.param_groups:
            group["lr"] = stage.rates.get(group["name"], 0.0) * rate
        self.optimiser.step()
        self.losses.append(sums.loss)
        self.model.card = taught(self.model.card, sums.tasks)
        self.step += 1
        return Learned(
            step=self.step - 1,
            stage=stage.name,
            loss=sums.loss,
            answers=sums.answers,
            alignment={name: loss / sums.weights[name] for name, loss in sums.alignment.items()},
            right=sums.right / sums.targets,
            tokens=sums.tokens,
            gradient=norm,
            rate=rate,
        )

    def _gradients(self, rows: Sequence[Row], stage: Stage) -> _Sums:
        """Gradients of the mean over all answers of all workers' rows, batch by batch, and what they came to."""
        groups = self._grouped(rows)
        wholes = shared(
            {layout: extent_of(members, self.model.words) for layout, members in groups.items()}, self.peers
        )
        asked = sum(whole.answers for whole in wholes.values())
        if not asked:
            raise TrainingError("a step without rows", expected="one or more")
        mine = agree(self.peers, lambda: self._own_gradients(groups, stage, wholes=wholes, asked=asked))
        _add_gradients(self.peers, (weight for group in self.optimiser.param_groups for weight in group["params"]))
        sums = _Sums()
        for one in self.peers.gather(mine):
            sums.add(one)
        return sums

    def _own_gradients(
        self, groups: Mapping[object, Sequence[Row]], stage: Stage, *, wholes: Mapping[object, Extent], asked: int
    ) -> _Sums:
        """Of this worker's rows alone. Raises TrainingError where a GPU has no room for them."""
        import torch

        sums = _Sums()
        try:
            for layout, members in groups.items():
                for start in range(0, len(members), self._at_once):
                    some = members[start : start + self._at_once]
                    loss = self._loss(some, stage, sums, whole=wholes[layout], asked=asked)
                    loss.backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"{self.device} has no room for {self._at_once} rows at once",
                fix=f"take fewer at once, and go on from {self.last_good or 'the start'}",
            ) from error
        return sums

    def _grouped(self, rows: Sequence[Row]) -> dict[object, list[Row]]:
        """Rows by layout, in an order that depends on the rows alone."""
        grouped: dict[object, list[Row]] = {}
        for row in rows:
            grouped.setdefault(layout_of(row, self.model.words), []).append(row)
        return grouped

    def _loss(self, rows: Sequence[Row], stage: Stage, sums: _Sums, *, whole: Extent, asked: int) -> Tensor:
        """What rows of one layout add to the loss of the step; counts it in.

        Answers weigh alike over the whole step. Alignment is a mean over each layout, which weighs by its answers.
        """
        batch = pack(rows, self.model.words, device=self.device)
        own = extent_of(rows, self.model.words)
        with self._precision():
            features = look(self.model.model, batch)
            answers = answer_losses(self.model.model, batch, features)
            loss = answers.mean() * (own.answers / asked)
            sums.answers += loss.item()
            if stage.alignment_weight:
                found = alignment_losses(self.model.model, self.heads, batch, features, captions=whole.captions)
                for name, value in found.items():
                    weight = own.known[name] / max(1, whole.known[name]) * whole.answers / asked
                    sums.align(name, value.item() * weight, weight)
                    loss = loss + stage.alignment_weight * weight * value
        sums.loss += loss.item()
        sums.right += int(answers.right.sum())
        sums.targets += len(answers.right)
        sums.tokens += batch.tokens
        sums.tasks |= tasks_of(rows, aligned=stage.alignment_weight > 0)
        return loss

    def _precision(self) -> AbstractContextManager[object]:
        """bfloat16 products on a GPU, float32 on a CPU, where bfloat16 is slower."""
        import torch

        if self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def _check(self, loss: float, norm: float) -> None:
        usual = statistics.median(self.losses) if len(self.losses) == REMEMBERED else math.inf
        if math.isfinite(loss) and math.isfinite(norm) and loss <= SPIKE * usual:
            return
        said = f"{loss:.4g}" if math.isfinite(loss) and math.isfinite(norm) else "not a number"
        raise TrainingError(
            f"the loss of step {self.step} is {said}" + (f", {usual:.4g} before" if math.isfinite(usual) else ""),
            expected=f"a number, at most {SPIKE:g} times that of the last {REMEMBERED} steps",
            fix=f"go on from {self.last_good or 'the start: there is no checkpoint yet'} with lower rates",
        )


def tasks_of(rows: Iterable[Row], *, aligned: bool) -> set[str]:
    """Ids of the tasks that rows teach, the empty one where they do not tell; shares are taught by `aligned` blocks."""
    rows = list(rows)
    shares = {task.id for task in TASKS.values() if task.answer == "share"}
    blocks = shares if aligned and any(row.shares is not None for row in rows) else set()
    return blocks | {one.task for row in rows for one in row.asked}


def taught(card: Card, tasks: Set[str]) -> Card:
    """`card` with further tasks among those that were taught. Of a model that nobody knows all about it says nothing,
    nor once it has learned from data that do not tell what they ask."""
    if card.taught is None:
        return card
    return replace(card, taught=None if "" in tasks else tuple(sorted({*card.taught, *tasks})))


def _add_gradients(peers: Peers, weights: Iterable[Tensor]) -> None:
    """Sum the gradients of all workers, on each of them. One that no worker has stays None: it is not learned."""
    learning = [weight for weight in weights if weight.requires_grad]
    told = peers.gather([weight.grad is not None for weight in learning])
    gradients = []
    for weight, *having in zip(learning, *told, strict=True):
        if any(having):
            weight.grad = weight.new_zeros(weight.shape) if weight.grad is None else weight.grad
            gradients.append(weight.grad)
    peers.add(gradients)
