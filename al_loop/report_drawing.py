"""Cells outlined and named on a picture: legible at the size it is shown in, labels kept off each other."""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from backend.images import CLASS_COLOURS
from backend.instances import CLASSES, INFECTED_INDEX, Instances
from backend.masks import rle_to_polygon

Pixels = NDArray[np.uint8]
Area = tuple[float, float, float, float]

TEXT_PX = 15
RED = CLASSES.index("red blood cell")


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: the same letters on every machine."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever is easier to read on this colour."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else (255, 255, 255)


def outlined(image: Pixels, cells: Instances, width: int, *, scores: bool = True) -> Pixels:
    """The image (h, w, 3) uint8 scaled to `width` px with every cell outlined in its class's colour.

    Red cells get a thin line and no label: a hundred labels would hide what they name. scores: add the probability.
    """
    scale = width / image.shape[1]
    size = (width, max(1, round(image.shape[0] * scale)))
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    for index in np.argsort(np.isin(cells.labels, INFECTED_INDEX), kind="stable"):  # infected ones on top
        thickness = 1 if cells.labels[index] == RED else 2
        points = np.rint(_outline(cells, index) * scale).astype(np.int32)
        cv2.polylines(canvas, [points], True, CLASS_COLOURS[cells.labels[index]], thickness, cv2.LINE_AA)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    taken: list[Area] = []
    for index in np.argsort(-cells.scores, kind="stable"):
        if cells.labels[index] != RED:
            share = cells.probabilities[index, cells.labels[index]]
            text = CLASSES[cells.labels[index]] + (f" {share:.2f}" if scores else "")
            _tag(draw, text, CLASS_COLOURS[cells.labels[index]], cells.boxes[index] * scale, size, taken)
    return np.asarray(picture)


def _outline(cells: Instances, index: int) -> NDArray[np.float64]:
    points = rle_to_polygon(cells.masks[index]) if len(cells.masks) else np.zeros((0, 2))
    if len(points):
        return np.asarray(points, dtype=np.float64)
    x1, y1, x2, y2 = cells.boxes[index]
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)


def _tag(
    draw: ImageDraw.ImageDraw,
    text: str,
    colour: tuple[int, int, int],
    box: NDArray[np.float32],
    size: tuple[int, int],
    taken: list[Area],
) -> None:
    """Write `text` above, below or beside the box (4,) xyxy px, where it stays inside and covers no other label."""
    letters = font(TEXT_PX)
    wide, high = letters.getlength(text) + 6, TEXT_PX + 5
    x1, y1, x2, y2 = (float(value) for value in box)
    middle = (y1 + y2 - high) / 2
    places = [(x1, y1 - high), (x1, y2), (x2, middle), (x1 - wide, middle), (x2 - wide, y1 - high), (x2 - wide, y2)]
    inside = [(min(max(x, 0), size[0] - wide), min(max(y, 0), size[1] - high)) for x, y in places]
    areas: list[Area] = [(x, y, x + wide, y + high) for x, y in inside]
    area = min(areas, key=lambda a: sum(_overlap(a, other) for other in taken))
    taken.append(area)
    draw.rectangle(area, fill=colour)
    draw.text((area[0] + 3, area[1] + 1), text, font=letters, fill=ink(colour))


def _overlap(a: Area, b: Area) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def side_by_side(panels: dict[str, Pixels], gap: int = 12, head: int = 40) -> Pixels:
    """Panels of equal size (h, w, 3) uint8 in one row on white, each under its name."""
    height, width = next(iter(panels.values())).shape[:2]
    picture = Image.new("RGB", (len(panels) * (width + gap) - gap, height + head), "white")
    draw = ImageDraw.Draw(picture)
    for column, (name, pixels) in enumerate(panels.items()):
        picture.paste(Image.fromarray(pixels), (column * (width + gap), head))
        draw.text((column * (width + gap) + 4, 5), name, font=font(25), fill="black")
    return np.asarray(picture)


def crop(image: Pixels, box: NDArray[np.float32], colour: tuple[int, int, int], side: int = 200) -> Pixels:
    """A square (side, side, 3) uint8 around the box (4,) xyxy px, two and a half cells wide; the box is outlined."""
    x1, y1, x2, y2 = (float(value) for value in box)
    reach = max(x2 - x1, y2 - y1, 8.0) * 1.25
    left, top = (x1 + x2) / 2 - reach, (y1 + y2) / 2 - reach
    scale = side / (2 * reach)
    moved = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    canvas = cv2.warpAffine(image, moved, (side, side), flags=cv2.INTER_LINEAR, borderValue=(235, 235, 235))
    corners = [(round((x - left) * scale), round((y - top) * scale)) for x, y in ((x1, y1), (x2, y2))]
    cv2.rectangle(canvas, corners[0], corners[1], colour, 2, cv2.LINE_AA)
    return np.asarray(canvas, dtype=np.uint8)


def png(pixels: Pixels) -> bytes:
    """The picture as a PNG file."""
    return _encoded(pixels, "PNG", optimize=False)


def inline(pixels: Pixels) -> str:
    """The picture as a data: address (JPEG), for a page that asks nothing of anybody."""
    data = base64.b64encode(_encoded(pixels, "JPEG", quality=84)).decode("ascii")
    return f"data:image/jpeg;base64,{data}"


def _encoded(pixels: Pixels, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()
