"""A remote file that is read in ranges, as programs read a file that can be sought in."""

from __future__ import annotations

import abc
import io


class RangedFile(io.RawIOBase, abc.ABC):
    """A file of a known size of which any range can be had, read from its start on."""

    def __init__(self, size: int) -> None:
        self._place, self._size = 0, size

    @abc.abstractmethod
    def fetch(self, start: int, count: int) -> bytes:
        """The bytes of a range that lies inside the file. Raises OSError where it cannot be had."""

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As `io.IOBase.seek`."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """As `io.RawIOBase.readinto`: what a range brought, 0 at the end."""
        count = min(len(buffer), self._size - self._place)
        if count <= 0:
            return 0
        data = self.fetch(self._place, count)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
