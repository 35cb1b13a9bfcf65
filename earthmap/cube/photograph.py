"""Photographs: PNG and JPEG files that lie nowhere on the ground, as 8-bit red, green and blue.

What a file claims is judged from its header, before any of it is decoded.
"""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthmap.catalog.raster_facts import read_facts
from earthmap.cube.reader import MAX_PIXELS
from earthmap.errors import ReadError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG")

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Of 8 bits and less."""
_DAMAGE = (
    *(OSError, ValueError, SyntaxError, EOFError, MemoryError, ArithmeticError, LookupError, TypeError),
    *(AttributeError, AssertionError, RuntimeError, struct.error),
)
"""What Pillow raises for damaged files: its TIFF reader takes broken tags for programming errors."""
_UPRIGHT = 1
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """A photograph as people see it: turned upright where its EXIF data say how it was held."""

    rgb: NDArray[np.uint8] = field(repr=False, compare=False)
    """(y, x, 3)."""
    valid: NDArray[np.bool_] = field(repr=False, compare=False)
    """(y, x), False where it is transparent."""
    turned: bool = False
    """True where its EXIF data turned it."""


def is_photograph(path: str) -> bool:
    """True for a PNG or JPEG on this machine that does not say where it lies.

    Raises:
        ReadError: for one that is damaged.
    """
    file = Path(path.removeprefix("file://")).expanduser()
    try:
        with file.open("rb") as opened:
            if not opened.read(8).startswith(_SIGNATURES):
                return False
    except OSError:
        return False  # a folder, an address, or nothing: for others to judge
    try:
        read_facts(str(file))
    except ReadError as error:
        if error.reason == "no_georeference":
            return True
        raise
    return False


def read_photograph(path: str) -> Photograph:
    """The photograph at `path`.

    Raises:
        ReadError: for a file that is damaged, has more than `MAX_PIXELS` pixels or more than 8 bits a channel.
    """
    return _read(Path(path.removeprefix("file://")).expanduser(), path, FORMATS)


def decode_photograph(data: bytes, *, name: str, formats: tuple[str, ...] = FORMATS) -> Photograph:
    """The photograph whose file has these bytes.

    Args:
        data: The bytes of the file.
        name: What messages call it.
        formats: What it may be, as Pillow names formats.

    Raises:
        ReadError: as `read_photograph`.
    """
    return _read(BytesIO(data), name, formats)


def _read(file: Path | BytesIO, path: str, formats: tuple[str, ...]) -> Photograph:
    from PIL import ImageOps

    with _opened(file, path, formats) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _unfit(path, "too_large", f"has {image.width:,} × {image.height:,} pixels", f"at most {MAX_PIXELS:,}")
        if image.mode not in _MODES:
            raise _unfit(path, "unsupported", f"holds numbers of the kind {image.mode}", "8 bits a channel")
        turned = image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT
        upright = ImageOps.exif_transpose(image)
        pixels = np.asarray(upright.convert("RGBA"))
    return Photograph(rgb=np.ascontiguousarray(pixels[..., :3]), valid=pixels[..., 3] > 0, turned=turned)


def _unfit(path: str, reason: str, what: str, expected: str) -> ReadError:
    return ReadError(f"{path} {what}", address=path, reason=reason, expected=expected)


@contextlib.contextmanager
def _opened(file: Path | BytesIO, path: str, formats: tuple[str, ...]) -> Iterator[Image]:
    """The file's header, and its pixels once they are asked for. Raises ReadError for what Pillow raises."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are judged here, and of odd metadata, which do not matter
        try:
            with Image.open(file, formats=formats) as image:
                yield image
        except Image.DecompressionBombError as error:
            raise _unfit(
                path, "too_large", "claims more pixels than an image has", f"at most {MAX_PIXELS:,}"
            ) from error
        except ReadError:
            raise
        except _DAMAGE as error:
            said = " ".join(str(error).split())[:200]
            raise _unfit(
                path, "damaged", f"is no image that can be read: {said}", f"a whole {' or '.join(formats)}"
            ) from error
