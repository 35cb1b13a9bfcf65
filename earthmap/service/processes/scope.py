"""What a request may name: catalogues and models by names that the operator gave them, and earlier jobs by their ids.

Never a path or an address: those are looked up here, and hidden again from whatever is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earthmap.errors import JobError

if TYPE_CHECKING:
    from earthmap.service.state import JobRecord

JOB_PATTERN = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""A job's id."""

OF_JOB = "job:"
"""Before the id of a job that trained a model: the name of that model."""

MAPPED = ("map", "respond")
"""Processes whose jobs come to a run folder with features, answers and a cube."""

TRAINED = "finetune"
"""The process whose jobs come to a model."""

MODEL_FOLDER = "model"
"""In the folder of such a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What an operator lets requests name.

    Example:
        >>> Offer(catalogs={"earth-search": "https://earth-search.aws.element84.com/v1"}).models
        {}
    """

    catalogs: Mapping[str, str]
    """Address or path by name; the first is what a request means that names none."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Folder of the checkpoint by name."""

    def __post_init__(self) -> None:
        if not self.catalogs:
            raise JobError("the service has no catalogue", fix="name at least one: NAME=ADDRESS")

    def hide(self, text: str) -> str:
        """`text` with names in place of addresses, as those who ask may read it."""
        for name, address in (*self.catalogs.items(), *self.models.items()):
            text = text.replace(address, name)
        return text


def _no_job(job_id: str) -> JobRecord:
    raise JobError(f"there is no job {job_id[:40]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What one request may name, by who asks."""

    offer: Offer
    find: Callable[[str], JobRecord] = _no_job
    """The job of an id, which has results and may be seen by who asks. Raises JobError."""
    root: str | None = None
    """Where the folders of jobs are; it is told to nobody."""

    def catalog(self, name: str | None) -> str:
        """The address of a catalogue; of the first where none is named. Raises JobError for one that is gone."""
        address = self.offer.catalogs.get(name or next(iter(self.offer.catalogs)))
        if address is None:
            raise JobError(f"the catalogue {name!r} is no longer offered", expected=", ".join(self.offer.catalogs))
        return address

    def model(self, name: str) -> str:
        """The folder of a model. Raises JobError for a job that trained none, and a name that is gone."""
        if name.startswith(OF_JOB):
            job = self.find(name.removeprefix(OF_JOB))
            if job.process != TRAINED:
                raise JobError(f"{name} trained no model: it is a job of {job.process}", expected=f"one of {TRAINED}")
            return f"{job.result}/{MODEL_FOLDER}"
        if name not in self.offer.models:
            raise JobError(f"the model {name!r} is no longer offered", expected=", ".join(self.offer.models) or "none")
        return self.offer.models[name]

    def mapped(self, job_id: str) -> JobRecord:
        """A finished job with features, answers and a cube. Raises JobError for any other."""
        job = self.find(job_id)
        if job.process not in MAPPED:
            raise JobError(
                f"the job {job_id} is one of {job.process}, and mapped nothing",
                expected=f"one of {' or '.join(MAPPED)}",
            )
        return job

    def hide(self, text: str) -> str:
        """`text` with names in place of addresses."""
        text = self.offer.hide(text)
        if self.root is None:
            return text
        return re.sub(rf"{re.escape(self.root.rstrip('/'))}(?=/|$|\W)", "runs", text)
