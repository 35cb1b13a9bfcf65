"""Another question about the ground of a finished run: the same area, observations and store, and nothing is read.

What it comes to is a run of its own, in the folder `asked` of the first: asked again, it is found there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from earthmap.errors import StorageError
from earthmap.pipeline.folder import RUN_PATH, Run
from earthmap.pipeline.job import Job, parse_job
from earthmap.pipeline.plan import plan_again, read_plan, write_plan
from earthmap.storage import Storage

ASKED_PATH = "asked"
"""Folder of a run for what was asked of its ground later."""


def is_run(address: str) -> bool:
    """True for the folder (or `s3://` address) of a finished run."""
    local = "://" not in address
    if local and not Path(address).expanduser().is_dir():
        return False
    if not local and (not address.startswith("s3://") or "." in address.rpartition("/")[2]):
        return False  # a file in a bucket
    return Storage(address).exists(RUN_PATH)


def follow_up_job(run: Run, questions: Sequence[Mapping[str, Any]], *, answering: Mapping[str, Any]) -> Job:
    """The job of other questions about a run's ground.

    Args:
        run: the finished run.
        questions: as of a job file's `queries`.
        answering: `predictor` and `model` where they are not the run's, and `out` where it is not in the run's folder.

    Raises:
        BadRequestError: for a question that cannot be asked so.
    """
    values = {**run.job.to_dict(), "queries": [dict(question) for question in questions]}
    values["store"] = run.job.spec.store or f"{run.address.rstrip('/')}/store"
    values.pop("triage", None)  # it is for what the first questions look for
    changed = {name: value for name, value in answering.items() if value is not None}
    if changed.keys() & {"predictor", "model"}:
        for name in ("predictor", "model", "model_key"):
            values.pop(name, None)
    job = parse_job({**values, **changed})
    if "out" in changed:
        return job
    words = re.sub(r"[^a-z0-9]+", "-", job.queries[0].text.lower()).strip("-")[:40] or "question"
    return parse_job(
        {**job.to_dict(), "out": f"{run.address.rstrip('/')}/{ASKED_PATH}/{words}-{job.content_key()[:8]}"}
    )


def ask_run(
    run: Run,
    questions: Sequence[Mapping[str, Any]],
    *,
    answering: Mapping[str, Any] | None = None,
    report: Callable[[Any], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Ask other questions of a run's ground; the run that this comes to, beside the first.

    What the run has read is not read again, and what it has answered not computed again: `run.json` counts both. A
    tile whose reading failed is tried again, as by the run itself.

    Args:
        run: the finished run.
        questions: as of a job file's `queries`.
        answering: as of `follow_up_job`.
        report: hears of every cell.
        say: hears of every step.

    Raises:
        BadRequestError: for a question that cannot be asked so.
        StorageError: where the run's plan or store cannot be read, or the new folder not be written.
    """
    from earthmap.pipeline.run import claim, run_job

    job = follow_up_job(run, questions, answering=answering or {})
    earlier = read_plan(run.storage)
    if earlier is None:
        raise StorageError(f"{run.address} holds no plan", expected="plan.parquet", fix="run its job again")
    plan = plan_again(job, earlier)
    storage = Storage(job.spec.out)
    claim(storage, job)
    if read_plan(storage) is None:
        write_plan(storage, plan)
    return run_job(job, report=report, say=say)
