"""The process `finetune`: a model learns from labelled ground of a finished job, and is then one that jobs may name.

The rows are those that `earthmap finetune --data RUN,labels=FILE --own STEPS` makes: tiles of the run's cube, asked
about what the labels say of them (docs/training-data.md).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic

from earthmap.errors import JobError
from earthmap.model import EMBEDDED, has_embedded
from earthmap.model.card import CARD_FILE
from earthmap.service.processes.given import kept_files, scratch_folder, tried_files
from earthmap.service.processes.inputs import (
    CONFIG,
    AreaInput,
    FeaturesInput,
    JobInput,
    area_of,
    features_of,
    model_input,
)
from earthmap.service.processes.mapped import run_address
from earthmap.service.processes.process import Assignment, Checked, Labour, Output, Process, Site
from earthmap.service.processes.scope import MODEL_FOLDER, OF_JOB, TRAINED, Offer, Scope
from earthmap.storage import Storage

if TYPE_CHECKING:
    from earthmap.training.finetune import Finetuned
    from earthmap.training.step import Learned

METRICS_NAME = "metrics.json"

STEPS, MOST_STEPS = 300, 20_000
"""Of one job, where nobody says, and at most."""

MOST_LABELS = 20_000
"""Of one request."""

MOST_FAULTS = 100
"""That are named in the metrics."""

_ROWS = "rows"
_EVERY = 100
"""Steps between checkpoints, from one of which a job goes on that lost its worker."""

_NAME = r"^[^,=+]+$"
"""What stands in a data set's settings, where these three part them."""

Named = Annotated[str, pydantic.Field(min_length=1, max_length=100, pattern=_NAME)]


@cache
def _model(models: tuple[str, ...]) -> type[pydantic.BaseModel]:
    class FinetuneInputs(pydantic.BaseModel):
        model_config = CONFIG

        job: JobInput
        """The finished job whose imagery is looked at."""
        labels: FeaturesInput
        """What is where: GeoJSON polygons, each with the name of its class as a property."""
        column: Named | None = None
        """The property that names the class; none for the first there is of class, label, class_name, category, type
        and name."""
        label: Named | None = None
        """The class that all polygons are, where no property names it."""
        within: AreaInput | None = None
        """Ground on which everything of these classes is labelled; none for the rectangle around all polygons."""
        things: tuple[Named, ...] | None = pydantic.Field(default=None, max_length=50)
        """Classes whose polygons are things one by one; empty for none, and told by their size where this is not
        given."""
        model: model_input(models) | None = None  # type: ignore[valid-type]
        """What is trained on: a model that the operator named, or `job:ID`, that which another job trained; none for
        the one that comes with earthmap."""
        steps: int = pydantic.Field(default=STEPS, ge=1, le=MOST_STEPS)
        """Steps of training."""
        rate: float | None = pydantic.Field(default=None, ge=1e-7, le=1e-2)
        """Peak learning rate; none for 0.0001, which suits small models and adapters. All of a model of two billion
        parameters wants a tenth of it."""
        lora: int | None = pydantic.Field(default=None, ge=1, le=256)
        """Rank of adapters beside the model; none to train all of it."""
        seed: int = pydantic.Field(default=0, ge=0, le=2**31 - 1)
        """Of the order of the data."""

    return FinetuneInputs


def _inputs(offer: Offer) -> type[pydantic.BaseModel]:
    return _model(tuple(offer.models))


def _base(inputs: Mapping[str, Any], scope: Scope) -> str:
    """The model to start from. Raises JobError where none is named, and none comes with the package."""
    if inputs.get("model") is not None:
        return scope.model(inputs["model"])
    if not has_embedded():
        raise JobError("no model is named, and none comes with this earthmap", expected="the name of a model")
    return EMBEDDED


