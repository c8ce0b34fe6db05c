"""A contact sheet of labelled smears: a row of cells per class with their outlines, and two fields.

Two sources may lie side by side, as rendered and real smears do in the documentation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from al_loop.dataset import LabelledImage
from al_loop.labelled_files import LabelledFile
from backend.errors import NotEnoughData
from backend.images import read_image
from backend.instances import CLASSES, DIFFICULT
from backend.masks import decode

ROWS = (*CLASSES, DIFFICULT)
CROP = 100  # px of the sheet
PER_ROW = 6
TITLE = 120  # px: the names of the classes
GAP = 12
VIEW = 1.8  # sides of a typical cell that a crop shows
OUTLINE = (20, 160, 40)  # RGB

Pixels = NDArray[np.uint8]


def contact_sheet(left: Sequence[LabelledFile], right: Sequence[LabelledFile] = (), per_row: int = PER_ROW) -> Pixels:
    """Cells of every class, those of `left` with outlines, and two fields of each: (h, w, 3) uint8 RGB.

    A source without cells of a class leaves its place empty. Raises NotEnoughData without any image on the left.
    """
    if not left:
        raise NotEnoughData("contact sheet: expected at least one labelled image, got none; render or import some")
    blocks = [_block(left, per_row, outlined=True)]
    if right:
        blocks += [np.full((1, GAP, 3), 255, np.uint8), _block(right, per_row, outlined=False)]
    tallest = max(block.shape[0] for block in blocks)
    titles = np.full((tallest, TITLE, 3), 255, np.uint8)
    for row, name in enumerate(ROWS):
        where = (4, row * CROP + CROP // 2)
        cv2.putText(titles, name, where, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return np.hstack([_padded(block, tallest) for block in (titles, *blocks)])


def _padded(block: Pixels, height: int) -> Pixels:
    return np.pad(block, ((0, height - block.shape[0]), (0, 0), (0, 0)), constant_values=255)


def _block(files: Sequence[LabelledFile], per_row: int, *, outlined: bool) -> Pixels:
    """One source: ROWS rows of crops over two fields, per_row * CROP px wide."""
    half = _typical_side(files) * VIEW / 2
    chosen = {name: _choose(files, name, per_row) for name in ROWS}
    rows: dict[str, list[Pixels]] = {name: [np.full((CROP, CROP, 3), 255, np.uint8)] * per_row for name in ROWS}
    for file in files:  # one image at a time is held
        wanted = [(n, k, c) for n in ROWS for k, (owner, c) in enumerate(chosen[n]) if owner is file]
        pixels = read_image(file.labelled.file) if wanted else None
        for name, place, cell in wanted:
            assert pixels is not None
            rows[name][place] = _crop(pixels, file.labelled, cell, half, outlined)
    width = per_row * CROP // 2
    spread = [files[0], files[len(files) // 2]]
    height = round(width * min(one.labelled.height / one.labelled.width for one in spread))
    views = [cv2.resize(read_image(one.labelled.file), (width, height), interpolation=cv2.INTER_AREA) for one in spread]
    return np.vstack([*(np.hstack(rows[name]) for name in ROWS), np.hstack(views)])


def _typical_side(files: Sequence[LabelledFile]) -> float:
    """Median side of all boxes, px."""
    boxes = np.array([cell.box for file in files for cell in file.labelled.cells], dtype=np.float64).reshape(-1, 4)
    return float(np.median(boxes[:, 2:] - boxes[:, :2])) if len(boxes) else 100.0


def _choose(files: Sequence[LabelledFile], name: str, count: int) -> list[tuple[LabelledFile, int]]:
    """Up to `count` whole cells of a class, as (file, index of the cell), from as many slides and images as can be."""
    found: list[tuple[int, int, LabelledFile, int]] = []
    met: Counter[str | None] = Counter()
    for file in files:
        order = met[file.group]
        met[file.group] += 1
        width, height = file.labelled.width, file.labelled.height
        nth = 0
        for index, cell in enumerate(file.labelled.cells):
            x1, y1, x2, y2 = cell.box
            if cell.label == name and x1 > 1 and y1 > 1 and x2 < width - 1 and y2 < height - 1:
                found.append((nth, order, file, index))
                nth += 1
    found.sort(key=lambda entry: entry[:2])
    return [(file, index) for _, _, file, index in found[:count]]


def _crop(pixels: Pixels, image: LabelledImage, index: int, half: float, outlined: bool) -> Pixels:
    """A square of 2 * half px around one cell, at CROP px, with its outline if it has one."""
    cell = image.cells[index]
    x1, y1, x2, y2 = cell.box
    left, top = round((x1 + x2) / 2 - half), round((y1 + y2) / 2 - half)
    side = round(2 * half)

    def view(plane: NDArray[np.uint8], outside: int) -> Pixels:
        edge = cv2.copyMakeBorder(plane, side, side, side, side, cv2.BORDER_CONSTANT, value=[outside] * 3)
        whole = edge[top + side : top + 2 * side, left + side : left + 2 * side]
        return np.asarray(cv2.resize(whole, (CROP, CROP), interpolation=cv2.INTER_AREA), dtype=np.uint8)

    shown = view(pixels, 255)
    if outlined and cell.mask is not None:
        mask = decode({"size": [image.height, image.width], "counts": cell.mask.encode("ascii")})
        contours, _ = cv2.findContours(view(mask.astype(np.uint8), 0), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown, contours, -1, OUTLINE, 1, cv2.LINE_AA)
    return shown
