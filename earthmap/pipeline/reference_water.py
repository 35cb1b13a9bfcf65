"""Water that is always there, as a file says: polygons of lakes, rivers and sea, or a raster of how often it is there.

A raster holds 0 and 1, a share from 0 to 1, or percent as in maps of water occurrence (Pekel et al., Nature 540, 2016);
water in half of all looks is taken for permanent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthmap.catalog import BandSource, images_key
from earthmap.catalog.raster_facts import read_facts
from earthmap.errors import AreaError, CatalogError, JobError, ReadError
from earthmap.grid import AreaOfInterest, Cell, inside
from earthmap.sensors import Calibration
from earthmap.tasks import UNSEEN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.cube import Reader

RASTERS = (".tif", ".tiff", ".jp2", ".img")
"""Endings of files that are rasters; others are read as polygons."""

OFTEN = 0.5
"""Share of looks from which on water is permanent."""

GLANCE_PX = 1024
"""A raster's unit is told from so many of its pixels a side."""

_FORMS = "polygons (GeoJSON, GeoPackage, Shapefile …), or a GeoTIFF of 0 and 1, shares, or percent"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceWater:
    """What a file says is always under water. Small but for the polygons, and picklable."""

    key: str
    """Of the file's content."""
    polygons: AreaOfInterest | None = None
    source: BandSource | None = field(default=None, repr=False)
    """The raster; None for polygons."""
    threshold: float = OFTEN
    """Numbers of the raster from which on there is water."""
    highest: float = 1.0
    """Numbers above this one mean that nothing is known."""

    def content_key(self) -> str:
        """Key of the file's content."""
        return self.key

    def on(self, cell: Cell, reader: Reader) -> NDArray[np.uint8]:
        """What it says of a cell: (cell_core_px, cell_core_px) codes, 0 land, 1 water, UNSEEN where it says nothing.

        Raises:
            ReadError: where the raster cannot be read.
        """
        if self.source is None:
            return _burnt(self.polygons, cell)
        values = reader.read(self.source, cell.core_geobox)
        codes = np.where(values >= self.threshold, np.uint8(1), np.uint8(0))
        codes[~((values >= 0) & (values <= self.highest))] = UNSEEN
        return codes


def _burnt(polygons: AreaOfInterest | None, cell: Cell) -> NDArray[np.uint8]:
    """Pixels of the cell whose centre lies in the polygons."""
    if polygons is None:
        return np.full(cell.core_geobox.shape, UNSEEN, np.uint8)
    return inside(polygons.geometry, cell.core_geobox).astype(np.uint8)


def reference_key(address: str) -> str:
    """Key of the file's content. Raises JobError where it is none that can be read."""
    return _open(address).key


def open_reference_water(address: str | None) -> ReferenceWater | None:
    """What the file says; None for no file. Raises JobError."""
    return None if address is None else _open(address)


def is_raster(address: str) -> bool:
    """Whether the file is a raster, by its name."""
    return address.partition("?")[0].lower().endswith(RASTERS)


@lru_cache(maxsize=2)
def _open(address: str) -> ReferenceWater:
    if is_raster(address):
        return _opened(address, _open_raster)
    return _opened(address, _open_polygons)


def _opened(address: str, how: Callable[[str], ReferenceWater]) -> ReferenceWater:
    try:
        return how(address)
    except (AreaError, CatalogError, ReadError) as error:
        raise JobError(f"the reference water {address} cannot be read: {error}", expected=_FORMS) from error


def _open_polygons(address: str) -> ReferenceWater:
    area = AreaOfInterest.from_file(Path(address))
    return ReferenceWater(key=area.content_key(), polygons=area)


def _open_raster(address: str) -> ReferenceWater:
    """The raster with its unit, told from its largest number: 0 to 1, or percent. Raises JobError for other numbers."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    from earthmap.cube import RasterioReader

    facts = read_facts(address)
    source = BandSource(band="water", href=address, calibration=Calibration(categorical=True), coarse=True)
    if facts.transform is None:
        raise JobError(f"the reference water {address} says not where it lies", expected=_FORMS)
    whole = GeoBox(facts.shape, Affine(*facts.transform[:6]), facts.crs)
    shape = (min(GLANCE_PX, facts.shape[0]), min(GLANCE_PX, facts.shape[1]))
    values = RasterioReader().read(source, whole.zoom_to(shape))
    known = values[(values >= 0) & (values <= 100)]
    highest = float(known.max(initial=0.0))
    if not known.size or facts.dtypes[0].startswith("complex"):
        raise JobError(f"the reference water {address} holds no number from 0 to 100", expected=_FORMS)
    most = 1.0 if highest <= 1.0 else 100.0
    return ReferenceWater(
        key=images_key((address,)),
        source=dataclasses.replace(source, coarse=False),
        threshold=OFTEN * most,
        highest=most,
    )
