"""What a person labels: the squares of a sample as a GeoPackage, and how to go about it.

The layer to label holds nothing that says what the map says, not even the stratum, which would tell it: who knows the
answer agrees with it more often. How the units were drawn stands in a table beside it, for statistics programs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

SAMPLE_LAYER, DESIGN_TABLE, STYLE_TABLE = "sample", "design", "layer_styles"

STAMP = "2000-01-01T00:00:00Z"
"""Time that the GeoPackage says it was changed at, so that equal samples are equal files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """One unit as it is shown to who labels it, and how it was drawn."""

    id: str
    date: str
    """When its pictures were measured; empty where there is none."""
    lon: float
    lat: float
    ground: BaseGeometry
    """EPSG:4326."""
    chip: str
    """Path of its picture beside the GeoPackage; empty where there is none."""
    stratum: str
    mapped: str
    area_m2: float
    inclusion: float


def write_label_sheet(path: Path, rows: Sequence[LabelRow], *, choices: Sequence[str]) -> None:
    """Write the GeoPackage (EPSG:4326) with an empty column `label`, which QGIS offers `choices` for, if any."""
    import geopandas
    import pandas as pd

    frame = geopandas.GeoDataFrame(
        {
            "id": [row.id for row in rows],
            "label": pd.Series([None] * len(rows), dtype="string"),
            "date": [row.date for row in rows],
            "note": pd.Series([None] * len(rows), dtype="string"),
            "lon": [row.lon for row in rows],
            "lat": [row.lat for row in rows],
            "chip": [row.chip for row in rows],
        },
        geometry=[row.ground for row in rows],
        crs="EPSG:4326",
    )
    design = pd.DataFrame(
        {
            "id": [row.id for row in rows],
            "stratum": [row.stratum for row in rows],
            "mapped": [row.mapped for row in rows],
            "area_m2": [row.area_m2 for row in rows],
            "inclusion_probability": [row.inclusion for row in rows],
        }
    ).sort_values("id")
    with _stamped():
        frame.to_file(path, layer=SAMPLE_LAYER, driver="GPKG", engine="pyogrio")
        geopandas.GeoDataFrame(design).pipe(_write_table, path)
    _offer(path, choices)


def _write_table(table: object, path: Path) -> None:
    import pyogrio  # type: ignore[import-untyped]

    pyogrio.write_dataframe(table, path, layer=DESIGN_TABLE, driver="GPKG", append=True)


@contextmanager
def _stamped() -> Iterator[None]:
    import pyogrio

    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": STAMP})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _offer(path: Path, choices: Sequence[str]) -> None:
    """The style that QGIS opens the layer with: hollow squares, and a list to choose the label from."""
    create = (
        f"CREATE TABLE {STYLE_TABLE} (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT, "
        "f_table_schema TEXT, f_table_name TEXT, f_geometry_column TEXT, styleName TEXT, styleQML TEXT, styleSLD TEXT, "
        "useAsDefault BOOLEAN, description TEXT, owner TEXT, ui TEXT, update_time DATETIME)"
    )
    values = ("", "", SAMPLE_LAYER, "geom", "labelling", _qml(choices), "", True, "to label", "", "", STAMP)
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(create)
        base.execute(f"INSERT INTO {STYLE_TABLE} VALUES (1, {', '.join('?' * len(values))})", values)
        base.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change) "
            "VALUES (?, 'attributes', ?, '', ?)",
            (STYLE_TABLE, STYLE_TABLE, STAMP),
        )


def _qml(choices: Sequence[str]) -> str:
    from xml.sax.saxutils import quoteattr

    options = "".join(
        f'<Option type="Map"><Option type="QString" name={quoteattr(one)} value={quoteattr(one)}/></Option>'
        for one in choices
    )
    widget = (
        '<field name="label"><editWidget type="ValueMap"><config><Option type="Map">'
        f'<Option type="List" name="map">{options}</Option></Option></config></editWidget></field>'
    )
    return (
        '<!DOCTYPE qgis PUBLIC "http://mrcc.com/qgis.dtd" "SYSTEM">'
        '<qgis version="3.22" styleCategories="Symbology|Forms">'
        '<renderer-v2 type="singleSymbol" forceraster="0"><symbols><symbol type="fill" name="0" alpha="1">'
        '<layer class="SimpleFill" enabled="1"><Option type="Map"><Option type="QString" name="style" value="no"/>'
        '<Option type="QString" name="outline_color" value="255,220,0,255"/>'
        '<Option type="QString" name="outline_width" value="0.6"/></Option></layer></symbol></symbols></renderer-v2>'
        f"<fieldConfiguration>{widget if choices else ''}"
        '<field name="chip"><editWidget type="ExternalResource"><config><Option type="Map">'
        '<Option type="int" name="DocumentViewer" value="1"/><Option type="int" name="RelativeStorage" value="1"/>'
        "</Option></config></editWidget></field></fieldConfiguration></qgis>"
    )


def labelling_guide(
    *, text: str, dates: Sequence[str], choices: Mapping[str, str], command: str, count: int, tiles: bool = False
) -> str:
    """How to label pixels with classes, or `tiles` with counts, as plain text."""
    unit, what, judge = _TILES if tiles else _PIXELS
    listed = "\n".join(f"  {name:<16} {meaning}" for name, meaning in choices.items())
    return f"""How to label this sample
========================

Question: {text}
As it was on: {", ".join(dates)} (UTC)
Units: {count}, each {unit}. The order says nothing.

For each unit write into the column `label` {what}:

{listed}

- {judge}
- Use better sources where you have them (aerial images, field notes), of the same date.
- Do not look at the map's own result first: who knows it agrees with it more often than is right. For the same reason
  the layer does not say what the map says, and the table `design` beside it is not for looking at while labelling.
- Label every unit, the dull ones too. What is left empty is left out, and what is left out tends to be what is hard.
- `cannot tell` is a fair answer: it is counted, and told in the result.

In QGIS: open sample.gpkg, layer `sample`; its form shows the picture, and offers the labels where they are classes.
Switch on editing, label, save. The outlines lie on any background that you add.

In a notebook:

    import geopandas
    units = geopandas.read_file("sample.gpkg", layer="sample")
    units.loc[units.id == "…", "label"] = "…"
    units.to_file("labelled.gpkg")

A table (CSV) with the columns `id` and `label` does as well. Then:

    {command}
"""


_PIXELS = (
    "one pixel of the map",
    "what the pixel is on the date in its column `date`",
    "Judge the framed pixel itself by what covers most of it, not its surroundings.",
)
_TILES = (
    "one tile of the map",
    "how many there are on the date in its column `date`",
    "Count what has its middle within the frame and the tile's outline, each thing once.",
)


def chip_name(unit: str) -> str:
    """Where a unit's picture stands beside the GeoPackage."""
    return f"chips/{unit}.png"
