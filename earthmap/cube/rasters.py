"""`RasterioReader`: local files, http(s) and s3 addresses through GDAL."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from earthmap.catalog.addresses import gdal_path, split_member
from earthmap.catalog.scene import BandSource
from earthmap.cube.reader import MAX_PIXELS, read_image
from earthmap.cube.warp import Block, SourceGrid
from earthmap.errors import ReadError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox
    from rasterio.io import DatasetReader

DRIVERS = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG")
"""What an address may be. A list of what is allowed: VRT and its kin would fetch whatever address a file names."""

MAX_BLOCK_BYTES = 2**28
"""Largest internal block that is decoded: a crafted file could ask for all memory with a few bytes."""

OPEN_FILES = 64
"""Idle files that a process keeps open for its next reads."""

_REMOTE: Mapping[str, str] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing of the folder, no search for sidecar files
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # a COG's header in one request
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_VERSION": "2",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_MAX_RETRY": "2",
    "GDAL_HTTP_RETRY_DELAY": "0.3",
    "CPL_VSIL_CURL_USE_HEAD": "NO",
    "CPL_VSIL_CURL_CACHE_SIZE": "134217728",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "5000000",
}

_ELSEWHERE = re.compile(r"(?:/vsi(?:zip|tar)/\{)?/vsi(?:curl|s3)/")
"""GDAL's paths of files, and of archives, that are not on this machine."""

_STATUS = re.compile(r"response[ _]code[:= ]+(\d{3})", re.IGNORECASE)
_MISSING = ("no such file", "nosuchkey", "does not exist", "nosuchbucket")
_REFUSED = ("accessdenied", "access denied", "permission denied", "invalidaccesskeyid", "signaturedoesnotmatch")
_REFUSED_STATUS = {401, 403, 429, 503}
_DAMAGED = ("not recognized as being in a supported file format", "ireadblock failed", "tiff", "decod", "corrupt")

_EXPECTED = {
    "missing": "a file at this address",
    "refused": "permission to read",
    "damaged": "a whole image that GDAL can decode",
}
_FIX = {
    "missing": "check the catalogue's href",
    "refused": "check credentials and quota, and run again",
    "damaged": "fetch the file again, or take another copy of the scene",
    "unreadable": "run again; if it stays, look at the file with gdalinfo",
}


def _chain(error: BaseException | None) -> str:
    """The texts of an error and of all that led to it: GDAL's cause is often not in the last one."""
    texts: list[str] = []
    while error is not None and len(texts) < 16:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return " | ".join(texts)


def failure_reason(text: str) -> str:
    """The reason of `ReadError` that GDAL's messages mean; `unreadable` where they do not tell."""
    status = _STATUS.search(text)
    if status:
        code = int(status[1])
        return "missing" if code in (404, 410) else "refused" if code in _REFUSED_STATUS else "unreadable"
    low = text.lower()
    for reason, marks in (("missing", _MISSING), ("refused", _REFUSED)):
        if any(mark in low for mark in marks):
            return reason
    if "curl" in low or "timed out" in low:
        return "unreadable"
    return "damaged" if any(mark in low for mark in _DAMAGED) else "unreadable"


def _read_error(href: str, error: BaseException, signed: str) -> ReadError:
    text = _chain(error)
    reason = failure_reason(text)
    shown = text.split(" | ")[-1].replace(signed, href)[:300]
    return ReadError(
        f"cannot read {href}: {shown}",
        address=href,
        reason=reason,
        expected=_EXPECTED.get(reason),
        fix=_FIX[reason],
    )


def _options(path: str) -> dict[str, str]:
    """GDAL's settings for `path`; a local file keeps its sidecar files, and S3 follows AWS_ENDPOINT_URL."""
    if not _ELSEWHERE.match(path):
        return {}
    options = dict(_REMOTE)
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if "/vsis3/" in path and endpoint and "AWS_S3_ENDPOINT" not in os.environ:
        parts = urlsplit(endpoint)
        options["AWS_S3_ENDPOINT"] = parts.netloc
        options["AWS_HTTPS"] = "YES" if parts.scheme == "https" else "NO"
        options["AWS_VIRTUAL_HOSTING"] = "FALSE"
    return options


def _environment(path: str) -> Any:
    import rasterio

    return rasterio.Env(**_options(path))


