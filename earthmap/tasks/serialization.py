"""SLIS (spatial-linguistic isomorphic serialization): every spatial answer as text, and back without loss.

One grammar for all, in integers 0 to 1000 of the tile's side, x to the right, y downwards:

    text      = "none" | instance (";" instance)*
    instance  = ["#" track " "] [label ":"] shape ["@" time]
    shape     = "point[x,y]"
              | "box[left,top,right,bottom]"
              | "obox[x,y,x,y,x,y,x,y]"                 four corners, clockwise on the screen
              | "poly" part ("+" part)*                  part = "[" x,y,x,y … "]" outline, then its holes
              | "mask[" side ("|" row ":" run ("," run)*)* "]"     run = first column "+" length
    time      = date, instant or seconds: 2024-06-01 | 2024-06-01T10:30:00Z | 12.5s

Equal geometry gives equal text: rings run clockwise on the screen (holes against it) from their topmost, then leftmost
corner, parts and holes are sorted, and all of that is decided on the integers. So `parse(serialize(g))` is exactly
`quantize(g)`. The parser takes what a model wrote, whatever that is: it never raises, and says what it mended or left.

The name is the Earth-OneVision paper's (Cai et al., arXiv 2606.10819); its grammar is not public, this one is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from shapely.geometry import MultiPolygon, Polygon

from earthmap.errors import QueryError
from earthmap.tasks.quantization import BINS, Part, Ring, canonical_parts, canonical_quad, from_bins, snapped, to_bins

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

KINDS = ("point", "box", "oriented_box", "polygon", "mask")
"""What an instance may be; `WORDS` has their words in the text."""

MASK_SIDES = (8, 16, 32, 64)
"""Cells along one side of a mask's grid."""

MAX_LABEL = 64
"""Most characters of a label."""

WORDS = {"point": "point", "box": "box", "oriented_box": "obox", "polygon": "poly", "mask": "mask"}
_KIND_OF = {word: kind for kind, word in WORDS.items()}
_NOTHING = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One thing on the ground, or one state of it in time, in tile coordinates 0–1."""

    kind: str
    """One of KINDS."""
    geometry: BaseGeometry | None = None
    """Point, Polygon or MultiPolygon, x right and y down; None for a mask."""
    mask: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    """(side, side) True where it is, row 0 at the top; None for the other kinds."""
    label: str | None = None
    """What it is, in lower case."""
    time: str | None = None
    """Date, instant (UTC) or seconds (`12.5s`) at which it was there."""
    track: int | None = None
    """Number shared by the states of one thing."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.mask is None) != (self.kind != "mask"):
            raise QueryError(
                f"an instance of kind {self.kind!r} without its geometry", expected=f"of {', '.join(KINDS)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What was found in a model's text."""

    instances: tuple[Instance, ...] = ()
    repaired: int = 0
    """Instances whose geometry was mended: clamped, reordered, or made valid."""
    rejected: tuple[str, ...] = ()
    """One word for each instance that was given up: `cut off`, `corners`, `numbers`, `empty`, `mask`."""
    nothing: bool = False
    """The text says that there is nothing."""


def quantize(instance: Instance) -> Instance | None:
    """An instance in whole bins, as the text can say it; None where nothing of it is left.

    Example:
        >>> quantize(Instance(kind="point", geometry=Point(0.12345, 0.5))).geometry.wkt
        'POINT (0.123 0.5)'
    """
    plain = replace(instance, label=plain_label(instance.label))
    if instance.geometry is None:
        return plain
    parts = to_bins(instance.kind, instance.geometry)
    return replace(plain, geometry=from_bins(instance.kind, parts)) if parts else None


# ── integers → text ──────────────────────────────────────────────────────────────────────────────────────────


def _shape_text(instance: Instance) -> str:
    """The shape as text; empty where nothing of it is left after rounding."""
    if instance.mask is not None:
        return _mask_text(instance.mask)
    if instance.geometry is None:
        return ""
    parts = to_bins(instance.kind, instance.geometry)
    text = "+".join("".join(f"[{','.join(f'{x},{y}' for x, y in ring)}]" for ring in part) for part in parts)
    return WORDS[instance.kind] + text if parts else ""


def _mask_text(mask: NDArray[np.bool_]) -> str:
    side = _side(mask)
    rows = "".join(
        f"|{row}:" + ",".join(f"{start}+{length}" for start, length in _runs(line))
        for row, line in enumerate(mask)
        if line.any()
    )
    return f"mask[{side}{rows}]"


def _side(mask: NDArray[np.bool_]) -> int:
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1] or mask.shape[0] not in MASK_SIDES:
        raise QueryError(
            f"a mask of {mask.shape}", expected=f"a square of {', '.join(map(str, MASK_SIDES))} cells a side"
        )
    return int(mask.shape[0])


