"""The process `sample`: pixels or tiles of a map for people to label, as `earthmap sample` draws them."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from earthmap.pipeline.folder import Run
from earthmap.pipeline.sampling import GUIDE_NAME, SHEET_NAME, UNITS, SampleSpec, draw_sample
from earthmap.service.processes.inputs import CONFIG, JobInput
from earthmap.service.processes.mapped import run_address
from earthmap.service.processes.process import Assignment, Checked, Labour, Output, Process, Site
from earthmap.service.processes.scope import Offer, Scope
from earthmap.storage import Storage

if TYPE_CHECKING:
    from earthmap.pipeline.sampling import Sample

UNITS_NAME, DRAWN_NAME, PICTURES_NAME = "sample.geojson", "drawn.json", "pictures.zip"

MOST_UNITS = 5_000
"""Of one sample: more than a team labels."""

_HANDED_BACK = "POST /processes/estimate/execution: `job` as of this sample, `labels` sample.geojson with its labels"


class SampleInputs(pydantic.BaseModel):
    """What is drawn, and of what."""

    model_config = CONFIG

    job: JobInput
    """The job whose map is sampled: a finished one of map, or of respond, of which it is the latest pass."""
    units: int = pydantic.Field(default=UNITS, ge=1, le=MOST_UNITS)
    """How many pixels, or tiles, are drawn; more where each stratum must have its least."""
    seed: int = pydantic.Field(default=0, ge=0, le=2**31 - 1)
    """Equal seeds draw equal samples."""
    question: str | None = pydantic.Field(default=None, max_length=1_000)
    """Number or words of the question; none for the first with a class for each pixel."""
    observation: str | None = pydantic.Field(default=None, max_length=200)
    """Which observation, as the summary names it; none for the latest."""
    unseen: bool = False
    """Draw ground too that the pictures do not show, for those who have others."""


def _inputs(_: Offer) -> type[pydantic.BaseModel]:
    return SampleInputs


def _check(inputs: Mapping[str, Any], scope: Scope) -> Checked:
    run_address(scope.mapped(inputs["job"]))
    return Checked(inputs=dict(inputs))


def _prepare(inputs: Mapping[str, Any], site: Site) -> Mapping[str, Any]:
    given = SampleInputs.model_validate(inputs).model_dump(exclude={"job"})
    return {"run": run_address(site.scope.mapped(inputs["job"])), "sample": given}


def _run(assignment: Assignment) -> None:
    """Draw the sample into the job's folder; its design stays in that of the run, where `estimate` looks for it."""
    run = Run(assignment.values["run"])
    spec = SampleSpec(**assignment.values["sample"])
    sample = draw_sample(run, spec, out=assignment.out, handed_back=_HANDED_BACK, say=assignment.say)
    folder = Storage(assignment.out)
    folder.write(UNITS_NAME, _units(folder))
    folder.write(PICTURES_NAME, _pictures(folder))
    folder.write(DRAWN_NAME, json.dumps(_drawn(sample), indent=1, sort_keys=True).encode())


def _drawn(sample: Sample) -> dict[str, Any]:
    return {name: value for name, value in sample.to_dict().items() if name != "folder"}


def _units(folder: Storage) -> bytes:
    """The layer to label, as GeoJSON: nothing of the map, which who labels must not know."""
    import geopandas

    from earthmap.outputs.labelling import SAMPLE_LAYER

    with tempfile.TemporaryDirectory(prefix="earthmap-") as scratch:
        sheet = Path(scratch) / SHEET_NAME
        sheet.write_bytes(folder.read(SHEET_NAME))
        frame = geopandas.read_file(sheet, layer=SAMPLE_LAYER).to_crs("EPSG:4326")
    return str(frame.to_json(drop_id=True, to_wgs84=True)).encode()


def _pictures(folder: Storage) -> bytes:
    """All pictures in one file; an empty archive where the cube is gone. They are compressed already."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.list("chips")):
            archive.writestr(zipfile.ZipInfo(path), folder.read(path))
    return packed.getvalue()


SAMPLE = Process(
    id="sample",
    title="Draw a sample to label",
    description="Draw pixels, or tiles, of a finished job's map for people to label, with pictures; `estimate` then "
    "tells how far the map can be trusted.",
    inputs=_inputs,
    check=_check,
    outputs={
        "drawn": Output(
            title="How many were drawn of which stratum", path=DRAWN_NAME, media_type="application/json", by_value=True
        ),
        "units": Output(title="Units to label", path=UNITS_NAME, media_type="application/geo+json"),
        "sheet": Output(title="Units to label, for QGIS", path=SHEET_NAME, media_type="application/geopackage+sqlite3"),
        "pictures": Output(title="A picture of each unit", path=PICTURES_NAME, media_type="application/zip"),
        "guide": Output(title="How to label", path=GUIDE_NAME, media_type="text/plain"),
    },
    labour=Labour(prepare=_prepare, run=_run),
)
