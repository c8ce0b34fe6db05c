"""`cellloop train`: one detector from the labels there are."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts import console
from scripts.options import Preset, Role


def train(
    role: Annotated[Role, typer.Option(help="Which of the two detectors.")],
    preset: Annotated[Preset | None, typer.Option(help="Size of the detector; default CELLLOOP_PRESET, lite.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; default CELLLOOP_TRAIN_STEPS.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Train here and now, on CUDA, MPS or the CPU; killed and repeated, it goes on from its last checkpoint.

    The first version of a role serves at once; later ones wait for `cellloop evaluate` and `cellloop promote`.

    Example: cellloop train --role infected --preset lite
    """
    from al_loop.first_models import train_here
    from scripts.composition import open_loop

    loop = open_loop(**{k: v for k, v in (("preset", preset and preset.value), ("train_steps", steps)) if v})
    with console.progress(f"training {role.value}") as advance:
        version = train_here(loop, role.value, lambda p: advance(p.step, p.steps, f"loss {p.loss:.2f}"))
    console.emit({"role": role.value, "version": version.id, "status": version.status.value}, as_json)
