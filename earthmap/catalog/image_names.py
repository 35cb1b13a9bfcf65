"""What the name of an image file says: when it was taken, by what, which band it is, and whether it is no image at all.

Names are all that many files have. A date is taken from the file's own name, else from its folders', the nearest
first; of several in one name the first counts, which is that of acquisition in every provider's scheme below.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from earthmap.catalog.intervals import Interval, parse_datetime
from earthmap.errors import JobError

_WORD = r"(?:^|[^0-9A-Za-z])[A-Za-z]*?"
_YEAR = r"((?:19[6-9]|20\d)\d)"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_NAMES = "|".join(_MONTHS)


def _calendar(match: re.Match[str]) -> str:
    year, _, month, day, hour, minute, second = match.groups()
    return f"{year}-{month}-{day}" + (f"T{hour}:{minute}:{second}Z" if hour else "")


def _named_month(match: re.Match[str]) -> str:
    return f"{match[3]}-{_MONTHS.index(match[2].lower()) + 1:02d}-{int(match[1]):02d}"


def _short_year(match: re.Match[str]) -> str:
    month = _MONTHS.index(match[2].lower()) + 1
    time = f"T{match[4][:2]}:{match[4][2:4]}:{match[4][4:]}Z" if match[4] else ""
    return f"20{match[1]}-{month:02d}-{match[3]}{time}"


def _day_of_year(match: re.Match[str]) -> str:
    first = datetime.date(int(match[1]), 1, 1)
    day = first + datetime.timedelta(days=int(match[2]) - 1)
    return day.isoformat() if day.year == first.year and int(match[2]) else "no day"


_CLOCK = r"(?:[T_ -]?([01]\d|2[0-3])[:\-.]?([0-5]\d)[:\-.]?([0-5]\d)(?:\.\d+)?Z?)?"
_DATES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    # 20240504T105031, 2024-05-04, 2018_07_16, 20240504_105031 (Planet), 20240504
    (
        re.compile(_WORD + _YEAR + r"([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])" + _CLOCK + r"(?![0-9])", re.I),
        _calendar,
    ),
    # 16-Jul-2018, 16Jul2018
    (
        re.compile(r"(?<![0-9A-Za-z])([0-3]?\d)[-_ ]?(" + _MONTH_NAMES + r")[a-z]*[-_ ]?" + _YEAR + r"(?!\d)", re.I),
        _named_month,
    ),
    # 22AUG24105031-M2AS (Maxar, DigitalGlobe)
    (re.compile(r"(?<![0-9A-Za-z])(\d\d)(" + _MONTH_NAMES + r")([0-3]\d)(\d{6})?(?!\d)", re.I), _short_year),
    # LC80010622020305LGN00 (Landsat before collections)
    (re.compile(r"L[COTEM]\d\d{6}" + _YEAR + r"([0-3]\d\d)[A-Z]{3}\d\d"), _day_of_year),
    # A2018197 (MODIS), 2018197
    (re.compile(r"(?<![0-9A-Za-z])A?" + _YEAR + r"([0-3]\d\d)(?![0-9A-Za-z])"), _day_of_year),
)
_WHOLE = re.compile(_YEAR + r"(?:[-_](0[1-9]|1[0-2]))?")


def date_in_name(name: str) -> Interval | None:
    """When the image of this path was taken, as its name and then its folders' names say; None where they do not.

    A day is the whole day, UTC. A year, or a year and month, counts only where it is a whole name (`1985.tif`).

    Example:
        >>> str(date_in_name("set/T31TFJ_20240504T105031_B04_10m.jp2"))
        '2024-05-04T10:50:31Z/2024-05-04T10:50:31.999999Z'
    """
    folders, _, own = name.rpartition("/")
    for text in (own.rpartition(".")[0] or own, *reversed(folders.split("/"))):
        found = _date_in_word(text)
        if found is not None:
            return found
    return None


def _date_in_word(text: str) -> Interval | None:
    for pattern, read in _DATES:
        for match in pattern.finditer(text):
            interval = _interval(read(match))
            if interval is not None:
                return interval
    whole = _WHOLE.fullmatch(text)
    return _interval(text.replace("_", "-")) if whole else None


def _interval(text: str) -> Interval | None:
    try:
        return parse_datetime(text)
    except JobError:
        return None


_TIFF_TAG = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)(?:[ T](\d\d:\d\d:\d\d))?.*", re.DOTALL)


def date_in_tag(text: str) -> Interval | None:
    """The time in a TIFF's DateTime tag (`2018:07:16 06:06:23`); None where it is none.

    Example:
        >>> str(date_in_tag("2018-05-06"))
        '2018-05-06T00:00:00Z/2018-05-06T23:59:59.999999Z'
    """
    match = _TIFF_TAG.fullmatch(text.strip())
    if match is None:
        return None
    return _interval(f"{match[1]}-{match[2]}-{match[3]}" + (f"T{match[4]}Z" if match[4] else ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class NameFacts:
    """What the path of a file says of the measurement."""

    key: str
    """The path without what tells its band: what the files of one image share."""
    band: str | None = None
    """The band's name as it is written, where the file is one band of several."""
    platform: str | None = None
    """As STAC writes it: `sentinel-2a`, `landsat-8`; without a letter or number where the name has none."""
    level: str | None = None
    """`L1C`, `L2A`, `L2SP` …"""


