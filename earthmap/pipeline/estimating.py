"""`earthmap estimate`: what the labels of a sample say of a run, by what the sample is of."""

from __future__ import annotations

import hashlib
import json

from earthmap.errors import BadRequestError
from earthmap.pipeline.area_estimate import ESTIMATE_NAME, Trust, assess
from earthmap.pipeline.count_estimate import CountTrust, assess_counts
from earthmap.pipeline.demands import Demands
from earthmap.pipeline.design import Design, read_design
from earthmap.pipeline.folder import Run
from earthmap.pipeline.labels import Labels, read_labels


def estimate_run(run: Run, labels: str | Labels, *, demands: Demands | None = None) -> Trust | CountTrust:
    """What labels, or those in a file, say of a run; writes `estimate.json` beside the sample's design.

    Raises:
        BadRequestError: for labels that cannot be read or are not of this run, and for a run that was mapped anew since
            the sample was drawn.
        StorageError: for a run that cannot be read or written.
    """
    given = read_labels(labels) if isinstance(labels, str) else labels
    design = read_design(run.storage, given.key)
    _check_unchanged(run, design)
    trust = (assess_counts if design.counts else assess)(design, given, demands=demands or Demands())
    run.storage.write(estimate_path(design), json.dumps(trust.to_dict(), indent=1, sort_keys=True).encode())
    return trust


def estimate_path(design: Design) -> str:
    """Where the estimate of a sample stands in the run folder."""
    return f"{design.folder}/{ESTIMATE_NAME}"


def _check_unchanged(run: Run, design: Design) -> None:
    for path, expected in design.files.items():
        try:
            found = hashlib.sha256(run.storage.read(path)).hexdigest()
        except FileNotFoundError:
            found = ""
        if found != expected:
            raise BadRequestError(
                f"{run.address} was mapped anew since the sample {design.key} was drawn: {path} is another",
                expected="the map that it was drawn from",
                fix="draw a sample of the map as it is now",
            )
