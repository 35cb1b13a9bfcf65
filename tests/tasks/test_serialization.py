"""SLIS: text and geometry are one, whatever the geometry, and whatever the text."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry

from earthmap.errors import QueryError
from earthmap.tasks.quantization import BINS, corner_count, simplify
from earthmap.tasks.serialization import (
    KINDS,
    MASK_SIDES,
    Instance,
    parse,
    plain_label,
    quantize,
    serialize,
    tokenize_spatial,
)

near = st.floats(-0.2, 1.2, allow_nan=False)
finite = st.floats(allow_nan=False, allow_infinity=False)  # shapely makes no geometry of the others
anything = st.one_of(near, finite, st.sampled_from([0.0, 0.5, 1.0, 1e300, -1e300, 5e-324]))
rings = st.lists(st.tuples(near, near), min_size=3, max_size=12)
times = st.sampled_from([None, "2024-06-01", "2024-06-01T10:30:00Z", "0s", "12.5s"])
labels = st.one_of(st.none(), st.text(max_size=90))
masks = st.sampled_from(MASK_SIDES).flatmap(
    lambda side: st.binary(min_size=side * side // 8, max_size=side * side // 8).map(
        lambda bits: np.unpackbits(np.frombuffer(bits, np.uint8)).reshape(side, side).astype(bool)
    )
)


def _polygon(outline: list[tuple[float, float]], holes: list[list[tuple[float, float]]]) -> Polygon:
    return Polygon(outline, holes)


polygons = st.builds(_polygon, rings, st.lists(rings, max_size=2))  # crossing themselves, holes outside
geometries = st.one_of(
    polygons,
    st.lists(polygons, min_size=1, max_size=3).map(MultiPolygon),
    st.tuples(near, near).map(Point),
    st.lists(st.tuples(near, near), min_size=2, max_size=4).map(LineString),
    st.just(Polygon()),
)
shaped = st.builds(
    lambda kind, geometry, label, time, track: Instance(
        kind=kind, geometry=geometry, label=label, time=time, track=track
    ),
    st.sampled_from(KINDS[:-1]),
    geometries,
    labels,
    times,
    st.one_of(st.none(), st.integers(0, 999_999)),
)
masked = st.builds(lambda mask, label: Instance(kind="mask", mask=mask, label=label), masks, labels)
instances = st.one_of(shaped, masked)


def same(one: Instance, other: Instance) -> bool:
    """Equal to the last corner, in order."""
    if one.mask is not None or other.mask is not None:
        return one == other and np.array_equal(one.mask, other.mask)
    assert one.geometry is not None
    assert other.geometry is not None
    return one == other and one.geometry.wkb == other.geometry.wkb


@given(st.lists(instances, max_size=4))
def test_what_was_written_is_read_as_it_was_quantized(several: list[Instance]) -> None:
    found = parse(serialize(several))
    expected = [quantized for one in several if (quantized := quantize(one)) is not None]
    assert len(found.instances) == len(expected)
    assert all(map(same, found.instances, expected))
    assert found.repaired == 0
    assert found.rejected == ()
    assert found.nothing == (not expected)


@given(instances)
def test_quantizing_again_changes_nothing(one: Instance) -> None:
    once = quantize(one)
    if once is None or one.kind == "oriented_box":  # a rounded rectangle has another smallest rectangle
        return
    again = quantize(once)
    assert again is not None
    assert same(once, again)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=8), st.integers(0, 7), st.booleans())
def test_equal_geometry_has_equal_text(corners: list[tuple[float, float]], turn: int, back: bool) -> None:
    outline = shapely.convex_hull(shapely.multipoints(corners))
    if outline.geom_type != "Polygon":
        return
    ring = list(outline.exterior.coords)[:-1]
    turn %= len(ring)
    other = ring[turn:] + ring[:turn]
    text = serialize([Instance(kind="polygon", geometry=Polygon(ring))])
    assert serialize([Instance(kind="polygon", geometry=Polygon(other[::-1] if back else other))]) == text


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_coordinate_is_off_by_at_most_half_a_bin(x0: float, y0: float, x1: float, y1: float) -> None:
    box = shapely.box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    quantized = quantize(Instance(kind="box", geometry=box))
    assert quantized is not None
    assert quantized.geometry is not None
    off = np.abs(np.subtract(quantized.geometry.bounds, box.bounds)).max()
    assert off <= 0.5 / BINS + 1e-12


@given(rings.filter(lambda ring: Polygon(ring).is_valid))
def test_corners_of_an_outline_stay_within_half_a_bin(ring: list[tuple[float, float]]) -> None:
    inside = Polygon(ring).intersection(shapely.box(0, 0, 1, 1))
    quantized = quantize(Instance(kind="polygon", geometry=Polygon(ring)))
    if quantized is None or quantized.geometry is None:
        return
    farthest = max(inside.distance(Point(corner)) for corner in shapely.get_coordinates(quantized.geometry))
    assert farthest <= math.sqrt(0.5) / BINS + 1e-9


@given(st.sampled_from(KINDS[:-1]), st.lists(st.tuples(anything, anything), min_size=4, max_size=9))
def test_no_coordinate_is_too_odd(kind: str, corners: list[tuple[float, float]]) -> None:
    shape: BaseGeometry = Polygon(corners) if kind == "polygon" else LineString(corners)
    found = parse(serialize([Instance(kind=kind, geometry=shape)]))
    assert found.rejected == ()
    assert found.repaired == 0


@given(polygons)
def test_outlines_are_valid_and_clockwise_from_the_top(polygon: Polygon) -> None:
    quantized = quantize(Instance(kind="polygon", geometry=polygon))
    if quantized is None or quantized.geometry is None:
        return
    assert quantized.geometry.is_valid
    assert quantized.geometry.area > 0
    for part in shapely.get_parts(quantized.geometry):
        ring = [(y, x) for x, y in part.exterior.coords]
        assert part.exterior.is_ccw, "counter-clockwise with y upwards is clockwise on the screen"
        assert ring[0] == min(ring)
        assert not any(hole.is_ccw for hole in part.interiors)


pieces = st.sampled_from(
    [
        *"[],;:+@#|0123456789 -.\n",
        "box[",
        "poly[",
        "obox[",
        "mask[16",
        "point",
        "none",
        "ship:",
        "1e9",
        "９",
        "🛰",
        "9" * 400,
    ]
)


@given(st.one_of(st.text(), st.lists(pieces, max_size=60).map("".join)))
def test_no_text_makes_it_raise(text: str) -> None:
    found = parse(text)
    for one in found.instances:
        again = quantize(one)
        assert again is not None
        if one.kind != "oriented_box":
            assert same(one, again)


@given(st.lists(instances, min_size=1, max_size=3), st.integers(0, 400))
def test_a_text_that_is_cut_off_keeps_what_was_whole(several: list[Instance], end: int) -> None:
    text = serialize(several)
    cut, whole = parse(text[:end]), parse(text)
    before = text[:end].count(";")
    assert all(map(same, cut.instances[:before], whole.instances[:before]))
    assert len(cut.instances) + len(cut.rejected) <= len(whole.instances)


@pytest.mark.parametrize(
    ("text", "instances", "rejected", "repaired"),
    [
        ("none", 0, (), 0),
        ("There are two: box[1,2,3,4] and box[5,6,7,8].", 2, (), 0),
        ("box[3,4,1,2]", 1, (), 1),  # corners exchanged
        ("box[-5,0,2000,10.4]", 1, (), 1),  # outside, and a fraction
        ("box[1,2,3]", 0, ("numbers",), 0),
        ("box[1,2,box[1,2,3,4]", 1, ("cut off",), 0),
        ("poly[0,0,10,10]", 0, ("corners",), 0),
        ("poly[0,0,5,5,10,10]", 0, ("empty",), 0),
        ("poly[0,0,1000,1000,1000,0,0,1000]", 1, (), 1),  # a bow tie
        ("poly[0,0,100,0,100,100,0,100][500,500,510,500,510,510]", 1, (), 1),  # a hole outside
        ("poly[0,0,100,0", 0, ("cut off",), 0),
        ("mask[16|0:3+4,9+2|5:0+16]", 1, (), 0),
        ("mask[16|0:3+40|99:1+1]", 1, (), 1),
        ("mask[17|0:1+1]", 0, ("mask",), 0),
        ("point[500,500]@2024-06-01", 1, (), 0),
    ],
)
def test_what_a_model_may_write(text: str, instances: int, rejected: tuple[str, ...], repaired: int) -> None:
    found = parse(text)
    assert (len(found.instances), found.rejected, found.repaired) == (instances, rejected, repaired)


def test_all_that_is_said_of_an_instance_is_read() -> None:
    (found,) = parse("#12 cargo ship: obox[10,0,20,10,10,20,0,10] @ 12.5s").instances
    assert (found.track, found.label, found.kind, found.time) == (12, "cargo ship", "oriented_box", "12.5s")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "box" + "[" * 100_000 + "]" * 100_000,
        "box[" * 50_000,
        "box[" + "9" * 1_000_000,
        "poly[" + "1,2," * 200_000,
        "poly" + "[0,0,9,0,9,9]+" * 5_000,
        "a" * 1_000_000 + ":box[1,2,3,4]",
        "#" * 300_000,
        " " * 1_000_000 + "box",
        "mask[64" + "|1:0+1" * 100_000 + "]",
    ],
    ids=lambda text: text[:12],
)
def test_long_hostile_texts_take_no_longer_than_their_length(text: str) -> None:
    started = time.process_time()
    parse(text)
    tokenize_spatial(text)
    assert time.process_time() - started < 10.0, "quadratic time would be minutes"


def test_ten_thousand_corners_of_every_kind_end_soon() -> None:
    rng = np.random.default_rng(0)
    star = Polygon(rng.random((10_000, 2)))  # millions of crossings
    angle = np.sort(rng.random(10_000)) * 2 * np.pi
    radius = 0.4 + 0.05 * rng.random(10_000)
    coast = Polygon(np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], axis=1))
    started = time.process_time()
    for shape in (star, coast):
        for kind in KINDS[:-1]:
            assert len(parse(serialize([Instance(kind=kind, geometry=shape)])).instances) == 1
    text = "poly[" + ",".join(map(str, rng.integers(0, 1001, 20_000))) + "]"
    assert len(parse(text).instances) == 1
    assert time.process_time() - started < 30.0, "mending all crossings would take hours"


@given(st.lists(instances, max_size=3))
def test_terminals_are_the_text_and_hide_no_digit(several: list[Instance]) -> None:
    text = serialize(several)
    terminals = tokenize_spatial(text)
    assert "".join(terminals) == text
    names = {plain_label(one.label) for one in several}
    assert all(len(one) == 1 or one in names or not set("0123456789") & set(one) for one in terminals)


@given(st.integers(3, 40), st.integers(4, 300), st.integers(0, 2**32 - 1))
def test_an_outline_keeps_to_its_budget_of_corners(budget: int, corners: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radius = 0.2 + 0.2 * rng.random(corners)
    outline = Polygon(np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], axis=1))
    ring = Polygon(outline.exterior, [shapely.box(0.48, 0.48, 0.52, 0.52).exterior])
    simple = simplify(ring, corners=budget)
    assert corner_count(simple.geometry) <= budget
    assert simple.geometry.area > 0
    assert simple.error == pytest.approx(shapely.hausdorff_distance(ring, simple.geometry))
    if corner_count(ring) <= budget:
        assert simple.error == 0.0


def test_what_is_no_instance_is_refused() -> None:
    with pytest.raises(QueryError, match="without its geometry"):
        Instance(kind="blob")
    with pytest.raises(QueryError, match="expected at least three"):
        simplify(shapely.box(0, 0, 1, 1), corners=2)
    with pytest.raises(QueryError, match="time"):
        serialize([Instance(kind="point", geometry=Point(0, 0), time="yesterday")])
    with pytest.raises(QueryError, match="a square of 8, 16, 32, 64"):
        serialize([Instance(kind="mask", mask=np.zeros((5, 5), bool))])
