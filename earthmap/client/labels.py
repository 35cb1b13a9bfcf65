"""What people labelled, as GeoJSON by value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from earthmap.errors import JobError

if TYPE_CHECKING:
    import geopandas

Labels: TypeAlias = "geopandas.GeoDataFrame | str | Path | Mapping[str, Any]"
"""A GeoDataFrame, the path of a file that GDAL reads, or a GeoJSON FeatureCollection in degrees."""


def features_in(labels: Labels) -> dict[str, Any]:
    """The labels as a GeoJSON FeatureCollection in degrees (RFC 7946), with all their columns.

    Raises:
        JobError: for a file that cannot be read, and labels of which nobody knows where they are.
    """
    if isinstance(labels, Mapping):
        return dict(labels)
    frame = _read(Path(labels)) if isinstance(labels, (str, Path)) else labels
    if frame.crs is None:
        raise JobError("the labels do not say where they are: they have no CRS", fix="say it by labels.set_crs(…)")
    told: dict[str, Any] = json.loads(frame.to_crs("EPSG:4326").to_json(drop_id=True, default=str))
    return {"type": "FeatureCollection", "features": told["features"]}


def _read(path: Path) -> geopandas.GeoDataFrame:
    import geopandas

    try:
        frame = geopandas.read_file(path)
    except (OSError, ValueError, RuntimeError) as error:  # GDAL's are of the last kind
        raise JobError(f"the labels in {path} cannot be read: {str(error)[:200]}") from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise JobError(f"{path} has no geometries", expected="labels with their places")
    return frame
