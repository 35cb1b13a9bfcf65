"""Text from outside as a part of XML."""

from __future__ import annotations

import html
import re

_NEVER = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document may hold, escaped or not (XML 1.0, production 2)."""


def plain_text(text: str) -> str:
    """The text with U+FFFD for every character that XML cannot hold.

    Example:
        >>> plain_text("a\\x01b")
        'a\ufffdb'
    """
    return _NEVER.sub("\ufffd", text)


def escaped(text: str) -> str:
    """The text as content or attribute of XML or HTML, on one line: a line break is a character reference.

    Example:
        >>> escaped('<b> "x"\\ny')
        '&lt;b&gt; &quot;x&quot;&#10;y'
    """
    return html.escape(plain_text(text), quote=True).replace("\n", "&#10;").replace("\r", "&#13;")
