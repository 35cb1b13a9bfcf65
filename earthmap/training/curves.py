"""How a training goes: a line on the terminal, `curves.parquet` and `curves.png` in the run folder.

Steps are written when a checkpoint is, before it, and those beyond the checkpoint that a run is taken up from are
dropped: however often it was stopped, each step is there once.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from earthmap.errors import StorageError

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from earthmap.storage import Storage
    from earthmap.training.step import Learned

CURVES, PICTURE, VALIDATION = "curves.parquet", "curves.png", "validation.parquet"

GRANULARITIES = ("patch", "region", "scene")
"""Of FGVLA's alignment; a column each, null where a step had nothing of it."""

PICTURE_S = 60.0
"""The picture is drawn again after this long, and in the end."""

POINTS = 1_000
"""Most points of a curve that is drawn; each is the mean of the steps about it."""


def curves_schema() -> pa.Schema:
    """One row a step, as `Learned` tells it; `seconds` is how long it took, its rows and checkpoint included."""
    import pyarrow as pa

    numbers = ["loss", "answers", *GRANULARITIES, "right", "gradient", "rate", "seconds"]
    first = [("step", pa.int64()), ("stage", pa.string()), ("tokens", pa.int64())]
    return pa.schema([*first, *((name, pa.float64()) for name in numbers)])


def validation_schema() -> pa.Schema:
    """One row a figure and step: `step` are done when it was measured."""
    import pyarrow as pa

    texts, numbers = ("modality", "task", "metric"), ("score", "low", "high", "constant")
    return pa.schema(
        [
            ("step", pa.int64()),
            *((name, pa.string()) for name in texts),
            *((name, pa.float64()) for name in numbers),
            ("count", pa.int64()),
        ]
    )


class Curves:
    """The figures of a run up to a step, and those that are added.

    Args:
        storage: the run folder.
        step: steps that are done; what is told of later ones is dropped.
    """

    def __init__(self, storage: Storage, *, step: int) -> None:
        self._storage = storage
        self._steps = [row for row in _read(storage, CURVES) if row["step"] < step]
        self._figures = [row for row in _read(storage, VALIDATION) if row["step"] <= step]
        self._last = time.monotonic()
        self._drawn = time.monotonic()

    def add(self, learned: Learned) -> None:
        """Take in a step."""
        row = asdict(learned)
        alignment = row.pop("alignment")
        now = time.monotonic()
        row |= {name: alignment.get(name) for name in GRANULARITIES} | {"seconds": now - self._last}
        self._steps.append(row)
        self._last = now

    def add_figures(self, step: int, figures: Sequence[Any]) -> None:
        """Take in what a validation found after `step` steps."""
        self._figures += [{"step": step, **asdict(figure)} for figure in figures]

    def write(self, *, last: bool = False) -> None:
        """Write the tables; the picture when the last one is PICTURE_S old, or where this is the `last` time.

        Raises StorageError where that cannot be.
        """
        if not self._steps:
            return
        self._storage.write(CURVES, _parquet(self._steps, curves_schema()))
        if self._figures:
            self._storage.write(VALIDATION, _parquet(self._figures, validation_schema()))
        if last or time.monotonic() - self._drawn >= PICTURE_S:
            self._storage.write(PICTURE, draw_curves(self._steps, self._figures))
            self._drawn = time.monotonic()


