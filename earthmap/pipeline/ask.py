"""One question about one picture: the predictor's answer, and what was found at its place on the ground."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import shapely.affinity
from shapely.geometry.base import BaseGeometry

from earthmap.grid import to_lonlat
from earthmap.grid.projection import polygons_of
from earthmap.outputs import Caption, Mark, Sketch, SketchPicture, render_sketch
from earthmap.outputs.backdrop import METRES_PER_DEGREE
from earthmap.pipeline.subject import Subject
from earthmap.predict import Picture, Predictor
from earthmap.sensors import SENSORS, Reason, default_view, make_view
from earthmap.sensors.masks import unseen
from earthmap.tasks import TASKS, Answer, Query
from earthmap.tasks.answer import UNSEEN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.tasks.serialization import Instance

DECIMALS = 7
"""Of a degree: a centimetre."""

WHOLE = 0.9995
"""A picture of which so much was seen has no hatching worth a word."""

FEW = 0.01
"""A share below this is told as such: nought would say that nothing was seen."""

NOTES = 4
"""Notes that stand below a drawing."""

CURVE_PX = 0.05
"""How far an edge on the ground may lie from the straight one in the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """One thing that was found, or all of one class of a mask."""

    kind: str
    """One of `earthmap.tasks.serialization.KINDS`."""
    label: str | None
    score: float | None = None
    share: float | None = None
    """Of the seen ground that a class of a mask covers."""
    time: str | None = None
    track: int | None = None
    pixels: BaseGeometry = field(repr=False)
    """Where it is in the picture (core and halo): columns and rows, (0, 0) the outer corner of the first pixel."""
    place: BaseGeometry = field(repr=False)
    """The same in EPSG:4326, split at the antimeridian; of a photograph in its own pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to one question about one picture."""

    query: Query
    answer: Answer
    subject: Subject
    predictor: str
    """Its content key."""
    finds: tuple[Find, ...] = ()

    @property
    def on_ground(self) -> bool:
        """True where `Find.place` is in degrees."""
        return self.subject.geobox is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the answer should know: of the pixels, of the answer, of what was found in the padding."""
        rows, columns = self.subject.shape
        image = shapely.box(0, 0, columns, rows)
        beyond = sum(not find.pixels.intersects(image) for find in self.finds)
        said = (f"{beyond} of {len(self.finds)} found lie beyond the image's edge",) if beyond else ()
        return tuple(dict.fromkeys((*self.subject.notes, *self.answer.notes, *said)))

    @property
    def seen_share(self) -> float:
        """Share of the image's own pixels, or of the tile's core, that could be seen."""
        rows, columns = self.subject.shape
        core = self.subject.item.core
        whole = self.subject.item.tile is None
        size = rows * columns if whole else (core[0].stop - core[0].start) ** 2
        return self.answer.seen_px / size if size else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; geometries as GeoJSON in EPSG:4326, or in pixels of a photograph."""
        answer = self.answer
        return {
            "question": self.query.text,
            "task": self.query.task,
            "targets": list(self.query.targets),
            "status": answer.status,
            "answer": answer.value,
            "probability": answer.probability,
            "fraction": answer.fraction,
            "text": answer.text,
            "scores": dict(answer.scores),
            "embedding": None if answer.embedding is None else answer.embedding.tolist(),
            "reason": answer.reason,
            "message": answer.message,
            "seen_share": round(self.seen_share, 6),
            "notes": list(self.notes),
            "predictor": self.predictor,
            "pictures": [_described(picture) for picture in self.subject.item.pictures],
            "tile_id": self.subject.item.tile.id if self.subject.item.tile else None,
            "coordinates": "EPSG:4326" if self.on_ground else "pixels",
            "found": {"type": "FeatureCollection", "features": [_feature(find) for find in self.finds]},
        }


def ask_about(query: Query, subject: Subject, predictor: Predictor) -> Reply:
    """The answer of `predictor` to `query` about `subject`, and what was found at its place."""
    return make_reply(query, subject, predictor.predict([subject.item], [query])[0][0], predictor=predictor.key)


def make_reply(query: Query, subject: Subject, answer: Answer, *, predictor: str) -> Reply:
    """The reply that an answer comes to, with what was found at its place; `predictor` is the content key of who gave
    it."""
    return Reply(query=query, answer=answer, subject=subject, predictor=predictor, finds=tuple(_finds(answer, subject)))


def _described(picture: Picture) -> dict[str, Any]:
    return {
        "sensor": picture.sensor,
        "observation": picture.observation,
        "datetime": picture.datetime.isoformat() if picture.datetime else None,
        "bands": list(picture.bands),
        "size_px": list(picture.mask.shape[::-1]),
    }


