"""Styles that QGIS applies by itself: QML text, and a GeoPackage's `layer_styles` table.

Rules are a tree of question, date with sensor, and answer, so that each is a line of QGIS's list of layers to switch on
and off; what a report shows first is on. QGIS looks for a style in the table `layer_styles` of a GeoPackage
(QgsOgrUtils::loadStoredStyle: the row of the layer and its geometry column whose schema is '' and which is the
default), and else in the file of the layer's name with the ending .qml.

Text from outside stands in attributes of the XML, in expressions as a quoted literal, and in labels without the mark
that QGIS would compute as an expression. There is no map tip: its HTML would show attributes as markup.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from earthmap.outputs.drawing import FAILED, OTHER, QUIET, UNSEEN, Look
from earthmap.outputs.exchange import GEOMETRY, PLACE, Asked, LegendLine
from earthmap.outputs.markup import plain_text

MAX_RULES = 400
"""Rules with a symbol; a run of more has one for each answer, whatever its date, and one for the rest."""

_MOST = 80
"""Answers to one question that such a run has rules for."""

SHARES = 5
"""Steps in which shares are drawn."""

_SYMBOL_TYPES: Mapping[str, str] = {"Point": "marker", "LineString": "line", "Polygon": "fill"}


@dataclass(slots=True)
class Rule:
    """One line of the tree; with a look it is drawn."""

    label: str
    filter: str
    """QGIS expression."""
    shown: bool = True
    look: Look | None = None
    rules: list[Rule] = field(default_factory=list)


def text_literal(text: str) -> str:
    """A text in a QGIS expression (QgsExpression::quotedString)."""
    plain = text.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n").replace("\t", "\\t")
    return f"'{plain}'"


def label_text(text: str, limit: int = 80) -> str:
    """A text as one line of a legend, in which QGIS finds no expression to compute."""
    line = " ".join(text.split()).replace("[%", "[ %").replace("%]", "% ]")
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


# ── which rules ──────────────────────────────────────────────────────────────────────────────────────────────


def feature_rules(lines: Sequence[LegendLine]) -> list[Rule]:
    """The tree of a features layer."""
    by_date = sum(_leaves(line) for line in lines) <= MAX_RULES
    questions = []
    for number, (key, own) in enumerate(itertools.groupby(lines, lambda line: line.query_key)):
        mine = list(own)
        dates = [(place, list(found)) for place, found in itertools.groupby(mine, lambda line: line.place)]
        if by_date:
            rules = [
                Rule(
                    label_text(place),
                    f'"{PLACE}" = {text_literal(place)}',
                    place == dates[-1][0],
                    rules=_answers(found),
                )
                for place, found in dates
            ]
        else:
            each = list({line.answer: line for line in mine}.values())
            rules = _answers(each[:_MOST])
            if len(each) > _MOST:
                rules.append(Rule("other answers", "ELSE", look=Look(fill=OTHER, line=QUIET, alpha=0.5)))
        questions.append(_question(mine[0].query, key, number, rules))
    return questions


def coverage_rules(places: Sequence[tuple[str, str]], asked: Mapping[str, Asked]) -> list[Rule]:
    """The tree of a coverage layer: of each question and date what was answered, skipped and failed."""
    by_date = len(places) * len(_STATUS) <= MAX_RULES
    questions = []
    for number, (key, own) in enumerate(itertools.groupby(places, lambda pair: pair[0])):
        dates = [place for _, place in own]
        rules = _statuses()
        if by_date:
            rules = [
                Rule(label_text(place), f'"{PLACE}" = {text_literal(place)}', place == dates[-1], rules=_statuses())
                for place in dates
            ]
        questions.append(_question(asked[key].text, key, number, rules))
    return questions


def _question(text: str, key: str, number: int, rules: list[Rule]) -> Rule:
    return Rule(label_text(text), f'"query_key" = {text_literal(key)}', number == 0, rules=rules)


def _leaves(line: LegendLine) -> int:
    return SHARES if line.task == "fraction" else 1


def _answers(lines: Sequence[LegendLine]) -> list[Rule]:
    return [rule for line in lines for rule in (_shares(line) if line.task == "fraction" else [_answer(line)])]


def _answer(line: LegendLine) -> Rule:
    chosen = f'"answer" = {text_literal(line.answer)}' if line.answer else ""
    return Rule(label_text(line.name), chosen, look=line.look)


def _shares(line: LegendLine) -> Iterator[Rule]:
    for step in range(SHARES):
        low, high = step / SHARES, (step + 1) / SHARES
        last = step == SHARES - 1
        name = f"{' or '.join(line.name.split(':')[:1])}: {low:.0%} – {high:.0%}"
        look = Look(fill=line.look.fill, line=line.look.line, alpha=round(0.08 + 0.72 * (low + high) / 2, 3))
        chosen = f'"fraction" >= {low:g}' + ("" if last else f' AND "fraction" < {high:g}')
        yield Rule(label_text(name), chosen, look=look)


_STATUS: Mapping[str, tuple[str, Look]] = {
    "answered": ("seen and answered", Look(fill="#ffffff", line=QUIET, alpha=0.0)),
    "skipped": ("not seen", Look(fill=UNSEEN, line=UNSEEN, alpha=0.75, lost=True)),
    "failed": ("failed", Look(fill=FAILED, line=FAILED, alpha=0.75, lost=True)),
}


def _statuses() -> list[Rule]:
    return [Rule(name, f"\"status\" = '{status}'", look=look) for status, (name, look) in _STATUS.items()]


# ── QML ──────────────────────────────────────────────────────────────────────────────────────────────────────


def qml(rules: Sequence[Rule], *, kinds: Sequence[str] = ("Polygon",)) -> str:
    """A style as a QML document, for a layer with geometries of `kinds` (members of KINDS)."""
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology", labelsEnabled="0")
    renderer = ElementTree.SubElement(
        root, "renderer-v2", type="RuleRenderer", symbollevels="0", enableorderby="0", forceraster="0"
    )
    tree = ElementTree.SubElement(renderer, "rules", key=_key("root"))
    symbols: list[tuple[Look, str]] = []
    for number, rule in enumerate(rules):
        _add_rule(tree, rule, (str(number),), kinds, symbols)
    drawn = ElementTree.SubElement(renderer, "symbols")
    for number, (look, kind) in enumerate(symbols):
        _add_symbol(drawn, str(number), look, kind)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{text}\n"


def _key(path: str) -> str:
    return "{" + str(uuid.uuid5(uuid.NAMESPACE_OID, path)) + "}"


def _add_rule(
    parent: ElementTree.Element,
    rule: Rule,
    path: tuple[str, ...],
    kinds: Sequence[str],
    symbols: list[tuple[Look, str]],
) -> None:
    if rule.look is None:
        node = _rule_node(parent, rule.label, rule.filter, path, shown=rule.shown)
        for number, inner in enumerate(rule.rules):
            _add_rule(node, inner, (*path, str(number)), kinds, symbols)
        return
    for kind in kinds:
        alone = len(kinds) == 1
        parts = [rule.filter, "" if alone else f"geometry_type($geometry) = '{_GEOMETRY_TYPES[kind]}'"]
        label = rule.label if alone else f"{rule.label} ({_GEOMETRY_TYPES[kind].lower()})"
        node = _rule_node(parent, label, " AND ".join(part for part in parts if part), (*path, kind), shown=rule.shown)
        node.set("symbol", str(len(symbols)))
        symbols.append((rule.look, kind))


_GEOMETRY_TYPES = {"Point": "Point", "LineString": "Line", "Polygon": "Polygon"}
"""What QGIS's geometry_type() says."""


