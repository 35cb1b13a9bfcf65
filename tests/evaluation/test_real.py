"""Real scenes are cut, labelled and scored as they should be; `spectral` goes the whole way on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from earthmap.errors import StorageError
from earthmap.evaluation import GROUPS, Scene, mark, measure_scene, real_scenes
from earthmap.evaluation.real import change_exams, cut, ground_exams
from earthmap.predict import SpectralPredictor
from earthmap.tasks.answer import UNSEEN


def test_tiles_beyond_the_edge_are_filled() -> None:
    plane = np.arange(2 * 130 * 140, dtype=np.float32).reshape(2, 130, 140)
    part = cut(plane, (64, 128), fill=-1.0)
    assert part.shape == (2, 128, 128)
    np.testing.assert_array_equal(part[:, :66, :12], plane[:, 64:, 128:])
    assert (part[:, 66:] == -1.0).all()


def test_ground_that_nobody_knows_is_not_asked_about() -> None:
    whole, none = np.ones((128, 128), np.uint8), np.zeros((128, 128), np.uint8)
    hidden = np.full((128, 128), UNSEEN, np.uint8)
    trace = none.copy()
    trace[0, :3] = 1
    presence, fraction, segment = ground_exams("water", [whole, none, hidden, trace], outline=True)
    assert presence.truths == {0: "yes", 1: "no"}
    assert fraction.truths == {0: 1.0, 1: 0.0, 3: pytest.approx(3 / 128**2)}
    assert list(segment.truths) == [0]
    assert [list(exam.truths) for exam in change_exams("water", [none, trace, whole])] == [[2], [2]]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no real scenes"):
        list(real_scenes(tmp_path))
    with pytest.raises(StorageError, match="moon is no group"):
        list(real_scenes(tmp_path, ["moon"]))


@pytest.mark.real
def test_every_scene_is_whole(real_data: Path) -> None:
    scenes = list(real_scenes(real_data, [name for name in GROUPS if name not in ("pairs", "harbour")]))
    assert all(item.fault is None for scene in scenes for item in scene.items)
    assert all(len(scene.items) == len(scene.places) for scene in scenes)
    assert all(max(exam.truths, default=0) < len(scene.items) for scene in scenes for exam in scene.exams)
    assert {item.side_px for scene in scenes for item in scene.items} == {128}
    sensors = {picture.sensor for scene in scenes for item in scene.items for picture in item.pictures}
    assert sensors == {
        "sentinel-2-l1c", "sentinel-2-l2a", "sentinel-1-db", "landsat-c2-l2", "optical-uncalibrated",
    }  # fmt: skip


def _flood(real_data: Path) -> list[Scene]:
    return list(real_scenes(real_data, ["flood"]))


@pytest.mark.real
def test_spectral_beats_the_constant_on_the_flood(real_data: Path) -> None:
    spectral = SpectralPredictor()
    scenes = _flood(real_data)
    rows = mark(paper for scene in scenes for paper in measure_scene(scene, model=spectral, spectral=spectral))
    found = {(row.task, row.sensors, row.bands): row for row in rows}
    optical = found["segment", ("sentinel-2-l1c",), ()]
    assert optical.figure.score > 0.6
    assert optical.figure.is_supported
    radar = found["fraction", ("sentinel-1-db",), ()].figure
    assert radar.low > radar.constant
    assert not found["presence", ("sentinel-1-db",), ()].is_evidence, "water is everywhere in it"
    plain = found["segment", ("sentinel-2-l1c",), ("red", "green", "blue")]
    assert plain.figure.spectral is None, "no rule finds water in red, green and blue"
