"""Jobs of a service, over OGC API – Processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthmap.client.fetched import ServedRun, fetch_outputs, file_name
from earthmap.client.live import ACCEPTED, FAILED, OVER, RUNNING, LiveJob, Look
from earthmap.client.talking import Line
from earthmap.errors import EarthmapError, JobError, ServiceError
from earthmap.pipeline.folder import RUN_PATH
from earthmap.storage import Storage

_PAGE = 100
"""Jobs that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """What answers where there is a service."""

    line: Line
    folder: Path
    """Where what is fetched is kept, by the id of its job."""

    def submit(self, process: str, inputs: Mapping[str, Any]) -> LiveJob:
        """A new job. Raises EarthmapError for what the service refuses."""
        told = self.line.submit(f"/processes/{process}/execution", {"inputs": dict(inputs)})
        return self._live(told)

    def answer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What `ask` comes to. Raises EarthmapError for what the service refuses."""
        told = self.line.ask("/processes/ask/execution", {"inputs": dict(inputs)})
        try:
            return dict(told["reply"]["value"])
        except (KeyError, TypeError, ValueError):
            raise ServiceError(f"{self.line.url} answers without a reply", fix="check the address") from None

    def find(self, job_id: str | None = None) -> list[LiveJob]:
        """One's own jobs, the newest first, a hundred at most; an operator's are everybody's. Or one of them.

        Raises:
            JobError: for a job that is not there, or not one's own.
        """
        if job_id is None:
            return [self._live(told) for told in self.line.read(f"/jobs?limit={_PAGE}").get("jobs", ())]
        if not job_id.replace("-", "").isalnum():
            raise JobError(f"{job_id[:60]!r} is no id of a job")
        try:
            return [self._live(self.line.read(f"/jobs/{job_id}"))]
        except ServiceError as error:
            if error.status != 404:
                raise
            raise JobError(f"{error.what}: {job_id}", expected="the id of one of jobs()") from None

    def _live(self, told: Mapping[str, Any]) -> LiveJob:
        try:
            job_id, process = str(told["jobID"]), str(told["processID"])
        except KeyError:
            raise ServiceError(f"{self.line.url} answers without the id of a job", fix="check the address") from None
        return LiveJob(id=job_id, process=process, work=_Served(line=self.line, folder=self.folder / job_id, id=job_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """A job at the service."""

    line: Line
    folder: Path
    id: str

    def look(self) -> Look:
        """How it stands now. Raises EarthmapError."""
        told = self.line.read(f"/jobs/{self.id}")
        status = told.get("status")
        if status not in (ACCEPTED, RUNNING, *OVER):
            raise ServiceError(f"{self.line.url} says that the job is {status!r}", expected="a status of the standard")
        return Look(
            status=status,
            progress=int(told.get("progress") or 0),
            messages=tuple(str(one.get("text", "")) for one in told.get("messages", ())),
            fault=self._fault() if status == FAILED else None,
        )

    def _fault(self) -> EarthmapError:
        """Why it failed, as its results say. Raises EarthmapError where that is not told."""
        try:
            self.line.read(f"/jobs/{self.id}/results")
        except EarthmapError as error:
            return error
        return ServiceError("the job failed, and nobody says why")

    def cancel(self) -> None:
        """Dismiss it. Raises EarthmapError."""
        self.line.delete(f"/jobs/{self.id}")

    def fetch(self) -> Any:
        """The run; of a process that makes none small outputs, and files by their paths. Raises EarthmapError."""
        results = fetch_outputs(self.line, self.id, self.folder) if not (self.folder / RUN_PATH).exists() else {}
        if not (self.folder / RUN_PATH).exists():
            return {
                name: one["value"] if "value" in one else self.folder / file_name(name, one)
                for name, one in results.items()
            }
        served = Storage(f"{self.line.url}/jobs/{self.id}", connection=self.line.connection)
        return ServedRun(str(self.folder), served)
