"""Training views of smears: images cached at training size, crops around chosen cells, and their augmentation.

A crop keeps the scale at which the detector later sees whole images; it only shows less of them, so that a step is
cheap and rare cells can be met often. A cell cut by the edge of its crop is neither taught nor punished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from al_loop.dataset import TrainingSample
from backend.detect import DetectorConfig, resize_image
from backend.images import read_image
from backend.instances import Rle, role_classes
from backend.masks import decode_crop

VISIBLE = 0.6  # share of a cell's box that must lie inside the crop for it to be taught


@dataclass(frozen=True)
class CachedImage:
    """One training image, decoded once, at training size.

    pixels: (h, w, 3) uint8 RGB. boxes: (N, 4) float32 xyxy px of `pixels`. labels: (N,) int64, 1-based output
    channel of the detector. chips: N masks (bool), each covering its box rounded outwards. ignore: (M, 4) float32.
    reviewed: (R, 4) float32, where experts looked, if not everywhere. known: that share of the image's cells.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    chips: tuple[NDArray[np.bool_], ...]
    ignore: NDArray[np.float32]
    reviewed: NDArray[np.float32] | None = None
    known: float = 1.0


@dataclass(frozen=True)
class Crop:
    """What one training step sees of one image: pixels (h, w, 3) uint8, boxes (N, 4) float32 xyxy px,
    labels (N,) int64 from 1, masks (N, h, w) uint8, ignore (M, 4) float32."""

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.uint8]
    ignore: NDArray[np.float32]


@dataclass(frozen=True)
class Focus:
    """Where a crop is centred, in px of the cached image."""

    image: int
    x: float
    y: float


@dataclass(frozen=True)
class Augmentation:
    """flips: all eight orientations of the square. scale: range of zoom; red cells are 1.27 times larger in the test
    split of BBBC041 than in its training split. colour: strength of stain and light jitter. blur: px, at most."""

    flips: bool = True
    scale: tuple[float, float] = (0.78, 1.28)
    colour: float = 1.0
    blur: float = 1.0


def cache_image(sample: TrainingSample, detector: DetectorConfig) -> CachedImage:
    """Decode one sample and shrink it as the detector will; only cells of the detector's role are kept."""
    classes = role_classes(detector.role)
    pixels = read_image(sample.path)
    height, width = pixels.shape[:2]
    small = resize_image(pixels, detector)
    size = (small.shape[1], small.shape[0])
    factor = np.array([size[0] / width, size[1] / height] * 2, dtype=np.float32)
    known = [index for index, label in enumerate(sample.labels) if label in classes]
    boxes = sample.boxes[known] * factor
    chips = []
    for index, box in zip(known, boxes, strict=True):
        rle = sample.masks[index] if len(sample.masks) else None
        chips.append(_chip(rle, sample.boxes[index], box, size))
    return CachedImage(
        pixels=np.ascontiguousarray(small),
        boxes=boxes.astype(np.float32),
        labels=np.array([classes.index(sample.labels[index]) + 1 for index in known], dtype=np.int64),
        chips=tuple(chips),
        ignore=(sample.ignore_boxes.reshape(-1, 4) * factor).astype(np.float32),
        reviewed=None if sample.reviewed is None else (sample.reviewed * factor).astype(np.float32),
        known=sample.known,
    )


