"""Conversations about pictures, as LLaVA, Qwen-VL and Hugging Face data sets hold them, as questions with answers.

A record is a mapping, whatever file it came from. Its turns stand under `conversations` (`from`, `value`), `messages`
(`role`, `content`), `texts` (`user`, `assistant`), or it has a `question` and an `answer`; its pictures under `image`
or `images`, in `<img>` marks, or among the parts of a message. Each answer is learned with the question right before
it and the pictures alone.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from earthmap.training.faults import Unfit
from earthmap.training.stages import MODALITIES

ASKING, ANSWERING, SETTING = ("human", "user"), ("gpt", "assistant", "model", "chatgpt"), ("system",)
"""Who speaks, as data sets call them; what a system says is no part of what is learned."""

MOST_SECONDS = 1e6
"""SLIS writes at most six digits."""

Source = str | bytes
"""A picture: where it lies, or the bytes of its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question and its answer, as they are written."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What one record says."""

    images: tuple[Source, ...]
    exchanges: tuple[Exchange, ...]
    unfit: tuple[Unfit, ...] = ()
    """Turns that are left out."""
    modality: str | None = None
    """One of `earthmap.training.MODALITIES`, where the record names it."""
    task: str | None = None
    """What the record calls the task of all its questions."""
    dates: tuple[dt.datetime | None, ...] = ()
    """Of each picture; () where the record tells none."""
    seconds: tuple[float, ...] = ()
    """Of each frame of a video from the first on; () where the record tells none."""
    size_px: tuple[int, int] | None = None
    """Width and height that the record says its pictures have."""


# ── text → records ───────────────────────────────────────────────────────────────────────────────────────────


def split_records(text: str) -> Iterator[tuple[str, Any | Unfit]]:
    """Each record of a JSON list or of JSON lines with its place; in the stead of one that cannot be read, why not.

    What follows a broken record of a list cannot be told apart from it and is given up with it; a broken line costs
    itself alone.
    """
    start = len(text) - len(text.lstrip("\ufeff \t\r\n"))
    if text.startswith("[", start):
        yield from _listed(text, start + 1)
    elif text[start : start + 200].split("\n")[0].strip() == "{":
        yield "", Unfit("format", "one JSON object over many lines; expected a list of records, or a record a line")
    else:
        yield from _lined(text.lstrip("\ufeff"))


_GAP = re.compile(r"[\s,]*")


def _listed(text: str, position: int) -> Iterator[tuple[str, Any | Unfit]]:
    decoder, line, counted = json.JSONDecoder(), 1, 0
    while True:
        gap = _GAP.match(text, position)
        position = gap.end() if gap else position
        line, counted = line + text.count("\n", counted, position), position
        if text.startswith("]", position):
            return
        try:
            record, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield f"line {line}", Unfit("format", f"the list ends in what is not JSON: {error}")
            return
        yield f"line {line}", record


