"""The process `map`: questions over all of an area, as `earthmap map` answers them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from earthmap.catalog import parse_datetime
from earthmap.errors import JobError
from earthmap.pipeline import Job, parse_job
from earthmap.pipeline.footprints import read_footprints
from earthmap.sensors import SENSORS
from earthmap.service.processes.given import GIVEN, given_fields, given_in, kept_files, tried_files
from earthmap.service.processes.inputs import CONFIG, area_of, question_fields
from earthmap.service.processes.mapped import pass_folder
from earthmap.service.processes.process import Assignment, Checked, Growing, Labour, Output, Process, Site
from earthmap.service.processes.quota import admit, within_tiles
from earthmap.service.processes.scope import Offer, Scope

if TYPE_CHECKING:
    from earthmap.pipeline import Progress

PUBLIC = (
    "collections", "datetime", "sensor", "resolution", "tile_size", "scenes", "date", "looks", "predictor",
    "least_seen", "triage", "triage_scale", "triage_threshold", "max_tiles", "rush", "seen", "certainty",
)  # fmt: skip
"""Fields of a job that a request may say as a job file says them."""

NARROWED = ("area", "catalog", "model", "queries", "priority", *GIVEN)
"""Those that it may say in fewer ways: no files, no addresses, no urgency, which is that of events."""

WITHHELD = (
    "images", "images_key", "bands", "model_key", "footprints_key", "reference_water_key", "points", "patience", "out",
    "store", "cluster",
)  # fmt: skip
"""Those that it may not say: paths, and what is derived or the operator's."""

RUN_OUTPUTS: Mapping[str, Output] = {
    "summary": Output(
        title="Numbers, and how far they can be trusted",
        path="summary.json",
        media_type="application/json",
        by_value=True,
    ),
    "features": Output(
        title="Features on the ground", path="features.parquet", media_type="application/vnd.apache.parquet"
    ),
    "coverage": Output(
        title="What was seen, skipped and failed, and why",
        path="coverage.parquet",
        media_type="application/vnd.apache.parquet",
    ),
    "item": Output(title="STAC item", path="item.json", media_type="application/geo+json"),
    "record": Output(
        title="What was done: groups read and reused, answers computed and reused, seconds, versions",
        path="run.json",
        media_type="application/json",
        by_value=True,
    ),
    "report": Output(title="Page to look at", path="report.html", media_type="text/html"),
    "preview": Output(title="Picture", path="preview.png", media_type="image/png"),
}
"""What every run folder has."""

CELLS_SHARE = 95
"""Per cent that stand for the cells; merging and writing are the rest."""

GROWING = Growing(
    outputs=("features", "coverage", "preview"), folder=lambda storage: pass_folder(storage, growing=True)
)
"""What of a run is there while it works, where its most important cells come first."""


_PRIORITY = (
    Literal["normal", "bulk"],
    pydantic.Field(
        default="normal",
        description="Whose cells come first where jobs share a cluster: `bulk` gives way to all others, whoever asks.",
    ),
)


@cache
def _model(catalogs: tuple[str, ...], models: tuple[str, ...]) -> type[pydantic.BaseModel]:
    offer = Offer(catalogs=dict.fromkeys(catalogs, ""), models=dict.fromkeys(models, ""))
    fields = question_fields(offer, PUBLIC) | given_fields() | {"priority": _PRIORITY}
    return pydantic.create_model("MapInputs", __config__=CONFIG, **fields)


def map_inputs(offer: Offer) -> type[pydantic.BaseModel]:
    """The inputs of `map`: fields of `JobSpec`, listed by name. What is not listed cannot be said."""
    return _model(tuple(offer.catalogs), tuple(offer.models))


def values_of(inputs: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    """What checked inputs are in a job, files apart: addresses instead of names. Raises JobError, AreaError."""
    values = {name: value for name, value in inputs.items() if name not in GIVEN}
    values |= {"area": area_of(inputs["area"]).to_geojson(), "catalog": scope.catalog(inputs.get("catalog"))}
    if inputs.get("model") is not None:
        values["model"] = scope.model(inputs["model"])
    return values


def check_job(job: Job) -> None:
    """Raises JobError for dates, a sensor or footprints that the run would refuse: the answer is due now."""
    for text in (job.spec.datetime, job.spec.date):
        if text is not None:
            parse_datetime(text)
    if job.spec.sensor is not None and job.spec.sensor not in SENSORS:
        raise JobError(f"there is no sensor {job.spec.sensor[:80]!r}", expected=", ".join(sorted(SENSORS)))
    if job.spec.footprints is not None:
        read_footprints(job.spec.footprints, area=job.area)


def job_of(inputs: Mapping[str, Any], scope: Scope, *, out: str, store: str | None) -> Job:
    """The job that checked inputs mean; files that it names are gone. Raises BadRequestError."""
    with tried_files(given_in(inputs)) as files:
        job = parse_job({**values_of(inputs, scope), **files, "out": out, "store": store})
        check_job(job)
    return job


def _check(inputs: Mapping[str, Any], scope: Scope) -> Checked:
    return Checked(inputs=dict(inputs), area=job_of(inputs, scope, out="run", store=None).area)


def _prepare(inputs: Mapping[str, Any], site: Site) -> Mapping[str, Any]:
    job = job_of(inputs, site.scope, out=site.out, store=site.store)
    return {**job.to_dict(), "cluster": site.cluster, "given": given_in(inputs)}


def _run(assignment: Assignment) -> None:
    """Run a map job within its limits, or what is missing of it.

    Raises:
        EarthmapError: as `earthmap.pipeline.run_job`; JobError for more than the limits allow.
    """
    from earthmap.pipeline import run_job

    values = dict(assignment.values)
    with kept_files(values.pop("given", {}), assignment.out) as files:
        job = parse_job(within_tiles({**values, **files}, assignment))
        admit([job], assignment)
        run_job(job, report=lambda told: assignment.advance(CELLS_SHARE * done_share(told)), say=assignment.say)


def done_share(told: Progress) -> float:
    """How much of a run's tiles is done, from 0 to 1."""
    return told.tiles / max(told.tiles_planned, 1)


MAP = Process(
    id="map",
    title="Map an area",
    description="Answer one or several questions over all of an area, with satellite imagery of the dates asked for.",
    inputs=map_inputs,
    check=_check,
    outputs=RUN_OUTPUTS,
    labour=Labour(prepare=_prepare, run=_run),
    growing=GROWING,
)
