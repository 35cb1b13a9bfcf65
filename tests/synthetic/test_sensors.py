"""Drawn pixels carry the ground: by published thresholds most of the truth can be read back, not all of it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from earthmap.synthetic import SENSORS, Layer, World, demo_world, plan_scenes, small_world, truth_on
from earthmap.synthetic.sensors import S2_OFFSET, S2_SCALE, coarser, ground_noise
from earthmap.synthetic.spectra import S2_BANDS
from earthmap.synthetic.truth import OUTSIDE
from tests.worlds import cropped


def middle(world: World, side_px: int = 600) -> GeoBox:
    scene = plan_scenes(world, sensors=("sentinel-2",), columns=1)[0]
    height, width = scene.geobox.shape
    top, left = (height - side_px) // 12 * 6, (width - side_px) // 12 * 6
    return cropped(scene.geobox, (top, top + side_px), (left, left + side_px))


def drawn(world: World, sensor: str, date: str) -> dict[str, Layer]:
    return {layer.name: layer for layer in SENSORS[sensor].draw(world, middle(world), getattr(world, date))}


def reflectance(layer: Layer) -> NDArray[np.float64]:
    return np.asarray(layer.data[0] * S2_SCALE + S2_OFFSET)


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return (one - other) / (one + other)


def agreement(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((found & truth).sum() / (found | truth).sum())


def test_water_in_optical_is_found_by_its_indices() -> None:
    world = demo_world()
    layers = drawn(world, "sentinel-2", "before")
    box = middle(world)
    green, nir = reflectance(layers["B03"]), reflectance(layers["B08"])
    truth = truth_on(world, box, world.before) == 1
    assert 0.85 < agreement(difference(green, nir) > 0.0, truth) < 0.999
    green20 = green.reshape(300, 2, 300, 2).mean((1, 3))
    truth20 = truth_on(world, coarser(box, 2), world.before)
    swir = reflectance(layers["B11"])
    mndwi = difference(green20, swir) > 0.2
    assert agreement(mndwi & (green20 < 0.3), truth20 == 1) > 0.8
    nir20, swir22 = reflectance(layers["B8A"]), reflectance(layers["B12"])
    assert agreement((difference(nir20, swir22) < -0.1) & (green20 < 0.1) & ~mndwi, truth20 == 6) > 0.6
    assert agreement(difference(nir, reflectance(layers["B04"])) > 0.5, truth_on(world, box, world.before) == 2) > 0.9


def test_snow_is_bright_in_green_and_dark_in_the_short_wave_infrared() -> None:
    world = demo_world()
    scene = plan_scenes(world, sensors=("sentinel-2",), columns=1)[0]
    height, width = scene.geobox.shape
    box = cropped(scene.geobox, (height - 600, height), (width - 600, width))
    layers = {layer.name: layer for layer in SENSORS["sentinel-2"].draw(world, box, world.before)}
    green = reflectance(layers["B03"]).reshape(300, 2, 300, 2).mean((1, 3))
    found = (difference(green, reflectance(layers["B11"])) > 0.4) & (green > 0.3)
    assert agreement(found, truth_on(world, coarser(box, 2), world.before) == 5) > 0.9


def test_water_in_radar_is_dark_after_a_mean() -> None:
    from scipy.ndimage import uniform_filter

    world = demo_world()
    for date in ("before", "after"):
        layers = drawn(world, "sentinel-1", date)
        truth = truth_on(world, middle(world), getattr(world, date)) == 1
        power = 10.0 ** (layers["vv"].data[0] / 10.0)
        found = 10.0 * np.log10(uniform_filter(power, 5)) < -16.0
        assert 0.6 < agreement(found, truth) < 0.995
        assert (layers["vh"].data < layers["vv"].data).mean() > 0.9


def test_speckle_has_the_moments_of_five_looks() -> None:
    world = demo_world()
    power = 10.0 ** (ground_noise(world, middle(world), 1, kind="speckle") / 10.0)
    assert power.mean() == pytest.approx(1.0, abs=0.01)
    assert power.var() == pytest.approx(0.2, abs=0.01)
    normal = ground_noise(world, middle(world), 1)
    assert normal.mean() == pytest.approx(0.0, abs=0.01)
    assert normal.std() == pytest.approx(1.0, abs=0.01)
    neighbours = np.corrcoef(normal[:, 1:].ravel(), normal[:, :-1].ravel())[0, 1]
    below = np.corrcoef(normal[1:].ravel(), normal[:-1].ravel())[0, 1]
    other = np.corrcoef(normal.ravel(), ground_noise(world, middle(world), 2).ravel())[0, 1]
    assert max(abs(neighbours), abs(below), abs(other)) < 0.01


@pytest.mark.parametrize("sensor", sorted(SENSORS))
@pytest.mark.parametrize("place", [(3.5, 45.7), (180.0, -17.0)], ids=["europe", "fiji"])
def test_a_part_is_drawn_as_in_the_whole(sensor: str, place: tuple[float, float]) -> None:
    world = small_world(3, place=place)
    box = plan_scenes(world, sensors=(sensor,), columns=1)[0].geobox
    rows, columns = (60, 180), (36, 216)
    part = cropped(box, rows, columns)
    whole, cut = (SENSORS[sensor].draw(world, each, world.after) for each in (box, part))
    for large, small in zip(whole, cut, strict=True):
        step = box.shape[0] // large.data.shape[1]
        inner = large.data[:, rows[0] // step : rows[1] // step, columns[0] // step : columns[1] // step]
        np.testing.assert_array_equal(inner, small.data, err_msg=large.name)


def test_bands_lie_at_their_own_pixels() -> None:
    world = small_world()
    box = plan_scenes(world, sensors=("sentinel-2",), columns=1)[0].geobox
    layers = {layer.name: layer for layer in SENSORS["sentinel-2"].draw(world, box, world.after)}
    assert tuple(layers)[:-1] == S2_BANDS
    for name, pixel in (("B02", 10), ("B8A", 20), ("SCL", 20), ("B01", 60), ("B09", 60)):
        assert layers[name].geobox.resolution.x == pixel
        assert layers[name].data.shape[1:] == tuple(layers[name].geobox.shape)


def test_beyond_the_world_is_nodata() -> None:
    world = small_world(3, place=(6.0, 45.0))  # two zones: the western scene is turned against the world
    scene = plan_scenes(world, sensors=("sentinel-2",))[0]
    outside = truth_on(world, scene.geobox, world.before) == OUTSIDE
    assert 0.01 < outside.mean() < 0.5
    layers = {layer.name: layer for layer in SENSORS["sentinel-2"].draw(world, scene.geobox, world.before)}
    np.testing.assert_array_equal(layers["B04"].data[0] == 0, outside)
    (vv, _) = SENSORS["sentinel-1"].draw(world, scene.geobox, world.before)
    np.testing.assert_array_equal(np.isnan(vv.data[0]), outside)


def test_clouds_hide_and_are_classed() -> None:
    world = demo_world()
    before, after = drawn(world, "sentinel-2", "before")["SCL"].data, drawn(world, "sentinel-2", "after")["SCL"].data
    assert not np.isin(before, (3, 8, 9, 10)).any()
    assert all((after == code).any() for code in (2, 3, 8, 9, 10))
    blue = drawn(world, "sentinel-2", "after")["B02"].data[0].reshape(300, 2, 300, 2).mean((1, 3))
    assert blue[after[0] == 9].mean() > 2 * blue[after[0] == 4].mean()
