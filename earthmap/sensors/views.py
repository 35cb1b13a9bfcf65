"""Views: three-channel uint8 pictures of physical values, by a fixed scaling for all scenes and never by a stretch.

A level of 0 to 255 stands for the same value everywhere, so pictures of two dates or places can be compared, and
`invert_view` gives the values back to half a step. Values outside a channel's range are held at its ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from earthmap.errors import SensorError
from earthmap.sensors.bands import SAR_BANDS
from earthmap.sensors.masks import Reason
from earthmap.sensors.registry import get_sensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earthmap.sensors.registry import Place, Sensor

NODATA_GREY = 128
"""Level of all three channels where there is nothing to see."""

_LEVELS = np.float32(255.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One channel of a view: which value, and the range that its 256 levels divide."""

    band: str
    """Canonical band."""
    minus: str | None = None
    """Band in dB that is subtracted in dB."""
    low: float
    """Value of level 0, in the channel's unit."""
    high: float
    """Value of level 255."""
    curve: str = "linear"
    """`linear`, or `sqrt`: levels divide the square root of the value evenly, which gives dark ground more of them."""
    unit: str = "1"
    """`1` for reflectance, `K` for temperature, `dB` for linear power shown in decibels, `DN` for stored numbers."""

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands that it is made from."""
        return (self.band,) if self.minus is None else (self.band, self.minus)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One row of `VIEWS`."""

    name: str
    channels: tuple[Channel, Channel, Channel]
    """Shown as red, green and blue."""

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands that it is made from, each once."""
        return tuple(dict.fromkeys(band for channel in self.channels for band in channel.bands))


def _reflectance(name: str, first: str, second: str, third: str) -> View:
    one, two, three = (Channel(band=band, low=0.0, high=1.0, curve="sqrt") for band in (first, second, third))
    return View(name=name, channels=(one, two, three))


def _stored(name: str, first: str, second: str, third: str) -> View:
    one, two, three = (Channel(band=band, low=0.0, high=255.0, unit="DN") for band in (first, second, third))
    return View(name=name, channels=(one, two, three))


def _deep(name: str, first: str, second: str, third: str) -> View:
    """Stored numbers of 11 bits, as very-high-resolution sensors deliver them."""
    one, two, three = (
        Channel(band=band, low=0.0, high=2047.0, curve="sqrt", unit="DN") for band in (first, second, third)
    )
    return View(name=name, channels=(one, two, three))


def _temperature(name: str, band: str) -> View:
    one = Channel(band=band, low=230.0, high=350.0, unit="K")
    return View(name=name, channels=(one, one, one))


def _co_pol(band: str) -> Channel:
    return Channel(band=band, low=-25.0, high=5.0, unit="dB")


def _cross_pol(band: str) -> Channel:
    return Channel(band=band, low=-32.0, high=-5.0, unit="dB")


def _dual_pol(co: str, cross: str) -> View:
    difference = Channel(band=co, minus=cross, low=0.0, high=20.0, unit="dB")
    return View(name=f"sar-{co}-{cross}", channels=(_co_pol(co), _cross_pol(cross), difference))


def _stored_power(band: str) -> Channel:
    """Sentinel-1's DN² lies 53 dB above its sigma0, give or take 3; other radars have other scales, hence 60 dB."""
    return Channel(band=band, low=20.0, high=80.0, unit="dB")


def _stored_pol(co: str, cross: str | None = None) -> View:
    """Radar without calibration: the square of what is stored, in decibels."""
    if cross is None:
        channel = _stored_power(co)
        return View(name=f"sar-{co}-stored", channels=(channel, channel, channel))
    difference = Channel(band=co, minus=cross, low=0.0, high=20.0, unit="dB")
    return View(name=f"sar-{co}-{cross}-stored", channels=(_stored_power(co), _stored_power(cross), difference))


def _single_pol(channel: Channel) -> View:
    return View(name=f"sar-{channel.band}", channels=(channel, channel, channel))


