"""`RasterioReader`: local files, http(s) and s3 addresses through GDAL."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from earthmap.catalog.addresses import gdal_path, split_member
from earthmap.catalog.admission import UnansweredError, admit, is_redirected
from earthmap.catalog.archives import read_text
from earthmap.catalog.http import check_hop
from earthmap.catalog.netcdf_files import split_variable
from earthmap.catalog.raster_facts import crs_of
from earthmap.catalog.scene import BandSource
from earthmap.catalog.signing import HostSigner, Signer
from earthmap.connection import ELSEWHERE, Connection
from earthmap.cube.control import ControlGrid, ControlPoint, control_grid
from earthmap.cube.failures import (
    LOGGED,
    Cause,
    Evidence,
    classify,
    heard,
    note_read,
    probe,
    read_error,
    texts_of,
    was_read,
)
from earthmap.cube.limits import check_beside, check_levels, check_links, check_size
from earthmap.cube.netcdf import read_variable
from earthmap.cube.radar import calibrated
from earthmap.cube.reader import MAX_PIXELS, read_image
from earthmap.cube.warp import Block, SourceGrid
from earthmap.errors import ReadError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox
    from rasterio.crs import CRS
    from rasterio.io import DatasetReader

DRIVERS = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG")
"""What an address may be. A list of what is allowed: VRT and its kin would fetch whatever address a file names."""

CACHE_MB = "48"
"""Decoded blocks that GDAL keeps in a process, where GDAL_CACHEMAX says nothing else."""

OPEN_FILES = 64
"""Idle files that a process keeps open for its next reads."""


def _options(path: str) -> dict[str, str]:
    """GDAL's settings for `path`; of a remote one its log is kept, which names the cause of a failure."""
    options = Connection.from_environment().gdal_options(path)
    return {**options, **LOGGED} if options else {}


def _environment(path: str) -> Any:
    import rasterio

    return rasterio.Env(**_options(path))


@functools.cache
def _settle() -> None:
    """Once a process: a file without georeference is our error, not a line on the terminal, and few decoded blocks are
    kept: GDAL's own limit is a twentieth of the machine's memory, which each process would fill as it reads on.

    `warnings.catch_warnings` around each open would be shared by all threads; so is the one that rasterio puts around
    the datasets in memory of each warp, which is why the warning also comes up where nothing is wrong.
    """
    from rasterio.errors import NotGeoreferencedWarning

    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    os.environ.setdefault("GDAL_CACHEMAX", CACHE_MB)


def _dataset(path: str, **options: int) -> DatasetReader:
    """`path` opened by one of `DRIVERS`; the class takes several drivers, where `rasterio.open` takes one."""
    from rasterio.io import DatasetReader

    return DatasetReader(path, driver=list(DRIVERS), **options)


@dataclass(frozen=True, kw_only=True)
class _RasterImage:
    """An open file and its overviews, used by one thread."""

    dataset: DatasetReader
    path: str
    href: str
    grids: Sequence[SourceGrid] | ControlGrid
    levels: dict[int, DatasetReader] = field(default_factory=dict)

    @property
    def nodata(self) -> float | None:
        value = self.dataset.nodata
        return None if value is None else float(value)

    def _at(self, level: int) -> DatasetReader:
        if level == 0:
            return self.dataset
        if level not in self.levels:
            self.levels[level] = _dataset(self.path, overview_level=level - 1)
            check_size(self.levels[level], self.href)
        return self.levels[level]

    def load(self, index: int, block: Block, level: int) -> NDArray[np.generic]:
        from rasterio.windows import Window

        rows, columns = block.shape
        stored: NDArray[np.generic] = self._at(level).read(index, window=Window(block.left, block.top, columns, rows))
        return stored

    def seen(self, index: int, block: Block, level: int) -> NDArray[np.bool_] | None:
        from rasterio.enums import MaskFlags
        from rasterio.windows import Window

        dataset = self._at(level)
        if not {MaskFlags.per_dataset, MaskFlags.alpha} & set(dataset.mask_flag_enums[index - 1]):
            return None
        rows, columns = block.shape
        mask = dataset.read_masks(index, window=Window(block.left, block.top, columns, rows))
        return np.asarray(mask) > 0

    def close(self) -> None:
        for dataset in (self.dataset, *self.levels.values()):
            dataset.close()


