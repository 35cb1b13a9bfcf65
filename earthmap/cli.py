"""The `earthmap` command.

Exit codes: 0 done, 1 failed, 2 bad request, 3 completed with failed rows where --strict asks to hear of them,
130 stopped from the keyboard.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import earthmap
from earthmap.errors import BadRequestError, EarthmapError, EarthmapWarning, JobError

if TYPE_CHECKING:
    from rich.console import Console

    from earthmap.operate import Checkup, Finding
    from earthmap.pipeline import Estimate, Job, Progress, Reply, Run, Sighting, Sightings, Subject
    from earthmap.pipeline.demands import Demands
    from earthmap.pipeline.doctor import Diagnosis
    from earthmap.pipeline.respond import Follow
    from earthmap.service.egress_rules import EgressRules
    from earthmap.tasks import Query

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
    _add_ask(commands)
    _add_respond(commands)
    _add_scenes(commands)
    demo = commands.add_parser("demo", help="draw scenes with known truth and map them")
    demo.add_argument("--out", default="runs/demo", help="folder for scenes and results (default runs/demo)")
    _add_output(demo)
    report = commands.add_parser("report", help="write report.html and preview.png of a run again; show its numbers")
    report.add_argument("run", help="folder of a finished run, or s3:// address")
    _add_output(report)
    _add_export(commands)
    _add_sample(commands)
    _add_estimate(commands)
    _add_similar(commands)
    _add_cluster(commands)
    _add_doctor(commands)
    _add_finetune(commands)
    _add_egress(commands)
    _add_serve(commands)
    _add_token(commands)
    _add_jobs(commands)
    return parser


def _add_serve(commands: Any) -> None:
    add = commands.add_parser("serve", help="take jobs over HTTP, as OGC API – Processes says").add_argument
    add("--catalog", action="append", required=True, metavar="NAME=ADDRESS", help="one that requests may name; repeat")
    add("--model", action="append", default=[], metavar="NAME=FOLDER", help="checkpoint that they may name; repeat")
    add("--out", default="runs/service", help="folder or s3:// address of the runs (default runs/service)")
    add("--state", metavar="PLACE", help="SQLite file or postgresql+psycopg:// URL (default state.sqlite in --out)")
    add("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1); beyond this machine with tokens only")
    add("--port", type=int, default=8000, help="(default 8000)")
    add("--at-once", type=int, default=1, metavar="N", help="jobs that run at the same time (default 1)")
    add("--cluster", metavar="ADDRESS", help="Ray cluster that all runs use (default: one of this machine)")
    add("--replicas", type=int, default=1, metavar="N", help="of each model, where much is asked (default 1)")
    add("--gpus", type=float, metavar="SHARE", help="GPUs of each, such as 0.5 (default: 1 where there are any)")
    add("--askers", type=int, default=2, metavar="N", help="workers that prepare questions about one place (default 2)")
    add("--questions", type=int, default=64, metavar="N", help="of those at once; one more is refused (default 64)")
    add("--answer-within", type=float, default=60.0, metavar="SECONDS", help="what an answer may take (default 60)")
    about = "by which the nodes of --cluster reach this machine's egress proxy (default: what leads to its head)"
    add("--egress", metavar="HOST[:PORT]", help=about)
    _add_rules(add)


def _add_token(commands: Any) -> None:
    parser = commands.add_parser("token", help="who may use the service: make, list and revoke tokens")
    add = parser.add_argument
    add("action", choices=("make", "list", "revoke"), help="make prints the token, which is kept nowhere else")
    add("name", nargs="?", help="make: its owner, a person or a team; revoke: its id, as list shows it")
    add("--out", default="runs/service", help="as of `earthmap serve`")
    add("--state", metavar="PLACE", help="as of `earthmap serve`")
    add("--role", choices=("viewer", "submitter", "operator"), default="submitter", help="(default submitter)")
    add("--area-km2", type=float, metavar="KM2", help="ground of a job at most")
    add("--tiles", type=int, metavar="N", help="tiles of a job at most")
    add("--bytes", type=int, metavar="N", help="bytes of pixels that a job reads at most")
    add("--open-jobs", type=int, metavar="N", help="jobs of the owner that wait or run at once, at most")
    add("--steps", type=int, metavar="N", help="steps of training of a job at most")


def _add_jobs(commands: Any) -> None:
    add = commands.add_parser("jobs", help="jobs of the service: remove the files of old ones").add_argument
    add("action", choices=("prune",), help="dismiss jobs that ended long ago, and remove their folders, not the store")
    add("--out", default="runs/service", help="as of `earthmap serve`")
    add("--state", metavar="PLACE", help="as of `earthmap serve`")
    add("--older", type=float, required=True, metavar="DAYS", help="since they ended; 1 at least")
    add("--dry-run", action="store_true", help="say which, and change nothing")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable last line on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress, no numbers")


def _add_export(commands: Any) -> None:
    add = commands.add_parser("export", help="write a run for QGIS, Google Earth and other programs").add_argument
    add("run", help="folder of a finished run, or s3:// address")
    add(
        "--to",
        required=True,
        metavar="FORMAT",
        help="gpkg (GeoPackage with styles), geojson, kml or fgb (FlatGeobuf); crops: each footprint before and after",
    )
    add("--out", metavar="FILE", help="file (of crops the folder) or s3:// address (default: in the run folder)")
    add("--overwrite", action="store_true", help="replace files that are there")
    _add_output(commands.choices["export"])


def _add_sample(commands: Any) -> None:
    add = commands.add_parser("sample", help="draw pixels or tiles of a run for people to label").add_argument
    add("run", help="folder of a finished run, or s3:// address")
    add("--n", type=int, default=300, metavar="UNITS", help="in all; 50 of each stratum at least (default 300)")
    add("--question", metavar="N", help="its number or text (default: the first with classes of pixels, or things)")
    add("--observation", metavar="ID", help="as the summary names it (default: the latest)")
    add("--seed", type=int, default=0, help="of the draw (default 0)")
    add("--unseen", action="store_true", help="draw ground too that the pictures do not show, for who has others")
    add("--out", metavar="FOLDER", help="for what is labelled (default: a folder of the run's)")
    _add_output(commands.choices["sample"])


def _add_estimate(commands: Any) -> None:
    add = commands.add_parser("estimate", help="areas, accuracies and counts from a labelled sample").add_argument
    add("run", help="folder of the run that the sample was drawn from")
    add(
        "labels",
        nargs="?",
        help="the labelled sample: GeoPackage, GeoJSON or CSV; without, what is known without labels",
    )
    add(
        "--question", metavar="N", help="without labels: its number or text (default: the first with classes of pixels)"
    )
    add("--observation", metavar="ID", help="without labels: as the summary names it (default: the latest)")
    add("--errors", metavar="FILE", help="without labels: error matrices of held-out scenes (docs/trust.md)")
    add(
        "--certainty",
        type=float,
        metavar="SHARE",
        help="half of an interval may be this share of the area, or there is not enough evidence (default 0.5 with "
        "labels; without, as the job asks)",
    )
    add(
        "--seen",
        type=float,
        metavar="SHARE",
        help="so much of the ground must be seen or labelled, or there is not enough evidence (default 0.5)",
    )
    _add_output(commands.choices["estimate"])


def _add_similar(commands: Any) -> None:
    about = "rank the tiles of a run by how much they look like the one at a place"
    add = commands.add_parser("similar", help=about).add_argument
    add("run", help="folder of a finished run with vectors (task embed), or s3:// address")
    add("--to", required=True, metavar="LON,LAT", help="the place, in degrees (--to=-3.5,45.7)")
    add("--n", type=int, default=20, metavar="TILES", help="how many beside the place's own (default 20)")
    _add_vectors(add)
    add("--out", metavar="FILE", help=".parquet (GeoParquet) or .geojson; a picture is written beside it")
    _add_output(commands.choices["similar"])


def _add_cluster(commands: Any) -> None:
    add = commands.add_parser("cluster", help="group the tiles of a run by how they look").add_argument
    add("run", help="folder of a finished run with vectors (task embed), or s3:// address")
    add("-k", type=int, required=True, metavar="N", help="how many clusters")
    _add_vectors(add)
    add("--seed", type=int, default=0, help="of the first centres (default 0)")
    add("--out", metavar="FOLDER", help="or s3:// address (default: RUN/clusters/…)")
    _add_output(commands.choices["cluster"])


def _add_vectors(add: Callable[..., Any]) -> None:
    """Which of a run's vectors are meant."""
    add("--sensor", metavar="ID", help="whose vectors, where the run has several sensors'")
    add("--observation", metavar="ID", help="as the summary names it (default: the latest of each tile)")


