"""Tiny smears and a detector that understands them: dark discs on a bright field, the darkest ones infected."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.embed import embed
from backend.instances import CLASS_INDEX, CLASSES, Instances
from backend.look import Sight

WIDTH, HEIGHT = 64, 48


def smear(seed: int, cells: int = 2) -> NDArray[np.uint8]:
    """(HEIGHT, WIDTH, 3) uint8 RGB with `cells` discs (at most 3) side by side; the first one is infected."""
    rng = np.random.default_rng(seed)
    image = rng.integers(220, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index in range(cells):
        shade = 20 if index == 0 else 120
        centre = (12 + 20 * index, int(rng.integers(12, HEIGHT - 12)))
        cv2.circle(image, centre, 7, (shade, shade, shade), -1)
    return image


def png(seed: int, cells: int = 2) -> bytes:
    """The smear as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(smear(seed, cells)).save(file, "PNG")
    return file.getvalue()


class DiscDetector:
    """Finds the dark discs of `smear` by thresholding; the role `infected` sees only the darkest.

    `tint` moves its scores a little, so that two versions can be told apart.
    """

    def __init__(self, role: str, tint: float = 0.0) -> None:
        self.role = role
        self.score = 0.9 - tint

    def look(self, image: NDArray[np.uint8], beside: Sight | None = None) -> Sight:
        """What `detect` finds; of masks it knows nothing, and cells look to it as dark as they are large."""
        return Sight(self.detect(image), masks=lambda boxes: [], embeddings=lambda boxes: embed(_looks(image, boxes)))

    def detect(self, image: NDArray[np.uint8], masks: bool = False) -> Instances:
        """The discs of the image (h, w, 3) uint8, left to right."""
        dark = (image[..., 0] < (60 if self.role == "infected" else 180)).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(dark)
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:]], dtype=np.float32).reshape(-1, 4)
        label = CLASS_INDEX["ring" if self.role == "infected" else "red blood cell"]
        probabilities = np.zeros((len(boxes), len(CLASSES)), dtype=np.float32)
        probabilities[:, label] = self.score
        return Instances(
            image_size=image.shape[:2],
            boxes=boxes[np.argsort(boxes[:, 0])],
            labels=np.full(len(boxes), label, dtype=np.int64),
            scores=np.full(len(boxes), self.score, dtype=np.float32),
            probabilities=probabilities,
        )


def _looks(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 2) float32: the mean shade of each box's middle, and its width, in px."""
    middles = ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(int)
    shades = [float(image[y, x].mean()) for x, y in middles]
    return np.column_stack([shades, boxes[:, 2] - boxes[:, 0]]).astype(np.float32).reshape(-1, 2)
