"""Where the panels of a still picture lie, so that the maps in them are as large as they can be."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

Bounds = tuple[float, float, float, float]

WIDTH_IN, HEIGHT_IN = 12.0, 9.0
SIDE_IN, GAP_IN, HEAD_IN, FOOT_IN, LEGEND_IN = 0.36, 0.2, 0.85, 0.28, 0.24
"""Of several panels: beside them, between them, above and below all of them, and a line of the legend."""
TITLE_IN, LINE_IN, NOTE_IN = 0.4, 0.145, 2.6
"""The height of a panel's title and of each line of its numbers, and the width that these need."""
LETTERS = 15.8
"""Of such a line to an inch."""
MIN_WIDTH_IN = 6.4
"""Of a picture of several panels, which is no wider than they are."""


def shorten(text: str, limit: int) -> str:
    """The text on one line of at most `limit` letters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def wrap(text: str, width: int) -> list[str]:
    """At most three lines: a number that is cut off says something else."""
    lines = textwrap.wrap(text, width) or [""]
    return lines if len(lines) <= 3 else [*lines[:2], shorten(" ".join(lines[2:]), width)]


@dataclass(frozen=True, slots=True)
class Sheet:
    """How large the picture is, and where its panels lie: left, bottom, width, height of each, in shares of it."""

    width_in: float
    height_in: float
    places: Sequence[tuple[float, float, float, float]]

    def below(self, inches: float) -> float:
        """The share of the height that lies so far below the upper edge."""
        return 1.0 - inches / self.height_in


@dataclass(frozen=True, slots=True)
class _Grid:
    """A grid of panels in inches."""

    columns: int
    wide: float
    """Of a map."""
    pitch: float
    """Of a panel, which may be wider than its map."""
    titles: tuple[float, ...]
    """Height of the titles above the maps of each row."""


def lay_out(notes: Sequence[str], frame: Bounds, squeeze: float, *, legend_rows: int = 1) -> Sheet:
    """Of all grids of panels the one with the largest at this shape; the picture is as large as they need.

    Args:
        notes: the numbers of each panel.
        frame: what each panel shows.
        squeeze: length of a unit of x beside one of y.
        legend_rows: lines of the legend.
    """
    count, foot = len(notes), FOOT_IN + LEGEND_IN * max(1, legend_rows)
    if count == 1:
        return Sheet(WIDTH_IN, HEIGHT_IN, [(0.075, 0.09, 0.895, 0.80)])
    shape = max(1e-3, (frame[2] - frame[0]) * squeeze) / max(1e-3, frame[3] - frame[1])
    grids = [_grid(columns, notes, shape, HEIGHT_IN - HEAD_IN - foot) for columns in range(1, count + 1)]
    grid = max(grids, key=lambda one: (round(one.wide, 6), -one.columns))
    rows, high = -(-count // grid.columns), grid.wide / shape
    total = round(HEAD_IN + foot + rows * high + sum(grid.titles), 6)
    across = grid.columns * grid.pitch + (grid.columns - 1) * GAP_IN
    width = round(min(WIDTH_IN, max(MIN_WIDTH_IN, across + 2 * SIDE_IN)), 2)
    left = (width - across) / 2
    places = [
        (
            (left + number % grid.columns * (grid.pitch + GAP_IN)) / width,
            1.0 - (HEAD_IN + sum(high + title for title in grid.titles[: number // grid.columns + 1])) / total,
            grid.pitch / width,
            high / total,
        )
        for number in range(count)
    ]
    return Sheet(width, total, places)


def _grid(columns: int, notes: Sequence[str], shape: float, room: float) -> _Grid:
    """The largest maps in so many columns and `room` inches of height; titles as high as the longest note needs."""
    rows = -(-len(notes) // columns)
    most = (WIDTH_IN - 2 * SIDE_IN - GAP_IN * (columns - 1)) / columns
    pitch = most
    for _ in range(2):  # narrower panels have longer notes, which leave less for the maps
        lines = [len(wrap(note, letters(pitch))) if note else 0 for note in notes]
        titles = tuple(TITLE_IN + LINE_IN * max(lines[row * columns : (row + 1) * columns]) for row in range(rows))
        wide = max(0.2, min(most, (room - sum(titles)) / rows * shape))
        pitch = max(wide, min(NOTE_IN, most))
    return _Grid(columns, wide, pitch, titles)


def letters(inches: float) -> int:
    """Letters of a line of numbers in so many inches."""
    return max(8, int(inches * LETTERS))
