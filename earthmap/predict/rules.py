"""The spectral predictor's rules as a table: which published index, above or below which value, means which target.

A threshold that was set on a labelled scene is no evidence of accuracy on that scene; docs/decisions/
0002-uncalibrated-ratios.md has what was measured, and where a rule was never checked on real ground.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

REFLECTANCE, UNCALIBRATED, SAR, UNCALIBRATED_SAR = "reflectance", "uncalibrated", "sar", "uncalibrated sar"
"""What a picture's numbers are: reflectance as a share of one, numbers without a stated scale, linear SAR power, and
the squares of radar amplitudes without calibration, for which no threshold holds."""

BAND_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "B": ("blue",),
        "G": ("green",),
        "R": ("red",),
        "N": ("nir", "nir08"),
        "S1": ("swir16",),
        "S2": ("swir22",),
        "VV": ("vv",),
        "VH": ("vh",),
    }
)
"""spyndex's symbol of a band: the canonical names that may stand for it, the first that a picture has is taken."""

SYMBOLS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "MNDWI": ("G", "S1"),
        "NDWI": ("G", "N"),
        "NDVI": ("N", "R"),
        "NDSI": ("G", "S1"),
        "BI": ("S1", "R", "N", "B"),
        "PISI": ("B", "N"),
        "NBR": ("N", "S2"),
        "BAI": ("R", "N"),
        "GLI": ("G", "R", "B"),
        "NGRDI": ("G", "R"),
    }
    | {symbol: (symbol,) for symbol in BAND_NAMES}
)
"""The bands of each index (as spyndex lists them, which a test checks), and of a band by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One index or band, compared with one value."""

    index: str
    """Name of an index in spyndex, or symbol of a band (SAR bands in decibels)."""
    above: bool
    """True where the index must be larger than the threshold, False where smaller."""
    threshold: float

    @property
    def text(self) -> str:
        """`MNDWI > 0.1`."""
        return f"{self.index} {'>' if self.above else '<'} {self.threshold:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What makes a pixel a target."""

    target: str
    kind: str
    """REFLECTANCE, UNCALIBRATED or SAR."""
    conditions: tuple[Condition, ...]
    """All must hold; for SAR, where speckle hides water from one polarization, any."""
    mean_px: int = 1
    """Side of the square over which the bands are averaged first, in pixels; 1 for none."""
    source: str
    """Where indices and thresholds come from; `ours` where nobody published them."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The bands that it needs, sorted."""
        return tuple(sorted({symbol for condition in self.conditions for symbol in SYMBOLS[condition.index]}))

    @property
    def text(self) -> str:
        """`water: MNDWI > 0.1 and NDVI < 0.2`."""
        joined = (" or " if self.kind == SAR else " and ").join(condition.text for condition in self.conditions)
        return f"{self.target}: {joined}" + (f" after a {self.mean_px} x {self.mean_px} mean" * (self.mean_px > 1))


def _rule(target: str, kind: str, conditions: str, source: str, mean_px: int = 1) -> Rule:
    parsed = []
    for text in conditions.split(","):
        index, sign, threshold = text.split()
        parsed.append(Condition(index=index, above=sign == ">", threshold=float(threshold)))
    return Rule(target=target, kind=kind, conditions=tuple(parsed), source=source, mean_px=mean_px)


PRECEDENCE = ("snow", "water", "vegetation", "burnt", "built-up", "bare")
"""A pixel that fits several targets is the first of these. Snow comes first because its brightness is what tells it
from water, whose index is the same; built-up before bare because bare ground is what is left without plants."""

