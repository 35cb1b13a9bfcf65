"""What a service's job came to: its small files in a folder of this machine, and its pixels where they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.client.talking import Line
from earthmap.errors import ServiceError
from earthmap.pipeline.folder import (
    COVERAGE_PATH,
    FEATURES_PATH,
    ITEM_PATH,
    PREVIEW_PATH,
    REPORT_PATH,
    RUN_PATH,
    SUMMARY_PATH,
    Run,
)
from earthmap.storage import Storage

if TYPE_CHECKING:
    import xarray

FILES: Mapping[str, str] = {
    "summary": SUMMARY_PATH, "features": FEATURES_PATH, "coverage": COVERAGE_PATH, "item": ITEM_PATH,
    "report": REPORT_PATH, "preview": PREVIEW_PATH, "record": RUN_PATH,
}  # fmt: skip
"""Where outputs lie in a run folder."""

_SUFFIXES = {
    "application/geo+json": ".geojson", "application/geopackage+sqlite3": ".gpkg", "application/json": ".json",
    "application/vnd.apache.parquet": ".parquet", "application/zip": ".zip", "image/png": ".png",
    "text/html": ".html", "text/plain": ".txt",
}  # fmt: skip
"""By which other programs know a file, of its media type."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")


@dataclass(frozen=True)
class ServedRun(Run):
    """A run of a service: its folder is what was fetched, and its cube is read from the service, window by window."""

    served: Storage = field(repr=False)
    """The job at the service."""

    @cached_property
    def cube(self) -> dict[str, xarray.Dataset]:
        """The pixels behind the answers: one lazy Dataset for each zone (`31N`), with dims time, y, x.

        What is not computed is not fetched.

        Raises:
            StorageError: where the service does not answer, or has no pixels of this job.
        """
        from earthmap.cube import CellGroup, CellManifest, open_groups

        try:
            listed = json.loads(self.served.read("cube"))["groups"]
            manifests = [(one["path"], json.dumps(one["manifest"]).encode()) for one in listed]
        except FileNotFoundError:
            raise ServiceError(
                f"{self.served.address} has no pixels", expected="a job that maps, and is there"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise ServiceError(f"{self.served.address}/cube is no list of groups", fix="check the address") from None
        return open_groups(
            [
                CellGroup(storage=self.served, path=path, manifest=CellManifest.from_json(data, path=path))
                for path, data in manifests
            ]
        )


def fetch_outputs(line: Line, job_id: str, folder: Path) -> dict[str, Any]:
    """The results' document, after each file of it was put into `folder`: those of a run last of all `run.json`.

    Raises:
        EarthmapError: where the service does not give them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = line.read(f"/jobs/{job_id}/results")
    for name in sorted(results, key="record".__eq__):
        if not _NAME.fullmatch(name) or not isinstance(results[name], dict):
            raise ServiceError(f"{line.url} names an output {name[:60]!r}", expected="letters, digits, _ and -")
        path = folder / file_name(name, results[name])
        if "value" in results[name]:
            path.write_text(json.dumps(results[name]["value"]), encoding="utf-8")
        else:
            line.fetch(f"/jobs/{job_id}/results/{name}", path)
    return results


def file_name(name: str, result: Mapping[str, Any]) -> str:
    """What an output is called in the folder that it is fetched into."""
    media_type = result.get("mediaType") or result.get("type")
    return FILES.get(name, f"{name}{_SUFFIXES.get(str(media_type), '')}")
