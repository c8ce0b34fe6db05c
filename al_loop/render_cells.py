"""Stain, outline and body of cells in a Giemsa-stained smear, drawn as optical density on a patch.

Coordinates in a patch are in units of the cell's radius, centre at 0. Densities of overlapping cells add up, as
light through two cells does, so overlaps need no further care.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.instances import DIFFICULT

Plane = NDArray[np.floating[Any]]
Random = np.random.Generator

LONGEST = 1.65  # radii: how far a tear or a spike may reach
# Radius of each kind relative to a red blood cell; P. vivax enlarges its host.
RADII: dict[str, tuple[float, float]] = {
    "red blood cell": (0.85, 1.12),
    "ring": (0.95, 1.15),
    "trophozoite": (1.05, 1.35),
    "schizont": (1.1, 1.35),
    "gametocyte": (1.1, 1.35),
    "leukocyte": (1.05, 1.8),
    DIFFICULT: (0.95, 1.3),
}


@dataclass(frozen=True)
class Stain:
    """One way in which thin films come out. Colours are RGB in [0, 255]: the ground, then one layer of each matter.

    pallor: how much paler the centre of a red cell may be. crenated: how often a slide has burred cells.
    """

    ground: tuple[int, int, int]
    red_cell: tuple[int, int, int]
    host: tuple[int, int, int]
    cytoplasm: tuple[int, int, int]
    chromatin: tuple[int, int, int]
    pallor: tuple[float, float]
    crenated: float


# Read off slides of BBBC041 (medians of ground, rim and centre of red cells); the pink one is common elsewhere.
STAINS = (
    Stain((257, 257, 257), (125, 108, 175), (228, 150, 222), (168, 88, 206), (120, 20, 150), (0.0, 0.95), 0.05),
    Stain((257, 257, 257), (178, 150, 222), (226, 152, 218), (165, 80, 200), (115, 20, 150), (0.0, 0.6), 0.05),
    Stain((226, 228, 217), (42, 52, 88), (160, 160, 186), (72, 62, 128), (45, 25, 85), (0.0, 0.2), 0.8),
    Stain((233, 233, 233), (92, 98, 146), (190, 172, 206), (105, 82, 160), (66, 25, 105), (0.0, 0.35), 0.35),
    Stain((233, 230, 236), (62, 32, 76), (200, 155, 196), (130, 75, 160), (150, 22, 130), (0.5, 0.95), 0.0),
    Stain((229, 229, 224), (70, 56, 76), (178, 158, 176), (115, 86, 136), (122, 22, 112), (0.3, 0.85), 0.1),
    Stain((243, 236, 240), (205, 155, 175), (226, 184, 206), (140, 120, 200), (150, 30, 135), (0.2, 0.85), 0.15),
    Stain((238, 238, 236), (150, 145, 182), (205, 180, 212), (125, 100, 185), (110, 28, 130), (0.1, 0.7), 0.15),
    Stain((238, 236, 226), (160, 178, 190), (205, 190, 205), (135, 120, 190), (150, 40, 120), (0.0, 0.3), 0.2),
)
STAIN_SHARES = (0.16, 0.12, 0.12, 0.14, 0.13, 0.12, 0.08, 0.07, 0.06)
PIGMENT = (52, 40, 42)
NUCLEUS = (70, 34, 118)


@dataclass(frozen=True)
class Look:
    """Stain, light and focus of one slide. Optical densities are per RGB channel."""

    background: Plane  # (3,) grey levels; above 254 the sensor is saturated, as on many real slides
    red_cell: Plane
    host: Plane  # a red cell emptied and enlarged by its parasite, with Schüffner's dots
    cytoplasm: Plane
    chromatin: Plane
    pigment: Plane
    nucleus: Plane
    pallor: float  # how much paler the centre of a red cell is
    crenated: float  # share of red cells with a burred outline
    clumped: float  # share of cells that lie against another one
    zoom: float  # magnification relative to that of most slides
    halo: float  # brightness of the refraction rim
    vignette: float
    focus_px: float  # Gaussian blur at a cell radius of 26 px
    grain: float  # unevenness of the stain, relative
    noise: float  # standard deviation of the sensor noise, grey levels
    jpeg: int  # quality the camera stored at; 100: not compressed


def slide_look(rng: Random) -> Look:
    """Draw the look of one slide, as stain, microscope and camera vary."""
    stain = STAINS[int(rng.choice(len(STAINS), p=STAIN_SHARES))]
    ground = np.array(stain.ground, dtype=np.float64) + rng.normal(0, 3) + rng.normal(0, 1.5, 3)
    if rng.random() < 0.12:  # taken with too little light, as BBBC041's test images are
        ground *= rng.uniform(0.45, 0.8) * rng.uniform(0.94, 1.0, 3)
    strength = rng.uniform(0.85, 1.15)

    def density(rgb: tuple[int, int, int]) -> Plane:
        spread = strength * rng.uniform(0.95, 1.05) * rng.uniform(0.95, 1.05, 3)
        return (-np.log(np.minimum(np.array(rgb) / np.array(stain.ground), 0.97)) * spread).astype(np.float32)

    sharp = rng.random() < 0.85
    return Look(
        background=ground.astype(np.float32),
        red_cell=density(stain.red_cell),
        host=density(stain.host),
        cytoplasm=density(stain.cytoplasm),
        chromatin=density(stain.chromatin),
        pigment=density(PIGMENT),
        nucleus=density(NUCLEUS),
        pallor=float(rng.uniform(*stain.pallor)),
        crenated=float(rng.uniform(0.2, 0.8)) if rng.random() < stain.crenated else 0.02,
        clumped=float(rng.choice([0.1, 0.3, 0.55], p=[0.4, 0.35, 0.25])),
        zoom=float(rng.uniform(0.78, 1.0)),
        halo=float(rng.choice([0.0, 0.05, 0.1], p=[0.6, 0.25, 0.15])),
        vignette=float(rng.uniform(0.0, 0.12)),
        focus_px=float(rng.uniform(0.25, 0.75) if sharp else rng.uniform(0.8, 1.4)),
        grain=float(rng.uniform(0.02, 0.08)),
        noise=float(rng.uniform(0.5, 2.5)),
        jpeg=int(rng.choice([100, 95, 88, 78], p=[0.4, 0.2, 0.25, 0.15])),
    )


@dataclass(frozen=True)
class Grid:
    """Pixel centres of a patch relative to the cell, in radii. u (1, p) right, v (p, 1) down, rho (p, p): float32."""

    u: Plane
    v: Plane
    rho: Plane
    pixel: float  # one pixel in radii
    centre: tuple[float, float]  # the cell's, (x, y) px in the patch

    def near(self, x: float, y: float) -> Plane:
        """Distance of every pixel to the point (x, y), in radii."""
        return np.asarray(np.sqrt((self.u - x) ** 2 + (self.v - y) ** 2))

    def edge(self, depth: Plane) -> Plane:
        """Soft-edged coverage in [0, 1] of the region where `depth` (in radii) is positive."""
        return np.clip(depth * np.float32(1 / (1.5 * self.pixel)) + np.float32(0.5), 0, 1)

    def texture(self, rng: Random, grains: int) -> Plane:
        """Smooth noise of about unit variance with `grains` bumps across the patch."""
        coarse = rng.standard_normal((grains, grains), dtype=np.float32)
        return np.asarray(cv2.resize(coarse, self.rho.shape[::-1], interpolation=cv2.INTER_CUBIC))

    def soften(self, plane: Plane, radius: float) -> Plane:
        """Blur over `radius` (in radii)."""
        return np.asarray(cv2.GaussianBlur(plane, (0, 0), max(0.4, radius / self.pixel)))


def make_grid(x: float, y: float, radius: float, left: int, top: int, side: int) -> Grid:
    """The grid of a square patch of `side` px at (left, top) for a cell centred at (x, y) px."""
    u = ((np.arange(left, left + side, dtype=np.float32) + 0.5 - x) / radius).astype(np.float32)[None]
    v = ((np.arange(top, top + side, dtype=np.float32) + 0.5 - y) / radius).astype(np.float32)[:, None]
    return Grid(u, v, np.sqrt(u * u + v * v), 1.0 / radius, (x - left - 0.5, y - top - 0.5))


def outline(rng: Random, kind: str, look: Look) -> Plane:
    """The cell's outline as radius over 512 angles from -pi on: (512,) float32, at most LONGEST."""
    angle = np.linspace(-np.pi, np.pi, 512, endpoint=False, dtype=np.float32)
    irregular = {"trophozoite": 2.4, "leukocyte": 0.9, "gametocyte": 0.9, "schizont": 1.3}.get(kind, 1.0)
    radius = np.ones_like(angle)
    for order, amplitude in ((2, 0.05), (3, 0.03), (4, 0.018), (5, 0.014), (7, 0.008)):
        wave = rng.normal(0, amplitude * irregular) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
        radius += np.clip(wave, -0.18, 0.18)
    turned = angle - rng.uniform(-np.pi, np.pi)
    long = 1 + rng.exponential({"leukocyte": 0.05, "gametocyte": 0.12, "schizont": 0.15}.get(kind, 0.1))
    long = min(long, 1.7)
    radius /= np.sqrt((np.cos(turned) ** 2) / long + (np.sin(turned) ** 2) * long)
    if kind == "red blood cell" and rng.random() < look.crenated:
        spikes = np.cos(rng.integers(16, 24) * angle + rng.uniform(0, 6)) * (1 + 0.4 * np.cos(3 * angle))
        radius += rng.uniform(0.03, 0.07) * spikes
    elif rng.random() < {"leukocyte": 0.0, "schizont": 0.35, "gametocyte": 0.15}.get(kind, 0.12):  # drawn-out tips
        for side in range(int(rng.choice([1, 2], p=[0.7, 0.3]))):
            away = np.abs(np.angle(np.exp(1j * (turned + np.pi * side))))
            radius = radius * 0.96 + rng.uniform(0.1, 0.35) * np.exp(-away / 0.25)
    return np.clip(radius, 0.5, LONGEST).astype(np.float32)


