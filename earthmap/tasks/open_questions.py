"""What a question's words say where it may be about anything: its task, what it looks for, and what it chooses from.

Rules of thumb for English. What they cannot tell is `vqa`, an open question; whoever means another task names it.
"""

from __future__ import annotations

import re

from earthmap.tasks.registry import TASKS
from earthmap.tasks.vocabulary import SYNONYMS, TARGETS, land_cover_words, simplified

_POLITE = re.compile(
    r"^(?:please|kindly|ok|okay|hi|hello|hey|so|and|,|can you(?! see)|could you(?! see)|would you|will you"
    r"|i want you to|i want to see|i'd like to see|i need|let me see|help me|give me|tell me"
    r"|show me(?= where| what| which| how)|try to)(?: |, |$)"
)
_SERIES = (
    r"time[ -]series|timeline|(over|through|across|along|throughout|during|in) (all )?(the|these|those|this)"
    r" (\w+ )?(years|months|weeks|decades?|seasons|series|dates|period|times|frames|video)|over time|from year to year"
    r"|year by year|(every|each) (year|month|season|date)|evolve[sd]?|evolution|through the seasons|history of"
)
_DATE_WORDS = (
    r"(\d{4}|january|february|march|april|may|june|july|august|september|october|november|december|spring|summer|autumn"
    r"|fall|winter|the (two|first|second|earlier|before|pre-event) (dates?|images?|pictures?|one|scenes?|times?)|then"
    r"|yesterday|last (year|month|week))"
)
_CHANGE_WORDS = (
    r"chang(?:e|es|ed|ing)|differences?|(?:dis)appear(?:s|ed|ance)?|appeared|did \S+(?: \S+){0,5} appear|vanish(?:ed)?"
    r"|lost|loss|losses|gained|grew|grown|growth|shrank|shrunk|shrinking|expanded|expansion|receded|retreated"
    r"|increased|decreased|deforestation|newly|before and after|since " + _DATE_WORDS
)
_CHANGE = rf"\b({_CHANGE_WORDS})\b|\bbetween {_DATE_WORDS}\b.*\band\b"
_DESCRIBE = r"describe|caption|summari[sz]e|explain|report|write|what happened|how (did|has|have|does|do)"
_KIND = r"(what|which) (kinds?|types?|sorts?|category) of|classify|(kind|type|category|class) of"
_SCENE = (
    r"(scenes?|places?|areas?|land(scapes?)?|regions?|grounds?|terrains?|land[ -]?(use|cover)|environments?|habitats?"
    r"|tiles?|images?|pictures?)"
)

_OPEN_PATTERNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "track",
        (
            r"^(track|follow)\b|\btrajector(y|ies)\b|\b(paths?|tracks?) of (the|each|every|all)\b",
            r"^(where|how) (do|did|does|is|are|were|was) .*\b(go|going|gone|moved?|moving|travel\w*|head(ed|ing)?)\b",
        ),
    ),
    (
        "change-type",
        (
            rf"\b({_KIND}) (the )?(changes?|damage|disaster|event)\b|^classify\b.*\bchanges?\b",
            r"^what (was|is) the (change|damage|event) (type|class|category)\b",
        ),
    ),
    (
        "series",
        (rf"^({_DESCRIBE})\b.*\b({_SERIES})\b|^what\b(?! (share|fraction|percentage|proportion)).*\b({_SERIES})\b",),
    ),
    ("change-caption", (rf"^({_DESCRIBE})\b.*({_CHANGE})|^what happened\b",)),
    ("change", (_CHANGE,)),
    ("count", (r"^how many\b|^(what is |what's )?(the )?(total )?number of\b|^count(ing)?\b",)),
    (
        "fraction",
        (
            r"\b(how much|share of|percentage|percent)\b",
            r"^(what|which) (share|fraction|percentage|proportion|part of)\b",
        ),
    ),
    (
        "caption",
        (
            r"^(describe|summari[sz]e)\b|^(write )?(a |an |one |the )?(\w+ )?(caption|description|summary)\b",
            r"^what (do you see|do i see|can you see|can be seen|is shown|is visible|is depicted)\b",
            rf"^what (does|do) (this|the|these) {_SCENE} show$|^what is this {_SCENE} about$",
            rf"^what is (there )?(in|on) (the|this) {_SCENE}$",
        ),
    ),
    (
        "label",
        (
            r"^(which|what|list|name|all)\b.*\b(classes|labels|categories|tags)\b",
            r"^(which|what|list|name)\b.*\bland[ -]?(cover|use)s? (types|kinds)\b",
            r"^(which|what) (types|kinds|sorts) of (land|surface|ground)\b.*\b(are|occur|exist)\b",
            rf"^(tag|label) (this|the) {_SCENE}\b",
        ),
    ),
    (
        "classify",
        (
            rf"^(classify|categori[sz]e)\b|^(what|which) (kind|type|sort|category|class) of {_SCENE}\b",
            rf"^(what|which) {_SCENE} ?(class|type|category)?( does| is|$)",
            r"^(what|which)\b.*\b(dominates?|dominating|dominant|prevails|predominant)\b",
        ),
    ),
    ("choose", (r"\bor\b(?! not$| no$)",)),
    ("vqa", (r"^(is|are|was|were)\b.*\bor\b(?! not$| no$)",)),
    ("presence", (r"^(is|are|was|were|does|do|did|has|have|can|could|isn't|aren't)\b",)),
    (
        "segment",
        (
            r"^(segment|outline|delineate|extract|mask|map|draw|highlight|shade|paint|colou?r)\b",
            r"\b(which|what) (areas?|parts?|ground|land|places|pixels)\b",
            r"^(what|which)\b.*\b(is|are|was|were|lies?) (under|covered|flooded|inundated|submerged|burnt|burned)\b",
        ),
    ),
    ("detect", (r"^which (\w+ )?(\w+s|people|aircraft|cattle) (are|were|have|had|look|lie|stand)\b",)),
)
_OPEN = tuple((task, re.compile("|".join(patterns))) for task, patterns in _OPEN_PATTERNS)
"""In this order: the first that fits is the task."""

