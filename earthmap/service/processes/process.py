"""What a process of the service is: what it takes, whether a request can be run, how a worker runs it, what comes out.

A process is data and a few functions, so that everything that speaks of processes (descriptions, requests, the document
of the API, results, the worker) is written once. Adding one is a module beside this one, and a line in `registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earthmap.service.processes.scope import Offer, Scope

if TYPE_CHECKING:
    import pydantic

    from earthmap.grid import AreaOfInterest
    from earthmap.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One result of a process."""

    title: str
    path: str
    """In the run folder, or in that folder of it which `Process.folder` says."""
    media_type: str
    by_value: bool = False
    """Given in the document of results itself, else by its address."""
    is_of_run: bool = True
    """Below `Process.folder`; else in the job's own folder, whatever that says."""

    @property
    def schema(self) -> dict[str, Any]:
        """Of what is given."""
        if self.by_value:
            return {"type": "object"}
        return {"type": "string", "format": "binary", "contentMediaType": self.media_type}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A request that can be run."""

    inputs: dict[str, Any]
    """As they are kept with the job: JSON values, names instead of addresses."""
    area: AreaOfInterest | None = None
    """The ground that counts against a quota; None where none is read."""
    steps: int | None = None
    """Steps of training that count against a quota; None where nothing is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a job is worked on."""

    scope: Scope
    out: str
    """Address of its run folder."""
    store: str
    """Address of the store of cube and answers that all jobs share."""
    cluster: str | None = None
    """Address of a Ray cluster; None starts one for each run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a worker is told to do, and whom it tells how far it is."""

    out: str
    """Address of the run folder."""
    values: Mapping[str, Any]
    """What `Labour.prepare` came to."""
    limits: Mapping[str, Any]
    """What it may take, by the quotas of who asked."""
    tell: Callable[[Mapping[str, Any]], None]

    def say(self, text: str) -> None:
        """A message."""
        self.tell({"message": text})

    def advance(self, per_cent: float) -> None:
        """How much is done."""
        self.tell({"progress": max(0, min(100, int(per_cent)))})


@dataclass(frozen=True, slots=True, kw_only=True)
class Labour:
    """How a worker runs the jobs of a process, in a process of its own that holds nothing of the service."""

    prepare: Callable[[Mapping[str, Any], Site], Mapping[str, Any]]
    """From kept inputs to what the worker is told: JSON values, addresses instead of names. Raises EarthmapError."""
    run: Callable[[Assignment], None]
    """To its end, or what is missing of it: it may have been begun before. Raises EarthmapError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growing:
    """What of a running job can be looked at."""

    outputs: tuple[str, ...]
    """Those that are replaced whole, again and again, while it works."""
    folder: Callable[[Storage], str]
    """Where in the job's folder they are now, as `Process.folder`. Raises FileNotFoundError where nothing is yet."""


def _own_folder(_: Storage) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of the service."""

    id: str
    title: str
    description: str
    inputs: Callable[[Offer], type[pydantic.BaseModel]]
    """Its inputs as a model, each field with its description, where this is offered."""
    check: Callable[[Mapping[str, Any], Scope], Checked]
    """Whether inputs that are as the model says can be run. Raises EarthmapError."""
    outputs: Mapping[str, Output]
    labour: Labour | None = None
    """None for one that is answered at once, and makes no job."""
    folder: Callable[[Storage], str] = _own_folder
    """Where in a job's folder its run folder is, with a slash behind it; empty where it is that folder itself."""
    part: Callable[[Storage, str], str] | None = None
    """The same of one of several run folders, by its name. Raises FileNotFoundError for none; None where there is one
    run folder at most."""
    growing: Growing | None = None
    """None for one that shows nothing before its end."""

    @property
    def is_synchronous(self) -> bool:
        """Whether the answer to a request is the result."""
        return self.labour is None

    @property
    def job_control(self) -> list[str]:
        """`jobControlOptions` of the standard."""
        return ["sync-execute"] if self.is_synchronous else ["async-execute", "dismiss"]

    def place(self, output: Output, storage: Storage, *, part: str | None = None) -> str:
        """Where an output lies in the folder of a finished job; with `part` that of the run folder of this name.

        Raises:
            FileNotFoundError: where there is none.
        """
        if part is not None and (self.part is None or not output.is_of_run):
            raise FileNotFoundError(part)
        if not output.is_of_run:
            return output.path
        folder = self.folder(storage) if part is None or self.part is None else self.part(storage, part)
        return f"{folder}{output.path}"

    def place_now(self, name: str, storage: Storage) -> str:
        """Where an output that grows lies in the folder of a running job, if it is there already.

        Raises:
            FileNotFoundError: for one that does not grow, and where there is none yet.
        """
        if self.growing is None or name not in self.growing.outputs:
            raise FileNotFoundError(name)
        return f"{self.growing.folder(storage)}{self.outputs[name].path}"
