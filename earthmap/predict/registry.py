"""From a job's words to a predictor."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from earthmap.content import canonical_json
from earthmap.errors import JobError
from earthmap.predict.protocol import Predictor

PREDICTORS = ("oracle", "spectral", "vlm")
"""Names that a job may give."""

_NEEDED = {"oracle": {"world"}, "spectral": set(), "vlm": {"checkpoint"}}
_ALLOWED = {**_NEEDED, "vlm": {"checkpoint", "weights", "dtype"}}


def _checked(spec: Mapping[str, Any]) -> str:
    """The name of a predictor whose options fit. Raises JobError."""
    name, given = spec.get("name"), set(spec) - {"name"}
    if name not in PREDICTORS:
        raise JobError(
            f"{name!r} is not a predictor", expected="spectral, oracle or vlm", fix="use --predictor spectral"
        )
    if not _NEEDED[name] <= given <= _ALLOWED[name]:
        raise JobError(
            f"the predictor {name} is given {', '.join(sorted(given)) or 'nothing'}",
            expected=", ".join(sorted(_NEEDED[name])) or "nothing beside its name",
            fix="give --model FOLDER" if name == "vlm" else None,
        )
    return str(name)


@functools.lru_cache(maxsize=2)
def _build(canonical: str) -> Predictor:
    spec = json.loads(canonical)
    name = _checked(spec)
    if name == "oracle":
        from earthmap.predict.oracle import OraclePredictor

        oracle: Predictor = OraclePredictor(spec["world"])
        return oracle
    if name == "spectral":
        from earthmap.predict.spectral import SpectralPredictor

        return SpectralPredictor()
    from earthmap.model.earth_onevision import load_earth_onevision
    from earthmap.predict.vlm import VlmPredictor

    model = load_earth_onevision(spec["checkpoint"], dtype=spec.get("dtype"))
    if spec.get("weights", model.key) != model.key:
        raise JobError(
            f"the checkpoint {spec['checkpoint']} is not the one that the job was made with",
            expected=f"that of key {spec['weights']}",
            fix="restore it, or start the job anew in another folder",
        )
    return VlmPredictor(model)


def default_predictor(asked: Iterable[tuple[str, str]]) -> str:
    """What answers where nobody says: `vlm` or `spectral`.

    It is the model where the card of the embedded checkpoint shows, on real scenes and with 95 % certainty, that it
    answers each of these tasks of these sensors better than any constant and than `spectral`; else `spectral`.

    Args:
        asked: Ids of tasks and sensors; a sensor that is not known yet is evidence of nothing.

    Raises:
        ModelError: where the card is damaged.
    """
    from earthmap.model.card import read_card
    from earthmap.model.checkpoint import EMBEDDED, find_checkpoint, has_embedded

    pairs = list(asked)
    if not pairs or not has_embedded():
        return "spectral"
    card = read_card(find_checkpoint(EMBEDDED))
    return "vlm" if all(card.prefers(task, sensor) for task, sensor in pairs) else "spectral"


def build_predictor(spec: Mapping[str, Any]) -> Predictor:
    """The predictor that a job names; the last two are kept, in each process.

    Args:
        spec: `{"name": "spectral"}`, `{"name": "oracle", "world": "<json>"}`, or `{"name": "vlm", "checkpoint":
            "<folder or public name>"}`, there also with `weights`, the checkpoint's content key, which is then held
            to, and `dtype`, one of `earthmap.model.earth_onevision.DTYPES`.

    Raises:
        JobError: for an unknown name or option, and a checkpoint of another key.
        ModelError: for a checkpoint that cannot be used.
    """
    return _build(canonical_json(spec))


def key_of(spec: Mapping[str, Any]) -> str:
    """`build_predictor(spec).key`; of a model whose weights and type are named without loading it.

    Raises as `build_predictor`.
    """
    if _checked(spec) == "vlm" and {"weights", "dtype"} <= set(spec):
        from earthmap.predict.vlm import predictor_key

        return predictor_key(spec["weights"], dtype=spec["dtype"])
    return build_predictor(spec).key
