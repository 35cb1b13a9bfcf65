"""A job: what is asked, of which imagery, over which area, and where the result goes.

A job is data (a YAML or JSON file, or the flags of `earthmap map`). Paths in a job file are relative to the file.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic

from earthmap.catalog import LOOKS, SceneRule, change_intervals, image_catalog, images_key, split_date
from earthmap.content import content_key
from earthmap.errors import CatalogError, JobError, ModelError
from earthmap.grid import AreaOfInterest
from earthmap.pipeline.demands import SEEN, Demands
from earthmap.pipeline.footprints import footprints_key
from earthmap.pipeline.reference_water import reference_key
from earthmap.pipeline.triage import TRIAGED_TASKS, is_triaged
from earthmap.pipeline.turns import Priority
from earthmap.predict import default_predictor
from earthmap.tasks import TASKS, Query, guess_task, make_query
from earthmap.tasks.damage import DAMAGED_BUILDING, speaks_of_damage

DEFAULT_MAX_TILES = 100_000
"""Tiles that a job may have unless it says otherwise: about 1.5 million km² at 10 m."""

STORAGE = "EARTHMAP_STORAGE"
"""Variable that names the folder or s3:// prefix below which a job's relative `out` and `store` are, for all machines
of a cluster to reach (docs/cluster.md)."""

TILE_SIZE = 448
"""Side of a tile's picture in pixels where nothing speaks for another."""

_HOW = frozenset(
    {"out", "store", "cluster", "priority", "max_tiles", "patience", "seen", "certainty", "rush", "points"}
)
"""What does not change what is asked, and so is in no key."""

_KEYED = frozenset({"area", "queries", "model", "footprints", "reference_water"})
"""What is in the key by its content."""


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, use_attribute_docstrings=True
    )


class QuestionSpec(_Record):
    """One question of a job, as it is written down."""

    text: str
    """In words, such as 'Where is water?'."""
    task: str | None = None
    """What kind of question it is (docs/questions.md); None for what the words say."""
    targets: tuple[str, ...] | None = None
    """What is looked for; None for what the words name."""
    choices: tuple[str, ...] | None = None
    """Answers to choose from, for a question that has some."""
    shape: str | None = None
    """How things are drawn: box, oriented_box, point or polygon; None for what the task usually has."""
    sensors: tuple[str, ...] = ()
    """Sensors that it is asked of; empty for all that can answer it."""
    unseen: tuple[str, ...] | None = None
    """What counts as not seen, such as cloud and shadow; None for what the task usually leaves out."""
    before: str | None = None
    """The earlier date or dates of a question about change, as a STAC datetime or interval."""
    after: str | None = None
    """The later ones."""

    def grades(self, *, footprints: bool) -> bool:
        """Whether it asks for the damage of each footprint."""
        return self.task == "damage" or (footprints and self.task is None and speaks_of_damage(self.text))

    def query(self, *, open_vocabulary: bool = False, footprints: bool = False) -> Query:
        """The exact query; `open_vocabulary` for the vision-language model, `footprints` where there are some, of which
        a question about damage is asked. Raises QueryError."""
        each = self.grades(footprints=footprints)
        return make_query(
            self.text,
            task="damage" if each else self.task,
            targets=self.targets or ((DAMAGED_BUILDING,) if each else None),
            choices=self.choices,
            shape=self.shape,
            sensors=self.sensors,
            before=self.before,
            after=self.after,
            unseen=self.unseen,
            open_vocabulary=open_vocabulary,
        )


