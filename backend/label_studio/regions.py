"""Cells to Label Studio's regions and back: the only place that knows percent coordinates.

Label Studio stores coordinates in percent of the image. A rectangle's x, y is its top left corner and it turns
clockwise about that corner; an ellipse's x, y is its centre. Brush masks are packed by `brush.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend import masks
from backend.errors import UnusableLabelConfig
from backend.instances import Rle
from backend.label_studio.brush import decode_brush, encode_brush
from backend.label_studio.label_config import Kind, LabelConfig, LabelControl, canonical_label

Box = tuple[float, float, float, float]

MAX_KEY = 64  # db: cells.key
POLYGON_TOLERANCE_PX = 1.0
ELLIPSE_CORNERS = 24  # of the polygon drawn for a cell without an outline where polygons are all there is
SMALLEST_PX = 0.5  # a click without a drag leaves a region without area


@dataclass(frozen=True)
class RegionCell:
    """One cell to show. box: xyxy px. score: in [0, 1]. reason: why it deserves a look. mask: COCO RLE, whole image."""

    key: str
    box: Box
    label: str
    score: float
    reason: str | None = None
    mask: Rle | None = None


@dataclass(frozen=True)
class ParsedRegion:
    """One region as an annotation holds it.

    box: xyxy px, inside the image. label: one of ours where the project's spelling allows it, else as it came.
    mask: COCO RLE of what was drawn, None for an upright rectangle. origin: manual (drawn by hand), prediction
    (untouched) or prediction-changed.
    """

    key: str
    box: Box
    label: str
    shape: Kind
    mask: Rle | None
    origin: str


@dataclass(frozen=True)
class ParsedResult:
    """All usable regions of one annotation, and one sentence for each that was left out."""

    regions: list[ParsedRegion]
    problems: list[str]


# --- to Label Studio ---------------------------------------------------------------------------------------


def to_regions(
    cells: Sequence[RegionCell], config: LabelConfig, image_size: tuple[int, int], kind: Kind | None = None
) -> list[dict[str, Any]]:
    """A prediction's `result`: one region per cell. image_size: (h, w) px. kind: overrules the best control.

    The region id is the cell's key, which survives Submit and so tells kept, edited and new cells apart.
    Raises UnusableLabelConfig when the configuration has no control of the kind asked for.
    """
    return [_region(cell, _control(config, kind, cell), config, image_size) for cell in cells]


def _control(config: LabelConfig, kind: Kind | None, cell: RegionCell) -> LabelControl:
    control = config.best(cell.mask is not None) if kind is None else config.control(kind)
    if control is None:
        raise UnusableLabelConfig(f"expected a {kind} control with all our labels, got none; add it or ask for another")
    return control


def _region(
    cell: RegionCell, control: LabelControl, config: LabelConfig, image_size: tuple[int, int]
) -> dict[str, Any]:
    height, width = image_size
    labels = f"{control.kind}labels"
    value = _value(cell, control.kind, image_size)
    # Label Studio stores unknown labels unchecked, and the editor then shows a region without a class.
    value[labels] = [control.spelling(cell.label) or cell.label]
    region: dict[str, Any] = {
        "id": cell.key,
        "type": labels,
        "from_name": control.from_name,
        "to_name": config.to_name,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
        "score": round(min(max(cell.score, 0.0), 1.0), 4),
    }
    if cell.reason:
        region["meta"] = {"text": [cell.reason]}
    return region


def _value(cell: RegionCell, kind: Kind, image_size: tuple[int, int]) -> dict[str, Any]:
    height, width = image_size
    x1, y1, x2, y2 = (float(value) for value in cell.box)
    to_x, to_y = 100.0 / width, 100.0 / height
    if kind == "rectangle":
        return {
            "x": x1 * to_x,
            "y": y1 * to_y,
            "width": (x2 - x1) * to_x,
            "height": (y2 - y1) * to_y,
            "rotation": 0,
        }
    centre, radii = ((x1 + x2) / 2, (y1 + y2) / 2), ((x2 - x1) / 2, (y2 - y1) / 2)
    if kind == "ellipse":
        return {
            "x": centre[0] * to_x,
            "y": centre[1] * to_y,
            "radiusX": radii[0] * to_x,
            "radiusY": radii[1] * to_y,
            "rotation": 0,
        }
    if kind == "polygon":
        return {"points": (_outline(cell, centre, radii) * [to_x, to_y]).tolist(), "closed": True}
    rle = cell.mask if cell.mask is not None else masks.ellipse_to_rle(centre, radii, image_size)
    return {"format": "rle", "rle": encode_brush(masks.decode(rle))}


def _outline(cell: RegionCell, centre: tuple[float, float], radii: tuple[float, float]) -> NDArray[np.float64]:
    if cell.mask is not None:
        points = masks.rle_to_polygon(cell.mask, POLYGON_TOLERANCE_PX)
        if len(points) >= 3:
            return points.astype(np.float64)
    turn = np.linspace(0.0, 2.0 * math.pi, ELLIPSE_CORNERS, endpoint=False)
    return np.stack([centre[0] + radii[0] * np.cos(turn), centre[1] + radii[1] * np.sin(turn)], axis=1)


# --- from Label Studio -------------------------------------------------------------------------------------


def from_regions(result: Sequence[Any], config: LabelConfig, image_size: tuple[int, int]) -> ParsedResult:
    """The cells of an annotation's `result`. image_size: (h, w) px of the stored image.

    Results of other controls (choices, texts) are not ours and pass silently; a region of ours that cannot be
    understood becomes a problem, and the others are kept.
    """
    regions: dict[str, ParsedRegion] = {}
    problems: list[str] = []
    for number, item in enumerate(result, start=1):
        if not isinstance(item, Mapping):
            problems.append(f"region {number}: expected an object, got {type(item).__name__}")
            continue
        control = config.control_named(str(item.get("from_name")))
        if control is None or item.get("type") not in (f"{control.kind}labels", control.kind):
            continue
        try:
            region = _parse(item, control, image_size)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else error
            problems.append(f"region {number} ({str(item.get('id'))[:MAX_KEY]}): {what}")
            continue
        if region.key in regions:
            problems.append(f"region {number} ({region.key}): expected one region per id, got a second; kept the first")
            continue
        regions[region.key] = region
    return ParsedResult(list(regions.values()), problems)


def _parse(item: Mapping[str, Any], control: LabelControl, image_size: tuple[int, int]) -> ParsedRegion:
    value = item["value"]
    labels = value.get(f"{control.kind}labels") or []
    if len(labels) != 1 or not isinstance(labels[0], str):
        raise ValueError(f"expected one label, got {labels!r:.80}")
    if item.get("image_rotation", 0) not in (0, None):
        raise ValueError(f"expected an upright image, got one turned by {item['image_rotation']} degrees; turn it back")
    box, mask = _geometry(value, control.kind, item, image_size)
    return ParsedRegion(
        key=_key(item),
        box=_inside(box, image_size),
        label=canonical_label(labels[0]),
        shape=control.kind,
        mask=mask,
        origin=str(item.get("origin") or "manual"),
    )


def _key(item: Mapping[str, Any]) -> str:
    key = item.get("id")
    if isinstance(key, str) and 0 < len(key) <= MAX_KEY:
        return key
    # Imported annotations may lack ids. The same content must give the same key at every sync.
    content = json.dumps([key, item["value"]], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:10]


def _inside(box: Box, image_size: tuple[int, int]) -> Box:
    height, width = image_size
    x1, y1, x2, y2 = box
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if clipped[2] - clipped[0] < SMALLEST_PX or clipped[3] - clipped[1] < SMALLEST_PX:
        raise ValueError(f"expected an area inside {width} x {height} px, got ({x1:.1f}, {y1:.1f}, {x2:.1f}, {y2:.1f})")
    return clipped


def _number(value: Mapping[str, Any], name: str, scale: float = 1.0) -> float:
    number = float(value[name]) * scale
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {value[name]!r}")
    return number


def _geometry(
    value: Mapping[str, Any], kind: Kind, item: Mapping[str, Any], image_size: tuple[int, int]
) -> tuple[Box, Rle | None]:
    """Bounds xyxy px (not yet clipped) and the mask, None for an upright rectangle."""
    height, width = image_size
    px_x, px_y = width / 100.0, height / 100.0
    if kind == "brush":
        stated = (int(item["original_height"]), int(item["original_width"]))
        if stated != image_size:
            raise ValueError(f"a brush mask: expected {image_size} (h, w) px, got {stated}")
        rle = masks.encode(decode_brush(value["rle"], image_size))
        x1, y1, x2, y2 = (float(v) for v in masks.bounding_box(rle))
        return (x1, y1, x2, y2), rle
    if kind == "polygon":
        points = np.asarray(value["points"], dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
            raise ValueError(f"points: expected at least three finite pairs, got shape {points.shape}")
        return _polygon(points * [px_x, px_y], image_size)
    x, y = _number(value, "x", px_x), _number(value, "y", px_y)
    rotation = _number(value, "rotation") if value.get("rotation") else 0.0
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    if kind == "ellipse":
        a, b = _number(value, "radiusX", px_x), _number(value, "radiusY", px_y)
        half_width, half_height = math.hypot(a * cos, b * sin), math.hypot(a * sin, b * cos)
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        return box, masks.ellipse_to_rle((x, y), (a, b), image_size, rotation)
    w, h = _number(value, "width", px_x), _number(value, "height", px_y)
    if rotation % 360 == 0:
        return (x, y, x + w, y + h), None
    along, down = np.array([cos, sin]) * w, np.array([-sin, cos]) * h
    corner = np.array([x, y])
    return _polygon(np.array([corner, corner + along, corner + along + down, corner + down]), image_size)


def _polygon(points: NDArray[np.float64], image_size: tuple[int, int]) -> tuple[Box, Rle]:
    x1, y1 = (float(v) for v in points.min(axis=0))
    x2, y2 = (float(v) for v in points.max(axis=0))
    return (x1, y1, x2, y2), masks.polygon_to_rle(points, image_size)
