"""The spectral predictor on drawn ground with known truth."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from earthmap.errors import JobError
from earthmap.grid.tiling import Grid, Tile, Zone
from earthmap.predict import Picture, SpectralPredictor, TileInput, build_predictor
from earthmap.predict.rules import BAND_NAMES, PRECEDENCE, RULES, SYMBOLS
from earthmap.predict.spectral import _Look, mean_filter
from earthmap.sensors.masks import Reason
from earthmap.tasks import TARGETS, make_query

GRID = Grid(resolution_m=10, picture_px=128)
TILE = Tile(GRID, Zone(31, True), 500, 40)
HALO, SIDE = GRID.halo_px, GRID.picture_px
OPTICAL = ("blue", "green", "red", "nir", "swir16", "swir22")
SPECTRA: Mapping[str, tuple[float, ...]] = {
    "water": (0.05, 0.06, 0.04, 0.02, 0.01, 0.01),
    "vegetation": (0.03, 0.06, 0.04, 0.35, 0.17, 0.08),
    "bare": (0.12, 0.18, 0.24, 0.32, 0.41, 0.35),
    "built-up": (0.13, 0.15, 0.16, 0.18, 0.22, 0.21),
    "snow": (0.80, 0.82, 0.82, 0.79, 0.10, 0.09),
    "burnt": (0.03, 0.04, 0.05, 0.08, 0.15, 0.16),
}


def painted(classes: NDArray[np.intp]) -> NDArray[np.float32]:
    """(band, y, x) reflectance of OPTICAL from (y, x) indices into TARGETS."""
    table = np.array([SPECTRA[target] for target in TARGETS], np.float32)
    return np.moveaxis(table[classes], -1, 0)


def picture(
    data: NDArray[np.float32], bands: Sequence[str] = OPTICAL, sensor: str = "optical-reflectance", day: int = 1
) -> Picture:
    return Picture(
        sensor=sensor,
        observation=f"{sensor}_{day}",
        datetime=datetime.datetime(2024, 6, day, tzinfo=datetime.UTC),
        bands=tuple(bands),
        data=data.astype(np.float32),
        mask=np.full(data.shape[1:], int(Reason.CLEAR), np.uint8),
    )


def ask(question: str, *pictures: Picture, **options: object):  # type: ignore[no-untyped-def]
    query = make_query(question, **options)  # type: ignore[arg-type]
    return SpectralPredictor().predict([TileInput(tile=TILE, pictures=pictures)], [query])[0][0]


def stripes() -> NDArray[np.intp]:
    return (np.arange(SIDE)[:, None] // 4 % len(TARGETS)).repeat(SIDE, 1)


def core(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array[..., HALO : SIDE - HALO, HALO : SIDE - HALO]


def test_every_class_is_told_from_every_other() -> None:
    classes = stripes()
    answer = ask("Map water, trees, bare soil, buildings, snow and burnt ground", picture(painted(classes)))
    assert answer.status == "answered"
    assert answer.fraction == 1.0
    np.testing.assert_array_equal(answer.mask, core(classes) + 1)
    assert answer.seen_px == GRID.core_px**2
    assert answer.probability is None
    for target in TARGETS:
        share = ask("how much", picture(painted(classes)), task="fraction", targets=[target])
        truth = (core(classes) == TARGETS.index(target)).mean()
        assert share.value == f"{truth:.4f}"
        assert share.fraction == pytest.approx(truth)


def test_presence_wants_four_joined_pixels_even_across_the_core_border() -> None:
    classes = np.full((SIDE, SIDE), TARGETS.index("bare"))
    assert ask("Is there water?", picture(painted(classes))).value == "no"
    classes[HALO - 3 : HALO + 1, 60] = 0
    answer = ask("Is there water?", picture(painted(classes)))
    assert (answer.value, answer.fraction > 0) == ("yes", True)
    classes[HALO - 3 : HALO, 60] = 2
    assert ask("Is there water?", picture(painted(classes))).value == "no"


def test_change_draws_gained_and_lost() -> None:
    before, after = np.full((2, SIDE, SIDE), TARGETS.index("vegetation"))
    after[40:60, 40:60] = TARGETS.index("water")
    before[80:90, 80:90] = TARGETS.index("water")
    dates = picture(painted(before)), picture(painted(after), day=2)
    water = ask("Where did water appear?", *dates)
    assert dict(water.legend) == {1: "water gained", 2: "water lost"}
    assert water.value == "water gained"
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[40:60, 40:60], expected[80:90, 80:90] = 1, 2
    np.testing.assert_array_equal(water.mask, core(expected))
    swapped = ask("Where did water appear?", *dates[::-1])
    np.testing.assert_array_equal(swapped.mask, core(np.array([0, 2, 1], np.uint8)[expected]))
    assert ask("What changed?", dates[0], dates[0]).value == "none"


@settings(max_examples=10)
@given(classes=arrays(np.intp, (2, 8, 8), elements=st.integers(0, len(TARGETS) - 1)), order=st.permutations(TARGETS))
def test_what_was_gained_is_what_is_lost_with_swapped_dates(classes: NDArray[np.intp], order: list[str]) -> None:
    """Of several targets too, one of which became another."""
    dates = [picture(painted(np.kron(one, np.ones((16, 16), np.intp))), day=1 + day) for day, one in enumerate(classes)]
    there, back = (ask("What changed?", *pair, targets=order[:3]) for pair in (dates, dates[::-1]))
    assert there.legend == back.legend
    ways = {code: name.rpartition(" ") for code, name in there.legend.items()}
    for code, (target, _, way) in ways.items():
        other = next(c for c, (name, _, turned) in ways.items() if (name, turned) != (target, way) and name == target)
        np.testing.assert_array_equal(there.mask == code, back.mask == other)
    assert there.orders_agree == back.orders_agree == 1.0


def test_unseen_ground_is_neither_yes_nor_no() -> None:
    view = picture(painted(stripes()))
    view.mask[:64] = int(Reason.CLOUD)
    view.mask[64:70] = int(Reason.SHADOW)
    view.data[1, 100:110] = np.nan
    answer = ask("Where is water?", view)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[:64] = expected[100:110] = True
    np.testing.assert_array_equal(answer.mask == 255, core(expected))
    assert "shadow counted as seen" in answer.notes
    assert "water: MNDWI > 0.1 and NDVI < 0.2" in answer.notes
    assert "cloud counted as seen" not in answer.notes
    view.mask[90] = int(Reason.UNKNOWN)
    unclassed = ask("Where is water?", view).notes
    assert "unknown counted as seen" in unclassed
    assert "no cloud mask" not in unclassed, "a few pixels without a class are no missing mask"
    view.mask[:] = int(Reason.CLOUD)
    assert ask("Where is water?", view).reason == "cloud"
    view.data[:] = np.nan
    view.mask[:] = int(Reason.CLEAR)
    assert (ask("Is there water?", view).status, ask("Is there water?", view).reason) == ("skipped", "nodata")


def test_what_cannot_be_told_is_skipped_with_its_reason() -> None:
    data = painted(stripes())
    rgb = picture(data[[2, 1, 0]] * 255, ("red", "green", "blue"), "optical-uncalibrated")
    four = picture(data[[2, 1, 0, 3]] * 255, ("red", "green", "blue", "nir"), "optical-uncalibrated")
    sar = picture(np.full((2, SIDE, SIDE), 0.1), ("vv", "vh"), "sentinel-1-rtc")
    assert ask("Is there water?", rgb).reason == "missing_band"
    assert "nir or nir08" in ask("Is there water?", rgb).message
    assert ask("Is there snow?", four).reason == "uncalibrated"
    assert ask("Where are the buildings?", sar).reason == "not_supported"
    assert ask("Where did water appear?", four, sar).reason == "unlike_sensors"
    water = ask("Where is water?", four)
    assert water.status == "answered"
    assert "uncalibrated" in water.notes
    changed = ask("What changed?", rgb, rgb)
    assert (changed.status, changed.value) == ("answered", "none")
    assert "water not answered: missing_band" in changed.notes
    assert "bare not answered: uncalibrated" in changed.notes
    assert ask("Is there water or snow?", four).reason == "uncalibrated"


@given(st.floats(0.2, 4))
def test_uncalibrated_answers_do_not_depend_on_a_common_gain(gain: float) -> None:
    names = ("red", "green", "blue", "nir")
    data = painted(stripes())[[2, 1, 0, 3]] * 60
    one = ask("Where are water and trees?", picture(data, names, "optical-uncalibrated"))
    other = ask("Where are water and trees?", picture(data * np.float32(gain), names, "optical-uncalibrated"))
    np.testing.assert_array_equal(one.mask, other.mask)


def test_sar_water_is_averaged_in_linear_power() -> None:
    rng = np.random.default_rng(3)
    sigma = np.full((SIDE, SIDE), 10**-0.9)
    sigma[40:80, 40:80] = 10**-2.0
    looks = np.stack([sigma, sigma / 6]) * rng.gamma(4, 1 / 4, (2, SIDE, SIDE))
    answer = ask("Where is water?", picture(looks, ("vv", "vh"), "sentinel-1-rtc"))
    truth = core(np.pad(np.ones((40, 40), bool), ((40, SIDE - 80),) * 2))
    found = answer.mask == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.8


def test_a_broken_picture_costs_its_tile_only() -> None:
    good, endless = picture(painted(stripes())), picture(painted(stripes()))
    endless.data[0, 5, 5] = np.inf
    narrow = picture(painted(stripes())[:, :50])
    inputs = [TileInput(tile=TILE, pictures=(view,)) for view in (good, endless, narrow)]
    queries = [make_query("Where is water?"), make_query("Is there snow?")]
    rows = SpectralPredictor().predict(inputs, queries)
    assert [[answer.status for answer in row] for row in rows] == [["answered"] * 2, ["failed"] * 2, ["failed"] * 2]
    assert {answer.stage for answer in rows[1] + rows[2]} == {"predict"}
    assert ask("What changed?", good).status == "failed"


@pytest.mark.parametrize(
    ("bands", "sensor", "low", "high"),
    [(OPTICAL, "optical-reflectance", 0, 1), (("red", "green", "blue", "nir"), "optical-uncalibrated", 0, 255),
     (("vv", "vh"), "sentinel-1-rtc", 0.001, 0.2)],
)  # fmt: skip
@given(seed=st.integers(0, 2**32 - 1), down=st.integers(0, 16), right=st.integers(0, 16))
def test_an_answer_does_not_depend_on_where_the_picture_begins(
    bands: tuple[str, ...], sensor: str, low: float, high: float, seed: int, down: int, right: int
) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(low, high, (len(bands), 24, 24)).repeat(6, 1).repeat(6, 2)
    ground = (coarse * rng.uniform(0.9, 1.1, coarse.shape)).astype(np.float32)
    ground[:, rng.uniform(size=ground.shape[1:]) < 0.01] = np.nan

    def mask_from(top: int, left: int) -> NDArray[np.uint8]:
        data = ground[:, top : top + SIDE, left : left + SIDE].copy()
        mask: NDArray[np.uint8] = ask("Where is water?", picture(data, bands, sensor)).mask
        return mask

    here, there = mask_from(0, 0), mask_from(down, right)
    size = GRID.core_px
    np.testing.assert_array_equal(here[down:, right:], there[: size - down, : size - right])


@given(arrays(np.float32, (9, 9), elements=st.one_of(st.floats(0, 1, width=32), st.just(np.nan))))
def test_mean_filter_is_the_mean_of_what_is_valid(image: NDArray[np.float32]) -> None:
    result = mean_filter(image, 5)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(image))
    if np.isfinite(image[4, 4]):
        assert result[4, 4] == pytest.approx(np.nanmean(image[2:7, 2:7]), rel=1e-5, abs=1e-7)
    if np.isfinite(image[0, 0]):
        assert result[0, 0] == pytest.approx(np.nanmean(image[:3, :3]), rel=1e-5, abs=1e-7)


def test_the_table_agrees_with_spyndex() -> None:
    import spyndex

    formulas = {"MNDWI": "(G-S1)/(G+S1)", "NDVI": "(N-R)/(N+R)", "PISI": "0.8192*B-0.5735*N+0.0750"}
    for name, formula in formulas.items():
        assert spyndex.indices[name].formula == formula
    for name, symbols in SYMBOLS.items():
        if name not in BAND_NAMES:
            assert set(spyndex.indices[name].bands) == set(symbols)
    assert {rule.target for rule in RULES} == set(TARGETS) == set(PRECEDENCE)
    assert all(rule.source for rule in RULES)


@pytest.mark.parametrize("index", sorted(name for name in SYMBOLS if name not in BAND_NAMES))
def test_an_index_is_what_spyndex_computes(index: str) -> None:
    import spyndex

    data = np.random.default_rng(4).uniform(0.001, 1, (len(OPTICAL), 20, 20)).astype(np.float32)
    look = _Look(picture(data), OPTICAL)
    bands = {symbol: look.band(symbol) for symbol in SYMBOLS[index]}
    np.testing.assert_array_equal(look._value(index, 1), spyndex.computeIndex(index, bands))


def test_keys_and_building() -> None:
    assert build_predictor({"name": "spectral"}) is build_predictor({"name": "spectral"})
    assert build_predictor({"name": "spectral"}).key == SpectralPredictor().key
    for spec in ({"name": "vlm"}, {"name": "magic"}, {}, {"name": "spectral", "speed": 1}, {"name": "oracle"}):
        with pytest.raises(JobError):
            build_predictor(spec)