def _add_doctor(commands: Any) -> None:
    about = "what is wrong with this machine, or with a catalogue, a storage or a cluster, and how to fix it"
    doctor = commands.add_parser("doctor", help=about)
    what = "try one small window of each of its collections; as --catalog of `earthmap map` (default: this machine)"
    doctor.add_argument("catalog", nargs="?", help=what)
    doctor.add_argument(
        "--storage", metavar="ADDRESS", help="look at this machine, and whether runs can be written there"
    )
    doctor.add_argument("--needs", type=float, metavar="GB", help="what runs will write to --storage (default 10)")
    doctor.add_argument("--cluster", metavar="ADDRESS", help="look at this machine, and at this Ray cluster")
    doctor.add_argument("--model", metavar="FOLDER", help="look at this machine, and at this checkpoint (default nano)")
    doctor.add_argument(
        "--collection", action="append", dest="collections", metavar="ID", default=[], help="repeatable (default: 20)"
    )
    doctor.add_argument("--area", help="look at items over it only; as --area of `earthmap map`")
    _add_output(doctor)


def _add_egress(commands: Any) -> None:
    about = "the proxy through which addresses of users' runs leave (docs/egress.md)"
    add = commands.add_parser("egress", help=about).add_argument
    add("--host", default="127.0.0.1", help="to listen on (default 127.0.0.1)")
    add("--port", type=int, default=3128, help="to listen on (default 3128; 0 for any)")
    _add_rules(add)
    add("--allow-bucket", action="append", dest="buckets", default=[], metavar="BUCKET", help="for --try")
    add("--try", dest="tried", metavar="ADDRESS", help="say whether a run may read it, and open nothing")
    _add_output(commands.choices["egress"])


def _add_rules(add: Callable[..., Any]) -> None:
    """What users' runs may reach (docs/egress.md)."""
    add("--allow", action="append", dest="listed", default=[], metavar="HOST", help="host, number or network[:port]")
    add("--allow-port", action="append", dest="ports", type=int, default=[443], metavar="PORT", help="of public hosts")
    add("--allow-http", action="store_true", help="plain http of public hosts too")
    add("--deny", action="append", dest="denied", default=[], metavar="NETWORK", help="numbers used inside")
    add("--only-allowed", action="store_true", help="no public host but those of --allow")


def _add_finetune(commands: Any) -> None:
    """Flags, each of a field of `earthmap.training.FinetuneSpec`."""
    add = commands.add_parser("finetune", help="train a model, or go on training it").add_argument
    add(
        "--data",
        action="append",
        metavar="PATH[,KEY=VALUE…]",
        help="data set: conversations as JSON, Hugging Face's Parquet, or a cube with labels; repeatable",
    )
    add("--drawn", action="store_true", help="learn from tiles that are drawn, instead of --data")
    add("--preset", help="start from a new model of this size: 2b, nano or tiny")
    add("--model", metavar="FOLDER", help="start from this checkpoint, or a public one's name")
    add("--stages", metavar="FILE", help="table of stages (default: PCMA's, from optical to all sensors)")
    add("--own", type=int, metavar="STEPS", help="instead: one stage of so many steps on your own --data")
    add("--rate", type=float, help="with --own: its peak learning rate (default 0.0001; all of a 2b: 0.00001)")
    add("--out", required=True, help="run folder or s3:// address; the same command goes on from what is there")
    add("--lora", type=int, metavar="RANK", help="train adapters of this rank beside the model")
    add("--seed", type=int, help="of a new model, and of what is drawn and in which order (default 0)")
    add("--every", type=int, metavar="STEPS", help="steps between checkpoints (default 500)")
    add("--steps", type=int, metavar="N", help="stop when so many steps are done")
    add("--at-once", type=int, metavar="ROWS", help="rows of one forward; fewer take less memory (default 64)")
    add("--validate", type=int, metavar="ROWS", help="held-out rows that each checkpoint is asked (default 128)")
    add("--workers", type=int, metavar="N", help="processes that share each step, on Ray (default 1, without Ray)")
    add("--cluster", metavar="ADDRESS", help="Ray cluster of the workers (default: this machine)")
    add(
        "--weights",
        metavar="NAME=NUMBER,…",
        help="how often which modality, task or granularity of the data is learned",
    )
    add("--rows", metavar="FOLDER", help="where data sets are kept as rows (default: in the run folder)")
    _add_output(commands.choices["finetune"])


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
    add("--footprints", metavar="FILE", help="outlines of buildings, each graded where damage is asked for")
    add("--collection", action="append", dest="collections", metavar="ID", help="repeatable")
    add("--datetime", help="STAC datetime or interval, such as 2024-06-01/2024-06-30")
    add(
        "--query",
        action="append",
        dest="queries",
        metavar="TEXT",
        help="question, such as 'Where is water?'; repeatable",
    )
    _add_question_details(add)
    add("--sensor", help="use this sensor's scenes only, such as sentinel-2-l2a")
    add("--resolution", type=float, metavar="METRES", help="pixel size (default: the finest of the scenes)")
    add(
        "--tile-size",
        type=int,
        choices=[448, 224, 128],
        help="side of a tile's picture in pixels (default 448, or what the model learned from)",
    )
    add(
        "--scenes",
        choices=["least_cloud", "latest", "all", "median"],
        help="which observations of each cell are asked (default least_cloud)",
    )
    add("--nearest", metavar="DATE", help="ask the observations nearest to this date instead")
    add("--predictor", choices=["spectral", "oracle", "vlm"], help=_PREDICTOR_HELP)
    add("--model", metavar="FOLDER", help=_MODEL_HELP)
    _add_triage(add)
    add("--reference-water", metavar="FILE", help="water that is no flood: polygons, or a raster of occurrence")
    add("--rush", action="store_true", default=None, help="most important cells first, and a map that grows")
    add("--points", metavar="FILE", help="places that are mapped first, as by --rush")
    add("--patience", type=float, metavar="SECONDS", help="wait this long for providers that refuse (default 600)")
    add("--max-tiles", type=int, metavar="N", help="refuse a job of more tiles")
    add("--seen", type=float, metavar="SHARE", help="less ground seen is not enough evidence (default 0.5)")
    add("--certainty", type=float, metavar="SHARE", help="± this share of a number at most, or not enough evidence")
    add("--cluster", metavar="ADDRESS", help="Ray cluster (default: this machine)")
    add("--priority", choices=["urgent", "normal", "bulk"], help="among the runs of a cluster (default normal)")
    add("--store", help="where cube and answers are kept, to be shared by runs (default: in the run folder)")
    add("--out", help="run folder or s3:// address")
    add("--explain", action="store_true", help="say what the job would take; run nothing")
    add("--refresh", action="store_true", help="search the catalogue again")
    add("--strict", action="store_true", help=f"exit {WITH_ERRORS} when a tile failed")
    _add_output(commands.choices["map"])


