"""Well-known text of geometries, with PostGIS's `SRID=…;` before it where it is there."""

from __future__ import annotations

import re

import shapely
from shapely.geometry.base import BaseGeometry

from earthmap.errors import AreaError

_START = re.compile(
    r"\s*(?:SRID\s*=\s*(\d+)\s*;\s*)?"
    r"((?:MULTI)?(?:POINT|LINESTRING|POLYGON|CURVE|SURFACE)|GEOMETRYCOLLECTION|CURVEPOLYGON|LINEARRING"
    r"|CIRCULARSTRING|COMPOUNDCURVE|TIN|TRIANGLE|POLYHEDRALSURFACE)(?![A-Za-z0-9_.-]*\.\w)\s*(?:Z|M|ZM)?\s*(?:\(|EMPTY)",
    re.IGNORECASE,
)


def looks_like_wkt(text: str) -> bool:
    """Whether `text` begins as well-known text does."""
    return _START.match(text) is not None


def parse_wkt(text: str, *, source: str) -> tuple[BaseGeometry, str | None]:
    """The geometry of a WKT, open rings closed, and its CRS code where it is prefixed. Raises AreaError."""
    match = _START.match(text)
    code = match[1] if match else None
    if re.search(r"\bnan\b|\binf", text, re.IGNORECASE):
        raise AreaError(f"{source} has a coordinate that is NaN or infinite", expected="finite numbers")
    try:
        geometry = shapely.from_wkt(text[match.start(2) :] if match else text, on_invalid="fix")
    except (shapely.errors.GEOSException, ValueError, TypeError, NotImplementedError) as error:
        raise _unreadable(source, str(error)) from error
    if geometry is None:
        raise _unreadable(source, "nothing left after repair")
    return geometry, f"EPSG:{code}" if code else None


def _unreadable(source: str, reason: str) -> AreaError:
    return AreaError(
        f"{source} is not WKT that can be read: {reason[:120]}",
        expected="such as POLYGON ((5 45, 6 45, 6 46, 5 45)), longitude first",
    )
