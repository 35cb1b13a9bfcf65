"""Drawn tiles: the same whatever the batch, and their truth is what is drawn."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.errors import CatalogError
from earthmap.synthetic import EVENTS, KINDS, Tiles, draw_tiles, facts_of, measure, patch_shares, plan_tiles
from earthmap.synthetic.draws import levels, noise, smooth_fields
from earthmap.synthetic.land import FINE
from earthmap.synthetic.objects import OBJECT_CLASSES, SLOT_CLASS, slots_of
from earthmap.synthetic.recipes import KIND_NAMES
from earthmap.synthetic.spectra import cover_of_material
from earthmap.synthetic.tiles import most_of

SIDE = 64


def drawn(
    seeds: range | list[int], *, dates: int = 1, gsd_m: tuple[float, float] = (10.0, 10.0), side_px: int = SIDE
) -> Tiles:
    return draw_tiles(plan_tiles(list(seeds), side_px=side_px, dates=dates, gsd_m=gsd_m))


@pytest.fixture(scope="module")
def near() -> Tiles:
    """Places where single things are seen."""
    return drawn(range(160), gsd_m=(0.4, 2.0), side_px=128)


@pytest.fixture(scope="module")
def pairs() -> Tiles:
    return drawn(range(96), dates=2, gsd_m=(10.0, 10.0))


def same(one: Tiles, other: Tiles, place: int) -> bool:
    """True where the only tile of `one` is tile `place` of `other`, bit for bit."""
    for field in dataclasses.fields(Tiles):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, torch.Tensor) and not torch.equal(first[0], second[place]):
            return False
    for field in dataclasses.fields(one.objects):
        first, second = getattr(one.objects, field.name), getattr(other.objects, field.name)
        if not np.array_equal(first[0], second[place]):
            return False
    return all(torch.equal(getattr(one.sky, name)[0], getattr(other.sky, name)[place]) for name in ("cloud", "shade"))


SENSORS = ("sentinel-2-l2a", "sentinel-1-grd", "thermal", "optical-uncalibrated")


@settings(max_examples=12)
@given(
    seeds=st.lists(st.integers(0, 10**12), min_size=2, max_size=5, unique=True),
    dates=st.integers(1, 3),
    moving=st.booleans(),
    gsd_m=st.sampled_from([(10.0, 10.0), (0.3, 4.0), (10.0, 60.0)]),
)
def test_a_tile_does_not_depend_on_its_batch(
    seeds: list[int], dates: int, moving: bool, gsd_m: tuple[float, float]
) -> None:
    place = len(seeds) - 1
    whole, alone = (
        draw_tiles(plan_tiles(chosen, side_px=SIDE, dates=dates, gsd_m=gsd_m, moving=moving))
        for chosen in (seeds, seeds[place:])
    )
    assert same(alone, whole, place)
    for sensor in SENSORS:
        one, other = measure(alone, sensor), measure(whole, sensor)
        assert torch.equal(one.data[0].nan_to_num(-1), other.data[place].nan_to_num(-1)), sensor
        assert torch.equal(one.mask[0], other.mask[place])


def test_a_tile_does_not_depend_on_threads() -> None:
    """Two threads cut arrays in other places than one; nothing that is drawn may notice."""
    threads = torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        tiles = drawn(range(5), dates=2, gsd_m=(1.0, 10.0), side_px=96)
        found.append([tiles.tone, *(measure(tiles, sensor).data.nan_to_num(-1) for sensor in SENSORS)])
    torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_another_seed_is_another_tile() -> None:
    tiles = drawn(range(8))
    assert len({tile.numpy().tobytes() for tile in tiles.tone}) == 8


@pytest.mark.parametrize(
    "change",
    [{"side_px": 100}, {"side_px": 0}, {"dates": 0}, {"dates": 99}, {"gsd_m": (0.1, 1.0)}, {"gsd_m": (20.0, 10.0)}],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(CatalogError):
        plan_tiles([1], **change)  # type: ignore[arg-type]


def test_every_kind_of_place_occurs() -> None:
    recipe = plan_tiles(range(2000), gsd_m=(0.3, 100.0))
    counts = np.bincount(recipe.kind, minlength=len(KINDS))
    assert (counts > 10).all(), dict(zip(KIND_NAMES, counts, strict=True))
    assert recipe.gsd_m.min() < 0.5
    assert recipe.gsd_m.max() > 60


def test_places_of_one_class_and_of_nothing_but_cloud_occur() -> None:
    facts = facts_of(drawn(range(300)))
    alone = {int(one.shares[0].argmax()) for one in facts if one.shares[0].max() > 0.999}
    assert {0, 1, 2, 3} <= alone
    assert any(one.seen[0] == 0.0 for one in facts)
    assert any(one.kind == "desert" and one.shares[0][2] == 1.0 for one in facts)


def test_truth_is_the_material_that_is_drawn() -> None:
    """Where no town hides its gardens, a pixel's class is that of most of its materials."""
    tiles = drawn(range(32), gsd_m=(1.0, 4.0))
    codes = torch.from_numpy(cover_of_material())[tiles.material.int()]
    movable = tiles.stamped >= 4 * (int(np.argmax(SLOT_CLASS == 1)) + 1)
    plain = ~(movable.flatten(1).any(dim=1))
    assert plain.sum() > 10
    assert torch.equal(most_of(codes)[plain], tiles.cover[plain])


