"""Tables with one row per cell, and one without a label for an image without cells: what csv and parquet share.

Only `image`, `label` and the box must be there; every other column may be missing, and unknown ones are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from al_loop.formats.coco import read_mask
from al_loop.formats.opener import ImageIndex, Opener
from al_loop.formats.records import Problem, SourceImage, SourceObject, canonical_label, read_facts
from al_loop.formats.values import is_blank, read_box, read_moment, read_name, read_shape

IMAGE_COLUMNS: dict[str, str] = {
    "image": "file name, relative to the table or to images/ beside it",
    "sha256": "of the image file, 64 hex digits",
    "width": "px",
    "height": "px",
    "dataset": "the data set the image came with",
    "group": "slide or block of neighbouring fields: never divided between splits",
    "patient": "whose smear it is",
    "taken_at": "when it was taken, ISO 8601 in UTC",
    "split": "train, validation or test",
}
CELL_COLUMNS: dict[str, str] = {
    "cell": "the cell's key in the record",
    "label": "a class or difficult",
    "x1": "left edge of the box, px",
    "y1": "upper edge, px",
    "x2": "right edge, px",
    "y2": "lower edge, px",
    "shape": "what was drawn: rectangle, ellipse, polygon or brush",
    "mask": "the outline an expert drew: counts of a COCO run-length encoding of the whole image",
    "expert": "who said it; import: it came with the data set",
    "decided_at": "when, ISO 8601 in UTC",
}
COLUMNS: tuple[str, ...] = (*IMAGE_COLUMNS, *CELL_COLUMNS)
CORNERS = ("x1", "y1", "x2", "y2")
REQUIRED = {"image", "label", *CORNERS}
EXTRA = ""  # a row's key for what stands beyond the last column

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """An annotation table. kind: csv | parquet. rows: values by column; none when one of REQUIRED is missing."""

    kind: str
    columns: tuple[str, ...]
    rows: Sequence[Row] = ()

    def usable(self, kind: str) -> bool:
        """Whether this is a table of cells of that kind."""
        return self.kind == kind and set(self.columns) >= REQUIRED


def read_tables(documents: dict[str, Any], opener: Opener, matches: Callable[[Any], bool]) -> list[SourceImage]:
    """Every image of every table that matches, in the order of its first row."""
    index = ImageIndex(opener)
    found: list[SourceImage] = []
    for annotation, table in sorted(documents.items()):
        if not matches(table):
            continue
        by_image: dict[str | None, list[Row]] = {}
        for row in table.rows:
            by_image.setdefault(_file_name(row), []).append(row)
        for file_name, rows in by_image.items():
            if file_name is None:
                unnamed = tuple(Problem("unnamed image", f"{annotation}: {_shown(row)}") for row in rows)
                found.append(SourceImage("", None, opener, problems=unnamed))
            else:
                found.append(_read_image(file_name, rows, annotation, opener, index))
    return found


def _file_name(row: Row) -> str | None:
    name = row.get("image")
    return name.strip().replace("\\", "/") or None if isinstance(name, str) else None


def _shown(row: Row) -> str:
    return str({name: value for name, value in row.items() if not is_blank(value)})[:80]


def _read_image(file_name: str, rows: Sequence[Row], annotation: str, opener: Opener, index: ImageIndex) -> SourceImage:
    name, first = file_name.rsplit("/", 1)[-1], rows[0]
    said = {**first, "width": _whole(first.get("width")), "height": _whole(first.get("height"))}
    facts, problems = read_facts(name, annotation, said, group=first.get("group"), taken_at=first.get("taken_at"))
    objects: list[SourceObject] = []
    for row in rows:
        if EXTRA in row:
            problems.append(Problem("unreadable row", f"{name}: {_shown(row)}"))
            continue
        if other := [column for column in IMAGE_COLUMNS if not _same(row.get(column), first.get(column))]:
            problems.append(Problem("contradicting row", f"{name}: {other[0]} {row.get(other[0])!r:.80}"))
        if any(not is_blank(row.get(column)) for column in ("label", *CORNERS)):
            thing, trouble = _read_cell(name, row, (facts["height"], facts["width"]))
            objects += [thing] if thing else []
            problems += trouble
    return SourceImage(
        name=name,
        file=index.find(annotation, file_name),
        opener=opener,
        objects=tuple(objects),
        problems=tuple(problems),
        **facts,
    )


def _same(one: object, other: object) -> bool:
    return one == other or (is_blank(one) and is_blank(other))


def _read_cell(name: str, row: Row, size: tuple[int | None, int | None]) -> tuple[SourceObject | None, list[Problem]]:
    label, corners = canonical_label(row.get("label")), [row.get(column) for column in CORNERS]
    box = read_box(corners)
    if label is None:
        return None, [Problem("unknown category", str(row.get("label"))[:80])]
    if box is None:
        return None, [Problem("unreadable box", f"{name}: {str(corners)[:80]}")]
    mask, (height, width) = None, size
    counts = row.get("mask")
    if not is_blank(counts) and height and width:
        mask = read_mask({"size": [height, width], "counts": counts}, (height, width))
    thing = SourceObject(
        label, box, mask, read_shape(row.get("shape")), read_name(row.get("cell")), read_name(row.get("expert")),
        read_moment(row.get("decided_at")),
    )  # fmt: skip
    lost = mask is None and not is_blank(counts)
    return thing, [Problem("unreadable mask", f"{name}: {label}")] if lost else []


def _whole(value: object) -> int | None:
    """A whole number from a number or its text, or None."""
    try:
        number = float(value)  # type: ignore[arg-type]  # anything else raises, and is none
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None
