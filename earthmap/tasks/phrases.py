"""What a question about anything names: what it looks for, what it chooses from, and how that is to be drawn.

Rules of thumb for English; what they miss is named beside the question.
"""

from __future__ import annotations

import re

from earthmap.tasks.vocabulary import PHRASES, SYNONYMS, TARGETS, land_cover_words, simplified

_POLITE = re.compile(
    r"^(?:please|kindly|ok|okay|hi|hello|hey|so|and|,|can you(?! see)|could you(?! see)|would you|will you"
    r"|i want you to|i want to see|i'd like to see|i need|let me see|help me|give me|tell me"
    r"|show me(?= where| what| which| how)|try to)(?: |, |$)"
)
_PLAINER = tuple(
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"^(what|where|who)'s\b", r"\1 is"),
        # "draw boxes around the ships", "what are the coordinates of the airport" look for a thing as "find" does.
        (
            r"^(?:draw|put|place|show|return|output|provide|predict)?(?: me)?(?: out)? ?(?:a |an |the )?"
            r"(?:\w+ )?(?:bounding |oriented |rotated |horizontal )*(?:box(?:es)?|points?|polygons?) "
            r"(?:around|round|about|of|for|on|at) ",
            "find ",
        ),
        (
            r"^(?:what (?:is|are) |return |output )?(?:the )?(?:coordinate|location|position|whereabout)s? of ",
            "find ",
        ),
    )
)
DATE_WORDS = (
    r"(\d{4}|january|february|march|april|may|june|july|august|september|october|november|december|spring|summer|autumn"
    r"|fall|winter|the (two|first|second|earlier|before|pre-event) (dates?|images?|pictures?|one|scenes?|times?)|then"
    r"|yesterday|last (year|month|week))"
)
"""Words for a time, of which a change may be asked."""

CHANGE_WORDS = (
    r"chang(?:e|es|ed|ing)|differences?|(?:dis)appear(?:s|ed|ance)?|appeared|did \S+(?: \S+){0,5} appear|vanish(?:ed)?"
    r"|did \S+(?: \S+){0,5} (?:shrink|grow|expand|recede|retreat|increase|decrease)|deforested"
    r"|lost|loss|losses|gained|grew|grown|growth|shrank|shrunk|shrinking|expanded|expansion|receded|retreated"
    r"|increased|decreased|deforestation|newly|before and after|since " + DATE_WORDS
)
"""Words for what differs between two dates."""

ARTICLE = (
    r"(?:(?:all|any|each|every|both|some|several)(?: one)?(?: of)?(?: the| these| those)? "
    r"|(?:the|a|an|these|those|this|that|my|our) )?"
)
"""What may stand before a name."""

SEARCH = re.compile(
    r"^(?:where(?: is| are| was| were| can i (?:find|see)| do you see| lies?| lie)?(?: there)?|find|locate|detect"
    r"|spot|list|show|identify|search(?: for)?|look for|point(?: to| at| out)?|mark|box|pinpoint)(?: me)?(?: out)? "
)
"""The beginning of a request to find something."""


def request_of(text: str) -> str:
    """The request itself in simplified words, without politeness, and one wording for what has several."""
    simple = simplified(text)
    while (shorter := _POLITE.sub("", simple, count=1)) and shorter != simple:
        simple = shorter
    for pattern, plain in _PLAINER:
        simple = pattern.sub(plain, simple, count=1)
    return simple


# What a question of each task is about begins behind these words.
_ABOUT_PATTERNS: dict[str, tuple[str, ...]] = {
    "presence": (
        r"^(?:is|are|was|were|isn't|aren't) there (?!(?:more|less|fewer|enough|too|at|exactly|only|\d+) )",
        r"^(?:do|does|did|can|could) .*?\b(?:see|show|contain|have|include|hold)s? ",
        r"^can (?=.* be seen\b)",
    ),
    "count": (r"\bhow many ", r"\b(?:number|amount|total) of ", r"^count(?:ing)? "),
    "fraction": (
        r"\b(?:under|covered (?:by|with|in)|made (?:up )?of|consists of|occupied by|used (?:for|as)) ",
        r"\b(?:share|fraction|percentage|proportion|percent|part|much) of (?:the|this) [\w ]*?\b(?:is|are|was|were) ",
        r"\b(?:share|fraction|percentage|proportion|percent|part) (?:is|are|was|were|of) ",
        r"\bhow much ",
    ),
    "segment": (
        r"^(?:segment|outline|delineate|extract|mask|map|draw|highlight|shade|paint|colou?r)(?: me)?(?: out)? ",
        SEARCH.pattern,
        r"^(?:which|what)\b.*?\b(?:are|is|was|were|has|have|show|lies?)(?: (?:under|covered (?:by|with|in)|made of))? ",
    ),
    "detect": (SEARCH.pattern, r"^(?:which|what) "),
    "track": (
        r"^(?:track|follow) ",
        r"\b(?:trajector(?:y|ies)|paths?|tracks?|movements?) of ",
        r"^(?:where|how) (?:do|did|does|is|are|were|was) ",
    ),
    "change": (
        r"\b(?:changes?|loss|growth|gain|expansion|retreat|increase|decrease|differences?|disappearance) (?:of|in|to) ",
        r"^(?:where|how much|which|what)(?: (?:did|do|does|have|has|had|was|were|is|are))? "
        rf"(?=.*\b(?:{CHANGE_WORDS}|appears?)\b)",
        r"^(?:where|map|show|find|detect|mark|locate|segment|outline)(?: me)? "
        rf"(?=\S.*\b(?:{CHANGE_WORDS})\b)",
    ),
}
_ABOUT = {task: [re.compile(pattern) for pattern in patterns] for task, patterns in _ABOUT_PATTERNS.items()}

