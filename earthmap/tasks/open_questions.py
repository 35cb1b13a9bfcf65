"""Which task a question about anything is of.

Rules of thumb for English. What they cannot tell is `vqa`, an open question; whoever means another task names it.
"""

from __future__ import annotations

import re

from earthmap.tasks.phrases import ARTICLE, CHANGE_WORDS, DATE_WORDS, SEARCH, choices_in, names_of, request_of
from earthmap.tasks.registry import TASKS
from earthmap.tasks.vocabulary import SYNONYMS, TARGETS

_SERIES = (
    r"time[ -]series|timeline|(over|through|across|along|throughout|during|in) (all )?(the|these|those|this)"
    r" (\w+ )?(years|months|weeks|decades?|seasons|series|dates|period|times|frames|video)|over time|from year to year"
    r"|year by year|(every|each) (year|month|season|date)|evolve[sd]?|evolution|through the seasons|history of"
)
_CHANGE = rf"\b({CHANGE_WORDS})\b|\bbetween {DATE_WORDS}\b.*\band\b"
_DESCRIBE = r"describe|caption|summari[sz]e|explain|report|write|what happened|how (did|has|have|does|do)"
_KIND = r"(what|which) (kinds?|types?|sorts?|category) of|classify|(kind|type|category|class) of"
_SCENE = (
    r"(scenes?|places?|areas?|land(scapes?)?|regions?|grounds?|terrains?|land[ -]?(use|cover)|environments?|habitats?"
    r"|tiles?|images?|pictures?)"
)

ASKS_A_VECTOR = re.compile(
    r"^embed\b|^((compute|make|give|return|get|calculate|produce|what (is|are)) )?(me )?(the |an? |its )?"
    r"(feature |tile |scene |visual )?(embeddings?|feature vectors?)\b"
)
"""Words that ask for a vector."""

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
        (
            r"^how (did|has|have|does|do) .*\b(develop|evolve)",
            r"^(since )?when (did|has|have) .*\b(start|begin|change|appear|disappear|happen|grow|shrink)",
            rf"^({_DESCRIBE})\b.*\b({_SERIES})\b|^what\b(?! (share|fraction|percentage|proportion)).*\b({_SERIES})\b",
        ),
    ),
    (
        "change-caption",
        (rf"^({_DESCRIBE})\b.*({_CHANGE})|^what happened\b|^what (is|are) (the differences?|different)\b",),
    ),
    ("change", (_CHANGE,)),
    ("count", (r"^how many\b|^(what is )?(the )?(total )?(number|amount) of \w|^count(ing)?\b",)),
    (
        "fraction",
        (
            r"\b(how much|share of|percentage|percent)\b|\barea (that is )?(covered|occupied|taken up) by\b",
            r"^(what|which) (share|fraction|percentage|proportion|part of)\b",
        ),
    ),
    (
        "caption",
        (
            r"^(describe|summari[sz]e)\b",
            r"^((write|give|generate|provide|create|make) )?(a |an |one |the )?(\w+ )?(caption|description|summary)\b",
            r"^what (do you see|do i see|(can )?(you|i) (can )?see|can be seen|is shown|is visible|is depicted)\b",
            rf"^what (does|do) (this|the|these) {_SCENE} show$|^what is this {_SCENE} about$",
            rf"^what is (there )?(in|on) (the|this) {_SCENE}$",
        ),
    ),
    (
        "label",
        (
            r"^(which|what|list|name|all)\b.*\b(classes|labels|categories|tags)\b",
            r"^(which|what|list|name)\b.*\bland[ -]?(cover|use)s? (types|kinds|can|are|occurs?|exists?)\b",
            r"^(which|what) (types|kinds|sorts) of (land|surface|ground)\b.*\b(are|occur|exist)\b",
            rf"^(tag|label) (this|the) {_SCENE}\b",
        ),
    ),
    (
        "classify",
        (
            rf"^(classify|categori[sz]e)\b|^(what|which) (kind|type|sort|category|class) of {_SCENE}\b",
            rf"^(what|which) {_SCENE} ?(class|type|category)?( does| is|$)",
            r"^(what|which) (class|category|label) (is|does)\b",
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
            r"^((in|on) )?(which|what) (areas?|parts|ground|land|places|pixels)\b",
            rf"^((in|on) )?(which|what) part\b(?! of (the|this) {_SCENE})",
            r"^(what|which)\b.*\b(is|are|was|were|lies?) (under|covered|flooded|inundated|submerged|burnt|burned)\b",
        ),
    ),
    ("detect", (r"^which (\w+ )?(\w+s|people|aircraft|cattle) (are|were|have|had|look|lie|stand)\b",)),
    ("ground", (r"^which (\w+ ){1,3}(is|was|has|looks|lies|stands)\b",)),
)
_OPEN = tuple((task, re.compile("|".join(patterns))) for task, patterns in _OPEN_PATTERNS)
"""In this order: the first that fits is the task."""

_OUTSTANDING = re.compile(
    r"\b(?!forest\b|west\b|east\b|rest\b|harvest\b|nest\b|crest\b)"
    r"(\w+(?:est|most)|first|second|third|last|only|left|right|upper|lower|top|bottom|centre|center|central)\b"
)
_HEAD = re.compile(
    r"^(.*?)(?: (?:in|on|at|near|next|beside|behind|with|without|that|which|who|of|by|along|to|from|under|over|between"
    r"|inside|around|within|across|outside|above|below|close|are|is|was|were|have|has|here|there|visible)\b.*)?$"
)
_PLURALS = frozenset(("people", "aircraft", "cattle", "sheep", "men", "women", "children", "animals"))


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
    request = request_of(text)
    guessed = _guess(request)
    return _with_choices(guessed, request) if with_choices else guessed


def _guess(request: str) -> str:
    if ASKS_A_VECTOR.search(request):
        return "embed"
    for task, pattern in _OPEN:
        if pattern.search(request) and (task != "choose" or choices_in(request)):
            return task
    search = SEARCH.match(request)
    if search:
        return _searched(request, request[search.end() :])
    return "ground" if request.startswith("the ") else "vqa"


def _searched(request: str, phrase: str) -> str:
    """What a request to find `phrase` asks for: one thing that is pointed out, all of a kind, or ground."""
    bare = re.sub("^" + ARTICLE, "", phrase)
    head = _head(bare)
    if _OUTSTANDING.search(bare) and not _is_plural(head):
        return "ground"
    if phrase != bare and re.match(r"(my|our|this|that) ", phrase):
        return "ground"
    is_ground = head in SYNONYMS or not set(TARGETS).isdisjoint(names_of(phrase))
    if is_ground and (request.startswith("where") or not _is_plural(head)):
        return "segment"
    if _is_plural(head) or re.match(r"(all|any|each|every|both|some|several)\b", phrase):
        return "detect"
    return "ground" if phrase != bare else "detect"


def _with_choices(guessed: str, request: str) -> str:
    """The task of a question that choices are given to."""
    if TASKS[guessed].chooses:
        return guessed
    if guessed in ("change", "change-caption"):
        return "change-type"
    several = re.search(r"^(which|what)\b.*\b(are|were|occur|exist|can)\b|^(tag|label|list)\b", request)
    return "label" if several else "classify" if guessed == "caption" else "choose"
