"""From what a model said to an answer: scores of choices, texts, shapes and their ground. Pure; no torch.

A written answer is read by the tolerant parser of SLIS, instance by instance, so that each has the score of its own
tokens. Masks and outlines are laid onto the pixels of the core, whose halo neighbours own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from earthmap.predict.temperature import temper, temper_one
from earthmap.predict.vectors import vector_answer
from earthmap.tasks.answer import UNSEEN, Answer
from earthmap.tasks.query import Query, mask_legend
from earthmap.tasks.registry import TASKS
from earthmap.tasks.serialization import Instance, parse, plain_label

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASK_SIDE = 16
"""Cells along one side of a mask that is written."""

MAX_VALUE = 200
"""Most characters of a text as a value."""

NO_CHANGE = "no change"
"""The choice that says the same with swapped dates."""

DISAGREE = "swapped dates disagree"
"""Note of an answer that is another one, somewhere, when the dates are given in the other order."""

_DECIMALS = 4
"""Of probabilities: how many tiles are computed at once changes further ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model said to one query about one tile; of a closed query scores, else a text or a map of patches."""

    scores: tuple[tuple[float, ...], ...] = ()
    """For each closed question the probability of each choice, the mean over both orders of the choices."""
    order_matters: bool = False
    """Another choice won when the choices were named the other way round."""
    pieces: tuple[str, ...] = ()
    """The text, token by token."""
    log_probabilities: tuple[float, ...] = ()
    """Of each token, and of the end where it ended."""
    ended: bool = True
    """False where the budget ran out before the answer did."""
    patches: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """(rows, columns) share of each block of the picture that the targets cover."""
    vector: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """(D,) what the picture looks like."""

    @property
    def text(self) -> str:
        """What was written."""
        return "".join(self.pieces)

    @property
    def is_finite(self) -> bool:
        """All of its numbers are some."""
        numbers = np.array([*itertools.chain(*self.scores), *self.log_probabilities])
        arrays = (numbers, *(array for array in (self.patches, self.vector) if array is not None))
        return all(bool(np.isfinite(array).all()) for array in arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What of a tile could be seen for one query."""

    side_px: int
    """Side of the whole picture."""
    core: tuple[slice, slice]
    seen: NDArray[np.bool_] = field(repr=False)
    """(core, core) True where every picture shows the ground."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The things in a text."""

    instances: tuple[Instance, ...]
    scores: tuple[float, ...]
    notes: tuple[str, ...]


def sureness(log_probabilities: Sequence[float]) -> float:
    """The geometric mean of tokens' probabilities; 0 for none.

    Example:
        >>> sureness([math.log(0.5), math.log(0.125)])
        0.25
    """
    if not log_probabilities:
        return 0.0
    return round(min(math.exp(sum(log_probabilities) / len(log_probabilities)), 1.0), _DECIMALS)


def read_instances(reply: Reply) -> Found:
    """The instances of a text, each with the geometric mean of the probabilities of its own tokens."""
    starts = list(itertools.accumulate(map(len, reply.pieces), initial=0))
    instances: list[Instance] = []
    scores: list[float] = []
    rejected: list[str] = []
    repaired = begin = 0
    for segment in reply.text.split(";"):
        end = begin + len(segment)
        parsed = parse(segment)
        own = [lp for lp, start in zip(reply.log_probabilities, starts, strict=False) if begin <= start < end]
        instances += parsed.instances
        scores += [sureness(own)] * len(parsed.instances)
        rejected += parsed.rejected
        repaired += parsed.repaired
        begin = end + 1
    notes = [f"{repaired} instance{'s' * (repaired != 1)} repaired"] if repaired else []
    if rejected:
        reasons = ", ".join(sorted(set(rejected)))
        notes.append(f"{len(rejected)} instance{'s' * (len(rejected) != 1)} rejected: {reasons}")
    return Found(tuple(instances), tuple(scores), tuple(notes))


# ── shapes on the ground ─────────────────────────────────────────────────────────────────────────────────────


