"""A run folder, as its reader sees it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.errors import RunFolderError
from earthmap.pipeline.job import Job, parse_job
from earthmap.storage import Storage

if TYPE_CHECKING:
    import geopandas
    import xarray

JOB_PATH = "job.json"
FEATURES_PATH = "features.parquet"
COVERAGE_PATH = "coverage.parquet"
LEDGER_PATH = "ledger.parquet"
CLASSES_PATH = "classes"
PROBABILITIES_PATH = "probabilities"
SUMMARY_PATH = "summary.json"
ITEM_PATH = "item.json"
REPORT_PATH = "report.html"
PREVIEW_PATH = "preview.png"
RUN_PATH = "run.json"
"""Written last: a folder that has it is whole."""


@dataclass(frozen=True)
class Run:
    """One finished run: what it answered, what it saw, and what it read.

    Raises:
        RunFolderError: on making one of a folder that holds no finished run.
    """

    address: str

    def __post_init__(self) -> None:
        if "://" not in self.address and not Path(self.address).is_dir():
            raise RunFolderError(f"there is no folder {self.address}", expected="the folder of a finished run")
        if not self.storage.exists(RUN_PATH):
            raise RunFolderError(
                f"{self.address} holds no finished run",
                expected=f"a folder with {RUN_PATH}",
                fix="run the same job again: it does only what is missing",
            )

    @cached_property
    def storage(self) -> Storage:
        """Where the run's files are."""
        return Storage(self.address)

    @cached_property
    def job(self) -> Job:
        """The job that was run."""
        return parse_job(json.loads(self.storage.read(JOB_PATH))["job"])

    @cached_property
    def features(self) -> geopandas.GeoDataFrame:
        """What was found, in EPSG:4326: one row for each polygon on the ground, or tile square."""
        return self._frame(FEATURES_PATH)

    @cached_property
    def coverage(self) -> geopandas.GeoDataFrame:
        """What was seen, in EPSG:4326: one row for each tile, query and observation."""
        return self._frame(COVERAGE_PATH)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Counts, areas and shares (`summary.json`)."""
        content: dict[str, Any] = json.loads(self.storage.read(SUMMARY_PATH))
        return content

    @cached_property
    def cube(self) -> dict[str, xarray.Dataset]:
        """The pixels behind the answers: one lazy Dataset for each zone (`31N`), with dims time, y, x."""
        from earthmap.cube import open_cube

        return open_cube(Storage(self.job.store), area=self.job.area)

    def _frame(self, path: str) -> geopandas.GeoDataFrame:
        import geopandas

        return geopandas.read_parquet(io.BytesIO(self.storage.read(path)))

    def _repr_html_(self) -> str:
        import html

        return f"<b>earthmap run</b> {html.escape(self.address)}: {len(self.features)} features"


def open_run(address: str | Path) -> Run:
    """The finished run in a folder or at an `s3://` address. Raises RunFolderError."""
    return Run(Storage(str(address)).address)
