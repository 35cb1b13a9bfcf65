"""Drawings: an edge stands where it was found, labels keep off what they name, and any size is legible."""

from __future__ import annotations

import io

import hypothesis
import numpy as np
import pytest
import shapely
from hypothesis import strategies
from PIL import Image

from earthmap.outputs.sketch import (
    PALETTE,
    STYLES,
    Caption,
    Mark,
    SketchPicture,
    _looks,
    place_labels,
    render_sketch,
)

CAPTION = Caption(question="Where are the ships?", answer="1 found")


def picture(rows: int, columns: int, *, empty: bool = False, hidden: bool = False) -> SketchPicture:
    shape = (rows, columns)
    return SketchPicture(
        rgb=np.full((*shape, 3), 90, np.uint8),
        empty=np.full(shape, empty),
        hidden=np.full(shape, hidden),
        title="a day",
    )


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def colour(text: str) -> np.ndarray:
    return np.array([int(text[index : index + 2], 16) for index in (1, 3, 5)])


@pytest.mark.parametrize("shape", [(448, 448), (128, 128), (20, 400), (400, 20)])
def test_a_boxs_edge_is_where_it_must_be(shape: tuple[int, int]) -> None:
    rows, columns = shape
    west, north, east, south = columns * 0.25, rows * 0.25, columns * 0.75, rows * 0.75
    mark = Mark(kind="box", geometry=shapely.box(west, north, east, south), name="ship")
    sketch = render_sketch([picture(rows, columns)], [mark], CAPTION)
    drawn = pixels(sketch.png)
    left, top = sketch.corners[0]
    middle = round(top + rows / 2 * sketch.scale)
    across = np.abs(drawn[middle] - colour(PALETTE[0])).sum(axis=-1) < 40
    found = np.flatnonzero(across)
    for edge in (west, east):
        expected = left + edge * sketch.scale
        assert np.abs(found + 0.5 - expected).min() <= 1.0
    assert all(min(abs(x + 0.5 - left - edge * sketch.scale) for edge in (west, east)) <= 2.0 for x in found)


