"""What the counts of a sample of tiles say of how many things there are, and whether they say enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from earthmap.errors import BadRequestError
from earthmap.metrics.totals import BlockStratum, TotalEstimate, estimate_total
from earthmap.pipeline.demands import ENOUGH, Demands, columns
from earthmap.pipeline.design import Design
from earthmap.pipeline.labels import CountedTiles, Labels, counted_tiles

FEW_THINGS = 2.0
"""Half of an interval may always be so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTrust:
    """An estimate of how many there are, with the sample that it is of."""

    design: Design
    labels: Labels
    tiles: CountedTiles
    estimate: TotalEstimate
    """Of the strata that have counts enough."""
    left_out: tuple[str, ...]
    """Strata that have not."""
    answer: str
    """`enough`, or why there is not enough evidence."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        total = self.estimate.total
        everywhere, counted = self._areas()
        ours, constant, share = self._errors()
        return {
            "sample": self.design.key,
            "question": self.design.text,
            "observation": self.design.observation,
            "method": "design_based",
            "interval": "95 %: Student's, of a stratified difference estimator",
            "found": int(self.estimate.found),
            "count": round(total.value, 2),
            "standard_error": None if total.se is None else round(total.se, 2),
            "interval_count": [round(total.low, 2), round(total.high, 2)],
            "area_km2": round(everywhere / 1e6, 6),
            "estimated_km2": round(counted / 1e6, 6),
            "error_per_tile": round(ours, 4),
            "constant": {"answer": constant, "error_per_tile": round(share, 4)},
            "labelled": len(self.labels.by_unit),
            "unlabelled": len(self.design.units) - len(self.labels.by_unit),
            "strata": self._strata(),
            "notes": list(self._notes()),
            "answer": "enough evidence" if self.answer == ENOUGH else f"not enough evidence: {self.answer}",
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        told, total = self.to_dict(), self.estimate.total
        rows = [
            [one["name"], str(one["found"]), *(f"{one[name]:,}" for name in ("tiles", "counted", "cannot_tell"))]
            for one in told["strata"]
        ]
        return [
            f"{self.design.text} ({self.design.observation})",
            f"{told['labelled']} of {len(self.design.units)} tiles labelled; design-based, 95 % interval",
            "",
            f"found {told['found']:,}; there are {total.value:,.1f} ({total.low:,.1f} to {total.high:,.1f})",
            f"wrong by {told['error_per_tile']:.2f} a tile; saying {told['constant']['answer']:g} for each would be "
            f"wrong by {told['constant']['error_per_tile']:.2f}",
            "",
            *columns([["stratum", "found", "tiles", "counted", "cannot tell"], *rows]),
            *(f"note: {note}" for note in told["notes"]),
            *([] if self.answer == ENOUGH else [f"not enough evidence: {self.answer}"]),
        ]

    def _areas(self) -> tuple[float, float]:
        """m² of all ground in question, and of the strata in the estimate."""
        strata = self.design.strata
        whole = sum(one.area for one in (*strata, *self.design.unsampled))
        return whole, sum(one.area for one in strata if one.name not in self.left_out)

    def _errors(self) -> tuple[float, float, float]:
        """Mean absolute error a tile, the best constant answer, and what it would be wrong by."""
        sizes = np.array([one.size for one in self.design.strata], np.float64)
        counts = np.bincount(self.tiles.stratum, minlength=len(sizes))
        weight = (sizes / np.maximum(counts, 1))[self.tiles.stratum]
        order = np.argsort(self.tiles.counted, kind="stable")
        half = np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)
        constant = float(self.tiles.counted[order][min(half, len(order) - 1)])
        ours = np.average(np.abs(self.tiles.counted - self.tiles.found), weights=weight)
        return float(ours), constant, float(np.average(np.abs(self.tiles.counted - constant), weights=weight))

    def _strata(self) -> list[dict[str, Any]]:
        counted = np.bincount(self.tiles.stratum, minlength=len(self.design.strata)).tolist()
        return [
            {
                "name": one.name, "km2": round(one.area / 1e6, 6), "tiles": one.size, "counted": counted[place],
                "found": self.design.found[one.name], "cannot_tell": self.tiles.cannot_tell[place],
            }
            for place, one in enumerate(self.design.strata)
        ]  # fmt: skip

    def _notes(self) -> Sequence[str]:
        notes = [f"the stratum {name} has too few counts: it is in no estimate" for name in self.left_out]
        unseen = [one for one in self.design.unsampled if one.area]
        notes += [
            f"{one.size} tiles ({one.area / 1e6:,.3f} km²) were not seen: nothing is known of them" for one in unseen
        ]
        unsure = sum(self.tiles.cannot_tell)
        if unsure:
            notes.append(f"{unsure} tiles say `cannot tell`: they are taken to be as the rest of their stratum is")
        return [*notes, *self.estimate.notes]


def assess_counts(design: Design, labels: Labels, *, demands: Demands) -> CountTrust:
    """The estimate of a design's counts, and whether it is enough.

    Raises:
        BadRequestError: for labels that are none of the sample's, and where no stratum has counts enough.
    """
    tiles = counted_tiles(design, labels)
    counts = np.bincount(tiles.stratum, minlength=len(design.strata)).tolist()
    used = [place for place, one in enumerate(design.strata) if counts[place] >= min(2, one.size)]
    if not used:
        raise BadRequestError("no stratum has two counts", expected="two of each at least; fifty are better")
    chosen = np.isin(tiles.stratum, used)
    strata = [design.strata[place] for place in used]
    estimate = estimate_total(
        [BlockStratum(name=one.name, blocks=one.size, found=design.found[one.name]) for one in strata],
        np.searchsorted(used, tiles.stratum[chosen]),
        found=tiles.found[chosen],
        counted=tiles.counted[chosen],
    )
    left_out = tuple(one.name for place, one in enumerate(design.strata) if place not in used)
    answer = _verdict(design, estimate, left_out, demands)
    return CountTrust(
        design=design, labels=labels, tiles=tiles, estimate=estimate, left_out=left_out, answer=answer
    )  # fmt: skip


def _verdict(design: Design, estimate: TotalEstimate, left_out: Sequence[str], demands: Demands) -> str:
    whole = sum(one.area for one in (*design.strata, *design.unsampled))
    known = sum(one.area for one in design.strata if one.name not in left_out)
    if known < demands.seen * whole:
        return f"only {known / whole:.0%} of the ground was seen and counted; {demands.seen:.0%} are asked for"
    half = (estimate.total.high - estimate.total.low) / 2
    if half > max(demands.of_labels * estimate.total.value, FEW_THINGS):
        most = f"at most ± {demands.of_labels:.0%} is asked for"
        return f"the interval is ± {half:.3g} of {estimate.total.value:.3g}; {most}"
    return ENOUGH
