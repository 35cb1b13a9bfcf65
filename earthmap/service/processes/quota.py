"""What a job may read and look at, by the quotas of who asked: it holds before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from earthmap.errors import JobError
from earthmap.pipeline.job import DEFAULT_MAX_TILES

if TYPE_CHECKING:
    from earthmap.pipeline import Job
    from earthmap.pipeline.plan import Plan
    from earthmap.service.processes.process import Assignment


def within_tiles(values: Mapping[str, Any], assignment: Assignment) -> dict[str, Any]:
    """The values of a job that refuses more tiles than the quota of the token."""
    most = values.get("max_tiles", DEFAULT_MAX_TILES)
    return {**values, "max_tiles": min(int(most), int(assignment.limits.get("tiles", most)))}


def admit(jobs: Sequence[Job], assignment: Assignment) -> None:
    """Nothing where these runs together stay within the limits; their plans stay where the runs find them.

    Raises:
        JobError: for more bytes of pixels, or more tiles, than the quota of the token.
        EarthmapError: for what cannot be planned.
    """
    from earthmap.pipeline.estimate import explain

    most = {name: int(assignment.limits[name]) for name in ("tiles", "read_bytes") if name in assignment.limits}
    if not most or (set(most) == {"tiles"} and len(jobs) < 2):
        return  # a run itself refuses more tiles than its `max_tiles`
    told = {"read_bytes": "bytes of pixels", "tiles": "tiles"}
    taken = dict.fromkeys(told, 0)
    for job in jobs:
        needed = explain(_planned(job, assignment))
        taken["read_bytes"] += needed.read_bytes
        taken["tiles"] += needed.tiles
    for name, what in told.items():
        if name in most and taken[name] > most[name]:
            raise JobError(
                f"the job reads {taken[name]:,} {what}",
                expected=f"{most[name]:,} at most, by the quota of the token",
                fix="ask for less ground, fewer dates or larger pixels",
            )


def _planned(job: Job, assignment: Assignment) -> Plan:
    """The plan of a job, which stays in its run folder."""
    from earthmap.pipeline.plan import make_plan, read_plan, write_plan
    from earthmap.pipeline.run import claim
    from earthmap.storage import Storage

    storage = Storage(job.spec.out)
    claim(storage, job)
    plan = read_plan(storage)
    if plan is None:
        plan = make_plan(job, say=assignment.say)
        write_plan(storage, plan)
    return plan
