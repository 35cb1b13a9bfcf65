"""Intervals from the errors on other scenes: corrected, honest about few scenes, and as wide as they must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from earthmap.errors import BadRequestError
from earthmap.metrics.model_based import ModelBased, NoInterval, model_based
from earthmap.model.card import Card, read_card, write_card
from earthmap.model.evidence import SceneErrors

ABOUT = {"sensor": "sentinel-2-l2a", "target": "water", "data": "drawn"}


def _scene(name: str, truth: np.ndarray, mapped: np.ndarray) -> SceneErrors:
    return SceneErrors(
        **ABOUT,
        scene=name,
        hits=int((truth & mapped).sum()),
        misses=int((truth & ~mapped).sum()),
        false_alarms=int((~truth & mapped).sum()),
        rejections=int((~truth & ~mapped).sum()),
    )


def _even(name: str, *, found: float, taken: float, share: float = 0.3) -> SceneErrors:
    class_px, other_px = round(10_000 * share), round(10_000 * (1 - share))
    hits, alarms = round(found * class_px), round(taken * other_px)
    return SceneErrors(
        **ABOUT, scene=name, hits=hits, misses=class_px - hits, false_alarms=alarms, rejections=other_px - alarms
    )  # fmt: skip


def _some(count: int = 10, *, spread: float = 0.02, share: float = 0.3) -> list[SceneErrors]:
    leans = np.linspace(-spread, spread, count)
    return [_even(f"s{i}", found=0.8 + lean, taken=0.1 + lean, share=share) for i, lean in enumerate(leans)]


def test_equal_errors_everywhere_are_undone_exactly_whatever_the_prevalence() -> None:
    scenes = [_even(f"s{i}", found=0.8, taken=0.1, share=share) for i, share in enumerate(np.linspace(0.05, 0.9, 9))]
    for share in (0.0, 0.02, 0.5, 1.0):
        found = model_based(scenes, 0.8 * share + 0.1 * (1 - share))
        assert isinstance(found, ModelBased)
        assert (found.low, found.value, found.high) == pytest.approx((share, share, share), abs=2e-3)


def test_what_is_less_than_the_usual_false_alarms_may_be_nothing() -> None:
    found = model_based(_some(), 0.07)
    assert isinstance(found, ModelBased)
    assert (found.low, found.value) == (0.0, 0.0)
    assert found.high < 0.1


def test_scenes_that_differ_more_and_fewer_scenes_give_wider_intervals() -> None:
    widths = []
    for scenes in (_some(40), _some(8), _some(8, spread=0.08)):
        found = model_based(scenes, 0.4)
        assert isinstance(found, ModelBased)
        widths.append(found.high - found.low)
    assert widths[0] < widths[1] < widths[2]


def test_the_order_of_scenes_means_nothing() -> None:
    assert model_based(_some(), 0.4) == model_based(_some()[::-1], 0.4)


@pytest.mark.parametrize(
    ("scenes", "reason"),
    [
        ([], "no evidence with the class"),
        (_some(7), "7 held-out scenes with the class, of 8 that are needed"),
        (_some(9, share=0.0), "no evidence with the class"),
        (_some(9, share=1.0), "no evidence with ground that is not the class"),
        ([_even(f"s{i}", found=0.4 + i / 40, taken=0.6 - i / 40) for i in range(9)], "as often where it is not"),
    ],
)
def test_there_is_no_interval_without_evidence_and_the_reason_is_given(scenes: list[SceneErrors], reason: str) -> None:
    found = model_based(scenes, 0.3)
    assert isinstance(found, NoInterval)
    assert reason in found.reason


def test_nonsense_is_refused() -> None:
    with pytest.raises(BadRequestError, match="mapped share"):
        model_based(_some(), 1.5)
    with pytest.raises(BadRequestError, match="twice"):
        model_based([*_some(), *_some()], 0.5)
    with pytest.raises(BadRequestError, match="below nought"):
        SceneErrors(**ABOUT, scene="s", hits=-1, misses=0, false_alarms=0, rejections=0)


SIDE_PX = 96


def _smooth(random: np.random.Generator, width_px: int) -> np.ndarray:
    from scipy.ndimage import uniform_filter

    field = random.standard_normal((SIDE_PX, SIDE_PX))
    for _ in range(2):
        field = uniform_filter(field, width_px, mode="wrap")
    scaled: np.ndarray = field / field.std()
    return scaled


def _drawn(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A scene's truth, and what a predictor that is a little off, at borders and from scene to scene, makes of it."""
    field = _smooth(random, int(random.integers(8, 25)))
    edge = np.quantile(field, 1 - random.uniform(0.02, 0.6))
    truth = field > edge
    mapped = field + 0.2 * _smooth(random, 3) > edge + 0.1 + random.normal(0, 0.12)
    anywhere = random.random(truth.shape) < random.beta(2, 60)
    return truth, np.where(anywhere, ~mapped, mapped)


def test_90_percent_intervals_cover_200_held_out_areas(tmp_path: Path) -> None:
    """The scenes' errors go through a card and back, as a run finds them."""
    random = np.random.default_rng(0)
    scenes, areas = [], []
    for area in range(200):
        scenes += [_scene(f"{area} s{number}", *_drawn(random)) for number in range(12)]
        areas.append(_drawn(random))
    write_card(Card(errors=tuple(scenes)), tmp_path)
    kept = read_card(tmp_path).current_errors
    assert kept == tuple(scenes)
    covered, widths, alone = [], [], []
    for area, (truth, mapped) in enumerate(areas):
        found = model_based(kept[12 * area : 12 * area + 12], float(mapped.mean()))
        assert isinstance(found, ModelBased)
        covered.append(found.low <= truth.mean() <= found.high)
        widths.append(found.high - found.low)
        alone.append(abs(float(mapped.mean()) - float(truth.mean())))
    assert 0.85 <= np.mean(covered) <= 0.95
    assert 2 * np.mean(alone) < np.mean(widths) < 0.3
