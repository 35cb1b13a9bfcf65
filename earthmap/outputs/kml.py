"""KML 2.2 (OGC 07-147r2): results for Google Earth, with styles, names and descriptions.

A folder for each question and date holds one for each answer, so that they can be switched; what a report shows first
is visible. There are no altitudes: shapes lie on the ground. All text from outside is escaped twice where it is read as
HTML (descriptions), else once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import shapely

from earthmap.outputs.drawing import FAILED, UNSEEN, Look, is_shared, look_of
from earthmap.outputs.exchange import DIGITS, PLACE, Asked, LegendLine, exported, exported_schema
from earthmap.outputs.markup import escaped
from earthmap.outputs.numbers import format_km2, format_share

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = (
    "query", "answer", "probability", PLACE, "area_m2", "length_m", "speed_m_s", "times", "scenes", "notes",
    "predictor",
)  # fmt: skip
"""Columns of a description."""

_UNSEEN = {"skipped": Look(fill=UNSEEN, line=UNSEEN, alpha=0.35), "failed": Look(fill=FAILED, line=FAILED, alpha=0.35)}


def colour(hexadecimal: str, alpha: float) -> str:
    """`#rrggbb` as KML's aabbggrr."""
    red, green, blue = hexadecimal[1:3], hexadecimal[3:5], hexadecimal[5:7]
    return f"{round(alpha * 255):02x}{blue}{green}{red}"


def write_kml(
    features: Path, coverage: Path, asked: Mapping[str, Asked], *, lines: Sequence[LegendLine], title: str, path: Path
) -> int:
    """Write every feature, and the tiles that were not seen; returns the number of features.

    Args:
        features: features.parquet, a local file.
        coverage: coverage.parquet.
        asked: the questions.
        lines: `read_legend` of the features.
        title: name of the document.
        path: file to write.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, path.open("w", encoding="utf-8") as sink:
        folders = _Folders(Path(scratch), asked)
        styles = {(line.query_key, line.place, line.answer): (f"s{n}", line) for n, line in enumerate(lines)}
        names = {key: style for key, (style, _) in styles.items()}
        count = _spread_features(features, asked, names, folders)
        _spread_coverage(coverage, asked, folders)
        sink.write('<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2"><Document>')
        sink.write(f"<name>{escaped(title)}</name><open>1</open>\n")
        for style, line in styles.values():
            sink.write(_style(style, line.look))
        for status, look in _UNSEEN.items():
            sink.write(_style(status, look))
        for name, source in (("features", features), ("coverage", coverage)):
            sink.write(_schema(name, exported_schema(source, asked)))
        folders.write(sink, lines)
        sink.write("</Document></kml>\n")
    return count


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────

_Key = tuple[str, str, str]
"""Query key, value of PLACE, and answer, or status with a colon before it."""


class _Folders:
    """Placemarks, each folder's in a file of its own until all are known."""

    def __init__(self, scratch: Path, asked: Mapping[str, Asked]) -> None:
        self.scratch, self.asked = scratch, asked
        self.keys: dict[_Key, int] = {}

    def add(self, key: _Key, placemarks: str) -> None:
        """More of one folder."""
        number = self.keys.setdefault(key, len(self.keys))
        with (self.scratch / str(number)).open("a", encoding="utf-8") as file:
            file.write(placemarks)

    def write(self, sink: IO[str], lines: Sequence[LegendLine]) -> None:
        """All folders, one in the other; of the first question its last date is visible."""
        order = [(line.query_key, line.place, line.answer) for line in lines]
        named = {key: line.name for key, line in zip(order, lines, strict=True)}
        order += sorted(set(self.keys) - set(order), key=lambda key: (list(self.asked).index(key[0]), key))
        first = order[0][0] if order else ""
        last = max((place for key, place, _ in order if key == first), default="")
        for query in dict.fromkeys(key for key, _, _ in order):
            sink.write(f"<Folder><name>{escaped(self.asked[query].text)}</name>\n")
            for place in dict.fromkeys(place for key, place, _ in order if key == query):
                visible = (query, place) == (first, last)
                sink.write(f"<Folder><name>{escaped(place)}</name><visibility>{int(visible)}</visibility>\n")
                for key in [key for key in order if key[:2] == (query, place)]:
                    name = named.get(key) or {":skipped": "not seen", ":failed": "failed"}.get(key[2], key[2])
                    self._copy(sink, key, name, visible=visible)
                sink.write("</Folder>\n")
            sink.write("</Folder>\n")

    def _copy(self, sink: IO[str], key: _Key, name: str, *, visible: bool) -> None:
        sink.write(f"<Folder><name>{escaped(name)}</name><visibility>{int(visible)}</visibility>\n")
        with suppress(KeyError), (self.scratch / str(self.keys[key])).open(encoding="utf-8") as file:
            for line in file:
                sink.write(line if visible else line.replace("<Placemark>", _HIDDEN, 1))
        sink.write("</Folder>\n")


_HIDDEN = "<Placemark><visibility>0</visibility>"


