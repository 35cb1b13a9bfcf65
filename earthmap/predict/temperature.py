"""Stated probabilities at another temperature (Guo et al. 2017, On calibration of modern neural networks, section 4.2).

No answer changes by it: what was likelier stays likelier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def temper(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Their logarithms divided by the temperature, normalised again over the last axis; at 1 the very same numbers.

    Args:
        probabilities: (…, choice) of which at least one is above 0.
        temperature: above 0; above 1 makes them less sure.

    Example:
        >>> temper(np.array([0.8, 0.2]), 2.0).round(3).tolist()
        [0.667, 0.333]
    """
    if temperature == 1.0:
        return probabilities
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) / temperature
    shares: NDArray[np.float64] = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return shares


def temper_one(probability: float, temperature: float) -> float:
    """The same of something that is so or is not.

    Example:
        >>> round(temper_one(0.8, 2.0), 3)
        0.667
    """
    return float(temper(np.array([probability, 1.0 - probability]), temperature)[0])
