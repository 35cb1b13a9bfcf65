"""The lattice: which square of ground is which tile, whatever area or job asks.

Each zone carries one fixed lattice for each (anchor, resolution, picture size). A tile is one square of it, a cell a
block of 4 × 4 tiles that is read, stored and answered together. There are 122 zones: UTM's plain 6° strips of each
hemisphere (without the exceptions of Norway and Svalbard, on purpose) from 80° S to 84° N, and the two polar caps
beyond, in UPS. A tile owns its core ∩ its zone's strip or cap, so that every point of the Earth has exactly one owner.

Rows count upwards and columns to the right from the anchor, in the zone's own CRS (EPSG:326xx north, 327xx south, 5041
and 5042 at the poles); arrays made from them have row 0 at the top, as images do. Upwards is north in a strip; in UPS
it is away from Greenwich at the north pole and towards it at the south pole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earthmap.errors import GridError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

CELL_TILES = 4
"""Tiles along one side of a cell."""

CORE_PX = {448: 384, 224: 192, 128: 112}
"""Side of the core by side of the picture, both in pixels; what is left is the halo, half on each side."""

ANCHORS_M = (0, 15)
"""Where a lattice's pixel corners lie, in metres from the zone's origin; 15 is Landsat's."""

LANDSAT_ANCHOR_M = 15
_SOUTH_NORTHING_M = 10_000_000
"""What a southern code of UTM adds to northings."""

POLAR = 0
"""Number of the zone around a pole, as GeographicLib counts (Karney, `UTMUPS::UPS`)."""

UTM_SOUTH_DEG, UTM_NORTH_DEG = -80.0, 84.0
"""Where the strips end and the caps begin (NGA.STND.0014, 2014): the south parallel is the strips', the north one the
cap's."""


@dataclass(frozen=True, slots=True, order=True)
class Zone:
    """A 6° strip of one hemisphere, without UTM's exceptions, or the cap around one pole."""

    number: int
    """1 to 60, eastwards from 180° W; 0 for a cap."""
    north: bool
    """True from the equator (included) to the north pole."""

    def __post_init__(self) -> None:
        if not 0 <= self.number <= 60:
            raise GridError(f"there is no zone {self.number}", expected="1 to 60, or 0 around a pole")

    @property
    def is_polar(self) -> bool:
        """True for the cap around a pole."""
        return self.number == POLAR

    @property
    def id(self) -> str:
        """`31N`, `01S`; `00N` and `00S` around the poles."""
        return f"{self.number:02d}{'N' if self.north else 'S'}"

    @classmethod
    def parse(cls, text: str) -> Zone:
        """The zone of an id such as `31N`. Raises GridError."""
        match = re.fullmatch(r"(\d{2})([NS])", text)
        if not match:
            raise GridError(f"{text!r} is not a zone", expected="two digits and N or S, such as 31N")
        return cls(int(match[1]), match[2] == "N")

    @property
    def epsg(self) -> int:
        """EPSG code of the zone's CRS (WGS 84 / UTM; around the poles WGS 84 / UPS with easting first)."""
        if self.is_polar:
            return 5041 if self.north else 5042
        return (32600 if self.north else 32700) + self.number

    @property
    def strip(self) -> tuple[float, float, float, float]:
        """The owned ground as west, south, east, north in degrees; west and south are included, east and north not."""
        if self.is_polar:
            return (-180.0, UTM_NORTH_DEG, 180.0, 90.0) if self.north else (-180.0, -90.0, 180.0, UTM_SOUTH_DEG)
        west = -180.0 + 6.0 * (self.number - 1)
        return (west, 0.0, west + 6.0, UTM_NORTH_DEG) if self.north else (west, UTM_SOUTH_DEG, west + 6.0, 0.0)