def _spread_features(path: Path, asked: Mapping[str, Asked], styles: Mapping[_Key, str], folders: _Folders) -> int:
    count = 0
    for batch in exported(path, asked):
        together: dict[_Key, list[str]] = {}
        for row in _rows(batch):
            key = (row["query_key"], row[PLACE], "" if is_shared(row["task"]) else str(row["answer"]))
            style = f"<styleUrl>#{styles[key]}</styleUrl>"
            if row["task"] == "fraction":
                style = _symbols(look_of("", task="fraction", targets=asked[key[0]].targets), share=row["fraction"])
            says = _describe((name, row[name]) for name in _SHOWN if row.get(name) is not None)
            together.setdefault(key, []).append(_placemark(row, _headline(row), says, style, "features"))
        for key, placemarks in together.items():
            folders.add(key, "".join(placemarks))
        count += len(batch)
    return count


def _spread_coverage(path: Path, asked: Mapping[str, Asked], folders: _Folders) -> None:
    for batch in exported(path, asked):
        for row in _rows(batch):
            if row["status"] != "answered":
                says = _describe((name, row[name]) for name in ("query", "reason", "message") if row[name] is not None)
                placemark = _placemark(row, row["tile_id"], says, f"<styleUrl>#{row['status']}</styleUrl>", "coverage")
                folders.add((row["query_key"], row[PLACE], f":{row['status']}"), placemark)


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    rows: list[dict[str, Any]] = batch.to_pylist()
    return iter(rows)


# ── placemarks ───────────────────────────────────────────────────────────────────────────────────────────────


def _headline(row: Mapping[str, Any]) -> str:
    if row["task"] == "fraction" and row["fraction"] is not None:
        return f"{format_share(row['fraction'])} of the seen ground"
    text = str(row["answer"])
    return text if len(text) <= 60 else f"{text[:59]}…"


def _describe(facts: Iterable[tuple[str, Any]]) -> str:
    """A table as HTML, in which every text is escaped; escaped once more, for it stands in XML."""
    lines = "".join(
        f"<tr><th>{escaped(name.replace('_', ' '))}</th><td>{escaped(_said(name, value))}</td></tr>"
        for name, value in facts
    )
    return escaped(f"<table>{lines}</table>")


def _said(name: str, value: Any) -> str:
    if name == "area_m2":
        return format_km2(value / 1e6)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _placemark(row: Mapping[str, Any], name: str, description: str, style: str, schema: str) -> str:
    data = "".join(
        f'<SimpleData name="{column}">{escaped(_value(value))}</SimpleData>'
        for column, value in row.items()
        if column != "geometry" and value is not None
    )
    return (
        f'<Placemark><name>{escaped(name)}</name><Snippet maxLines="0"></Snippet>'
        f"<description>{description}</description>{style}"
        f'<ExtendedData><SchemaData schemaUrl="#{schema}">{data}</SchemaData></ExtendedData>'
        f"{_geometry(shapely.from_wkb(row['geometry']))}</Placemark>\n"
    )


def _value(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else repr(value) if isinstance(value, float) else str(value)


def _geometry(shape: Any) -> str:
    parts = [_part(part) for part in shapely.get_parts(shape)]
    return parts[0] if len(parts) == 1 else f"<MultiGeometry>{''.join(parts)}</MultiGeometry>"


def _part(shape: Any) -> str:
    if shape.geom_type != "Polygon":
        return f"<{shape.geom_type}>{_coordinates(shape)}</{shape.geom_type}>"
    turned = shapely.orient_polygons(shape, exterior_cw=False)
    edge = f"<outerBoundaryIs><LinearRing>{_coordinates(turned.exterior)}</LinearRing></outerBoundaryIs>"
    holes = "".join(
        f"<innerBoundaryIs><LinearRing>{_coordinates(ring)}</LinearRing></innerBoundaryIs>" for ring in turned.interiors
    )
    return f"<Polygon>{edge}{holes}</Polygon>"


def _coordinates(shape: Any) -> str:
    places = " ".join(f"{x:.{DIGITS}f},{y:.{DIGITS}f}" for x, y in shapely.get_coordinates(shape))
    return f"<coordinates>{places}</coordinates>"


# ── styles and columns ───────────────────────────────────────────────────────────────────────────────────────


def _style(name: str, look: Look) -> str:
    return _symbols(look).replace("<Style>", f'<Style id="{name}">', 1) + "\n"


def _symbols(look: Look, *, share: float | None = None) -> str:
    """The look of areas, lines and points; lost ground is an outline, for KML knows no hatching."""
    alpha = 0.08 + 0.72 * share if share is not None else look.alpha
    icon = f"<IconStyle><color>{colour(look.fill, 1.0)}</color><scale>0.7</scale></IconStyle>"
    line = f"<LineStyle><color>{colour(look.line, 0.9)}</color><width>{3 if look.lost else 1.5}</width></LineStyle>"
    area = f"<PolyStyle><color>{colour(look.fill, 0.15 if look.lost else alpha)}</color></PolyStyle>"
    return f"<Style>{icon}<LabelStyle><scale>0</scale></LabelStyle>{line}{area}</Style>"


def _schema(name: str, schema: pa.Schema) -> str:
    import pyarrow as pa

    types = {one.name: "double" if pa.types.is_floating(one.type) else "string" for one in schema}
    types.pop("geometry")
    fields = "".join(f'<SimpleField type="{kind}" name="{one}"></SimpleField>' for one, kind in types.items())
    return f'<Schema name="{name}" id="{name}">{fields}</Schema>\n'
