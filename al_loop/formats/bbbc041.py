"""BBBC041: a list of {image: {checksum?, pathname, shape}, objects: [{bounding_box: {minimum, maximum}, category}]}.

r is the row (y) and c the column (x), px. `test.json` is the official test split.
"""

from __future__ import annotations

from typing import Any

from al_loop.formats.opener import ImageIndex, Opener
from al_loop.formats.records import Problem, SourceImage, read_objects
from al_loop.formats.values import as_list, official_split, read_checksum, read_size


def matches(document: Any) -> bool:
    """Whether a parsed .json file looks like this format: at least one record does."""
    return isinstance(document, list) and any(
        isinstance(record, dict) and isinstance(record.get("image"), dict) and "pathname" in record["image"]
        for record in document
    )


def read(documents: dict[str, Any], opener: Opener) -> list[SourceImage]:
    """Every record of every annotation file, in order; each image is its own group."""
    index = ImageIndex(opener)
    return [
        _read_record(record, name, opener, index)
        for name, document in sorted(documents.items())
        if matches(document)
        for record in document
    ]


def _read_record(record: Any, annotation: str, opener: Opener, index: ImageIndex) -> SourceImage:
    header = record.get("image") if isinstance(record, dict) else None
    pathname = header.get("pathname") if isinstance(header, dict) else None
    if not isinstance(header, dict) or not isinstance(pathname, str) or not pathname:
        return SourceImage("", None, opener, problems=(Problem("unnamed image", f"{annotation}: {str(record)[:80]}"),))
    shape = header.get("shape")
    if not isinstance(shape, dict):
        shape = {}
    name = pathname.rsplit("/", 1)[-1]
    objects, problems = read_objects(name, as_list(record.get("objects")), _read_object)
    return SourceImage(
        name=name,
        file=index.find(annotation, pathname),
        opener=opener,
        width=read_size(shape.get("c")),
        height=read_size(shape.get("r")),
        checksum=read_checksum(header.get("checksum")),
        official_split=official_split(annotation),
        objects=objects,
        problems=problems,
    )


def _read_object(thing: dict[str, Any]) -> tuple[object, object]:
    """(category, xyxy) as written."""
    corners = thing["bounding_box"]
    low, high = corners["minimum"], corners["maximum"]
    return thing.get("category"), [low["c"], low["r"], high["c"], high["r"]]
