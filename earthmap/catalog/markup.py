"""XML of strangers as elements: no document type, so no entities and no other files, in whatever encoding it comes."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.parsers import expat

MAX_DEPTH = 32
"""Elements inside elements; Sentinel's metadata have about ten."""


class MarkupError(ValueError):
    """A document that is no plain XML; the caller knows its address."""


def parse_xml(data: bytes) -> ElementTree.Element:
    """The root of an XML document; names of a namespace are `{uri}name`.

    Raises:
        MarkupError: for what is no XML, has a document type, or nests more than `MAX_DEPTH` elements.
    """
    builder, parser, depth = ElementTree.TreeBuilder(), expat.ParserCreate(None, "}"), [0]

    def start(name: str, attributes: dict[str, str]) -> None:
        depth[0] += 1
        if depth[0] > MAX_DEPTH:
            raise MarkupError(f"elements {MAX_DEPTH} deep")
        builder.start(_qualified(name), {_qualified(key): text for key, text in attributes.items()})

    def end(name: str) -> None:
        depth[0] -= 1
        builder.end(_qualified(name))

    def refuse(*_: object) -> None:
        raise MarkupError("a document type, which could declare entities")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.buffer_text = True
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise error if isinstance(error, MarkupError) else MarkupError(f"no XML: {error}") from error
    return builder.close()


def _qualified(name: str) -> str:
    return f"{{{name}" if "}" in name else name