_ROWS = (
    _reflectance("rgb", "red", "green", "blue"),
    _reflectance("rededge", "rededge078", "rededge075", "rededge071"),
    _reflectance("swir", "swir22", "swir16", "nir08"),
    _reflectance("nir-coastal", "nir", "nir09", "coastal"),
    _reflectance("nir-red-green", "nir", "red", "green"),
    _reflectance("swir-nir-red", "swir16", "nir", "red"),
    _reflectance("nir08-red-green", "nir08", "red", "green"),
    _reflectance("swir-nir08-red", "swir16", "nir08", "red"),
    _reflectance("red", "red", "red", "red"),
    _reflectance("nir", "nir", "nir", "nir"),
    _reflectance("pan", "pan", "pan", "pan"),
    _dual_pol("vv", "vh"),
    _dual_pol("hh", "hv"),
    _single_pol(_co_pol("vv")),
    _single_pol(_co_pol("hh")),
    _single_pol(_cross_pol("vh")),
    _single_pol(_cross_pol("hv")),
    _stored_pol("vv", "vh"),
    _stored_pol("hh", "hv"),
    *(_stored_pol(band) for band in SAR_BANDS),
    _stored("rgb-8bit", "red", "green", "blue"),
    _stored("nir-red-green-8bit", "nir", "red", "green"),
    _stored("swir-nir-red-8bit", "swir16", "nir", "red"),
    _stored("red-8bit", "red", "red", "red"),
    _stored("nir-8bit", "nir", "nir", "nir"),
    _stored("pan-8bit", "pan", "pan", "pan"),
    _deep("rgb-11bit", "red", "green", "blue"),
    _deep("nir-red-green-11bit", "nir", "red", "green"),
    _deep("red-11bit", "red", "red", "red"),
    _deep("nir-11bit", "nir", "nir", "nir"),
    _deep("pan-11bit", "pan", "pan", "pan"),
    _temperature("thermal", "lwir11"),
    _temperature("thermal-lwir12", "lwir12"),
    _stored("thermal-8bit", "lwir11", "lwir11", "lwir11"),
    _stored("thermal-lwir12-8bit", "lwir12", "lwir12", "lwir12"),
)

VIEWS = {view.name: view for view in _ROWS}
"""Every view, by name."""


def get_view(name: str) -> View:
    """The row of `name`. Raises SensorError that names the rows there are."""
    if name not in VIEWS:
        raise SensorError(f"there is no view {name!r}", expected=f"one of {', '.join(VIEWS)}")
    return VIEWS[name]


def default_view(sensor: Sensor | str, bands: Sequence[str] | None = None) -> str:
    """The name of the first of a sensor's views that `bands` suffice for; the sensor's own bands where None.

    Raises:
        SensorError: where they suffice for none.
    """
    row = _row(sensor)
    have = set(row.bands if bands is None else bands)
    found = _first(row.views, have)
    if found is None:
        raise _nothing_to_show(row, row.views, have)
    return found


def sensor_views(sensor: Sensor | str, bands: Sequence[str]) -> tuple[str, ...]:
    """The names of all views that the model is given of a picture with `bands`, in the order of the sensor's places.

    A video's frames are given in the first of them.

    Raises:
        SensorError: where the bands suffice for none.

    Example:
        >>> sensor_views("sentinel-1-grd", ("hh", "hv")), sensor_views("optical-uncalibrated", ("red", "green", "blue"))
        (('sar-hh-hv',), ('rgb-8bit',))
    """
    row, have = _row(sensor), set(bands)
    given = tuple(dict.fromkeys(name for place in row.places if (name := _given(place, have)) is not None))
    if not given:
        raise _nothing_to_show(row, [name for place in row.places for name in place.views], have)
    return given


def missing_views(sensor: Sensor | str, bands: Sequence[str]) -> tuple[str, ...]:
    """The names of the sensor's views that a picture with `bands` has no form of, in the order of its places.

    Another view may stand in for one of them (`Place.instead`): it is missing all the same.

    Example:
        >>> missing_views("sentinel-2-l2a", ("red", "green", "blue", "nir"))
        ('rededge', 'swir', 'nir-coastal')
    """
    have = set(bands)
    return tuple(
        place.views[0] for place in _row(sensor).places if not place.extra and _first(place.views, have) is None
    )


