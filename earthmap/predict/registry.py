"""From a job's words to a predictor."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from earthmap.content import canonical_json
from earthmap.errors import JobError
from earthmap.predict.protocol import Predictor

PREDICTORS = ("oracle", "spectral", "vlm")
"""Names that a job may give."""


@functools.lru_cache(maxsize=8)
def _build(canonical: str) -> Predictor:
    spec = json.loads(canonical)
    name = spec.pop("name", None)
    expected = {"oracle": {"world"}, "spectral": set()}.get(name)
    if name == "vlm":
        raise JobError(
            "this version has no checkpoint of the vision-language model",
            expected="the predictor spectral or oracle",
            fix="use --predictor spectral",
        )
    if expected is None:
        raise JobError(f"{name!r} is not a predictor", expected="spectral or oracle", fix="use --predictor spectral")
    if set(spec) != expected:
        raise JobError(
            f"the predictor {name} is given {', '.join(sorted(spec)) or 'nothing'}",
            expected=", ".join(sorted(expected)) or "nothing beside its name",
        )
    if name == "oracle":
        from earthmap.predict.oracle import OraclePredictor

        oracle: Predictor = OraclePredictor(spec["world"])
        return oracle
    from earthmap.predict.spectral import SpectralPredictor

    return SpectralPredictor()


def build_predictor(spec: Mapping[str, Any]) -> Predictor:
    """The predictor of `{"name": "spectral"}` or `{"name": "oracle", "world": "<json>"}`, one for each process.

    Raises:
        JobError: for an unknown name or option, and for `vlm`, which has no checkpoint yet.
    """
    return _build(canonical_json(spec))
