"""COCO detection files: {images, annotations, categories}, boxes as x, y, w, h, masks as polygons or RLE.

An image may name its "patient" and its "slide" (or "group"), which keep its fields in one split, when it was taken
("date_captured"), its "split", its "sha256" and the "dataset" it belonged to before. An annotation may name the "shape"
that was drawn and its exact "corners" (xyxy). A crowd annotation is an area nobody counted: it becomes "difficult",
which training ignores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from al_loop.formats.opener import ImageIndex, Opener
from al_loop.formats.records import Problem, SourceImage, SourceObject, canonical_label, read_facts
from al_loop.formats.values import Box, as_list, exact_box, read_box, read_shape
from backend.instances import DIFFICULT, Rle
from backend.masks import bounding_box


def matches(document: Any) -> bool:
    """Whether a parsed .json file looks like this format."""
    return isinstance(document, dict) and isinstance(document.get("images"), list) and "annotations" in document


def read(documents: dict[str, Any], opener: Opener) -> list[SourceImage]:
    """Every image of every annotation file, in order."""
    index = ImageIndex(opener)
    found: list[SourceImage] = []
    for name, document in sorted(documents.items()):
        if matches(document):
            found += _read_document(document, name, opener, index)
    return found


def _read_document(document: dict[str, Any], annotation: str, opener: Opener, index: ImageIndex) -> list[SourceImage]:
    listed = [c for c in as_list(document.get("categories")) if isinstance(c, dict)]
    categories = {_key(category.get("id")): category.get("name") for category in listed}
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for thing in as_list(document["annotations"]):
        if isinstance(thing, dict):
            by_image.setdefault(_key(thing.get("image_id")), []).append(thing)
    return [
        _read_image(image, by_image, categories, annotation, opener, index) for image in as_list(document["images"])
    ]


def _key(value: object) -> int | str:
    """An id as files write it; anything else becomes its text, so that it can be looked up and matches nothing."""
    return value if isinstance(value, (int, str)) else repr(value)


def _read_image(
    image: Any,
    by_image: dict[Any, list[dict[str, Any]]],
    categories: dict[Any, Any],
    annotation: str,
    opener: Opener,
    index: ImageIndex,
) -> SourceImage:
    file_name = image.get("file_name") if isinstance(image, dict) else None
    if not isinstance(file_name, str) or not file_name:
        return SourceImage("", None, opener, problems=(Problem("unnamed image", f"{annotation}: {str(image)[:80]}"),))
    name = file_name.replace("\\", "/").rsplit("/", 1)[-1]
    group = image.get("slide") or image.get("group")
    facts, problems = read_facts(name, annotation, image, group=group, taken_at=image.get("date_captured"))
    things = by_image.get(_key(image.get("id")), [])
    objects, trouble = _read_annotations(name, things, categories, (facts["height"], facts["width"]))
    return SourceImage(
        name=name,
        file=index.find(annotation, file_name),
        opener=opener,
        objects=tuple(objects),
        problems=(*problems, *trouble),
        **facts,
    )


def _read_annotations(
    name: str, things: list[dict[str, Any]], categories: dict[Any, Any], size: tuple[int | None, int | None]
) -> tuple[list[SourceObject], list[Problem]]:
    """The cells of one image of `size` (h, w) px, as far as it is known, and what was wrong with the others."""
    objects: list[SourceObject] = []
    problems: list[Problem] = []
    height, width = size
    for thing in things:
        number = _key(thing.get("category_id"))
        label = DIFFICULT if thing.get("iscrowd") == 1 else canonical_label(categories.get(number))
        if label is None:
            category = categories.get(number, f"category {number}")
            problems.append(Problem("unknown category", str(category)[:80]))
            continue
        mask = None
        if thing.get("segmentation"):
            mask = read_mask(thing["segmentation"], (height, width)) if height and width else None
            if mask is None:
                problems.append(Problem("unreadable mask", f"{name}: {label}"))
        box = _read_box(thing, mask)
        if box is None:
            problems.append(Problem("unreadable box", f"{name}: {str(thing.get('bbox'))[:80]}"))
        else:
            objects.append(SourceObject(label, box, mask, read_shape(thing.get("shape"))))
    return objects, problems


def _read_box(thing: dict[str, Any], mask: Rle | None) -> Box | None:
    """xyxy px from x, y, w, h, or from the mask where there is no box."""
    bbox = thing.get("bbox")
    if bbox is None and mask is not None:
        x1, y1, x2, y2 = (float(value) for value in bounding_box(mask))
        return x1, y1, x2, y2
    numbers = read_box(bbox)
    if numbers is None:
        return None
    x, y, w, h = numbers
    return exact_box(thing.get("corners"), (x, y, x + w, y + h))


def read_mask(segmentation: Any, size: tuple[int, int]) -> Rle | None:
    """COCO RLE of an image of `size` (h, w) px from polygons or RLE; None when it cannot be understood or is empty."""
    if isinstance(segmentation, list):
        polygons = [_polygon(points) for points in segmentation]
        if not polygons or any(points is None for points in polygons):
            return None
        mask = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
    elif isinstance(segmentation, dict) and segmentation.get("size") == list(size):
        counts = segmentation.get("counts")
        if isinstance(counts, str):
            counts = read_counts(counts)
        if not isinstance(counts, list) or not all(type(c) is int and c >= 0 for c in counts):
            return None
        if sum(counts) != size[0] * size[1]:  # the decoder writes as many pixels as the counts say
            return None
        mask = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
    else:
        return None
    return mask if coco_mask.area(mask) > 0 else None


def _polygon(points: Any) -> list[float] | None:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return None
    try:
        array = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return array.tolist() if array.ndim == 1 and np.isfinite(array).all() and np.abs(array).max() < 1e6 else None


def read_counts(text: str) -> list[int] | None:
    """Run lengths of a compressed COCO RLE, or None when the text is none.

    Six bits per character from "0" on, the last bit saying whether more follow; from the fourth run on, differences
    to the run two before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts if not shift else None
