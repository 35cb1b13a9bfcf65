"""What can be said of a run's areas without labels: bounds, and where there are errors on other scenes an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from earthmap.errors import JobError
from earthmap.pipeline.class_maps import MapLayer, choose_layer
from earthmap.pipeline.demands import Demands, columns
from earthmap.pipeline.folder import Run
from earthmap.pipeline.trust import ENOUGH, LACKING, HeldOut, held_out, interval, lacking, told_interval
from earthmap.predict.held_out import read_errors
from earthmap.tasks import TASKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlabelled:
    """The areas of a layer as they are mapped, and what is known of how far they are off."""

    layer: MapLayer
    numbers: Mapping[str, Any]
    """The layer's line of the summary, with the intervals of its classes."""
    lacking: str
    """Why there is not enough evidence; empty where there is."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "question": self.layer.query.text,
            "observation": self.layer.observation,
            "area_km2": self.numbers["area_km2"],
            "seen_km2": self.numbers["seen_km2"],
            "classes": [self._class(name, found) for name, found in self.numbers["model_based"].items()],
            "evidence": f"{LACKING}: {self.lacking}" if self.lacking else ENOUGH,
        }

    def _class(self, name: str, found: Mapping[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = {
            "class": name,
            "mapped_km2": self.numbers["km2"].get(name, 0.0),
            "bounds_km2": self.numbers["bounds_km2"].get(name, [0.0, self._unseen()]),
        }
        return told | ({"model_based": None, **found} if "reason" in found else {"model_based": dict(found)})

    def _unseen(self) -> float:
        return round(float(self.numbers["area_km2"]) - float(self.numbers["seen_km2"]), 4)

    def lines(self) -> list[str]:
        """For a terminal."""
        told = self.to_dict()
        rows = [["class", "mapped km²", "bounds with unseen ground", "model_based 90 % interval"]]
        for one in told["classes"]:
            low, high = one["bounds_km2"]
            edges = one["model_based"] and "{:,.3f} to {:,.3f}".format(*one["model_based"]["interval_km2"])
            rows.append([one["class"], f"{one['mapped_km2']:,.3f}", f"{low:,.3f} to {high:,.3f}", edges or "none"])
        reasons = dict.fromkeys(one["reason"] for one in told["classes"] if one["model_based"] is None)
        return [
            f"{told['question']} ({told['observation']}), without labels",
            f"{told['seen_km2']:,.3f} of {told['area_km2']:,.3f} km² were seen",
            *_of_triage(self.numbers),
            "",
            *columns(rows),
            *(f"no interval: {reason}" for reason in reasons),
            *([f"{LACKING}: {self.lacking}"] if self.lacking else []),
            "what the map is worth here, labels tell: earthmap sample",
        ]


def _of_triage(numbers: Mapping[str, Any]) -> list[str]:
    """Why bounds are wide where triage skipped ground: nobody looked at it."""
    skipped = (numbers.get("triage") or {}).get("skipped_tiles")
    return [f"{skipped:,} tiles were skipped by triage: bounds take their ground as unseen"] if skipped else []


def assess_unlabelled(
    run: Run,
    *,
    question: str | None = None,
    observation: str | None = None,
    errors: str | None = None,
    demands: Demands | None = None,
) -> Unlabelled:
    """What can be said of a layer's areas without labels.

    Args:
        run: a finished run.
        question: its number or text; None for the first with a class map.
        observation: as the summary names it; None for the latest.
        errors: file of error matrices (`earthmap.predict.held_out`); None for those of the predictor itself.
        demands: what must be known; None for what the job asks.

    Raises:
        BadRequestError: for a question without class maps, and error matrices that cannot be read.
    """
    mapped = [place for place, query in enumerate(run.job.queries, 1) if TASKS[query.task].merge == "polygons"]
    asked = str(mapped[0]) if question is None and mapped else question
    layer = choose_layer(run, question=asked, observation=observation)
    if layer.finds_things:
        raise JobError(
            f"without labels nothing is known of the number of things that question {layer.number} asks for",
            fix="label a sample: earthmap sample",
        )
    known = held_out(run.job) if errors is None else HeldOut.given(read_errors(errors), run.job)
    entries = run.summary["queries"][layer.number - 1]["observations"]
    numbers = next(entry for entry in entries if entry["observation"] == layer.observation)
    told = {name: told_interval(numbers, interval(numbers, name, known)) for name in layer.names}
    numbers = {**numbers, "model_based": told}
    return Unlabelled(layer=layer, numbers=numbers, lacking=lacking(numbers, demands or run.job.demands))
