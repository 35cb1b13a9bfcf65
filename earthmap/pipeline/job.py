"""A job: what is asked, of which imagery, over which area, and where the result goes.

A job is data (a YAML or JSON file, or the flags of `earthmap map`). Paths in a job file are relative to the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic

from earthmap.content import content_key
from earthmap.errors import JobError
from earthmap.grid import AreaOfInterest
from earthmap.tasks import Query, make_query

DEFAULT_MAX_TILES = 100_000
"""Tiles that a job may have unless it says otherwise: about 1.5 million km² at 10 m."""


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class QuestionSpec(_Record):
    """One question of a job, as it is written down."""

    text: str
    task: str | None = None
    targets: tuple[str, ...] | None = None
    sensors: tuple[str, ...] = ()
    unseen: tuple[str, ...] | None = None
    before: str | None = None
    after: str | None = None

    def query(self) -> Query:
        """The exact query. Raises QueryError."""
        return make_query(
            self.text,
            task=self.task,
            targets=self.targets,
            sensors=self.sensors,
            before=self.before,
            after=self.after,
            unseen=self.unseen,
        )


class JobSpec(_Record):
    """A job as it is written down; `Job` is what it means."""

    area: Any
    """Path, `W,S,E,N`, WKT, GeoJSON, four numbers, or anything else that `AreaOfInterest.normalize` takes."""
    catalog: str
    """STAC API address, or path or address of a static catalogue, ItemCollection or stac-geoparquet file."""
    queries: tuple[QuestionSpec, ...] = pydantic.Field(min_length=1)
    collections: tuple[str, ...] = ()
    datetime: str | None = None
    sensor: str | None = None
    resolution: float | None = pydantic.Field(default=None, gt=0, le=10_000)
    """Pixel size in metres; None for the finest of the scenes found."""
    tile_size: Literal[448, 224, 128] = 448
    scenes: Literal["least_cloud", "latest", "all"] = "least_cloud"
    predictor: Literal["spectral", "oracle", "vlm"] = "spectral"
    max_tiles: int = pydantic.Field(default=DEFAULT_MAX_TILES, gt=0)
    out: str
    store: str | None = None
    """Where cube and answers are kept, to be shared by several runs; None for `store` in the run folder."""
    cluster: str | None = None
    """Address of a Ray cluster; None starts one on this machine for the run."""

    @pydantic.field_validator("queries", mode="before")
    @classmethod
    def _queries(cls, value: Any) -> Any:
        items = [value] if isinstance(value, (str, Mapping)) else value
        if not isinstance(items, (list, tuple)):
            return items
        return tuple({"text": item} if isinstance(item, str) else item for item in items)

    @pydantic.field_validator("collections", mode="before")
    @classmethod
    def _collections(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @pydantic.field_validator("datetime", mode="before")
    @classmethod
    def _datetime(cls, value: Any) -> Any:
        return None if value is None else str(value)  # YAML reads 2024-06-01 as a date and 2024 as a number


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

    def content_key(self) -> str:
        """Key of what is asked: the same wherever the result goes, whoever computes it and on what."""
        asked = self.spec.model_dump(mode="json", exclude={"area", "queries", "out", "store", "cluster", "max_tiles"})
        return content_key(asked, self.area.content_key(), [query.content_key() for query in self.queries])

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


def parse_job(values: Mapping[str, Any], *, base: Path | None = None) -> Job:
    """The job that `values` describe; relative paths are relative to `base`.

    Raises:
        JobError: with every fault of the values named.
        AreaError: for an area that is not ground on the Earth.
        QueryError: for a question that cannot be asked.
    """
    unknown = [key for key in values if not isinstance(key, str)]
    if unknown:
        raise JobError(f"the job has a key that is not text: {unknown[0]!r}", expected="names such as area, queries")
    try:
        spec = JobSpec.model_validate(dict(values))
    except pydantic.ValidationError as error:
        raise JobError(_faults(error), fix="see `earthmap map --help` or docs/job.md for what a job may say") from None
    area = spec.area
    if isinstance(area, str) and base is not None and (base / area).is_file():
        area = str(base / area)
    resolved = AreaOfInterest.normalize(area)
    spec = spec.model_copy(
        update={
            "area": resolved.to_geojson(),
            "catalog": _anchored(spec.catalog, base),
            "out": _anchored(spec.out, base),
            "store": _anchored(spec.store, base) if spec.store else None,
        }
    )
    queries = tuple(question.query() for question in spec.queries)
    if len({query.content_key() for query in queries}) < len(queries):
        raise JobError("a question is asked twice", fix="leave one of them out")
    return Job(spec=spec, area=resolved, queries=queries)


def read_job(path: str | Path, *, overrides: Mapping[str, Any] | None = None) -> Job:
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
    anchored = parse_job(values, base=here)
    if not overrides:
        return anchored
    return parse_job({**anchored.to_dict(), **overrides})
