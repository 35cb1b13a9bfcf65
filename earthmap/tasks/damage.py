"""Damage to buildings: the grades, what they are called in Copernicus EMS and in xBD, and the words that ask for them.

What a model is asked to choose from is the joint damage scale of xBD (Gupta et al. 2019, arXiv 1911.09296, table 2),
which it is taught. What is mapped are the classes of Copernicus EMS (Rapid Mapping's grading products; for buildings
those of the IWG-SEM guidelines of 2018: destroyed, damaged, possibly damaged, no visible damage). One table joins them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earthmap.tasks.serialization import Instance, serialize

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """One grade of damage in each scale."""

    word: str
    """What the model is given to choose."""
    xbd: str
    """xBD's `subtype`."""
    ems: str
    """Copernicus EMS's class."""


SCALE = (
    Grade(word="intact", xbd="no-damage", ems="no visible damage"),
    # Missing roof pieces and cracks are at the limit of what an image from above shows, and EMS calls damage that is
    # likely but not plain "possibly damaged".
    Grade(word="minor damage", xbd="minor-damage", ems="possibly damaged"),
    Grade(word="major damage", xbd="major-damage", ems="damaged"),
    Grade(word="destroyed", xbd="destroyed", ems="destroyed"),
)
"""From the least to the worst. The only place where the scales are joined."""

GRADES = tuple(grade.word for grade in SCALE)
"""What the model chooses from, by number."""

NOT_ANALYSED = "not analysed"
"""EMS's word for a building that nothing can be said of."""

EMS_GRADES = (*(grade.ems for grade in reversed(SCALE)), NOT_ANALYSED)
"""Classes of Copernicus EMS, the worst first."""

DAMAGED_BUILDING = "damaged building"
"""What a question about footprints looks for."""

FOOTPRINT_KINDS = ("box", "point")
"""Shapes that name the building of a footprint: the box around an outline, and a point."""

_DAMAGE_WORDS = re.compile(r"\b(damag\w*|destr(oy|uct)\w*|collaps\w*|ruin(s|ed)?|rubble|wreck(ed|age)?)\b")


def grade_of(word: str) -> Grade:
    """The grade that a model's word is. Raises KeyError for another word."""
    return {grade.word: grade for grade in SCALE}[word]


def speaks_of_damage(text: str) -> bool:
    """Whether a question asks about damage, which with footprints asks for the grade of each.

    Example:
        >>> speaks_of_damage("Which buildings are damaged?"), speaks_of_damage("Where is water?")
        (True, False)
    """
    return _DAMAGE_WORDS.search(text.lower()) is not None


def damage_question(phrase: str) -> str:
    """The question for the grade of the one building that a phrase names.

    Example:
        >>> damage_question("the largest building")
        'How badly was the largest building damaged between the dates?'
    """
    return f"How badly was {phrase} damaged between the dates?"


def footprint_phrase(geometry: BaseGeometry, kind: str) -> str:
    """The words for the building at a place of the picture: a shape of FOOTPRINT_KINDS in tile coordinates, as SLIS.

    Example:
        >>> import shapely
        >>> footprint_phrase(shapely.box(0.1, 0.2, 0.3, 0.4), "box")
        'the building at box[100,200,300,400]'
    """
    return f"the building at {serialize([Instance(kind=kind, geometry=geometry)])}"
