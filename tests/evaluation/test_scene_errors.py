"""Maps of held-out scenes are counted against what people know; a place is one scene, unknown ground counts nowhere."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from earthmap.evaluation import LOOKS, Batch, count_errors, draw_batch, measure_errors, real_scenes
from earthmap.metrics.model_based import NoInterval, model_based
from earthmap.model.card import Card, read_card, write_card
from earthmap.model.evidence import SceneErrors
from earthmap.predict import SpectralPredictor
from earthmap.predict.held_out import SPECTRAL_ERRORS, read_errors, write_errors
from earthmap.synthetic import CLASSES
from earthmap.tasks.answer import UNSEEN
from jobs.evaluate_real import MADE

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.mark.real
def test_the_table_of_spectral_is_made_again_from_the_scenes(real_data: Path, tmp_path: Path) -> None:
    scenes = list(real_scenes(real_data, ["flood", "desert", "slovenia"]))
    spectral = SpectralPredictor()
    found = measure_errors(scenes, model=spectral)
    write_errors(tmp_path / "table.json", predictor="spectral", key=spectral.key, made=MADE, scenes=found)
    assert (tmp_path / "table.json").read_bytes() == SPECTRAL_ERRORS.read_bytes()
    others = [scene for scene in real_scenes(real_data, ["river", "tornado", "cloud", "patches"]) if scene.known]
    assert others == [], "an index, another model's map and labels without a place are no truth of a map"


@pytest.mark.real
def test_dates_and_tiles_of_one_place_are_one_scene(real_data: Path) -> None:
    scenes = list(real_scenes(real_data, ["slovenia", "flood"]))
    found = measure_errors(scenes, model=SpectralPredictor(), sensors={"sentinel-2-l1c"})
    assert {(one.scene, one.sensor) for one in found} == {("Slovenia", "sentinel-2-l1c"), ("flood", "sentinel-2-l1c")}
    assert len({(one.scene, one.target) for one in found}) == len(found)
    (water,) = (one for one in found if (one.scene, one.target) == ("flood", "water"))
    known = sum(int((mask != UNSEEN).sum()) for mask in scenes[-1].known["water"])
    assert 0.9 * known < water.hits + water.misses + water.false_alarms + water.rejections <= known


WATER = CLASSES.index("water") + 1


def _truth(batch: Batch, tile: int) -> NDArray[np.uint8]:
    """(y, x) water on a drawn tile, where it can be seen."""
    wet = batch.tiles.cover[tile, 0].numpy() == WATER
    return np.where(batch.seen[tile, 0], wet, UNSEEN).astype(np.uint8)


def test_counts_are_those_by_hand() -> None:
    batch, model = draw_batch(LOOKS[0], 6), SpectralPredictor()
    true = tuple(_truth(batch, tile) for tile in range(6))
    of = {
        name: count_errors(batch.items, tuple(np.full_like(one, code) for one in true), "water", model=model).tolist()
        for name, code in (("hidden", UNSEEN), ("none", 0), ("every", 1))
    }
    whole = count_errors(batch.items, true, "water", model=model).tolist()
    assert of["hidden"] == [0, 0, 0, 0]
    assert of["none"][:2] == of["every"][2:] == [0, 0]
    assert of["every"][:2] == of["none"][2:], "mapped as water: hits where all is, false alarms where nothing is"
    assert whole[0] + whole[2] <= of["none"][2]
    assert sum(whole) <= sum(of["none"])


def _drawn_errors(count: int) -> list[SceneErrors]:
    """Water on drawn tiles, each a place of its own, by the thresholds."""
    batch, spectral = draw_batch(LOOKS[0], count), SpectralPredictor()
    found = []
    for tile in range(count):
        counts = count_errors((batch.items[tile],), (_truth(batch, tile),), "water", model=spectral).tolist()
        names = ("hits", "misses", "false_alarms", "rejections")
        found.append(
            SceneErrors(
                scene=f"drawn {tile}", sensor="sentinel-2-l2a", target="water", data="drawn",
                **dict(zip(names, counts, strict=True)),
            )
        )  # fmt: skip
    return found


@pytest.mark.slow
def test_thresholds_on_held_out_drawn_tiles_tell_intervals_by_way_of_a_card(tmp_path: Path) -> None:
    """Real rules on drawn places: 200 areas, each with the errors on twenty-four others, out of sixty-four tiles."""
    write_card(Card(errors=tuple(_drawn_errors(64))), tmp_path)
    kept = [one for one in read_card(tmp_path).current_errors if one.hits + one.misses + one.rejections > 1000]
    random, told = np.random.default_rng(0), defaultdict(list)
    for _ in range(200):
        area, *scenes = (kept[number] for number in random.permutation(len(kept))[:25])
        whole = area.hits + area.misses + area.false_alarms + area.rejections
        found = model_based(scenes, (area.hits + area.false_alarms) / whole)
        if isinstance(found, NoInterval):
            assert "of 8 that are needed" in found.reason
            continue
        truth = (area.hits + area.misses) / whole
        told["covered"].append(found.low - 1e-3 <= truth <= found.high + 1e-3)
        told["width"].append(found.high - found.low)
    assert len(told["covered"]) > 150
    assert 0.85 <= np.mean(told["covered"]) <= 0.97
    assert np.mean(told["width"]) < 0.15


def test_a_file_comes_back(tmp_path: Path) -> None:
    table = read_errors(SPECTRAL_ERRORS)
    write_errors(tmp_path / "again.json", predictor="spectral", key=str(table.key), made=MADE, scenes=table.scenes)
    assert read_errors(tmp_path / "again.json") == table
