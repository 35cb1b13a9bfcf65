"""What one group of the cube is read from, and the address that follows from it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from earthmap.catalog.scene import Observation
from earthmap.content import content_key
from earthmap.grid.tiling import Cell

CUBE = "cube"
"""Prefix of all groups in a store."""

READ_FORMAT = 1
"""Raised when the same scenes would give other pixels or another layout."""

RESAMPLING = "copy where aligned; else bilinear; average from twice as coarse on; nearest for classes"
"""The rule of `earthmap.cube.warp`; part of every key."""

STORED_BYTES = 2
"""Bytes of a pixel in a typical file, before compression: what an estimate counts with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRead:
    """One cell as one observation saw it: what to read, and where it is kept."""

    cell: Cell
    observation: Observation = field(repr=False)
    bands: tuple[str, ...]
    """Canonical names of the bands, along axis 0 of the pixels."""

    @classmethod
    def of(cls, cell: Cell, observation: Observation) -> CellRead:
        """Every band that any scene of the observation has, in the order of the sensor's row."""
        bands = dict.fromkeys(source.band for scene in observation.scenes for source in scene.sources)
        return cls(cell=cell, observation=observation, bands=tuple(bands))

    @property
    def key(self) -> str:
        """Content key: ground, scenes in their order, bands, calibration and resampling, and nothing else."""
        scenes = [scene.content_key() for scene in self.observation.scenes]
        content: list[object] = [scenes]
        if self.observation.members:
            content = ["median", [part.key for part in self.members]]
        return content_key(READ_FORMAT, RESAMPLING, self.cell.id, self.observation.sensor, self.bands, *content)

    @property
    def members(self) -> list[CellRead]:
        """What a median composite of the cell is made from; nothing for any other observation."""
        return [CellRead.of(self.cell, member) for member in self.observation.members]

    @property
    def path(self) -> str:
        """`cube/<cell>/<observation>_<key>`: listing a cell's prefix shows its observations in order of time."""
        return f"{CUBE}/{self.cell.id}/{self.observation.id}_{self.key}"


def estimated_bytes(read: CellRead) -> int:
    """Bytes that reading would decode, for `--explain`: the cell once, by its finest scene, without compression.

    Overviews halve the scale each, so that at most twice the target's resolution is read along each side.
    """
    if read.observation.members:
        return sum(map(estimated_bytes, read.members))
    if not read.observation.scenes:
        return 0
    resolution = read.cell.grid.resolution_m
    finest = min(scene.resolution_m for scene in read.observation.scenes)
    side = read.cell.grid.cell_px * min(resolution / finest, 2.0)
    masks = max(len(scene.mask_sources) for scene in read.observation.scenes)
    return round(side * side * (STORED_BYTES * len(read.bands) + masks))
