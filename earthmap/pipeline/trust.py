"""How far the numbers of a run can be trusted without labels: intervals from held-out scenes, or why there are none,
whether enough was seen, and where the probabilities were calibrated. Written into the summary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earthmap.errors import ModelError
from earthmap.metrics.model_based import LEVEL, ModelBased, NoInterval, model_based
from earthmap.model import Card, checkpoint_key, find_checkpoint, read_card
from earthmap.model.evidence import Calibration, SceneErrors
from earthmap.pipeline.demands import SMALL, Demands
from earthmap.predict.held_out import ErrorMatrices, spectral_errors
from earthmap.tasks import TASKS, Query, mask_legend

if TYPE_CHECKING:
    from earthmap.pipeline.job import Job

ENOUGH, LACKING = "enough evidence", "not enough evidence"
"""What a number is told with."""

_STATING = ("choices", "independent", "tokens")
"""How answers are scored that come with a probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What is known of a predictor from scenes that it did not learn from."""

    name: str
    """Of the predictor, for people."""
    scenes: tuple[SceneErrors, ...] = ()
    why: str = ""
    """Why there are none."""
    card: Card | None = None
    """Of the checkpoint that answered."""

    @classmethod
    def given(cls, errors: ErrorMatrices, job: Job) -> HeldOut:
        """Error matrices that a user gives; none where they are of another predictor than the job's."""
        answered = job.spec.predictor
        if answered is not None and errors.predictor != answered:
            return cls(name=answered, why=f"no evidence for {answered}: the error matrices are of {errors.predictor}")
        return cls(name=errors.predictor, scenes=errors.scenes)

    def errors(self, sensor: str, target: str) -> tuple[SceneErrors, ...] | NoInterval:
        """The error matrices of a sensor and class, one for each scene, or why there is none."""
        if self.why:
            return NoInterval(reason=self.why)
        mine = tuple(one for one in self.scenes if one.sensor == sensor)
        others = sorted({one.sensor for one in self.scenes} - {sensor})
        if not mine:
            known = f"the error matrices are of {', '.join(others)}" if others else f"{self.name} keeps none"
            return NoInterval(reason=f"no evidence for {sensor}: {known}")
        return tuple(one for one in mine if one.target == target)

    def calibration(self, task: str, sensor: str) -> Calibration | None:
        """Of the probabilities of a task; None where none are stated, or none were calibrated."""
        return None if self.card is None else self.card.calibration(task, [sensor])


def held_out(job: Job) -> HeldOut:
    """What is known of a job's predictor: in the checkpoint's card, or in the table of `spectral`."""
    name = job.spec.predictor or "the predictor"
    if name == "spectral":
        from earthmap.predict import SpectralPredictor

        table = spectral_errors()
        if table.key != SpectralPredictor().key:
            return HeldOut(
                name=name, why="the error matrices of spectral were made with other rules than this version's"
            )
        return HeldOut(name=name, scenes=table.scenes)
    if name != "vlm":
        return HeldOut(name=name, why=f"no error matrices of held-out scenes are kept of {name}")
    try:
        folder = find_checkpoint(job.spec.model or "")
        if checkpoint_key(folder) == job.spec.model_key:
            card = read_card(folder)
            return HeldOut(name="this checkpoint", scenes=card.current_errors, card=card)
    except ModelError:
        pass  # a run whose checkpoint is gone can still be told
    return HeldOut(name=name, why="the checkpoint that answered is not here any more")


# ── the summary ──────────────────────────────────────────────────────────────────────────────────────────────


