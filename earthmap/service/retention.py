"""Old jobs and their files: what nobody needs any more goes when the operator says so, and never by itself.

A job is dismissed before its folder is removed: whenever this is broken off, what is listed as finished has its files,
and what has none is listed as dismissed. The same again goes on from there. The store of cubes and answers is shared by
all runs and addressed by content; it is not touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from earthmap.errors import StorageError
from earthmap.service.state import OPEN, JobRecord, JobStore, Selection, Status
from earthmap.storage import Storage

ENDED = (Status.SUCCESSFUL, Status.FAILED, Status.DISMISSED)
"""Of jobs whose files nobody writes any more."""

LEAST_DAYS = 1.0
"""Younger jobs stay: a run that was dismissed may take a while to end."""

_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A job whose files are gone, or would be."""

    job: JobRecord
    objects: int
    """Files of its folder."""


def find_old(jobs: JobStore, root: Storage, *, days: float) -> Iterator[Pruned]:
    """The jobs that ended more than `days` ago and have files below `root`, but for those that an open job names.

    Raises:
        StorageError: where the state or the folders cannot be read.
    """
    before = jobs.clock() - days * 86_400
    named = "".join(str(dict(job.inputs)) for job in _all(jobs, OPEN))
    for job in _all(jobs, ENDED):
        ended = job.finished or job.updated
        if ended.timestamp() < before and job.id not in named and (objects := len(root.list(job.id))):
            yield Pruned(job=job, objects=objects)


def prune(jobs: JobStore, root: Storage, *, days: float) -> Iterator[Pruned]:
    """Dismiss the jobs of `find_old`, remove their folders, and tell of each when it is done.

    Raises:
        StorageError: where the state cannot be written, or a folder not be removed.
    """
    for old in list(find_old(jobs, root, days=days)):
        jobs.dismiss(old.job.id)
        _remove(root, old.job.id)
        yield old


def _all(jobs: JobStore, statuses: tuple[Status, ...]) -> Iterator[JobRecord]:
    after: str | None = None
    while page := jobs.page(Selection(statuses=statuses, after=after, limit=_PAGE)):
        yield from page
        after = page[-1].id


def _remove(root: Storage, name: str) -> None:
    """Everything below `name`; in a folder also what an interrupted write left there. Raises StorageError."""
    root.clear(name)
    if root.is_local and (folder := Path(root.address) / name).exists():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise StorageError(f"{folder} cannot be removed: {error.strerror}", fix="see whose it is") from error
