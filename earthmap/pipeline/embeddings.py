"""The vectors of a finished run: which there are, of which tiles, and a piece at a time.

Vectors of one sensor and predictor can be compared; of each tile the latest is taken, or that of one observation.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.errors import JobError, RunFolderError, StorageError
from earthmap.grid import Grid, Tile
from earthmap.pipeline.folder import FEATURES_PATH, RUN_PATH, Run, open_run
from earthmap.pipeline.follow_up import ASKED_PATH
from earthmap.tasks import TASKS

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BATCH_ROWS = 10_000
"""Vectors that are in memory at once where not all are needed."""

_ABOUT = ("tile_ids", "observation", "datetime_min", "datetime_max", "query_key", "sensor", "area_m2", "scenes")


@dataclass(frozen=True)
class Vectors:
    """The comparable vectors of a run, one for each tile that has any."""

    run: Run
    """The run whose features hold them."""
    query_key: str
    sensor: str
    observation: str | None
    """As the summary names it; None for each tile's latest."""
    tiles: pandas.DataFrame = field(repr=False, compare=False)
    """One row for each, in the order of `tile_id`: `row` (in the features), `observation`, `datetime_min`,
    `datetime_max`, `area_m2`, `scenes`."""

    @property
    def grid(self) -> Grid:
        """The lattice that all of a run's tiles are of."""
        return Tile.parse(str(self.tiles["tile_id"].iloc[0])).grid

    @property
    def title(self) -> str:
        """What they are of, for people."""
        return f"{self.sensor}, {self.observation or 'the latest of each tile'}"

    def batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Positions in `tiles` and their vectors, (n,) and (n, D), each tile once, in the order of the file.

        Raises:
            StorageError: where vectors have different lengths.
        """
        import pyarrow.parquet as pq

        place = np.full(int(self.tiles["row"].max()) + 1, -1, np.int64)
        place[self.tiles["row"].to_numpy()] = np.arange(len(self.tiles))
        first = 0
        with pq.ParquetFile(_file(self.run)) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["embedding"]):
                own = place[first : first + len(batch)]
                mine = np.flatnonzero(own >= 0)
                first += len(batch)
                if len(mine):
                    yield own[mine], _matrix(batch.column(0).take(mine), self.run)

    def all(self) -> NDArray[np.float32]:
        """(n, D) in the order of `tiles`: four bytes a number, 100 MB for 100,000 tiles of 256."""
        parts = list(self.batches())
        places = np.concatenate([place for place, _ in parts])
        found = np.concatenate([vectors for _, vectors in parts])
        return found[np.argsort(places)]

    def frame(self, positions: NDArray[np.int64]) -> Any:
        """The tiles at `positions` as a GeoDataFrame in EPSG:4326, their squares as the run has them."""
        import geopandas
        import pyarrow.parquet as pq

        rows = self.tiles.iloc[positions]
        wanted, first = np.sort(rows["row"].to_numpy()), 0
        shapes: dict[int, bytes] = {}
        with pq.ParquetFile(_file(self.run)) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["geometry"]):
                here = wanted[(wanted >= first) & (wanted < first + len(batch))]
                shapes.update(zip(here.tolist(), batch.column(0).take(here - first).to_pylist(), strict=True))
                first += len(batch)
        geometry = geopandas.GeoSeries.from_wkb([shapes[row] for row in rows["row"].tolist()], crs="EPSG:4326")
        return geopandas.GeoDataFrame(rows.drop(columns=["row"]).reset_index(drop=True), geometry=geometry)


def _file(run: Run) -> Any:
    """The features as what pyarrow opens: a local file is read a piece at a time."""
    if run.storage.is_local:
        return str(Path(run.storage.address, FEATURES_PATH))
    return io.BytesIO(run.storage.read(FEATURES_PATH))


def _matrix(column: Any, run: Run) -> NDArray[np.float32]:
    """(n, D) of a column of lists."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if not len(flat) or len(flat) % len(column) or column.null_count:
        raise StorageError(f"the vectors in {run.address} have different lengths", fix="run the same job again")
    vectors: NDArray[np.float32] = flat.reshape(len(column), -1)
    return vectors