def outline_depth(grid: Grid, radius: Plane) -> Plane:
    """How far inside the outline each pixel lies, in radii; negative outside. (p, p) float32."""
    theta = cv2.phase(np.broadcast_to(grid.u, grid.rho.shape).copy(), np.broadcast_to(grid.v, grid.rho.shape).copy())
    index = (theta * np.float32(len(radius) / (2 * np.pi))).astype(np.int32) + len(radius) // 2
    return radius.take(index, mode="wrap") - grid.rho


def blobs(
    rng: Random, grid: Grid, places: NDArray[np.float64], size: tuple[float, float], stretch: float = 1.0
) -> Plane:
    """Coverage by small ovals at `places` (K, 2) in radii, of radius `size` and up to `stretch` times as long."""
    canvas = np.zeros(grid.rho.shape, dtype=np.uint8)
    scale = 16 / grid.pixel  # sixteenths of a px: OpenCV draws with four fractional bits
    for x, y in places:
        long, radius = rng.uniform(1.0, stretch), rng.uniform(*size)
        centre = (int(x * scale + 16 * grid.centre[0]), int(y * scale + 16 * grid.centre[1]))
        axes = (max(8, int(radius * long * scale)), max(8, int(radius * scale)))
        cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def disc_points(rng: Random, count: int, radius: float, x: float = 0.0, y: float = 0.0) -> NDArray[np.float64]:
    """`count` points spread over a disc like sunflower seeds, with jitter: (count, 2) in radii."""
    k = np.arange(count) + 0.5
    rho, turn = radius * np.sqrt(k / count), k * 2.39996 + rng.uniform(0, 6.3)
    points = np.stack([x + rho * np.cos(turn), y + rho * np.sin(turn)], axis=1)
    return points + rng.normal(0, 0.12 * radius, points.shape) / np.sqrt(max(count, 1) / 8)


