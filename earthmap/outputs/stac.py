"""The run as a STAC item, so that catalogues and GIS programs find its files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from earthmap.errors import BadRequestError
from earthmap.outputs.numbers import read_numbers

STAC_VERSION = "1.1.0"


def result_item(
    run_id: str,
    *,
    area_geometry: Mapping[str, Any],
    bbox: Sequence[float],
    datetimes: Sequence[dt.datetime],
    summary: Mapping[str, Any],
    assets: Mapping[str, tuple[str, str, Sequence[str], str]],
    scenes: Sequence[str],
    version: str,
    created: dt.datetime | None = None,
) -> dict[str, Any]:
    """A STAC 1.1 item of one run; equal arguments give an equal item.

    Args:
        run_id: Id of the item.
        area_geometry: GeoJSON geometry of the area, split at the antimeridian.
        bbox: West, south, east, north in degrees; the area's own is taken where it crosses the antimeridian.
        datetimes: Times of the observations that were looked at (UTC), in any order; empty where there were none.
        summary: What `summary.json` holds.
        assets: For each key the href relative to the item, media type, roles and title.
        scenes: Ids of the scenes that were read. Their items' addresses are not known here, so that they are a
            property and no `derived_from` links; an id that is an http(s) address is linked.
        version: Of earthmap.
        created: When the item was made; left out where None. With no datetime at all it stands for one.

    Raises:
        BadRequestError: for an item without any time, which STAC does not allow.
    """
    links = [
        {"rel": "derived_from", "href": scene, "type": "application/geo+json"}
        for scene in sorted(set(scenes))
        if scene.startswith(("http://", "https://"))
    ]
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": run_id,
        "geometry": _plain(area_geometry),
        "bbox": _bbox(area_geometry, bbox),
        "properties": {
            **_times(datetimes, created),
            **_properties(summary, scenes=sorted(set(scenes)), version=version),
        },
        "links": links,
        "assets": {
            key: {"href": href, "type": media_type, "title": title, "roles": list(roles)}
            for key, (href, media_type, roles, title) in sorted(assets.items())
        },
    }


def _plain(geometry: Mapping[str, Any]) -> dict[str, Any]:
    def listed(value: Any) -> Any:
        return [listed(item) for item in value] if isinstance(value, (list, tuple)) else value

    return {"type": geometry["type"], "coordinates": listed(geometry["coordinates"])}


def _iso(time: dt.datetime) -> str:
    if time.tzinfo is None:
        raise BadRequestError(f"the time {time} has no zone", expected="an aware datetime")
    text = time.astimezone(dt.UTC).isoformat(timespec="microseconds" if time.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def _times(datetimes: Sequence[dt.datetime], created: dt.datetime | None) -> dict[str, str | None]:
    made = {} if created is None else {"created": _iso(created)}
    if not datetimes and created is None:
        raise BadRequestError("the item has no time", expected="the time of an observation, or when it was made")
    start, end = (min(datetimes), max(datetimes)) if datetimes else (created, created)
    if start is None or end is None or start == end:
        return {"datetime": _iso(start) if start else None, **made}
    return {"datetime": None, "start_datetime": _iso(start), "end_datetime": _iso(end), **made}


def _bbox(geometry: Mapping[str, Any], bbox: Sequence[float]) -> list[float]:
    """West, south, east, north; west > east across the antimeridian (RFC 7946, section 5.2)."""
    west, south, east, north = (float(edge) for edge in bbox)
    if east > 180.0:  # continuous longitudes
        return [west, south, east - 360.0, north]
    if east - west <= 180.0:
        return [west, south, east, north]
    parts = _outlines(geometry)
    touches = any(max(xs) >= 180.0 for xs in parts) and any(min(xs) <= -180.0 for xs in parts)
    if not touches:
        return [west, south, east, north]
    eastern = [min(xs) for xs in parts if min(xs) > 0.0]
    western = [max(xs) for xs in parts if max(xs) < 0.0]
    crosses = len(eastern) + len(western) == len(parts) and eastern and western
    return [min(eastern), south, max(western), north] if crosses else [west, south, east, north]


def _outlines(geometry: Mapping[str, Any]) -> list[list[float]]:
    """Longitudes of the outer ring of each polygon."""
    coordinates = geometry["coordinates"]
    polygons = coordinates if geometry["type"] == "MultiPolygon" else [coordinates]
    return [[position[0] for position in polygon[0]] for polygon in polygons]


def _properties(summary: Mapping[str, Any], *, scenes: list[str], version: str) -> dict[str, Any]:
    counted = {
        f"earthmap:{status}": sum((summary.get(status) or {}).values())
        if isinstance(summary.get(status), Mapping)
        else int(summary.get(status) or 0)
        for status in ("planned", "answered", "skipped", "failed")
    }
    questions = [str(query.get("text", "")) for query in summary.get("queries") or ()]
    sensors = sorted({row.sensor for row in read_numbers(summary)} - {""})
    return {
        "title": "; ".join(questions) or "earthmap result",
        "earthmap:version": version,
        "earthmap:queries": questions,
        "earthmap:sensors": sensors,
        "earthmap:scenes": scenes,
        "earthmap:area_km2": summary.get("area_km2"),
        "earthmap:seen_km2": summary.get("seen_km2"),
        **counted,
    }
