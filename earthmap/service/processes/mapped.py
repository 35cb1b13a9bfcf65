"""Where the run folder of a job is that mapped: its own folder, or of a disaster run that of one of its passes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from earthmap.errors import JobError
from earthmap.pipeline.respond import EVENT_PATH
from earthmap.storage import Storage

if TYPE_CHECKING:
    from earthmap.service.state import JobRecord


def run_address(job: JobRecord) -> str:
    """The run folder of a finished job that mapped; of a disaster run that of the latest pass.

    Raises:
        JobError: where there is none.
    """
    storage = Storage(str(job.result))
    try:
        return storage.locate(pass_folder(storage)).rstrip("/")
    except FileNotFoundError:
        raise JobError(f"the job {job.id} mapped no pass", expected="one that did") from None


def pass_folder(storage: Storage, *, growing: bool = False) -> str:
    """Where in a job's folder its run folder is, with a slash behind it; empty for the folder itself.

    With `growing` that of the pass that is being mapped, where there is one. Raises FileNotFoundError for an event of
    which nothing is mapped.
    """
    try:
        event = _event(storage)
    except FileNotFoundError:
        return ""
    begun = [row["folder"] for row in event["runs"] if not row["finished"]] if growing else []
    folder = begun[-1] if begun else event["latest"]
    if folder is None:
        raise FileNotFoundError(EVENT_PATH)
    return f"{folder}/"


def pass_named(storage: Storage, name: str) -> str:
    """The same of a pass by the name of its folder. Raises FileNotFoundError for one that is not there, or not done."""
    if name not in [row["folder"] for row in _event(storage)["runs"] if row["finished"]]:
        raise FileNotFoundError(name)
    return f"{name}/"


def _event(storage: Storage) -> Mapping[str, Any]:
    event: Mapping[str, Any] = json.loads(storage.read(EVENT_PATH))
    return event