def _rule_node(
    parent: ElementTree.Element, label: str, chosen: str, path: tuple[str, ...], *, shown: bool
) -> ElementTree.Element:
    values = {"key": _key("/".join(path)), "label": plain_text(label), "checkstate": "1" if shown else "0"}
    if chosen:
        values["filter"] = plain_text(chosen)
    return ElementTree.SubElement(parent, "rule", values)


def _add_symbol(parent: ElementTree.Element, name: str, look: Look, kind: str) -> None:
    symbol = ElementTree.SubElement(
        parent, "symbol", name=name, type=_SYMBOL_TYPES[kind], alpha="1", clip_to_extent="1", force_rhr="0"
    )
    layer = ElementTree.SubElement(
        symbol, "layer", {"class": f"Simple{_SYMBOL_TYPES[kind].title()}", "enabled": "1", "locked": "0", "pass": "0"}
    )
    options = ElementTree.SubElement(layer, "Option", type="Map")
    for key, value in _properties(look, kind).items():
        ElementTree.SubElement(options, "Option", name=key, type="QString", value=value)


def _properties(look: Look, kind: str) -> dict[str, str]:
    """Of SimpleMarker, SimpleLine or SimpleFill."""
    fill, line = _rgba(look.fill, look.alpha), _rgba(look.line, 0.9)
    dash = "dash" if look.lost else "solid"
    if kind == "LineString":
        return {"line_color": _rgba(look.fill, 1.0), "line_width": "0.7", "line_width_unit": "MM", "line_style": dash}
    outline = {"outline_color": line, "outline_width": "0.26", "outline_width_unit": "MM"}
    if kind == "Point":
        disc = {"name": "circle", "size": "2.4", "size_unit": "MM"}
        return {"color": _rgba(look.fill, max(look.alpha, 0.7)), **disc, **outline}
    return {"color": fill, "style": "b_diagonal" if look.lost else "solid", **outline, "outline_style": dash}


def _rgba(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return f"{red},{green},{blue},{round(alpha * 255)}"


# ── GeoPackage ───────────────────────────────────────────────────────────────────────────────────────────────


def add_layer_styles(path: Path, styles: Mapping[str, str]) -> None:
    """Write a GeoPackage's `layer_styles` with the default style (QML) of each layer, as QGIS itself would.

    Columns and types are those of QgsOgrUtils::saveStyle; GDAL registers the table as `attributes`, without which QGIS
    does not find it.
    """
    import datetime

    import pyarrow as pa
    import pyogrio  # type: ignore[import-untyped]

    text, count = pa.string(), len(styles)
    now = datetime.datetime.now(datetime.UTC)
    columns: dict[str, Any] = {
        "f_table_catalog": pa.array([""] * count, text),
        "f_table_schema": pa.array([""] * count, text),
        "f_table_name": pa.array(list(styles), text),
        "f_geometry_column": pa.array([GEOMETRY] * count, text),
        "styleName": pa.array([f"earthmap {name}" for name in styles], text),
        "styleQML": pa.array(list(styles.values()), text),
        "styleSLD": pa.array([""] * count, text),
        "useAsDefault": pa.array([True] * count, pa.bool_()),
        "description": pa.array(["Questions, dates and answers as in the report"] * count, text),
        "owner": pa.array([""] * count, text),
        "ui": pa.array([None] * count, text),
        "update_time": pa.array([now] * count, pa.timestamp("ms", tz="UTC")),
    }
    pyogrio.write_arrow(
        pa.table(columns), path, layer="layer_styles", driver="GPKG", append=True, layer_options={"FID": "id"}
    )