def _feature(find: Find) -> dict[str, Any]:
    names = ("kind", "label", "score", "share", "time", "track")
    place = shapely.transform(find.place, lambda xy: np.round(xy, DECIMALS))
    return {
        "type": "Feature",
        "geometry": shapely.geometry.mapping(place),
        "properties": {name: value for name in names if (value := getattr(find, name)) is not None},
    }


# ── where things are ─────────────────────────────────────────────────────────────────────────────────────────


def _finds(answer: Answer, subject: Subject) -> Iterator[Find]:
    """Instances in the model's order; else the classes of a mask, in the legend's."""
    side = subject.item.side_px
    scores = answer.instance_scores or (None,) * len(answer.instances)
    for instance, score in zip(answer.instances, scores, strict=True):
        pixels = _pixels_of(instance, side)
        if not pixels.is_empty:
            yield Find(
                kind=instance.kind,
                label=instance.label,
                score=score,
                time=instance.time,
                track=instance.track,
                pixels=pixels,
                place=_place(pixels, subject),
            )
    if not answer.instances and answer.mask is not None:
        yield from _classes(answer, answer.mask, subject)


def _classes(answer: Answer, mask: NDArray[np.uint8], subject: Subject) -> Iterator[Find]:
    rows, columns = subject.item.core
    for code, name in answer.legend.items():
        own = mask == code
        if own.any():
            pixels = shapely.affinity.translate(_outline(own), columns.start, rows.start)
            share = float(own.sum() / max((mask != UNSEEN).sum(), 1))
            yield Find(kind="mask", label=name, share=share, pixels=pixels, place=_place(pixels, subject))


def _pixels_of(instance: Instance, side: int) -> BaseGeometry:
    """An instance in pixels of a picture of `side` × `side`; empty where it is nowhere."""
    if instance.mask is not None:
        return shapely.affinity.scale(
            _outline(instance.mask), side / len(instance.mask), side / len(instance.mask), origin=(0, 0)
        )
    if instance.geometry is None:
        return shapely.Point()
    return shapely.affinity.scale(instance.geometry, side, side, origin=(0, 0))


def _outline(where: NDArray[np.bool_]) -> BaseGeometry:
    """The pixels that are True as a MultiPolygon along their edges; those that touch at a corner stay apart."""
    from rasterio.features import shapes

    parts = [shapely.geometry.shape(part) for part, _ in shapes(where.astype(np.uint8), mask=where, connectivity=4)]
    return polygons_of(shapely.GeometryCollection(parts))


def _place(pixels: BaseGeometry, subject: Subject) -> BaseGeometry:
    """From pixels of the picture to degrees, or to pixels of the photograph."""
    if subject.geobox is None:
        return shapely.affinity.translate(pixels, *subject.corner_px)
    affine, crs = subject.geobox.affine, subject.geobox.crs
    plane = shapely.affinity.affine_transform(pixels, (affine.a, affine.b, affine.d, affine.e, affine.c, affine.f))
    pixel_m = np.sqrt(abs(affine.determinant)) * (METRES_PER_DEGREE if crs and crs.geographic else 1.0)
    return to_lonlat(plane, crs, tolerance_m=min(0.1, CURVE_PX * pixel_m))


# ── what people see ──────────────────────────────────────────────────────────────────────────────────────────


def headline(reply: Reply) -> str:
    """The answer in one line."""
    answer, task = reply.answer, TASKS[reply.query.task]
    if answer.status != "answered":
        return f"not answered, {answer.reason}: {answer.message}"
    sure = f" (probability {answer.probability:.2f})" if answer.probability is not None else ""
    if task.answer == "mask":
        parts = [f"{find.label} {find.share:.1%}" for find in reply.finds if find.share is not None]
        return (", ".join(parts) + " of the seen ground" if parts else f"no {' or '.join(reply.query.targets)}") + sure
    if task.answer == "share":
        return f"{answer.fraction or 0.0:.1%} of the seen ground is {' or '.join(reply.query.targets)}{sure}"
    if task.answer in ("instances", "count", "tracks"):
        return f"{answer.value} found{sure}"
    value = (answer.text if task.answer == "text" else answer.value) or "none"
    covered = f"; {answer.fraction:.1%} of the seen ground" if answer.fraction is not None else ""
    return value + sure + covered


def tell(reply: Reply) -> list[str]:
    """The reply in lines for a terminal: answer, scores, what was found and where, what was looked at, notes."""
    lines = [headline(reply)]
    lines += [f"  {name}: {score:.2f}" for name, score in sorted(reply.answer.scores.items(), key=lambda one: -one[1])]
    lines += [_line(number, find, reply) for number, find in enumerate(reply.finds, 1) if find.share is None]
    return [*lines, *looked_at(reply), *(f"note: {note}" for note in reply.notes)]


