"""A live job: how it stands, a bar to watch it by, and what it comes to."""

from __future__ import annotations

import html
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from earthmap.errors import JobError

if TYPE_CHECKING:
    from earthmap.operate.progress import Bar

ACCEPTED, RUNNING, SUCCESSFUL, FAILED, DISMISSED = "accepted", "running", "successful", "failed", "dismissed"
"""How a job stands, in the words of OGC API – Processes (statusCode.yaml)."""

OVER = frozenset({SUCCESSFUL, FAILED, DISMISSED})

_SOONEST_S, _LATEST_S = 0.1, 2.0
"""Between two looks: often at first, for who asked little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a job stands at one moment."""

    status: str
    progress: int = 0
    """Per cent."""
    messages: tuple[str, ...] = ()
    """What it said so far."""
    fault: Exception | None = None
    """Why it failed."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.status in OVER


class Work(Protocol):
    """What a live job stands for, here or elsewhere. Called from any thread."""

    def look(self) -> Look:
        """How it stands now. Raises EarthmapError where that cannot be known."""

    def cancel(self) -> None:
        """End it; what is done stays done."""

    def fetch(self) -> Any:
        """What it came to, once it is successful. Raises EarthmapError."""


@dataclass(slots=True, kw_only=True)
class LiveJob:
    """A job that was asked for: watched by `wait`, and fetched by `result`."""

    id: str
    process: str
    """What was asked for: `map`, for instance."""
    work: Work = field(repr=False)
    _result: Any = field(default=None, repr=False)

    @property
    def status(self) -> str:
        """`accepted`, `running`, `successful`, `failed` or `dismissed`."""
        return self.work.look().status

    @property
    def progress(self) -> int:
        """Per cent that is done."""
        return self.work.look().progress

    @property
    def messages(self) -> tuple[str, ...]:
        """What it said so far."""
        return self.work.look().messages

    def cancel(self) -> None:
        """End it. On a service its results are no longer given then; here what was read is kept."""
        self.work.cancel()

    def wait(self, timeout: float | None = None, *, quiet: bool = False) -> LiveJob:
        """This job when it is over, or after `timeout` seconds; a bar shows how far it is, unless it is to be `quiet`.

        Ctrl-C ends the waiting, and not the job.

        Raises:
            EarthmapError: why it failed; JobError for one that was dismissed.
        """
        if quiet:
            self._watch(None, timeout)
        elif not self.work.look().is_over:
            from earthmap.operate.progress import live_bar

            with live_bar() as bar:
                self._watch(bar, timeout)
        look = self.work.look()
        if look.fault is not None:
            raise look.fault
        if look.status == DISMISSED:
            raise JobError(f"the job {self.id} was dismissed", expected="a job that came to its end", fix="ask again")
        return self

    def _watch(self, bar: Bar | None, timeout: float | None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        pause, told = _SOONEST_S, 0
        while True:
            look = self.work.look()
            if bar is not None:
                for text in look.messages[told:]:
                    bar.say(text)
                told = len(look.messages)
                bar.advance(look.progress, 100)
            left = None if end is None else end - time.monotonic()
            if look.is_over or (left is not None and left <= 0):
                return
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, _LATEST_S)

    def result(self, timeout: float | None = None, *, quiet: bool = False) -> Any:
        """What it came to, waited for as by `wait`: of `map` a run, with `.features`, `.cube` and `.explore()`.

        Raises:
            EarthmapError: why it failed; JobError for one that is not over after `timeout` seconds.
        """
        if self._result is None:
            status = self.wait(timeout, quiet=quiet).status
            if status != SUCCESSFUL:
                raise JobError(
                    f"the job {self.id} is {status} after {timeout:g} s" if timeout is not None else f"it is {status}",
                    expected="a job that is over",
                    fix="wait longer; it goes on by itself",
                )
            self._result = self.work.fetch()
        return self._result

    def _repr_html_(self) -> str:
        from earthmap.operate.progress import bar_html

        look = self.work.look()
        why = [str(look.fault)] if look.fault is not None else list(look.messages[-1:])
        shown = bar_html(look.progress, 100, said=why)
        return f"<b>earthmap {html.escape(self.process)}</b> {html.escape(self.id)}: {look.status}<br>{shown}"
