from __future__ import annotations

import html
import sqlite3
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from earthmap.outputs.markup import escaped, plain_text
from earthmap.outputs.qgis import label_text, text_literal


@given(st.text())
def test_escaped_text_is_read_back_as_it_was(text: str) -> None:
    expected = plain_text(text)
    assert ElementTree.fromstring(f"<a>{escaped(text)}</a>").text == (expected or None)
    assert ElementTree.fromstring(f'<a b="{escaped(text)}"/>').get("b", "").replace("\t", " ") == expected.replace(
        "\t", " "
    )
    assert "\n" not in escaped(text)


@given(st.text())
def test_what_xml_can_hold_stays(text: str) -> None:
    kept = plain_text(text)
    assert len(kept) == len(text)
    assert all(old == new or new == "\ufffd" for old, new in zip(text, kept, strict=True))
    assert html.unescape(html.escape(kept)) == kept


@given(st.text(st.characters(exclude_characters="\\\n\t\x00", codec="utf-8")))
def test_a_literal_is_the_text_whatever_quotes_it_has(text: str) -> None:
    with sqlite3.connect(":memory:") as base:
        assert base.execute(f"SELECT {text_literal(text)}").fetchone()[0] == text


@given(st.text(st.sampled_from("[]% ab\n")))
def test_no_label_is_computed_by_qgis(text: str) -> None:
    assert "[%" not in label_text(text)