def _line(number: int, find: Find, reply: Reply) -> str:
    """One thing: what, how surely, and where: its middle, and west, south, east, north (of a photograph in pixels)."""
    decimals = 6 if reply.on_ground else 1
    west, south, east, north = find.place.bounds
    middle = find.place.centroid
    words = [f"{number:3d}", find.label or "thing"]
    words += [f"#{find.track}"] if find.track is not None else []
    words += [f"@{find.time}"] if find.time else []
    words += [f"{find.score:.2f}"] if find.score is not None else []
    words += [find.kind, f"at {middle.x:.{decimals}f},{middle.y:.{decimals}f}"]
    if find.kind != "point":
        words.append("in " + ",".join(f"{edge:.{decimals}f}" for edge in (west, south, east, north)))
    return "  ".join(words)


def looked_at(reply: Reply) -> list[str]:
    """Sensor and time of each picture; size, place, and how much of it could be seen."""
    subject = reply.subject
    pictures = [f"{picture.sensor} {time_label(picture)}" for picture in subject.item.pictures]
    rows, columns = subject.shape
    where = subject.item.tile.id if subject.item.tile else subject.name
    share = "under 1%" if reply.seen_share < FEW else f"{reply.seen_share:.0%}"
    seen = f", {share} seen" if reply.answer.status == "answered" else ""
    return [f"{' and '.join(pictures)}, {columns} × {rows} pixels of {where}{seen}"]


def time_label(picture: Picture) -> str:
    """`2024-05-04 10:31 UTC`, or that it has no date."""
    return f"{picture.datetime:%Y-%m-%d %H:%M} UTC" if picture.datetime else "of unknown date"


def shown_view(picture: Picture) -> NDArray[np.uint8]:
    """The picture in its sensor's first view for people, (y, x, 3); radar in grey.

    Raises:
        SensorError: where its bands make no view.
    """
    name = default_view(picture.sensor, picture.bands)
    rgb = make_view(name, picture.bands, picture.data, picture.mask)
    return np.repeat(rgb[..., :1], 3, axis=-1) if SENSORS[picture.sensor].is_sar else rgb


def draw(reply: Reply) -> Sketch:
    """The picture (of several the first and the last) with what was found drawn on the last.

    Raises:
        SensorError: where its bands make no view.
    """
    pictures = reply.subject.item.pictures
    shown = pictures if len(pictures) <= 2 else (pictures[0], pictures[-1])
    marks = [
        Mark(
            kind=find.kind,
            geometry=find.pixels,
            name=find.label or "thing",
            text=_label(number, find, len(reply.finds)),
            track=find.track,
        )
        for number, find in enumerate(reply.finds, 1)
    ]
    return render_sketch([_sketched(picture, reply) for picture in shown], marks, _caption(reply))


def _label(number: int, find: Find, count: int) -> str:
    """What stands beside a thing; its number is that of its line in `tell`."""
    if find.share is not None:
        return ""
    score = f" {find.score:.0%}" if find.score is not None else ""
    return (f"{number} " if count > 1 else "") + (find.label or "thing") + score


def _sketched(picture: Picture, reply: Reply) -> SketchPicture:
    rows, columns = reply.subject.shape
    part = (slice(0, rows), slice(0, columns))
    hidden = np.zeros(picture.mask.shape, np.bool_)
    if reply.answer.mask is not None:
        hidden[reply.subject.item.core] = reply.answer.mask == UNSEEN
    else:
        hidden = unseen(picture.mask, reply.query.unseen)
    return SketchPicture(
        rgb=shown_view(picture)[part],
        empty=(picture.mask == Reason.NODATA)[part],
        hidden=hidden[part],
        title=f"{picture.sensor}, {time_label(picture)}",
    )


def _caption(reply: Reply) -> Caption:
    subject = reply.subject
    core = subject.item.core
    return Caption(
        question=reply.query.text,
        answer=headline(reply),
        legend=_legend(reply.finds),
        lines=(*looked_at(reply), *(["hatched: not seen"] if reply.seen_share < WHOLE else []), *reply.notes[:NOTES]),
        metres_per_px=_pixel_m(subject) if subject.geobox is not None else None,
        core=None if subject.item.tile is None else (core[1].start, core[0].start, core[1].stop, core[0].stop),
    )


def _legend(finds: Sequence[Find]) -> dict[str, str]:
    """Each name (each track of it) with its share or count."""
    legend: dict[str, str] = {}
    for find in finds:
        name = find.label or "thing"
        if find.share is not None:
            legend[name] = f"{name} {find.share:.1%}"
        elif find.track is not None:
            legend[f"{name} #{find.track}"] = f"{name} #{find.track}"
        else:
            count = sum(one.label == find.label for one in finds)
            legend[name] = f"{name} × {count}"
    return legend


def _pixel_m(subject: Subject) -> float:
    """Side of a pixel on the ground in metres, in the middle of the picture."""
    from earthmap.grid.lonlat import area_m2

    half = subject.item.side_px / 2
    pixel = _place(shapely.box(half, half, half + 1, half + 1), subject)
    return float(np.sqrt(area_m2(pixel)))
