"""`earthmap sample`: a stratified random sample of a finished run, ready to be labelled.

Where a question has a class for each pixel the units are pixels, and labels are classes; where it finds things they are
tiles, and labels are counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.outputs.labelling import LabelRow, chip_name, labelling_guide, write_label_sheet
from earthmap.pipeline.class_maps import MapLayer, choose_layer
from earthmap.pipeline.design import CANNOT_TELL, Design
from earthmap.pipeline.folder import Run
from earthmap.pipeline.pixel_design import draw_pixels
from earthmap.pipeline.sample_pictures import unit_pictures
from earthmap.pipeline.tile_design import draw_tiles
from earthmap.storage import Storage

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

UNITS = 300
"""Of a sample, where nobody says."""

SHEET_NAME, GUIDE_NAME = "sample.gpkg", "HOW-TO.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSpec:
    """What is drawn, and of what."""

    units: int = UNITS
    seed: int = 0
    question: str | None = None
    """Its number or text; None for the first with a class map."""
    observation: str | None = None
    """As the summary names it; None for the latest."""
    unseen: bool = False
    """Draw ground too that the pictures do not show, for who has others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A drawn sample and where it was written."""

    design: Design
    folder: str
    layer: MapLayer
    chips: int
    """Units that have a picture."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        design = self.design
        drawn = {one.name: sum(unit.stratum == one.name for unit in design.units) for one in design.strata}
        return {
            "sample": design.key,
            "folder": self.folder,
            "question": design.text,
            "observation": design.observation,
            "units": len(design.units),
            "chips": self.chips,
            "strata": [
                {"name": one.name, "km2": round(one.area / 1e6, 6), "units": one.size, "drawn": drawn.get(one.name, 0)}
                for one in (*design.strata, *design.unsampled)
            ],
        }


def draw_sample(
    run: Run,
    spec: SampleSpec,
    *,
    out: str | None = None,
    handed_back: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Sample:
    """Draw a sample, keep its design in the run folder, and write what a person labels.

    Equal runs and specs give equal samples.

    Args:
        run: a finished run.
        spec: what is drawn, and of what.
        out: folder or s3:// address; None for the sample's own folder in the run's.
        handed_back: what is done with the labels, as people are told; None for the command.
        say: hears of every step.

    Raises:
        BadRequestError: for a question without class maps, an observation that there is not, and a run without ground.
        StorageError: for a run that cannot be read, and an output that cannot be written.
    """
    layer = choose_layer(run, question=spec.question, observation=spec.observation)
    if say:
        say(f"sampling {layer.title}")
    drawing = draw_tiles if layer.finds_things else draw_pixels
    design, grounds = drawing(run, layer, total=spec.units, seed=spec.seed, unseen=spec.unseen)
    design.write(run.storage)
    folder = Storage(out) if out is not None else run.storage.sub(design.folder)
    if say:
        say(f"cutting {len(design.units)} pictures")
    chips = 0
    for unit, png in unit_pictures(run, layer, design):
        folder.write(chip_name(unit), png)
        chips += 1
    _write_sheet(folder, design, grounds, with_chips=chips > 0)
    command = f"earthmap estimate {run.address} {folder.locate(SHEET_NAME)}"
    folder.write(GUIDE_NAME, _guide(design, command=handed_back or command).encode())
    return Sample(design=design, folder=folder.address, layer=layer, chips=chips)


# ── what is labelled ─────────────────────────────────────────────────────────────────────────────────────────


def _write_sheet(folder: Storage, design: Design, grounds: Sequence[BaseGeometry], *, with_chips: bool) -> None:
    rows = [
        LabelRow(
            id=unit.id,
            date=unit.date,
            lon=unit.lon,
            lat=unit.lat,
            ground=ground,
            chip=chip_name(unit.id) if with_chips else "",
            stratum=unit.stratum,
            mapped=str(unit.found) if design.counts else unit.mapped,
            area_m2=unit.area_m2,
            inclusion=unit.inclusion,
        )
        for unit, ground in zip(design.units, grounds, strict=True)
    ]
    with tempfile.TemporaryDirectory(prefix="earthmap-") as scratch:
        path = Path(scratch) / SHEET_NAME
        write_label_sheet(path, rows, choices=() if design.counts else tuple(_choices(design)))
        folder.write_file(SHEET_NAME, path)


def _guide(design: Design, *, command: str) -> str:
    return labelling_guide(
        text=design.text,
        dates=design.dates,
        choices=_choices(design),
        command=command,
        count=len(design.units),
        tiles=design.counts,
    )


def _choices(design: Design) -> dict[str, str]:
    """What a label may say, and what it means."""
    if design.counts:
        return {"0, 1, 2, …": "so many", CANNOT_TELL: "the pictures do not decide it"}
    found = {name: "it is" for name in design.classes if name != "none"}
    return {**found, "none": "it is none of these", CANNOT_TELL: "the pictures do not decide it"}


# ── what people read ─────────────────────────────────────────────────────────────────────────────────────────


def tell_sample(sample: Sample) -> list[str]:
    """The sample in lines for a terminal."""
    content = sample.to_dict()
    wide = max(len(one["name"]) for one in content["strata"])
    kind = "tiles to count in" if sample.design.counts else "pixels to label"
    lines = [f"{content['units']} {kind}, {sample.chips} of them with a picture"]
    lines += [
        f"  {one['name']:<{wide}}  {one['drawn']:>5} of {one['units']:,}, {one['km2']:,.3f} km²"
        for one in content["strata"]
    ]
    if sample.design.unsampled:
        lines.append("  (what the pictures do not show is not drawn; --unseen draws it for who has other pictures)")
    if not sample.chips:
        lines.append("the cube behind the run is gone: there are no pictures, only outlines on the ground")
    return [*lines, f"how to label them: {sample.folder}/{GUIDE_NAME}"]