def with_trust(summary: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """A summary whose every line says how far its number can be trusted.

    `model_based` holds, of each class of a map, the interval, or the reason why there is none; `evidence` whether
    enough is known, as the job asks; `probabilities` where those that are stated were calibrated.
    """
    known = held_out(job)
    asked = {query.content_key(): query for query in job.queries}
    queries = [
        {**told, "observations": [_told(line, asked[told["query_key"]], known, job) for line in told["observations"]]}
        for told in summary["queries"]
    ]
    return {**summary, "queries": queries}


def _told(line: Mapping[str, Any], query: Query, known: HeldOut, job: Job) -> dict[str, Any]:
    told = dict(line)
    if TASKS[query.task].merge == "polygons":
        names = mask_legend(query).values()
        told["model_based"] = {name: told_interval(line, interval(line, name, known)) for name in names}
    why = lacking(told, job.demands)
    told["evidence"] = f"{LACKING}: {why}" if why else ENOUGH
    told["probabilities"] = _probabilities(query.task, line, known)
    return told


def interval(line: Mapping[str, Any], name: str, known: HeldOut) -> ModelBased | NoInterval:
    """The interval of a class's share of the seen ground; `line` is a line of the summary."""
    if not line["seen_km2"]:
        return NoInterval(reason="nothing was seen")
    errors = known.errors(str(line["sensor"] or ""), name)
    if isinstance(errors, NoInterval):
        return errors
    return model_based(errors, min(line["km2"].get(name, 0.0) / line["seen_km2"], 1.0))


def told_interval(line: Mapping[str, Any], found: ModelBased | NoInterval) -> dict[str, Any]:
    """An interval in km² as the summary has it, or why there is none."""
    if isinstance(found, NoInterval):
        return {"reason": found.reason}
    seen = line["seen_km2"]
    edges = [round(edge * seen, 6) for edge in (found.low, found.high)]
    return {"level": LEVEL, "scenes": found.scenes, "km2": round(found.value * seen, 6), "interval_km2": edges}


def lacking(line: Mapping[str, Any], asked: Demands) -> str:
    """Why the number of a line is not told as known; empty where enough was seen, and it is as certain as asked."""
    if "footprints" in line:
        graded, given = int(line["graded"]), int(line["footprints"])
        few = graded < asked.seen * given
        return f"only {graded:,} of {given:,} footprints have a grade, {asked.seen:.0%} are asked for" if few else ""
    area, seen = float(line["area_km2"]), float(line["seen_km2"])
    if not seen:
        return "nothing was seen" + _passed_over(line)
    if area and seen + _audited_km2(line) < asked.seen * area:
        return f"only {seen / area:.0%} of the ground was seen, {asked.seen:.0%} are asked for{_passed_over(line)}"
    return "" if asked.certainty is None else "; ".join(_uncertain(line, asked.certainty))


def _audited_km2(line: Mapping[str, Any]) -> float:
    """Ground that triage passed over, about; none where its audit does not bound what is on it."""
    told = line.get("triage") or {}
    if told.get("skipped_with_target_at_most") is None:
        return 0.0
    return float(line["area_km2"]) * int(told["skipped_tiles"]) / max(int(line["planned"]), 1)


def _passed_over(line: Mapping[str, Any]) -> str:
    tiles = {**(line.get("skipped") or {}), **(line.get("failed") or {})}
    named = [f"{reason.replace('_', ' ')} {count:,}" for reason, count in sorted(tiles.items(), key=lambda r: -r[1])]
    return f" (tiles passed over: {', '.join(named)})" if named else ""


def _uncertain(line: Mapping[str, Any], certainty: float) -> Iterator[str]:
    """What is less certain than asked, class by class."""
    intervals: Mapping[str, Any] = line.get("model_based") or {}
    if not intervals:
        yield f"no interval is known of it without labels, and ± {certainty:.0%} is asked for"
    for name, one in intervals.items():
        if "reason" in one:
            yield f"no interval of {name} is known ({one['reason']}), and ± {certainty:.0%} is asked for"
            continue
        half = (one["interval_km2"][1] - one["interval_km2"][0]) / 2
        if half > max(certainty * one["km2"], SMALL * float(line["seen_km2"])):
            yield (
                f"the interval of {name} is ± {half:.3g} km² of {one['km2']:.3g} km²; "
                f"at most ± {certainty:.0%} of it, or ± {SMALL:.0%} of the ground, is asked for"
            )


def _probabilities(task: str, line: Mapping[str, Any], known: HeldOut) -> str | None:
    if known.card is None or TASKS[task].scoring not in _STATING:
        return None
    found = known.calibration(task, str(line["sensor"] or ""))
    return f"calibrated on {found.domain}" if found else "not calibrated"


def calibrations_of(summary: Mapping[str, Any], job: Job) -> Sequence[Calibration]:
    """The calibrations of the probabilities that a summary's lines were told with, each once."""
    known = held_out(job)
    found = [
        known.calibration(query["task"], str(line["sensor"] or ""))
        for query in summary["queries"]
        for line in query["observations"]
    ]
    return list({(one.task, one.sensor): one for one in found if one is not None}.values())
