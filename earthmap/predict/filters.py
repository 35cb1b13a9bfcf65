"""Filters that look at a fixed neighbourhood, so that a pixel's value does not depend on where the picture begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mean_filter(image: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Mean of the valid pixels in the square of `side_px` around each pixel; NaN where the pixel itself is NaN.

    (y, x) float32 in and out. Beyond the picture there is nothing valid. Sums are taken in one fixed order, so that
    equal neighbourhoods give equal bits wherever the picture begins (a running sum would not).
    """
    valid = np.isfinite(image)
    total, count = np.where(valid, image, np.float32(0)), valid.astype(np.float32)
    reach = side_px // 2
    for axis in (0, 1):
        total, count = _shifted_sum(total, axis, reach), _shifted_sum(count, axis, reach)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: NDArray[np.float32] = np.where(valid, total / count, np.float32(np.nan))
    return mean


def _shifted_sum(image: NDArray[np.float32], axis: int, reach: int) -> NDArray[np.float32]:
    length = image.shape[axis]
    padded = np.pad(image, [(reach, reach) if axis == each else (0, 0) for each in (0, 1)])
    result = np.zeros_like(image)
    for start in range(2 * reach + 1):
        result += padded[start : start + length] if axis == 0 else padded[:, start : start + length]
    return result


def roughness(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Length of the gradient in units a pixel, from the four neighbours; NaN where one of them is, or at the edge.

    (y, x) float32 in and out.
    """
    result = np.full_like(image, np.nan)
    down, across = image[2:, 1:-1] - image[:-2, 1:-1], image[1:-1, 2:] - image[1:-1, :-2]
    result[1:-1, 1:-1] = np.hypot(down, across) / np.float32(2)
    return result
