"""A run folder, as its reader sees it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.errors import JobError, RunFolderError, StorageError
from earthmap.pipeline.job import Job, parse_job
from earthmap.storage import Storage

if TYPE_CHECKING:
    import geopandas
    import xarray

    from earthmap.outputs.inline import InlinePage

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
        """The job that was run. Raises RunFolderError for what was fetched from a service, which does not tell it."""
        try:
            return parse_job(json.loads(self.storage.read(JOB_PATH))["job"])
        except FileNotFoundError:
            raise RunFolderError(
                f"{self.address} does not say which job was run",
                expected=f"a run folder with {JOB_PATH}",
                fix="of a run of a service use what the service answers about",
            ) from None

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
    def record(self) -> dict[str, Any]:
        """What was done for it: groups read and reused, answers computed and reused, seconds, versions (`run.json`)."""
        content: dict[str, Any] = json.loads(self.storage.read(RUN_PATH))
        return content

    @cached_property
    def cube(self) -> dict[str, xarray.Dataset]:
        """The pixels behind the answers: one lazy Dataset for each zone (`31N`), with dims time, y, x.

        Raises:
            StorageError: when the store cannot be read, or the plan is gone.
        """
        from earthmap.cube import open_groups
        from earthmap.pipeline.groups import run_groups
        from earthmap.pipeline.plan import read_plan

        plan = read_plan(self.storage)
        if plan is None:
            raise StorageError(f"{self.address} holds no plan", expected="plan.parquet", fix="run its job again")
        return open_groups(run_groups(Storage(self.job.store), plan))

    @property
    def report(self) -> str:
        """The page to look at, one HTML file that needs no network (docs/report.md)."""
        return self.storage.read(REPORT_PATH).decode()

    @property
    def preview(self) -> bytes:
        """The picture to look at, a PNG."""
        return self.storage.read(PREVIEW_PATH)

    def explore(self, *, height_px: int | None = None) -> InlinePage:
        """The report with its map, to look at inside a notebook. Raises JobError for a height that shows nothing."""
        from earthmap.outputs.inline import HEIGHT_PX, InlinePage

        if height_px is not None and height_px < 1:
            raise JobError(f"the page would be {height_px} pixels high", expected=f"about {HEIGHT_PX}")
        return InlinePage(text=self.report, height_px=height_px or HEIGHT_PX)

    def _frame(self, path: str) -> geopandas.GeoDataFrame:
        import geopandas

        return geopandas.read_parquet(io.BytesIO(self.storage.read(path)))

    def _repr_html_(self) -> str:
        import html

        return f"<b>earthmap run</b> {html.escape(self.address)}: {len(self.features)} features"


def open_run(address: str | Path) -> Run:
    """The finished run in a folder or at an `s3://` address. Raises RunFolderError."""
    return Run(Storage(str(address)).address)