def _runs(line: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
    for start, end in edges.reshape(-1, 2).tolist():
        yield start, end - start


_LABEL = re.compile(r"[^\w /-]+", re.UNICODE)


def plain_label(label: str | None) -> str | None:
    """A label as the grammar can write it: lower case, letters, digits, spaces, hyphens and slashes; None for empty.

    Example:
        >>> plain_label(" Storage: TANK ")
        'storage tank'
    """
    text = " ".join(_LABEL.sub(" ", label or "").lower().split())[:MAX_LABEL].strip(" -/_")
    return text or None


_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}:\d{2}Z)?|\d{1,6}(?:\.\d{1,3})?s")


def is_time(text: str) -> bool:
    """Whether the grammar can write it: a day, an instant (UTC), or seconds.

    Example:
        >>> is_time("12.5s"), is_time("noon")
        (True, False)
    """
    return _TIME.fullmatch(text) is not None


def _instance_text(instance: Instance) -> str:
    shape = _shape_text(instance)
    if not shape:
        return ""
    label = plain_label(instance.label)
    if instance.time is not None and not is_time(instance.time):
        raise QueryError(f"the time {instance.time[:40]!r}", expected="2024-06-01, 2024-06-01T10:30:00Z or 12.5s")
    return "".join(
        [
            f"#{instance.track} " if instance.track is not None else "",
            f"{label}:" if label else "",
            shape,
            f"@{instance.time}" if instance.time else "",
        ]
    )


def serialize(instances: Iterable[Instance]) -> str:
    """The text of `instances` in their order; `none` where there are none. Equal geometry gives equal text.

    What lies outside the tile is cut off (corners of points and boxes are moved to its edge), broken outlines are
    mended, and an outline that has no area after rounding is left out.

    Raises:
        QueryError: for a time that is none, and a mask of an odd size.

    Example:
        >>> serialize([Instance(kind="box", geometry=shapely.box(0.1, 0.2, 0.3, 0.4), label="ship")])
        'ship:box[100,200,300,400]'
    """
    texts = [text for text in map(_instance_text, instances) if text]
    return ";".join(texts) if texts else _NOTHING


# ── text → geometry ──────────────────────────────────────────────────────────────────────────────────────────