def fitting(
    views_by_picture: Sequence[Sequence[str]], *, tokens_per_view: int, limit: int
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """Which views of each picture are kept within a limit of tokens, and which are dropped, both picture by picture.

    No more are dropped than must be: the last ones of the rows before those ahead of them, and among views of one rank
    those of the oldest picture first. The first view of a picture is never dropped.

    Args:
        views_by_picture: Names of each picture's views in their order, the oldest picture first.
        tokens_per_view: Tokens that one view takes with the words before it.
        limit: Tokens that there are for all of them.

    Raises:
        SensorError: where even the first views of all pictures are too many.

    Example:
        >>> fitting([("rgb", "swir"), ("rgb", "swir")], tokens_per_view=100, limit=300)
        ((('rgb',), ('rgb', 'swir')), (('swir',), ()))
    """
    sizes = [len(views) for views in views_by_picture]
    over = sum(sizes) - max(limit, 0) // max(tokens_per_view, 1)
    ranks = sorted((-rank, picture) for picture, size in enumerate(sizes) for rank in range(1, size))
    if over > len(ranks):
        raise SensorError(
            f"{len(sizes)} pictures of {tokens_per_view:,} tokens each, with one view of each",
            expected=f"at most {limit:,} tokens in all",
            fix="use fewer dates or smaller tiles",
        )
    for _, picture in ranks[: max(over, 0)]:
        sizes[picture] -= 1
    pairs = list(zip(views_by_picture, sizes, strict=True))
    return tuple(tuple(views[:size]) for views, size in pairs), tuple(tuple(views[size:]) for views, size in pairs)


def _row(sensor: Sensor | str) -> Sensor:
    return get_sensor(sensor) if isinstance(sensor, str) else sensor


def _first(names: Sequence[str], have: set[str]) -> str | None:
    """The first view that can be made."""
    return next((name for name in names if have.issuperset(VIEWS[name].bands)), None)


def _given(place: Place, have: set[str]) -> str | None:
    return _first((*place.views, *place.instead), have)


def _nothing_to_show(row: Sensor, names: Sequence[str], have: set[str]) -> SensorError:
    return SensorError(
        f"no view of {row.id} can be made from {', '.join(sorted(have)) or 'no bands'}",
        expected="the bands of one of " + "; ".join(f"{name} ({', '.join(VIEWS[name].bands)})" for name in names),
    )


def make_view(
    name: str, bands: Sequence[str], data: NDArray[np.float32], mask: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The view `name` of `data` as (y, x, 3) uint8; nodata is `NODATA_GREY` in all channels.

    Args:
        name: Row of `VIEWS`.
        bands: Canonical names along axis 0 of `data`.
        data: (band, y, x) physical values, radar in linear power, NaN where nodata.
        mask: (y, x) reason mask; only nodata changes the picture, for clouds are something to see.

    Raises:
        SensorError: for a view that is not there, or a band that it needs and `bands` lack.
    """
    view = get_view(name)
    missing = [band for band in view.bands if band not in bands]
    if missing:
        raise SensorError(
            f"the view {name} needs {', '.join(missing)}", expected=f"it among the bands {', '.join(bands)}"
        )
    planes = {band: np.asarray(data[list(bands).index(band)], np.float32) for band in view.bands}
    values = [_channel_values(channel, planes) for channel in view.channels]
    picture = np.stack([_levels(channel, value) for channel, value in zip(view.channels, values, strict=True)], axis=-1)
    hidden = np.isnan(np.stack(values)).any(axis=0)
    if mask is not None:
        hidden |= mask == Reason.NODATA
    picture[hidden] = NODATA_GREY
    return picture


def _channel_values(channel: Channel, planes: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """A channel's values in its own unit; NaN where a band is."""
    if channel.unit != "dB":
        return planes[channel.band]
    value = _decibels(planes[channel.band])
    return value if channel.minus is None else value - _decibels(planes[channel.minus])


def _decibels(power: NDArray[np.float32]) -> NDArray[np.float32]:
    # Noise removal leaves zeros and negative power: the lowest level, not a hole. Infinity less infinity would be one.
    return np.asarray(10.0 * np.log10(np.clip(power, np.float32(1e-10), np.float32(1e20))), np.float32)


def _toned(channel: Channel, value: NDArray[np.float32]) -> NDArray[np.float32]:
    """0 to 1 along the channel's levels."""
    share = (np.clip(value, channel.low, channel.high) - channel.low) / (channel.high - channel.low)
    return np.asarray(np.sqrt(share) if channel.curve == "sqrt" else share, np.float32)


def _levels(channel: Channel, value: NDArray[np.float32]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = np.rint(_toned(channel, np.nan_to_num(value, nan=channel.low)) * _LEVELS).astype(
        np.uint8
    )
    return levels


def invert_view(name: str, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The values behind a view: (3, y, x), each channel in its own unit (reflectance, dB or stored numbers).

    Within a channel's range they differ from what was shown by no more than half a level (on a square-root curve, half
    a level of the root). `NODATA_GREY` is not told apart from ground of that level: keep the mask.
    """
    view = get_view(name)
    planes = []
    for index, channel in enumerate(view.channels):
        share = picture[..., index].astype(np.float32) / _LEVELS
        share = share * share if channel.curve == "sqrt" else share
        planes.append(share * np.float32(channel.high - channel.low) + np.float32(channel.low))
    return np.stack(planes)
