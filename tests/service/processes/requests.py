"""Requests as they come, and jobs that they may name."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from earthmap.errors import JobError
from earthmap.service.errors import ProblemError
from earthmap.service.processes import Checked, Offer, Process, Scope, parse_execution
from earthmap.service.state import JobRecord, Status

OFFER = Offer(catalogs={"drawn": "/secret/place/catalog.json"}, models={"mine": "/secret/models/mine"})

MAPPED, EVENT, TRAINED, NOBODYS = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "1234")
"""Ids of a job of map, one of respond, one of finetune, and none."""

_NOW = datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC)


def finished(job_id: str, process: str, result: str) -> JobRecord:
    """A job that came to its end."""
    return JobRecord(
        id=job_id, process=process, inputs={}, limits={}, owner="ada", status=Status.SUCCESSFUL, progress=100,
        created=_NOW, started=_NOW, finished=_NOW, updated=_NOW, result=result, fault=None, attempts=1,
    )  # fmt: skip


def scope_on(folder: Path) -> Scope:
    """Somebody who has a job of each kind below `folder`."""
    jobs = {
        MAPPED: finished(MAPPED, "map", str(folder / MAPPED)),
        EVENT: finished(EVENT, "respond", str(folder / EVENT)),
        TRAINED: finished(TRAINED, "finetune", str(folder / TRAINED)),
    }

    def find(job_id: str) -> JobRecord:
        if job_id not in jobs:
            raise JobError(f"the job {job_id} cannot be used: there is no such job, or it is not yours")
        return jobs[job_id]

    return Scope(offer=OFFER, find=find, root=str(folder))


def ask(process: Process, inputs: Mapping[str, Any], scope: Scope) -> Checked:
    """What a request for `process` comes to."""
    return parse_execution(process, json.dumps({"inputs": inputs}).encode(), scope)


def refusal(process: Process, inputs: Mapping[str, Any], scope: Scope) -> str:
    """Why a request is refused: a fault of the request, which shows no place of the service."""
    with pytest.raises(ProblemError) as caught:
        ask(process, inputs, scope)
    told = json.dumps(caught.value.document)
    assert caught.value.document["status"] == 400
    assert "/secret" not in told
    assert str(scope.root) not in told
    return str(caught.value.document["detail"])
