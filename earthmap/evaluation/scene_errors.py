"""Error matrices of a predictor's class maps on held-out scenes, pixel by pixel: what `model_based` intervals are from.

A scene is a block: one place, with all of its tiles and dates. Neighbouring tiles of one picture share its weather, its
season and who labelled it, so they are one piece of evidence; places here lie in different countries. What a map is
compared with is what people know: labels by hand, a national map of land use, that there is no water in a desert.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from earthmap.evaluation.exams import AT_ONCE
from earthmap.model.evidence import SceneErrors
from earthmap.synthetic.replies import NAMES
from earthmap.tasks import make_query
from earthmap.tasks.answer import UNSEEN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.evaluation.real import Scene
    from earthmap.predict.protocol import Predictor, TileInput


def measure_errors(
    scenes: Iterable[Scene], *, model: Predictor, sensors: Collection[str] | None = None
) -> list[SceneErrors]:
    """One error matrix for each place, sensor and class that people know, of scenes with all bands of one sensor.

    Args:
        scenes: Held out; those of one name are one place.
        model: What maps them.
        sensors: Ids of those that are measured; None for all.
    """
    found: dict[tuple[str, str, str], NDArray[np.int64]] = {}
    data: dict[tuple[str, str, str], dict[str, None]] = {}
    for scene in scenes:
        sensor = scene.items[0].pictures[0].sensor
        if scene.bands or len(scene.items[0].pictures) > 1 or (sensors is not None and sensor not in sensors):
            continue
        for target, masks in scene.known.items():
            key = (scene.name, sensor, target)
            counts = count_errors(scene.items, masks, target, model=model)
            found[key] = found.get(key, np.zeros(4, np.int64)) + counts
            data.setdefault(key, {})[scene.data] = None
    return [_errors(key, counts, "; ".join(data[key])) for key, counts in sorted(found.items()) if counts.any()]


def count_errors(
    items: tuple[TileInput, ...], masks: tuple[NDArray[np.uint8], ...], target: str, *, model: Predictor
) -> NDArray[np.int64]:
    """Hits, misses, false alarms and rejections of a class over the pixels that are known and were mapped.

    Args:
        items: Tiles of one scene.
        masks: Of each (y, x) 1 where the class is, 0 where it is not, 255 where nobody knows.
        target: The class.
        model: What maps them.
    """
    counts = np.zeros(4, np.int64)
    for said, true in zip(_mapped(items, target, model), masks, strict=True):
        if said is not None:
            known = (said != UNSEEN) & (true != UNSEEN)
            counts += np.bincount(2 * (true[known] == 0) + (said[known] == 0), minlength=4)
    return counts


def _mapped(items: tuple[TileInput, ...], target: str, model: Predictor) -> Iterator[NDArray[np.uint8] | None]:
    query = make_query(f"Where is {NAMES[target]}?", task="segment", targets=(target,), open_vocabulary=True)
    for start in range(0, len(items), AT_ONCE):
        for (answer,) in model.predict(items[start : start + AT_ONCE], [query]):
            yield answer.mask if answer.status == "answered" else None


def _errors(key: tuple[str, str, str], counts: NDArray[np.int64], data: str) -> SceneErrors:
    scene, sensor, target = key
    hits, misses, false_alarms, rejections = counts.tolist()
    return SceneErrors(
        scene=scene,
        sensor=sensor,
        target=target,
        hits=hits,
        misses=misses,
        false_alarms=false_alarms,
        rejections=rejections,
        data=data,
    )