def _add_triage(add: Callable[..., Any]) -> None:
    """What is not asked: keys of `earthmap.pipeline.job.JobSpec` (docs/triage.md)."""
    add("--least-seen", type=float, metavar="SHARE", help="skip tiles of which less is seen (default 0)")
    add(
        "--triage",
        choices=["coarse"],
        help="for rare targets: look on larger pixels first, and ask only tiles that may hold one",
    )
    add("--triage-scale", type=int, choices=[2, 4], help="how many times larger those pixels are (default 2)")
    add("--triage-threshold", type=float, metavar="P", help="skip tiles of a lower probability (default 0.1)")


def _add_question_details(add: Callable[..., Any]) -> None:
    """What a question's words may leave open: keys of `earthmap.pipeline.job.QuestionSpec`."""
    add("--task", metavar="TASK", help="of the questions, where not plain; docs/questions.md lists them")
    add("--targets", metavar="NAMES", type=_listed, help="what is looked for, such as water,snow")
    add("--choices", metavar="TEXTS", type=_listed, help="what the answer is one of, such as harbour,airport,farm")
    add("--shape", metavar="KIND", help="of what is found: box, oriented_box, point, polygon or mask")


_PREDICTOR_HELP = "what answers (default spectral; vlm where its figures on real scenes are better)"
_MODEL_HELP = "checkpoint of the vision-language model: a folder, s3://, a public one's name, or nano (default)"


def _add_respond(commands: Any) -> None:
    about = "map an event: each picture after it by itself, the latest first, growing while it works"
    add = commands.add_parser("respond", help=about).add_argument
    add("--event", required=True, metavar="POLYGON", help="where: as --area of `earthmap map`")
    add("--event-time", required=True, metavar="TIME", help="when it began, such as 2024-06-07 or 2024-06-07T03:30Z")
    add("--before", metavar="DATES", help="what to look at of the time before (default: the 180 days before it)")
    add("--after", metavar="DATES", help="what to look at of the time after (default: all of it)")
    add(
        "--query",
        action="append",
        dest="queries",
        metavar="TEXT",
        required=True,
        help="question, such as 'What is flooded?'; repeatable",
    )
    _add_question_details(add)
    add("--reference-water", metavar="FILE", help="water that is always there: polygons, or a raster of occurrence")
    add("--points", metavar="FILE", help="places that are mapped first: GeoJSON, GeoPackage, CSV with lon and lat …")
    add("--follow", action="store_true", help="wait for new observations, and map each when it comes")
    add("--every", type=float, default=600.0, metavar="SECONDS", help="with --follow: between two looks (default 600)")
    add("--until", metavar="TIME", help="with --follow: when to stop (default: never)")
    _add_imagery(add)
    _add_output(commands.choices["respond"])


def _add_imagery(add: Callable[..., Any]) -> None:
    """Which scenes are read and who answers: keys of `earthmap.pipeline.job.JobSpec`."""
    add("--catalog", help="STAC API, static catalogue, ItemCollection or stac-geoparquet; path or address")
    add("--image", action="append", dest="images", metavar="PATH[@DATE]", help="image without a catalogue; repeatable")
    add("--bands", metavar="NAMES", help="bands of such images that do not tell them, such as red,green,blue,nir")
    add("--footprints", metavar="FILE", help="outlines of buildings, each graded where damage is asked for")
    add("--collection", action="append", dest="collections", metavar="ID", help="repeatable")
    add("--sensor", help="use this sensor's scenes only, such as sentinel-1-db")
    add("--resolution", type=float, metavar="METRES", help="pixel size (default: the finest of the scenes)")
    add("--tile-size", type=int, choices=[448, 224, 128], help="side of a tile's picture in pixels")
    add("--predictor", choices=["spectral", "oracle", "vlm"], help=_PREDICTOR_HELP)
    add("--model", metavar="FOLDER", help=_MODEL_HELP)
    add("--patience", type=float, metavar="SECONDS", help="wait this long for providers that refuse (default 600)")
    add("--max-tiles", type=int, metavar="N", help="refuse a pass of more tiles")
    add("--cluster", metavar="ADDRESS", help="Ray cluster (default: this machine)")
    add("--priority", choices=["urgent", "normal", "bulk"], help="among the runs of a cluster (default urgent)")
    add("--store", help="where cube and answers are kept (default: in the event's folder)")
    add("--out", required=True, help="the event's folder or s3:// address; the same command goes on from what is there")


