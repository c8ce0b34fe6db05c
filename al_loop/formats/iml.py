"""IML_Malaria: a list of {image_name, objects: [{type, bbox: {x, y, w, h}}]}, numbers as strings, px.

File numbers run in the order the fields were taken, so neighbours look alike: groups are blocks of consecutive numbers.
"""

from __future__ import annotations

import re
from typing import Any

from al_loop.formats.opener import ImageIndex, Opener
from al_loop.formats.records import Problem, SourceImage, read_objects
from al_loop.formats.values import as_list, official_split, read_box

BLOCK = 20  # consecutive file numbers that count as one group; the gaps in the numbering fall on multiples of ten


def matches(document: Any) -> bool:
    """Whether a parsed .json file looks like this format: at least one record does."""
    return isinstance(document, list) and any(isinstance(r, dict) and "image_name" in r for r in document)


def read(documents: dict[str, Any], opener: Opener) -> list[SourceImage]:
    """Every record of every annotation file, in order; neighbours in file number share a group."""
    index = ImageIndex(opener)
    return [
        _read_record(record, name, opener, index)
        for name, document in sorted(documents.items())
        if matches(document)
        for record in document
    ]


def _read_record(record: Any, annotation: str, opener: Opener, index: ImageIndex) -> SourceImage:
    name = record.get("image_name") if isinstance(record, dict) else None
    if not isinstance(name, str) or not name:
        return SourceImage("", None, opener, problems=(Problem("unnamed image", f"{annotation}: {str(record)[:80]}"),))
    objects, problems = read_objects(name, as_list(record.get("objects")), _read_object)
    return SourceImage(
        name=name,
        file=index.find(annotation, name),
        opener=opener,
        group=block_of(name),
        official_split=official_split(annotation),
        objects=objects,
        problems=problems,
    )


def block_of(name: str) -> str | None:
    """Group of an image: its block of BLOCK consecutive file numbers, e.g. "PA171690.JPG" -> "PA171680+20"."""
    found = re.search(r"(\d+)(?=\.[^.]*$|$)", name)
    if found is None:
        return None
    first = int(found[1]) // BLOCK * BLOCK
    return f"{name[: found.start()]}{first:0{len(found[1])}d}+{BLOCK}"


def _read_object(thing: dict[str, Any]) -> tuple[object, object]:
    """(category, xyxy) as written; the file says x, y, w, h."""
    corner = thing["bbox"]
    numbers = read_box([corner["x"], corner["y"], corner["w"], corner["h"]])
    if numbers is None:
        return thing.get("type"), None
    x, y, w, h = numbers
    return thing.get("type"), [x, y, x + w, y + h]