_SHAPE = re.compile(r"(?<![a-z])(point|obox|box|poly|mask)\s{0,4}(?=\[)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_BEFORE = re.compile(r"(?:#\s?(\d{1,6})\s{0,2})?(?:([\w][\w /-]{0,63}?)\s{0,2}:\s{0,2})?$")
_AFTER = re.compile(r"\s{0,2}@\s{0,2}(" + _TIME.pattern + r")")
_LOOK_BACK = MAX_LABEL + 16


_GROUP = re.compile(r"\s{0,4}\[([^\[\]]*)(\]?)")


@dataclass(slots=True)
class _Text:
    """A text that is read once, from left to right."""

    text: str
    position: int = 0
    repaired: bool = False
    """The instance that is being read had to be mended."""

    def group(self) -> str:
        """What stands between the next brackets, which is passed by even where they never close."""
        match = _GROUP.match(self.text, self.position)
        if match is None:
            raise _Reject("cut off")
        if not match[2]:
            self.position = match.start(1)
            raise _Reject("cut off")
        self.position = match.end()
        return match[1]

    def passes(self, mark: str) -> bool:
        """True where `mark` comes next, which is passed then."""
        found = self.text.startswith(mark, self.position)
        self.position += found * len(mark)
        return found


class _Reject(Exception):
    """An instance is given up; its one argument is the word for why."""


def _integer(token: str, reading: _Text) -> int:
    """A coordinate in bins; a number that is none of 0 to 1000 is moved there."""
    if len(token) <= 4 and token.isdigit() and int(token) <= BINS:
        return int(token)
    reading.repaired = True
    if token.startswith("-"):
        return 0
    whole, _, fraction = token.partition(".")
    if len(whole.lstrip("0")) > 4:
        return BINS
    return min(round(float(f"{whole or 0}.{fraction[:6] or 0}")), BINS)


def _ring_of(reading: _Text) -> Ring:
    """The corners in the next pair of brackets."""
    numbers = [_integer(token, reading) for token in _NUMBER.findall(reading.group())]
    if len(numbers) % 2 or not numbers:
        raise _Reject("numbers")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _read_corners(kind: str, reading: _Text) -> tuple[Part, ...]:
    """The parts of a point or box: one ring of as many corners as its kind has."""
    ring = _ring_of(reading)
    if len(ring) != {"point": 1, "box": 2, "oriented_box": 4}[kind]:
        raise _Reject("numbers")
    canonical = ring
    if kind == "box":
        (x0, y0), (x1, y1) = ring
        canonical = ((min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1)))
    elif kind == "oriented_box":
        canonical = canonical_quad(ring)
    reading.repaired |= canonical != ring
    return ((canonical,),)


def _read_outline(reading: _Text) -> tuple[Part, ...]:
    """The parts of a polygon: as they stand where they are canonical and valid, else mended."""
    written: list[list[Ring]] = [[_ring_of(reading)]]
    while (further := reading.passes("+")) or reading.text.startswith("[", reading.position):
        ring = _ring_of(reading)
        written.append([ring]) if further else written[-1].append(ring)
    whole = [[ring for ring in part if len(ring) >= 3] for part in written]
    kept = [Polygon(part[0], part[1:]) for part in whole if part]
    if not kept:
        raise _Reject("corners")
    read = MultiPolygon(kept)
    parts = canonical_parts(read if read.is_valid else snapped(read))
    if not parts:
        raise _Reject("empty")
    reading.repaired |= parts != tuple(tuple(part) for part in written)
    return parts


def _read_mask(reading: _Text) -> NDArray[np.bool_]:
    head, *rows = reading.group().split("|")
    side = int(head) if head.strip().isdigit() and len(head) < 4 else 0
    if side not in MASK_SIDES:
        raise _Reject("mask")
    mask = np.zeros((side, side), np.bool_)
    for text in rows:
        row, _, runs = text.partition(":")
        found = re.findall(r"(\d{1,4})\s?\+\s?(\d{1,4})", runs)
        if not row.strip().isdigit() or len(row) > 4 or int(row) >= side or not found:
            reading.repaired = True
            continue
        for start, length in found:
            reading.repaired |= int(start) + int(length) > side
            mask[int(row), int(start) : int(start) + int(length)] = True
    return mask


def _read_instance(match: re.Match[str], reading: _Text) -> Instance:
    kind = _KIND_OF[match[1].lower()]
    before = _BEFORE.search(reading.text[max(match.start() - _LOOK_BACK, reading.position) : match.start()])
    reading.position, reading.repaired = match.end(), False
    if kind == "mask":
        found = Instance(kind=kind, mask=_read_mask(reading))
    else:
        parts = _read_outline(reading) if kind == "polygon" else _read_corners(kind, reading)
        found = Instance(kind=kind, geometry=from_bins(kind, parts))
    after = _AFTER.match(reading.text, reading.position)
    if after:
        reading.position = after.end()
    return replace(
        found,
        label=plain_label(before[2]) if before else None,
        track=int(before[1]) if before and before[1] else None,
        time=after[1] if after else None,
    )


def parse(text: str) -> Parsed:
    """What a text says, whoever wrote it. Never raises; reads each character a bounded number of times.

    What is no instance is passed over; an instance that is cut off or makes no sense is rejected with a word for why;
    numbers outside 0 to 1000 are moved to the edge, and outlines that cross themselves are mended, and counted.

    Example:
        >>> parse("I see ship:box[100,200,300,400]; and box[5,").rejected
        ('cut off',)
    """
    reading = _Text(text)
    instances: list[Instance] = []
    rejected: list[str] = []
    repaired = 0
    while (match := _SHAPE.search(text, reading.position)) is not None:
        try:
            instances.append(_read_instance(match, reading))
            repaired += reading.repaired
        except _Reject as reason:
            rejected.append(str(reason))
    nothing = not instances and not rejected and text.strip().lower().rstrip(".") == _NOTHING
    return Parsed(instances=tuple(instances), repaired=repaired, rejected=tuple(rejected), nothing=nothing)


# ── terminals ────────────────────────────────────────────────────────────────────────────────────────────────

_TERMINAL = re.compile(r"point|obox|box|poly|mask|none|\d|[^\W\d][^\d:;\[\]@#+|]*(?=:)|.", re.DOTALL)


def tokenize_spatial(text: str) -> list[str]:
    """The terminals of a text: each keyword, digit, separator and label on its own; joined they are the text.

    A tokenizer encodes each by itself, so that no merge of its own hides a digit.

    Example:
        >>> tokenize_spatial("ship:box[10,2")
        ['ship', ':', 'box', '[', '1', '0', ',', '2']
    """
    return _TERMINAL.findall(text)