_S2_LAYERS = "SCL|AOT|WVP|TCI|PVI"
_LANDSAT_LAYERS = (
    "SR_B\\d{1,2}|ST_B\\d{1,2}|B\\d{1,2}|QA_PIXEL|QA_RADSAT|SR_QA_AEROSOL|SR_ATMOS_OPACITY|SR_CLOUD_QA|ST_QA|ST_EMIS|"
    "ST_EMSD|ST_TRAD|ST_URAD|ST_DRAD|ST_ATRAN|ST_CDIST|BQA|SAA|SZA|VAA|VZA"
)
_COLOURS = "coastal|blue|green|red|rededge\\d{0,3}|nir0?[89]?|cirrus|swir[12]?[62]?|pan|lwir1?[12]?|thermal"
_BAND = re.compile(
    rf"^(?P<key>.*?)(?:^|[_.\- ])(?P<band>{_LANDSAT_LAYERS}|B(?:0?[1-9]|1[0-2]|8A)|{_S2_LAYERS}|VV|VH|HH|HV|{_COLOURS})"
    r"(?P<size>[_-](?:10|20|60)m)?$",
    re.IGNORECASE,
)
_INNER_CHANNEL = re.compile(
    r"^(?P<before>.*-)(?P<band>vv|vh|hh|hv)(?P<after>-\d{8}t\d{6}-.*?)(?:-\d{3}(?:-cog)?)?$", re.I
)
_COMPACT = re.compile(r"^T\d\d[A-Z]{3}_\d{8}T\d{6}_(?:B\d[\dA]|TCI|SCL|AOT|WVP)(_(?:10|20|60)m)?$")
_SENTINEL = re.compile(r"(?:^|[^0-9A-Za-z])S(?:ENTINEL[-_ ]?)?([12])([A-D])?(?=[^0-9A-Za-z]|$|HAND)", re.IGNORECASE)
_LANDSAT = re.compile(
    r"(?:^|[^0-9A-Za-z])(?:L[COTEM]0?([4-9])(?=_L\d|\d{13})|LANDSAT[-_ ]?([4-9])(?!\d))", re.IGNORECASE
)
_S2_LEVEL = re.compile(r"(?:MSI|(?:^|[^0-9A-Za-z]))L(1C|2A)(?![0-9A-Za-z])", re.IGNORECASE)
_LANDSAT_LEVEL = re.compile(r"_(L[12](?:SP|SR|TP|GT|GS))_", re.IGNORECASE)


def read_name(name: str) -> NameFacts:
    """What the path `name` (with slashes) says.

    Example:
        >>> read_name("x/S2A_MSIL2A_20240504T105031_N0510_R051_T31TFJ_20240504T141503_B04.tif").band
        'B04'
    """
    folder, _, own = name.rpartition("/")
    stem = own.rpartition(".")[0] or own
    inner = _INNER_CHANNEL.match(stem)
    if inner:
        key, band = inner["before"] + inner["after"], inner["band"].upper()
    else:
        match = _BAND.match(stem)
        key, band = (match["key"], match["band"]) if match else (stem, None)
    return NameFacts(
        key=f"{folder}/{key}",
        band=band,
        platform=next(filter(None, map(_platform, _words(name))), None)
        or ("sentinel-2" if _COMPACT.match(stem) else None),
        level=next(filter(None, map(_level, _words(name))), None) or _compact_level(stem),
    )


def _words(name: str) -> Iterator[str]:
    """The file's own name, then its folders', the nearest first."""
    return reversed(name.split("/"))


def _platform(text: str) -> str | None:
    landsat = _LANDSAT.search(text)
    if landsat:
        return f"landsat-{landsat[1] or landsat[2]}"
    sentinel = _SENTINEL.search(text)
    return f"sentinel-{sentinel[1]}{(sentinel[2] or '').lower()}" if sentinel else None


def _level(text: str) -> str | None:
    found = _S2_LEVEL.search(text) or _LANDSAT_LEVEL.search(text)
    return f"L{found[1]}".upper().replace("LL", "L") if found else None


def _compact_level(stem: str) -> str | None:
    """The bands of an L2A product end in their ground distance, those of an L1C product do not (compact naming)."""
    match = _COMPACT.match(stem)
    return None if match is None else "L2A" if match[1] else "L1C"


_NO_IMAGE = (
    (
        re.compile(r"(?:^|[^a-z])(?:thumb\w*|preview\w*|browse|quick-?look\w*|overview|pvi|legend|ql)(?:[^a-z]|$)"),
        "a preview",
    ),
    (
        re.compile(r"(?:^|[^a-z])(?:masks?|udm2?|labels?|labelhand|qi_data|target|groundtruth)(?:[^a-z]|$)"),
        "a mask or label",
    ),
)


def no_image(name: str) -> str | None:
    """`a preview` or `a mask or label` where the path says that a file is no image; None where it may be one."""
    low = name.lower()
    return next((why for pattern, why in _NO_IMAGE if pattern.search(low)), None)
