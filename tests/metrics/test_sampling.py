"""Stratified samples of pixels: what is drawn, how much of it, and with which chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import BadRequestError
from earthmap.metrics.sampling import (
    BOUNDARY,
    MINIMUM,
    OUTSIDE,
    SKIPPED,
    StratifiedDraw,
    allocate,
    boundary_strata,
)


def _codes(random: np.random.Generator, side: int = 40) -> np.ndarray:
    codes = random.choice([0, 1, 2, OUTSIDE], size=(side // 4, side // 4), p=[0.6, 0.2, 0.1, 0.1])
    return np.kron(codes, np.ones((4, 4), int)).astype(np.uint8)


@given(st.integers(0, 2**32))
def test_the_boundary_is_what_has_another_class_within_two_pixels(seed: int) -> None:
    codes = _codes(np.random.default_rng(seed), side=24)
    strata = boundary_strata(codes)
    for row, column in np.ndindex(codes.shape):
        around = codes[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        others = set(around[around != OUTSIDE].tolist()) - {int(codes[row, column])}
        expected = BOUNDARY if others and codes[row, column] != OUTSIDE else codes[row, column]
        assert strata[row, column] == expected


@given(
    st.dictionaries(st.sampled_from([0, 1, 2, 3, BOUNDARY, SKIPPED]), st.integers(1, 5000), min_size=1),
    st.integers(1, 600),
)
def test_each_stratum_has_its_minimum_and_the_total_is_kept(sizes: dict[int, int], total: int) -> None:
    drawn = allocate({key: size * 1.5 for key, size in sizes.items()}, sizes, total=total)
    least = {key: min(size, MINIMUM) for key, size in sizes.items()}
    assert all(least[key] <= drawn[key] <= size for key, size in sizes.items())
    assert sum(drawn.values()) == min(max(total, sum(least.values())), sum(sizes.values()))


def test_what_is_uncertain_is_drawn_more_often_than_its_ground_says() -> None:
    areas, sizes = {0: 900.0, BOUNDARY: 100.0}, {0: 90_000, BOUNDARY: 10_000}
    drawn = allocate(areas, sizes, total=1000)
    assert drawn[BOUNDARY] / drawn[0] > 1.5 * areas[BOUNDARY] / areas[0]


def _draw(blocks: dict[str, np.ndarray], *, seed: int, total: int = 120) -> StratifiedDraw:
    draw = StratifiedDraw(total=total, seed=seed)
    for name, codes in blocks.items():
        draw.add(name, boundary_strata(codes), codes, np.full(codes.shape, 100.0))
    return draw


@given(st.integers(0, 1000))
def test_a_seed_gives_one_sample_whatever_the_order_of_blocks(seed: int) -> None:
    random = np.random.default_rng(seed)
    blocks = {f"block {number}": _codes(random) for number in range(3)}
    ours = _draw(blocks, seed=seed)
    turned = _draw(dict(reversed(blocks.items())), seed=seed)
    units = ours.finish()
    assert units == turned.finish()
    assert len({(one.block, one.row, one.column) for one in units}) == len(units)
    for one in units:
        codes = blocks[one.block]
        assert one.stratum == boundary_strata(codes)[one.row, one.column] != OUTSIDE
        assert one.mapped == codes[one.row, one.column]
    assert sum(ours.sizes.values()) == sum(int((codes != OUTSIDE).sum()) for codes in blocks.values())
    assert ours.mapped.keys() == ours.areas.keys()
    for key, area in ours.areas.items():
        assert sum(ours.mapped[key].values()) == pytest.approx(area)


def test_another_seed_gives_another_sample() -> None:
    codes = np.zeros((60, 60), np.uint8)
    first, second = (_draw({"a": codes}, seed=seed).finish() for seed in (0, 1))
    assert first != second


def test_a_stratum_of_fewer_pixels_than_the_minimum_is_drawn_whole() -> None:
    codes = np.zeros((60, 60), np.uint8)
    codes[30:36, 30:36] = 1
    units = _draw({"a": codes}, seed=0, total=200).finish()
    inner = [one for one in units if one.stratum == 1]
    assert len(inner) == 4
    assert {one.inclusion for one in inner} == {1.0}


def test_the_chance_of_a_pixel_goes_with_its_ground() -> None:
    """Over many seeds pixels of double ground are drawn twice as often, and as often as is said."""
    area = np.where(np.arange(400).reshape(20, 20) % 2 == 0, 200.0, 100.0)
    strata = np.zeros((20, 20), np.uint8)
    large, said, count = 0, 0.0, 0
    for seed in range(150):
        draw = StratifiedDraw(total=30, seed=seed)
        draw.add("a", strata, strata, area)
        units = draw.finish()
        large += sum(one.area_m2 == 200.0 for one in units)
        said += sum(one.area_m2 / one.inclusion for one in units)
        count += len(units)
    assert large / count == pytest.approx(2 / 3, abs=0.02)
    assert said / 150 == pytest.approx(area.sum(), rel=1e-9)


def test_strata_may_be_left_out() -> None:
    codes = np.zeros((40, 40), np.uint8)
    codes[:, 20:] = SKIPPED
    draw = StratifiedDraw(total=100)
    draw.add("a", codes, codes, np.ones(codes.shape))
    assert {one.stratum for one in draw.finish(left_out=[SKIPPED])} == {0}
    assert {one.stratum for one in draw.finish()} == {0, SKIPPED}


@pytest.mark.parametrize(("total", "seed"), [(0, 0), (-5, 0), (10, -1)])
def test_nonsense_is_refused(total: int, seed: int) -> None:
    with pytest.raises(BadRequestError, match="a sample of"):
        StratifiedDraw(total=total, seed=seed)
