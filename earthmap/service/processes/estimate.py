"""The process `estimate`: what labels say of a map, as `earthmap estimate` tells it (docs/trust.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pydantic

from earthmap.errors import JobError
from earthmap.pipeline.demands import SEEN, Demands
from earthmap.pipeline.estimating import estimate_run
from earthmap.pipeline.folder import Run
from earthmap.pipeline.labels import Labels, matched_labels
from earthmap.service.processes.inputs import CONFIG, FeaturesInput, JobInput, features_of
from earthmap.service.processes.mapped import run_address
from earthmap.service.processes.process import Assignment, Checked, Labour, Output, Process, Site
from earthmap.service.processes.scope import Offer, Scope
from earthmap.storage import Storage

ESTIMATE_NAME = "estimate.json"

MOST_LABELS = 20_000
"""Of one request."""

_UNIT = re.compile(r"[0-9a-f]{1,64}-[0-9]{1,9}")
"""Id of a unit: its sample, and its place there."""


class EstimateInputs(pydantic.BaseModel):
    """Which map, and what people saw."""

    model_config = CONFIG

    job: JobInput
    """The job whose map was sampled."""
    labels: FeaturesInput
    """The sample with its labels: GeoJSON features with the properties `id` and `label`, whatever their geometries."""
    seen: float = pydantic.Field(default=SEEN, ge=0, le=1)
    """Share of the ground that must have an estimate, or a number is told with `not enough evidence`."""
    certainty: float | None = pydantic.Field(default=None, gt=0, le=100)
    """Half of an interval may be at most this share of the number, or it is told so too; none for what is usual."""


def _inputs(_: Offer) -> type[pydantic.BaseModel]:
    return EstimateInputs


def labels_of(value: Any) -> Labels:
    """The labels in a FeatureCollection. Raises BadRequestError for what is none, and for ids that are no units'."""
    rows = [feature.get("properties") or {} for feature in features_of(value, name="labels", most=MOST_LABELS)]
    ids = [str(row.get("id") or "").strip() for row in rows]
    strange = [name for name in ids if name and not _UNIT.fullmatch(name)]
    if strange:
        raise JobError(f"labels: {strange[0][:80]!r} is no id of a unit", expected="ids of the sample")
    return matched_labels(ids, [_text(row.get("label")) for row in rows], source="labels")


def _text(label: Any) -> str:
    """The words of a label; empty for none."""
    if label is None or isinstance(label, (dict, list, bool)):
        return ""
    return " ".join(str(label).split())


def _check(inputs: Mapping[str, Any], scope: Scope) -> Checked:
    run_address(scope.mapped(inputs["job"]))
    labels_of(inputs["labels"])
    return Checked(inputs=dict(inputs))


def _prepare(inputs: Mapping[str, Any], site: Site) -> Mapping[str, Any]:
    given = EstimateInputs.model_validate(inputs)
    return {
        "run": run_address(site.scope.mapped(given.job)),
        "labels": given.labels,
        "demands": {"seen": given.seen, "certainty": given.certainty},
    }


def _run(assignment: Assignment) -> None:
    values = assignment.values
    labels = labels_of(values["labels"])
    assignment.say(f"estimating from {len(labels.by_unit):,} labels")
    trust = estimate_run(Run(values["run"]), labels, demands=Demands(**values["demands"]))
    told = {**trust.to_dict(), "lines": list(trust.lines())}
    Storage(assignment.out).write(ESTIMATE_NAME, json.dumps(told, indent=1, sort_keys=True).encode())


ESTIMATE = Process(
    id="estimate",
    title="Tell how far a map can be trusted",
    description="Areas, or counts, of a finished job's map corrected by what people saw in a sample of it, with 95 % "
    "intervals, and the accuracy of the map.",
    inputs=_inputs,
    check=_check,
    outputs={
        "estimate": Output(
            title="Areas with their intervals, and accuracies",
            path=ESTIMATE_NAME,
            media_type="application/json",
            by_value=True,
        )
    },
    labour=Labour(prepare=_prepare, run=_run),
)