class JobSpec(_Record):
    """A job as it is written down; `Job` is what it means."""

    area: Any = None
    """Path, `W,S,E,N`, WKT, GeoJSON, four numbers, or anything else that `AreaOfInterest.normalize` takes; None for the
    ground of the images."""
    images: tuple[str, ...] = ()
    """Images without a catalogue: files, folders, archives, addresses; `@DATE` behind one says when it was taken."""
    images_key: str | None = None
    """Key of the files behind `images` and their versions, so that a changed file makes another job; filled in here."""
    bands: tuple[str, ...] = ()
    """What the bands of `images` are where their files do not say."""
    catalog: str | None = None
    """STAC API address, or path or address of a static catalogue, ItemCollection or stac-geoparquet file."""
    queries: tuple[QuestionSpec, ...] = pydantic.Field(min_length=1)
    """What is asked."""
    collections: tuple[str, ...] = ()
    """Ids of the collections of the catalogue that are searched; empty for all."""
    datetime: str | None = None
    """When: a date, a month, a year, or an interval FROM/TO, as STAC writes it; None for any time."""
    sensor: str | None = None
    """Only this sensor's scenes, such as sentinel-2-l2a; None for any."""
    resolution: float | None = pydantic.Field(default=None, gt=0, le=10_000)
    """Pixel size in metres; None for the finest of the scenes found."""
    tile_size: Literal[448, 224, 128] | None = None
    """Side of a tile's picture in pixels; None for 448, or the largest that the model learned from."""
    scenes: Literal["least_cloud", "nearest", "latest", "all", "median"] = "least_cloud"
    """Which observations of each place are looked at."""
    date: str | None = None
    """What `scenes: nearest` is measured from, as a STAC datetime."""
    looks: int = pydantic.Field(default=LOOKS, ge=1, le=100)
    """Observations that a `median` composite is made of, at most."""
    predictor: Literal["spectral", "oracle", "vlm"] | None = None
    """None for the model where one is named, else for what `earthmap.predict.default_predictor` decides."""
    model: str | None = None
    """Checkpoint of the vision-language model: a folder, the name of a public one, or `nano`, which comes with the
    package and is what None means with the predictor `vlm`."""
    model_key: str | None = None
    """Key of its weights, tokenizer and card, so that other weights make another job; filled in here."""
    footprints: str | None = None
    """File of outlines of buildings, each of which is graded where damage is asked for (docs/damage.md)."""
    footprints_key: str | None = None
    """Key of the file's content, so that a changed file makes another job; filled in here."""
    reference_water: str | None = None
    """File of water that is always there, which is no flood: polygons, or a raster of occurrence (docs/respond.md)."""
    reference_water_key: str | None = None
    """Key of the file's content; filled in here."""
    least_seen: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Tiles of which less than this share is seen are not asked about; those of which nothing is never are."""
    triage: Literal["coarse"] | None = None
    """`coarse`: look on larger pixels first whether there is any of what a question looks for, and ask only tiles where
    there may be."""
    triage_scale: Literal[2, 4] = 2
    """How many times larger the pixels of the coarse pass are, and how many tiles its pictures show along each side."""
    triage_threshold: float = pydantic.Field(default=0.1, ge=0, le=1)
    """Tiles are skipped where the coarse pass gives what is looked for a lower probability."""
    max_tiles: int = pydantic.Field(default=DEFAULT_MAX_TILES, gt=0)
    """More tiles than these are refused before anything is read."""
    rush: bool = False
    """The most important cells first, and a map that grows while the run works; what it comes to is the same."""
    points: str | None = None
    """File of places that are most important then: points, or anything else that lies somewhere (docs/respond.md)."""
    patience: float = pydantic.Field(default=600.0, ge=0)
    """Seconds that are waited at most for providers that refuse or do not answer."""
    seen: float = pydantic.Field(default=SEEN, ge=0, le=1)
    """Share of the ground that must have been seen, or a number is told with `not enough evidence`."""
    certainty: float | None = pydantic.Field(default=None, gt=0)
    """Half of an interval may be at most this share of the number, or it is told so too; None asks for none."""
    out: str
    """Run folder, or s3:// address."""
    store: str | None = None
    """Where cube and answers are kept, to be shared by several runs; None for `store` in the run folder."""
    cluster: str | None = None
    """Address of a Ray cluster; None starts one on this machine for the run."""
    priority: Priority = "normal"
    """Whose cells are worked on first where several runs share a cluster (docs/cluster.md)."""

    @pydantic.field_validator("queries", mode="before")
    @classmethod
    def _queries(cls, value: Any) -> Any:
        items = [value] if isinstance(value, (str, Mapping)) else value
        if not isinstance(items, (list, tuple)):
            return items
        return tuple({"text": item} if isinstance(item, str) else item for item in items)

    @pydantic.field_validator("images", mode="before")
    @classmethod
    def _images(cls, value: Any) -> Any:
        items = [value] if isinstance(value, (str, Mapping)) else value
        return tuple(_image_text(item) for item in items) if isinstance(items, (list, tuple)) else items

    @pydantic.field_validator("bands", mode="before")
    @classmethod
    def _bands(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @pydantic.field_validator("collections", mode="before")
    @classmethod
    def _collections(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @pydantic.field_validator("datetime", "date", mode="before")
    @classmethod
    def _datetime(cls, value: Any) -> Any:
        return None if value is None else str(value)  # YAML reads 2024-06-01 as a date and 2024 as a number


def _image_text(item: Any) -> Any:
    """`{path, datetime}` of a job file as the command line writes it: `path@datetime`."""
    if not isinstance(item, Mapping) or not set(item) <= {"path", "datetime"} or "path" not in item:
        return item
    return f"{item['path']}@{item['datetime']}" if item.get("datetime") else str(item["path"])


def _faults(error: pydantic.ValidationError) -> str:
    lines = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"]) or "the job"
        lines.append(f"{where}: {fault['msg'][0].lower()}{fault['msg'][1:]}")
    return "; ".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job whose area and queries are resolved; nothing in it is relative any more."""

    spec: JobSpec
    area: AreaOfInterest
    queries: tuple[Query, ...]

    @property
    def rule(self) -> SceneRule:
        """How the observations of a cell are chosen. Raises JobError for a rule without its date."""
        return SceneRule(name=self.spec.scenes, date=self.spec.date, looks=self.spec.looks)

    def content_key(self) -> str:
        """Key of what is asked: the same wherever the result goes, whoever computes it and on what."""
        asked = self.spec.model_dump(mode="json", exclude={*_HOW, *_KEYED})
        return content_key(asked, self.area.content_key(), [query.content_key() for query in self.queries])

    @property
    def demands(self) -> Demands:
        """What must be known before a number is told as known."""
        return Demands(certainty=self.spec.certainty, seen=self.spec.seen)

    @property
    def store(self) -> str:
        """Address of the store of cube and answers."""
        return self.spec.store or f"{self.spec.out.rstrip('/')}/store"

    def to_dict(self) -> dict[str, Any]:
        """The job as JSON-ready values that `parse_job` reads back, the area spelt out."""
        plain = self.spec.model_dump(mode="json", exclude={"area"}, exclude_none=True)
        return {"area": self.area.to_geojson(), **plain}


def _anchored(address: str, base: Path | None) -> str:
    """`address` as it is if it names a place elsewhere, else as a path relative to the job file's folder."""
    if "://" in address or base is None:
        return address
    path = Path(address).expanduser()
    return str(path if path.is_absolute() else base / path)


def kept_address(address: str, base: Path | None = None) -> str:
    """Where a run folder or store is: below the storage that the environment names, unless it says where itself.

    Raises:
        JobError: for a storage that is another place on each machine, and for an address that leads out of it.
    """
    root = os.environ.get(STORAGE, "").rstrip("/")
    if not root or "://" in address or Path(address).expanduser().is_absolute():
        return _anchored(address, base)
    if "://" not in root and not Path(root).is_absolute():
        raise JobError(
            f"{STORAGE} is {root!r}, another place for each folder that one stands in",
            expected="an address such as s3://bucket/prefix, or the whole path of a folder that all machines share",
            fix=f"set {STORAGE} to one of these",
        )
    inside = posixpath.normpath(address)
    if inside.split("/")[0] == "..":
        raise JobError(
            f"{address!r} leads out of {root}, where {STORAGE} keeps runs",
            fix="leave the dots out, or give the whole address",
        )
    return root if inside == "." else f"{root}/{inside}"


def _anchored_image(text: str, base: Path | None) -> str:
    """An image's path made absolute, so that the job means the same files wherever it is run from."""
    address, date = split_date(text)
    if "://" not in address:
        address = str(Path(_anchored(address, base)).expanduser().absolute())
    return f"{address}@{date}" if date else address


def _with_images(spec: JobSpec, base: Path | None, say: Callable[[str], None] | None) -> JobSpec:
    """`spec` with its images found, and with their ground as the area where it names none.

    Raises:
        JobError: where nothing says where, or what of.
        CatalogError: where an image is not there.
    """
    if not spec.images:
        missing = [name for name in ("area", "catalog") if getattr(spec, name) is None]
        if missing:
            raise JobError(f"nothing says {' and '.join(missing)}", fix="give an area and a catalogue, or images")
        return spec.model_copy(update={"images_key": None})
    images = tuple(_anchored_image(text, base) for text in spec.images)
    try:
        key = images_key(images)
    except CatalogError:
        if spec.images_key is None:
            raise
        key = spec.images_key  # the job of a run whose images are gone can still be read
    if spec.area is not None:
        return spec.model_copy(update={"images": images, "images_key": key})
    found = image_catalog(images, datetime=spec.datetime, bands=spec.bands, say=say)
    return spec.model_copy(update={"images": images, "images_key": key, "area": found.footprint})


def _with_model(spec: JobSpec, base: Path | None) -> JobSpec:
    """`spec` with what answers, the content key of its checkpoint, and the side of its tiles.

    Raises:
        JobError: for a checkpoint of another predictor than the vision-language model.
        ModelError: for a checkpoint that is not there, or holds no weights.
    """
    name = spec.predictor or ("vlm" if spec.model is not None else _default_predictor(spec))
    if spec.model is not None and name != "vlm":
        raise JobError(
            f"the predictor {name} is given a model",
            expected="a model with the predictor vlm, and with no other",
            fix="use --predictor vlm --model FOLDER, or --predictor spectral",
        )
    if name != "vlm":
        return spec.model_copy(update={"predictor": name, "model_key": None, "tile_size": spec.tile_size or TILE_SIZE})
    from earthmap.model import EMBEDDED, checkpoint_key, find_checkpoint, read_card

    model = spec.model or EMBEDDED
    here = Path(_anchored(model, base)).expanduser()
    model = str(here.absolute()) if model != EMBEDDED and here.exists() else model
    side = spec.tile_size or TILE_SIZE
    try:
        folder = find_checkpoint(model)
        key = checkpoint_key(folder)
        side = spec.tile_size or read_card(folder).side_px
    except ModelError:
        if spec.model_key is None:
            raise
        key = spec.model_key  # the job of a run whose checkpoint is gone can still be read
    return spec.model_copy(update={"predictor": name, "model": model, "model_key": key, "tile_size": side})


def _with_footprints(spec: JobSpec, base: Path | None) -> JobSpec:
    """`spec` with its footprints' path made absolute, and the key of their content. Raises JobError for no file."""
    if spec.footprints is None:
        return spec.model_copy(update={"footprints_key": None})
    path = str(Path(_anchored(spec.footprints, base)).expanduser().absolute())
    try:
        key = footprints_key(path)
    except JobError:
        if spec.footprints_key is None:
            raise
        key = spec.footprints_key  # the job of a run whose footprints are gone can still be read
    return spec.model_copy(update={"footprints": path, "footprints_key": key})


def _with_reference_water(spec: JobSpec, base: Path | None) -> JobSpec:
    """`spec` with where its reference water is, and the key of that content. Raises JobError for no such file."""
    if spec.reference_water is None:
        return spec.model_copy(update={"reference_water_key": None})
    address = _anchored(spec.reference_water, base)
    address = address if "://" in address else str(Path(address).expanduser().absolute())
    try:
        key = reference_key(address)
    except JobError:
        if spec.reference_water_key is None:
            raise
        key = spec.reference_water_key  # the job of a run whose file is gone can still be read
    return spec.model_copy(update={"reference_water": address, "reference_water_key": key})


def _default_predictor(spec: JobSpec) -> str:
    """What answers these questions where nobody says. Raises QueryError for what no predictor can be asked."""
    from earthmap.model import has_embedded

    if not has_embedded():
        return "spectral"
    asked = [
        (question.query(open_vocabulary=True, footprints=spec.footprints is not None).task, sensor)
        for question in spec.queries
        for sensor in question.sensors or (spec.sensor or "",)
    ]
    return default_predictor(asked)


def _queries(spec: JobSpec) -> tuple[Query, ...]:
    """The exact queries. Raises QueryError, and JobError for one that is asked twice."""
    given = spec.footprints is not None
    lacking = [question.text for question in spec.queries if question.grades(footprints=given) and not given]
    if lacking:
        raise JobError(
            f"{lacking[0][:80]!r} grades the damage of footprints, and none are given",
            fix="give a file of them with --footprints, or ask another task",
        )
    if spec.predictor == "spectral" and any(question.grades(footprints=given) for question in spec.queries):
        raise JobError(
            "the predictor spectral cannot grade the damage of buildings",
            expected="the vision-language model, of a checkpoint that was taught to (docs/damage.md)",
            fix="use --predictor vlm --model FOLDER",
        )
    queries = tuple(
        question.query(open_vocabulary=_is_open(question, spec.predictor, footprints=given), footprints=given)
        for question in spec.queries
    )
    if len({query.content_key() for query in queries}) < len(queries):
        raise JobError("a question is asked twice", fix="leave one of them out")
    if spec.reference_water is not None and not any(query.is_flood for query in queries):
        raise JobError(
            "reference water is given, and no question asks for flood",
            fix="ask such as 'Where is flooded?' with `targets: [flood]` (--targets flood), or leave the file out",
        )
    for query in queries:
        change_intervals(query.before, query.after)
    return queries


def _is_open(question: QuestionSpec, predictor: str | None, *, footprints: bool) -> bool:
    """Whether a question may be about anything: to the model, and to the oracle where it asks for single things."""
    if predictor == "oracle" and question.grades(footprints=footprints):
        return True
    if predictor == "oracle":
        task = TASKS.get(question.task or guess_task(question.text, open_vocabulary=True))
        return task is not None and task.merge == "instances"
    return predictor == "vlm"


def parse_job(values: Mapping[str, Any], *, base: Path | None = None, say: Callable[[str], None] | None = None) -> Job:
    """The job that `values` describe; relative paths are relative to `base`. `say` hears of long scans of images.

    Raises:
        CatalogError: for images that are not there.
        JobError: with every fault of the values named.
        AreaError: for an area that is not ground on the Earth.
        ModelError: for a checkpoint that is not there.
        QueryError: for a question that cannot be asked.
    """
    unknown = [key for key in values if not isinstance(key, str)]
    if unknown:
        raise JobError(f"the job has a key that is not text: {unknown[0]!r}", expected="names such as area, queries")
    try:
        spec = JobSpec.model_validate(dict(values))
    except pydantic.ValidationError as error:
        raise JobError(_faults(error), fix="see `earthmap map --help` or docs/job.md for what a job may say") from None
    spec = _with_footprints(_with_model(_with_images(spec, base, say), base), base)
    spec = _with_reference_water(spec, base)
    area = spec.area
    if isinstance(area, str) and base is not None and (base / area).is_file():
        area = str(base / area)
    resolved = AreaOfInterest.normalize(area)
    spec = spec.model_copy(
        update={
            "area": resolved.to_geojson(),
            "catalog": _anchored(spec.catalog, base) if spec.catalog else None,
            "out": kept_address(spec.out, base),
            "store": kept_address(spec.store, base) if spec.store else None,
            "points": _anchored(spec.points, base) if spec.points else None,
        }
    )
    queries = _queries(spec)
    if spec.triage and not any(is_triaged(query) for query in queries):
        raise JobError(
            "triage is asked for, and no question looks for named targets on one date",
            expected=f"a question of {', '.join(TRIAGED_TASKS)} that names what it looks for",
            fix="leave triage out: every tile must be asked",
        )
    SceneRule(name=spec.scenes, date=spec.date)
    return Job(spec=spec, area=resolved, queries=queries)


def read_job(
    path: str | Path, *, overrides: Mapping[str, Any] | None = None, say: Callable[[str], None] | None = None
) -> Job:
    """The job in a YAML or JSON file, with the values of `overrides` (the command line's) in place of the file's.

    Raises:
        JobError: for a file that is missing, is not YAML, or says what a job cannot.
    """
    import yaml

    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JobError(f"there is no job file {path}", expected="a YAML or JSON file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise JobError(f"{path} cannot be read: {error}", expected="a YAML or JSON file") from error
    if not isinstance(values, dict):
        raise JobError(f"{path} holds no job", expected="keys such as area, catalog, queries, out")
    here = path.resolve().parent
    values = {"out": str(Path("runs") / path.stem), **values}
    anchored = parse_job(values, base=here, say=say)
    if not overrides:
        return anchored
    return parse_job({**anchored.to_dict(), **overrides}, say=say)
