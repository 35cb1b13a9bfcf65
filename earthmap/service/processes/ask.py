"""The process `ask`: one question about one place of a finished job, answered at once, as `earthmap ask` answers it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

import pydantic

from earthmap.catalog import parse_datetime
from earthmap.errors import JobError
from earthmap.model import EMBEDDED, has_embedded
from earthmap.pipeline.job import QuestionSpec
from earthmap.service.asking import SPECTRAL, Asked, parse_question
from earthmap.service.processes.inputs import CONFIG, JobInput, model_input
from earthmap.service.processes.mapped import run_address
from earthmap.service.processes.process import Checked, Output, Process
from earthmap.service.processes.scope import OF_JOB, Offer, Scope

_MOST = (180.0, 90.0)
"""Degrees."""


def _on_earth(at: list[float]) -> list[float]:
    if any(abs(degrees) > most for degrees, most in zip(at, _MOST, strict=True)):
        raise ValueError("expected longitude and latitude in degrees, -180 to 180 and -90 to 90")
    return at


def model_names(offer: Offer) -> tuple[str, ...]:
    """Who can be asked: `spectral`, the embedded model where the package has one, and the operator's."""
    embedded = (EMBEDDED,) if has_embedded() else ()
    return tuple(dict.fromkeys((SPECTRAL, *embedded, *offer.models)))


def ask_inputs(offer: Offer) -> type[pydantic.BaseModel]:
    """The inputs of `ask`."""
    return _model(model_names(offer))


@cache
def _model(models: tuple[str, ...]) -> type[pydantic.BaseModel]:
    class AskInputs(pydantic.BaseModel):
        model_config = CONFIG

        job: JobInput
        """The finished job whose imagery is looked at."""
        at: Annotated[list[float], pydantic.Field(min_length=2, max_length=2), pydantic.AfterValidator(_on_earth)]
        """Longitude and latitude in degrees, on ground that the job has read."""
        query: str | QuestionSpec
        """What is asked, in words such as 'Where is water?', or with details beside the words. A change is asked
        between its before and after, or between the first and the latest date that the job looked at."""
        date: str | None = None
        """Which observation is looked at: a STAC datetime or interval; none for the latest."""
        model: model_input(models) | None = None  # type: ignore[valid-type]
        """Who answers: one that is offered, or `job:ID` for the model that a job trained; none for the job's own, else
        the embedded model where its card shows that it is the better one, else spectral."""

    return AskInputs


def asked_of(inputs: Mapping[str, Any], scope: Scope) -> Asked:
    """The question that checked inputs mean.

    Raises:
        JobError: for a job that has no imagery or trained no model, or may not be seen, and where the job's own model
            is no longer offered.
    """
    job = scope.mapped(inputs["job"])
    query = inputs["query"]
    own = SPECTRAL if job.inputs.get("predictor") == SPECTRAL else job.inputs.get("model")
    named, names = inputs.get("model") or own, model_names(scope.offer)
    checkpoint = None
    if named is not None and named.startswith(OF_JOB):
        checkpoint = scope.model(named)
    elif named is not None and named not in names:
        raise JobError(
            f"the job was answered by {named}, which is no longer offered",
            expected=f"one of {', '.join(names)}",
            fix="name it as model",
        )
    return Asked(
        run=run_address(job),
        at=(float(inputs["at"][0]), float(inputs["at"][1])),
        question={"text": query} if isinstance(query, str) else query,
        date=inputs.get("date"),
        model=named,
        checkpoint=checkpoint,
    )


def _check(inputs: Mapping[str, Any], scope: Scope) -> Checked:
    asked = asked_of(inputs, scope)
    for text in (asked.date, asked.question.get("before"), asked.question.get("after")):
        if text is not None:
            parse_datetime(text)
    parse_question(asked, model=asked.model)
    return Checked(inputs=dict(inputs))


ASK = Process(
    id="ask",
    title="Ask about one place",
    description="Answer a question about one place of a finished job at once, from the imagery that the job has read.",
    inputs=ask_inputs,
    check=_check,
    outputs={
        "reply": Output(
            title="The answer, and where on the ground what was found lies (GeoJSON)",
            path="reply.json",
            media_type="application/json",
            by_value=True,
        )
    },
)