def _given(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the run takes as files. Raises JobError, AreaError."""
    features_of(inputs["labels"], name="labels", most=MOST_LABELS)
    within = inputs.get("within")
    return {"labels": inputs["labels"], **({"within": area_of(within).to_geojson()} if within is not None else {})}


def _check(inputs: Mapping[str, Any], scope: Scope) -> Checked:
    from earthmap.grid import AreaOfInterest
    from earthmap.training.labels import read_labels

    run_address(scope.mapped(inputs["job"]))
    _base(inputs, scope)
    with tried_files(_given(inputs)) as files:
        area = AreaOfInterest.from_file(Path(files["within"])) if "within" in files else None
        column, label = inputs.get("column") or "", inputs.get("label") or ""
        read_labels(Path(files["labels"]), column=column, label=label, area=area)
    return Checked(inputs=dict(inputs), steps=inputs.get("steps", STEPS))


def _prepare(inputs: Mapping[str, Any], site: Site) -> Mapping[str, Any]:
    given = _inputs(site.scope.offer).model_validate(inputs)
    return {
        "run": run_address(site.scope.mapped(inputs["job"])),
        "given": _given(inputs),
        "settings": _settings(inputs),
        "base": inputs.get("model") or EMBEDDED,
        "name": f"{OF_JOB}{Path(site.out).name}",
        "spec": {
            **given.model_dump(include={"rate", "lora", "seed"}),
            "own": given.model_dump()["steps"],
            "model": _base(inputs, site.scope),
            "cluster": site.cluster,
        },
    }


def _settings(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Of the labels, as `earthmap.training.DataSpec` reads them."""
    found = {name: inputs[name] for name in ("column", "label") if inputs.get(name) is not None}
    if inputs.get("things") is not None:
        found["things"] = "+".join(inputs["things"]) or "none"
    return found


def _run(assignment: Assignment) -> None:
    """Train to the end, or go on from the newest checkpoint. Raises EarthmapError."""
    from earthmap.training.finetune import FinetuneSpec, finetune

    values = assignment.values
    own = values["spec"]["own"]

    def watch(learned: Learned) -> None:
        assignment.advance(100 * (learned.step + 1) / own)

    with kept_files(values["given"], assignment.out) as files, scratch_folder(assignment.out) as folder:
        settings = {**files, **values["settings"]}
        data = ",".join([values["run"], *(f"{name}={value}" for name, value in settings.items())])
        spec = FinetuneSpec(
            out=assignment.out, data=(data,), every=min(_EVERY, own), rows=str(folder / _ROWS), **values["spec"]
        )
        done = finetune(spec, watch=watch, say=assignment.say)
        told = {"model": values["name"], "base": values["base"], **_metrics(done, Path(str(spec.rows)))}
    Storage(assignment.out).write(METRICS_NAME, json.dumps(told, indent=1, sort_keys=True).encode())


def _metrics(done: Finetuned, rows: Path) -> dict[str, Any]:
    """What was learned from, and how well it is known."""
    from earthmap.training.row_files import read_prepared

    prepared = read_prepared(rows)
    found: dict[str, Any] = {}
    if prepared is not None:
        counts = {axis: count for axis, count in prepared.counts.items() if axis != "source"}  # a path
        found = {"places": prepared.places, "questions": prepared.questions, "counts": counts}
        found |= {"left_out": prepared.faults, "mended": prepared.notes}
    return {"steps": done.step, "learned_from": found, "faults": _faults(rows), "held_out": _figures(done)}


def _faults(rows: Path) -> list[dict[str, str]]:
    """The first rows and questions that were left out, and why."""
    import pyarrow.parquet

    from earthmap.training.row_files import FAULTS

    table = pyarrow.parquet.read_table(rows / FAULTS).slice(0, MOST_FAULTS)
    return [{name: row[name] for name in ("place", "cause", "message")} for row in table.to_pylist()]


def _figures(done: Finetuned) -> list[dict[str, Any]]:
    """How places that no step learned from are answered after the training, and `before` it; empty for none."""
    import pyarrow.parquet

    from earthmap.training.curves import VALIDATION

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(Storage(done.run).read(VALIDATION)))
    except FileNotFoundError:
        return []
    kinds = ("modality", "task", "metric")
    before = {tuple(row[name] for name in kinds): row["score"] for row in table.to_pylist() if row["step"] == 0}
    last = [row for row in table.to_pylist() if row["step"] == done.step]
    return [{**row, "before": before.get(tuple(row[name] for name in kinds))} for row in last]


FINETUNE = Process(
    id=TRAINED,
    title="Train a model on labelled ground",
    description="Train a model further on what people labelled in the imagery of a finished job. The model is then "
    "named `job:ID` in other requests of the same owner.",
    inputs=_inputs,
    check=_check,
    outputs={
        "metrics": Output(
            title="What was learned from, and how places that were held out are answered before and after",
            path=METRICS_NAME,
            media_type="application/json",
            by_value=True,
        ),
        "card": Output(
            title="The model's card",
            path=f"{MODEL_FOLDER}/{CARD_FILE}",
            media_type="application/json",
            by_value=True,
        ),
        "curves": Output(title="Picture of the training", path="curves.png", media_type="image/png"),
    },
    labour=Labour(prepare=_prepare, run=_run),
)
