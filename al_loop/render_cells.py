"""How each kind of cell looks in a Giemsa-stained smear, drawn as optical density on a patch.

Coordinates in a patch are in units of the cell's radius, centre at 0. Densities of overlapping cells add up, as
light through two cells does, so overlaps need no further care.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.instances import DIFFICULT, INFECTED

Plane = NDArray[np.floating[Any]]
Random = np.random.Generator

PATCH_RADII = 1.7  # half side of a patch: a crenated or tear-shaped cell reaches at most 1.65 radii
# Radius of each kind relative to a red blood cell; P. vivax enlarges its host.
RADII: dict[str, tuple[float, float]] = {
    "red blood cell": (0.85, 1.12),
    "ring": (0.95, 1.12),
    "trophozoite": (1.05, 1.3),
    "schizont": (1.1, 1.3),
    "gametocyte": (1.1, 1.35),
    "leukocyte": (1.4, 1.8),
    DIFFICULT: (0.95, 1.3),
}


@dataclass(frozen=True)
class Look:
    """Stain, light and focus of one slide. Optical densities are per RGB channel."""

    background: Plane  # (3,) in [0, 255]
    red_cell: Plane
    cytoplasm: Plane
    chromatin: Plane
    pigment: Plane
    stippling: Plane
    nucleus: Plane
    pallor: float  # how much paler the centre of a red cell is
    crenated: float  # share of red cells with a burred outline
    halo: float  # brightness of the refraction rim
    vignette: float
    focus_px: float  # Gaussian blur at a cell radius of 26 px
    noise: float  # standard deviation of the sensor noise, grey levels


def slide_look(rng: Random) -> Look:
    """Draw the look of one slide: from violet-blue over pink to grey-blue, as real Giemsa stains vary."""

    def density(*rgb: float) -> Plane:
        spread = rng.uniform(0.9, 1.1) * rng.uniform(0.94, 1.06, 3)
        return (-np.log(np.array(rgb) / 255.0) * spread).astype(np.float32)

    red_cells = ((172, 165, 212), (205, 160, 178), (120, 126, 158), (150, 140, 190))
    red_cell = red_cells[rng.choice(4, p=[0.4, 0.2, 0.15, 0.25])]
    background = np.array(((250, 249, 251), (236, 238, 234), (243, 236, 240))[rng.integers(3)], dtype=np.float32)
    return Look(
        background=background,
        red_cell=density(*red_cell),
        cytoplasm=density(150, 100, 195),
        chromatin=density(150, 30, 135),
        pigment=density(80, 50, 60),
        stippling=density(200, 110, 180),
        nucleus=density(75, 35, 120),
        pallor=float(rng.uniform(0.2, 0.85)),
        crenated=float(rng.choice([0.0, 0.02, 0.5], p=[0.55, 0.3, 0.15])),
        halo=float(rng.choice([0.0, 0.05, 0.12])),
        vignette=float(rng.uniform(0.0, 0.12)),
        focus_px=float(rng.uniform(0.3, 1.1)),
        noise=float(rng.uniform(1.0, 3.0)),
    )


@dataclass(frozen=True)
class Grid:
    """Pixel centres of a patch relative to the cell, in radii. u (right), v (down), rho, theta: (p, p) float32."""

    u: Plane
    v: Plane
    rho: Plane
    theta: Plane
    pixel: float  # one pixel in radii

    def near(self, x: float, y: float) -> Plane:
        """Distance of every pixel to the point (x, y), in radii."""
        return np.hypot(self.u - x, self.v - y)

    def edge(self, depth: Plane) -> Plane:
        """Soft-edged coverage in [0, 1] of the region where `depth` (in radii) is positive."""
        return np.clip(depth / (1.5 * self.pixel) + 0.5, 0, 1)

    def texture(self, rng: Random, grains: int) -> Plane:
        """Smooth noise of unit variance with `grains` bumps across the patch."""
        coarse = rng.standard_normal((grains, grains)).astype(np.float32)
        side_y, side_x = self.u.shape
        return np.asarray(cv2.resize(coarse, (side_x, side_y), interpolation=cv2.INTER_CUBIC))


def make_grid(x: float, y: float, radius: float, left: int, top: int, side: int) -> Grid:
    """The grid of a square patch of `side` px at (left, top) for a cell centred at (x, y) px."""
    u = (np.arange(left, left + side, dtype=np.float32) + 0.5 - x) / radius
    v = (np.arange(top, top + side, dtype=np.float32) + 0.5 - y) / radius
    grid_u, grid_v = np.meshgrid(u, v)
    return Grid(grid_u, grid_v, np.hypot(grid_u, grid_v), np.arctan2(grid_v, grid_u), 1.0 / radius)


def outline(rng: Random, kind: str, look: Look) -> Plane:
    """The cell's outline as radius over 512 angles from -pi on: (512,) float32 with a maximum of at most 1.65."""
    angle = np.linspace(-np.pi, np.pi, 512, endpoint=False, dtype=np.float32)
    irregular = {"trophozoite": 2.2, "leukocyte": 0.9, "gametocyte": 1.2}.get(kind, 1.0)
    radius = np.ones_like(angle)
    for order, amplitude in ((2, 0.06), (3, 0.03), (4, 0.018), (5, 0.012)):
        wave = rng.normal(0, amplitude * irregular) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
        radius += np.clip(wave, -0.18, 0.18)
    if kind == "red blood cell" and rng.random() < look.crenated:
        spikes = np.cos(rng.integers(16, 24) * angle + rng.uniform(0, 6)) * (1 + 0.4 * np.cos(3 * angle))
        radius += rng.uniform(0.03, 0.07) * spikes
    elif kind in ("red blood cell", "trophozoite") and rng.random() < 0.12:  # tear drop
        away = np.abs(np.angle(np.exp(1j * (angle - rng.uniform(-np.pi, np.pi)))))
        radius = radius * 0.93 + rng.uniform(0.15, 0.4) * np.exp(-away / 0.22)
    return np.minimum(radius, 1.65).astype(np.float32)


