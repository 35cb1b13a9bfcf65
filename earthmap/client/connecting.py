"""`earthmap.connect`: one set of calls, answered here or by a service."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from earthmap.client.labels import Labels, features_in
from earthmap.client.replies import PlaceReply
from earthmap.grid import AreaOfInterest

if TYPE_CHECKING:
    from earthmap.client.live import LiveJob
    from earthmap.grid import AreaLike


Questions: TypeAlias = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
"""One question or several: their text, or with the details that a job file may say of them."""


class Answering(Protocol):
    """What answers the calls. Called from any thread."""

    def submit(self, process: str, inputs: Mapping[str, Any]) -> LiveJob:
        """A new job of a process, with its inputs by name. Raises EarthmapError for what cannot be run."""

    def answer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The reply of `ask`, at once. Raises EarthmapError for what cannot be answered."""

    def find(self, job_id: str | None = None) -> list[LiveJob]:
        """What was asked, the newest first, or one of it. Raises JobError for one that is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Calls that are the same with a service and without one."""

    address: str
    """Of the service, or the folder of what is done here."""
    answering: Answering = field(repr=False)

    def map(
        self,
        area: AreaLike | None,
        query: Questions,
        *,
        datetime: str | None = None,
        catalog: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> LiveJob:
        """A live job that answers one question, or several, over an area; its `result()` is the run.

        Args:
            area: Four numbers (west, south, east, north in degrees), a shapely geometry in EPSG:4326, a GeoDataFrame,
                GeoJSON, WKT, or the path of a file; None for the ground of the `images` among the options.
            query: Such as "Where is water?".
            datetime: STAC datetime or interval, such as "2024-06-01/2024-06-30".
            catalog: Here its address or path; of a service its name there, where it has several.
            options: Anything else that a job may say, such as `{"scenes": "all", "resolution": 20}`.

        Raises:
            BadRequestError: for a request that cannot be run, with what was expected and how to fix it.
            ServiceError: where the service does not take it.
        """
        said = _said(area, query, catalog=catalog, datetime=datetime)
        return self.answering.submit("map", {**(options or {}), **said})

    def respond(
        self,
        area: AreaLike,
        query: Questions,
        *,
        event_time: str,
        before: str | None = None,
        after: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> LiveJob:
        """A live job that maps each picture after an event by itself; its `result()` is the run of the latest.

        Args:
            area: As of `map`.
            query: One question, or several; those about changes look at what was before the event too.
            event_time: When it began, such as "2024-06-07".
            before: What to look at of the time before, as a STAC datetime or interval; None for the 180 days before.
            after: The same of the time after; None for all that there is.
            options: As of `map`, `catalog` among them.

        Raises:
            BadRequestError: for a request that cannot be run, with what was expected and how to fix it.
            ServiceError: where the service does not take it.
        """
        given = dict(options or {})
        said = _said(area, query, catalog=given.pop("catalog", None), event_time=event_time, before=before, after=after)
        return self.answering.submit("respond", {**given, **said})

    def ask(
        self,
        job: LiveJob | str,
        query: str | Mapping[str, Any],
        *,
        at: tuple[float, float],
        date: str | None = None,
        model: str | None = None,
    ) -> PlaceReply:
        """The answer about one place, at once, from the imagery that a finished job has read.

        Args:
            job: A live job, which is waited for, or the id of one.
            query: Such as "Where is water?".
            at: Longitude and latitude in degrees, on ground that the job has read.
            date: Which observation is looked at: a STAC datetime or interval; None for the latest.
            model: Who answers; None for who answered the job.

        Raises:
            BadRequestError: for a question that cannot be answered so.
            ServiceError: where the service does not answer.
        """
        question = {"text": query} if isinstance(query, str) else dict(query)
        place = [float(degrees) for degrees in at]
        return PlaceReply(
            self.answering.answer(_given(job=_id_of(job), query=question, at=place, date=date, model=model))
        )

    def sample(
        self, job: LiveJob | str, *, units: int | None = None, question: str | None = None, seed: int | None = None
    ) -> LiveJob:
        """A live job that draws pixels, or tiles, of a map for people to label (docs/trust.md).

        Its `result()` has `drawn`, and paths of files: `units` (GeoJSON) and `sheet` (GeoPackage for QGIS), into whose
        features a `label` is written, `pictures` (ZIP) and `guide`.

        Args:
            job: The job of the map: a live one, which is waited for, or the id of one.
            units: How many are drawn.
            question: Words of the question; None for the first that can be sampled.
            seed: Equal seeds draw equal samples.

        Raises:
            BadRequestError: for a map that cannot be sampled.
            ServiceError: where the service does not take it.
        """
        given = _given(job=_id_of(job), units=units, question=question, seed=seed)
        return self.answering.submit("sample", given)

    def estimate(self, job: LiveJob | str, labels: Labels, *, options: Mapping[str, Any] | None = None) -> LiveJob:
        """A live job that tells how far a map can be trusted; `result()["estimate"]` has areas with 95 % intervals.

        Args:
            job: The job of the map: a live one, which is waited for, or the id of one.
            labels: The `units` or `sheet` of a sample with their labels.
            options: `seen` and `certainty`, below which a number is told as not enough evidence.

        Raises:
            BadRequestError: for labels that cannot be used.
            ServiceError: where the service does not take it.
        """
        return self.answering.submit("estimate", {**(options or {}), "job": _id_of(job), "labels": features_in(labels)})

    def finetune(
        self,
        job: LiveJob | str,
        labels: Labels,
        *,
        steps: int | None = None,
        model: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> LiveJob:
        """A live job that trains a model on labelled ground; `result()["metrics"]` tells what was learned.

        Its `model`, `job:ID`, is what `options={"predictor": "vlm", "model": …}` of a map names.

        Args:
            job: The job whose imagery is looked at: a live one, which is waited for, or the id of one.
            labels: Polygons with the name of their class in a column (docs/training-data.md).
            steps: Of training.
            model: What is trained on: here a checkpoint's folder, of a service a name; None for the one that comes with
                earthmap.
            options: Anything else that the process takes, such as `{"rate": 3e-4, "within": …}`.

        Raises:
            BadRequestError: for labels or a model that cannot be used.
            ServiceError: where the service does not take it.
        """
        said = _given(job=_id_of(job), labels=features_in(labels), steps=steps, model=model)
        return self.answering.submit("finetune", {**(options or {}), **said})

    def jobs(self) -> list[LiveJob]:
        """What was asked, the newest first: here since this was connected, of a service one's own."""
        return self.answering.find()

    def job(self, job_id: str) -> LiveJob:
        """One of them. Raises JobError for one that is not there."""
        return self.answering.find(job_id)[0]


def _id_of(job: LiveJob | str) -> str:
    """Its id, once it is over. Raises EarthmapError: why it failed."""
    return job if isinstance(job, str) else job.wait().id


def _given(**inputs: Any) -> dict[str, Any]:
    """Those that are given."""
    return {name: value for name, value in inputs.items() if value is not None}


def _said(area: AreaLike | None, query: Questions, *, catalog: Any, **dates: str | None) -> dict[str, Any]:
    """What both kinds of jobs are told, as JSON has it. Raises AreaError."""
    return _given(
        **dates,
        catalog=None if catalog is None else str(catalog),
        area=None if area is None else AreaOfInterest.normalize(area).to_geojson(),
        queries=[query] if isinstance(query, (str, Mapping)) else list(query),
    )


def connect(url: str | None = None, *, token: str | None = None, folder: str | Path | None = None) -> Client:
    """What takes jobs: the service at `url`, or without one this process.

    Args:
        url: Of the service, such as "http://localhost:8000"; None to do the same here.
        token: That the service knows one by; None for that of the environment (docs/connection.md).
        folder: Where run folders are kept, and what is fetched; None for a new temporary one.

    Raises:
        JobError: for what is no address, and a token without a service.
        ServiceError: for a service that is not reached, or does not know the token.

    Example:
        >>> connect().jobs()
        []
    """
    from earthmap.errors import JobError

    home = Path(tempfile.mkdtemp(prefix="earthmap-") if folder is None else folder).expanduser().absolute()
    if url is None:
        from earthmap.client.here import Here

        if token is not None:
            raise JobError("a token is given without a service", fix="give the url of the service too")
        return Client(address=str(home), answering=Here(folder=home))
    from earthmap.client.remote import Remote
    from earthmap.client.talking import Line

    line = Line.to(url, token=token, say=_say)
    line.read("/processes")  # whether it is a service, and knows the token, is told now
    return Client(address=line.url, answering=Remote(line=line, folder=home))


def _say(text: str) -> None:
    from earthmap.operate.progress import open_console

    open_console(stderr=True).print(text, style="dim", markup=False)
