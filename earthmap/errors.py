"""Every error that earthmap raises, and every warning that it gives.

    EarthmapError
    ├── BadRequestError (ValueError)          the request cannot be run as it stands: exit code 2
    │   ├── AreaError                         an area that is not ground on the Earth
    │   ├── GridError                         a lattice, tile or cell that does not exist
    │   ├── JobError                          an option or a line of a job file
    │   ├── QueryError                        a question that cannot be asked
    │   ├── SensorError                       imagery that is not recognised or lacks what a query needs
    │   ├── CatalogError                      a catalogue that cannot be read, or holds nothing for the request
    │   ├── ModelError                        a checkpoint, or input to the model, that cannot be used
    │   ├── TrainingError                     a table of stages, or training data, that nothing can be learned from
    │   └── RunFolderError                    a run folder of another job, or held by another run
    ├── ReadError (OSError)                   an asset whose bytes do not become pixels: a ledger row
    ├── CredentialsError (OSError)            a provider that lets nothing be read: ends the run, exit code 1
    ├── IsolatedError (RuntimeError)          work in a subprocess that died, or overran its limits: a ledger row
    ├── ClusterError (ConnectionError)        a Ray cluster that was lost in the middle of a run
    │   └── ReplicaError                      a replica that was lost while it computed, which is done again
    ├── ServiceError (ConnectionError)        a service that is not reached, or refuses what was asked of it
    ├── StorageError (OSError)                run storage that cannot be read or written
    └── LedgerError (RuntimeError)            planned is not answered + skipped + failed: a defect, never hidden

    EarthmapWarning (UserWarning)

A message says what happened, what was expected and how to fix it, on one line.
"""

from __future__ import annotations

from typing import Any


def _one_line(text: str) -> str:
    return " ".join(text.split())


class EarthmapError(Exception):
    """What happened, what was expected, and how to fix it."""

    def __init__(self, what: str, *, expected: str | None = None, fix: str | None = None) -> None:
        self.what = _one_line(what)
        self.expected = _one_line(expected) if expected else None
        self.fix = _one_line(fix) if fix else None
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [self.what]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.fix:
            parts.append(f"to fix: {self.fix}")
        return "; ".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive BaseException's own pickling, and errors cross processes.
        return (_rebuild, (type(self), self.what, self.expected, self.fix, self.__dict__))


def _rebuild(
    kind: type[EarthmapError], what: str, expected: str | None, fix: str | None, state: dict[str, Any]
) -> EarthmapError:
    error = kind.__new__(kind)
    EarthmapError.__init__(error, what, expected=expected, fix=fix)
    error.__dict__.update(state)
    return error


class BadRequestError(EarthmapError, ValueError):
    """The request cannot be run as it stands."""


class AreaError(BadRequestError):
    """An area that is not ground on the Earth."""


class GridError(BadRequestError):
    """A lattice, tile or cell that does not exist."""


class JobError(BadRequestError):
    """An option or a line of a job file that cannot be followed."""


class QueryError(BadRequestError):
    """A question that cannot be asked."""


class SensorError(BadRequestError):
    """Imagery that is not recognised, or lacks what a query needs."""


class CatalogError(BadRequestError):
    """A catalogue that cannot be read, or that holds nothing for the request.

    `status` is the HTTP status of a service that refuses, 408 where it did not answer in time; else None.
    """

    def __init__(
        self, what: str, *, expected: str | None = None, fix: str | None = None, status: int | None = None
    ) -> None:
        self.status = status
        super().__init__(what, expected=expected, fix=fix)


class ModelError(BadRequestError):
    """A checkpoint, or input to the model, that cannot be used."""


class TrainingError(BadRequestError):
    """A table of stages, or training data, that nothing can be learned from."""


class RunFolderError(BadRequestError):
    """A run folder that belongs to another job, or is held by another run."""


class ReadError(EarthmapError, OSError):
    """An asset whose bytes do not become pixels; `address` is its unsigned href, `reason` a short stable word.

    `retry_after_s` is how long the provider asks to wait, where it does.
    """

    def __init__(
        self,
        what: str,
        *,
        address: str,
        reason: str,
        expected: str | None = None,
        fix: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.address = address
        self.reason = reason
        self.retry_after_s = retry_after_s
        super().__init__(what, expected=expected, fix=fix)


class CredentialsError(EarthmapError, OSError):
    """A provider that lets nothing be read with the credentials at hand."""


class IsolatedError(EarthmapError, RuntimeError):
    """Work in a subprocess that died or overran its limits; `reason` is `crashed`, `timeout` or `memory`."""

    def __init__(self, what: str, *, reason: str, expected: str | None = None, fix: str | None = None) -> None:
        self.reason = reason
        super().__init__(what, expected=expected, fix=fix)


class ClusterError(EarthmapError, ConnectionError):
    """The Ray cluster was lost in the middle of a run; what is committed stays."""


class ReplicaError(ClusterError):
    """A replica of a predictor was lost while it computed; others may compute the same."""


class ServiceError(EarthmapError, ConnectionError):
    """A service that is not reached, or refuses what was asked of it; `status` is its HTTP status, or None."""

    def __init__(
        self, what: str, *, expected: str | None = None, fix: str | None = None, status: int | None = None
    ) -> None:
        self.status = status
        super().__init__(what, expected=expected, fix=fix)


class StorageError(EarthmapError, OSError):
    """Run storage that cannot be read or written: full, missing, or not permitted."""


class LedgerError(EarthmapError, RuntimeError):
    """Planned is not answered + skipped + failed."""


class EarthmapWarning(UserWarning):
    """Something that the result is still valid without, but that its reader should know."""