def outline_depth(grid: Grid, radius: Plane) -> Plane:
    """How far inside the outline each pixel lies, in radii; negative outside. (p, p) float32."""
    index = ((grid.theta + np.pi) * (len(radius) / (2 * np.pi))).astype(np.int64) % len(radius)
    return radius[index] - grid.rho


def blobs(
    rng: Random, grid: Grid, places: NDArray[np.float64], size: tuple[float, float], stretch: float = 1.0
) -> Plane:
    """Coverage by small ovals at `places` (K, 2) in radii, of radius `size` and up to `stretch` times as long."""
    cover = np.zeros_like(grid.u)
    for x, y in places:
        turn, long = rng.uniform(0, np.pi), rng.uniform(1.0, stretch)
        along = (grid.u - x) * np.cos(turn) + (grid.v - y) * np.sin(turn)
        across = (grid.v - y) * np.cos(turn) - (grid.u - x) * np.sin(turn)
        radius = rng.uniform(*size)
        np.maximum(cover, grid.edge(radius - np.hypot(along / long, across)), out=cover)
    return cover


def disc_points(rng: Random, count: int, radius: float, x: float = 0.0, y: float = 0.0) -> NDArray[np.float64]:
    """`count` points spread over a disc like sunflower seeds, with jitter: (count, 2) in radii."""
    k = np.arange(count) + 0.5
    rho, turn = radius * np.sqrt(k / count), k * 2.39996 + rng.uniform(0, 6.3)
    points = np.stack([x + rho * np.cos(turn), y + rho * np.sin(turn)], axis=1)
    return points + rng.normal(0, 0.12 * radius, points.shape) / np.sqrt(max(count, 1) / 8)