_REST = re.compile(
    r"(?:^| )(?:in|on|at|near|next to|beside|behind|within|inside|around|across|along|between|over|from|under|that"
    r"|which|who|are|is|was|were|can|could|do|does|did|have|has|had|been|be|here|there|visible|present|moored|parked|seen"
    r"|go|move|moving|heading|appears?|" + CHANGE_WORDS + r")\b.*$"
)
_STATES = frozenset(
    (
        "flooded", "flooding", "inundated", "submerged", "underwater", "vegetated", "green", "forested", "deforested",
        "deforestation", "barren", "urban", "impervious", "built", "snowy", "icy", "burnt", "burned", "scorched",
        "charred",
    )
)  # fmt: skip
"""Words of SYNONYMS that say what ground is like, and name no thing."""

_NOTHING_NAMED = frozenset(
    (
        "", "it", "this", "that", "the", "a", "an", "any", "all", "much", "thing", "things", "something", "anything",
        "everything", "object", "objects",
    )
)  # fmt: skip


def targets_in(text: str, task: str) -> tuple[str, ...]:
    """What a question of `task` names, in its order and in small letters; empty where that is unclear.

    Where a change is asked of nothing that is told apart, or land cover as such is asked for, it is all land cover.

    Example:
        >>> targets_in("Find all ships and the red cars near the pier", "detect")
        ('ship', 'red car')
    """
    simple = request_of(text)
    found: list[str] = []
    for pattern in _ABOUT.get(task, ()):
        match = pattern.search(simple)
        if match:
            found = names_of(simple[match.end() :])
        if found:
            break
    if (task == "change" and not found) or found in (["land cover"], ["land use"], ["land cover class"]):
        return _land_cover(simple) or TARGETS
    if not found and task in ("segment", "fraction"):
        return _land_cover(simple)
    return tuple(found)


def _land_cover(simple: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(SYNONYMS[word] for word in land_cover_words(simple)))


def names_of(phrase: str) -> list[str]:
    """The things that a phrase lists."""
    listed = _REST.sub("", phrase)
    names = [re.sub("^" + ARTICLE, "", name.strip()) for name in re.split(r",| and | or | & |;", listed)]
    return [name for name in dict.fromkeys(map(_plain_name, names)) if name not in _NOTHING_NAMED]


def _plain_name(name: str) -> str:
    """The class of ground that a name means as a whole (`burnt ground`, `flooded`); of a thing the singular."""
    ground = _GROUND.sub("", name)
    if name in PHRASES or ground in TARGETS or ground in _STATES:
        return SYNONYMS.get(name, SYNONYMS.get(ground, ground))
    *before, last = name.split() or [""]
    return " ".join([*before, _singular(last)])


_GROUND = re.compile(r" (?:land|ground|areas?|cover|surfaces?|terrain)$")
_SINGULARS = {"people": "person", "men": "man", "women": "woman", "children": "child", "buses": "bus"}
_ENDINGS = ((r"ies", "y"), (r"(x|z|ch|sh|ss)es", r"\1"), (r"([^siuao])s", r"\1"))
_KEPT = frozenset(("series", "species", "works", "headquarters", "lens", "debris", "barracks", "crossroads"))


def _singular(word: str) -> str:
    """One of what a plural names; a word that is none stays, and so does one that might be none."""
    if word in _SINGULARS or word in _KEPT:
        return _SINGULARS.get(word, word)
    for ending, one in _ENDINGS:
        if re.search(ending + "$", word) and len(word) > 3:
            return re.sub(ending + "$", one, word)
    return word


_SUBJECT = r"(?:it|this|that|these|those|they|(?:the|this) (?:scene|place|picture|image|area|tile|land))"
_ALTERNATIVES = re.compile(
    r"^(?:(?:which|what|is|are|choose|classify|pick|select|answer)\b[^:]*:"
    rf"|(?:is|are|was|were|does|do) {_SUBJECT}(?: (?:show|look like|contain|have))?) (.+)$",
    re.IGNORECASE,
)


def choices_in(text: str) -> tuple[str, ...]:
    """The alternatives that a question itself names; empty where it does not.

    Example:
        >>> choices_in("Is this a harbour, an airport or a farm?")
        ('harbour', 'airport', 'farm')
    """
    match = _ALTERNATIVES.match(" ".join(text.split()).rstrip(" ?.!")) or _ALTERNATIVES.match(request_of(text))
    if match is None or not re.search(r"\bor\b", match[1]):
        return ()
    names = (re.sub(r"^(?:either |rather |more |a |an |the )+", "", name.strip()) for name in _OR.split(match[1]))
    found = tuple(dict.fromkeys(name for name in names if name))
    return found if len(found) > 1 else ()


_OR = re.compile(r",? or |,|;", re.IGNORECASE)

_SHAPES = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("oriented_box", r"\b(oriented|rotated)( bounding)?[ -]box(es)?\b|\bobb\b"),
        ("box", r"\b(bounding )?box(es)?\b"),
        ("point", r"^point (to|at|out)\b|\bpoints?\b(?! (of|in)\b)|\bcent(re|er)s? of\b"),
        ("polygon", r"\bpolygons?\b|\boutlines?\b|\bfootprints?\b"),
        ("mask", r"\bmasks?\b"),
    )
)


def shape_in(text: str) -> str | None:
    """The kind of shape that a question itself asks for; None where it does not.

    Example:
        >>> shape_in("Draw oriented boxes around the ships")
        'oriented_box'
    """
    simple = simplified(text)
    return next((kind for kind, pattern in _SHAPES if pattern.search(simple)), None)