def _lined(text: str) -> Iterator[tuple[str, Any | Unfit]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f"line {number}", Unfit("format", f"not JSON: {error}")


# ── records → conversations ──────────────────────────────────────────────────────────────────────────────────


def read_conversation(record: Any) -> Conversation:
    """What a record says.

    Raises:
        Unfit: where it has no pictures, no answer, or is no conversation.
    """
    if not isinstance(record, Mapping):
        raise Unfit("conversation", f"a {type(record).__name__}; expected a record with named fields")
    if record.get("video") or record.get("videos"):
        raise Unfit("unsupported", "a video file; expected its frames as `images`, with `modality` video")
    turns = _turns(record)
    told = [image for _, _, images in turns for image in images]
    images = [*_images(record), *told]
    if not images:
        raise Unfit("images", "no picture; expected one under `image` or `images`")
    places = sum(len(_PLACE.findall(text)) for _, text, _ in turns)
    if places not in (0, len(images)):
        raise Unfit("images", f"{len(images)} pictures for {places} places in the text")
    exchanges, unfit = _exchanges([(who, _plain(text)) for who, text, _ in turns])
    if not exchanges:
        raise unfit[0] if unfit else Unfit("answer", "a conversation without a question and an answer")
    return Conversation(
        images=tuple(images),
        exchanges=tuple(exchanges),
        unfit=tuple(unfit),
        modality=_modality(record),
        task=_word(record.get("task") or record.get("category")),
        dates=_dates(record, len(images)),
        seconds=_seconds(record, len(images)),
        size_px=_size(record),
    )


_Turn = tuple[str, str, list[Source]]
"""Who speaks, what, and pictures that stand in it."""

_PLACE = re.compile(
    r"(?:(?:picture|image|frame|photo)\s*\d*\s*:\s*)?"
    r"(?:<image>|<img>[^<]*</img>|<\|vision_start\|>\s*<\|image_pad\|>\s*<\|vision_end\|>)",
    re.IGNORECASE,
)
_NAMED = re.compile(r"<img>([^<]*)</img>", re.IGNORECASE)


def _plain(text: str) -> str:
    """The words of a turn without the places of its pictures, line by line."""
    lines = (" ".join(line.split()) for line in _PLACE.sub(" ", text).splitlines())
    return "\n".join(line for line in lines if line)


def _turns(record: Mapping[str, Any]) -> list[_Turn]:
    for key in ("conversations", "messages", "conversation"):
        if _many(record.get(key)):
            return [_turn(one) for one in record[key]]
    if _many(record.get("texts")):
        pairs = [one for one in record["texts"] if isinstance(one, Mapping)]
        return [_said(who, one.get(who)) for one in pairs for who in ("user", "assistant")]
    if "question" in record:
        return [_said("user", record["question"]), _said("assistant", _first(record))]
    raise Unfit("conversation", "no turns; expected `conversations`, `messages`, `texts`, or `question` and `answer`")


def _many(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and len(value) > 0


def _first(record: Mapping[str, Any]) -> Any:
    """The answer; of several that people gave the first."""
    answer = record.get("answer", record.get("answers"))
    return answer[0] if _many(answer) else answer


def _said(who: str, value: Any) -> _Turn:
    text = _text(value)
    return who, text, [name.strip() for name in _NAMED.findall(text)]


def _text(value: Any) -> str:
    """What stands for a text; empty for nothing. Halves of characters, which no file can hold, become `?`."""
    if value is None or value != value:  # as missing numbers are stored
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).encode("utf-8", "replace").decode()


def _turn(one: Any) -> _Turn:
    if not isinstance(one, Mapping):
        raise Unfit("conversation", f"a turn that is a {type(one).__name__}; expected who speaks, and what")
    who = str(one.get("from", one.get("role")))
    content = one.get("value", one.get("content"))
    listed = [content] if isinstance(content, Mapping) else content
    if not _many(listed):
        return _said(who, content)
    parts = [part if isinstance(part, Mapping) else {"text": part} for part in listed]
    images = [
        image
        for part in parts
        for key in ("image", "image_url", "path", "url")
        if (image := _source(part.get(key))) is not None
    ]
    return who, "\n".join(text for part in parts if (text := _text(part.get("text")))), images


def _source(value: Any) -> Source | None:
    """A picture as a path or bytes; None for a place that something else fills."""
    if isinstance(value, Mapping):  # as Hugging Face `datasets` stores an image; or as an address with more beside it
        value = value.get("bytes") or value.get("path") or value.get("url")
    return value if isinstance(value, (str, bytes)) and value else None


def _images(record: Mapping[str, Any]) -> list[Source]:
    for key in ("image", "images"):
        value: Any = record.get(key)
        listed: Sequence[Any] = value if _many(value) else [value]
        found = [_source(one) for one in listed]
        if any(one is not None for one in found):
            if None in found:
                raise Unfit("missing", f"`{key}` has a picture without bytes or path")
            return [one for one in found if one is not None]
    return []


def _exchanges(turns: Sequence[tuple[str, str]]) -> tuple[list[Exchange], list[Unfit]]:
    """Each answer with the question before it."""
    found: list[Exchange] = []
    unfit: list[Unfit] = []
    question = ""
    for who, text in turns:
        if who.lower() in ASKING:
            if question:
                unfit.append(Unfit("answer", f"{question[:80]!r} has no answer"))
            question = text
        elif who.lower() in ANSWERING:
            if question and text:
                found.append(Exchange(question=question, answer=text))
            elif question or text:
                cause = "answer" if question else "question"
                unfit.append(Unfit(cause, f"{(question or text)[:80]!r} has no {cause}"))
            question = ""
        elif who.lower() not in SETTING:
            raise Unfit("conversation", f"{who[:40]!r} speaks; expected {', '.join((*ASKING, *ANSWERING, *SETTING))}")
    if question:
        unfit.append(Unfit("answer", f"{question[:80]!r} has no answer"))
    return found, unfit


def _word(value: Any) -> str | None:
    return value.strip().lower() if isinstance(value, str) and value.strip() else None


def _modality(record: Mapping[str, Any]) -> str | None:
    name = _word(record.get("modality"))
    if name is not None and name not in MODALITIES:
        raise Unfit("unknown", f"the modality {name[:40]!r}; expected one of {', '.join(MODALITIES)}")
    return name


def _dates(record: Mapping[str, Any], count: int) -> tuple[dt.datetime | None, ...]:
    value = record.get("dates", record.get("date"))
    if not value:
        return ()
    texts = value if _many(value) else [value]
    if len(texts) != count:
        raise Unfit("images", f"{count} pictures and {len(texts)} dates")
    try:
        times = [dt.datetime.fromisoformat(str(text)) for text in texts]
        return tuple(time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC) for time in times)
    except (ValueError, OverflowError) as error:
        raise Unfit("unknown", f"the date {str(value)[:60]!r}; expected days such as 2024-06-01") from error


def _seconds(record: Mapping[str, Any], count: int) -> tuple[float, ...]:
    value = record.get("seconds")
    if not _many(value):
        return ()
    listed: Sequence[Any] = value if value is not None else ()
    rising = [float(one) for one in listed if isinstance(one, (int, float)) and 0.0 <= one < MOST_SECONDS]
    if len(listed) != count or len(rising) != count or any(b <= a for a, b in itertools.pairwise(rising)):
        raise Unfit("unknown", f"the seconds {str(value)[:60]}; expected {count} rising numbers from 0 on")
    return tuple(rising)


def _size(record: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = record.get("width"), record.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None