def _read(storage: Storage, path: str) -> list[dict[str, Any]]:
    """Raises StorageError for a file that is damaged: what it told would be lost when it is written anew."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(storage.read(path))).to_pylist()
    except FileNotFoundError:
        return []
    except pa.ArrowInvalid as error:
        raise StorageError(
            f"{storage.locate(path)} is damaged: {error}", fix="delete it to go on without it"
        ) from error
    return rows


def _parquet(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    file = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), file)
    return file.getvalue()


def draw_curves(steps: Sequence[dict[str, Any]], figures: Sequence[dict[str, Any]] = ()) -> bytes:
    """A PNG: losses, the share of right tokens, and figures by modality and task where there are any, over steps."""
    from matplotlib.figure import Figure

    count = 3 if figures else 2
    page = Figure(figsize=(9, 2.8 * count), layout="constrained", dpi=110)
    axes = page.subplots(count, 1, sharex=True)
    for name in ("loss", "answers", *GRANULARITIES):
        places, values = _thinned(steps, name)
        if values:
            axes[0].plot(places, values, label=name, linewidth=1.2)
    axes[0].set(ylabel="loss", yscale="log" if any(row["loss"] > 0 for row in steps) else "linear")
    axes[0].legend(frameon=False, ncols=5, fontsize=8)
    axes[1].plot(*_thinned(steps, "right"), linewidth=1.2, color="tab:green")
    axes[1].set(ylabel="likeliest token right", ylim=(0, 1))
    if figures:
        _draw_figures(axes[2], figures)
    _draw_stages(axes, steps)
    axes[-1].set(xlabel="step")
    file = io.BytesIO()
    page.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _thinned(steps: Sequence[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Places and means of at most POINTS runs of steps that tell `name`."""
    known = [(row["step"], row[name]) for row in steps if row[name] is not None]
    width = -(-len(known) // POINTS) or 1
    parts = [known[start : start + width] for start in range(0, len(known), width)]
    return [sum(step for step, _ in part) / len(part) for part in parts], [
        sum(value for _, value in part) / len(part) for part in parts
    ]


def _draw_stages(axes: Sequence[Any], steps: Sequence[dict[str, Any]]) -> None:
    """A line where each stage begins, and its name."""
    before = None
    for row in steps:
        if row["stage"] != before:
            before = row["stage"]
            for axis in axes:
                axis.axvline(row["step"], color="0.8", linewidth=0.8, zorder=0)
            where = {"textcoords": "offset points", "xytext": (3, 3), "fontsize": 8, "color": "0.4"}
            axes[0].annotate(before, (row["step"], 1.0), xycoords=("data", "axes fraction"), **where)


def _draw_figures(axis: Any, figures: Sequence[dict[str, Any]]) -> None:
    """Score less that of the best constant answer: thin lines of the tasks, and their mean by modality."""
    tasks: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    means: dict[str, dict[int, list[float]]] = {}
    for row in figures:
        beyond = row["score"] - row["constant"]
        tasks.setdefault((row["modality"], row["task"], row["metric"]), []).append((row["step"], beyond))
        means.setdefault(row["modality"], {}).setdefault(row["step"], []).append(beyond)
    colours = {modality: f"C{number}" for number, modality in enumerate(sorted(means))}
    for (modality, _, _), points in tasks.items():
        axis.plot(*zip(*points, strict=True), linewidth=0.6, alpha=0.4, color=colours[modality])
    for modality, colour in colours.items():
        steps = sorted(means[modality])
        mean = [sum(means[modality][step]) / len(means[modality][step]) for step in steps]
        axis.plot(steps, mean, marker=".", linewidth=1.6, color=colour, label=modality)
    axis.axhline(0.0, color="0.6", linewidth=0.8)
    axis.set(ylabel="score beyond the constant")
    axis.legend(frameon=False, ncols=7, fontsize=8)


@contextmanager
def live_line(console: Console, *, steps: int) -> Iterator[tuple[Callable[[Learned], None], Callable[[str], None]]]:
    """One line on the terminal that follows the steps, and a function for what else is said meanwhile."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps {task.fields[detail]}"),
        TimeRemainingColumn(),
    ]  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=steps, detail="")

        def watch(learned: Learned) -> None:
            if not bar.tasks[0].completed:  # what was done before this took no time now
                bar.reset(task, completed=learned.step)
            speed = bar.tasks[0].speed
            detail = f"loss {learned.loss:.3f}, {learned.right:.0%} right" + (f", {speed:.2f}/s" if speed else "")
            bar.update(task, description=learned.stage, completed=learned.step + 1, detail=detail)

        yield watch, lambda text: console.print(text, style="dim", markup=False)