def cover(instance: Instance, side_px: int, core: tuple[slice, slice]) -> NDArray[np.bool_]:
    """(core, core) True where the centre of a pixel lies in an instance, which is in coordinates of the picture."""
    rows, columns = ((np.arange(part.start, part.stop) + 0.5) / side_px for part in core)
    if instance.mask is not None:
        side = len(instance.mask)
        cells = np.ix_((rows * side).astype(int), (columns * side).astype(int))
        covered: NDArray[np.bool_] = instance.mask[cells]
        return covered
    import shapely

    found = np.zeros((len(rows), len(columns)), np.bool_)
    if instance.geometry is None or instance.geometry.is_empty:
        return found
    left, top, right, bottom = instance.geometry.bounds
    down, across = (rows >= top) & (rows <= bottom), (columns >= left) & (columns <= right)
    if down.any() and across.any():
        shapely.prepare(instance.geometry)
        x, y = np.meshgrid(columns[across], rows[down])
        found[np.ix_(down, across)] = shapely.contains_xy(instance.geometry, x, y)
    return found


def paint(found: Found, query: Query, look: Look) -> NDArray[np.uint8]:
    """(core, core) codes of `mask_legend`; where things overlap that of the higher score, of equal ones the first."""
    codes = {plain_label(name): code for code, name in mask_legend(query).items()}
    painted = np.zeros(look.seen.shape, np.uint8)
    order = sorted(range(len(found.instances)), key=lambda number: (found.scores[number], -number))
    for number in order:
        instance = found.instances[number]
        code = codes.get(instance.label)
        if code is None and len(codes) == 1:
            code = next(iter(codes.values()))
        if code is not None:
            painted[cover(instance, look.side_px, look.core)] = code
    return painted


def share_of(patches: NDArray[np.float32], look: Look) -> float:
    """Share of the seen core that the targets cover, from the shares of a picture's blocks."""
    rows, columns = (
        np.arange(part.start, part.stop) * count // look.side_px
        for part, count in zip(look.core, patches.shape, strict=True)
    )
    return float(patches[np.ix_(rows, columns)][look.seen].mean(dtype=np.float64))


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────


def make_answer(
    query: Query, reply: Reply, look: Look, *, swapped: Reply | None = None, temperature: float = 1.0
) -> Answer:
    """The answer that a reply is.

    Args:
        query: What was asked.
        reply: What the model said.
        look: What could be seen; of a mask the rest is unseen, and other answers are about the whole tile.
        swapped: What it said when the dates were given the other way round, for a change.
        temperature: Of the probabilities that are stated; the answer is the same at any.
    """
    if not reply.is_finite:
        return Answer(
            status="failed",
            stage="predict",
            reason="not_finite",
            message="the model's scores are not finite; expected numbers; fix: check the checkpoint and its type",
        )
    kind = TASKS[query.task].answer
    if kind == "mask":
        return _surer(_mask(query, reply, look, swapped), temperature)
    notes = look.notes + (("order changed the answer",) if reply.order_matters else ())
    plain = Answer(
        status="answered",
        mask=np.where(look.seen, np.uint8(0), np.uint8(UNSEEN)),
        seen_px=int(look.seen.sum()),
        notes=notes,
    )
    if kind == "vector" and reply.vector is not None:
        return vector_answer(reply.vector, look.seen, notes=notes)
    if kind == "share":
        return _share(plain, reply, look)
    if kind in ("yes/no", "choice"):
        return _choice(plain, query, reply, swapped, temperature=temperature)
    if kind == "labels":
        return _labels(plain, query, reply, temperature=temperature)
    written = replace(plain, text=reply.text, notes=notes + _cut(reply), probability=sureness(reply.log_probabilities))
    if kind == "text":
        return _surer(replace(written, value=" ".join(reply.text.split())[:MAX_VALUE]), temperature)
    return _surer(_things(written, reply, tracks=kind == "tracks"), temperature)


def _surer(written: Answer, temperature: float) -> Answer:
    """A written answer with its probabilities, each of something that is so or is not, at a temperature."""
    if temperature == 1.0 or written.probability is None:
        return written
    scores = [round(temper_one(score, temperature), _DECIMALS) for score in written.instance_scores]
    sure = round(temper_one(written.probability, temperature), _DECIMALS)
    return replace(written, probability=sure, instance_scores=tuple(scores))


