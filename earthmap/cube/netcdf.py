"""Variables of NetCDF 4 files as images, one step of time at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.catalog.netcdf_files import (
    NetcdfError,
    VariableStep,
    dataset_of,
    fill_of,
    grid_of,
    open_netcdf,
    stored_type,
)
from earthmap.catalog.scene import BandSource
from earthmap.cube.failures import Cause, read_error
from earthmap.cube.reader import MAX_PIXELS, read_image
from earthmap.cube.warp import Block, SourceGrid

if TYPE_CHECKING:
    import h5py
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox


@dataclass(frozen=True, kw_only=True)
class NetcdfImage:
    """One step of an open variable."""

    dataset: h5py.Dataset
    step: int
    grids: Sequence[SourceGrid]

    @property
    def nodata(self) -> float | None:
        """Its fill value."""
        return fill_of(self.dataset)

    def load(self, index: int, block: Block, level: int) -> NDArray[np.generic]:
        """Stored numbers of a block inside the image."""
        stored = self.dataset[self.step, block.top : block.bottom, block.left : block.right]
        return np.asarray(stored).view(stored_type(self.dataset))

    def seen(self, index: int, block: Block, level: int) -> NDArray[np.bool_] | None:
        """None: a variable has no mask of its own."""
        return None


def read_variable(
    named: VariableStep, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None, max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32]:
    """What `Reader.read` promises, for a variable of a local file. Raises ReadError."""
    if "://" in named.path:
        raise read_error(source.href, Cause.UNSUPPORTED, f"{source.href} is NetCDF elsewhere; fetch the file first")
    try:
        with open_netcdf(named.path) as file:
            image = _image(file, named)
            return read_image(image, source, geobox, frame=frame, max_pixels=max_pixels)
    except NetcdfError as error:
        gone = str(error).startswith("there is no file")
        cause = Cause.NEVER_PUBLISHED if gone else Cause.DAMAGED if "is damaged" in str(error) else Cause.UNSUPPORTED
        raise read_error(source.href, cause, f"cannot read {source.href}: {error}") from error


def _image(file: h5py.File, named: VariableStep) -> NetcdfImage:
    from odc.geo.crs import CRS

    dataset = dataset_of(file, named.variable)
    if dataset.ndim != 3 or dataset.dtype.kind not in "iuf":
        raise NetcdfError(f"the variable {named.variable} has no rows and columns over time")
    if named.step >= len(dataset):
        raise NetcdfError(f"the variable {named.variable} has {len(dataset)} steps")
    grid = grid_of(file, dataset)
    placed = SourceGrid(shape=grid.shape, transform=grid.transform, crs=CRS(grid.crs))
    return NetcdfImage(dataset=dataset, step=named.step, grids=(placed,))