def red_cell_body(rng: Random, grid: Grid, depth: Plane, look: Look) -> Plane:
    """Thickness of a red cell relative to its thickest part: paler in the middle, thick towards the rim. (p, p)."""
    x, y = rng.normal(0, 0.1, 2)
    away = grid.near(x, y) / np.float32(rng.uniform(0.42, 0.7))
    pallor = min(look.pallor * rng.uniform(0.6, 1.15), 0.93)
    body = 1 - np.float32(pallor) * np.exp(-(away**2 if rng.random() < 0.6 else away**4))
    body *= np.clip(0.72 + depth * np.float32(2.2), 0.72, 1)  # a red cell thins out over its last eighth
    body += np.float32(rng.uniform(0.02, 0.08)) * grid.texture(rng, 5)
    if rng.random() < 0.08:  # a fold across the cell
        turn, bend = rng.uniform(0, np.pi), rng.uniform(-0.5, 0.5)
        along = grid.v * np.cos(turn) - grid.u * np.sin(turn)
        across = grid.u * np.cos(turn) + grid.v * np.sin(turn) - x - bend * along**2
        body -= 0.4 * np.exp(-((across / 0.1) ** 2) - (along / 0.5) ** 4)
    return np.asarray(np.maximum(body, 0.03) * np.float32(rng.uniform(0.85, 1.15)), dtype=np.float32)
