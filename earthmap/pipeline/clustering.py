"""Tiles of a finished run in groups of those that look alike: `earthmap cluster`.

Each tile is in one group by its vector, whatever zone it lies in: it is owned once. Groups have no names; each has its
most typical tile for a picture.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.errors import BadRequestError, JobError
from earthmap.grid import Tile
from earthmap.metrics.clustering import Groups, kmeans, shuffled, silhouette
from earthmap.outputs import write_geoparquet
from earthmap.outputs.cluster_map import SHOWN, ClusterLine, cluster_colours, render_clusters
from earthmap.outputs.tile_rasters import tile_cog
from earthmap.pipeline.embeddings import find_vectors
from earthmap.pipeline.folder import ITEM_PATH
from earthmap.pipeline.likeness import tile_pictures
from earthmap.storage import Storage

if TYPE_CHECKING:
    import geopandas
    import pyarrow as pa

    from earthmap.pipeline.folder import Run

CLUSTERS_PATH = "clusters"
"""Folder of a run for groups of its tiles."""

MOST_CLUSTERS = 1000
"""More than anybody could look at."""

_TILE_COLUMNS = ("tile_id", "cluster", "observation", "datetime_max", "area_m2")
_CLUSTER_COLUMNS = ("cluster", "tiles", "km2", "share", "medoid", "observation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """Groups of a run's tiles."""

    tiles: geopandas.GeoDataFrame = field(repr=False, compare=False)
    """Each tile with its square: `tile_id`, `cluster` (from 1 on, the largest first), `observation`, `datetime_max`,
    `area_m2` of its own ground in the area."""
    table: geopandas.GeoDataFrame = field(repr=False, compare=False)
    """Each cluster: `tiles`, `km2`, `share` of the ground with vectors, `medoid` (its most typical tile) with its
    square, and the medoid's `observation`."""
    title: str
    seed: int
    explained: float
    """Share of the vectors' variance between clusters."""
    explained_shuffled: float
    """The same of shuffled vectors, in which nothing belongs together."""
    silhouette: float
    """-1 to 1: how much nearer tiles lie to their own cluster than to the next; NaN where nothing can be compared."""
    silhouette_shuffled: float

    def lines(self) -> list[str]:
        """For people."""
        rows = [f"{'cluster':>7}  {'tiles':>7}  {'km²':>11}  {'share':>6}  most typical tile"]
        for row in self.table.to_dict("records"):
            rows.append(
                f"{row['cluster']:>7}  {row['tiles']:>7,}  {row['km2']:>11,.2f}  {row['share']:>6.1%}  {row['medoid']}"
            )
        return [*rows, *self.notes()]

    def notes(self) -> list[str]:
        """What the numbers are worth."""
        lines = [
            f"{self.explained:.0%} of the variance lies between clusters, {self.explained_shuffled:.0%} of shuffled "
            f"vectors' (silhouette {self.silhouette:.2f}, of shuffled ones {self.silhouette_shuffled:.2f})"
        ]
        if not self.silhouette > self.silhouette_shuffled:
            lines.append("these tiles fall into no such groups: shuffled numbers are grouped as well")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, without the tiles; null where nothing can be compared."""
        numbers = {name: getattr(self, name) for name in ("title", "seed", *_NUMBERS)}
        rows = json.loads(self.table.drop(columns="geometry").to_json(orient="records"))
        return {name: value if value == value else None for name, value in numbers.items()} | {"clusters": rows}


_NUMBERS = ("explained", "explained_shuffled", "silhouette", "silhouette_shuffled")


def cluster_run(
    run: Run, k: int, *, seed: int = 0, sensor: str | None = None, observation: str | None = None
) -> Clusters:
    """The tiles of a run in `k` groups by k-means on their vectors.

    The same vectors give the same groups, whatever the order of the rows: tiles are taken in the order of their ids.

    Args:
        run: a finished run that was asked to embed, at once or later.
        k: from 2 to MOST_CLUSTERS, and no more than there are different tiles.
        seed: of the starts of k-means, and of what is shuffled.
        sensor: whose vectors; needed where the run has several sensors'.
        observation: as the summary names it; None for the latest of each tile.

    Raises:
        JobError: where the run has no vectors, or they cannot make so many groups.
    """
    if not 2 <= k <= MOST_CLUSTERS:
        raise JobError(f"-k {k}", expected=f"2 to {MOST_CLUSTERS}")
    vectors = find_vectors(run, sensor=sensor, observation=observation)
    count = len(vectors.tiles)
    if k > count:
        raise JobError(
            f"{k} clusters of {count} tiles with vectors", expected=f"at most {count}", fix="ask for fewer, or map more"
        )
    matrix = vectors.all()
    try:
        groups = kmeans(matrix, k, seed=seed)
    except BadRequestError as error:
        raise JobError(error.what, expected=error.expected, fix=error.fix) from error
    mixed = shuffled(matrix, seed=seed)
    reference = kmeans(mixed, k, seed=seed)
    tiles = vectors.frame(np.arange(count))
    tiles.insert(1, "cluster", groups.labels + 1)
    return Clusters(
        tiles=tiles[[*_TILE_COLUMNS, "geometry"]],
        table=_table(tiles, groups),
        title=vectors.title,
        seed=seed,
        explained=round(groups.explained, 4),
        explained_shuffled=round(reference.explained, 4),
        silhouette=round(silhouette(matrix, groups.labels, seed=seed), 4),
        silhouette_shuffled=round(silhouette(mixed, reference.labels, seed=seed), 4),
    )


def _table(tiles: geopandas.GeoDataFrame, groups: Groups) -> geopandas.GeoDataFrame:
    """`Clusters.table`; the medoid is the tile nearest to the mean, of equally near ones the first by its id."""
    import geopandas

    labels, areas = groups.labels, tiles["area_m2"].to_numpy(float)
    rows = []
    for label in range(len(groups.centres)):
        own = np.flatnonzero(labels == label)
        medoid = int(own[np.argmin(np.round(groups.distances[own], 9))])
        rows.append(
            {
                "cluster": label + 1,
                "tiles": len(own),
                "km2": round(float(areas[own].sum()) / 1e6, 4),
                "share": round(float(areas[own].sum() / (areas.sum() or 1.0)), 4),
                "medoid": tiles["tile_id"].iloc[medoid],
                "observation": tiles["observation"].iloc[medoid],
                "geometry": tiles.geometry.iloc[medoid],
            }
        )
    return geopandas.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")[[*_CLUSTER_COLUMNS, "geometry"]]


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────


def write_clusters(run: Run, found: Clusters, *, out: str | None = None) -> list[str]:
    """Write what `cluster_run` found; the addresses of its files.

    One COG for each zone (`clusters_31N.tif`, a pixel for each tile), `tiles.parquet` and `clusters.parquet`
    (GeoParquet), `clusters.json`, `clusters.png` and a STAC item.

    Args:
        run: the run.
        found: its groups.
        out: a folder or s3:// address; None for one in the run's folder.

    Raises:
        StorageError: where something cannot be written.
    """
    slug = found.title.replace(", the latest of each tile", "").replace(", ", "_").replace(" ", "-")
    storage = Storage(out or f"{run.address.rstrip('/')}/{CLUSTERS_PATH}/k{len(found.table)}_{slug}")
    with tempfile.TemporaryDirectory(prefix="earthmap-") as scratch:
        names = list(_write_rasters(found, Path(scratch)))
        for name, frame, kinds in (("tiles", found.tiles, _tile_schema()), ("clusters", found.table, _table_schema())):
            write_geoparquet(Path(scratch) / f"{name}.parquet", [_arrow(frame, kinds)], kinds)
            names.append(f"{name}.parquet")
        for name in names:
            storage.write_file(name, Path(scratch) / name)
    storage.write("clusters.json", json.dumps(found.to_dict(), indent=1, ensure_ascii=False).encode())
    storage.write("clusters.png", draw_clusters(run, found))
    names += ["clusters.json", "clusters.png"]
    item = _item(run, found, names)
    if item is not None:
        storage.write(ITEM_PATH, json.dumps(item, indent=1, sort_keys=True, ensure_ascii=False).encode())
        names.append(ITEM_PATH)
    return [storage.locate(name) for name in names]


def _write_rasters(found: Clusters, folder: Path) -> Sequence[str]:
    tiles = [Tile.parse(name) for name in found.tiles["tile_id"]]
    codes = found.tiles["cluster"].to_numpy()
    legend = {code: f"cluster {code}" for code in found.table["cluster"].tolist()}
    names = []
    for zone in sorted({tile.zone for tile in tiles}):
        own = np.array([tile.zone == zone for tile in tiles])
        names.append(f"clusters_{zone.id}.tif")
        tile_cog(
            [tile for tile, mine in zip(tiles, own, strict=True) if mine],
            codes[own],
            legend=legend,
            colours=cluster_colours(len(legend)),
            path=folder / names[-1],
        )
    return names


def _tile_schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"cluster": pa.int32(), "datetime_max": pa.timestamp("us", tz="UTC"), "area_m2": pa.float64()}
    return pa.schema([("geometry", pa.binary()), *((name, kinds.get(name, pa.string())) for name in _TILE_COLUMNS)])


def _table_schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"cluster": pa.int32(), "tiles": pa.int64(), "km2": pa.float64(), "share": pa.float64()}
    return pa.schema([("geometry", pa.binary()), *((name, kinds.get(name, pa.string())) for name in _CLUSTER_COLUMNS)])


def _arrow(frame: geopandas.GeoDataFrame, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = [pa.array(frame.geometry.to_wkb(), pa.binary())]
    columns += [pa.array(frame[name], schema.field(name).type, from_pandas=True) for name in schema.names[1:]]
    return pa.Table.from_arrays(columns, schema=schema)


def draw_clusters(run: Run, found: Clusters) -> bytes:
    """The map of the clusters as PNG, with the most typical tile of each of the largest."""
    rows = found.table.head(SHOWN).to_dict("records")
    pictures = tile_pictures(run, [(row["medoid"], row["observation"]) for row in rows])
    lines = [
        ClusterLine(
            code=row["cluster"], text=f"{row['tiles']:,} tiles\n{row['km2']:,.1f} km² ({row['share']:.1%})", rgba=rgba
        )
        for row, rgba in zip(rows, pictures, strict=True)
    ]
    more = [ClusterLine(code=code, text="", rgba=pictures[0]) for code in found.table["cluster"][SHOWN:].tolist()]
    shapes = np.asarray(found.tiles.geometry.to_numpy(), object)
    title = f"{len(found.table)} kinds of tiles ({found.title})"
    return render_clusters(shapes, found.tiles["cluster"].to_numpy(), [*lines, *more], title=title, notes=found.notes())


_TYPES = {
    ".tif": ("image/tiff; application=geotiff; profile=cloud-optimized", "data"),
    ".parquet": ("application/vnd.apache.parquet", "data"),
    ".json": ("application/json", "metadata"),
    ".png": ("image/png", "thumbnail"),
}


def _item(run: Run, found: Clusters, names: Sequence[str]) -> dict[str, Any] | None:
    """The run's STAC item with these files for its assets; None where the run has none."""
    if not run.storage.exists(ITEM_PATH):
        return None
    item: dict[str, Any] = json.loads(run.storage.read(ITEM_PATH))
    assets = {}
    for name in names:
        stem, ending = Path(name).stem, Path(name).suffix
        kind, role = _TYPES[ending]
        key = stem if ending in (".tif", ".parquet") else f"{stem}_{ending[1:]}"
        assets[key] = {"href": f"./{name}", "type": kind, "roles": [role], "title": f"{name}: {found.title}"}
    return item | {"id": f"{item['id']}-clusters-{len(found.table)}", "assets": assets}
