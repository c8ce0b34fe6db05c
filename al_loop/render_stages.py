"""How every class looks: the stages of P. vivax, leukocytes, and cells that nobody can decide.

Each painter gives the optical density (p, p, 3) of its cell; colours come from the slide's look.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from al_loop.render_cells import Grid, Look, Plane, Random, blobs, disc_points, red_cell_body
from backend.instances import DIFFICULT, INFECTED


def _mix(*layers: tuple[Plane, Plane]) -> Plane:
    """Sum of (amount (p, p), density (3,)) layers: (p, p, 3)."""
    return np.asarray(sum(amount[..., None] * stain for amount, stain in layers), dtype=np.float32)


def _host(rng: Random, grid: Grid, look: Look, strength: float) -> Plane:
    """The enlarged, emptied red cell around a parasite, with Schüffner's dots: grains all over it. (p, p)."""
    grains = np.clip(grid.texture(rng, 30), -1.2, 1.5)
    return np.float32(strength * rng.uniform(0.7, 1.3)) * (1 + 0.18 * grid.texture(rng, 4) + 0.22 * grains)


def _pigment(rng: Random, grid: Grid, count: int, radius: float, x: float, y: float) -> Plane:
    """Haemozoin: short dark rods. (p, p)."""
    rods = blobs(rng, grid, disc_points(rng, count, radius, x, y), (0.022, 0.048), 2.6)
    return np.float32(rng.uniform(0.55, 0.95)) * rods


def _red_blood_cell(rng: Random, grid: Grid, depth: Plane, look: Look) -> Plane:
    return red_cell_body(rng, grid, depth, look)[..., None] * look.red_cell


def _ring(rng: Random, grid: Grid, depth: Plane, look: Look) -> Plane:
    """Thin blue hoop around a vacuole, one or two chromatin dots on it; at times late specks across the cell."""
    x, y = rng.uniform(-0.4, 0.4, 2)
    radius, turn = rng.uniform(0.16, 0.32), rng.uniform(0, 2 * np.pi)
    away = grid.near(x, y)
    thickness = 0.055 + 0.03 * np.cos(np.arctan2(grid.v - y, grid.u - x) - turn)
    hoop = np.exp(-(((away - radius) / thickness) ** 2))
    vacuole = np.exp(-((away / (0.8 * radius)) ** 4))
    turns = turn + np.arange(rng.choice([1, 2], p=[0.7, 0.3])) * rng.uniform(0.6, 2.4)
    dots = np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], axis=1)
    chromatin = blobs(rng, grid, dots, (0.075, 0.13), 1.5)
    if rng.random() < 0.4:
        specks = disc_points(rng, int(rng.integers(1, 7)), 0.75)
        chromatin = np.maximum(chromatin, rng.uniform(0.4, 1.0) * blobs(rng, grid, specks, (0.035, 0.08), 1.5))
    host = red_cell_body(rng, grid, depth, look) * rng.uniform(0.6, 1.0) * (1 - 0.35 * vacuole)
    return _mix(
        (host, look.red_cell),
        (_host(rng, grid, look, 0.15), look.host),
        (rng.uniform(0.4, 0.9) * hoop, look.cytoplasm),
        (grid.soften(chromatin, 0.02) * 0.95, look.chromatin),
    )


def _trophozoite(rng: Random, grid: Grid, depth: Plane, look: Look) -> Plane:
    """Amoeboid blue cytoplasm with vacuoles in a pale, enlarged host; chromatin, scattered brown pigment."""
    x, y = rng.uniform(-0.3, 0.3, 2)
    amoeboid = 1.0 - (grid.near(x, y) / rng.uniform(0.45, 0.85)) ** 2 + 0.85 * grid.texture(rng, 7)
    cytoplasm = grid.soften(grid.edge(0.25 * amoeboid), 0.03) * (0.75 + 0.25 * grid.texture(rng, 12))
    clump = blobs(rng, grid, disc_points(rng, 1, 0.3, x, y), (0.16, 0.34), 1.7)
    clump = grid.soften(clump, 0.07) * (0.8 + 0.3 * grid.texture(rng, 12)) * (rng.random() < 0.6)
    chromatin = blobs(rng, grid, disc_points(rng, int(rng.integers(1, 3)), 0.4, x, y), (0.09, 0.18), 1.5)
    pigment = _pigment(rng, grid, int(rng.integers(4, 20)), rng.uniform(0.35, 0.75), x, y)
    return _mix(
        (red_cell_body(rng, grid, depth, look) * rng.uniform(0.02, 0.4), look.red_cell),
        (_host(rng, grid, look, 0.7), look.host),
        (rng.uniform(0.3, 0.75) * np.maximum(cytoplasm, 0), look.cytoplasm),
        (0.9 * clump + 0.8 * grid.soften(chromatin, 0.03), look.chromatin),
        (pigment, look.pigment),
    )


