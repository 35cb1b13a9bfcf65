"""Vectors as answers: what they have in common, whoever gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from earthmap.tasks.answer import UNSEEN, Answer

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_SEEN = 0.25
"""Share of the core that must be seen: the look of less stands for the clouds' edge, not for the tile."""

DECIMALS = 4
"""Of a vector's numbers: how many tiles are computed at once changes further ones. A likeness moves by less than
0.001."""


def little_seen(seen: NDArray[np.bool_]) -> Answer | None:
    """Why there is no vector of a tile, of which `seen` is the core; None where enough of it is seen."""
    share = float(seen.mean())
    if share >= LEAST_SEEN:
        return None
    message = f"{share:.0%} of the core could be seen; a vector needs {LEAST_SEEN:.0%}"
    return Answer(status="skipped", reason="little_seen", message=message)


def vector_answer(vector: NDArray[np.floating], seen: NDArray[np.bool_], *, notes: Sequence[str] = ()) -> Answer:
    """The answer that is `vector`, brought to length 1, of a tile of which `seen` is the core.

    (D,) finite numbers, not all of them zero.
    """
    unit = np.round(vector / np.linalg.norm(vector), DECIMALS).astype(np.float32) + np.float32(0)  # no -0
    return Answer(
        status="answered",
        value=f"{len(unit)} numbers",
        mask=np.where(seen, np.uint8(0), np.uint8(UNSEEN)),
        seen_px=int(seen.sum()),
        notes=tuple(notes),
        embedding=unit,
    )