@given(st.lists(st.integers(0, 6), min_size=4, max_size=4))
def test_most_of_four(codes: list[int]) -> None:
    found = int(most_of(torch.tensor(codes, dtype=torch.uint8).view(1, 2, 2)))
    counts = np.bincount(codes, minlength=7)
    assert counts[found] == counts.max()
    assert found == int(counts.argmax())


def test_shares_of_patches_are_counts(pairs: Tiles) -> None:
    for patch_px in (16, 32):
        shares = patch_shares(pairs.cover, patch_px=patch_px)
        assert shares.shape == (96, 2, 6, SIDE // patch_px, SIDE // patch_px)
        block = pairs.cover[5, 1, :patch_px, :patch_px].numpy()
        expected = [(block == code).mean() for code in range(1, 7)]
        np.testing.assert_allclose(shares[5, 1, :, 0, 0].numpy(), expected, atol=1e-6)
    torch.testing.assert_close(shares.sum(dim=2), torch.ones_like(shares[:, :, 0]))


def test_shares_of_things_are_theirs(near: Tiles) -> None:
    shares = patch_shares(near.things, patch_px=32, classes=len(OBJECT_CLASSES))
    for number, label in enumerate(OBJECT_CLASSES):
        slots = torch.from_numpy(np.flatnonzero(slots_of(label)) + 1)
        own = torch.isin(near.instances, slots).float().mean(dim=(2, 3))
        torch.testing.assert_close(shares[:, :, number].mean(dim=(2, 3)), own)


def test_importing_needs_no_torch_ray_rasterio_or_geopandas() -> None:
    code = (
        "import sys, earthmap.synthetic, earthmap.synthetic.tile_scenes\n"
        "print([name for name in ('torch', 'ray', 'rasterio', 'geopandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ── things ───────────────────────────────────────────────────────────────────────────────────────────────────


def outside_share(tiles: Tiles, tile: int, slot: int) -> float:
    """Share of a thing's fine pixels whose middles lie outside its oriented box."""
    recipe, objects = tiles.recipe, tiles.objects
    rows, columns = np.nonzero(tiles.stamped[tile, 0].numpy() // 4 == slot + 1)
    step = recipe.gsd_m[tile] / FINE
    half = FINE * recipe.side_px / 2
    dx = (columns + 0.5 - half) * step - objects.x[tile, slot, 0]
    dy = (rows + 0.5 - half) * step - objects.y[tile, slot, 0]
    u = dx * objects.cosine[tile, slot] + dy * objects.sine[tile, slot]
    v = dy * objects.cosine[tile, slot] - dx * objects.sine[tile, slot]
    inside = (np.abs(u) <= objects.length_m[tile, slot] + step) & (np.abs(v) <= objects.width_m[tile, slot] + step)
    return float(1.0 - inside.mean()) if len(inside) else 0.0


def test_boxes_and_outlines_hold_what_is_drawn(near: Tiles) -> None:
    """Every pixel of a thing lies in its box, and its outline covers what is drawn of it."""
    import shapely

    seen = set()
    for tile, facts in enumerate(facts_of(near)):
        for thing in facts.things[0]:
            assert outside_share(near, tile, thing.slot) == 0.0
            drawn_px = near.stamped[tile, 0].numpy() // 4 == thing.slot + 1
            rows, columns = np.nonzero(drawn_px)
            side = drawn_px.shape[0]
            left, top, right, bottom = thing.box
            edge = 1.0 / side
            assert columns.min() / side >= left - edge
            assert (columns.max() + 1) / side <= right + edge
            assert rows.min() / side >= top - edge
            assert (rows.max() + 1) / side <= bottom + edge
            whole = shapely.Polygon(thing.outline).intersection(shapely.box(0, 0, 1, 1)).area * side * side
            if whole > 150:
                assert 0.85 < drawn_px.sum() / whole < 1.15, (thing.label, facts.seed)
                seen.add(thing.label)
    assert seen == set(OBJECT_CLASSES)


def test_things_stand_apart_and_on_their_ground(near: Tiles) -> None:
    import shapely

    for tile, facts in enumerate(facts_of(near)):
        shapes = [shapely.Polygon(thing.oriented_box) for thing in facts.things[0]]
        for first in range(len(shapes)):
            for second in range(first):
                both = shapes[first].intersection(shapes[second]).area
                assert both < 0.1 * min(shapes[first].area, shapes[second].area), facts.seed
        for thing in facts.of("ship"):
            row, column = (
                min(int(value * near.recipe.side_px), near.recipe.side_px - 1) for value in thing.middle[::-1]
            )
            assert near.cover[tile, 0, row, column] == 1


def test_ships_stand_out_in_radar_and_light() -> None:
    tiles = drawn(range(200, 280), side_px=128)
    radar, light = measure(tiles, "sentinel-1-rtc"), measure(tiles, "sentinel-2-l2a", bands=("nir",))
    sea = slots_of("ship")
    ratios, contrasts = [], []
    for tile in range(80):
        ships = torch.from_numpy(sea)[(tiles.instances[tile, 0].long() - 1).clamp(min=0)] & (
            tiles.instances[tile, 0] > 0
        )
        open_water = (tiles.cover[tile, 0] == 1) & (tiles.instances[tile, 0] == 0)
        clear = (tiles.sky.cloud[tile, 0] == 0) & (tiles.sky.shade[tile, 0] == 0) & ~tiles.sky.beyond[tile, 0]
        if ships.sum() > 20 and open_water.sum() > 500:
            ratios.append(float(radar.data[tile, 0, 0][ships].nanmean() / radar.data[tile, 0, 0][open_water].nanmean()))
            if (ships & clear).sum() > 20 and (open_water & clear).sum() > 500:
                data = light.data[tile, 0, 0]
                contrasts.append(float(data[ships & clear].mean() - data[open_water & clear].mean()))
    assert len(ratios) > 5
    assert min(ratios) > 10.0
    assert min(contrasts) > 0.02


# ── what happened ────────────────────────────────────────────────────────────────────────────────────────────


def test_events_change_what_they_say_and_nothing_else(pairs: Tiles) -> None:
    gains = {"flooding": 1, "vegetation growth": 2, "fire": 6, "snowfall": 5}
    losses = {"drying": 1, "vegetation loss": 2, "landslide": 2, "snowmelt": 5}
    met = set()
    before, after = pairs.cover[:, 0], pairs.cover[:, 1]
    for tile in range(pairs.recipe.count):
        name = EVENTS[pairs.happening.event[tile]]
        changed = before[tile] != after[tile]
        met.add(name)
        if name in ("no change", "building damage"):
            assert not changed.any(), name
        elif name in gains and changed.any():
            assert (after[tile][changed] == gains[name]).float().mean() > 0.9, name  # but for pixels at the edge
        elif name in losses and changed.any():
            assert (before[tile][changed] == losses[name]).float().mean() > 0.9, name
    assert len(met) >= 8, met


def test_a_series_goes_one_way() -> None:
    tiles = drawn(range(40), dates=4)
    covered = tiles.cover
    for tile in range(40):
        since = int(tiles.happening.since[tile])
        for date in range(1, 4):
            same_as_first = torch.equal(covered[tile, date], covered[tile, 0])
            assert same_as_first or date >= since
        if EVENTS[tiles.happening.event[tile]] == "flooding":
            water = (covered[tile] == 1).flatten(1).sum(dim=1)
            assert (water.diff() >= 0).all()


def test_damage_has_grades_and_shows() -> None:
    tiles = drawn(range(400, 520), dates=2, gsd_m=(0.7, 1.5), side_px=128)
    struck = tiles.happening.is_event("building damage")
    assert struck.sum() >= 3
    grades = tiles.objects.grade[struck]
    assert set(np.unique(grades)) == {0, 1, 2, 3}
    assert not grades[:, :, 0].any()
    assert not tiles.objects.grade[~struck].any()
    for tile in np.flatnonzero(struck):
        worst = np.flatnonzero(tiles.objects.grade[tile, :, 1] == 3)
        for slot in worst:
            own = tiles.stamped[tile, 1] // 4 == int(slot) + 1
            assert (tiles.material[tile, 1][own] == tiles.material[tile, 1][own][0]).all()
            assert not torch.equal(tiles.material[tile, 0][own], tiles.material[tile, 1][own])


def test_frames_of_a_video_differ_by_what_moves_alone() -> None:
    tiles = draw_tiles(plan_tiles(range(40), side_px=SIDE, dates=4, gsd_m=(1.0, 4.0), moving=True))
    ground = tiles.stamped == 0
    still = ground.all(dim=1)
    moved = 0
    for date in range(1, 4):
        assert torch.equal(tiles.material[:, 0][still], tiles.material[:, date][still])
        assert torch.equal(tiles.sky.cloud[:, 0], tiles.sky.cloud[:, date])
        moved += int((tiles.stamped[:, 0] != tiles.stamped[:, date]).sum())
    assert moved > 0
    steps = np.diff(tiles.objects.x, axis=2)
    np.testing.assert_allclose(steps, steps[:, :, :1].repeat(3, axis=2), atol=1e-2)


# ── draws ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_levels_cut_off_the_share_that_is_asked_for() -> None:
    field = smooth_fields(np.arange(6), "test", np.full((6, 1), 0.6, np.float32), side=128, device="cpu")[:, 0]
    shares = np.array([[0.0, 0.2, 0.5, 1.0]] * 6, np.float32)
    found = levels(field, shares)
    for number, share in enumerate(shares[0]):
        above = (field > found[:, number, None, None]).float().mean(dim=(1, 2))
        assert (above - share).abs().max() < 0.04


def test_noise_is_what_it_says() -> None:
    normal = noise(np.arange(4), "test", 256, 256, device="cpu")
    exponential = noise(np.arange(4), "test", 256, 256, device="cpu", kind="exponential")
    assert abs(float(normal.mean())) < 0.01
    assert abs(float(normal.std()) - 1.0) < 0.01
    assert abs(float(exponential.mean()) - 1.0) < 0.01
    assert not torch.equal(normal[0], normal[1])
