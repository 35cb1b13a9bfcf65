"""Drawn pictures measure what sensors measure: indices, backscatter, speckle, temperatures, masks and views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from earthmap.errors import SensorError
from earthmap.sensors.masks import Reason
from earthmap.sensors.registry import SENSORS
from earthmap.sensors.views import make_view
from earthmap.synthetic import Pictures, Tiles, draw_tiles, draw_views, ground_distances, measure, plan_tiles
from earthmap.synthetic.pictures import DRAWN
from earthmap.synthetic.radar import looks_of, speckle
from earthmap.synthetic.truth import BARE, BUILT_UP, BURNT, SNOW, VEGETATION, WATER


@pytest.fixture(scope="module")
def tiles() -> Tiles:
    return draw_tiles(plan_tiles(range(64), side_px=128))


def clear(tiles: Tiles) -> Tensor:
    """(tile, date, y, x) True away from clouds, shadows, edges of the swath, and edges between classes."""
    sky = tiles.sky
    plain = (sky.cloud == 0) & (sky.shade == 0) & (sky.cirrus == 0) & ~sky.beyond & (tiles.instances == 0)
    cover = tiles.cover
    same = torch.ones_like(plain)
    for down in (-2, 0, 2):
        for right in (-2, 0, 2):
            same &= cover == cover.roll((down, right), dims=(-2, -1))
    return plain & same


def values(pictures: Pictures, tiles: Tiles, code: int, *bands: str) -> list[Tensor]:
    """The clear pixels of a class in each band."""
    there = clear(tiles) & (tiles.cover == code)
    assert there.sum() > 500
    return [pictures.data[:, :, pictures.bands.index(band)][there] for band in bands]


def index(one: Tensor, other: Tensor) -> Tensor:
    return (one - other) / (one + other)


@pytest.mark.parametrize("sensor", ["sentinel-2-l2a", "optical-reflectance"])
def test_water_and_plants_have_their_indices(tiles: Tiles, sensor: str) -> None:
    pictures = measure(tiles, sensor)
    green, red, nir = values(pictures, tiles, WATER, "green", "red", "nir")
    assert (index(green, nir) > 0).float().mean() > 0.9
    assert (index(nir, red) < 0.2).float().mean() > 0.97
    green, red, nir = values(pictures, tiles, VEGETATION, "green", "red", "nir")
    assert (index(nir, red) > 0.3).float().mean() > 0.9
    assert (index(green, nir) < 0).float().mean() > 0.99
    red, nir = values(pictures, tiles, BARE, "red", "nir")
    assert (index(nir, red) < 0.45).float().mean() > 0.9
    red, nir = values(pictures, tiles, BUILT_UP, "red", "nir")
    assert index(nir, red).median() < 0.25  # gardens of a town are built-up where pixels are coarse, and green


def test_snow_soil_and_burnt_ground_have_their_indices(tiles: Tiles) -> None:
    pictures = measure(tiles, "sentinel-2-l2a")
    green, swir = values(pictures, tiles, SNOW, "green", "swir16")
    assert (index(green, swir) > 0.4).float().mean() > 0.97
    nir, swir = values(pictures, tiles, BURNT, "nir08", "swir22")
    assert (index(nir, swir) < 0.05).float().mean() > 0.9
    nir, swir = values(pictures, tiles, VEGETATION, "nir08", "swir22")
    assert (index(nir, swir) > 0.2).float().mean() > 0.9
    swir, nir = values(pictures, tiles, BARE, "swir16", "nir")
    assert (index(swir, nir) > 0).float().mean() > 0.85


def test_every_sensor_of_the_table_is_drawn() -> None:
    assert set(DRAWN) == set(SENSORS)
    for sensor, row in SENSORS.items():
        low, high = ground_distances(sensor)
        assert low <= high <= row.coarsest_m
        tiles = draw_tiles(plan_tiles(range(4), side_px=32, dates=2, gsd_m=(low, high)))
        pictures = measure(tiles, sensor)
        assert set(pictures.bands) <= set(row.bands)
        assert pictures.data.shape == (4, 2, len(pictures.bands), 32, 32)
        assert pictures.data.dtype == torch.float32
        assert pictures.mask.dtype == torch.uint8
        beyond = tiles.sky.beyond[:, :, None].expand_as(pictures.data)
        assert torch.equal(pictures.data.isnan(), beyond)
        assert (pictures.mask[tiles.sky.beyond] == Reason.NODATA).all()


def test_what_is_not_drawn_is_refused(tiles: Tiles) -> None:
    with pytest.raises(SensorError):
        measure(tiles, "sentinel-9")
    with pytest.raises(SensorError):
        measure(tiles, "sentinel-2-l2a", bands=("vv",))
    with pytest.raises(SensorError):
        ground_distances("landsat-c2-l2", "optical-uncalibrated-16bit")


def test_numbers_lie_in_the_ranges_of_their_sensors(tiles: Tiles) -> None:
    def numbers(sensor: str) -> Tensor:
        data = measure(tiles, sensor).data
        return data[~data.isnan()]

    reflectance = numbers("sentinel-2-l2a")
    assert reflectance.min() > -0.02
    assert reflectance.max() < 1.6  # snow on slopes that face the sun
    eight, eleven = numbers("optical-uncalibrated"), numbers("optical-uncalibrated-16bit")
    assert (float(eight.min()), float(eight.max())) == (0.0, 255.0)
    assert (eight == eight.round()).all()
    assert 1500 < eleven.max() <= 2047
    power = numbers("sentinel-1-rtc")
    assert power.min() > 0
    stored = 10 * numbers("radar-uncalibrated").log10()
    assert 15 < stored.quantile(0.01) < stored.quantile(0.99) < 70


def test_water_is_dark_in_radar_and_less_so_where_the_wind_blows(tiles: Tiles) -> None:
    pictures = measure(tiles, "sentinel-1-rtc")
    medians = {}
    for code in (WATER, VEGETATION, BUILT_UP, BARE):
        vv, vh = (10 * part.log10().median() for part in values(pictures, tiles, code, "vv", "vh"))
        medians[code] = float(vv)
        assert vh < vv - 3
    assert medians[WATER] < -15
    assert medians[WATER] < medians[BARE] < medians[VEGETATION] + 3
    calm = [
        float(10 * pictures.data[tile, 0, 0][tiles.cover[tile, 0] == WATER].nanmean().log10())
        for tile in range(64)
        if (tiles.cover[tile, 0] == WATER).sum() > 3000
    ]
    assert max(calm) - min(calm) > 4


def test_speckle_has_the_looks_that_it_should(tiles: Tiles) -> None:
    """Its mean is one, and mean² over variance the number of looks (Goodman 1976); polarisations are independent."""
    looks = looks_of(tiles.recipe)
    grain, other = (speckle(tiles, name).double().flatten(1) for name in ("vv", "vh"))
    np.testing.assert_allclose(grain.mean(dim=1).numpy(), 1.0, atol=0.03)
    found = (grain.mean(dim=1) ** 2 / grain.var(dim=1)).numpy()
    np.testing.assert_allclose(found, looks, rtol=0.12)
    assert {4, 5} <= set(looks.tolist())
    assert abs(float(torch.corrcoef(torch.stack([grain.flatten(), other.flatten()]))[0, 1])) < 0.01


def test_buildings_shine_towards_the_radar_and_hide_what_is_behind() -> None:
    tiles = draw_tiles(plan_tiles(range(40), side_px=128, gsd_m=(1.0, 2.0)))
    from earthmap.synthetic.radar import _things

    lift = _things(tiles).view(40, 256, 256)
    towns = tiles.objects.present[:, :36, 0].sum(axis=1) > 5
    assert towns.sum() > 3
    assert (lift[torch.from_numpy(towns)] > 5).flatten(1).any(dim=1).all()
    assert (lift[torch.from_numpy(towns)] < -5).flatten(1).any(dim=1).all()


def test_temperatures_are_those_of_the_ground(tiles: Tiles) -> None:
    pictures = measure(tiles, "thermal")
    kelvin = pictures.data[~pictures.data.isnan()]
    assert kelvin.min() >= 230
    assert kelvin.max() <= 350
    (snow,) = values(pictures, tiles, SNOW, "lwir11")
    (water,) = values(pictures, tiles, WATER, "lwir11")
    assert snow.median() < 275
    assert 272 < water.median() < 302
    warmer = []
    for tile in range(64):
        soil, lake = ((clear(tiles)[tile] & (tiles.cover[tile] == code)) for code in (BARE, WATER))
        if soil.sum() > 200 and lake.sum() > 200:
            warmer.append(pictures.data[tile, :, 0][soil].median() > pictures.data[tile, :, 0][lake].median())
    assert 0.5 < np.mean(warmer) < 1.0  # by day the land is warmer as a rule, not everywhere
    under = (tiles.sky.cloud > 0.95) & ~tiles.sky.beyond
    assert pictures.data[:, :, 0][under].median() < kelvin.median() - 10


def test_masks_say_why_ground_is_not_seen(tiles: Tiles) -> None:
    optical, radar, camera = (
        measure(tiles, name).mask for name in ("sentinel-2-l2a", "sentinel-1-rtc", "optical-uncalibrated")
    )
    cloud = (tiles.sky.cloud > 0.5) & ~tiles.sky.beyond
    assert (optical[cloud] == Reason.CLOUD).all()
    assert (radar[cloud] == Reason.CLEAR).all()
    assert (camera[cloud] == Reason.UNKNOWN).all()
    assert set(optical.flatten().tolist()) >= {
        int(code) for code in (Reason.CLEAR, Reason.NODATA, Reason.CLOUD, Reason.SHADOW, Reason.SNOW)
    }


@pytest.mark.parametrize("sensor", sorted(SENSORS))
def test_views_on_tensors_are_the_views_of_inference(sensor: str) -> None:
    """Equal to numpy's view, but for decibels one level at most and seldom."""
    tiles = draw_tiles(plan_tiles(range(3), side_px=32, gsd_m=ground_distances(sensor)))
    pictures = measure(tiles, sensor)
    from earthmap.sensors.views import VIEWS

    names = [name for name in SENSORS[sensor].views if set(VIEWS[name].bands) <= set(pictures.bands)]
    assert names
    for name in names:
        batch = draw_views(pictures, name).numpy()
        for tile in range(3):
            one = make_view(name, pictures.bands, pictures.data[tile, 0].numpy(), pictures.mask[tile, 0].numpy())
            away = np.abs(batch[tile, 0].astype(int) - one.astype(int))
            assert away.max() <= 1
            assert (away > 0).mean() < (0.001 if VIEWS[name].channels[0].unit == "dB" else 1e-9)
