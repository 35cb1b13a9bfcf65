"""Inputs that a job takes as files, and a request as GeoJSON by value: written where the run finds them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic

from earthmap.content import canonical_json
from earthmap.errors import EarthmapError
from earthmap.service.processes.inputs import FeaturesInput, features_of
from earthmap.storage import Storage

MOST_FEATURES = 20_000
"""Of one input."""

GIVEN = {
    "footprints": "Outlines of buildings, each graded where damage is asked for: GeoJSON features, each comes out "
    "again with its properties.",
    "reference_water": "Water that is always there, which is no flood: GeoJSON polygons.",
}
"""Inputs given so, and what they are."""

GIVEN_FOLDER = "given"
"""In the folder of the job."""


def given_fields() -> dict[str, Any]:
    """Their fields, as `pydantic.create_model` takes them."""
    return {
        name: (FeaturesInput | None, pydantic.Field(default=None, description=about)) for name, about in GIVEN.items()
    }


def given_in(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a request. Raises JobError for what is no GeoJSON, or too much of it."""
    found = {name: inputs[name] for name in GIVEN if inputs.get(name) is not None}
    for name, value in found.items():
        features_of(value, name=name, most=MOST_FEATURES)
    return found


@contextlib.contextmanager
def tried_files(given: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Paths of files with these values, which go with the block; errors that name them say what they are instead."""
    with tempfile.TemporaryDirectory(prefix="earthmap-") as scratch:
        try:
            yield _written(given, Path(scratch))
        except EarthmapError as error:
            error.what = error.what.replace(f"{scratch}/", "")
            error.expected = error.expected and error.expected.replace(f"{scratch}/", "")
            error.fix = error.fix and error.fix.replace(f"{scratch}/", "")
            raise


@contextlib.contextmanager
def kept_files(given: Mapping[str, Any], out: str) -> Iterator[dict[str, str]]:
    """Paths of files with these values in the job's folder; for one on S3 in a folder of this machine."""
    storage = Storage(out)
    with scratch_folder(out) as folder:
        paths = _written(given, folder / GIVEN_FOLDER)
        if not storage.is_local:
            for path in paths.values():
                storage.write_file(f"{GIVEN_FOLDER}/{Path(path).name}", Path(path))
        yield paths


@contextlib.contextmanager
def scratch_folder(out: str) -> Iterator[Path]:
    """The folder of a job; for one on S3 a folder of this machine, the same when the job goes on, gone at its end."""
    storage = Storage(out)
    if storage.is_local:
        yield Path(storage.address)
        return
    folder = Path(tempfile.gettempdir()) / f"earthmap-{Path(storage.address).name}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _written(given: Mapping[str, Any], folder: Path) -> dict[str, str]:
    paths = {name: folder / f"{name}.geojson" for name in given}
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = canonical_json(given[name])
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # an equal one keeps its time
            path.write_text(text, encoding="utf-8")
    return {name: str(path) for name, path in paths.items()}