def _chip(
    mask: Rle | None, original: NDArray[np.float32], box: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """The mask inside the scaled box, or an ellipse where only a box is known."""
    x1, y1, x2, y2 = _outward(box, size)
    shape = (max(x2 - x1, 1), max(y2 - y1, 1))
    if mask is not None:
        window = _outward(original, (mask["size"][1], mask["size"][0]))
        inside = decode_crop(mask, window).astype(np.float32)
        if inside.any():
            return cv2.resize(inside, shape, interpolation=cv2.INTER_LINEAR) >= 0.5
    canvas = np.zeros((shape[1], shape[0]), dtype=np.uint8)
    centre = (shape[0] // 2, shape[1] // 2)
    axes = (max(shape[0] // 2, 1), max(shape[1] // 2, 1))
    return cv2.ellipse(canvas, centre, axes, 0, 0, 360, 1, -1).astype(bool)


def _outward(box: NDArray[np.float32], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box rounded outwards to whole pixels inside an image of (width, height)."""
    x1, y1 = np.floor(box[:2]).astype(int)
    x2, y2 = np.ceil(box[2:]).astype(int)
    return max(x1, 0), max(y1, 0), min(x2, size[0]), min(y2, size[1])


def choose_focus(
    images: Sequence[CachedImage], rng: np.random.Generator, *, common: int | None, rare_share: float
) -> Focus:
    """Where to look next: with probability `rare_share` at a cell of a rare class, else anywhere in any image.

    An image of which only some cells were reviewed is drawn as often as the share of them, and looked at there.

    common: the channel that is no rare class (the red blood cell), if the detector has it. A rare class is drawn
    with the square root of its frequency: met more often than it occurs, yet not so often that its few cells are
    learned by heart.
    """
    owners = np.repeat(np.arange(len(images)), [len(image.labels) for image in images])
    labels = np.concatenate([image.labels for image in images])
    rare = np.flatnonzero(labels != common) if common is not None else np.arange(len(labels))
    look_at_rare = rng.uniform() < rare_share
    if look_at_rare and len(rare):
        counts = np.bincount(labels[rare])
        weights = 1.0 / np.sqrt(counts[labels[rare]])
        cell = int(rng.choice(rare, p=weights / weights.sum()))
        image = int(owners[cell])
        box = np.concatenate([entry.boxes for entry in images])[cell]
        return Focus(image, float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2)
    known = np.array([entry.known for entry in images])
    partly = known.min() < 1
    image = int(rng.choice(len(images), p=known / known.sum()) if partly else rng.integers(len(images)))
    reviewed = images[image].reviewed
    if reviewed is not None:
        x1, y1, x2, y2 = (float(value) for value in reviewed[rng.integers(len(reviewed))])
        return Focus(image, (x1 + x2) / 2, (y1 + y2) / 2)
    height, width = images[image].pixels.shape[:2]
    return Focus(image, float(rng.uniform(0, width)), float(rng.uniform(0, height)))


def cut(image: CachedImage, focus: Focus, size: int, augmentation: Augmentation, rng: np.random.Generator) -> Crop:
    """A crop of at most size x size px near the focus, zoomed, turned and re-stained at random.

    size 0 takes the whole image.
    """
    zoom = float(np.exp(rng.uniform(*np.log(augmentation.scale))))
    height, width = image.pixels.shape[:2]
    side = size / zoom if size else max(height, width)
    w, h = round(min(side, width)), round(min(side, height))
    shift = rng.uniform(-0.3, 0.3, 2) * side
    x0 = round(float(np.clip(focus.x + shift[0] - w / 2, 0, width - w)))
    y0 = round(float(np.clip(focus.y + shift[1] - h / 2, 0, height - h)))
    out_w, out_h = max(round(w * zoom), 1), max(round(h * zoom), 1)
    pixels = cv2.resize(image.pixels[y0 : y0 + h, x0 : x0 + w], (out_w, out_h), interpolation=cv2.INTER_LINEAR)
    factor = np.array([out_w / w, out_h / h] * 2, dtype=np.float32)
    boxes, seen = _clip((image.boxes - [x0, y0, x0, y0]) * factor, out_w, out_h)
    ignore, ignore_seen = _clip((image.ignore - [x0, y0, x0, y0]) * factor, out_w, out_h)
    taught = np.flatnonzero(seen >= VISIBLE)
    masks = np.zeros((len(taught), out_h, out_w), dtype=np.uint8)
    for row, index in enumerate(taught):
        _paste(masks[row], image.chips[index], (image.boxes[index] - [x0, y0, x0, y0]) * factor)
    ignore = np.concatenate([ignore[ignore_seen > 0], boxes[(seen > 0) & (seen < VISIBLE)]])
    crop = Crop(pixels.astype(np.uint8, copy=False), boxes[taught], image.labels[taught], masks, ignore)
    if augmentation.flips:
        crop = turn(crop, int(rng.integers(8)))
    pixels = defocus(stain(crop.pixels, augmentation.colour, rng), augmentation.blur, rng)
    return Crop(pixels, crop.boxes, crop.labels, crop.masks, crop.ignore)


def _clip(boxes: NDArray[np.floating], width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes clipped to the crop, and the share of each that is left; a sliver under 1 px counts as gone."""
    clipped = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
    sides = clipped[:, 2:] - clipped[:, :2]
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left = np.prod(sides, axis=1) / np.maximum(area, 1e-6)
    return clipped, np.where((sides >= 1).all(axis=1), left, 0.0).astype(np.float32)


def _paste(canvas: NDArray[np.uint8], chip: NDArray[np.bool_], box: NDArray[np.floating]) -> None:
    """Draw a chip, stretched over its box, into the canvas."""
    height, width = canvas.shape
    x1, y1 = np.floor(box[:2]).astype(int)
    x2, y2 = np.ceil(box[2:]).astype(int)
    whole = cv2.resize(chip.astype(np.uint8), (max(x2 - x1, 1), max(y2 - y1, 1)), interpolation=cv2.INTER_NEAREST)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    canvas[top:bottom, left:right] = whole[top - y1 : bottom - y1, left - x1 : right - x1]


def turn(crop: Crop, orientation: int) -> Crop:
    """One of the eight orientations of a square: orientation // 2 quarter turns, mirrored when odd."""
    pixels, masks = crop.pixels, crop.masks
    boxes, ignore = crop.boxes, crop.ignore
    if orientation % 2:
        pixels, masks = pixels[:, ::-1], masks[:, :, ::-1]
        boxes, ignore = (_mirror(each, pixels.shape[1]) for each in (boxes, ignore))
    for _ in range(orientation // 2):
        boxes, ignore = (_quarter(each, pixels.shape[1]) for each in (boxes, ignore))
        pixels, masks = np.rot90(pixels), np.rot90(masks, axes=(1, 2))
    return Crop(np.ascontiguousarray(pixels), boxes, crop.labels, np.ascontiguousarray(masks), ignore)


def _mirror(boxes: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)


def _quarter(boxes: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Boxes after a quarter turn counter-clockwise, as np.rot90 turns pixels: (x, y) goes to (y, width - x)."""
    return np.stack([boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]], axis=1)


def stain(pixels: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another batch of stain under another lamp, at random: pixels (h, w, 3) uint8 RGB in, the same shape out.

    Absorbed light follows Beer and Lambert: a stain twice as strong squares the share of the background's light that
    passes. So each channel's share is raised to a random power (the stain), then the background is given another
    colour and brightness (the lamp). strength 1 spans what BBBC041 and IML differ by; 0 changes nothing.
    """
    if strength == 0:
        return pixels
    power = np.exp(rng.normal(0, 0.15 * strength, 3) + rng.normal(0, 0.2 * strength))
    gain = np.exp(rng.normal(0, 0.06 * strength, 3) + rng.normal(0, 0.1 * strength))
    # Every fourth pixel each way is enough to tell the background, the brightest thing in a smear.
    background = np.maximum(np.percentile(pixels[::4, ::4].reshape(-1, 3), 95, axis=0), 32.0)
    # One look-up table per channel: the same result as arithmetic on every pixel, at a fraction of its cost.
    passed = np.arange(256)[:, None] / background
    table = np.clip(background * gain * passed**power, 0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table.reshape(1, 256, 3)).astype(np.uint8, copy=False)


def defocus(pixels: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A little out of focus, one time in three: a Gaussian blur of at most `strength` px; 0 changes nothing."""
    blurred, sigma = rng.uniform() < 1 / 3, rng.uniform(0.3, 1.0) * strength
    if not blurred or sigma < 0.2:
        return pixels
    return cv2.GaussianBlur(pixels, (0, 0), sigma).astype(np.uint8, copy=False)