def _placed_in(dataset: DatasetReader, href: str) -> CRS:
    """The CRS of its affine transform. Raises ReadError where it has none."""
    crs = crs_of(dataset, href)
    if crs is not None and not dataset.transform.is_identity:
        return crs
    raise ReadError(
        f"{href} does not say where it lies",
        address=href,
        reason="no_georeference",
        expected="an affine transform and a CRS, or ground control points",
        fix="georeference it, for example with gdal_translate -a_srs … -a_ullr …",
    )


def _control_grid(dataset: DatasetReader, href: str) -> ControlGrid | None:
    """Where the file's own control points place it; None where it has none, or an affine transform that goes before."""
    from odc.geo.crs import CRS

    if dataset.crs is not None and not dataset.transform.is_identity:
        return None
    points, crs = dataset.gcps
    if not points or crs is None:
        return None
    x, y = np.array([point.x for point in points]), np.array([point.y for point in points])
    stated, lonlat = CRS(crs.to_wkt()), CRS("EPSG:4326")
    lon, lat = (x, y) if crs.to_epsg() == 4326 else stated.transformer_to_crs(lonlat)(x, y)
    placed = [
        ControlPoint(float(point.row), float(point.col), float(east), float(north), float(point.z or 0.0))
        for point, east, north in zip(points, lon, lat, strict=True)
    ]
    return control_grid(placed, dataset.shape, address=href)