@functools.cache
def _settle() -> None:
    """Once a process: a file without georeference is our error, not a line on the terminal.

    `warnings.catch_warnings` around each open would be shared by all threads; so is the one that rasterio puts around
    the datasets in memory of each warp, which is why the warning also comes up where nothing is wrong.
    """
    from rasterio.errors import NotGeoreferencedWarning

    warnings.simplefilter("ignore", NotGeoreferencedWarning)


def _dataset(path: str, **options: int) -> DatasetReader:
    """`path` opened by one of `DRIVERS`; the class takes several drivers, where `rasterio.open` takes one."""
    from rasterio.io import DatasetReader

    return DatasetReader(path, driver=list(DRIVERS), **options)


@dataclass(frozen=True, kw_only=True)
class _RasterImage:
    """An open file and its overviews, used by one thread."""

    dataset: DatasetReader
    path: str
    grids: Sequence[SourceGrid]
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


def _check_placed(dataset: DatasetReader, href: str) -> None:
    if dataset.crs is not None and not dataset.transform.is_identity:
        return
    points, _ = dataset.gcps
    if points:
        raise ReadError(
            f"{href} is placed by ground control points only",
            address=href,
            reason="ground_control_points",
            expected="an affine transform and a CRS",
            fix="use a geocoded or terrain-corrected product; reading by ground control points comes later",
        )
    raise ReadError(
        f"{href} does not say where it lies",
        address=href,
        reason="no_georeference",
        expected="an affine transform and a CRS",
        fix="georeference it, for example with gdal_translate -a_srs … -a_ullr …",
    )


def _check_blocks(dataset: DatasetReader, href: str) -> None:
    together = dataset.count if dataset.interleaving and dataset.interleaving.value == "PIXEL" else 1
    for (rows, columns), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        item = 16 if dtype.startswith("complex") else np.dtype(dtype).itemsize
        if rows * columns * item * together > MAX_BLOCK_BYTES:
            raise ReadError(
                f"{href} is stored in blocks of {rows} × {columns} pixels",
                address=href,
                reason="too_large",
                expected=f"blocks of at most {MAX_BLOCK_BYTES // 2**20} MB",
                fix="rewrite it as a Cloud Optimized GeoTIFF",
            )


def _grids(dataset: DatasetReader) -> tuple[SourceGrid, ...]:
    """Full resolution and overviews; an overview stretches over the whole image, as GDAL reads it."""
    from affine import Affine
    from odc.geo.crs import CRS

    crs = CRS(dataset.crs.to_wkt()) if dataset.crs.to_epsg() is None else CRS(f"EPSG:{dataset.crs.to_epsg()}")
    grids = [SourceGrid(shape=dataset.shape, transform=dataset.transform, crs=crs)]
    rows, columns = dataset.shape
    for factor in dataset.overviews(1):
        shape = (-(-rows // factor), -(-columns // factor))
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
    if _ELSEWHERE.match(path):
        return path, 0, 0
    member = split_member(href)
    try:
        status = Path(member.archive.removeprefix("file://") if member else path).stat()
    except OSError as error:
        raise ReadError(
            f"there is no file {href}", address=href, reason="missing", expected=_EXPECTED["missing"],
            fix=_FIX["missing"],
        ) from error  # fmt: skip
    return path, status.st_mtime_ns, status.st_size


def _open(path: str, href: str) -> _RasterImage:
    _settle()
    dataset = _dataset(path)
    try:
        _check_placed(dataset, href)
        _check_blocks(dataset, href)
        return _RasterImage(dataset=dataset, path=path, grids=_grids(dataset))
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
    """Reads GeoTIFF, JPEG 2000, PNG and JPEG from folders, http(s) and s3.

    Safe for any number of threads: an open file is used by one at a time. Pickles to other processes.
    """

    sign: Callable[[str], str] | None = None
    """From an unsigned href to one that can be read now; None where addresses need no signature."""
    max_pixels: int = MAX_PIXELS
    """Largest part of one band that is read at once."""

    def read(self, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None = None) -> NDArray[np.float32]:
        """As `Reader.read`."""
        from rasterio.errors import RasterioError

        href = source.href
        address = self.sign(href) if self.sign else href
        path = gdal_path(address)
        with _environment(path):
            try:
                with _borrowed(path, href) as image:
                    return read_image(image, source, geobox, frame=frame, max_pixels=self.max_pixels)
            except IndexError as error:
                raise ReadError(
                    f"{href} has no band {source.index}", address=href, reason="unreadable", fix=_FIX["unreadable"]
                ) from error
            except (RasterioError, MemoryError) as error:
                raise _read_error(href, error, address) from error
