"""Radar images that are calibrated as they are read: their annotation is fetched once and laid over every block."""

from __future__ import annotations

import dataclasses
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from earthmap.catalog.scene import BandSource, RadarAnnotation
from earthmap.cube.annotation import AnnotationError, RadarTables, radar_tables
from earthmap.cube.control import ControlGrid
from earthmap.cube.failures import Cause, Evidence, classify, read_error, texts_of, was_read
from earthmap.cube.warp import Block, SourceGrid
from earthmap.errors import EarthmapError, ReadError
from earthmap.sensors.calibration import Calibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_TABLES = 16
"""Annotations that a process keeps parsed: two polarizations of a pass of several slices."""

Fetch = Callable[[str], bytes]
"""From an unsigned href to the bytes of a document."""


class StoredImage(Protocol):
    """What is calibrated: an `Image` (`earthmap.cube.reader`)."""

    @property
    def grids(self) -> Sequence[SourceGrid] | ControlGrid:
        """Where its pixels lie."""
        ...

    def load(self, index: int, block: Block, level: int) -> NDArray[np.generic]:
        """Its stored numbers."""
        ...

    def seen(self, index: int, block: Block, level: int) -> NDArray[np.bool_] | None:
        """Its own mask."""
        ...


@dataclass(frozen=True, kw_only=True)
class CalibratedImage:
    """An image of amplitudes read as sigma nought, in linear power, at full resolution."""

    image: StoredImage
    tables: RadarTables = field(repr=False)
    saturated: float | None = None
    """Stored amplitude that means more than could be measured."""

    @property
    def grids(self) -> Sequence[SourceGrid] | ControlGrid:
        """Full resolution only: overviews average amplitudes."""
        grids = self.image.grids
        return grids if isinstance(grids, ControlGrid) else grids[:1]

    @property
    def nodata(self) -> float | None:
        """None: what is missing is NaN already."""
        return None

    def load(self, index: int, block: Block, level: int) -> NDArray[np.generic]:
        """Linear power, positive infinity where the amplitude is saturated."""
        stored = self.image.load(index, block, 0)
        power = self.tables.sigma0(stored, block, shape_of(self.image))
        if self.saturated is not None:
            power[stored == self.saturated] = np.inf
        return power

    def seen(self, index: int, block: Block, level: int) -> NDArray[np.bool_] | None:
        """As the image's own."""
        return self.image.seen(index, block, 0)


def shape_of(image: StoredImage) -> tuple[int, int]:
    """Rows and columns at full resolution."""
    grids = image.grids
    return grids.shape if isinstance(grids, ControlGrid) else grids[0].shape


def calibrated(image: StoredImage, source: BandSource, fetch: Fetch) -> tuple[CalibratedImage, BandSource]:
    """`image` under the annotation of `source`, and the source that is then read: power as it comes.

    Raises:
        ReadError: where the annotation cannot be fetched or read, or is not that of this image and band.
    """
    annotation = source.annotation
    if annotation is None:
        raise read_error(source.href, Cause.UNSUPPORTED, f"{source.href} has no annotation")
    tables = _tables(annotation, fetch)
    if tables.polarization not in ("", source.band) or not tables.fits(shape_of(image)):
        raise read_error(
            annotation.calibration,
            Cause.UNSUPPORTED,
            f"{annotation.calibration} is not the annotation of {source.href}: its polarization or size differs",
        )
    plain = dataclasses.replace(source, calibration=Calibration(saturated=math.inf), annotation=None)
    return CalibratedImage(image=image, tables=tables, saturated=source.calibration.saturated), plain


class _Kept:
    """Parsed annotations, the one used last at the end; several threads may parse one twice, and agree."""

    def __init__(self) -> None:
        self._tables: dict[tuple[RadarAnnotation, int], RadarTables] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple[RadarAnnotation, int]) -> RadarTables | None:
        with self._lock:
            found = self._tables.pop(key, None)
            if found is not None:
                self._tables[key] = found
            return found

    def put(self, key: tuple[RadarAnnotation, int], tables: RadarTables) -> None:
        with self._lock:
            self._tables[key] = tables
            while len(self._tables) > KEPT_TABLES:
                del self._tables[next(iter(self._tables))]


_KEPT = _Kept()


def _stamp(href: str) -> int:
    """When a local file was last written: one that is replaced is read again."""
    path = Path(href)
    return path.stat().st_mtime_ns if "://" not in href and path.is_file() else 0


def _tables(annotation: RadarAnnotation, fetch: Fetch) -> RadarTables:
    key = annotation, _stamp(annotation.calibration)
    found = _KEPT.get(key)
    if found is None:
        calibration = _fetched(annotation.calibration, fetch)
        noise = _fetched(annotation.noise, fetch) if annotation.noise else None
        try:
            found = radar_tables(calibration, noise)
        except AnnotationError as error:
            href = annotation.calibration
            raise read_error(href, Cause.DAMAGED, f"the radar annotation {href} has {error}") from None
        _KEPT.put(key, found)
    return found


def _fetched(href: str, fetch: Fetch) -> bytes:
    try:
        return fetch(href)
    except ReadError:
        raise
    except (EarthmapError, OSError) as error:
        gone = isinstance(error.__cause__ or error, FileNotFoundError)
        text = re.sub(r"answered (\d{3})", r"response code \1", texts_of(error))
        cause = Cause.NEVER_PUBLISHED if gone else classify(Evidence(text=text, read_before=was_read(href)))
        # Without its context, whose texts may hold a signed address.
        raise read_error(href, cause, f"cannot read the radar annotation {href}") from None