_ANY = (
    r"(?:(?:all|any|each|every|both|some|several)(?: of)?(?: the| these| those)? "
    r"|(?:the|a|an|these|those|this|that|my|our) )?"
)
_SEARCH = re.compile(
    r"^(?:where(?: is| are|'s| was| were| can i (?:find|see)| do you see| lies?| lie)?(?: there)?|find|locate|detect"
    r"|spot|list|show|identify|search(?: for)?|look for|point(?: to| at| out)?|mark|box|pinpoint)(?: me)?(?: out)? "
)
_OUTSTANDING = re.compile(
    r"\b(?!forest\b|west\b|east\b|rest\b|harvest\b|nest\b|crest\b)"
    r"(\w+(?:est|most)|first|second|third|last|only|left|right|upper|lower|top|bottom|centre|center|central)\b"
)
_HEAD = re.compile(
    r"^(.*?)(?: (?:in|on|at|near|next|beside|behind|with|without|that|which|who|of|by|along|to|from|under|over|between"
    r"|inside|around|within|across|outside|above|below|close|are|is|was|were|have|has|here|there|visible)\b.*)?$"
)
_PLURALS = frozenset(("people", "aircraft", "cattle", "sheep", "men", "women", "children", "animals"))


def _impolite(simple: str) -> str:
    """The request itself, without the words around it."""
    while True:
        shorter = _POLITE.sub("", simple, count=1)
        if shorter == simple or not shorter:
            return simple
        simple = shorter


def _head(phrase: str) -> str:
    """The last word of what a phrase names, before what it says of it."""
    match = _HEAD.match(phrase)
    words = (match[1] if match else phrase).split()
    return words[-1].strip(",") if words else ""


def _is_plural(word: str) -> bool:
    return word in _PLURALS or (word.endswith("s") and not word.endswith(("ss", "us", "is")))


def guess_open_task(text: str, *, with_choices: bool = False) -> str:
    """The id of the task that a question asks for; `vqa` where none is plain.

    `with_choices`: choices are given beside it.
    """
    simple = simplified(text)
    guessed = _guess(simple)
    return _with_choices(guessed, simple) if with_choices else guessed


def _guess(simple: str) -> str:
    request = _impolite(simple)
    for task, pattern in _OPEN:
        if pattern.search(request) and (task != "choose" or choices_in(request)):
            return task
    search = _SEARCH.match(request)
    if search:
        return _searched(request, request[search.end() :])
    return "ground" if request.startswith("the ") else "vqa"


def _searched(request: str, phrase: str) -> str:
    """What a request to find `phrase` asks for: one thing that is pointed out, all of a kind, or ground."""
    bare = re.sub("^" + _ANY, "", phrase)
    head = _head(bare)
    if _OUTSTANDING.search(bare) and not _is_plural(head):
        return "ground"
    if phrase != bare and re.match(r"(my|our|this|that) ", phrase):
        return "ground"
    if head in SYNONYMS and (request.startswith("where") or not _is_plural(head)):
        return "segment"
    if _is_plural(head) or re.match(r"(all|any|each|every|both|some|several)\b", phrase):
        return "detect"
    return "ground" if phrase != bare else "detect"


def _with_choices(guessed: str, simple: str) -> str:
    """The task of a question that choices are given to."""
    if TASKS[guessed].chooses:
        return guessed
    if guessed in ("change", "change-caption"):
        return "change-type"
    several = re.search(r"^(which|what)\b.*\b(are|were|occur|exist|can)\b|^(tag|label|list)\b", _impolite(simple))
    return "label" if several else "choose"