def _grids(dataset: DatasetReader, own: CRS, href: str) -> tuple[SourceGrid, ...]:
    """Full resolution and overviews; an overview stretches over the whole image, as GDAL reads it."""
    from affine import Affine
    from odc.geo import crs as known

    crs = known.CRS(own.to_wkt()) if own.to_epsg() is None else known.CRS(f"EPSG:{own.to_epsg()}")
    grids = [SourceGrid(shape=dataset.shape, transform=dataset.transform, crs=crs)]
    rows, columns = dataset.shape
    check_levels(len(dataset.overviews(1)), href)
    for level, factor in enumerate(dataset.overviews(1)):
        shape = (rows // factor, columns // factor)
        if rows % factor or columns % factor:  # some writers round up, others (GDAL's own COG driver) down
            with _dataset(dataset.name, overview_level=level) as overview:
                shape = overview.shape
        scale = Affine.scale(columns / shape[1], rows / shape[0])
        grids.append(SourceGrid(shape=shape, transform=dataset.transform @ scale, crs=crs))
    return tuple(grids)


_Identity = tuple[str, int, int]


class _OpenFiles:
    """Files that no thread is using now, the one used last at the end.

    They belong to the process and not to a thread: pools come and go with each cell, and a neighbouring cell shares
    blocks that GDAL still holds decoded. A file is out of the cache while a thread uses it.
    """

    def __init__(self) -> None:
        self._idle: list[tuple[_Identity, _RasterImage]] = []
        self._lock = threading.Lock()

    def take(self, identity: _Identity) -> _RasterImage | None:
        """An idle file of this identity, which is now the caller's."""
        with self._lock:
            for index in reversed(range(len(self._idle))):
                if self._idle[index][0] == identity:
                    return self._idle.pop(index)[1]
        return None

    def give(self, identity: _Identity, image: _RasterImage) -> None:
        """Put a file back; the one that was idle longest is closed where there are too many."""
        with self._lock:
            self._idle.append((identity, image))
            surplus = [self._idle.pop(0)[1] for _ in range(len(self._idle) - OPEN_FILES)]
        for old in surplus:
            old.close()

    def close(self) -> None:
        """Close all idle files."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, image in idle:
            image.close()


_FILES = _OpenFiles()


def close_files() -> None:
    """Close the files that this process keeps open for its next reads, and drop their decoded blocks."""
    _FILES.close()


def _identity(path: str, href: str) -> _Identity:
    """What an open file is known by: a local one that is replaced is another one."""
    if ELSEWHERE.match(path):
        return path, 0, 0
    member = split_member(href)
    try:
        status = Path(member.archive.removeprefix("file://") if member else path).stat()
    except OSError as error:
        raise read_error(href, Cause.NEVER_PUBLISHED, f"there is no file {href}") from error
    return path, status.st_mtime_ns, status.st_size


def _open(path: str, href: str) -> _RasterImage:
    _settle()
    if not path.startswith("/vsi"):
        check_beside(path, href)
    dataset = _dataset(path)
    try:
        check_links(dataset, href)
        check_size(dataset, href)
        grids = _control_grid(dataset, href) or _grids(dataset, _placed_in(dataset, href), href)
        return _RasterImage(dataset=dataset, path=path, href=href, grids=grids)
    except BaseException:
        dataset.close()
        raise


@contextlib.contextmanager
def _borrowed(path: str, href: str) -> Iterator[_RasterImage]:
    """The open file of `path`, this thread's alone; closed after an error, for it may hold half a read."""
    identity = _identity(path, href)
    image = _FILES.take(identity) or _open(path, href)
    try:
        yield image
    except BaseException:
        image.close()
        raise
    _FILES.give(identity, image)


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterioReader:
    """Reads GeoTIFF, JPEG 2000, PNG and JPEG from folders, http(s) and s3, and NetCDF 4 from folders.

    Safe for any number of threads: an open file is used by one at a time. Pickles to other processes.
    """

    sign: Signer = field(default_factory=HostSigner)
    """From an unsigned href to one that can be read now."""
    max_pixels: int = MAX_PIXELS
    """Largest part of one band that is read at once."""

    def read(self, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None = None) -> NDArray[np.float32]:
        """As `Reader.read`."""
        try:
            return self._read(source, geobox, frame, renew=False)
        except ReadError as error:
            address = self.sign(source.href)
            if error.reason not in _DENIALS or (address == source.href and not is_redirected(address)):
                raise
        return self._read(source, geobox, frame, renew=True)  # once: the signature may have been withdrawn

    def _read(
        self, source: BandSource, geobox: GeoBox, frame: GeoBox | None, *, renew: bool
    ) -> NDArray[np.float32]:  # fmt: skip
        from rasterio.errors import RasterioError

        href = source.href
        named = split_variable(href)
        if named is not None:
            return read_variable(named, source, geobox, frame=frame, max_pixels=self.max_pixels)
        address = self.sign(href, renew=renew)
        try:
            reached = admit(address, href=href, renew=renew)
        except UnansweredError as error:
            raise _failure(href, (address,), error, ()) from None
        path = gdal_path(reached)

        def fetch(document: str) -> bytes:
            return read_text(self.sign(document, renew=renew))

        with heard() as log, _environment(path):
            try:
                with _borrowed(path, href) as image:
                    shown, read = calibrated(image, source, fetch) if source.annotation else (image, source)
                    values = read_image(shown, read, geobox, frame=frame, max_pixels=self.max_pixels)
            except IndexError:
                raise read_error(href, Cause.UNSUPPORTED, f"{href} has no band {source.index}") from None
            except (RasterioError, MemoryError) as error:
                # Without its context, whose texts hold the signed address.
                raise _failure(href, (reached, address), error, log) from None
            _check_followed(log, reached)
        note_read(href)
        return values


_DENIALS = frozenset({Cause.CREDENTIALS, Cause.DENIED, Cause.EXPIRED})


_FOLLOWED = re.compile(r"(?:effective|redirect) URL:? (https?://\S+)", re.IGNORECASE)


def _check_followed(log: Iterable[str], address: str) -> None:
    """Raises ReadError where GDAL's log says that `address`, which led nowhere before, sent it somewhere forbidden.

    The request was made by then; what it brought is not used.
    """
    for line in log:
        for target in _FOLLOWED.findall(line):
            check_hop(target, origin=address, connection=Connection.from_environment())


def _failure(href: str, addresses: tuple[str, ...], error: BaseException, log: Iterable[str]) -> ReadError:
    """What `error` means; a remote address is asked once more where exception and log leave it open.

    `addresses` are what `href` was read by, the last of them the one to ask.
    """
    texts = [texts_of(error), *log]
    for address in addresses:
        texts = [text.replace(address, href) for text in texts]
    told = [_unnamed(text, href) for text in texts]
    evidence = Evidence(text=told[0], log=tuple(told[1:]), read_before=was_read(href))
    cause = classify(evidence)
    answer = probe(addresses[-1]) if cause in _OPEN else None
    if answer is not None:
        evidence = dataclasses.replace(evidence, probe=answer)
        cause = classify(evidence)
    shown = texts[0].split(" | ")[-1][:300]
    return read_error(
        href,
        cause,
        f"cannot read {href}: {shown}",
        retry_after_s=answer.retry_after_s if answer else None,
    )


_OPEN = frozenset({Cause.DAMAGED, Cause.UNKNOWN, Cause.REFUSED})
"""Causes that the address itself may know better, or say more about."""


def _unnamed(text: str, href: str) -> str:
    """`text` without the file's own name, whose words are no evidence."""
    return text.replace(href, "").replace(PurePosixPath(urlsplit(href).path or href).name, "")