def red_cell_body(rng: Random, grid: Grid, inside: Plane, depth: Plane, look: Look, strength: float = 1.0) -> Plane:
    """The haemoglobin of a red cell: paler in the middle, a little darker near the rim. (p, p, 3) density."""
    x, y = rng.normal(0, 0.12, 2)
    pallor = look.pallor * rng.uniform(0.2, 1.3) * np.exp(-((grid.near(x, y) / rng.uniform(0.35, 0.55)) ** 2))
    rim = 0.18 * np.exp(-((depth / 0.12) ** 2))
    body = 1 - np.minimum(pallor, 0.85) + rim + 0.06 * grid.texture(rng, 4) + 0.03 * grid.texture(rng, 24)
    if strength == 1.0 and rng.random() < 0.1:  # a fold across the cell
        turn, bend = rng.uniform(0, np.pi), rng.uniform(-0.5, 0.5)
        along = grid.v * np.cos(turn) - grid.u * np.sin(turn)
        across = grid.u * np.cos(turn) + grid.v * np.sin(turn) - x - bend * along**2
        body -= 0.4 * np.exp(-((across / 0.1) ** 2) - (along / 0.5) ** 4)
    return (inside * body * strength * rng.uniform(0.85, 1.15))[..., None] * look.red_cell


def stippling(rng: Random, grid: Grid, inside: Plane, look: Look, amount: float) -> Plane:
    """Schüffner's dots: fine pink grains all over the host cell. (p, p, 3) density."""
    grains = np.clip(grid.texture(rng, 26) - 0.6, 0, 1.5) + 0.35
    return (inside * amount * grains)[..., None] * look.stippling


def _ring(rng: Random, grid: Grid, inside: Plane, look: Look) -> Plane:
    x, y = rng.uniform(-0.4, 0.4, 2)
    radius, turn = rng.uniform(0.2, 0.32), rng.uniform(0, 2 * np.pi)
    thickness = 0.06 + 0.025 * np.cos(np.arctan2(grid.v - y, grid.u - x) - turn)
    hoop = np.exp(-(((grid.near(x, y) - radius) / thickness) ** 2))
    turns = turn + np.arange(rng.choice([1, 2], p=[0.75, 0.25])) * rng.uniform(0.6, 1.4)
    dots = np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], axis=1)
    chromatin = blobs(rng, grid, dots, (0.09, 0.13), 1.4)
    return inside[..., None] * (0.8 * hoop[..., None] * look.cytoplasm + 0.8 * chromatin[..., None] * look.chromatin)


def _trophozoite(rng: Random, grid: Grid, inside: Plane, look: Look) -> Plane:
    x, y = rng.uniform(-0.25, 0.25, 2)
    amoeboid = 1.0 - (grid.near(x, y) / rng.uniform(0.5, 0.75)) ** 2 + 0.75 * grid.texture(rng, 6)
    cytoplasm = grid.edge(0.25 * amoeboid) * (0.8 + 0.15 * grid.texture(rng, 14))
    chromatin = blobs(rng, grid, disc_points(rng, 1, 0.35, x, y), (0.13, 0.2), 1.5)
    pigment = blobs(rng, grid, disc_points(rng, int(rng.integers(8, 22)), 0.55, x, y), (0.03, 0.055), 2.5)
    pigment *= 0.3 + 0.7 * (cytoplasm > 0.3)
    return inside[..., None] * (
        0.75 * cytoplasm[..., None] * look.cytoplasm
        + 0.75 * chromatin[..., None] * look.chromatin
        + 0.7 * pigment[..., None] * look.pigment
    )


def _schizont(rng: Random, grid: Grid, inside: Plane, look: Look) -> Plane:
    x, y = rng.uniform(-0.08, 0.08, 2)
    body = grid.edge(rng.uniform(0.75, 0.88) - grid.near(x, y) + 0.05 * grid.texture(rng, 7))
    merozoites = blobs(rng, grid, disc_points(rng, int(rng.integers(10, 19)), 0.66, x, y), (0.1, 0.14), 1.3)
    clump = blobs(rng, grid, disc_points(rng, 5, 0.12, x, y), (0.05, 0.08), 1.8)
    return inside[..., None] * (
        0.55 * body[..., None] * look.cytoplasm
        + 0.75 * (body * merozoites)[..., None] * look.chromatin
        + 0.8 * clump[..., None] * look.pigment
    )


