"""Labels of any form are the same features in degrees."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pandas as pd
import pytest
import shapely

from earthmap.client.labels import features_in
from earthmap.errors import JobError


@pytest.fixture(scope="module")
def frame() -> geopandas.GeoDataFrame:
    field = shapely.box(500_000, 5_000_000, 500_200, 5_000_100)
    values = {"class": ["vineyard"], "seen": [pd.Timestamp("2024-06-01")], "note": [None]}
    return geopandas.GeoDataFrame(values, geometry=[field], crs="EPSG:32631")


def test_files_and_frames_in_any_crs_are_features_in_degrees(frame: geopandas.GeoDataFrame, tmp_path: Path) -> None:
    frame.to_file(tmp_path / "labels.gpkg")
    for labels in (frame, tmp_path / "labels.gpkg", str(tmp_path / "labels.gpkg")):
        told = features_in(labels)
        assert set(told) == {"type", "features"}
        (feature,) = told["features"]
        assert feature["properties"]["class"] == "vineyard"
        assert str(feature["properties"]["seen"]).startswith("2024-06-01")
        west, south, east, north = shapely.geometry.shape(feature["geometry"]).bounds
        assert 2.99 < west < east < 3.01
        assert 45.1 < south < north < 45.2
    assert features_in(told) == told


def test_labels_of_no_place_are_refused(frame: geopandas.GeoDataFrame, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no CRS"):
        features_in(geopandas.GeoDataFrame(frame).set_crs(None, allow_override=True))
    (tmp_path / "labels.gpkg").write_text("no package")
    with pytest.raises(JobError, match="cannot be read"):
        features_in(tmp_path / "labels.gpkg")
    with pytest.raises(JobError, match="cannot be read"):
        features_in(tmp_path / "missing.geojson")
    pd.DataFrame({"class": ["vineyard"]}).to_csv(tmp_path / "labels.csv")
    with pytest.raises(JobError, match="no geometries"):
        features_in(tmp_path / "labels.csv")
