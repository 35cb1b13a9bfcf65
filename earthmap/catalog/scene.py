"""A scene: one STAC item reduced to what is needed to read it, and an observation: the scenes of one pass.

Everything that depends on a provider's dialect is decided when an item becomes a scene; nothing below this module
knows STAC. Records are small and picklable, and their hrefs are unsigned.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from earthmap.content import content_key
from earthmap.sensors.calibration import Calibration
from earthmap.sensors.registry import SENSORS

SATURATED_SIGMA0 = 1e4
"""40 dB: the order of what Sentinel-1's largest amplitude stands for, with calibration constants of 300 to 700."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RadarAnnotation:
    """The documents that turn a radar image's stored amplitude into backscatter, as unsigned hrefs."""

    calibration: str
    """Sentinel-1's calibration data set of this polarization."""
    noise: str | None = None
    """Its noise data set; None where noise is not removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandSource:
    """One band of one asset, and how its numbers become physical values."""

    band: str
    """Canonical band name (`earthmap.sensors.bands`), or the kind of a quality layer."""
    href: str
    """Absolute path or address of the file, unsigned."""
    index: int = 1
    """1-based band in the file."""
    calibration: Calibration
    """From stored numbers to physical values."""
    coarse: bool = False
    """Overviews will do even where their numbers are no mean of the ground (classes, decibels): for a share or a
    quick look, never for a map."""
    annotation: RadarAnnotation | None = None
    """What calibrates radar amplitude line by line, in place of `calibration`."""

    @property
    def ceiling(self) -> float:
        """What a saturated pixel is given: at least so much was there."""
        return self.calibration.ceiling if self.annotation is None else SATURATED_SIGMA0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One STAC item, read for one sensor."""

    id: str
    collection: str
    sensor: str
    """Id of the row in `earthmap.sensors.registry`."""
    datetime: datetime.datetime
    """When the scene was measured (UTC); the middle of an interval."""
    footprint: bytes
    """WKB of the footprint in EPSG:4326, x = longitude, split at the antimeridian."""
    resolution_m: float
    """Ground distance of the finest band, in metres."""
    sources: tuple[BandSource, ...]
    """Its data bands, in the order of the sensor's row."""
    mask_sources: tuple[BandSource, ...] = ()
    """Its quality layers (`earthmap.sensors.quality`), what its reason mask is made from."""
    convention: str = ""
    """Which convention its numbers follow where the sensor's row leaves it open (`sigma0`, `16 bits`). Scenes of
    different conventions are never mixed in one observation or one pair."""
    off_nadir_deg: float | None = None
    """How far from straight down the sensor looked, in degrees."""
    sun_elevation_deg: float | None = None
    """Of the sun above the horizon, in degrees."""
    sun_azimuth_deg: float | None = None
    """Of the sun from north over east, in degrees."""
    cloud_cover: float | None = None
    """Cloud over the whole scene in percent, where the item says so."""
    platform: str | None = None
    pass_id: str | None = None
    """What scenes of one pass share: datatake, strip, else platform and orbit; None where unknown."""
    vintage: str | None = None
    """Which mosaic of many days it belongs to (state and year of NAIP): all of it is one observation."""
    tile: str | None = None
    """Which tile of its archive's grid it was cut to; None where unknown."""
    orbit_direction: str | None = None
    """`ascending` or `descending`."""
    relative_orbit: int | None = None
    """The orbit within its cycle; the path of Landsat."""
    baseline: str | None = None
    """Processing baseline, `05.11`: of two versions of a scene the higher is the newer."""
    created: str | None = None
    """When this version was made (for duplicates of reprocessing), as the item writes it."""
    world: str | None = None
    """Canonical JSON of the drawn world behind a drawn scene, which the oracle reads; None for real scenes."""
    notes: tuple[str, ...] = ()
    """What its reader should know, such as `uncalibrated`."""

    def content_key(self) -> str:
        """The key of what a reader would read: bands, files and calibration."""
        return content_key(self.id, self.collection, self.sensor, self.datetime, self.sources, self.mask_sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The scenes of one pass, mosaicked: time axes are made of these."""

    id: str
    """`<sensor>_<YYYYmmddTHHMMSS>_<first 8 digits of the pass's key>`; sorts by time within a sensor."""
    sensor: str
    end: datetime.datetime | None = None
    """Time of a composite's last member; None where `datetime` says it all."""
    datetime: datetime.datetime
    """Time of its first scene (UTC)."""
    scenes: tuple[Scene, ...] = field(repr=False)
    """In order of precedence: where two cover a pixel, the first valid one is taken."""
    copies: tuple[Scene, ...] = field(default=(), repr=False)
    """Older versions of its scenes, the newest first: read only where a scene is damaged or gone, and in no key."""
    members: tuple[Observation, ...] = field(default=(), repr=False)
    """The observations that a median composite is made of, in order of time; `scenes` are all of theirs."""

    @property
    def convention(self) -> tuple[str, str]:
        """Sensor, and convention where its row leaves that open: only observations that share both are compared."""
        return self.sensor, self.scenes[0].convention

    @property
    def viewpoint(self) -> tuple[object, ...]:
        """Where a radar looked from, and in which polarizations: only observations that share it, and `convention`, are
        compared, for slopes and walls echo otherwise from elsewhere. The same for all that is no radar."""
        sensor = SENSORS.get(self.sensor)
        if sensor is None or not sensor.is_sar:
            return ()
        orbits = {(scene.orbit_direction, scene.relative_orbit) for scene in self.scenes}
        bands = {source.band for scene in self.scenes for source in scene.sources}
        return tuple(sorted(map(str, orbits))), tuple(sorted(bands))

    def content_key(self) -> str:
        """The key of its scenes in their order, or of the members of a composite."""
        if self.members:
            return content_key("median", [member.content_key() for member in self.members])
        return content_key([scene.content_key() for scene in self.scenes])


def scene_hrefs(scene: Scene) -> list[str]:
    """Every address that reading the scene may open."""
    sources = (*scene.mask_sources, *scene.sources)
    documents = [(source.annotation.calibration, source.annotation.noise) for source in sources if source.annotation]
    return [source.href for source in sources] + [href for pair in documents for href in pair if href]


def scene_to_dict(scene: Scene) -> dict[str, Any]:
    """`scene` as JSON-ready values; `scene_from_dict` reads it back equal."""
    plain = dataclasses.asdict(scene)
    plain["datetime"] = scene.datetime.isoformat()
    plain["footprint"] = scene.footprint.hex()
    return plain


def _source(plain: Mapping[str, Any]) -> BandSource:
    stated = plain["calibration"]
    planck = tuple(stated["planck"]) if stated["planck"] else None
    annotation = RadarAnnotation(**plain["annotation"]) if plain["annotation"] else None
    return BandSource(**{**plain, "calibration": Calibration(**{**stated, "planck": planck}), "annotation": annotation})


def scene_from_dict(plain: Mapping[str, Any]) -> Scene:
    """The inverse of `scene_to_dict`."""
    return Scene(
        **{
            **plain,
            "datetime": datetime.datetime.fromisoformat(plain["datetime"]),
            "footprint": bytes.fromhex(plain["footprint"]),
            "sources": tuple(_source(source) for source in plain["sources"]),
            "mask_sources": tuple(_source(source) for source in plain["mask_sources"]),
            "notes": tuple(plain["notes"]),
        }
    )
