"""How well shifts between two dates are told: errors on drawn ground, and how often one is found where there is none.

    python jobs/bench_shift.py                                # drawn worlds alone, about four minutes
    python jobs/bench_shift.py --data ../shared/data          # real series and crops of them too
    python jobs/bench_shift.py --worlds 20 --unrelated 1000

Each drawn pair has a known shift from −8 to 8 pixels along both axes, another date with its flood, its own noise or
speckle, and one thing more that stands in the way. *believed* is `Shift.is_good`, *wrong* more than a pixel off among
those. Beside ours stands scikit-image's `phase_cross_correlation` on the first band, which believes whatever it finds.
Pairs without common ground are crops of different worlds, and of real scenes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy import ndimage

from earthmap.cube import Shift, estimate_shift
from earthmap.predict import Picture
from earthmap.sensors import Reason
from earthmap.synthetic import small_world
from earthmap.synthetic.sensors import draw_rgb, draw_sentinel1

SIDE = 464
SENSORS = {"optical": ("optical-uncalibrated", ("red", "nir")), "radar": ("sentinel-1-db", ("vv", "vh"))}
SIZES = (110, 200, 288, 370)

Pixels = NDArray[np.float32]


def picture(kind: str, data: NDArray[Any], hidden: NDArray[np.bool_] | None = None) -> Picture:
    """Two bands as a picture, clouds where it is hidden."""
    mask = np.full(data.shape[1:], Reason.CLEAR, np.uint8)
    if hidden is not None:
        mask[hidden] = Reason.CLOUD
    sensor, bands = SENSORS[kind]
    return Picture(sensor=sensor, observation="", datetime=None, bands=bands, data=data.astype(np.float32), mask=mask)


@functools.lru_cache(maxsize=64)
def drawn(kind: str, seed: int, *, after: bool, down: float = 0.0, right: float = 0.0) -> Pixels:
    """A drawn world with its ground so many pixels off."""
    world = small_world(seed, size_m=6000)
    west, _, _, north = world.bounds
    corner = Affine(10.0, 0.0, west + 600 - 10 * right, 0.0, -10.0, north - 600 + 10 * down)
    geobox = GeoBox((SIDE, SIDE), corner, f"EPSG:{world.epsg}")
    date = world.after if after else world.before
    if kind == "radar":
        decibels = np.stack([layer.data[0] for layer in draw_sentinel1(world, geobox, date)])
        return np.asarray(10 ** (decibels / 10), np.float32)
    return np.asarray(draw_rgb(world, geobox, date)[0].data[[0, 3]], np.float32)


def pieces(share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """True on `share` of the ground, in pieces of about a kilometre."""
    field = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 28)
    return np.asarray(field > np.quantile(field, 1 - share))


def cases(kind: str, second: Pixels, other: Pixels, rng: np.random.Generator) -> Iterator[tuple[str, Picture]]:
    """The second date with one thing more in the way."""
    yield "nothing more", picture(kind, second)
    cloud = pieces(0.5, rng)
    yield "half under cloud", picture(kind, np.where(cloud, other, second), cloud)
    for name, share in (("half changed", 0.5), ("four fifths changed", 0.8)):
        yield name, picture(kind, np.where(pieces(share, rng), other, second))
    if kind == "radar":
        yield "a single look", picture(kind, second * rng.exponential(1, second.shape))
    else:
        yield "contrast turned round, dimmed", picture(kind, np.stack([255 - 0.6 * second[1], 0.4 * second[0] + 20]))
        yield "noise of 15 of 255", picture(kind, second + rng.normal(0, 15, second.shape))


def plain_phase(first: Picture, second: Picture) -> tuple[float, float]:
    """What scikit-image finds, as rows down and columns right."""
    from skimage.registration import phase_cross_correlation

    back = phase_cross_correlation(first.data[0], second.data[0], upsample_factor=20)[0]  # type: ignore[no-untyped-call]
    return float(-back[0]), float(-back[1])


def measure_drawn(worlds: int) -> None:
    """The table of errors."""
    rng = np.random.default_rng(7)
    found: dict[tuple[str, str], list[tuple[Shift, float, float]]] = {}
    for kind in SENSORS:
        for seed in [seed for seed in range(1, worlds + 1) for _ in (0, 1)]:
            first = picture(kind, drawn(kind, seed, after=False))
            down, right = (round(float(step), 2) for step in rng.uniform(-8, 8, 2))
            other = drawn(kind, seed % worlds + 1, after=True)
            for name, second in cases(kind, drawn(kind, seed, after=True, down=down, right=right), other, rng):
                shift, theirs = estimate_shift(first, second), plain_phase(first, second)
                errors = [math.hypot(y - down, x - right) for y, x in ((shift.down_px, shift.right_px), theirs)]
                found.setdefault((kind, name), []).append((shift, errors[0], errors[1]))
    print("| ground | in the way | pairs | believed | wrong | median | 95 % | worst | scikit-image wrong |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for (kind, name), pairs in found.items():
        own = [error for shift, error, _ in pairs if shift.is_good]
        numbers = [f"{value:.2f}" for value in (*np.quantile(own, (0.5, 0.95)), max(own))] if own else ["–"] * 3
        wrong = sum(error > 1 for *_, error in pairs)
        counts = f"{len(pairs)} | {len(own)} | {sum(error > 1 for error in own)}"
        print(f"| {kind} | {name} | {counts} | {' | '.join(numbers)} | {wrong} |", flush=True)


def real_series(data: Path) -> dict[str, list[tuple[str, Pixels]]]:
    """Dates of two places: aerial pictures and Landsat."""
    import rasterio

    found: dict[str, list[tuple[str, Pixels]]] = {}
    for folder, bands in (("naip_nd_west", [1, 4]), ("landsat_pucallpa_west", [3, 2])):
        for path in sorted((data / "08_landsat_naip_timeseries" / folder).glob("*.tif")):
            with rasterio.open(path) as source:
                found.setdefault(folder, []).append((path.stem[-8:], source.read(bands).astype(np.float32)))
    return found


def measure_real(series: dict[str, list[tuple[str, Pixels]]]) -> None:
    """What consecutive dates of a place come to."""
    for place, dates in series.items():
        for (one, before), (other, after) in itertools.pairwise(dates):
            rows, columns = (min(sides) for sides in zip(before.shape[1:], after.shape[1:], strict=True))
            shift = estimate_shift(*(picture("optical", data[:, :rows, :columns]) for data in (before, after)))
            print(f"{place} {one} to {other}: {shift}", flush=True)


def measure_unrelated(count: int, pools: dict[str, list[Pixels]]) -> None:
    """How often a shift is believed between crops that share no ground."""
    rng = np.random.default_rng(1)
    for kind, pool in pools.items():
        tried = believed = torn = 0
        while tried < count:
            side, (one, other) = int(rng.choice(SIZES)), rng.integers(0, len(pool), 2)
            corners, crops = [], []
            for data in (pool[one], pool[other]):
                top, left = (int(rng.integers(0, length - side + 1)) for length in data.shape[1:])
                corners.append((top, left))
                crops.append(picture(kind, data[:, top : top + side, left : left + side]))
            if max(abs(step - turn) for step, turn in zip(*corners, strict=True)) <= 20:
                continue  # they may share ground
            shift = estimate_shift(crops[0], crops[1])
            tried, believed, torn = tried + 1, believed + shift.is_good, torn + shift.is_torn
        print(f"{kind}: {believed} believed and {torn} torn of {tried} pairs without common ground", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=8, help="drawn worlds, two pairs each")
    parser.add_argument("--unrelated", type=int, default=150, help="pairs without common ground, of each kind")
    parser.add_argument("--data", type=Path, help="folder of real scenes")
    arguments = parser.parse_args()
    measure_drawn(arguments.worlds)
    pools = {kind: [drawn(kind, seed, after=bool(seed % 2)) for seed in range(1, 9)] for kind in SENSORS}
    if arguments.data is not None:
        series = real_series(arguments.data)
        measure_real(series)
        pools["optical"] += [data for dates in series.values() for _, data in dates]
    measure_unrelated(arguments.unrelated, pools)


if __name__ == "__main__":
    main()
