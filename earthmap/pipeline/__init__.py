"""The map run: job, plan, stages, run folder. Loaded name by name, so that a worker's helper process stays small."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earthmap.pipeline.api import map_area
    from earthmap.pipeline.area_estimate import Trust
    from earthmap.pipeline.ask import Reply, ask_about, draw, make_reply, tell
    from earthmap.pipeline.clustering import Clusters, cluster_run
    from earthmap.pipeline.count_estimate import CountTrust
    from earthmap.pipeline.demands import Demands
    from earthmap.pipeline.estimate import Estimate, explain
    from earthmap.pipeline.estimating import estimate_run
    from earthmap.pipeline.export import Exported, export_run
    from earthmap.pipeline.folder import Run, open_run
    from earthmap.pipeline.follow_up import ask_run, is_run
    from earthmap.pipeline.isolation import Limits
    from earthmap.pipeline.job import Job, parse_job, read_job
    from earthmap.pipeline.likeness import find_similar
    from earthmap.pipeline.plan import Plan, make_plan, open_images
    from earthmap.pipeline.publish import publish_report
    from earthmap.pipeline.run import Progress, run_job
    from earthmap.pipeline.sampling import Sample, SampleSpec, draw_sample
    from earthmap.pipeline.sightings import Sighting, Sightings, find_sightings
    from earthmap.pipeline.subject import RunCube, Sight, Subject, open_run_cube, open_subject, place_of_run

__all__ = [
    "Clusters",
    "CountTrust",
    "Demands",
    "Estimate",
    "Exported",
    "Job",
    "Limits",
    "Plan",
    "Progress",
    "Reply",
    "Run",
    "RunCube",
    "Sample",
    "SampleSpec",
    "Sight",
    "Sighting",
    "Sightings",
    "Subject",
    "Trust",
    "ask_about",
    "ask_run",
    "cluster_run",
    "draw",
    "draw_sample",
    "estimate_run",
    "explain",
    "export_run",
    "find_sightings",
    "find_similar",
    "is_run",
    "make_plan",
    "make_reply",
    "map_area",
    "open_images",
    "open_run",
    "open_run_cube",
    "open_subject",
    "parse_job",
    "place_of_run",
    "publish_report",
    "read_job",
    "run_job",
    "tell",
]

_HOMES = {
    "Clusters": "clustering",
    "CountTrust": "count_estimate",
    "Demands": "demands",
    "Estimate": "estimate",
    "Exported": "export",
    "Job": "job",
    "Limits": "isolation",
    "Plan": "plan",
    "Progress": "run",
    "Reply": "ask",
    "Run": "folder",
    "RunCube": "subject",
    "Sample": "sampling",
    "SampleSpec": "sampling",
    "Sight": "subject",
    "Sighting": "sightings",
    "Sightings": "sightings",
    "Subject": "subject",
    "Trust": "area_estimate",
    "ask_about": "ask",
    "ask_run": "follow_up",
    "cluster_run": "clustering",
    "draw": "ask",
    "draw_sample": "sampling",
    "estimate_run": "estimating",
    "explain": "estimate",
    "export_run": "export",
    "find_sightings": "sightings",
    "find_similar": "likeness",
    "is_run": "follow_up",
    "make_plan": "plan",
    "make_reply": "ask",
    "map_area": "api",
    "open_images": "plan",
    "open_run": "folder",
    "open_run_cube": "subject",
    "open_subject": "subject",
    "parse_job": "job",
    "place_of_run": "subject",
    "publish_report": "publish",
    "read_job": "job",
    "run_job": "run",
    "tell": "ask",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'earthmap.pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(f"earthmap.pipeline.{_HOMES[name]}"), name)
