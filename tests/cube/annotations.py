"""Annotation of Sentinel-1 as ESA writes it, drawn from functions of line and pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(line, pixel) → value."""


def _list(values: np.ndarray) -> str:
    return f'count="{len(values)}">' + " ".join(f"{value:.9e}" for value in values)


def _pixels(width: int, step: int) -> np.ndarray:
    return np.unique(np.append(np.arange(0, width, step), width - 1))


def _integers(values: np.ndarray) -> str:
    return f'count="{len(values)}">' + " ".join(str(int(value)) for value in values)


def calibration_xml(
    gain: Field, shape: tuple[int, int], *, polarization: str = "VV", lines: Sequence[int] | None = None
) -> bytes:
    """A calibration data set whose sigmaNought is `gain`."""
    height, width = shape
    pixels = _pixels(width, 40)
    vectors = "".join(
        f"<calibrationVector><azimuthTime>2024-01-01T00:00:00</azimuthTime><line>{line}</line>"
        f"<pixel {_integers(pixels)}</pixel><sigmaNought {_list(gain(np.float64(line), pixels))}</sigmaNought>"
        f"<betaNought {_list(pixels * 0 + 7.0)}</betaNought></calibrationVector>"
        for line in (lines or range(-20, height + 80, 60))
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><calibration><adsHeader><polarisation>{polarization}</polarisation>'
        f'</adsHeader><calibrationVectorList count="9">{vectors}</calibrationVectorList></calibration>'
    ).encode()


def noise_xml(
    noise: Field,
    shape: tuple[int, int],
    *,
    old: bool = False,
    azimuth: Sequence[tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = (),
    polarization: str = "VV",
) -> bytes:
    """A noise data set; `azimuth` holds (first line, first pixel, last line, last pixel) and a function of the line."""
    height, width = shape
    pixels = _pixels(width, 40)
    kind, values = ("noise", "noiseLut") if old else ("noiseRange", "noiseRangeLut")
    vectors = "".join(
        f"<{kind}Vector><line>{line}</line><pixel {_integers(pixels)}</pixel>"
        f"<{values} {_list(noise(np.float64(line), pixels))}</{values}></{kind}Vector>"
        for line in range(0, height + 60, 60)
    )
    parts = ""
    for (top, left, bottom, right), factor in azimuth:
        lines = np.unique(np.append(np.arange(top, bottom, 30), bottom))
        parts += (
            f"<noiseAzimuthVector><swath>IW1</swath><firstAzimuthLine>{top}</firstAzimuthLine>"
            f"<firstRangeSample>{left}</firstRangeSample><lastAzimuthLine>{bottom}</lastAzimuthLine>"
            f"<lastRangeSample>{right}</lastRangeSample><line {_integers(lines)}</line>"
            f"<noiseAzimuthLut {_list(factor(lines))}</noiseAzimuthLut></noiseAzimuthVector>"
        )
    listed = "" if old else f"<noiseAzimuthVectorList>{parts}</noiseAzimuthVectorList>"
    return (
        f"<noise><adsHeader><polarisation>{polarization}</polarisation></adsHeader>"
        f"<{kind}VectorList>{vectors}</{kind}VectorList>{listed}</noise>"
    ).encode()
