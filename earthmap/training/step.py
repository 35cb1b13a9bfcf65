"""One step of learning: rows in, weights moved. The same for a laptop, a notebook, a lent GPU and each worker of a
cluster; imports neither Ray nor rasterio.

A learner stands at a step of a stage table. What it is after a step depends on its weights, its optimiser and the rows
alone, so that one that was saved and read again goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earthmap.errors import TrainingError
from earthmap.training.losses import alignment_losses, answer_losses, look
from earthmap.training.packing import layout_of, pack
from earthmap.training.parameters import freeze, optimiser_groups, parameters_by_group
from earthmap.training.stages import rate_at

if TYPE_CHECKING:
    from torch import Tensor

    from earthmap.model.alignment import AlignmentHeads
    from earthmap.model.earth_onevision import EarthOneVision
    from earthmap.training.packing import Batch
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
    """Sums over the batches of one step, weighted by their answers."""

    answers: float = 0.0
    loss: float = 0.0
    right: int = 0
    targets: int = 0
    tokens: int = 0
    alignment: dict[str, list[float]] | None = None


class Learner:
    """A model that learns. One process; `around` wraps the forward where several share the work.

    Args:
        model: with float32 weights, on its device.
        heads: its alignment heads, on the same device.
        table: what to learn.
        source: key of the rows that it learns from (`RowSource.key`).
        at_once: rows of one forward; more are accumulated.
    """

    def __init__(
        self, model: EarthOneVision, heads: AlignmentHeads, *, table: StageTable, source: str = "", at_once: int = 64
    ) -> None:
        import torch

        self.model, self.heads, self.table, self.source = model, heads, table, source
        self.step = 0
        """Steps that are done."""
        self.last_good: str | None = None
        """Where the last checkpoint lies."""
        self._at_once = at_once
        self._groups = parameters_by_group(model.model, heads)
        self.optimiser = torch.optim.AdamW(optimiser_groups(self._groups), lr=0.0, betas=BETAS, weight_decay=DECAY)
        for group in self.optimiser.param_groups:
            group["weight_decay"] = DECAY if group["decays"] else 0.0
        self.losses: deque[float] = deque(maxlen=REMEMBERED)
        """Of the last steps, for telling a spike."""

    @property
    def device(self) -> Any:
        """Where it learns."""
        return self.model.engine.device

    @property
    def stage(self) -> Stage:
        """That the next step belongs to."""
        return self.table.stages[self.table.at(self.step)[0]]

    def learn(self, rows: Sequence[Row], *, reduce: Callable[[], None] | None = None) -> Learned:
        """Move the weights by one step; `reduce` averages the gradients of several workers before they are used.

        Raises:
            TrainingError: for no rows, a loss that is not a number, and one that leaps; names the last checkpoint.
        """
        import torch

        number, within = self.table.at(self.step)
        stage = self.table.stages[number]
        freeze(self._groups, stage)
        self.model.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        sums = self._gradients(rows, stage)
        if reduce is not None:
            reduce()
        learning = [p for group in self.optimiser.param_groups for p in group["params"] if p.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(learning, CLIP))
        self._check(sums.loss, norm)
        rate = rate_at(stage, within)
        for group in self.optimiser.param_groups:
            group["lr"] = stage.rates.get(group["name"], 0.0) * rate
        self.optimiser.step()
        self.losses.append(sums.loss)
        self.step += 1
        return Learned(
            step=self.step - 1,
            stage=stage.name,
            loss=sums.loss,
            answers=sums.answers,
            alignment={name: statistics.fmean(values) for name, values in (sums.alignment or {}).items()},
            right=sums.right / sums.targets,
            tokens=sums.tokens,
            gradient=norm,
            rate=rate,
        )

    def _gradients(self, rows: Sequence[Row], stage: Stage) -> _Sums:
        """Gradients of the mean over all answers of the rows, batch by batch."""
        if not rows:
            raise TrainingError("a step without rows", expected="one or more")
        asked = sum(len(row.asked) for row in rows)
        sums = _Sums(alignment={})
        for members in self._batches(rows):
            batch = pack(members, self.model.words, device=self.device)
            share = sum(len(row.asked) for row in members) / asked
            loss = self._loss(batch, stage, sums, share=share)
            loss.backward()  # type: ignore[no-untyped-call]
        return sums

    def _batches(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Rows of one layout together, at most `at_once`, in an order that depends on the rows alone."""
        grouped: dict[object, list[Row]] = {}
        for row in rows:
            grouped.setdefault(layout_of(row, self.model.words), []).append(row)
        return [
            members[start : start + self._at_once]
            for members in grouped.values()
            for start in range(0, len(members), self._at_once)
        ]

    def _loss(self, batch: Batch, stage: Stage, sums: _Sums, *, share: float) -> Tensor:
        with self._precision():
            features = look(self.model.model, batch)
            answers = answer_losses(self.model.model, batch, features)
            loss = answers.mean()
            sums.answers += share * loss.item()
            if stage.alignment_weight:
                for name, value in alignment_losses(self.model.model, self.heads, batch, features).items():
                    (sums.alignment if sums.alignment is not None else {}).setdefault(name, []).append(value.item())
                    loss = loss + stage.alignment_weight * value
        sums.loss += share * loss.item()
        sums.right += int(answers.right.sum())
        sums.targets += len(answers.right)
        sums.tokens += batch.tokens
        return loss * share

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
