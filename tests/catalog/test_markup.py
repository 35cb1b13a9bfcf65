"""Hostile XML in any encoding ends in one error; plain XML is what ElementTree makes of it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog.markup import MarkupError, parse_xml
from earthmap.catalog.products import read_xml
from earthmap.errors import CatalogError

LAUGHS = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]><a>&y;</a>'
OUTSIDE = '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>'
PARAMETER = '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1/x"> %p;]><a/>'


@pytest.mark.parametrize("text", [LAUGHS, OUTSIDE, PARAMETER], ids=["laughs", "outside", "parameter"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-7", "utf-32"])
def test_a_document_type_is_refused_in_every_encoding(text: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "MTD_MSIL2A.xml"
    for head in ("", f'<?xml version="1.0" encoding="{encoding}"?>'):
        path.write_bytes((head + text).encode(encoding))
        with pytest.raises(CatalogError, match=r"document type|no XML"):
            read_xml(str(path))


@pytest.mark.parametrize("data", [b"", b"not xml", b"<a>", b"<a>" * 100_000, b"<a>" * 40 + b"</a>" * 40, b"\0" * 9])
def test_what_is_no_plain_xml(data: bytes) -> None:
    with pytest.raises(MarkupError):
        parse_xml(data)


@given(st.binary(max_size=200))
def test_no_bytes_escape_the_parser(data: bytes) -> None:
    with contextlib.suppress(MarkupError):
        parse_xml(data)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_plain_xml_is_what_elementtree_makes_of_it(encoding: str) -> None:
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?><n:a xmlns:n="urn:x" n:k="1" k="é"><b>ü<c/>t</b><n:d>2</n:d></n:a>'
    )
    data = text.encode(encoding)
    assert ElementTree.tostring(parse_xml(data)) == ElementTree.tostring(ElementTree.fromstring(data))