def _schizont(rng: Random, grid: Grid, depth: Plane, look: Look) -> Plane:
    """A mass of eight to twenty-four merozoites around clumped pigment, in a host that shows beside it."""
    x, y = rng.normal(0, 0.13, 2)
    size = rng.uniform(0.5, 0.95)
    body = grid.soften(grid.edge(size - grid.near(x, y) + 0.1 * grid.texture(rng, 6)), 0.04)
    places = disc_points(rng, int(rng.integers(8, 25)), 0.85 * size, x, y)
    merozoites = grid.soften(blobs(rng, grid, places, (0.09, 0.16), 1.5), rng.uniform(0.015, 0.05))
    clump = disc_points(rng, int(rng.integers(3, 9)), 0.15, *rng.normal((x, y), 0.15))
    pigment = np.maximum(
        0.85 * blobs(rng, grid, clump, (0.04, 0.08), 1.8),
        _pigment(rng, grid, int(rng.integers(3, 26)), 0.9 * size, x, y),
    )
    return _mix(
        (red_cell_body(rng, grid, depth, look) * rng.uniform(0.0, 0.25), look.red_cell),
        (_host(rng, grid, look, 0.9), look.host),
        (rng.uniform(0.4, 0.8) * body * (0.9 + 0.2 * grid.texture(rng, 9)), look.cytoplasm),
        (rng.uniform(0.55, 0.95) * body * merozoites, look.chromatin),
        (pigment, look.pigment),
    )


def _gametocyte(rng: Random, grid: Grid, depth: Plane, look: Look) -> Plane:
    """Large and round, filling its host: one even purple body, a diffuse nucleus, pigment all over."""
    body = grid.edge(np.minimum(depth - rng.uniform(-0.1, 0.1), rng.uniform(0.85, 1.1) - grid.rho))
    body = body * (1 + 0.1 * grid.texture(rng, 5) + 0.08 * grid.texture(rng, 24))
    nucleus = np.exp(-((grid.near(*rng.uniform(-0.4, 0.4, 2)) / rng.uniform(0.2, 0.38)) ** 4))
    pigment = _pigment(rng, grid, int(rng.integers(22, 52)), rng.uniform(0.7, 0.92), *rng.normal(0, 0.08, 2))
    pink = rng.uniform(0.05, 0.3)  # male forms are pink, female forms blue
    return _mix(
        (_host(rng, grid, look, 0.8), look.host),
        (rng.uniform(0.5, 0.95) * body, look.cytoplasm),
        (body * (pink + rng.uniform(-0.1, 0.45) * nucleus), look.chromatin),
        (pigment, look.pigment),
    )


def _leukocyte(rng: Random, grid: Grid, depth: Plane, look: Look) -> Plane:
    """A granulocyte with two to five lobes, or a lymphocyte: one round nucleus and little else."""
    if rng.random() < 0.4:
        nucleus = grid.edge(np.minimum(rng.uniform(0.7, 0.95) - grid.near(*rng.normal(0, 0.06, 2)), depth))
    else:
        lobes = int(rng.integers(2, 6))
        turns = rng.uniform(0, 6.3) + np.arange(lobes) * rng.uniform(1.0, 1.7)
        places = rng.uniform(0.3, 0.45) * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        nucleus = grid.soften(blobs(rng, grid, places, (0.24, 0.36), 1.4), 0.03)
    grains = rng.uniform(0.2, 0.5) + 0.08 * grid.texture(rng, 30) + 0.05 * grid.texture(rng, 7)
    return _mix(
        (np.maximum(grains, 0) * (1 - nucleus), look.cytoplasm),
        (nucleus * (0.95 + 0.12 * grid.texture(rng, 12)), look.nucleus),
    )


def _difficult(rng: Random, grid: Grid, depth: Plane, look: Look) -> Plane:
    """Between two stages, or a red cell with something on it: a platelet, a stain grain, or a first ring."""
    if rng.random() < 0.55:
        one, other = rng.choice(INFECTED, 2, replace=False)
        mixed = PAINTERS[str(one)](rng, grid, depth, look) + PAINTERS[str(other)](rng, grid, depth, look)
        return grid.soften(mixed * np.float32(rng.uniform(0.4, 0.6)), rng.uniform(0.03, 0.08))
    places = disc_points(rng, int(rng.integers(1, 4)), 0.4, *rng.uniform(-0.4, 0.4, 2))
    spot = grid.soften(blobs(rng, grid, places, (0.08, 0.22), 1.6), rng.uniform(0.03, 0.08))
    stain = rng.uniform(0.1, 0.6) * look.cytoplasm + rng.uniform(0.2, 0.7) * look.chromatin
    return _red_blood_cell(rng, grid, depth, look) * 0.85 + spot[..., None] * stain


PAINTERS: dict[str, Callable[[Random, Grid, Plane, Look], Plane]] = {
    "red blood cell": _red_blood_cell,
    "ring": _ring,
    "trophozoite": _trophozoite,
    "schizont": _schizont,
    "gametocyte": _gametocyte,
    "leukocyte": _leukocyte,
    DIFFICULT: _difficult,
}


def draw_cell(rng: Random, kind: str, grid: Grid, depth: Plane, look: Look) -> Plane:
    """Optical density (p, p, 3) float32 of a cell of `kind` (a class or difficult) with an outline of this `depth`."""
    density = grid.edge(depth)[..., None] * np.maximum(PAINTERS[kind](rng, grid, depth, look), 0)
    if look.halo:
        density -= (look.halo * np.exp(-(((depth + 0.07) / 0.06) ** 2)) * (depth < 0))[..., None]
    return np.asarray(density, dtype=np.float32)
