"""Render Giemsa-like smears with exact truth: for tests, demonstrations and overfitting checks, never as evidence.

Everything follows from the seed. The truth is geometric (an outline before blur and noise), so masks are exact,
whole where cells overlap (both are visible through each other) and cut where the image ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from al_loop.render_cells import (
    PATCH_RADII,
    RADII,
    Grid,
    Look,
    blobs,
    disc_points,
    draw_cell,
    make_grid,
    outline,
    outline_depth,
    slide_look,
)
from backend.instances import CLASS_INDEX, DIFFICULT, Instances, Rle
from backend.masks import encode_crop

STAGE_SHARES = {"trophozoite": 0.4, "ring": 0.3, "schizont": 0.15, "gametocyte": 0.15}
OVERLAP_SHARE = 0.15  # cells that may lie on a neighbour


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
    radius = _red_cell_radius(size, len(chosen))
    radii = [radius * rng.uniform(*RADII[kind]) for kind in chosen]
    density = np.zeros((height, width, 3), dtype=np.float32)
    _draw_debris(rng, density, radius, look)
    masks: list[Rle] = []
    boxes: list[tuple[int, int, int, int]] = []
    for kind, own, (x, y) in zip(chosen, radii, _place(rng, size, radii), strict=True):
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
    """Radius in px of a normal red cell: about a ninth of the short side across, less in crowded fields."""
    height, width = size
    crowded = np.sqrt(0.32 * height * width / max(cells, 1) / np.pi)
    return float(max(5.0, min(0.055 * min(height, width), crowded)))


def _place(rng: np.random.Generator, size: tuple[int, int], radii: Sequence[float]) -> list[tuple[float, float]]:
    """Centres in px (x, y): mostly apart, some overlapping, some cut by the border (at least a third is seen)."""
    height, width = size
    placed: list[tuple[float, float]] = []
    centres = np.zeros((len(radii), 2))
    for i, radius in enumerate(radii):
        margin = 0.3 * radius
        tries = np.stack([rng.uniform(-margin, width + margin, 40), rng.uniform(-margin, height + margin, 40)], axis=1)
        choice = 0
        if i:
            apart = np.hypot(*(tries[:, None] - centres[None, :i]).transpose(2, 0, 1))
            clearance = (apart / (np.asarray(radii[:i]) + radius)).min(axis=1)
            wanted = 0.65 if rng.random() < OVERLAP_SHARE else 1.03
            good = np.flatnonzero(clearance >= wanted)
            choice = int(good[0]) if len(good) else int(clearance.argmax())
        centres[i] = tries[choice]
        placed.append((float(tries[choice, 0]), float(tries[choice, 1])))
    return placed


def _patch(
    density: NDArray[np.float32], x: float, y: float, radius: float
) -> tuple[Grid, NDArray[np.float32], slice, slice]:
    """The grid of a patch around (x, y), the slice of `density` it covers, and that slice within the patch."""
    half = int(np.ceil(radius * PATCH_RADII))
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
    grid, view, rows, columns = _patch(density, x, y, radius)
    depth = outline_depth(grid, outline(rng, kind, look))
    view += draw_cell(rng, kind, grid, depth, look)[rows, columns]
    left = int(x) - grid.u.shape[1] // 2 + columns.start
    top = int(y) - grid.u.shape[0] // 2 + rows.start
    inside = depth[rows, columns] > 0
    seen_y, seen_x = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    x1, y1, x2, y2 = left + int(seen_x[0]), top + int(seen_y[0]), left + int(seen_x[-1]), top + int(seen_y[-1])
    return encode_crop(inside, (left, top), (density.shape[0], density.shape[1])), (x1, y1, x2 + 1, y2 + 1)


def _draw_debris(rng: np.random.Generator, density: NDArray[np.float32], radius: float, look: Look) -> None:
    """Platelets, stain precipitate and pale ghosts: things that are no cells. Adds to `density` in place."""
    height, width = density.shape[:2]
    for _ in range(rng.poisson(5)):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), radius * rng.uniform(0.25, 0.7)
        grid, view, rows, columns = _patch(density, x, y, size)
        what = rng.choice(["platelet", "precipitate", "ghost"], p=[0.55, 0.2, 0.25])
        if what == "platelet":
            cover = grid.edge(0.6 - grid.rho + 0.2 * grid.texture(rng, 6))
            cover *= np.clip(0.35 + 0.2 * grid.texture(rng, 12), 0.1, 1)
            stain = 0.6 * look.cytoplasm + 0.25 * look.chromatin
        elif what == "precipitate":
            cover = blobs(rng, grid, disc_points(rng, int(rng.integers(4, 14)), 1.0), (0.08, 0.25), 1.6)
            stain = 0.7 * look.chromatin
        else:
            cover = np.exp(-(grid.rho**2) * 1.5) * (1 + 0.4 * grid.texture(rng, 8)) * (grid.rho < PATCH_RADII - 0.1)
            stain = 0.12 * look.red_cell
        view += (cover[..., None] * stain)[rows, columns]


def _expose(rng: np.random.Generator, density: NDArray[np.float32], look: Look, radius: float) -> NDArray[np.uint8]:
    """Light through the slide onto the sensor: illumination, absorption, focus and noise. (h, w, 3) uint8."""
    height, width = density.shape[:2]
    tint = rng.normal(0, 0.01, (4, 5, 1)) + rng.normal(0, 0.004, (4, 5, 3))
    uneven = cv2.resize(tint.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    v, u = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    light = 1 - look.vignette * (u**2 + v**2)[..., None] / 2 + uneven
    image = look.background * light * np.exp(-density)
    blur = look.focus_px * rng.uniform(0.7, 1.4) * radius / 26
    image = cv2.GaussianBlur(image, (0, 0), max(blur, 0.3))
    image += rng.normal(0, look.noise, (height, width, 1)).astype(np.float32)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)
