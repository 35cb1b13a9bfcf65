"""A finished run in the formats of other programs: `earthmap export`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from earthmap.errors import JobError, RunFolderError
from earthmap.outputs.exchange import (
    Asked,
    kinds_in,
    read_asked,
    read_legend,
    read_places,
    write_flatgeobuf,
    write_geojson,
    write_geopackage_layer,
)
from earthmap.outputs.kml import write_kml
from earthmap.outputs.qgis import add_layer_styles, coverage_rules, feature_rules, qml
from earthmap.pipeline.folder import COVERAGE_PATH, FEATURES_PATH
from earthmap.storage import Storage

if TYPE_CHECKING:
    from earthmap.pipeline.folder import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    files: tuple[str, ...]
    """Addresses, the one that was asked for first."""
    features: int
    """Rows of features.parquet, all of which it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A run as local files, and where its export is put together."""

    features: Path
    coverage: Path
    asked: Mapping[str, Asked]
    title: str
    about: Mapping[str, str]
    folder: Path


def export_run(run: Run, *, to: str, out: str | None = None, overwrite: bool = False) -> Exported:
    """Write a finished run as GeoPackage, GeoJSON, KML or FlatGeobuf, with styles that QGIS reads.

    A GeoPackage holds features, coverage and their styles. Of GeoJSON and FlatGeobuf, which hold one layer, there are
    files for features and coverage, each with its style beside it (`.qml`). KML holds the features, and the tiles that
    were not seen.

    Args:
        run: the run.
        to: one of FORMATS.
        out: file or s3:// address; None for `features` with the format's ending in the run folder.
        overwrite: whether files that are there are replaced.

    Raises:
        JobError: for an unknown format, or a name that does not end as the format does.
        RunFolderError: where a file is there already.
        StorageError: where it cannot be written.
    """
    if to not in FORMATS:
        raise JobError(f"--to {to!r} is no format", expected=f"one of {', '.join(FORMATS)}")
    write = FORMATS[to]
    folder, name = _target(run, to, out)
    with tempfile.TemporaryDirectory(prefix="earthmap-") as scratch:
        names = _names(name, to)
        if not overwrite:
            _refuse_existing(folder, [own for own in names if not own.endswith(".qml")])
        source = _fetch(run, Path(scratch))
        count = write(source, names)
        if not overwrite:
            _refuse_existing(folder, [own for own in names if own.endswith(".qml") and _differs(folder, own, source)])
        for own in names:
            folder.write_file(own, source.folder / own)
    return Exported(files=tuple(folder.locate(own) for own in names), features=count)


def _target(run: Run, to: str, out: str | None) -> tuple[Storage, str]:
    """The folder to write to, and the first file's name in it."""
    if out is None:
        return run.storage, f"features.{to}"
    folder, _, name = out.rpartition("/")
    endings = (f".{to}", ".json") if to == "geojson" else (f".{to}",)
    if not name.lower().endswith(endings) or len(name) <= len(to) + 1 or ("://" not in out and Path(out).is_dir()):
        raise JobError(f"--out {out!r} is not the name of a {to} file", expected=f"a name such as result.{to}")
    return Storage(folder or ("/" if out.startswith("/") else ".")), name


def _names(name: str, to: str) -> list[str]:
    """The files of an export: of a format of one layer also the coverage's, and styles."""
    if to in ("gpkg", "kml"):
        return [name]
    stem, _, ending = name.rpartition(".")
    coverage = "coverage" if stem == "features" else f"{stem}_coverage"
    return [name, f"{stem}.qml", f"{coverage}.{ending}", f"{coverage}.qml"]


def _refuse_existing(folder: Storage, names: list[str]) -> None:
    for name in names:
        if folder.exists(name):
            raise RunFolderError(
                f"{folder.locate(name)} is there already", fix="name another file with --out, or say --overwrite"
            )


def _differs(folder: Storage, name: str, source: _Source) -> bool:
    """Whether another style is there; GeoJSON and FlatGeobuf of one run share theirs."""
    return folder.exists(name) and folder.read(name) != (source.folder / name).read_bytes()


def _fetch(run: Run, scratch: Path) -> _Source:
    import earthmap

    paths = [scratch / FEATURES_PATH, scratch / COVERAGE_PATH]
    for path in paths:
        path.write_bytes(run.storage.read(path.name))
    asked = read_asked(run.summary)
    folder = scratch / "export"
    folder.mkdir()
    about = {"earthmap": earthmap.__version__, "job": json.dumps(run.job.to_dict(), ensure_ascii=False, default=str)}
    title = "; ".join(one.text for one in asked.values())
    return _Source(features=paths[0], coverage=paths[1], asked=asked, title=title, about=about, folder=folder)


def _styles(source: _Source) -> tuple[str, str]:
    """QML of features and coverage where they are one layer each."""
    found = qml(feature_rules(read_legend(source.features, source.asked)), kinds=kinds_in(source.features))
    return found, qml(coverage_rules(read_places(source.coverage, source.asked), source.asked))


def _geopackage(source: _Source, names: list[str]) -> int:
    path, kinds = source.folder / names[0], kinds_in(source.features)
    rules, styles, count = feature_rules(read_legend(source.features, source.asked)), {}, 0
    layers = {"Polygon": "features", "LineString": "features_lines", "Point": "features_points"}
    for kind in kinds if len(kinds) > 1 else kinds[:1]:
        name = layers[kind] if len(kinds) > 1 else "features"
        styles[name] = qml(rules, kinds=[kind])
        count += write_geopackage_layer(
            source.features, source.asked, path=path, layer=name, kind=kind, about=source.about
        )
    write_geopackage_layer(
        source.coverage, source.asked, path=path, layer="coverage", kind="Polygon", about=source.about
    )
    styles["coverage"] = qml(coverage_rules(read_places(source.coverage, source.asked), source.asked))
    add_layer_styles(path, styles)
    return count


def _geojson(source: _Source, names: list[str]) -> int:
    count = write_geojson(source.features, source.asked, path=source.folder / names[0])
    write_geojson(source.coverage, source.asked, path=source.folder / names[2])
    return _with_styles(source, names, count)


def _flatgeobuf(source: _Source, names: list[str]) -> int:
    count = write_flatgeobuf(source.features, source.asked, path=source.folder / names[0])
    write_flatgeobuf(source.coverage, source.asked, path=source.folder / names[2])
    return _with_styles(source, names, count)


def _with_styles(source: _Source, names: list[str], count: int) -> int:
    for name, style in zip((names[1], names[3]), _styles(source), strict=True):
        (source.folder / name).write_text(style, encoding="utf-8")
    return count


def _kml(source: _Source, names: list[str]) -> int:
    lines = read_legend(source.features, source.asked)
    return write_kml(
        source.features, source.coverage, source.asked, lines=lines, title=source.title, path=source.folder / names[0]
    )


FORMATS: Mapping[str, Callable[[_Source, list[str]], int]] = MappingProxyType(
    {"gpkg": _geopackage, "geojson": _geojson, "kml": _kml, "fgb": _flatgeobuf}
)
"""What `to` may be; each writes its files and returns the number of features."""