def _cut(reply: Reply) -> tuple[str, ...]:
    return () if reply.ended else ("answer cut off",)


def _things(written: Answer, reply: Reply, *, tracks: bool) -> Answer:
    found = read_instances(reply)
    several = {instance.track for instance in found.instances} if tracks else found.instances
    return replace(
        written,
        value=str(len(several)),
        instances=found.instances,
        instance_scores=found.scores,
        notes=written.notes + found.notes,
    )


def _share(plain: Answer, reply: Reply, look: Look) -> Answer:
    share = 0.0 if reply.patches is None else round(share_of(reply.patches, look), _DECIMALS)
    return replace(plain, value=f"{share:.4f}", fraction=share, notes=(*plain.notes, "counted on blocks of 32 pixels"))


def _best(names: Sequence[str], scores: Sequence[float]) -> str:
    return names[max(range(len(names)), key=lambda number: (scores[number], -number))]


def _choice(plain: Answer, query: Query, reply: Reply, swapped: Reply | None, *, temperature: float) -> Answer:
    names = query.choices if TASKS[query.task].chooses else ("yes", "no")
    (scores,) = reply.scores
    best = _best(names, scores)
    notes, agree = plain.notes, None
    if swapped is not None:
        agree = float((_best(names, swapped.scores[0]) == NO_CHANGE) == (best == NO_CHANGE))
        notes += () if agree else (DISAGREE,)
    rounded = _rounded(names, temper(np.array(scores), temperature).tolist())
    return replace(plain, value=best, probability=rounded[best], scores=rounded, notes=notes, orders_agree=agree)


def _labels(plain: Answer, query: Query, reply: Reply, *, temperature: float) -> Answer:
    """Each label by itself; the probability of the set is the product of those of its labels."""
    said = [label for label, of_label in zip(query.choices, reply.scores, strict=True) if of_label[0] > 0.5]
    yes = [float(temper(np.array(of_label), temperature)[0]) for of_label in reply.scores]
    return replace(
        plain,
        value="; ".join(said) or "none",
        probability=round(math.prod(max(score, 1.0 - score) for score in yes), _DECIMALS),
        scores=_rounded(query.choices, yes),
    )


def _rounded(names: Sequence[str], scores: Sequence[float]) -> Mapping[str, float]:
    return {name: round(min(max(score, 0.0), 1.0), _DECIMALS) for name, score in zip(names, scores, strict=True)}


def _mask(query: Query, reply: Reply, look: Look, swapped: Reply | None) -> Answer:
    found = read_instances(reply)
    codes, legend = paint(found, query, look), mask_legend(query)
    counts = np.bincount(codes[look.seen], minlength=UNSEEN + 1)[:UNSEEN]
    largest = int(counts[1:].argmax()) + 1  # of equal ones the first
    notes, agree = look.notes + _cut(reply) + found.notes, None
    if swapped is not None and swapped.is_finite:
        other = _exchanged(paint(read_instances(swapped), query, look))
        agree = round(float((other == codes)[look.seen].mean()), _DECIMALS)
        notes += (DISAGREE,) if agree < 1 else ()
    return Answer(
        status="answered",
        value=legend[largest] if counts[largest] else "none",
        probability=sureness(reply.log_probabilities),
        fraction=float(counts[1:].sum() / counts.sum()),
        mask=np.where(look.seen, codes, np.uint8(UNSEEN)),
        legend=legend,
        seen_px=int(look.seen.sum()),
        notes=notes,
        text=reply.text,
        instances=found.instances,
        instance_scores=found.scores,
        orders_agree=agree,
    )


def _exchanged(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Gained (odd codes) as lost (the even ones behind them), and the other way round."""
    swapped: NDArray[np.uint8] = np.where(codes == 0, codes, np.where(codes % 2 == 1, codes + 1, codes - 1))
    return swapped.astype(np.uint8)
