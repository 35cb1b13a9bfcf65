"""What the labels of a sample of pixels say of a run's areas, and whether they say enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from earthmap.metrics.area import AreaEstimate, ClassEstimate, Figure, estimate_areas
from earthmap.pipeline.demands import ENOUGH, SMALL, Demands, columns
from earthmap.pipeline.design import Design
from earthmap.pipeline.labels import Labels, labelled_sample

ESTIMATE_NAME = "estimate.json"
"""Beside a sample's design, whatever its units."""

KM2 = 1e6
"""m²."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """An estimate with the sample that it is of."""

    design: Design
    labels: Labels
    estimate: AreaEstimate
    """In m²; its total is all ground in question, unseen ground included."""
    answers: Mapping[str, str]
    """By class: `enough`, or why there is not enough evidence."""
    unseen_m2: float
    """Ground that no unit was drawn from."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        estimate = self.estimate
        drawn = {one.name: sum(unit.stratum == one.name for unit in self.design.units) for one in self.design.strata}
        return {
            "sample": self.design.key,
            "question": self.design.text,
            "observation": self.design.observation,
            "method": "design_based",
            "interval": "95 %: Jeffreys intervals of strata put together (MOVER)",
            "area_km2": _km2(estimate.total + self.unseen_m2),
            "estimated_km2": _km2(estimate.estimated),
            "unseen_km2": _km2(self.unseen_m2),
            "labelled": len(self.labels.by_unit),
            "unlabelled": len(self.design.units) - len(self.labels.by_unit),
            "overall_accuracy": _share(estimate.overall),
            "constant": estimate.constant
            and {"answer": estimate.constant[0], "overall_accuracy": round(estimate.constant[1], 4)},
            "classes": [self._class(one) for one in estimate.classes],
            "strata": [
                {
                    "name": one.name, "km2": _km2(one.area), "pixels": one.size, "drawn": drawn[one.name],
                    "labelled": one.labelled, "cannot_tell": one.cannot_tell,
                }
                for one in estimate.strata
            ],
            "notes": list(estimate.notes),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """For a terminal."""
        estimate, design = self.estimate, self.design
        lines = [
            f"{design.text} ({design.observation})",
            f"{len(self.labels.by_unit)} of {len(design.units)} units labelled; design-based, 95 % intervals",
            "",
            *columns(
                [
                    ["class", "mapped km²", "adjusted km²", "95 % interval", "user's", "producer's"],
                    *_class_rows(estimate),
                ]
            ),
            "",
            _overall_line(estimate),
            *columns([["stratum", "km²", "pixels", "labelled", "cannot tell"], *_stratum_rows(estimate)]),
        ]
        whole = estimate.total + self.unseen_m2
        if estimate.estimated < whole:
            lines += [
                "",
                f"{(whole - estimate.estimated) / KM2:,.3f} of {whole / KM2:,.3f} km² have no estimate; with them:",
            ]
            lines += [
                f"  {one.name}: {one.bounds[0] / KM2:,.3f} km² (nothing of it) to "
                f"{(one.bounds[1] + self.unseen_m2) / KM2:,.3f} km² (all of it)"
                for one in estimate.classes
            ]
        lines += [f"note: {note}" for note in estimate.notes]
        lines += [f"not enough evidence for {name}: {why}" for name, why in self.answers.items() if why != ENOUGH]
        return lines

    def _class(self, one: ClassEstimate) -> dict[str, Any]:
        why = self.answers[one.name]
        return {
            "class": one.name,
            "mapped_km2": _km2(one.mapped),
            "km2": _km2(one.area.value),
            "standard_error_km2": None if one.area.se is None else _km2(one.area.se),
            "interval_km2": [_km2(one.area.low), _km2(one.area.high)],
            "bounds_km2": [_km2(one.bounds[0]), _km2(one.bounds[1] + self.unseen_m2)],
            "cannot_tell_km2": [_km2(value) for value in one.undecided],
            "users_accuracy": _share(one.users),
            "producers_accuracy": _share(one.producers),
            "answer": "enough evidence" if why == ENOUGH else f"not enough evidence: {why}",
        }


def _km2(square_metres: float) -> float:
    return round(square_metres / KM2, 6)


def _share(figure: Figure | None) -> dict[str, Any] | None:
    if figure is None:
        return None
    return {
        "value": round(figure.value, 4),
        "standard_error": None if figure.se is None else round(figure.se, 4),
        "interval": [round(figure.low, 4), round(figure.high, 4)],
    }


def assess(design: Design, labels: Labels, *, demands: Demands) -> Trust:
    """The estimate of a design's labels, and for each class whether it is enough."""
    estimate = estimate_areas(labelled_sample(design, labels))
    unseen = sum(stratum.area for stratum in design.unsampled)
    answers = {one.name: _verdict(one, estimate, unseen, demands) for one in estimate.classes}
    return Trust(design=design, labels=labels, estimate=estimate, answers=answers, unseen_m2=unseen)


def _verdict(one: ClassEstimate, estimate: AreaEstimate, unseen: float, demands: Demands) -> str:
    """ENOUGH, or why not."""
    whole = estimate.total + unseen
    if estimate.estimated < demands.seen * whole:
        share = estimate.estimated / whole
        return f"only {share:.0%} of the ground was seen and labelled; {demands.seen:.0%} are asked for"
    half = (one.area.high - one.area.low) / 2
    if half > max(demands.of_labels * one.area.value, SMALL * estimate.estimated):
        return (
            f"the interval is ± {half / KM2:.3g} km² of {one.area.value / KM2:.3g} km²; "
            f"at most ± {demands.of_labels:.0%} of it, or ± {SMALL:.0%} of the ground, is asked for"
        )
    return ENOUGH


def _class_rows(estimate: AreaEstimate) -> list[list[str]]:
    return [
        [
            one.name,
            f"{one.mapped / KM2:,.3f}",
            f"{one.area.value / KM2:,.3f}",
            f"{one.area.low / KM2:,.3f} to {one.area.high / KM2:,.3f}",
            _percent(one.users),
            _percent(one.producers),
        ]
        for one in estimate.classes
    ]


def _stratum_rows(estimate: AreaEstimate) -> list[list[str]]:
    return [
        [one.name, f"{one.area / KM2:,.3f}", f"{one.size:,}", str(one.labelled), str(one.cannot_tell)]
        for one in estimate.strata
    ]


def _overall_line(estimate: AreaEstimate) -> str:
    if estimate.overall is None or estimate.constant is None:
        return "no mapped ground is labelled: there are no accuracies"
    name, share = estimate.constant
    return f"overall accuracy {_percent(estimate.overall)}; saying `{name}` everywhere would have {share:.1%}"


def _percent(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%})"
