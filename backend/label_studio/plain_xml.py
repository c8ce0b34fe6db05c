"""Reads XML that strangers may have written: no entities, nothing fetched, neither large nor deep."""

from __future__ import annotations

from typing import NoReturn
from xml.etree import ElementTree

from backend.errors import UnusableLabelConfig

LARGEST = 256 * 1024  # characters; our own configurations have some 3,000
DEEPEST = 64  # tags inside each other
MOST = 5000  # tags


class _Bounded(ElementTree.TreeBuilder):
    """Builds the tree, and stops where it is no configuration any more."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.tags = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> ElementTree.Element:
        self.depth += 1
        self.tags += 1
        if self.depth > DEEPEST or self.tags > MOST:
            raise UnusableLabelConfig(
                f"labelling configuration: expected at most {MOST} tags, {DEEPEST} inside each other, got more"
            )
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ElementTree.Element:
        self.depth -= 1
        return super().end(tag)

    def doctype(self, _name: str, _public: str | None, _system: str | None) -> NoReturn:
        # Entities are declared in a document type: refused here, none is ever expanded or fetched.
        raise UnusableLabelConfig("labelling configuration: expected plain XML, got one that declares a document type")


def read_plain_xml(text: str) -> ElementTree.Element:
    """The root of this XML. Raises UnusableLabelConfig for anything else, or what is meant to exhaust us."""
    if len(text) > LARGEST:
        raise UnusableLabelConfig(f"labelling configuration: expected at most {LARGEST} characters, got {len(text)}")
    try:
        return ElementTree.fromstring(text, ElementTree.XMLParser(target=_Bounded()))
    except (ElementTree.ParseError, UnicodeEncodeError) as error:
        raise UnusableLabelConfig(f"labelling configuration: expected XML, got something else ({error})") from error
