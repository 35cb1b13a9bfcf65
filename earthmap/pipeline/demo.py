"""The demonstration's job: a drawn world, asked what the embedded model can answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from earthmap.pipeline.job import TILE_SIZE

if TYPE_CHECKING:
    from earthmap.model import Card
    from earthmap.synthetic import World

_SENSORS = ("sentinel-2-l2a", "sentinel-1-db")
"""Those that the demonstration's world is drawn for."""

_RULES = (
    "Where is water?",
    "Where did water appear or disappear?",
    {"text": "Is there any snow?", "sensors": ["sentinel-2-l2a"]},
)
"""What `spectral` is asked."""

_QUESTIONS = (
    ("How much of the ground is water?", "fraction", ["water"], _SENSORS),
    ("Is there any water?", "presence", None, _SENSORS),
    ("What kind of land cover is this?", "classify", None, _SENSORS[:1]),
    ("What kind of change is this?", "change-type", None, _SENSORS),
    ("Where is water?", "segment", ["water"], _SENSORS),
    ("Where did water appear or disappear?", "change", ["water"], _SENSORS),
)
"""What the model is asked where its card supports it: text, task, targets, and sensors that can tell it."""


def embedded_card() -> Card | None:
    """The card of the embedded checkpoint; None where the package came without weights. Raises ModelError for a damaged
    one."""
    from earthmap.model import EMBEDDED, find_checkpoint, has_embedded, read_card

    return read_card(find_checkpoint(EMBEDDED)) if has_embedded() else None


def demo_job(world: World, card: Card | None) -> dict[str, Any]:
    """The demonstration's job without catalogue and output folder.

    The embedded model is asked what its card supports, each question of the sensors that it supports it for; where
    there is no model, or it supports nothing, `spectral` is asked.
    """
    questions = list(_supported(card)) if card is not None else []
    if card is None or not questions:
        return {
            "area": world.area,
            "queries": list(_RULES),
            "predictor": "spectral",
            "scenes": "all",
            "tile_size": TILE_SIZE,
        }
    return {"area": world.area, "queries": questions, "predictor": "vlm", "scenes": "all"}


def _supported(card: Card) -> Iterator[dict[str, Any]]:
    for text, task, targets, able in _QUESTIONS:
        sensors = [sensor for sensor in able if card.supports(task, sensor)]
        if sensors:
            yield {"text": text, "task": task, "sensors": sensors} | ({"targets": targets} if targets else {})
