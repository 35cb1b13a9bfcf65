"""Error matrices as files, and those of `spectral`, which come with the package; a checkpoint's stand in its card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from earthmap.errors import BadRequestError
from earthmap.model.evidence import SceneErrors

SPECTRAL_ERRORS = Path(__file__).with_name("spectral_errors.json")
"""Written by `jobs/evaluate_real.py spectral`."""

_COUNTS = ("hits", "misses", "false_alarms", "rejections")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMatrices:
    """How wrong a predictor was on held-out scenes."""

    predictor: str
    """Its name in a job."""
    key: str | None
    """Its content key as it was measured; None where the file does not say."""
    scenes: tuple[SceneErrors, ...]


def write_errors(path: Path, *, predictor: str, key: str, made: str, scenes: Sequence[SceneErrors]) -> None:
    """Write error matrices as `read_errors` takes them, equal ones in equal bytes; `made` says what wrote them."""
    rows = []
    for one in scenes:
        row = asdict(one)
        rows.append({"class" if name == "target" else name: value for name, value in row.items()})
    content = {"predictor": predictor, "key": key, "made": made, "scenes": rows}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_errors(path: str | Path) -> ErrorMatrices:
    """Error matrices as JSON: `predictor`, and `scenes` with `scene`, `sensor`, `class` and how many pixels are hits,
    misses, false alarms and rejections; `key` of the predictor and `data` of a scene may be left out.

    Raises:
        BadRequestError: for a file that is not there or holds anything else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        key = content.get("key")
        return ErrorMatrices(
            predictor=str(content["predictor"]),
            key=None if key is None else str(key),
            scenes=tuple(_scene(one) for one in content["scenes"]),
        )
    except BadRequestError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRequestError(
            f"{path} holds no error matrices: {type(error).__name__}: {error}",
            expected=f"JSON with predictor and scenes, each with scene, sensor, class, {', '.join(_COUNTS)}",
        ) from error


def _scene(one: Any) -> SceneErrors:
    counts = {name: int(one[name]) for name in _COUNTS}
    place, sensor, target = (str(one[name]) for name in ("scene", "sensor", "class"))
    return SceneErrors(scene=place, sensor=sensor, target=target, data=str(one.get("data", "")), **counts)


@cache
def spectral_errors() -> ErrorMatrices:
    """How wrong `spectral` was on the real scenes that were held out when this version's table was made."""
    return read_errors(SPECTRAL_ERRORS)
