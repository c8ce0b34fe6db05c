"""Render Giemsa-like smears with exact truth: for tests, demonstrations and overfitting checks, never as evidence.

Everything follows from the seed. The truth is geometric (an outline before blur and noise), so masks are exact,
whole where cells overlap (both are visible through each other) and cut where the image ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from al_loop.render_cells import (
    RADII,
    Grid,
    Look,
    blobs,
    disc_points,
    make_grid,
    outline,
    outline_depth,
    slide_look,
)
from al_loop.render_stages import draw_cell
from backend.instances import CLASS_INDEX, DIFFICULT, Instances, Rle
from backend.masks import encode_crop

STAGE_SHARES = {"trophozoite": 0.4, "ring": 0.3, "schizont": 0.15, "gametocyte": 0.15}
MARGIN = 0.2  # radii around a cell that its refraction rim may reach
DEBRIS_REACH = 1.7  # radii
WHITE = 254.0  # grey level at which a sensor is saturated


class Smear(NamedTuple):
    """A rendered field: image (h, w, 3) uint8 RGB, its cells with masks, and the boxes of difficult cells.

    difficult: (M, 4) float32 xyxy px, cells that even an expert could not decide; they are not in `cells`.
    """

    image: NDArray[np.uint8]
    cells: Instances
    difficult: NDArray[np.float32]


def render_smear(
    seed: int,
    size: tuple[int, int] = (480, 640),
    cells: int = 40,
    *,
    infected: float = 0.15,
    leukocytes: float = 0.03,
    difficult: float = 0.03,
    kinds: Sequence[str] | None = None,
    slide_seed: int | None = None,
) -> Smear:
    """Render one field of `size` (h, w) px with `cells` cells.

    infected, leukocytes, difficult: shares of the cells, rounded (infected: at least one when positive).
    kinds: the exact kinds to draw instead (classes or "difficult"); `cells` and the shares are then ignored.
    slide_seed: fields of one slide share it, hence stain, light and focus (default: the seed itself).
    """
    rng = np.random.default_rng([seed, 1])
    look = slide_look(np.random.default_rng([seed if slide_seed is None else slide_seed, 2]))
    chosen = list(kinds) if kinds is not None else _choose_kinds(rng, cells, infected, leukocytes, difficult)
    height, width = size
    radius = _red_cell_radius(size, len(chosen)) * look.zoom
    radii = [radius * rng.uniform(*RADII[kind]) for kind in chosen]
    density = np.zeros((height, width, 3), dtype=np.float32)
    _draw_debris(rng, density, radius, look)
    masks: list[Rle] = []
    boxes: list[tuple[int, int, int, int]] = []
    for kind, own, (x, y) in zip(chosen, radii, _place(rng, size, radii, look.clumped), strict=True):
        mask, box = _draw_at(rng, density, kind, x, y, own, look)
        masks.append(mask)
        boxes.append(box)
    known = [i for i, kind in enumerate(chosen) if kind != DIFFICULT]
    unsure = [boxes[i] for i, kind in enumerate(chosen) if kind == DIFFICULT]
    truth = Instances.of(
        size,
        np.array([boxes[i] for i in known], dtype=np.float32).reshape(-1, 4),
        np.array([CLASS_INDEX[chosen[i]] for i in known], dtype=np.int64),
        masks=[masks[i] for i in known],
    )
    image = _expose(rng, density, look, radius)
    return Smear(image, truth, np.array(unsure, dtype=np.float32).reshape(-1, 4))


def _choose_kinds(
    rng: np.random.Generator, cells: int, infected: float, leukocytes: float, difficult: float
) -> list[str]:
    """Kinds of all cells in drawing order: red blood cells with the asked shares of others, shuffled."""
    sick = min(cells, max(1, round(cells * infected))) if infected > 0 else 0
    kinds = [str(k) for k in rng.choice(list(STAGE_SHARES), sick, p=list(STAGE_SHARES.values()))]
    for kind, share in (("leukocyte", leukocytes), (DIFFICULT, difficult)):
        kinds += [kind] * int(cells * share + rng.random())
    kinds = kinds[:cells] + ["red blood cell"] * (cells - len(kinds))
    rng.shuffle(kinds)
    return kinds


def _red_cell_radius(size: tuple[int, int], cells: int) -> float:
    """Radius in px of a red cell at the largest zoom: a ninth of the short side across, less in crowded fields."""
    height, width = size
    crowded = np.sqrt(0.5 * height * width / max(cells, 1) / np.pi)
    return float(max(5.0, min(0.055 * min(height, width), crowded)))


def _place(
    rng: np.random.Generator, size: tuple[int, int], radii: Sequence[float], clumped: float
) -> list[tuple[float, float]]:
    """Centres in px (x, y): some apart, some against or on a neighbour, some cut by the border (a third is seen)."""
    height, width = size
    known = np.asarray(radii)
    centres = np.zeros((len(radii), 2))
    for i, radius in enumerate(radii):
        margin = 0.3 * radius
        low, high = np.array([-margin, -margin]), np.array([width + margin, height + margin])
        together = i > 0 and rng.random() < clumped
        if together:  # against one of the cells that lie already, as in rouleaux
            mate = int(rng.integers(i))
            turns, reach = rng.uniform(0, 2 * np.pi, 40), rng.uniform(0.68, 1.0, 40) * (known[mate] + radius)
            tries = centres[mate] + reach[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
            tries = np.clip(tries, low, high)
        else:
            tries = rng.uniform(low, high, (40, 2))
        choice = 0
        if i:
            apart = np.hypot(*(tries[:, None] - centres[None, :i]).transpose(2, 0, 1))
            clearance = (apart / (known[:i] + radius)).min(axis=1)
            good = np.flatnonzero(clearance >= (0.66 if together else 1.03))
            choice = int(good[0]) if len(good) else int(clearance.argmax())
        centres[i] = tries[choice]
    return [(float(x), float(y)) for x, y in centres]


def _patch(
    density: NDArray[np.float32], x: float, y: float, radius: float, reach: float
) -> tuple[Grid, NDArray[np.float32], slice, slice]:
    """The grid of a patch `reach` radii around (x, y), the part of `density` it covers, and where in the patch."""
    half = int(np.ceil(radius * reach)) + 2
    left, top, side = int(x) - half, int(y) - half, 2 * half + 1
    height, width = density.shape[:2]
    rows = slice(max(0, -top), min(side, height - top))
    columns = slice(max(0, -left), min(side, width - left))
    view = density[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
    return make_grid(x, y, radius, left, top, side), view, rows, columns


def _draw_at(
    rng: np.random.Generator, density: NDArray[np.float32], kind: str, x: float, y: float, radius: float, look: Look
) -> tuple[Rle, tuple[int, int, int, int]]:
    """Add one cell to `density` in place; return its mask (RLE of the image) and tight box xyxy px."""
    rim = outline(rng, kind, look)
    grid, view, rows, columns = _patch(density, x, y, radius, float(rim.max()) + MARGIN)
    depth = outline_depth(grid, rim)
    view += draw_cell(rng, kind, grid, depth, look)[rows, columns]
    left = int(x) - grid.rho.shape[1] // 2 + columns.start
    top = int(y) - grid.rho.shape[0] // 2 + rows.start
    inside = depth[rows, columns] > 0
    seen_y, seen_x = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    x1, y1, x2, y2 = left + int(seen_x[0]), top + int(seen_y[0]), left + int(seen_x[-1]), top + int(seen_y[-1])
    return encode_crop(inside, (left, top), (density.shape[0], density.shape[1])), (x1, y1, x2 + 1, y2 + 1)


def _draw_debris(rng: np.random.Generator, density: NDArray[np.float32], radius: float, look: Look) -> None:
    """Platelets, stain precipitate and pale ghosts: things that are no cells. Adds to `density` in place."""
    height, width = density.shape[:2]
    for _ in range(rng.poisson(5)):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), radius * rng.uniform(0.2, 0.7)
        grid, view, rows, columns = _patch(density, x, y, size, DEBRIS_REACH)
        what = rng.choice(["platelet", "precipitate", "ghost"], p=[0.5, 0.25, 0.25])
        if what == "platelet":
            cover = grid.edge(0.6 - grid.rho + 0.2 * grid.texture(rng, 6))
            cover *= np.clip(0.35 + 0.2 * grid.texture(rng, 12), 0.1, 1)
            stain = 0.6 * look.cytoplasm + 0.25 * look.chromatin
        elif what == "precipitate":
            cover = blobs(rng, grid, disc_points(rng, int(rng.integers(4, 14)), 1.0), (0.05, 0.25), 1.6)
            stain = 0.7 * look.chromatin
        else:
            cover = np.exp(-(grid.rho**2) * 1.5) * (1 + 0.4 * grid.texture(rng, 8)) * (grid.rho < DEBRIS_REACH - 0.1)
            stain = 0.12 * look.red_cell
        view += (cover[..., None] * stain)[rows, columns]


def _expose(rng: np.random.Generator, density: NDArray[np.float32], look: Look, radius: float) -> NDArray[np.uint8]:
    """Light through the slide onto the sensor: illumination, absorption, focus, noise, storage. (h, w, 3) uint8."""
    height, width = density.shape[:2]

    def spread(coarse: NDArray[np.floating], how: int) -> NDArray[np.float32]:
        return np.asarray(cv2.resize(coarse.astype(np.float32), (width, height), interpolation=how))

    v, u = np.linspace(-1, 1, 12)[:, None, None], np.linspace(-1, 1, 16)[None, :, None]
    tint = cv2.resize(rng.normal(0, 0.01, (4, 5, 1)) + rng.normal(0, 0.004, (4, 5, 3)), (16, 12))
    light = look.background * (1 - look.vignette * (u**2 + v**2) / 2 + tint)
    grain = rng.standard_normal((height // 2 + 1, width // 2 + 1), dtype=np.float32)
    grain = spread(grain, cv2.INTER_LINEAR)
    grain *= look.grain
    grain += 1
    density *= -grain[..., None]
    image: Any = cv2.multiply(cv2.exp(density), spread(light, cv2.INTER_LINEAR))
    blur = max(0.3, look.focus_px * rng.uniform(0.7, 1.4) * radius / 26)
    image = cv2.GaussianBlur(image, (0, 0), blur)
    image += (look.noise * rng.standard_normal((height, width), dtype=np.float32))[..., None]
    stored = np.clip(image, 0, WHITE, out=image).astype(np.uint8)
    if look.jpeg == 100:
        return np.asarray(stored)
    _, packed = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, look.jpeg])
    # OpenCV takes the channels for BGR here and there: red and blue change places twice.
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), dtype=np.uint8)
