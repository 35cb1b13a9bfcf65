"""The triage of a job: which of its questions are triaged, and which tiles of each are of the audit."""

from __future__ import annotations

from earthmap.pipeline.job import Job
from earthmap.pipeline.plan import Plan
from earthmap.pipeline.triage import CoarsePass, Triage, audit_draw, audit_limit, is_triaged
from earthmap.tasks import Query


def plan_triage(job: Job, plan: Plan) -> Triage:
    """What a job leaves out. The audit of each question is drawn among the tiles that it has an observation of.

    Raises ModelError for a model whose card cannot be read.
    """
    spec = job.spec
    if spec.triage is None:
        return Triage(least_seen=spec.least_seen)
    triaged = [query for query in job.queries if is_triaged(query) and _is_answered(query, job, plan)]
    draws: dict[str, list[int]] = {query.content_key(): [] for query in triaged}
    for work in plan.work():
        mine = [tile.id for bit, tile in enumerate(work.cell.tiles()) if work.tiles >> bit & 1]
        for query in {one.query for one in work.questions if one.observations} & draws.keys():
            draws[query] += [audit_draw(query, name) for name in mine]
    audited = {query: audit_limit(drawn) for query, drawn in sorted(draws.items())}
    coarse = CoarsePass(scale=spec.triage_scale, threshold=spec.triage_threshold, audited=audited)
    return Triage(least_seen=spec.least_seen, coarse=coarse)


def _is_answered(query: Query, job: Job, plan: Plan) -> bool:
    """Whether the model answers such questions of any sensor of the plan: of what it refuses nothing is spared."""
    if job.spec.predictor != "vlm" or job.spec.model is None:
        return True
    from earthmap.model import find_checkpoint, read_card

    card = read_card(find_checkpoint(job.spec.model))
    sensors = {one.sensor for one in plan.observations.values()}
    return any(card.refusal(query.task, sensor) is None for sensor in sensors)