def format_metres(value: float) -> str:
    """`10`, `0.6`: a length in metres in its shortest exact form, as it stands in ids."""
    return repr(int(value)) if float(value).is_integer() else repr(float(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One lattice in every zone: anchor, pixel size and picture size."""

    resolution_m: float
    """Side of a pixel in metres."""
    picture_px: int = 448
    """Side of a tile's picture (core and halo) in pixels: 448, 224 or 128."""
    anchor_m: int = 0
    """Offset of the pixel corners from the zone's origin: 0 or 15 m."""

    def __post_init__(self) -> None:
        if not 0 < self.resolution_m <= 10_000:
            raise GridError(f"a resolution of {self.resolution_m} m", expected="more than 0 and at most 10000 m")
        if self.picture_px not in CORE_PX:
            raise GridError(f"a tile size of {self.picture_px}", expected="448, 224 or 128 pixels")
        if self.anchor_m not in ANCHORS_M:
            raise GridError(f"an anchor of {self.anchor_m} m", expected="0 or 15")

    @property
    def core_px(self) -> int:
        """Side of the core in pixels."""
        return CORE_PX[self.picture_px]

    @property
    def halo_px(self) -> int:
        """Width of the margin that a tile also sees, in pixels."""
        return (self.picture_px - self.core_px) // 2

    @property
    def core_m(self) -> float:
        """Side of the core in metres."""
        return self.core_px * self.resolution_m

    @property
    def south_shift_m(self) -> float:
        """How far its lines lie north of the anchor in southern strips, in metres.

        Landsat writes southern scenes in the northern code, with negative northings; what the southern code adds is
        no multiple of 30 m, so that its lattice can only run on across the equator if this lattice does.
        """
        return _SOUTH_NORTHING_M % self.resolution_m if self.anchor_m == LANDSAT_ANCHOR_M else 0.0

    def origin_m(self, zone: Zone) -> tuple[float, float]:
        """Easting and northing of the corner of row 0 and column 0 in the zone's CRS."""
        shifted = not zone.north and not zone.is_polar
        return float(self.anchor_m), self.anchor_m + (self.south_shift_m if shifted else 0.0)

    @property
    def cell_core_px(self) -> int:
        """Side of a cell without its halo ring, in pixels."""
        return CELL_TILES * self.core_px

    @property
    def cell_px(self) -> int:
        """Side of a cell with its halo ring, in pixels."""
        return self.cell_core_px + 2 * self.halo_px

    @property
    def id(self) -> str:
        """`utm0_10m_384`: anchor, resolution and core size."""
        return f"utm{self.anchor_m}_{format_metres(self.resolution_m)}m_{self.core_px}"


def _geobox(grid: Grid, zone: Zone, west_px: int, north_px: int, side_px: int) -> GeoBox:
    """A square of `side_px` pixels, its corner given in whole pixels from the anchor (north_px counts northwards)."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    size, (east, north) = grid.resolution_m, grid.origin_m(zone)
    affine = Affine(size, 0.0, east + west_px * size, 0.0, -size, north + north_px * size)
    return GeoBox((side_px, side_px), affine, f"EPSG:{zone.epsg}")


@dataclass(frozen=True, slots=True)
class Cell:
    """A block of 4 × 4 tiles: the unit of reading, storing and answering."""

    grid: Grid
    zone: Zone
    row: int
    """Northwards from the anchor, in cells."""
    column: int
    """Eastwards from the anchor, in cells."""

    @property
    def id(self) -> str:
        """`utm0_10m_384_31N_c308_14`."""
        return f"{self.grid.id}_{self.zone.id}_c{self.row}_{self.column}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The cell of an id. Raises GridError."""
        grid, zone, kind, row, column = _parse_id(text)
        if kind != "c":
            raise GridError(f"{text!r} is not a cell's id", expected="an id such as utm0_10m_384_31N_c308_14")
        return cls(grid, zone, row, column)

    @property
    def geobox(self) -> GeoBox:
        """The cell with its halo ring: (cell_px, cell_px), row 0 in the north."""
        grid = self.grid
        west = self.column * grid.cell_core_px - grid.halo_px
        north = (self.row + 1) * grid.cell_core_px + grid.halo_px
        return _geobox(grid, self.zone, west, north, grid.cell_px)

    @property
    def core_geobox(self) -> GeoBox:
        """The cell without its halo ring: (cell_core_px, cell_core_px), row 0 in the north."""
        grid = self.grid
        north = (self.row + 1) * grid.cell_core_px
        return _geobox(grid, self.zone, self.column * grid.cell_core_px, north, grid.cell_core_px)

    def tiles(self) -> list[Tile]:
        """The 16 tiles, row by row from the north-west corner, as they lie in the cell's array."""
        top, left = (self.row + 1) * CELL_TILES - 1, self.column * CELL_TILES
        return [
            Tile(self.grid, self.zone, top - down, left + right)
            for down in range(CELL_TILES)
            for right in range(CELL_TILES)
        ]


@dataclass(frozen=True, slots=True)
class Tile:
    """One square of the lattice."""

    grid: Grid
    zone: Zone
    row: int
    """Northwards from the anchor, in tiles."""
    column: int
    """Eastwards from the anchor, in tiles."""

    @property
    def id(self) -> str:
        """The `tile_id`: `utm0_10m_384_31N_t1235_56`. Neither area, halo nor job enters it."""
        return f"{self.grid.id}_{self.zone.id}_t{self.row}_{self.column}"

    @classmethod
    def parse(cls, text: str) -> Tile:
        """The tile of a `tile_id`. Raises GridError."""
        grid, zone, kind, row, column = _parse_id(text)
        if kind != "t":
            raise GridError(f"{text!r} is not a tile_id", expected="an id such as utm0_10m_384_31N_t1235_56")
        return cls(grid, zone, row, column)

    @property
    def cell(self) -> Cell:
        """The cell that the tile lies in."""
        return Cell(self.grid, self.zone, self.row // CELL_TILES, self.column // CELL_TILES)

    @property
    def geobox(self) -> GeoBox:
        """The picture (core and halo): (picture_px, picture_px), row 0 in the north."""
        grid = self.grid
        west = self.column * grid.core_px - grid.halo_px
        north = (self.row + 1) * grid.core_px + grid.halo_px
        return _geobox(grid, self.zone, west, north, grid.picture_px)

    @property
    def core_geobox(self) -> GeoBox:
        """The core: (core_px, core_px), row 0 in the north."""
        grid = self.grid
        return _geobox(grid, self.zone, self.column * grid.core_px, (self.row + 1) * grid.core_px, grid.core_px)

    @property
    def picture_slices(self) -> tuple[slice, slice]:
        """Where the picture lies in the cell's (cell_px, cell_px) array: rows, columns."""
        core, side = self.grid.core_px, self.grid.picture_px
        down = (CELL_TILES - 1 - self.row % CELL_TILES) * core
        right = (self.column % CELL_TILES) * core
        return slice(down, down + side), slice(right, right + side)

    @property
    def core_slices(self) -> tuple[slice, slice]:
        """Where the core lies in the cell's (cell_core_px, cell_core_px) array without halo: rows, columns."""
        core = self.grid.core_px
        down = (CELL_TILES - 1 - self.row % CELL_TILES) * core
        right = (self.column % CELL_TILES) * core
        return slice(down, down + core), slice(right, right + core)


_PICTURE_PX = {core: picture for picture, core in CORE_PX.items()}
_ID = re.compile(r"utm(\d+)_([0-9.e+-]+)m_(\d+)_(\d\d[NS])_([ct])(-?\d+)_(-?\d+)")


def _parse_id(text: str) -> tuple[Grid, Zone, Any, int, int]:
    match = _ID.fullmatch(text)
    if not match or int(match[3]) not in _PICTURE_PX:
        raise GridError(f"{text!r} is not the id of a cell or tile", expected="such as utm0_10m_384_31N_t1235_56")
    grid = Grid(resolution_m=float(match[2]), picture_px=_PICTURE_PX[int(match[3])], anchor_m=int(match[1]))
    return grid, Zone.parse(match[4]), match[5], int(match[6]), int(match[7])
