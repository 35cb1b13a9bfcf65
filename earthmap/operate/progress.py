"""One live bar of a run's progress: on a terminal, and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_SHORT = 30
"""Characters of a step that stand before the bar."""

_KEPT = 5
"""Steps that a notebook shows below its bar."""


class Bar(Protocol):
    """What is told how far work is."""

    def advance(self, done: float, total: float, *, detail: str = "") -> None:
        """So much of `total` is done; `detail` stands behind the bar."""

    def say(self, step: str) -> None:
        """A step has begun."""


@contextmanager
def live_bar(*, unit: str = "%") -> Iterator[Bar]:
    """A bar that is gone when the work is over; what was said stays.

    On a terminal it is on standard error. A notebook shows it as HTML, which needs no widgets.
    """
    console = open_console(stderr=True)
    if console.is_jupyter:
        yield _NotebookBar(unit)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Rich

    counted = TextColumn("{task.percentage:>3.0f}") if unit == "%" else MofNCompleteColumn()
    behind = TextColumn(f"{unit} {{task.fields[detail]}}", markup=False)
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), counted, behind, TimeRemainingColumn()]
    with Rich(*columns, console=console, transient=True) as rich:
        rich.add_task("starting", total=None, detail="")
        yield _TerminalBar(rich, console, unit)


def open_console(*, stderr: bool = False) -> Console:
    """Where people read: plain text, of which nothing is coloured by itself."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _TerminalBar:
    rich: Progress
    console: Console
    unit: str

    def advance(self, done: float, total: float, *, detail: str = "") -> None:
        task = self.rich.tasks[0]
        rate = f" {task.speed:.1f}/s" if task.speed and self.unit != "%" else ""
        self.rich.update(task.id, description="mapping", total=total, completed=done, detail=detail + rate)

    def say(self, step: str) -> None:
        self.console.print(step, style="dim", markup=False)
        self.rich.update(self.rich.tasks[0].id, description=step if len(step) < _SHORT else "mapping")


@dataclass(slots=True)
class _NotebookBar:
    unit: str
    said: list[str] = field(default_factory=list)
    shown: Any = None
    at: tuple[float, float, str] = (0.0, 0.0, "")

    def advance(self, done: float, total: float, *, detail: str = "") -> None:
        self.at = (done, total, detail)
        self._show()

    def say(self, step: str) -> None:
        self.said.append(step)
        self._show()

    def _show(self) -> None:
        from IPython.display import HTML, display

        picture = HTML(bar_html(*self.at, unit=self.unit, said=self.said[-_KEPT:]))  # type: ignore[no-untyped-call]
        if self.shown is None:
            self.shown = display(picture, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self.shown.update(picture)


def bar_html(done: float, total: float, detail: str = "", *, unit: str = "%", said: list[str] | None = None) -> str:
    """A bar as HTML, with the last steps below it."""
    value = f' value="{min(done / total, 1.0):.4f}"' if total else ""
    counted = f"{done:.0f} {unit}" if unit == "%" else f"{done:.0f} of {total:.0f} {unit}"
    text = html.escape(f"{counted} {detail}".strip()) if total else "starting"
    lines = "<br>".join(html.escape(line) for line in said or ())
    return f'<progress{value} style="width: 20em"></progress> {text}<div style="opacity: 0.7">{lines}</div>'
