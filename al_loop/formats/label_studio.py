"""label-studio: tasks with annotations, [{data, annotations: [{result: [region, ...]}]}], as Label Studio exports them.

Regions are in percent of the image, which rounds, and a brush is all that can carry an outline pixel by pixel. What a
region was drawn from stands beside it under EXACT, with a hash of the value it was drawn as: it counts as long as
nobody changes the region.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from al_loop.formats.coco import read_mask
from al_loop.formats.opener import ImageIndex, Opener
from al_loop.formats.records import Problem, SourceImage, SourceObject, canonical_label, read_facts
from al_loop.formats.values import as_list, is_blank, read_box, read_moment, read_name, read_shape, read_size
from backend.label_studio.label_config import TAGS, LabelConfig, LabelControl
from backend.label_studio.regions import from_regions

EXACT = "cellloop"  # in a region: {value_sha256, box, shape, mask?, expert?, decided_at?}
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def matches(document: Any) -> bool:
    """Whether a parsed .json file looks like this format: at least one task does."""
    return isinstance(document, list) and any(
        isinstance(task, dict) and isinstance(task.get("data"), dict) and isinstance(task.get("annotations"), list)
        for task in document
    )


def read(documents: dict[str, Any], opener: Opener) -> list[SourceImage]:
    """Every task of every annotation file, in order."""
    index = ImageIndex(opener)
    return [
        _read_task(task, name, opener, index)
        for name, document in sorted(documents.items())
        if matches(document)
        for task in document
    ]


def value_sha256(value: Any) -> str:
    """A hash of a region's value, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read_task(task: Any, annotation: str, opener: Opener, index: ImageIndex) -> SourceImage:
    data = task.get("data") if isinstance(task, dict) else None
    file_name = _file_name(data) if isinstance(data, dict) else None
    if not isinstance(data, dict) or file_name is None:
        return SourceImage("", None, opener, problems=(Problem("unnamed image", f"{annotation}: {str(task)[:80]}"),))
    name = file_name.rsplit("/", 1)[-1]
    facts, problems = read_facts(name, annotation, data, group=data.get("group"), taken_at=data.get("taken_at"))
    submitted = [
        each
        for each in as_list(task.get("annotations"))
        if isinstance(each, dict) and isinstance(each.get("result"), list) and not each.get("was_cancelled")
    ]
    if not submitted:
        problems.append(Problem("unlabelled image", name))
    if len(submitted) > 1:
        problems.append(Problem("several annotations", f"{name}: {len(submitted)}"))
    newest = max(submitted, key=lambda each: str(each.get("updated_at") or each.get("created_at") or ""), default={})
    objects, trouble = _read_result(name, newest.get("result", []), facts)
    return SourceImage(
        name=name,
        file=index.find(annotation, file_name),
        opener=opener,
        labelled=bool(submitted),
        objects=tuple(objects),
        problems=(*problems, *trouble),
        **facts,
    )


def _file_name(data: Mapping[str, Any]) -> str | None:
    """The image a task shows: of its data, "image", else the first value that names an image file."""
    for value in (data.get("image"), *data.values()):
        if not isinstance(value, str) or not value:
            continue
        try:
            address = urlsplit(value)
            path = parse_qs(address.query).get("d", [unquote(address.path)])[0]  # ?d=: a file Label Studio serves
        except ValueError:
            continue
        if path.lower().endswith(SUFFIXES):
            return path.replace("\\", "/")
    return None


def _read_result(name: str, result: list[Any], facts: dict[str, Any]) -> tuple[list[SourceObject], list[Problem]]:
    """The cells of an annotation. facts: of its image; without a size there, the regions' own counts."""
    regions = [item for item in result if isinstance(item, dict)]
    sizes = [(item.get("original_height"), item.get("original_width")) for item in regions]
    height, width = next(
        ((h, w) for h, w in ((facts["height"], facts["width"]), *sizes) if read_size(h) and read_size(w)), (None, None)
    )
    if height is None or width is None:
        return [], [
            Problem("unreadable region", f"{name}: {len(result)} regions, image of unknown size")
        ] if result else []
    size = (height, width)
    drawn = {id(item): _as_drawn(item, size) for item in regions if isinstance(item.get(EXACT), dict)}
    objects = [thing for thing in drawn.values() if thing is not None]
    parsed = from_regions([item for item in result if drawn.get(id(item)) is None], _config_of(regions), size)
    problems = [Problem("unreadable region", f"{name}: {problem}") for problem in parsed.problems]
    for region in parsed.regions:
        label = canonical_label(region.label)
        if label is None:
            problems.append(Problem("unknown category", region.label[:80]))
        else:
            objects.append(SourceObject(label, region.box, region.mask, region.shape, region.key))
    return objects, problems


def _config_of(regions: list[dict[str, Any]]) -> LabelConfig:
    """The controls that drew these regions: a task names them and says what they draw."""
    kinds = {str(item.get("from_name")): str(item.get("type")) for item in regions if str(item.get("type")) in TAGS}
    return LabelConfig("image", "image", tuple(LabelControl(TAGS[kind], name, ()) for name, kind in kinds.items()))


def _as_drawn(item: Mapping[str, Any], size: tuple[int, int]) -> SourceObject | None:
    """What a region of an image of `size` (h, w) px was drawn from; None when it is not that region any more."""
    said, value = item[EXACT], item.get("value")
    if not isinstance(value, dict) or said.get("value_sha256") != value_sha256(value):
        return None
    label, box = canonical_label((as_list(value.get(str(item.get("type")))) or [None])[0]), read_box(said.get("box"))
    counts = said.get("mask")
    mask = None if is_blank(counts) else read_mask({"size": list(size), "counts": counts}, size)
    if label is None or box is None or (mask is None and not is_blank(counts)):
        return None
    shape, expert, moment = read_shape(said.get("shape")), read_name(said.get("expert")), said.get("decided_at")
    return SourceObject(label, box, mask, shape, read_name(item.get("id")), expert, read_moment(moment))
