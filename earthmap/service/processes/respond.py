"""The process `respond`: each picture after an event is mapped by itself, as `earthmap respond` does (docs/respond.md).

One job is one look: it maps what there is when it runs, and never waits for what may come. Who asks again later gets
what came since, and nothing is read or answered twice: all jobs share one store (docs/decisions/0037).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pydantic

from earthmap.pipeline import Job, parse_job
from earthmap.pipeline.event import Event, parse_event
from earthmap.pipeline.respond import EVENT_PATH, Watcher, dated_questions, respond
from earthmap.service.processes.given import given_fields, given_in, kept_files, tried_files
from earthmap.service.processes.inputs import CONFIG, question_fields
from earthmap.service.processes.map import (
    CELLS_SHARE,
    GROWING,
    PUBLIC,
    RUN_OUTPUTS,
    check_job,
    done_share,
    values_of,
)
from earthmap.service.processes.mapped import pass_folder, pass_named
from earthmap.service.processes.process import Assignment, Checked, Labour, Output, Process, Site
from earthmap.service.processes.quota import admit, within_tiles
from earthmap.service.processes.scope import Offer, Scope

if TYPE_CHECKING:
    from earthmap.pipeline import Progress, Run

DECIDED = ("datetime", "scenes", "date", "looks", "rush")
"""Fields of `map` that a response decides."""

DATES = ("event_time", "before", "after")


@cache
def _model(catalogs: tuple[str, ...], models: tuple[str, ...]) -> type[pydantic.BaseModel]:
    offer = Offer(catalogs=dict.fromkeys(catalogs, ""), models=dict.fromkeys(models, ""))
    about = {
        "event_time": "When it began, as exactly as it is known, such as 2024-06-07 or 2024-06-07T03:30Z.",
        "before": "What to look at of the time before, as a STAC datetime or interval; none for the 180 days before.",
        "after": "The same of the time after; none for all that there is.",
    }
    dates: dict[str, Any] = {
        name: (
            (str, pydantic.Field(max_length=100, description=text))
            if name == "event_time"
            else (str | None, pydantic.Field(default=None, max_length=100, description=text))
        )
        for name, text in about.items()
    }
    fields = question_fields(offer, [name for name in PUBLIC if name not in DECIDED])
    return pydantic.create_model("RespondInputs", __config__=CONFIG, **fields, **dates, **given_fields())


def _inputs(offer: Offer) -> type[pydantic.BaseModel]:
    return _model(tuple(offer.catalogs), tuple(offer.models))


def _event(inputs: Mapping[str, Any]) -> Event:
    return parse_event(inputs["event_time"], before=inputs.get("before"), after=inputs.get("after"))


def _values(inputs: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    return values_of({name: value for name, value in inputs.items() if name not in DATES}, scope)


def _check(inputs: Mapping[str, Any], scope: Scope) -> Checked:
    with tried_files(given_in(inputs)) as files:
        job = _whole_job({**_values(inputs, scope), **files, "out": "run"}, _event(inputs))
        check_job(job)
    return Checked(inputs=dict(inputs), area=job.area)


def _whole_job(values: Mapping[str, Any], event: Event) -> Job:
    """The job of all passes together, which is asked nothing. Raises BadRequestError."""
    return parse_job({**values, "queries": dated_questions(values, event), "datetime": event.span, "scenes": "all"})


def _prepare(inputs: Mapping[str, Any], site: Site) -> Mapping[str, Any]:
    given = given_in(inputs)
    values = {**_values(inputs, site.scope), "out": site.out, "store": site.store, "cluster": site.cluster}
    with tried_files(given) as files:
        _whole_job({**values, **files}, _event(inputs))
    return {"job": values, "event": {name: inputs.get(name) for name in DATES}, "given": given}


class _Ladder:
    """How far a response is: passes that are done, and the share of the one that is being mapped."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._passes, self._done = 1, 0

    def found(self, jobs: Sequence[Job]) -> None:
        """Passes to map. Raises JobError where they need more than the quota of the token."""
        self._passes = len(jobs)
        admit(jobs, self._assignment)

    def mapped(self, _: Run) -> None:
        """A pass is done."""
        self._done += 1
        self._assignment.advance(100 * self._done / self._passes)

    def report(self, told: Progress) -> None:
        """A cell of the next one is."""
        self._assignment.advance((100 * self._done + CELLS_SHARE * done_share(told)) / self._passes)


def _run(assignment: Assignment) -> None:
    """Map the passes that there are, or what is missing of them. Raises EarthmapError."""
    values = assignment.values
    ladder = _Ladder(assignment)
    watcher = Watcher(report=ladder.report, say=assignment.say, found=ladder.found, mapped=ladder.mapped)
    with kept_files(values["given"], assignment.out) as files:
        respond(within_tiles({**values["job"], **files}, assignment), _event(values["event"]), watcher=watcher)


RESPOND = Process(
    id="respond",
    title="Map an event",
    description="Map each picture after an event by itself, the latest first, and compare it with those before where "
    "the question does: what there is when the job runs. Outputs are of the latest pass; while the job runs, what is "
    "mapped so far grows behind the link `preview` of its status.",
    inputs=_inputs,
    check=_check,
    outputs={
        "event": Output(
            title="The passes: when, of which scenes, and what each came to",
            path=EVENT_PATH,
            media_type="application/json",
            by_value=True,
            is_of_run=False,
        ),
        **RUN_OUTPUTS,
    },
    labour=Labour(prepare=_prepare, run=_run),
    folder=pass_folder,
    part=pass_named,
    growing=GROWING,
)