def test_pixels_of_the_picture_are_squares_of_the_drawing() -> None:
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 255, (128, 100, 3)).astype(np.uint8)
    nothing = np.zeros((128, 100), bool)
    sketch = render_sketch([SketchPicture(rgb=rgb, empty=nothing, hidden=nothing, title="")], [], CAPTION)
    left, top = sketch.corners[0]
    scale = sketch.scale
    part = pixels(sketch.png)[top : top + 128 * scale, left : left + 100 * scale]
    assert scale == 7
    assert (part[scale // 2 :: scale, scale // 2 :: scale] == rgb).all()


def test_a_mask_tints_what_it_covers_and_nothing_else() -> None:
    mark = Mark(kind="mask", geometry=shapely.box(32, 32, 64, 64), name="water")
    sketch = render_sketch([picture(128, 128)], [mark], CAPTION)
    left, top = sketch.corners[0]
    drawn = pixels(sketch.png)
    inside = drawn[top + 48 * sketch.scale, left + 48 * sketch.scale]
    outside = drawn[top + 90 * sketch.scale, left + 90 * sketch.scale]
    assert (outside == 90).all()
    assert inside[2] > inside[0] + 30


def test_what_was_not_seen_is_hatched() -> None:
    for shown, plain in ((picture(64, 64, empty=True), 244), (picture(64, 64, hidden=True), 90)):
        sketch = render_sketch([shown], [], CAPTION)
        left, top = sketch.corners[0]
        part = pixels(sketch.png)[top + 4 : top + 400, left + 4 : left + 400, 0]
        assert (part == plain).mean() > 0.5
        assert 0.1 < (part != plain).mean() < 0.5
        assert (part != plain).any(axis=0).all()


def test_equal_arguments_give_equal_bytes() -> None:
    mark = Mark(
        kind="oriented_box", geometry=shapely.Polygon([(5, 9), (9, 5), (30, 26), (26, 30)]), name="ship", text="1"
    )
    one, other = (render_sketch([picture(60, 50)] * 2, [mark], CAPTION) for _ in range(2))
    assert one == other
    assert one.png == other.png
    assert len(one.corners) == 2


def test_any_text_is_drawn_without_a_warning() -> None:
    text = "Wo ist $x_1$ Wasser? 水はどこ? " * 40
    caption = Caption(question=text, answer=text, legend={"水": text[:300]}, lines=(text, "w" * 900))
    marks = [
        Mark(kind="point", geometry=shapely.Point(3, 3), name="水", text="1 水 $"),
        Mark(kind="polygon", geometry=shapely.MultiPolygon([shapely.box(0, 0, 3, 3), shapely.box(5, 5, 8, 8)])),
    ]
    sketch = render_sketch([picture(1, 1)], marks, caption)
    wide, tall = Image.open(io.BytesIO(sketch.png)).size
    assert (wide, tall < 3000) == (944, True)


def test_tracks_have_one_colour_each_and_lines_between() -> None:
    marks = [
        Mark(kind="point", geometry=shapely.Point(10 + 20 * time, 10 + 30 * track), name="car", text="car", track=track)
        for track in (1, 2)
        for time in range(4)
    ]
    sketch = render_sketch([picture(100, 100)], marks, CAPTION)
    drawn, (left, top) = pixels(sketch.png), sketch.corners[0]
    for track, expected in ((1, PALETTE[0]), (2, PALETTE[1])):
        between = drawn[top + (10 + 30 * track) * sketch.scale - 1, left + 20 * sketch.scale]
        assert np.abs(between - colour(expected)).sum() < 60


def test_names_can_be_told_apart_without_colour_when_colours_end() -> None:
    marks = [Mark(kind="box", geometry=shapely.box(0, 0, 1, 1), name=f"n{number}") for number in range(21)]
    looks = _looks(marks)
    assert len({(look.colour, str(look.style)) for look in looks.values()}) == 21
    assert {str(look.style) for look in looks.values()} == {str(style) for style in STYLES}


def test_the_palette_is_told_apart_by_readers_who_do_not_see_red_or_green() -> None:
    """Machado, Oliveira and Fernandes 2009, severity 1, in linear RGB; distances in CIELAB."""
    from skimage.color import rgb2lab

    kinds = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    }
    levels = np.array([colour(text) for text in PALETTE]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    for matrix in kinds.values():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        coded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab = rgb2lab(coded[None])[0]
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(lab), 1)]
        assert apart.min() > 9.0


boxes = strategies.lists(
    strategies.tuples(
        strategies.floats(0, 380), strategies.floats(0, 380), strategies.floats(2, 200), strategies.floats(2, 200)
    ),
    min_size=1,
    max_size=12,
)


@hypothesis.given(boxes)
def test_labels_stay_in_the_frame(found: list[tuple[float, float, float, float]]) -> None:
    own = np.array([(x, y, x + wide, y + tall) for x, y, wide, tall in found])
    for x, y in place_labels([(60.0, 16.0)] * len(own), own, own, (0.0, 0.0, 400.0, 400.0)):
        assert 0 <= x <= 340
        assert 0 <= y <= 384


def test_a_label_does_not_hide_its_thing_where_there_is_room() -> None:
    own = np.array([(100.0, 100.0, 140.0, 120.0), (0.0, 0.0, 30.0, 30.0), (370.0, 380.0, 400.0, 400.0)])
    places = place_labels([(60.0, 16.0)] * 3, own, own, (0.0, 0.0, 400.0, 400.0))
    labels = [shapely.box(x, y, x + 60, y + 16) for x, y in places]
    things = [shapely.box(*box) for box in own]
    assert max(label.intersection(thing).area for label in labels for thing in things) == 0.0


def test_a_thousand_things_are_drawn_without_labels() -> None:
    marks = [
        Mark(kind="box", geometry=shapely.box(x, y, x + 3, y + 3), name="car", text="car")
        for x in range(0, 400, 16)
        for y in range(0, 400, 16)
    ]
    sketch = render_sketch([picture(448, 448)], marks, CAPTION)
    assert sketch.scale == 2
