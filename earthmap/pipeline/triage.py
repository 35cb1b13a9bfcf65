"""What the predictor is not asked, and why: tiles that show nothing, tiles outside the area, and, where a job says so,
tiles of which a coarse picture (`earthmap.pipeline.overview`) shows no target. A sample of the tiles is asked all the
same, so that what this misses can be told. docs/triage.md
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.predict import Picture
from earthmap.sensors.masks import unseen
from earthmap.tasks import TASKS, Answer, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRIAGE_FORMAT = 1
"""Raised when equal settings skip other tiles."""

TRIAGED_TASKS = ("presence", "segment", "ground", "detect", "count")
"""Tasks that look for something that most tiles do not have."""

AUDIT_SHARE, AUDIT_LEAST = 0.02, 150
"""Of the tiles, how many are asked whatever the coarse picture shows."""

TRIAGE, OUTSIDE = "triage", "outside"
"""Reasons of the ledger."""


def is_triaged(query: Query) -> bool:
    """Whether a query looks for named targets on one date, so that a coarse picture can say that there is none.

    Example:
        >>> from earthmap.tasks import make_query
        >>> is_triaged(make_query("Where is water?")), is_triaged(make_query("How much is water?"))
        (True, False)
    """
    return query.task in TRIAGED_TASKS and bool(query.targets) and query.dates == 1 and not query.is_flood


@dataclass(frozen=True, slots=True, kw_only=True)
class CoarsePass:
    """How tiles are looked at on coarse pixels first."""

    scale: int
    """How many tiles one coarse picture shows along each side, and how many times its pixels are larger."""
    threshold: float
    """A tile is skipped where the score of the targets is below it."""
    audited: Mapping[str, int] = field(default_factory=dict)
    """By key of the queries that are triaged: a tile is of the audit where its `audit_draw` is at most this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Triage:
    """What a run leaves out before its predictor is asked. Small and picklable."""

    least_seen: float = 0.0
    """A tile of whose core less than this share is seen is skipped; one that shows nothing is in any case."""
    coarse: CoarsePass | None = None

    def coarse_for(self, query: str) -> CoarsePass | None:
        """The coarse pass for the query of that key; None where it is asked of every tile."""
        return self.coarse if self.coarse is not None and query in self.coarse.audited else None

    def path_parts(self, query: str, names: Sequence[str], tiles: int) -> list[Any]:
        """What of it decides the answers about a cell, for the address of its part; empty where nothing does.

        Args:
            query: key of the query.
            names: ids of the cell's tiles.
            tiles: which of them belong to the job, as bits.
        """
        parts: list[Any] = [["least_seen", self.least_seen]] if self.least_seen else []
        coarse = self.coarse_for(query)
        if coarse is not None:
            audited = [place for place, name in enumerate(names) if self.is_audited(query, name)]
            parts.append(["triage", TRIAGE_FORMAT, coarse.scale, coarse.threshold, audited, tiles])
        return parts

    def is_audited(self, query: str, tile: str) -> bool:
        """Whether a tile is asked whatever the coarse picture shows."""
        coarse = self.coarse_for(query)
        return coarse is not None and audit_draw(query, tile) <= coarse.audited[query]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a tile before a query was asked of it; of queries that are triaged only."""

    score: float | None
    """Of the targets on the coarse picture; None where that did not tell: such tiles are asked."""
    skips: bool
    """The score is too low. The tile is skipped, but where it is of the audit."""
    audited: bool

    def to_json(self) -> str:
        """Its one JSON form, for the columns `triage`."""
        return json.dumps({"score": self.score, "skips": self.skips, "audited": self.audited}, sort_keys=True)


# ── the audit ────────────────────────────────────────────────────────────────────────────────────────────────


def audit_draw(query: str, tile: str) -> int:
    """A number from 0 to 2⁶⁴ − 1 that a tile draws for a query, the same in every run, order and process."""
    return int.from_bytes(hashlib.sha256(f"audit {query} {tile}".encode()).digest()[:8])


def audit_limit(draws: Sequence[int]) -> int:
    """The largest draw of the audit: of 2 % of the tiles, of 150 at least, of all where there are fewer; -1 of none."""
    count = min(len(draws), max(math.ceil(AUDIT_SHARE * len(draws)), AUDIT_LEAST))
    return int(np.partition(np.array(draws, np.uint64), count - 1)[count - 1]) if count else -1


# ── tiles that show nothing ──────────────────────────────────────────────────────────────────────────────────


def unseen_answer(
    pictures: Sequence[Picture], core: tuple[slice, slice], query: Query, *, least_seen: float = 0.0
) -> Answer | None:
    """Why a query is not asked of a tile that shows too little of its core; None where it is.

    Unseen is what the query counts so on any of its dates (of a series on all of them), and what has no number in any
    band. The reason is what hides most pixels.
    """
    counts: dict[str, int] = {}
    shown = [_shown(picture, core, query, counts) for picture in pictures]
    join = np.logical_and if TASKS[query.task].dates else np.logical_or
    seen: NDArray[np.bool_] = join.reduce(shown)
    share = float(seen.mean())
    if share > 0 and share >= least_seen:
        return None
    reason = max(sorted(counts), key=lambda name: counts[name])
    what = "no pixel of the core could be seen"
    if share > 0:
        what = f"{share:.1%} of the core could be seen, less than the {least_seen:.0%} that are asked for"
    return Answer(status="skipped", reason=reason, message=f"{what}; {counts[reason]} pixels are {reason}")


def _shown(picture: Picture, core: tuple[slice, slice], query: Query, counts: dict[str, int]) -> NDArray[np.bool_]:
    """(core, core) what a picture shows; `counts` grow by what each reason hides."""
    mask = picture.mask[core]
    hidden = unseen(mask, query.unseen)
    if hidden.any():
        for name in query.unseen:
            counts[name] = counts.get(name, 0) + int(unseen(mask, (name,)).sum())
    open_ = ~hidden
    seen = np.zeros(mask.shape, bool)
    for band in picture.data[(slice(None), *core)]:  # most often the first says it all
        seen |= open_ & np.isfinite(band)
        if (seen == open_).all():
            break
    counts["nodata"] = counts.get("nodata", 0) + int((open_ & ~seen).sum())
    return seen


def outside_answer() -> Answer:
    """That of a tile of a cell that the job's area does not touch."""
    return Answer(status="skipped", reason=OUTSIDE, message="the tile is outside the area of the job")


def triage_answer(query: Query, verdict: Verdict, *, resolution_m: float, coarse: CoarsePass) -> Answer:
    """That of a tile whose coarse picture shows no target."""
    what = " or ".join(query.targets)
    message = (
        f"not looked at: pixels of {resolution_m * coarse.scale:g} m show no {what} "
        f"(score {verdict.score:.3g}, below {coarse.threshold:g})"
    )
    return Answer(status="skipped", reason=TRIAGE, message=message)
