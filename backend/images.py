"""Reading images that strangers hand in, and drawing cells onto them.

Everything that can be refused is refused from the header and the last bytes, before a single pixel is decoded.
Pixels are upright RGB uint8 (h, w, 3): the EXIF orientation is applied, as the browser does that shows the image.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from backend.errors import ImageRefused
from backend.instances import CLASSES, Instances
from backend.masks import rle_to_polygon

MAX_PIXELS = 40_000_000
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_JPEGS = ("JPEG", "MPO")  # MPO: a camera's JPEG with a second picture behind the first

# Where the end of a complete file stands. Some programs append a few bytes of their own, hence a window.
_END_MARKS = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "MPO": b"\xff\xd9"}
_END_WINDOW = 65_536
_EXIF_ORIENTATION, _EXIF_SIDEWAYS = 0x0112, (5, 6, 7, 8)

# Okabe and Ito's colours, told apart with every kind of colour vision. RGB, in the order of CLASSES.
CLASS_COLOURS: tuple[tuple[int, int, int], ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (240, 228, 66),
    (204, 121, 167),
    (0, 158, 115),
    (86, 180, 233),
)


class ImageFacts(NamedTuple):
    """What the header tells. width, height: px, upright. format: one of FORMATS, or MPO."""

    width: int
    height: int
    format: str


def _name(source: Path | str | bytes) -> str:
    return f"{len(source)} bytes" if isinstance(source, bytes) else Path(source).name


def _open(source: Path | str | bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower and refuses
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageRefused(
            f"{_name(source)}: expected at most {MAX_PIXELS // 10**6} megapixels, got far more; scale it down or cut it"
        ) from error
    except FileNotFoundError as error:
        raise ImageRefused(f"{_name(source)}: expected an image file, found no file; check the path") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ImageRefused(
            f"{_name(source)}: expected an image ({', '.join(FORMATS)}), got something else or a damaged header"
        ) from error


def _tail(source: Path | str | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[-_END_WINDOW:]
    with Path(source).open("rb") as file:
        file.seek(max(0, Path(source).stat().st_size - _END_WINDOW))
        return file.read()


def _check(image: Image.Image, source: Path | str | bytes) -> ImageFacts:
    width, height = image.size
    kind = str(image.format)
    if width * height > MAX_PIXELS:
        raise ImageRefused(
            f"{_name(source)}: expected at most {MAX_PIXELS // 10**6} megapixels, got {width} x {height}; "
            "scale it down or cut it into fields"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and kind not in _JPEGS:
        raise ImageRefused(f"{_name(source)}: expected one image, got {frames} frames or pages; export a single one")
    mark = _END_MARKS.get(kind)
    if mark is not None and mark not in _tail(source):
        raise ImageRefused(f"{_name(source)}: the {kind} file ends too early; copy it again from where it came from")
    # Only JPEGs are turned: Pillow must decode a whole PNG to know, and browsers show it as it is stored.
    if kind in _JPEGS and image.getexif().get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS:
        width, height = height, width
    return ImageFacts(width, height, kind)


def probe(source: Path | str | bytes) -> ImageFacts:
    """Width, height (px, upright) and format of an image file or its bytes, without decoding it.

    Raises ImageRefused: no image, truncated, animated or paged, more than MAX_PIXELS.
    """
    with _open(source) as image:
        return _check(image, source)


def read_image(source: Path | str | bytes) -> NDArray[np.uint8]:
    """Upright RGB pixels (h, w, 3) uint8 of an image file or its bytes.

    Raises ImageRefused as `probe` does, before decoding; and when decoding itself finds damage.
    """
    with _open(source) as image:
        _check(image, source)
        try:
            if image.mode.startswith("I;16"):  # 16-bit grey: keep the high byte; Pillow would clip at 255
                grey = (np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            upright = ImageOps.exif_transpose(image) if image.format in _JPEGS else image
            return np.array(upright.convert("RGB"), dtype=np.uint8)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ImageRefused(f"{_name(source)}: the image is damaged or cut short ({error})") from error


def draw_overlay(image: NDArray[np.uint8], instances: Instances, thickness: int = 2) -> NDArray[np.uint8]:
    """A copy of image (h, w, 3) uint8 RGB with each cell outlined in its class's colour: its mask, else its box."""
    if image.shape[:2] != tuple(instances.image_size):
        raise ValueError(f"expected an image of {instances.image_size} px (h, w), got {image.shape[:2]}")
    canvas = image.copy()
    for index, label in enumerate(instances.labels):
        colour = CLASS_COLOURS[label % len(CLASSES)]
        outline = rle_to_polygon(instances.masks[index]) if len(instances.masks) else np.zeros((0, 2))
        if len(outline) == 0:
            x1, y1, x2, y2 = instances.boxes[index]
            outline = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        cv2.polylines(canvas, [np.rint(outline).astype(np.int32)], True, colour, thickness, cv2.LINE_AA)
    return canvas
