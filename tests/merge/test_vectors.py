"""Outlines: the ground of the pixels they were traced from, one form for one region, pairs only along a stretch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from earthmap.grid import Grid, Zone
from earthmap.merge.vectors import (
    border_stretches,
    clip_parts,
    group,
    label_regions,
    overlaps,
    seam_stretches,
    straighten,
    to_ground,
    trace,
    unite,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 16
masks = hnp.arrays(np.uint8, (12, 12), elements=st.sampled_from([0, 1, 1, 2, 255]))


def squares(labels: NDArray[np.int32], number: int) -> shapely.Geometry:
    """The union of a region's pixels, one by one."""
    rows, columns = np.nonzero(labels == number)
    height = labels.shape[0]
    return shapely.union_all(shapely.box(columns, height - rows - 1, columns + 1, height - rows))


@given(masks)
def test_an_outline_is_the_union_of_its_pixels(mask: NDArray[np.uint8]) -> None:
    labels = label_regions(mask)
    polygons, numbers = trace(labels, north_px=mask.shape[0])
    assert numbers.tolist() == list(range(1, labels.max() + 1))
    assert shapely.is_valid(polygons).all()
    for polygon, number in zip(polygons, numbers, strict=True):
        expected = straighten(np.array([squares(labels, number)], object))[0]
        assert straighten(np.array([polygon], object))[0].wkb == expected.wkb


@given(masks)
def test_regions_have_one_code_and_no_more_pixels_than_it(mask: NDArray[np.uint8]) -> None:
    labels = label_regions(mask)
    assert ((labels > 0) == np.isin(mask, [1, 2])).all()
    polygons, numbers = trace(labels)
    np.testing.assert_array_equal(shapely.area(polygons), np.bincount(labels.ravel())[numbers])


@given(hnp.arrays(bool, (2 * SIDE, 2 * SIDE)), st.sampled_from([1, 2, 4]))
def test_any_cut_gives_the_same_outlines(mask: NDArray[np.bool_], cuts: int) -> None:
    """A mask cut into blocks, traced block by block and joined, is the mask traced whole, to the last byte."""
    size = 2 * SIDE // cuts
    pieces = []
    for down in range(0, 2 * SIDE, size):
        for right in range(0, 2 * SIDE, size):
            block = mask[down : down + size, right : right + size].astype(np.uint8)
            pieces.append(trace(label_regions(block), west_px=right, north_px=2 * SIDE - down)[0])
    polygons = np.concatenate(pieces)
    joined = straighten(unite(polygons, group(len(polygons), overlaps(seam_stretches(polygons, size)))))
    whole = straighten(trace(label_regions(mask.astype(np.uint8)), north_px=2 * SIDE)[0])
    assert sorted(shapely.to_wkb(joined)) == sorted(shapely.to_wkb(whole))


def test_a_corner_is_no_stretch() -> None:
    side_by_side = np.array([shapely.box(8, 4, 16, 8), shapely.box(16, 6, 20, 9), shapely.box(16, 9, 20, 12)])
    assert overlaps(seam_stretches(side_by_side, 16)).tolist() == [[0, 1]]
    diagonal = np.array([shapely.box(8, 4, 16, 8), shapely.box(16, 8, 20, 12)])
    assert overlaps(seam_stretches(diagonal, 16)).tolist() == []
    assert overlaps(seam_stretches(np.empty(0, object), 16)).shape == (0, 2)


def test_borders_are_meridians_the_equator_and_the_antimeridian() -> None:
    shapes = np.array(
        [
            shapely.box(5, 1, 6, 2), shapely.box(6, 1.5, 7, 3),  # on 6° E
            shapely.box(10, -1, 11, 0), shapely.box(10.5, 0, 12, 1),  # on the equator
            shapely.box(179, 5, 180, 6), shapely.box(-180, 5, -179, 6),  # on the antimeridian
            shapely.box(20, 1, 21, 2), shapely.box(21, 1, 22, 2),  # on no border
            shapely.box(29, 7, 30, 8), shapely.box(30, 8, 31, 9),  # in a corner only
        ]
    )  # fmt: skip
    assert overlaps(border_stretches(shapes)).tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("zone", [Zone(31, True), Zone(1, False), Zone(60, True), Zone(0, True), Zone(0, False)])
def test_long_edges_follow_the_lattice_on_the_ground(zone: Zone) -> None:
    """The middle of a long pixel edge lies on its outline within a hundredth of a pixel."""
    from earthmap.grid import from_lonlat

    grid = Grid(resolution_m=10.0)
    # Around a pole: a square that holds it, and reaches all four meridians along which polygons are cut.
    west, south = (199_000, 199_500) if zone.is_polar else (20_000, 640_000)
    square = shapely.box(west, south, west + 1600, south + 1600)
    ground, number = to_ground(np.array([square], object), grid=grid, zone=zone)
    assert set(number) == {0}
    assert len(ground) == (4 if zone.is_polar else 1)
    planar = from_lonlat(shapely.union_all(ground), f"EPSG:{zone.epsg}", tolerance_m=0.01)
    difference = shapely.symmetric_difference(planar, shapely.transform(square, lambda xy: xy * 10.0))
    assert difference.area / planar.length < 0.1


def test_what_a_clip_cuts_apart_is_two_regions() -> None:
    bridge = shapely.union_all([shapely.box(0, 0, 1, 3), shapely.box(2, 0, 3, 3), shapely.box(0, 2, 3, 3)])
    inside, outside, touching = shapely.box(0.2, 0.2, 0.4, 0.4), shapely.box(5, 5, 6, 6), shapely.box(-1, 0, 0, 1)
    polygons = np.array([bridge, outside, touching, inside], object)
    parts, index, cut = clip_parts(polygons, shapely.box(0, 0, 3, 1))
    assert index.tolist() == [0, 0, 3]
    assert cut.tolist() == [True, True, False]
    np.testing.assert_allclose(shapely.area(parts), [1, 1, 0.04])