def _gametocyte(rng: Random, grid: Grid, inside: Plane, look: Look) -> Plane:
    body = grid.edge(rng.uniform(0.84, 0.95) - grid.rho + 0.03 * grid.texture(rng, 6))
    body *= 0.9 + 0.1 * grid.texture(rng, 12)
    x, y = rng.uniform(-0.35, 0.35, 2)
    nucleus = np.exp(-((grid.near(x, y) / rng.uniform(0.24, 0.34)) ** 4))
    pigment = blobs(rng, grid, disc_points(rng, int(rng.integers(22, 40)), 0.78), (0.022, 0.045), 2.2)
    mixed = 0.45 * look.cytoplasm + rng.uniform(0.12, 0.3) * look.chromatin
    return inside[..., None] * (
        body[..., None] * mixed * (1 - 0.35 * nucleus[..., None])
        + 0.4 * nucleus[..., None] * look.chromatin
        + 0.7 * pigment[..., None] * look.pigment
    )


def _leukocyte(rng: Random, grid: Grid, inside: Plane, look: Look) -> Plane:
    if rng.random() < 0.35:  # a lymphocyte: one round nucleus and little else
        nucleus = grid.edge(rng.uniform(0.68, 0.82) - grid.near(*rng.normal(0, 0.06, 2)))
    else:  # a granulocyte: two to four lobes
        lobes = int(rng.integers(2, 5))
        turns = rng.uniform(0, 6.3) + np.arange(lobes) * rng.uniform(1.3, 1.9)
        places = 0.4 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        nucleus = blobs(rng, grid, places, (0.27, 0.37), 1.35)
    grains = 0.3 + 0.1 * grid.texture(rng, 24) + 0.05 * grid.texture(rng, 7)
    density = grains[..., None] * look.cytoplasm * (1 - nucleus[..., None])
    return inside[..., None] * (density + (nucleus * (0.95 + 0.1 * grid.texture(rng, 12)))[..., None] * look.nucleus)


PARASITES: dict[str, Callable[[Random, Grid, Plane, Look], Plane]] = {
    "ring": _ring,
    "trophozoite": _trophozoite,
    "schizont": _schizont,
    "gametocyte": _gametocyte,
}
HOST_STRENGTH = {"ring": 0.95, "trophozoite": 0.7, "schizont": 0.6, "gametocyte": 0.35}


def draw_cell(rng: Random, kind: str, grid: Grid, depth: Plane, look: Look) -> Plane:
    """Optical density (p, p, 3) of one cell of `kind` (a class, or difficult) whose outline has this `depth`."""
    inside = grid.edge(depth)
    halo = (-look.halo * np.exp(-(((depth + 0.07) / 0.06) ** 2)) * (depth < 0))[..., None]
    if kind == "red blood cell":
        return red_cell_body(rng, grid, inside, depth, look) + halo
    if kind == "leukocyte":
        return _leukocyte(rng, grid, inside, look) + halo
    if kind == DIFFICULT:  # between two stages, or too faint to tell
        one, other = (PARASITES[str(name)](rng, grid, inside, look) for name in rng.choice(INFECTED, 2, replace=False))
        blurred = cv2.GaussianBlur((one + other) * rng.uniform(0.3, 0.5), (0, 0), max(0.8, 0.06 / grid.pixel))
        return red_cell_body(rng, grid, inside, depth, look, 0.8) + inside[..., None] * blurred + halo
    host = red_cell_body(rng, grid, inside, depth, look, HOST_STRENGTH[kind])
    dots = stippling(rng, grid, inside, look, 0.08 if kind == "ring" else 0.3)
    return host + dots + PARASITES[kind](rng, grid, inside, look) + halo
