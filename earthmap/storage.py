"""Where a run keeps its bytes: a local folder or an S3 prefix, by one address, through obstore; to read also https.

Objects appear whole or not at all. `create` writes only where nothing is yet (a hard link in a folder,
`If-None-Match: *` on S3), which is what makes a manifest mean "done" and lets a second writer lose quietly.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthmap.connection import Connection
from earthmap.errors import JobError, StorageError

if TYPE_CHECKING:
    from zarr.storage import ObjectStore as ZarrObjectStore


_FULL = ("No space left", "StorageFull", "(os error 28)", "(os error 27)", "(os error 122)")
"""Signs of a full disk, a limit on the size of files (EFBIG) and a quota (EDQUOT) in what obstore says."""


@functools.lru_cache(maxsize=256)
def _connect(address: str, connection: Connection | None) -> Any:
    """The obstore store for `address`; a folder needs no connection."""
    import obstore.store

    if connection is None:
        return obstore.store.LocalStore(prefix=address, mkdir=True)
    return obstore.store.from_url(address, **connection.obstore_options(address))


def _remove_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


class Storage:
    """One folder or S3 prefix. Small and picklable: it carries its address and connects where it is used.

    Of an http(s) address what is asked for by its path is read; nothing can be listed or written there.

    Example:
        >>> import tempfile
        >>> storage = Storage(tempfile.mkdtemp())
        >>> storage.create("a/b.txt", b"first"), storage.create("a/b.txt", b"second"), storage.read("a/b.txt")
        (True, False, b'first')
    """

    def __init__(self, address: str | Path, *, connection: Connection | None = None) -> None:
        text = str(address)
        self.connection = connection
        """How the network is reached; None for how the environment says where it is used."""
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        self.address = text.rstrip("/") if "://" in text else str(Path(text).expanduser().resolve())

    def __repr__(self) -> str:
        return f"Storage({self.address!r})"

    @property
    def is_local(self) -> bool:
        """True for a folder of this machine."""
        return "://" not in self.address

    def sub(self, path: str) -> Storage:
        """The storage below `path`."""
        return Storage(f"{self.address}/{path}", connection=self.connection)

    def locate(self, path: str) -> str:
        """The full address of `path`, for people and for other programs."""
        return f"{self.address}/{path}"

    def _store(self, *, writing: bool = False) -> Any:
        """The open store. Reading makes no folder: FileNotFoundError where there is none yet."""
        if self.is_local and not Path(self.address).is_dir():
            if not writing:
                raise FileNotFoundError(self.address)
            _connect.cache_clear()  # a store that was opened before its folder was removed does not make it again
        try:
            reached = None if self.is_local else self.connection or Connection.from_environment().signed()
            return _connect(self.address, reached)
        except JobError:
            raise
        except Exception as error:  # obstore raises errors of no common base
            raise StorageError(
                f"cannot open the storage {self.address}: {error}",
                expected="a folder that can be written, or s3://bucket/prefix",
            ) from error

    def _failed(self, action: str, path: str, error: BaseException) -> StorageError:
        if isinstance(error, StorageError):
            return error
        text = str(error)
        full = any(sign in text for sign in _FULL)
        fix = "free some space, or give another --out" if full else "check the address, its permissions and credentials"
        what = "no space left" if full else text.split("Debug source")[0].strip()[:300]
        return StorageError(f"cannot {action} {self.locate(path)}: {what}", fix=fix)

    def read(self, path: str) -> bytes:
        """The bytes of `path`. Raises FileNotFoundError where there is none, StorageError where it cannot be read."""
        import obstore

        try:
            return bytes(obstore.get(self._store(), path).bytes())
        except FileNotFoundError:
            raise
        except Exception as error:  # obstore raises errors of no common base
            raise self._failed("read", path, error) from error

    def size(self, path: str) -> int:
        """How many bytes `path` has. Raises as `read`."""
        import obstore

        try:
            return int(obstore.head(self._store(), path)["size"])
        except FileNotFoundError:
            raise
        except Exception as error:  # obstore raises errors of no common base
            raise self._failed("look at", path, error) from error

    def read_part(self, path: str, *, start: int, end: int) -> bytes:
        """The bytes of `path` from `start` to before `end`, which is beyond it. Raises as `read`."""
        import obstore

        try:
            return bytes(obstore.get_range(self._store(), path, start=start, end=end))
        except FileNotFoundError:
            raise
        except Exception as error:  # obstore raises errors of no common base
            raise self._failed("read", path, error) from error

    def read_file(self, path: str, local: Path) -> None:
        """Copy `path` into the file `local`, a piece at a time. Raises as `read`, and the OSError of the file."""
        with local.open("wb") as file:
            for piece in self._pieces(path):
                file.write(piece)

    def _pieces(self, path: str) -> Iterator[bytes]:
        import obstore

        try:
            yield from obstore.get(self._store(), path).stream()
        except FileNotFoundError:
            raise
        except Exception as error:  # obstore raises errors of no common base
            raise self._failed("read", path, error) from error

    def write(self, path: str, data: bytes) -> None:
        """Put `data` at `path`, replacing what is there, whole or not at all."""
        import obstore

        try:
            obstore.put(self._store(writing=True), path, data, use_multipart=False)
        except Exception as error:  # obstore raises errors of no common base
            raise self._failed("write", path, error) from error

    def create(self, path: str, data: bytes) -> bool:
        """Put `data` at `path` only where nothing is; False when something already was."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            obstore.put(self._store(writing=True), path, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        except Exception as error:  # obstore raises errors of no common base
            raise self._failed("write", path, error) from error
        return True

    def write_file(self, path: str, local: Path) -> None:
        """Put the bytes of the file `local` at `path`, a piece at a time, whole or not at all."""
        import obstore

        try:
            obstore.put(self._store(writing=True), path, local)
        except Exception as error:  # obstore raises errors of no common base
            raise self._failed("write", path, error) from error

    def exists(self, path: str) -> bool:
        """True where an object stands at `path`."""
        import obstore

        try:
            obstore.head(self._store(), path)
        except FileNotFoundError:
            return False
        except Exception as error:  # obstore raises errors of no common base
            raise self._failed("look at", path, error) from error
        return True

    def list(self, prefix: str = "") -> list[str]:
        """The paths of all objects below `prefix`, sorted."""
        return [path for path, _, _ in self.entries(prefix)]

    def entries(self, prefix: str = "") -> Sequence[tuple[str, int, str]]:
        """Path, size in bytes and entity tag of all objects below `prefix`, sorted."""
        import obstore

        try:
            batches = obstore.list(self._store(), prefix or None)
            return sorted((meta["path"], int(meta["size"]), meta["e_tag"] or "") for batch in batches for meta in batch)
        except FileNotFoundError:
            return []
        except Exception as error:  # obstore raises errors of no common base
            raise self._failed("list", prefix, error) from error

    def delete(self, path: str) -> None:
        """Remove the object at `path`, if there is one."""
        import obstore

        try:
            obstore.delete(self._store(), path)
        except FileNotFoundError:
            return
        except Exception as error:  # obstore raises errors of no common base
            raise self._failed("delete", path, error) from error

    def clear(self, prefix: str) -> None:
        """Remove everything below `prefix`, in a folder with the folders that are empty then."""
        import obstore

        try:
            if paths := self.list(prefix):
                obstore.delete(self._store(), paths)
        except FileNotFoundError:
            return
        except Exception as error:  # obstore raises errors of no common base
            raise self._failed("delete", prefix, error) from error
        if self.is_local:
            root = Path(self.address)
            for folder in sorted((root / prefix).rglob("*/"), reverse=True):
                _remove_empty(folder)
            for folder in (root / prefix, *(root / prefix).parents):
                if folder == root or not _remove_empty(folder):
                    return

    def zarr(self, path: str, *, read_only: bool = False) -> ZarrObjectStore[Any]:
        """A Zarr v3 store rooted at `path`; to read from a folder that is not there raises FileNotFoundError."""
        from zarr.storage import ObjectStore

        return ObjectStore(self.sub(path)._store(writing=not read_only), read_only=read_only)
