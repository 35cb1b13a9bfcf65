"""What is taken out of everything that is logged: keys, tokens, passwords, and what signs an address.

Three nets, each for what the others miss: names (a value that is called `token` is none of anybody's business),
forms (addresses with a query or a password, `Bearer …`, AWS's key ids, JSON web tokens), and the very values that
this process has in its environment, wherever they turn up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

MASK = "***"
"""What stands in the place of a secret."""

_WORDS = (
    r"(?:authorization|authentication|cookie|credential|passw(?:or)?d|passphrase|pwd|secret|signature|token"
    r"|api[_-]?key|access[_-]?key|private[_-]?key|subscription[_-]?key|account[_-]?key|session[_-]?id"
    r"|(?:(?<![a-z])|(?<=%[0-9a-f][0-9a-f]))(?:sig|auth)(?![a-z]))"
)
_SECRET_NAME = re.compile(_WORDS, re.IGNORECASE)

_HARMLESS = re.compile(r"(?:\w+_)?tokens(?:_\w+)?|tokenizer", re.IGNORECASE)
"""Names that look like those of secrets: what a model reads is counted in tokens."""

_IS = r"(?P<is>\\*[\"']?\s*(?:[:=]|%3[ad])\s*)"

_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"(?i)(?P<name>(?:proxy-)?authorization|(?:set-)?cookie){_IS}[^\r\n]*"), rf"\g<name>\g<is>{MASK}"),
    (re.compile(r"(?i)\b(bearer|basic|digest|negotiate|aws4-hmac-sha256)\s+[^\s\"',;]+"), rf"\1 {MASK}"),
    (re.compile(r"(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{12,}"), MASK),
    (re.compile(r"eyJ[\w-]{8,}(?:\.[\w-]+)*"), MASK),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
)

_ADDRESS = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)([^\s\"'<>]*)")

_ASSIGNED = re.compile(
    rf"(?i)(?P<name>{_WORDS}[\w.-]{{0,64}}){_IS}"
    r"(?:(?:[\[{(]|\\+[\"'])[\s\S]*|\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?|(?:(?:bearer|basic)\s+)?[^\s,;&\"'}\])]+)"
)
"""`name=value`, `name: value`, `"name": "value"`; where nobody knows where it ends, of a list or of quotes in
quotes, all that follows."""

_DEEPEST = 8
"""Levels of nesting that are looked through; what lies below is not shown."""

_SHORTEST = 6
"""Characters of a value of the environment from which on it is looked for everywhere."""


class Redactor:
    """Takes secrets out of anything that can be logged; `known` are values that are secret wherever they stand.

    Example:
        >>> Redactor(["hunter2"])({"href": "https://x.org/a.tif?sig=abc", "note": "hunter2", "token": 5})
        {'href': 'https://x.org/a.tif?***', 'note': '***', 'token': '***'}
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        forms = {form for value in known for form in (value, quote(value, safe=""), quote(value))}
        longest_first = sorted((form for form in forms if len(form) >= _SHORTEST), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Redactor:
        """One that knows the secrets of the environment: by their names, and the passwords of its addresses."""
        return cls(_secrets_of(os.environ if environment is None else environment))

    def __call__(self, value: Any) -> Any:
        """`value` as JSON can hold it, without secrets."""
        return self._plain(value, _DEEPEST)

    def text(self, text: str) -> str:
        """A text without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        text = _ADDRESS.sub(_unsigned, text)
        for pattern, instead in _FORMS:
            text = pattern.sub(instead, text)
        return _ASSIGNED.sub(_masked, text)

    def _plain(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return self._number(value) if value - value == 0 else str(value)
        if isinstance(value, str):
            return self.text(str(value))
        if isinstance(value, bytes | bytearray):
            return self.text(bytes(value).decode(errors="replace"))
        if depth == 0:
            return "…"
        if isinstance(value, Mapping):
            return dict(self._pair(key, item, depth) for key, item in value.items())
        if isinstance(value, list | tuple | set | frozenset):
            return [self._plain(item, depth - 1) for item in value]
        return self.text(_words(value))

    def _number(self, value: float) -> Any:
        return MASK if self._known is not None and self._known.search(repr(value)) else value

    def _pair(self, key: Any, item: Any, depth: int) -> tuple[str, Any]:
        name = key.decode(errors="replace") if isinstance(key, bytes) else str(key)
        hidden = _is_secret(name)
        return self.text(name), MASK if hidden and item is not None else self._plain(item, depth - 1)


def _words(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - whatever an object of others raises, the line is written
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _unsigned(match: re.Match[str]) -> str:
    """An address without its query, where signatures stand under many names, and without name and password."""
    rest, query, _ = re.split(r"([?#])", match[2], maxsplit=1) if re.search(r"[?#]", match[2]) else (match[2], "", "")
    host, slash, path = rest.partition("/")
    _, at, host = host.rpartition("@")
    return f"{match[1]}{MASK if at else ''}{at}{host}{slash}{path}{'?' + MASK if query else ''}"


def _masked(match: re.Match[str]) -> str:
    return match[0] if _HARMLESS.fullmatch(match["name"]) else f"{match['name']}{match['is']}{MASK}"


def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None and _HARMLESS.fullmatch(name) is None


def _secrets_of(environment: Mapping[str, str]) -> list[str]:
    found = []
    for name, value in environment.items():
        if _is_secret(name) and not _is_place(value):
            found.append(value.strip())
        if name.upper() == "EARTHMAP_HEADERS":
            found += [line.partition(":")[2].strip() for line in value.splitlines()]
        if "@" in value and "://" in value:
            found += _password_of(value)
    return [value for value in found if len(value) >= _SHORTEST]


def _is_place(value: str) -> bool:
    """True for a folder, file or socket that is there, as PWD, SSH_AUTH_SOCK and AWS_WEB_IDENTITY_TOKEN_FILE name."""
    try:
        return value.startswith("/") and Path(value).exists()
    except (OSError, ValueError):
        return False


def _password_of(address: str) -> list[str]:
    try:
        password = urlsplit(address.strip()).password
    except ValueError:
        return []
    return [password, unquote(password)] if password else []
