"""The `earthmap` command.

Exit codes: 0 done, 1 failed, 2 bad request, 3 completed with failed rows where --strict asks to hear of them,
130 stopped from the keyboard.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import earthmap
from earthmap.errors import BadRequestError, EarthmapError, EarthmapWarning, JobError

if TYPE_CHECKING:
    from rich.console import Console

    from earthmap.pipeline import Estimate, Job, Progress, Run

SHOWN = 8
"""Images, and files left out, that are named on the terminal."""

DONE, FAILED, BAD_REQUEST, WITH_ERRORS, STOPPED = 0, 1, 2, 3, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise JobError(message, fix=f"see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="earthmap", description="Ask a question about an area of the Earth.")
    parser.add_argument("--version", action="version", version=f"earthmap {earthmap.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_map(commands)
    demo = commands.add_parser("demo", help="draw scenes with known truth and map them")
    demo.add_argument("--out", default="runs/demo", help="folder for scenes and results (default runs/demo)")
    _add_output(demo)
    report = commands.add_parser("report", help="write report.html and preview.png of a run again; show its numbers")
    report.add_argument("run", help="folder of a finished run, or s3:// address")
    _add_output(report)
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable last line on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress, no numbers")


def _add_map(commands: Any) -> None:
    add = commands.add_parser("map", help="answer questions over an area").add_argument
    add("job", nargs="?", help="job file (YAML or JSON); flags override what it says")
    add("--area", help="file (GeoJSON, GeoPackage, GeoParquet, Shapefile), W,S,E,N in degrees, WKT or GeoJSON text")
    add("--catalog", help="STAC API, static catalogue, ItemCollection or stac-geoparquet; path or address")
    add(
        "--image",
        action="append",
        dest="images",
        metavar="PATH[@DATE]",
        help="image without a catalogue: file, folder, SAFE, zip, tar or address; repeatable; DATE where it tells none",
    )
    add("--bands", metavar="NAMES", help="bands of such images that do not tell them, such as red,green,blue,nir")
    add("--collection", action="append", dest="collections", metavar="ID", help="repeatable")
    add("--datetime", help="STAC datetime or interval, such as 2024-06-01/2024-06-30")
    add(
        "--query",
        action="append",
        dest="queries",
        metavar="TEXT",
        help="question, such as 'Where is water?'; repeatable",
    )
    add("--task", choices=["presence", "fraction", "segment", "change"], help="of the questions, where not plain")
    add("--sensor", help="use this sensor's scenes only, such as sentinel-2-l2a")
    add("--resolution", type=float, metavar="METRES", help="pixel size (default: the finest of the scenes)")
    add("--tile-size", type=int, choices=[448, 224, 128], help="side of a tile's picture in pixels (default 448)")
    add("--scenes", choices=["least_cloud", "latest", "all"], help="which observations of each cell are asked")
    add("--predictor", choices=["spectral", "oracle", "vlm"], help="what answers (default spectral)")
    add("--max-tiles", type=int, metavar="N", help="refuse a job of more tiles")
    add("--cluster", metavar="ADDRESS", help="Ray cluster (default: this machine)")
    add("--store", help="where cube and answers are kept, to be shared by runs (default: in the run folder)")
    add("--out", help="run folder or s3:// address")
    add("--explain", action="store_true", help="say what the job would take; run nothing")
    add("--refresh", action="store_true", help="search the catalogue again")
    add("--strict", action="store_true", help=f"exit {WITH_ERRORS} when a tile failed")
    _add_output(commands.choices["map"])


_JOB_FLAGS = (
    "area", "catalog", "images", "bands", "collections", "datetime", "sensor", "resolution", "tile_size", "scenes",
    "predictor", "max_tiles", "cluster", "store", "out",
)  # fmt: skip


def _job(arguments: argparse.Namespace, say: Callable[[str], None]) -> Job:
    from earthmap.pipeline import parse_job, read_job

    values = {name: getattr(arguments, name) for name in _JOB_FLAGS if getattr(arguments, name) is not None}
    if arguments.queries:
        values["queries"] = [{"text": text, "task": arguments.task} for text in arguments.queries]
    elif arguments.task:
        raise JobError(
            "--task is given without --query", fix="give the question too, or write the task in the job file"
        )
    if arguments.job:
        return read_job(arguments.job, overrides=values, say=say)
    needed = ("out",) if arguments.images else ("area", "catalog", "out")
    missing = [f"--{name}" for name in needed if name not in values]
    missing += [] if arguments.queries else ["--query"]
    if missing:
        raise JobError(f"nothing says {', '.join(missing)}", fix="give these flags, or a job file")
    return parse_job(values, say=say)


def _map(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import explain, make_plan, run_job

    say = _sayer(arguments)
    job = _job(arguments, say)
    _say_images(job, say)
    if arguments.explain:
        _show_estimate(explain(make_plan(job)), arguments)
        return DONE
    with _progress(quiet=arguments.quiet) as (report, say):
        run = run_job(job, refresh=arguments.refresh, report=report, say=say)
    _show_run(run, arguments)
    failed = sum(run.summary["failed"].values())
    return WITH_ERRORS if arguments.strict and failed else DONE


def _demo(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import parse_job, run_job
    from earthmap.synthetic import demo_world, true_km2, write_world

    folder = Path(arguments.out)
    world = demo_world()
    with _progress(quiet=arguments.quiet) as (report, say):
        say("drawing scenes of a valley before and after a flood")
        catalog = write_world(world, folder / "scenes")
        job = parse_job({**demo_job(world), "catalog": str(catalog), "out": str(folder)})
        run = run_job(job, report=report, say=say)
    _show_run(run, arguments)
    if not arguments.quiet:
        before, after = (true_km2(world, date)["water"] for date in (world.before, world.after))
        _console(stderr=True).print(
            f"The truth of this drawn world: {before:.2f} km² of water before, {after:.2f} km² after. "
            "Drawn scenes are no evidence of how real ones come out."
        )
    return DONE


def demo_job(world: Any) -> dict[str, Any]:
    """The questions of the demo about its drawn world, without catalogue and output folder."""
    return {
        "area": world.area,
        "queries": [
            "Where is water?",
            "Where did water appear or disappear?",
            {"text": "Is there any snow?", "sensors": ["sentinel-2-l2a"]},
        ],
        "scenes": "all",
        "tile_size": 448,
    }


def _report(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import open_run, publish_report

    run = open_run(arguments.run)
    publish_report(run)
    _show_run(run, arguments)
    return DONE


# ── what people see ──────────────────────────────────────────────────────────────────────────────────────────


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def _sayer(arguments: argparse.Namespace) -> Callable[[str], None]:
    """What happens before there is a bar, in lines on standard error."""
    from rich.markup import escape

    console = None if arguments.quiet else _console(stderr=True)
    return lambda text: console.print(escape(text), style="dim") if console else None


def _say_images(job: Job, say: Callable[[str], None]) -> None:
    """Which files are read as images, and which are left out and why."""
    from earthmap.grid import AreaOfInterest
    from earthmap.pipeline import open_images

    images = open_images(job)
    if images is None:
        return
    whole = AreaOfInterest.normalize(images.footprint).content_key() == job.area.content_key()
    where = "; the area is the ground that they show" if whole else ""
    say(f"{len(images.ids)} images: {', '.join(images.ids[:SHOWN])}{'…' * (len(images.ids) > SHOWN)}{where}")
    for one in images.left_out[:SHOWN]:
        say(f"left out {one.address}: {one.why}")
    if len(images.left_out) > SHOWN:
        say(f"and {len(images.left_out) - SHOWN} more files left out; run.json names all")


@contextmanager
def _progress(*, quiet: bool) -> Iterator[tuple[Callable[[Progress], None] | None, Callable[[str], None]]]:
    """One live bar on standard error: tiles, tiles a second, time left, failures."""
    if quiet:
        yield None, lambda step: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tiles {task.fields[detail]}"),
        TimeRemainingColumn(),
    ]
    console = _console(stderr=True)
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, detail="")

        def report(progress: Progress) -> None:
            rate = bar.tasks[0].speed
            detail = f"{progress.km2:,.0f} km²" + (f" {rate:.1f}/s" if rate else "")
            detail += f" {progress.failed} failed" if progress.failed else ""
            bar.update(
                task, description="mapping", total=progress.tiles_planned, completed=progress.tiles, detail=detail
            )

        def say(step: str) -> None:
            console.print(step, style="dim")
            bar.update(task, description=step if len(step) < 30 else "mapping")

        yield report, say


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _show_estimate(estimate: Estimate, arguments: argparse.Namespace) -> None:
    if not arguments.quiet:
        lines = [
            f"{estimate.tiles:,} tiles in {estimate.cells:,} cells, {estimate.questions:,} answers",
            f"{estimate.observations} observations of {estimate.scenes} scenes"
            + (f"; {estimate.refused_items} items not understood" if estimate.refused_items else ""),
            f"reads about {_gigabytes(estimate.read_bytes)}, keeps about {_gigabytes(estimate.disk_bytes)} on disk",
            f"takes about {estimate.seconds:,.0f} s on a machine of two cores with the scenes at hand",
            "nothing was run",
        ]
        _console().print("\n".join(lines))
    _last_line(arguments, estimate.to_dict())


def _show_run(run: Run, arguments: argparse.Namespace) -> None:
    if not arguments.quiet:
        from rich.markup import escape

        from earthmap.outputs import headlines

        _console().print(escape("\n".join(headlines(run.summary))))
        _console().print(f"[bold]{escape(run.storage.locate('report.html'))}[/bold]")
    _last_line(arguments, {"run": run.address, "summary": run.summary})


def _last_line(arguments: argparse.Namespace, content: dict[str, Any]) -> None:
    if arguments.json:
        sys.stdout.write(json.dumps(content, sort_keys=True) + "\n")


_COMMANDS = {"map": _map, "demo": _demo, "report": _report}


def _show_warning(message: Warning | str, *_: object) -> None:
    sys.stderr.write(f"earthmap: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. What is wrong is said in one line on standard error."""
    warnings.simplefilter("ignore")  # of libraries; what a user must know is in the ledger and the notes
    warnings.simplefilter("always", EarthmapWarning)
    warnings.showwarning = _show_warning
    try:
        arguments = _parser().parse_args(argv)
        return _COMMANDS[arguments.command](arguments)
    except EarthmapError as error:
        sys.stderr.write(f"earthmap: {error}\n")
        return BAD_REQUEST if isinstance(error, BadRequestError) else FAILED
    except KeyboardInterrupt:
        sys.stderr.write("earthmap: stopped; what is done is kept, and the same command goes on from there\n")
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
