"""Structured logs: one JSON object a line, with run, execution, cell and tile where they are known, and no secrets.

Off unless asked for: `EARTHMAP_LOG=info` (or debug, warning, error) writes them to standard error, in the place of the
bar. Every logger of the process is heard, those of libraries included, and all that they say goes through
`earthmap.operate.redaction.Redactor`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO

from earthmap.errors import JobError
from earthmap.operate.redaction import Redactor

if TYPE_CHECKING:
    from earthmap.pipeline import Progress, Run

VARIABLE = "EARTHMAP_LOG"
"""Environment variable that turns logs on, by naming the least level."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""What the variable may say."""

MAX_FAILURES = 1_000
"""Failed rows of a run that are logged one by one; the rest are counted."""

_LOGGER = logging.getLogger("earthmap")
_BOUND: ContextVar[Mapping[str, Any]] = ContextVar("earthmap_log_fields", default=MappingProxyType({}))
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes of every record; what else one has was given as `extra`."""


class JsonFormatter(logging.Formatter):
    """Records as lines of JSON: `time` (UTC), `level`, `logger`, `event`, what is bound, what was given as `extra`."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redact = redactor

    def format(self, record: logging.LogRecord) -> str:
        """One line, without secrets; a record that cannot be put into words says so."""
        try:
            event = record.getMessage()
        except Exception as error:  # noqa: BLE001 - arguments of others that do not fit their words
            event = f"{record.msg} ({type(error).__name__}: its arguments do not fit)"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {
            **_BOUND.get(),
            **{name: value for name, value in vars(record).items() if name not in _OWN and name[:1] != "_"},
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event,
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(self._redact(fields))


@contextlib.contextmanager
def logging_to(stream: TextIO, *, level: int = logging.INFO, redactor: Redactor | None = None) -> Iterator[None]:
    """All loggers of the process write to `stream` as JSON, and nothing else; as before on leaving."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(redactor or Redactor.of_environment()))
    root, former = logging.getLogger(), (logging.getLogger().handlers[:], logging.getLogger().level)
    apart = [logger for logger in _loggers() if not logger.propagate]  # they keep what they say from the root
    root.handlers = [handler]
    root.setLevel(level)  # which also forgets who was enabled before
    for logger in apart:
        logger.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers = former[0]
        root.setLevel(former[1])
        for logger in apart:
            logger.removeHandler(handler)
        handler.flush()


def is_on() -> bool:
    """True where the environment asks for logs."""
    return bool(os.environ.get(VARIABLE, "").strip())


@contextlib.contextmanager
def logging_as_asked(stream: TextIO | None = None) -> Iterator[bool]:
    """Logs as the environment asks for them; False where it does not.

    Raises:
        JobError: for a level that does not exist.
    """
    asked = os.environ.get(VARIABLE, "").strip().lower()
    if not asked:
        yield False
        return
    if asked not in LEVELS:
        raise JobError(f"{VARIABLE} is {asked!r}", expected=", ".join(LEVELS), fix=f"for example {VARIABLE}=info")
    with logging_to(stream or sys.stderr, level=LEVELS[asked]):
        yield True


@contextlib.contextmanager
def bound(fields: Mapping[str, Any]) -> Iterator[None]:
    """What is logged meanwhile, by this thread or task, has these fields too."""
    token = _BOUND.set({**_BOUND.get(), **fields})
    try:
        yield
    finally:
        _BOUND.reset(token)


def _loggers() -> list[logging.Logger]:
    return [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]


# ── what a run tells ─────────────────────────────────────────────────────────────────────────────────────────


def log_progress(progress: Progress) -> None:
    """A cell is done; for `report` of `run_job`."""
    fields = {
        "execution": progress.execution,
        "cell": progress.cell_id,
        "cells": progress.cells,
        "tiles": progress.tiles,
        "tiles_planned": progress.tiles_planned,
        "failed": progress.failed,
    }
    _LOGGER.info("cell done", extra=fields)


def log_step(step: str) -> None:
    """A step has begun; for `say` of `run_job`."""
    _LOGGER.info("%s", step)


def log_outcome(run: Run) -> None:
    """How a finished run ended: its counts, and each row of its ledger that failed, the first thousand."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from earthmap.pipeline.folder import LEDGER_PATH, RUN_PATH

    told = json.loads(run.storage.read(RUN_PATH))
    with bound({"run": run.address, "execution": told["execution"]}):
        failed = 0
        with pq.ParquetFile(_buffer(run.storage.read(LEDGER_PATH))) as ledger:
            for batch in ledger.iter_batches(columns=list(_FAILURE)):
                rows = batch.filter(pc.equal(batch["status"], "failed")).to_pylist()
                for row in rows[: max(0, MAX_FAILURES - failed)]:
                    _LOGGER.warning("tile failed", extra={name: row[column] for column, name in _FAILURE.items()})
                failed += len(rows)
        counts = {name: run.summary[name] for name in ("planned", "answered", "skipped", "failed")}
        _LOGGER.info("run finished", extra={**counts, "seconds": told["seconds"], "parts": told["parts"]})


_FAILURE = {
    "cell_id": "cell", "tile_id": "tile", "query": "query", "observation": "observation", "status": "status",
    "stage": "stage", "reason": "reason", "message": "why", "address": "address",
}  # fmt: skip
"""Columns of the ledger, and what a log calls them: `message` is an attribute of records."""


def _buffer(data: bytes) -> Any:
    import pyarrow as pa

    return pa.BufferReader(data)