def _add_ask(commands: Any) -> None:
    about = "answer a question about one picture, or another one about all the ground of a finished run"
    add = commands.add_parser("ask", help=about).add_argument
    add(
        "pictures",
        nargs="+",
        metavar="PICTURE",
        help="image as of `earthmap map --image`, PNG or JPEG; the folder of a run: all of its ground, or one tile "
        "with --at; or of its store, with --at",
    )
    add("question", help="question, such as 'How much of this is water?'; --task embed needs none")
    add("--at", metavar="PLACE", help="LON,LAT in degrees (--at=-3.5,45.7), a tile_id, or X,Y in a photograph")
    add(
        "--date",
        "--datetime",
        action="append",
        dest="dates",
        metavar="DATE",
        default=[],
        help="which of several dates; twice for a change",
    )
    add("--sensor", help="use this sensor's observations only, such as sentinel-2-l2a")
    add("--bands", metavar="NAMES", type=_listed, default=[], help="bands of an image that does not tell them")
    add("--tile-size", type=int, choices=[448, 224, 128], help="side of the picture around --at (default as of map)")
    _add_question_details(add)
    add("--predictor", choices=["spectral", "vlm"], help=_PREDICTOR_HELP)
    add("--model", metavar="FOLDER", help=_MODEL_HELP)
    add("--draw", metavar="PNG", help="write the picture with what was found drawn on it")
    add("--out", metavar="FOLDER", help="of a run without --at: where its answers go (default: RUN/asked/…)")
    _add_output(commands.choices["ask"])


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _add_scenes(commands: Any) -> None:
    add = commands.add_parser("scenes", help="list what there is for an area and time").add_argument
    add("--area", help="file (GeoJSON, GeoPackage, GeoParquet, Shapefile), W,S,E,N in degrees, WKT or GeoJSON text")
    add("--catalog", help="STAC API, static catalogue, ItemCollection or stac-geoparquet; path or address")
    add("--image", action="append", dest="images", metavar="PATH[@DATE]", help="image without a catalogue; repeatable")
    add("--bands", metavar="NAMES", help="bands of such images that do not tell them, such as red,green,blue,nir")
    add("--collection", action="append", dest="collections", metavar="ID", help="repeatable")
    add("--datetime", help="STAC datetime or interval, such as 2024-06-01/2024-06-30")
    add("--sensor", help="list this sensor's observations only, such as sentinel-2-l2a")
    add("--out", metavar="PNG", help="write quick looks side by side")
    _add_output(commands.choices["scenes"])


_DETAILS = ("task", "targets", "choices", "shape")
_JOB_FLAGS = (
    "least_seen", "triage", "triage_scale", "triage_threshold",
    "area", "catalog", "images", "bands", "collections", "datetime", "sensor", "resolution", "tile_size", "scenes",
    "predictor", "model", "patience", "max_tiles", "seen", "certainty", "cluster", "priority", "store", "out",
    "footprints", "reference_water", "rush", "points",
)  # fmt: skip


def _job(arguments: argparse.Namespace, say: Callable[[str], None]) -> Job:
    from earthmap.pipeline import parse_job, read_job
    from earthmap.tasks import TASKS

    values = {name: getattr(arguments, name) for name in _JOB_FLAGS if getattr(arguments, name) is not None}
    if arguments.nearest:
        if arguments.scenes:
            raise JobError("--nearest and --scenes are both given", fix="leave one of them out")
        values |= {"scenes": "nearest", "date": arguments.nearest}
    elif arguments.scenes:
        values["date"] = None
    details = {name: getattr(arguments, name) for name in _DETAILS if getattr(arguments, name) is not None}
    queries = arguments.queries or ([TASKS["embed"].example] if details.get("task") == "embed" else [])
    if queries:
        values["queries"] = [{"text": text, **details} for text in queries]
    elif details:
        name = next(iter(details))
        raise JobError(
            f"--{name} is given without --query", fix=f"give the question too, or write the {name} in the job file"
        )
    if arguments.job:
        return read_job(arguments.job, overrides=values, say=say)
    needed = ("out",) if arguments.images else ("area", "catalog", "out")
    missing = [f"--{name}" for name in needed if name not in values]
    missing += [] if queries else ["--query"]
    if missing:
        raise JobError(f"nothing says {', '.join(missing)}", fix="give these flags, or a job file")
    return parse_job(values, say=say)


def _map(arguments: argparse.Namespace) -> int:
    from earthmap.operate.watching import watching
    from earthmap.pipeline import explain, make_plan, run_job

    say = _sayer(arguments)
    job = _job(arguments, say)
    _say_images(job, say)
    if arguments.explain:
        _show_estimate(explain(make_plan(job, say=say)), arguments)
        return DONE
    with _progress(quiet=arguments.quiet) as (report, say), watching(job.spec.out, report=report) as watch:
        run = run_job(job, refresh=arguments.refresh, report=watch.report, say=say)
        watch.finished(run)
    _show_run(run, arguments)
    failed = sum(run.summary["failed"].values())
    return WITH_ERRORS if arguments.strict and failed else DONE