def find_vectors(run: Run, *, sensor: str | None = None, observation: str | None = None) -> Vectors:
    """The vectors of a run, or of what was asked of its ground later.

    Args:
        run: a finished run.
        sensor: id of the sensor; needed where there are vectors of several.
        observation: as the summary names it; None for the latest of each tile.

    Raises:
        JobError: where there are none, none of that sensor or observation, or several that cannot be compared.
    """
    holder = _holder(run)
    key, seen = _asked(holder)[0]
    names = sorted({entry["sensor"] for entry in seen})
    if sensor is None and len(names) > 1:
        raise JobError(
            f"{holder.address} has vectors of {' and '.join(names)}, which mean different things and are not compared",
            expected="one sensor",
            fix=f"say --sensor {names[0]}",
        )
    if sensor is not None and sensor not in names:
        raise JobError(f"there are no vectors of {sensor!r}", expected=f"one of {', '.join(names)}")
    own = sensor or names[0]
    known = [entry["observation"] for entry in seen if entry["sensor"] == own]
    if observation is not None and observation not in known:
        raise JobError(f"there are no vectors of {observation!r}", expected=f"one of {', '.join(known)}")
    one = observation if observation != f"{own}_mosaic" else None
    tiles = _tiles(holder, key, own, one)
    if not len(tiles):  # a mosaic's single observations are no entries of the summary
        raise JobError(f"no tile has a vector of {own}", expected="one at least")
    return Vectors(run=holder, query_key=key, sensor=own, observation=one, tiles=tiles)


def _asked(run: Run) -> list[tuple[str, list[dict[str, Any]]]]:
    """Keys of the questions for vectors, with what the summary says of where they were answered."""
    found = []
    for query in run.summary["queries"]:
        if query["task"] in TASKS and TASKS[query["task"]].is_vector:
            seen = [entry for entry in query["observations"] if entry["sensor"] and entry["answered"]]
            if seen:
                found.append((str(query["query_key"]), seen))
    return found


def _holder(run: Run) -> Run:
    """The run itself where it has vectors, else the one that was asked for them later. Raises JobError."""
    if _asked(run):
        return run
    names = run.storage.list(ASKED_PATH)
    finished = sorted({name.rpartition("/")[0] for name in names if name.count("/") == 2 and name.endswith(RUN_PATH)})
    later = []
    for name in finished:
        try:
            other = open_run(run.storage.locate(name))
        except RunFolderError:
            continue
        if _asked(other):
            later.append(other)
    if len(later) > 1:
        raise JobError(
            f"{run.address} was asked for vectors {len(later)} times",
            expected="one of these folders",
            fix=f"name one: {', '.join(other.address for other in later)}",
        )
    if later:
        return later[0]
    asked = any(query.task in TASKS and TASKS[query.task].is_vector for query in run.job.queries)
    raise JobError(
        f"no tile of {run.address} has a vector" + (": none of them was seen" if asked else ""),
        expected="a run with answers of task embed",
        fix=None if asked else f"earthmap ask {run.address} --task embed, which reads nothing again",
    )


def _tiles(run: Run, key: str, sensor: str, observation: str | None) -> pandas.DataFrame:
    """`Vectors.tiles`: of each tile's rows the latest."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(_file(run)) as file:
        frame = file.read(columns=list(_ABOUT)).to_pandas()
    frame["row"] = np.arange(len(frame))
    mine = (frame["query_key"] == key) & (frame["sensor"] == sensor)
    if observation is not None:
        mine &= frame["observation"] == observation
    frame = frame[mine]
    frame.insert(0, "tile_id", [str(ids[0]) for ids in frame["tile_ids"]])
    frame = frame.sort_values(["tile_id", "datetime_max", "observation"]).drop_duplicates("tile_id", keep="last")
    tiles: pandas.DataFrame = frame.drop(columns=["tile_ids", "query_key", "sensor"]).reset_index(drop=True)
    return tiles


def vector_at(vectors: Vectors, position: int) -> Floats:
    """(D,) the vector of one tile, of length 1."""
    for places, batch in vectors.batches():
        own = np.flatnonzero(places == position)
        if len(own):
            found: Floats = unit(batch[own])[0]
            return found
    raise StorageError(f"{vectors.run.address} lost a vector while it was read", fix="run the same job again")


def unit(vectors: NDArray[Any]) -> Floats:
    """(n, D) float64 of length 1."""
    wide: Floats = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide
