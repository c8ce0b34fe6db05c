"""What every annotation format is read into, and the rules all of them share: categories, boxes, problems.

A bad record never stops a reading: it is counted under a problem's name, and the rest goes in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, BinaryIO

from al_loop.formats.opener import Opener
from al_loop.formats.values import (
    Box,
    is_blank,
    official_split,
    read_box,
    read_checksum,
    read_moment,
    read_name,
    read_size,
)
from backend.instances import CLASSES, DIFFICULT, Rle

MIN_SIDE_PX = 2.0
PROBLEMS: dict[str, str] = {
    "missing image": "the annotation file names an image that is not there",
    "unnamed image": "a record names no image",
    "checksum mismatch": "the image's md5 or sha256 is not the one its record gives",
    "unreadable image": "the file is not an image that can be read safely",
    "size mismatch": "the image is not as large as its record says, so its boxes cannot be trusted; left out",
    "duplicate image": "the same image occurs twice in the source",
    "forgotten image": "its patient was forgotten, so it stays out: see `cellloop forget-patient --list`",
    "forgotten patient": "somebody who was forgotten is back with other images: forget them again, or leave them",
    "unknown category": "a category nobody knows; the box is left out",
    "unreadable box": "a box without four finite numbers",
    "degenerate box": "a box less than 2 px wide or high inside the image; left out",
    "box outside the image": "a box reached outside the image and was clipped",
    "unreadable mask": "a segmentation that cannot be understood; the box is kept",
    "unreadable region": "a region that cannot be understood; left out",
    "unreadable row": "a row with more values than there are columns; left out",
    "contradicting row": "a row says other things of its image than the first one, which counts",
    "unreadable moment": "when the image was taken cannot be understood; left open",
    "unlabelled image": "a task without a submitted annotation; the image comes in without labels",
    "several annotations": "a task with more than one annotation; the newest counts",
    "name that does not fit": "the file name does not match --name-pattern, which says nothing of this image",
    "another patient": "the record holds another patient or day for an image that was there already; it stays",
    "slide of several patients": "all images of these patients go into one split; give slides unique names",
    "patient in several splits": "images of one patient lie in more than one split, which flatters the test",
}

# Names seen in the wild, lower case and single spaces, for our classes and "difficult".
_ALIASES: dict[str, str] = {
    "rbc": "red blood cell",
    "red cell": "red blood cell",
    "erythrocyte": "red blood cell",
    "uninfected": "red blood cell",
    "healthy": "red blood cell",
    "normal": "red blood cell",
    "wbc": "leukocyte",
    "white blood cell": "leukocyte",
    "leucocyte": "leukocyte",
    "ring stage": "ring",
    "early trophozoite": "ring",
    "troph": "trophozoite",
    "late trophozoite": "trophozoite",
    "gamet": "gametocyte",
    "ignore": DIFFICULT,
    "uncertain": DIFFICULT,
}
_KNOWN = {*CLASSES, DIFFICULT}


def canonical_label(category: object) -> str | None:
    """Our name for a category as a file spells it, or None when nobody knows it."""
    if not isinstance(category, str):
        return None
    name = " ".join(category.lower().replace("_", " ").replace("-", " ").split())
    for candidate in (name, _ALIASES.get(name), _singular(name), _ALIASES.get(_singular(name))):
        if candidate in _KNOWN:
            return candidate
    return None


def _singular(name: str) -> str:
    return name[:-1] if name.endswith("s") else name


@dataclass(frozen=True)
class SourceObject:
    """One cell of a source. label: a class or "difficult"; box: xyxy px as written; mask: COCO RLE of the image.

    shape: what was drawn, rectangle | ellipse | polygon | brush; key: the cell's own, to be kept; expert, decided_at:
    who said it and when. Each None where the source does not say.
    """

    label: str
    box: Box
    mask: Rle | None = None
    shape: str | None = None
    key: str | None = None
    expert: str | None = None
    decided_at: datetime | None = None

    def content(self) -> dict[str, Any]:
        """What the source says, for the review that records it; masks are kept with the label."""
        moment = self.decided_at.isoformat() if self.decided_at else None
        said = {"label": self.label, "box": list(self.box), "shape": self.shape, "expert": self.expert}
        return {name: value for name, value in {**said, "decided_at": moment}.items() if value is not None}


@dataclass(frozen=True)
class Problem:
    """Something left out or mended: what kind, and which image or category it concerns."""

    kind: str  # a key of PROBLEMS
    detail: str


@dataclass(frozen=True)
class SourceImage:
    """One image of a source with its objects; nothing of it is decoded yet.

    file: name within the source, None when the image is not there. name: the image's own file name.
    width, height, checksum (md5 or sha256, hex), dataset (the one it belonged to before), group (slide), patient,
    taken_at, official_split (train | validation | test): as the record says, None when it does not.
    labelled: whether `objects` are all its cells; else nobody labelled it. problems: what was wrong with the record.
    """

    name: str
    file: str | None
    opener: Opener = field(repr=False, compare=False)
    width: int | None = None
    height: int | None = None
    checksum: str | None = None
    dataset: str | None = None
    group: str | None = None
    patient: str | None = None
    taken_at: datetime | None = None
    official_split: str | None = None
    labelled: bool = True
    objects: tuple[SourceObject, ...] = ()
    problems: tuple[Problem, ...] = ()

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The image file's bytes. Only for images that are there (`file` is not None)."""
        if self.file is None:
            raise FileNotFoundError(f"{self.name}: expected the image in the source, it is not there")
        with self.opener.open(self.file) as handle:
            yield handle

    def sha256(self) -> str:
        """sha256 of the image file, hex."""
        with self.open() as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]  # every opener's can

    def usable_objects(self, width: int, height: int) -> tuple[list[SourceObject], list[Problem]]:
        """Objects with their boxes clipped to the image (px), and what had to be clipped or left out."""
        kept: list[SourceObject] = []
        problems: list[Problem] = []
        for thing in self.objects:
            box, changed = clip_box(thing.box, width, height)
            if box is None:
                problems.append(Problem("degenerate box", f"{self.name}: {thing.label} {thing.box}"))
                continue
            if changed:
                problems.append(Problem("box outside the image", f"{self.name}: {thing.label} {thing.box}"))
            kept.append(replace(thing, box=box))
        return kept, problems


def read_facts(
    name: str, annotation: str, said: Mapping[str, Any], *, group: object, taken_at: object
) -> tuple[dict[str, Any], list[Problem]]:
    """What a record says of its image besides its cells, as fields of a SourceImage, and what could not be understood.

    said: values by the names that all formats share; group and taken_at, whose names differ, come apart.
    """
    moment = read_moment(taken_at)
    unreadable = moment is None and taken_at != 0 and not is_blank(taken_at)
    facts = {
        "width": read_size(said.get("width")),
        "height": read_size(said.get("height")),
        "checksum": read_checksum(said.get("sha256")),
        "dataset": read_name(said.get("dataset")),
        "group": read_name(group),
        "patient": read_name(said.get("patient")),
        "taken_at": moment,
        "official_split": official_split(str(said.get("split"))) or official_split(annotation),
    }
    return facts, [Problem("unreadable moment", f"{name}: {str(taken_at)[:80]}")] if unreadable else []


def read_objects(
    image_name: str, things: list[Any], read_object: Callable[[dict[str, Any]], tuple[object, object]]
) -> tuple[tuple[SourceObject, ...], tuple[Problem, ...]]:
    """Objects of one record and what was wrong with the others.

    read_object gives (category, four numbers xyxy) as written, and may raise KeyError, TypeError or IndexError.
    """
    objects: list[SourceObject] = []
    problems: list[Problem] = []
    for thing in things:
        try:
            category, corners = read_object(thing)
        except (KeyError, TypeError, IndexError, AttributeError):
            problems.append(Problem("unreadable box", f"{image_name}: {str(thing)[:80]}"))
            continue
        label, box = canonical_label(category), read_box(corners)
        if label is None:
            problems.append(Problem("unknown category", str(category)[:80]))
        elif box is None:
            problems.append(Problem("unreadable box", f"{image_name}: {str(corners)[:80]}"))
        else:
            objects.append(SourceObject(label, box))
    return tuple(objects), tuple(problems)


def clip_box(box: Box, width: int, height: int) -> tuple[Box | None, bool]:
    """(box clipped to the image, whether clipping changed it by more than half a pixel).

    The box is None when less than 2 px of it are inside.
    """
    x1, y1, x2, y2 = box
    clipped = (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))
    changed = max(abs(a - b) for a, b in zip(box, clipped, strict=True)) > 0.5
    if clipped[2] - clipped[0] < MIN_SIDE_PX or clipped[3] - clipped[1] < MIN_SIDE_PX:
        return None, changed
    return clipped, changed