def _respond(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline.event import parse_event
    from earthmap.pipeline.respond import Watcher, respond

    event = parse_event(arguments.event_time, before=arguments.before, after=arguments.after)
    given = {name: getattr(arguments, name, None) for name in _JOB_FLAGS}
    values = {name: value for name, value in given.items() if value is not None} | {"area": arguments.event}
    if "catalog" not in values and "images" not in values:
        raise JobError("nothing says where the scenes are", fix="give --catalog, or --image")
    details = {name: getattr(arguments, name) for name in _DETAILS if getattr(arguments, name) is not None}
    values["queries"] = [{"text": text, **details} for text in arguments.queries]
    follow = _following(arguments)
    with _progress(quiet=arguments.quiet) as (report, say):
        watcher = Watcher(report=report, say=say, mapped=lambda run: _show_pass(run, arguments))
        runs = respond(values, event, follow=follow, watcher=watcher)
    _last_line(arguments, {"runs": [{"run": run.address, "summary": run.summary} for run in runs]})
    return DONE


def _following(arguments: argparse.Namespace) -> Follow | None:
    """Whether and how long new observations are waited for. Raises JobError."""
    from earthmap.catalog import parse_datetime
    from earthmap.pipeline.respond import Follow

    if not arguments.follow:
        if arguments.until is not None:
            raise JobError("--until is given without --follow", fix="give both, or none")
        return None
    if not arguments.every > 0:
        raise JobError(f"--every {arguments.every:g} seconds", expected="more than none")
    until = parse_datetime(arguments.until).end if arguments.until else None
    return Follow(every_s=arguments.every, until=until, sleep=_CTRL_C.sleep)


def _show_pass(run: Run, arguments: argparse.Namespace) -> None:
    if not arguments.quiet:
        from rich.markup import escape

        from earthmap.outputs import headlines

        _console().print(escape("\n".join(headlines(run.summary))))
        _console().print(f"[bold]{escape(run.storage.locate('report.html'))}[/bold]")


def _ask(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import ask_about, draw
    from earthmap.predict import build_predictor

    if arguments.at is None and arguments.draw is None and len(arguments.pictures) == 1:
        from earthmap.pipeline import is_run

        if is_run(arguments.pictures[0]):
            return _ask_again(arguments)
    if arguments.draw is not None and (arguments.draw.endswith("/") or Path(arguments.draw).is_dir()):
        raise JobError(f"--draw {arguments.draw!r} is a folder", expected="a file's name, such as answer.png")
    query, subject, spec = _asked(arguments)
    reply = ask_about(query, subject, build_predictor(spec))
    _show_reply(reply, arguments)
    if arguments.draw is not None:
        _write_png(arguments.draw, draw(reply).png)
        if not arguments.quiet:
            _console(stderr=True).print(f"drawn: {arguments.draw}", markup=False)
    return FAILED if reply.answer.status == "failed" else DONE


def _ask_again(arguments: argparse.Namespace) -> int:
    """Another question about all the ground of a finished run."""
    from earthmap.pipeline import ask_run, open_run

    if len(arguments.dates) not in (0, 2):
        raise JobError(
            f"{len(arguments.dates)} --date is given for all the ground of a run",
            expected="two, between which a change is asked for, or none",
            fix="leave --date out, or ask about one tile with --at",
        )
    given = {name: getattr(arguments, name) for name in _DETAILS}
    question = {"text": arguments.question, **{name: value for name, value in given.items() if value is not None}}
    question |= {"sensors": [arguments.sensor]} if arguments.sensor else {}
    question |= dict(zip(("before", "after"), arguments.dates, strict=False))
    answering = {"predictor": arguments.predictor, "model": arguments.model, "out": arguments.out}
    with _progress(quiet=arguments.quiet) as (report, say):
        run = ask_run(open_run(arguments.pictures[0]), [question], answering=answering, report=report, say=say)
    _show_run(run, arguments)
    return DONE


def _asked(arguments: argparse.Namespace) -> tuple[Query, Subject, dict[str, str]]:
    """The question, what it is asked of, and what `build_predictor` takes; where nobody names what answers, the sensors
    of the pictures decide."""
    from earthmap.model import has_embedded
    from earthmap.pipeline import Sight, open_subject
    from earthmap.predict import default_predictor
    from earthmap.tasks import make_query

    spec = _predictor(arguments)
    undecided = spec is None and has_embedded()
    details = {name: getattr(arguments, name) for name in _DETAILS}
    open_vocabulary = undecided or (spec is not None and spec["name"] == "vlm")
    query = make_query(arguments.question, **details, open_vocabulary=open_vocabulary)
    sight = Sight(
        at=arguments.at,
        dates=tuple(arguments.dates),
        sensor=arguments.sensor,
        bands=tuple(arguments.bands),
        tile_size=arguments.tile_size or _side_px(spec),
    )
    subject = open_subject(arguments.pictures, sight, task=query.task)
    if undecided:
        name = default_predictor((query.task, picture.sensor) for picture in subject.item.pictures)
        spec = _model(None) if name == "vlm" else None
        query = query if spec else make_query(arguments.question, **details)
    return query, subject, spec or {"name": "spectral"}


def _model(checkpoint: str | None) -> dict[str, str]:
    """What `build_predictor` takes for a checkpoint as it is now; None for the embedded one."""
    from earthmap.model import EMBEDDED, checkpoint_key, find_checkpoint

    source = checkpoint or EMBEDDED
    return {"name": "vlm", "checkpoint": source, "weights": checkpoint_key(find_checkpoint(source))}


def _side_px(spec: dict[str, str] | None) -> int:
    """Side of the picture around a point, in pixels."""
    from earthmap.model import find_checkpoint, read_card
    from earthmap.pipeline.job import TILE_SIZE

    return read_card(find_checkpoint(spec["checkpoint"])).side_px if spec and "checkpoint" in spec else TILE_SIZE


def _predictor(arguments: argparse.Namespace) -> dict[str, str] | None:
    """What `build_predictor` takes; None where nobody names it. A checkpoint's folder means the model."""
    name = arguments.predictor or ("vlm" if arguments.model else None)
    if arguments.model and name != "vlm":
        raise JobError(f"the predictor {name} is given a --model", expected="--predictor vlm, or no --model")
    if name == "vlm":
        return _model(arguments.model)
    return {"name": name} if name else None


def _write_png(address: str, png: bytes) -> None:
    from earthmap.storage import Storage

    folder, _, name = address.rpartition("/")
    Storage(folder or ".").write(name, png)


def _scenes(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import find_sightings

    missing = [f"--{name}" for name in ("area", "catalog") if getattr(arguments, name) is None]
    if missing and not arguments.images:
        raise JobError(f"nothing says {', '.join(missing)}", fix="give these flags, or --image")
    found = find_sightings(
        {
            "area": arguments.area,
            "catalog": arguments.catalog,
            "images": arguments.images or (),
            "bands": arguments.bands or (),
            "datetime": arguments.datetime,
            "collections": arguments.collections or (),
            "sensor": arguments.sensor,
        },
        pictures=arguments.out is not None,
        say=_sayer(arguments),
    )
    if arguments.out is not None:
        _write_strip(found, arguments)
    _show_sightings(found, arguments)
    return DONE


def _write_strip(found: Sightings, arguments: argparse.Namespace) -> None:
    from earthmap.outputs import render_strip

    count, shown = len(found.rows), len(found.panels)
    title = f"{count} observation{'s' * (count != 1)}" + (f", of which {shown} are shown" if shown < count else "")
    _write_png(arguments.out, render_strip(found.panels, title=title))


def _demo(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import parse_job, run_job
    from earthmap.pipeline.demo import demo_job, embedded_card
    from earthmap.synthetic import demo_world, true_km2, write_world

    folder = Path(arguments.out)
    world = demo_world()
    with _progress(quiet=arguments.quiet) as (report, say):
        say("drawing scenes of a valley before and after a flood")
        catalog = write_world(world, folder / "scenes")
        job = parse_job({**demo_job(world, embedded_card()), "catalog": str(catalog), "out": str(folder)})
        say(_DEMO_ANSWERS[job.spec.predictor or ""])
        run = run_job(job, report=report, say=say)
    _show_run(run, arguments)
    if not arguments.quiet:
        before, after = (true_km2(world, date)["water"] for date in (world.before, world.after))
        _console(stderr=True).print(
            f"The truth of this drawn world: {before:.2f} km² of water before, {after:.2f} km² after. "
            "Drawn scenes are no evidence of how real ones come out."
        )
    return DONE


_DEMO_ANSWERS = {
    "vlm": "asking the model that is built in what its card supports; its answers are worth what the card says",
    "spectral": "asking thresholds on spectral indices: this copy has no model, or none that can answer here",
}


_FINETUNE_FLAGS = (
    "out", "preset", "model", "stages", "lora", "seed", "every", "steps", "at_once", "validate", "workers", "cluster",
    "rows", "weights", "own", "rate",
)  # fmt: skip


def _finetune(arguments: argparse.Namespace) -> int:
    from earthmap.training.curves import live_line
    from earthmap.training.finetune import FinetuneSpec, finetune

    if arguments.drawn == bool(arguments.data):
        given = "both given" if arguments.drawn else "neither given"
        raise JobError(f"--data and --drawn are {given}", expected="one of them: what to learn from")
    values = {name: getattr(arguments, name) for name in _FINETUNE_FLAGS if getattr(arguments, name) is not None}
    spec = FinetuneSpec(data=tuple(arguments.data or ()), **values)
    if arguments.quiet:
        done = finetune(spec)
    else:
        with live_line(_console(stderr=True), steps=spec.until) as (watch, say):
            done = finetune(spec, watch=watch, say=say)
        for line in done.lines():
            _console().print(line, markup=False)
    _last_line(arguments, done.to_dict())
    return DONE


def _report(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import open_run, publish_report

    run = open_run(arguments.run)
    publish_report(run)
    _show_run(run, arguments)
    return DONE


def _export(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import export_run, open_run

    if arguments.to == "crops":
        return _export_crops(arguments)
    done = export_run(open_run(arguments.run), to=arguments.to, out=arguments.out, overwrite=arguments.overwrite)
    if not arguments.quiet:
        for name in done.files:
            _console().print(name, markup=False)
    _last_line(arguments, {"files": list(done.files), "features": done.features})
    return DONE


def _export_crops(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import open_run
    from earthmap.pipeline.crops import export_crops

    folder, count = export_crops(open_run(arguments.run), out=arguments.out, overwrite=arguments.overwrite)
    if not arguments.quiet:
        _console().print(f"{count:,} footprints before and after: {folder}", markup=False, soft_wrap=True)
    _last_line(arguments, {"folder": folder, "crops": count})
    return DONE


def _sample(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import open_run
    from earthmap.pipeline.sampling import SampleSpec, draw_sample, tell_sample

    spec = SampleSpec(
        units=arguments.n,
        seed=arguments.seed,
        question=arguments.question,
        observation=arguments.observation,
        unseen=arguments.unseen,
    )
    sample = draw_sample(open_run(arguments.run), spec, out=arguments.out, say=_sayer(arguments))
    _show_lines(tell_sample(sample), arguments)
    _last_line(arguments, sample.to_dict())
    return DONE


def _estimate(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import open_run
    from earthmap.pipeline.demands import Demands
    from earthmap.pipeline.estimating import estimate_path, estimate_run

    if arguments.labels is None:
        return _estimate_unlabelled(arguments)
    run = open_run(arguments.run)
    trust = estimate_run(run, arguments.labels, demands=_demands(arguments, Demands()))
    _show_lines([*trust.lines(), f"written: {run.storage.locate(estimate_path(trust.design))}"], arguments)
    _last_line(arguments, trust.to_dict())
    return DONE


def _egress(arguments: argparse.Namespace) -> int:
    import dataclasses

    try:
        from earthmap.service.addresses import Nameable
        from earthmap.service.egress import run_egress, try_address
        from earthmap.service.egress_gate import Gate
    except ImportError as error:
        raise JobError(f"the package {error.name} is not installed", fix="pip install 'earthmap[service]'") from error
    rules = _rules(arguments)
    if arguments.tried:
        try_address(Nameable(rules=rules, buckets=tuple(arguments.buckets)), arguments.tried)
        _show_lines([f"a run may read {arguments.tried}"], arguments)
        _last_line(arguments, {"address": arguments.tried, "allowed": True})
        return DONE
    ready: Callable[[str], None] = lambda address: _show_lines([f"egress proxy at {address}"], arguments)  # noqa: E731
    counts = run_egress(rules, gate=Gate(host=arguments.host, port=arguments.port), ready=ready)
    _show_lines([f"{counts.allowed} let through, {sum(counts.refused.values())} refused"], arguments)
    _last_line(arguments, dataclasses.asdict(counts))
    return DONE


def _rules(arguments: argparse.Namespace) -> EgressRules:
    """What users' runs may reach. Raises JobError for what is no rule, or a rule in vain."""
    from earthmap.service.egress_rules import make_rules

    rules = make_rules(
        ports=arguments.ports,
        plain_http=arguments.allow_http,
        public=not arguments.only_allowed,
        denied=arguments.denied,
    )
    return rules.with_listed(arguments.listed)


def _demands(arguments: argparse.Namespace, usual: Demands) -> Demands:
    """What the flags ask for, and where they do not say, what is usual."""
    import dataclasses

    said = {name: value for name in ("certainty", "seen") if (value := getattr(arguments, name)) is not None}
    return dataclasses.replace(usual, **said)


def _estimate_unlabelled(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import open_run
    from earthmap.pipeline.unlabelled import assess_unlabelled

    run = open_run(arguments.run)
    found = assess_unlabelled(
        run,
        question=arguments.question,
        observation=arguments.observation,
        errors=arguments.errors,
        demands=_demands(arguments, run.job.demands),
    )
    _show_lines(found.lines(), arguments)
    _last_line(arguments, found.to_dict())
    return DONE


def _similar(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import find_similar, open_run
    from earthmap.pipeline.likeness import tell_similar, write_similar

    run = open_run(arguments.run)
    found = find_similar(
        run, arguments.to, n=arguments.n, sensor=arguments.sensor, observation=arguments.observation
    )  # fmt: skip
    files = write_similar(run, found, arguments.out) if arguments.out else ()
    _show_lines([*tell_similar(found), *(f"written: {name}" for name in files)], arguments)
    rows = json.loads(found.drop(columns="geometry").to_json(date_format="iso", orient="records"))
    _last_line(arguments, {"tiles": rows, "files": list(files)})
    return DONE


def _cluster(arguments: argparse.Namespace) -> int:
    from earthmap.pipeline import cluster_run, open_run
    from earthmap.pipeline.clustering import write_clusters

    run, which = open_run(arguments.run), {"sensor": arguments.sensor, "observation": arguments.observation}
    found = cluster_run(run, arguments.k, seed=arguments.seed, **which)
    files = write_clusters(run, found, out=arguments.out)
    _show_lines([*found.lines(), *(f"written: {name}" for name in files)], arguments)
    _last_line(arguments, {**found.to_dict(), "files": files})
    return DONE


def _doctor(arguments: argparse.Namespace) -> int:
    import dataclasses

    from earthmap.grid import AreaOfInterest
    from earthmap.operate import Verdict
    from earthmap.pipeline.doctor import diagnose

    code, told = DONE, dict[str, Any]()
    if arguments.catalog is None or _asks_of_machine(arguments):
        found = _check_up(arguments)
        code, told = FAILED if found.verdict is Verdict.WRONG else DONE, found.to_dict()
    if arguments.catalog is not None:
        area = AreaOfInterest.normalize(arguments.area) if arguments.area else None
        console = _console(stderr=True)
        say = None if arguments.quiet else lambda step: console.print(step, style="dim")
        health = diagnose(arguments.catalog, collections=arguments.collections, area=area, say=say)
        if not arguments.quiet:
            _show_diagnosis(health)
        code = code or {"healthy": DONE, "partly": WITH_ERRORS, "ill": FAILED}[health.status]
        told |= {**dataclasses.asdict(health), "status": health.status}
    _last_line(arguments, told)
    return code


def _asks_of_machine(arguments: argparse.Namespace) -> bool:
    return any(getattr(arguments, name) is not None for name in ("storage", "needs", "cluster", "model"))


def _check_up(arguments: argparse.Namespace) -> Checkup:
    """What is wrong with this machine, and with what of it the arguments name. Raises JobError."""
    from earthmap.operate import Wanted, check_up

    if arguments.catalog is None and (arguments.collections or arguments.area):
        raise JobError("--collection or --area is given without a catalogue", fix="name the catalogue too")
    if arguments.needs is not None and (arguments.storage is None or not 0 < arguments.needs < 1e9):
        raise JobError(
            "--needs says how many GB runs write to --storage", fix="give --storage, and a number above none"
        )
    wanted = Wanted(
        storage=arguments.storage,
        needs_bytes=None if arguments.needs is None else int(arguments.needs * 1e9),
        cluster=arguments.cluster,
        model=arguments.model or "nano",
        catalog=arguments.catalog,
    )
    return check_up(wanted, heard=None if arguments.quiet else _show_finding)


def _serve(arguments: argparse.Namespace) -> int:
    _check_service()
    from earthmap.service.processes import Offer
    from earthmap.service.replicas import ReplicaOptions
    from earthmap.service.serve import Settings, parse_names, serve

    settings = Settings(
        out=arguments.out,
        offer=Offer(
            catalogs=parse_names(arguments.catalog, what="catalogue"),
            models=parse_names(arguments.model, what="model"),
        ),
        state=arguments.state,
        host=arguments.host,
        port=arguments.port,
        at_once=arguments.at_once,
        cluster=arguments.cluster,
        replicas=ReplicaOptions(most=arguments.replicas, gpus=arguments.gpus),
        askers=arguments.askers,
        questions=arguments.questions,
        answer_within_s=arguments.answer_within,
        egress=arguments.egress,
        rules=_rules(arguments),
    )
    serve(settings, say=lambda text: _console(stderr=True).print(text, markup=False))
    return DONE


def _token(arguments: argparse.Namespace) -> int:
    _check_service()
    from earthmap.service.serve import state_address, told_token
    from earthmap.service.tokens import Quotas, Role, open_tokens

    with open_tokens(state_address(arguments.out, arguments.state), make=arguments.action == "make") as tokens:
        if arguments.action == "list":
            sys.stdout.writelines(f"{told_token(record)}\n" for record in tokens.all())
        elif arguments.name is None:
            raise JobError(f"token {arguments.action} lacks a name", fix="give the owner, or the id of the token")
        elif arguments.action == "make":
            quotas = Quotas(
                area_km2=arguments.area_km2,
                tiles=arguments.tiles,
                read_bytes=arguments.bytes,
                open_jobs=arguments.open_jobs,
                steps=arguments.steps,
            )
            sys.stdout.write(tokens.make(arguments.name, role=Role(arguments.role), quotas=quotas) + "\n")
        elif not tokens.revoke(arguments.name):
            raise JobError(f"there is no token {arguments.name[:40]!r} that is valid", fix="see `earthmap token list`")
    return DONE


def _jobs(arguments: argparse.Namespace) -> int:
    _check_service()
    from earthmap.pipeline.job import kept_address
    from earthmap.service.retention import LEAST_DAYS, find_old, prune
    from earthmap.service.serve import state_address
    from earthmap.service.state import open_jobs
    from earthmap.storage import Storage

    if not LEAST_DAYS <= arguments.older < float("inf"):
        raise JobError(f"--older is {arguments.older:g}", expected=f"a number of days, {LEAST_DAYS:g} at least")
    change, told = (find_old, "would go") if arguments.dry_run else (prune, "gone")
    with open_jobs(state_address(arguments.out, arguments.state)) as jobs:
        for one in change(jobs, Storage(kept_address(arguments.out)), days=arguments.older):
            job = one.job
            sys.stdout.write(f"{job.id}  {job.process}  {job.status}  {one.objects} files  {told}\n")
    return DONE


def _check_service() -> None:
    """Raises JobError where the extra `service` is not installed."""
    import importlib.util

    needed = ("h11", "prometheus_client", "sqlalchemy", "starlette", "uvicorn")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise JobError(f"the service needs {', '.join(missing)}", fix="pip install 'earthmap[service]'")


# ── what people see ──────────────────────────────────────────────────────────────────────────────────────────


def _console(*, stderr: bool = False) -> Console:
    from earthmap.operate.progress import open_console

    return open_console(stderr=stderr)


def _sayer(arguments: argparse.Namespace) -> Callable[[str], None]:
    """What happens before there is a bar, in lines on standard error."""
    from rich.markup import escape

    from earthmap.operate.logs import is_on, log_step

    if is_on():
        return log_step
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


def _heeding(hear: Callable[[Any], None]) -> Callable[[Any], None]:
    """`hear`, and Ctrl-C where Python dropped it."""

    def heard(told: Any) -> None:
        _CTRL_C.heed()
        hear(told)

    return heard


@contextmanager
def _progress(*, quiet: bool) -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """One live bar on standard error: tiles, tiles a second, time left, failures. Each step heeds Ctrl-C."""
    from earthmap.operate.logs import is_on, log_progress, log_step

    if quiet or is_on():
        yield _heeding(log_progress), _heeding(log_step)
        return
    from earthmap.operate.progress import live_bar

    with live_bar(unit="tiles") as bar:

        def report(progress: Progress) -> None:
            _CTRL_C.heed()
            detail = f"{progress.km2:,.0f} km²" + (f" {progress.failed} failed" if progress.failed else "")
            bar.advance(progress.tiles, progress.tiles_planned, detail=detail)

        def say(step: str) -> None:
            _CTRL_C.heed()
            bar.say(step)

        yield report, say


def _show_lines(lines: Sequence[str], arguments: argparse.Namespace) -> None:
    if not arguments.quiet:
        _console().print("\n".join(lines), markup=False)


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
    _show_pass(run, arguments)
    _last_line(arguments, {"run": run.address, "summary": run.summary})


def _show_reply(reply: Reply, arguments: argparse.Namespace) -> None:
    from earthmap.pipeline import tell

    if not arguments.quiet and not arguments.json:
        console = _console()
        for line in tell(reply):
            console.print(line, markup=False)
    _last_line(arguments, reply.to_dict())


def _show_finding(finding: Finding) -> None:
    """One line; of what is not well what was expected and how to fix it too."""
    style = {"ok": "green", "warning": "yellow", "wrong": "red"}[finding.verdict]
    rest = "" if finding.expected is None else f"; expected {finding.expected}; to fix: {finding.fix}"
    console = _console()
    console.print(f"{finding.verdict:<8}", style=style, end="")
    console.print(f"{finding.check}: {finding.found}{rest}", markup=False)


def _show_diagnosis(found: Diagnosis) -> None:
    from rich.markup import escape
    from rich.table import Table

    from earthmap.pipeline.doctor import MAX_SKEW_S

    console = _console()
    if found.fault:
        console.print(escape(found.fault))
    if found.collections:
        table = Table("collection", "sensor", "items", "window", "found", box=None)
        for one in found.collections:
            speed = (
                f"{one.milliseconds:.0f} ms, {(one.bytes_per_second or 0) / 1e6:.1f} MB/s" if one.milliseconds else ""
            )
            finding = "[green]well[/green]" if one.healthy else f"[red]{one.cause}[/red]"
            sensors = ", ".join(one.sensors)
            table.add_row(escape(one.collection), sensors, f"{one.recognised} of {one.items}", speed, finding)
        console.print(table)
    for one in found.collections:
        if not one.healthy:
            fix = f"; to fix: {one.fix}" if one.fix else ""
            console.print(escape(f"{one.collection}: {one.message}{fix} (credentials: {one.credentials})"))
    if found.left_out:
        console.print(f"{found.left_out} more collections were not looked at: name them with --collection")
    if found.clock_skew_s is not None and abs(found.clock_skew_s) > MAX_SKEW_S:
        console.print(f"[red]this machine's clock is {found.clock_skew_s:+,.0f} s off the service's: set it[/red]")


def _show_sightings(found: Sightings, arguments: argparse.Namespace) -> None:
    if not arguments.quiet:
        console = _console()
        console.print(_sightings_table(found), markup=False)
        for row in [row for row in found.rows if row.problem][:SHOWN]:
            console.print(f"{row.observation} could not be looked at: {row.problem}", markup=False)
        for name, why in found.refused[:SHOWN]:
            console.print(f"not understood: {name}: {why}", markup=False)
        if len(found.refused) > SHOWN:
            console.print(f"and {len(found.refused) - SHOWN} more items not understood; --json names all")
    content: dict[str, Any] = {"observations": [row.to_dict() for row in found.rows]}
    _last_line(arguments, content | {"refused": [{"id": name, "why": why} for name, why in found.refused]})


def _sightings_table(found: Sightings) -> str:
    """One line for each observation, in columns as wide as they need."""
    head = ["UTC", "solar time", "sensor", "platform", "cover", "cloud", "off nadir", "sun", "orbit", "scenes"]
    rows = [head, *(_sighting_cells(row) for row in found.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _sighting_cells(row: Sighting) -> list[str]:
    def degrees(value: float | None) -> str:
        return "" if value is None else f"{value:.0f}°"

    cloud = "" if row.cloud is None else f"{row.cloud:.0%}" + ("" if row.cloud_measured else " stated")
    orbit = f"{row.orbit_direction or ''} {'' if row.relative_orbit is None else row.relative_orbit}".strip()
    return [
        f"{row.datetime:%Y-%m-%d %H:%M}",
        row.solar_time,
        row.sensor,
        row.platform or "",
        f"{row.cover:.0%}",
        cloud,
        degrees(row.off_nadir_deg),
        degrees(row.sun_elevation_deg),
        orbit,
        str(len(row.scenes)),
    ]


def _last_line(arguments: argparse.Namespace, content: dict[str, Any]) -> None:
    if arguments.json:
        sys.stdout.write(json.dumps(content, sort_keys=True) + "\n")


_COMMANDS = {
    "map": _map, "ask": _ask, "respond": _respond,
    "demo": _demo, "report": _report, "scenes": _scenes, "doctor": _doctor,
    "export": _export, "finetune": _finetune, "sample": _sample, "estimate": _estimate, "similar": _similar,
    "cluster": _cluster, "egress": _egress, "serve": _serve, "token": _token,
    "jobs": _jobs,
}  # fmt: skip


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """The arguments. A vector is asked for without a question. Raises JobError."""
    try:
        return _parser().parse_args(words)
    except JobError:
        if list(words[:1]) != ["ask"] or "embed" not in {word.removeprefix("--task=") for word in words[1:]}:
            raise
    from earthmap.tasks import TASKS

    return _parser().parse_args([*words, TASKS["embed"].example])


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    sys.stderr.write(f"earthmap: {message}\n")


class _CtrlC:
    """Ctrl-C, remembered: Python drops the exception where it comes in the middle of a finalizer, as Ray has many."""

    def __init__(self) -> None:
        self.pressed = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Until the end; not in other threads than the main one, and not where SIGINT is ignored, as behind nohup."""
        self.pressed = False
        here = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGINT)
        if not here or before in (signal.SIG_IGN, None):
            yield
            return
        signal.signal(signal.SIGINT, self._hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _hear(self, *_: object) -> None:
        self.pressed = True
        raise KeyboardInterrupt

    def heed(self) -> None:
        """Raise KeyboardInterrupt where one was dropped."""
        if self.pressed:
            raise KeyboardInterrupt

    def sleep(self, seconds: float) -> None:
        """Wait, and heed it within a second."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.heed()
            time.sleep(min(1.0, left))


_CTRL_C = _CtrlC()


def _joined(argv: Sequence[str]) -> list[str]:
    """`argv` with `--area -60,-3,-59,-2` as `--area=-60,-3,-59,-2`: argparse takes what is west or south for a flag."""
    joined: list[str] = []
    for text in argv:
        if re.match(r"-\.?\d", text) and joined and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={text}"
        else:
            joined.append(text)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. What is wrong is said in one line on standard error."""
    warnings.simplefilter("ignore")  # of libraries; what a user must know is in the ledger and the notes
    warnings.simplefilter("always", EarthmapWarning)
    warnings.showwarning = _show_warning
    from earthmap.operate.logs import logging_as_asked
    from earthmap.operate.stopping import ending_in_order

    try:
        with _CTRL_C.listening(), ending_in_order(), logging_as_asked():
            arguments = _parsed(_joined(sys.argv[1:] if argv is None else argv))
            return _COMMANDS[arguments.command](arguments)
    except EarthmapError as error:
        sys.stderr.write(f"earthmap: {error}\n")
        return BAD_REQUEST if isinstance(error, BadRequestError) else FAILED
    except KeyboardInterrupt:
        sys.stderr.write("earthmap: stopped; what is done is kept, and the same command goes on from there\n")
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