# What a question of each task is about begins behind these words.
_ABOUT_PATTERNS: dict[str, tuple[str, ...]] = {
    "presence": (
        r"^(?:is|are|was|were|isn't|aren't) there ",
        r"^(?:do|does|did|can|could) .*?\b(?:see|show|contain|have|include|hold)s? ",
    ),
    "count": (r"\bhow many ", r"\bnumber of ", r"^count(?:ing)? "),
    "fraction": (
        r"\b(?:under|covered (?:by|with|in)|made (?:up )?of|consists of|occupied by|used (?:for|as)) ",
        r"\b(?:share|fraction|percentage|proportion|percent|part|much) of (?:the|this) [\w ]*?\b(?:is|are|was|were) ",
        r"\b(?:share|fraction|percentage|proportion|percent|part) (?:is|are|was|were|of) ",
        r"\bhow much ",
    ),
    "segment": (
        r"^(?:segment|outline|delineate|extract|mask|map|draw|highlight|shade|paint|colou?r)(?: me)?(?: out)? ",
        _SEARCH.pattern,
        r"^(?:which|what)\b.*?\b(?:are|is|was|were|has|have|show|lies?)(?: (?:under|covered (?:by|with|in)|made of))? ",
    ),
    "detect": (_SEARCH.pattern, r"^(?:which|what) "),
    "track": (
        r"^(?:track|follow) ",
        r"\b(?:trajector(?:y|ies)|paths?|tracks?|movements?) of ",
        r"^(?:where|how) (?:do|did|does|is|are|were|was) ",
    ),
    "change": (
        r"\b(?:changes?|loss|growth|gain|expansion|retreat|increase|decrease|differences?|disappearance) (?:of|in|to) ",
        r"^(?:where|how much|which|what)(?: (?:did|do|does|have|has|had|was|were|is|are))? "
        rf"(?=.*\b(?:{_CHANGE_WORDS}|appears?)\b)",
        r"^(?:where|map|show|find|detect|mark|locate|segment|outline)(?: me)? "
        rf"(?=\S.*\b(?:{_CHANGE_WORDS})\b)",
    ),
}
_ABOUT = {task: [re.compile(pattern) for pattern in patterns] for task, patterns in _ABOUT_PATTERNS.items()}

_REST = re.compile(
    r"(?:^| )(?:in|on|at|near|next to|beside|behind|within|inside|around|across|along|between|over|from|under|that"
    r"|which|who|are|is|was|were|can|could|do|does|did|have|has|had|been|be|here|there|visible|present|moor\w*|park\w*|seen"
    r"|go|move|moving|head\w*|appears?|" + _CHANGE_WORDS + r")\b.*$"
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
        ('ships', 'red cars')
    """
    simple = _impolite(simplified(text))
    found: list[str] = []
    for pattern in _ABOUT.get(task, ()):
        match = pattern.search(simple)
        if match:
            found = _names(simple[match.end() :])
        if found:
            break
    if (task == "change" and not found) or found in (["land cover"], ["land use"], ["land cover classes"]):
        return _land_cover(simple) or TARGETS
    if not found and task in ("segment", "fraction"):
        return _land_cover(simple)
    return tuple(found)


def _land_cover(simple: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(SYNONYMS[word] for word in land_cover_words(simple)))


def _names(phrase: str) -> list[str]:
    """The things that a phrase lists."""
    listed = _REST.sub("", phrase)
    names = [re.sub("^" + _ANY, "", name.strip()) for name in re.split(r",| and | or | & |;", listed)]
    things = [SYNONYMS[name] if name in _STATES else name for name in names]
    return [name for name in dict.fromkeys(things) if name not in _NOTHING_NAMED]


_SUBJECT = r"(?:it|this|that|these|those|they|(?:the|this) (?:scene|place|picture|image|area|tile|land))"
_ALTERNATIVES = re.compile(
    rf"^(?:[^:]*:|(?:is|are|was|were|does|do) {_SUBJECT}(?: (?:show|look like|contain|have))?) (.+)$", re.IGNORECASE
)


def choices_in(text: str) -> tuple[str, ...]:
    """The alternatives that a question itself names; empty where it does not.

    Example:
        >>> choices_in("Is this a harbour, an airport or a farm?")
        ('harbour', 'airport', 'farm')
    """
    match = _ALTERNATIVES.match(" ".join(text.split()).rstrip(" ?.!"))
    if match is None or not re.search(r"\bor\b", match[1]):
        return ()
    names = (re.sub(r"^(?:either |rather |more |a |an |the )+", "", name.strip()) for name in _OR.split(match[1]))
    found = tuple(dict.fromkeys(name for name in names if name))
    return found if len(found) > 1 else ()


_OR = re.compile(r",? or |,|;", re.IGNORECASE)
