"""What can be said of a run's areas without labels: bounds, and where there are errors on other scenes an interval."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earthmap.errors import BadRequestError, JobError
from earthmap.metrics.model_based import ModelBased, NoInterval, SceneErrors, model_based
from earthmap.pipeline.class_maps import MapLayer, choose_layer
from earthmap.pipeline.demands import columns
from earthmap.pipeline.folder import Run
from earthmap.tasks import TASKS

_COUNTS = ("hits", "misses", "false_alarms", "rejections")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMatrices:
    """How wrong a predictor was on held-out scenes of one sensor."""

    predictor: str
    sensor: str
    scenes: Mapping[str, tuple[SceneErrors, ...]] = field(default_factory=dict)
    """By class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlabelled:
    """The areas of a layer as they are mapped, and what is known of how far they are off."""

    layer: MapLayer
    numbers: Mapping[str, Any]
    """The layer's line of the summary."""
    intervals: Mapping[str, ModelBased | NoInterval]
    """By class, as shares of the seen ground."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "question": self.layer.query.text,
            "observation": self.layer.observation,
            "area_km2": self.numbers["area_km2"],
            "seen_km2": self.numbers["seen_km2"],
            "classes": [self._class(name, found) for name, found in self.intervals.items()],
        }

    def _class(self, name: str, found: ModelBased | NoInterval) -> dict[str, Any]:
        told: dict[str, Any] = {
            "class": name,
            "mapped_km2": self.numbers["km2"].get(name, 0.0),
            "bounds_km2": self.numbers["bounds_km2"].get(name, [0.0, self._unseen()]),
        }
        if isinstance(found, NoInterval):
            return told | {"model_based": None, "reason": found.reason}
        seen = self.numbers["seen_km2"]
        interval = {"level": 0.9, "scenes": found.scenes}
        return told | {
            "model_based": interval
            | {
                "km2": round(found.value * seen, 6),
                "interval_km2": [round(edge * seen, 6) for edge in (found.low, found.high)],
            }
        }

    def _unseen(self) -> float:
        return round(float(self.numbers["area_km2"]) - float(self.numbers["seen_km2"]), 4)

    def lines(self) -> list[str]:
        """For a terminal."""
        told = self.to_dict()
        rows = [["class", "mapped km²", "bounds with unseen ground", "model_based 90 % interval"]]
        for one in told["classes"]:
            low, high = one["bounds_km2"]
            interval = one["model_based"] and "{:,.3f} to {:,.3f}".format(*one["model_based"]["interval_km2"])
            rows.append([one["class"], f"{one['mapped_km2']:,.3f}", f"{low:,.3f} to {high:,.3f}", interval or "none"])
        reasons = dict.fromkeys(one["reason"] for one in told["classes"] if one["model_based"] is None)
        return [
            f"{told['question']} ({told['observation']}), without labels",
            f"{told['seen_km2']:,.3f} of {told['area_km2']:,.3f} km² were seen",
            "",
            *columns(rows),
            *(f"no interval: {reason}" for reason in reasons),
            "what the map is worth here, labels tell: earthmap sample",
        ]


def read_errors(path: str) -> ErrorMatrices:
    """Error matrices as JSON: `predictor`, `sensor`, and `scenes` with `scene`, `class` and how many pixels are hits,
    misses, false alarms and rejections.

    Raises:
        BadRequestError: for a file that is not there or holds anything else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        scenes: dict[str, list[SceneErrors]] = {}
        for one in content["scenes"]:
            counts = {name: int(one[name]) for name in _COUNTS}
            scenes.setdefault(str(one["class"]), []).append(SceneErrors(scene=str(one["scene"]), **counts))
        about = {name: str(content[name]) for name in ("predictor", "sensor")}
        return ErrorMatrices(**about, scenes={name: tuple(own) for name, own in scenes.items()})
    except BadRequestError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRequestError(
            f"{path} holds no error matrices: {type(error).__name__}: {error}",
            expected=f"JSON with predictor, sensor and scenes, each with scene, class, {', '.join(_COUNTS)}",
        ) from error


def assess_unlabelled(
    run: Run, *, question: str | None = None, observation: str | None = None, errors: str | None = None
) -> Unlabelled:
    """What can be said of a layer's areas without labels.

    Args:
        run: a finished run.
        question: its number or text; None for the first with a class map.
        observation: as the summary names it; None for the latest.
        errors: file of error matrices (`read_errors`); None where there are none.

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
    given = None if errors is None else read_errors(errors)
    entries = run.summary["queries"][layer.number - 1]["observations"]
    numbers = next(entry for entry in entries if entry["observation"] == layer.observation)
    why = _unlike(run, layer, given)
    intervals = {name: NoInterval(reason=why) if why else _interval(numbers, name, given) for name in layer.names}
    return Unlabelled(layer=layer, numbers=numbers, intervals=intervals)


def _unlike(run: Run, layer: MapLayer, given: ErrorMatrices | None) -> str:
    """Why the error matrices are no evidence for a layer; empty where they are."""
    if given is None:
        return "no error matrices of held-out scenes are given (--errors)"
    if given.sensor != layer.sensor:
        return f"no evidence for {layer.sensor}: the error matrices are of {given.sensor}"
    answered = run.job.spec.predictor
    if answered is not None and given.predictor != answered:
        return f"no evidence for {answered}: the error matrices are of {given.predictor}"
    return ""


def _interval(numbers: Mapping[str, Any], name: str, given: ErrorMatrices | None) -> ModelBased | NoInterval:
    if given is None or not numbers["seen_km2"]:
        return NoInterval(reason="nothing was seen")
    return model_based(given.scenes.get(name, ()), min(numbers["km2"].get(name, 0.0) / numbers["seen_km2"], 1.0))
