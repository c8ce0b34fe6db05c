"""One cell with its surroundings, outlined without being covered: what an expert judges. Pure."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

VIEW = 1  # raise it when the drawing changes: it is part of what a cache knows a crop by
CONTEXT = 3.0  # side of the crop, in sides of the cell
LEAST_PX = 48  # of the image; a tiny box still shows what is around it
GAP = 0.12  # between the cell's box and its outline, in sides of the cell
LEAST_GAP_PX = 12  # of the crop
CORNER = 0.3  # length of an outline's corner, in sides of the outline
BACKGROUND = (240, 240, 240)  # beyond the image's edge
LIGHT, DARK = (255, 255, 255), (20, 20, 20)
QUALITY = 90

Box = tuple[float, float, float, float]


def draw_crop(image: NDArray[np.uint8], box: Box, side_px: int) -> NDArray[np.uint8]:
    """The cell in the middle of a square of `side_px` px, about three times its size, four corners around it.

    image: (h, w, 3) RGB uint8. box: xyxy px. Where the square leaves the image there is a plain background, so that
    the cell stays in the middle at its true proportions.
    """
    x1, y1, x2, y2 = box
    cell = max(x2 - x1, y2 - y1)
    side = max(cell * CONTEXT, float(LEAST_PX))
    scale = side_px / side
    left, top = (x1 + x2 - side) / 2, (y1 + y2 - side) / 2
    transform = np.array([[scale, 0.0, -left * scale], [0.0, scale, -top * scale]])
    crop = cv2.warpAffine(
        np.ascontiguousarray(image),
        transform,
        (side_px, side_px),
        flags=cv2.INTER_CUBIC if scale >= 1 else cv2.INTER_AREA,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=BACKGROUND,
    ).astype(np.uint8)
    gap = max(cell * GAP * scale, LEAST_GAP_PX)
    corners = np.array([x1 - left, y1 - top, x2 - left, y2 - top]) * scale + [-gap, -gap, gap, gap]
    _outline(crop, corners.round().astype(int).tolist())
    return crop


def _outline(crop: NDArray[np.uint8], corners: list[int]) -> None:
    """Four corners, dark within light: seen on every stain, and the cell's rim stays free."""
    x1, y1, x2, y2 = corners
    length = max(6, round(min(x2 - x1, y2 - y1) * CORNER))
    for colour, thickness in ((LIGHT, 5), (DARK, 2)):
        for x, dx in ((x1, length), (x2, -length)):
            for y, dy in ((y1, length), (y2, -length)):
                cv2.line(crop, (x, y), (x + dx, y), colour, thickness, cv2.LINE_AA)
                cv2.line(crop, (x, y), (x, y + dy), colour, thickness, cv2.LINE_AA)


def jpeg(crop: NDArray[np.uint8]) -> bytes:
    """The crop as a JPEG file. crop: (h, w, 3) RGB uint8."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return data.tobytes()