RULES: tuple[Rule, ...] = (
    _rule("snow", REFLECTANCE, "NDSI > 0.4,R > 0.2,N > 0.25",
          "NDSI and red: Gascoin et al. 2019, doi:10.5194/essd-11-493-2019; near infrared, against water: Hall et al."
          " 1995, doi:10.1016/0034-4257(95)00137-P, with 0.11; 0.25 ours, against bright turbid water"),
    _rule("water", REFLECTANCE, "MNDWI > 0.1,NDVI < 0.2",
          "MNDWI: Xu 2006, doi:10.1080/01431160600589179; 0.1 ours; NDVI of soil at most 0.2: Sobrino et al. 2004,"
          " doi:10.1016/j.rse.2004.02.003"),
    _rule("water", REFLECTANCE, "NDWI > -0.1,NDVI < 0.2",
          "NDWI: McFeeters 1996, doi:10.1080/01431169608948714, with 0; -0.1 ours, for turbid water; NDVI as above"),
    _rule("vegetation", REFLECTANCE, "NDVI > 0.3",
          "between bare soil (0.2) and full cover (0.5) of Sobrino et al. 2004, doi:10.1016/j.rse.2004.02.003"),
    _rule("burnt", REFLECTANCE, "NBR < -0.1,BAI > 150",
          "NBR: Key and Benson 2006, RMRS-GTR-164; BAI: Chuvieco et al. 2002, doi:10.1080/01431160210153129; both"
          " thresholds ours, on drawn spectra only"),
    _rule("built-up", REFLECTANCE, "PISI > 0.03,NDVI < 0.2",
          "PISI: Tian et al. 2018, doi:10.3390/rs10101521; 0.03 ours, on drawn spectra, and keeps deserts out"),
    _rule("bare", REFLECTANCE, "BI > 0,NDVI < 0.3", "BI: Rikimaru et al. 2002; 0 its own zero; NDVI not vegetation"),
    _rule("water", UNCALIBRATED, "MNDWI > 0.1", "MNDWI: Xu 2006, doi:10.1080/01431160600589179; 0.1 ours", 3),
    _rule("water", UNCALIBRATED, "NDWI > 0.1", "NDWI: McFeeters 1996, doi:10.1080/01431169608948714; 0.1 ours", 3),
    _rule("vegetation", UNCALIBRATED, "NDVI > 0.2", "as with reflectance; 0.2 ours", 3),
    _rule("vegetation", UNCALIBRATED, "NGRDI > 0,GLI > 0.02",
          "NGRDI and its zero: Tucker 1979, doi:10.1016/0034-4257(79)90013-0; GLI: Louhaichi et al. 2001,"
          " doi:10.1080/10106040108542184; 0.02 ours, against a colour cast", 3),
    _rule("water", SAR, "VV < -14,VH < -21", "Twele et al. 2016, doi:10.1080/01431161.2016.1192304, threshold"
          " backscatter so; -14 and -21 dB ours", 5),
    _rule("water", SAR, "VV < -14", "as above", 5),
    _rule("water", SAR, "VH < -21", "as above", 5),
)  # fmt: skip
"""For each target and kind, in order: the first rule whose bands are at hand is taken."""


def rules_for(kind: str, bands: Collection[str]) -> dict[str, Rule]:
    """The rule of each target that pictures of `kind` with these canonical bands can answer."""
    chosen: dict[str, Rule] = {}
    for rule in RULES:
        at_hand = all(any(name in bands for name in BAND_NAMES[symbol]) for symbol in rule.symbols)
        if rule.kind == kind and at_hand:
            chosen.setdefault(rule.target, rule)
    return chosen


def why_not(target: str, kind: str, bands: Collection[str]) -> tuple[str, str]:
    """Reason (a short stable word) and message for a target that `rules_for` leaves out."""
    rules = [rule for rule in RULES if rule.target == target and rule.kind == kind]
    if rules:
        wanted = {" + ".join(" or ".join(BAND_NAMES[symbol]) for symbol in rule.symbols): None for rule in rules}
        return "missing_band", f"{target} needs {'; or '.join(wanted)}; the picture has {', '.join(sorted(bands))}"
    if kind == UNCALIBRATED_SAR:
        return "uncalibrated", (
            f"{target} is told by a threshold on backscatter, and this radar image is not calibrated; use GRD with its"
            " calibration annotation, backscatter in dB, or terrain-corrected gamma0"
        )
    if kind == UNCALIBRATED:
        return "uncalibrated", f"{target} is told by physical values, and the data state no scale; use calibrated data"
    return "not_supported", f"{target} cannot be told from SAR backscatter alone; use optical data"
