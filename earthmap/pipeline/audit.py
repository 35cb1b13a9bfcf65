"""The triage of a job: which of its questions are triaged, and which tiles of each are of the audit."""

from __future__ import annotations

from earthmap.pipeline.job import Job
from earthmap.pipeline.plan import Plan
from earthmap.pipeline.triage import CoarsePass, Triage, audit_draw, audit_limit, is_triaged


def plan_triage(job: Job, plan: Plan) -> Triage:
    """What a job leaves out. The audit of each question is drawn among the tiles that it has an observation of."""
    spec = job.spec
    if spec.triage is None:
        return Triage(least_seen=spec.least_seen)
    draws: dict[str, list[int]] = {query.content_key(): [] for query in job.queries if is_triaged(query)}
    for work in plan.work():
        mine = [tile.id for bit, tile in enumerate(work.cell.tiles()) if work.tiles >> bit & 1]
        for query in {one.query for one in work.questions if one.observations} & draws.keys():
            draws[query] += [audit_draw(query, name) for name in mine]
    audited = {query: audit_limit(drawn) for query, drawn in sorted(draws.items())}
    coarse = CoarsePass(scale=spec.triage_scale, threshold=spec.triage_threshold, audited=audited)
    return Triage(least_seen=spec.least_seen, coarse=coarse)
