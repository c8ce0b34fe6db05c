"""`cellloop train`: one detector, trained in the foreground."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from scripts import console
from scripts.options import Preset, Role


def train(
    role: Annotated[Role, typer.Option(help="all_cells learns every class, infected only the parasites' stages.")],
    preset: Annotated[Preset | None, typer.Option(help="Backbone; default CELLLOOP_PRESET, lite.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps; default CELLLOOP_TRAIN_STEPS.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Train on the labels there are; the first version of a role serves at once. Ctrl-C keeps the checkpoint.

    Example: cellloop train --role all_cells --preset lite

    On two GPUs: torchrun --nproc-per-node 2 -m scripts.cli train --role all_cells
    """
    from al_loop.first_models import train_here
    from scripts.composition import open_loop

    loop = open_loop()
    wanted = {"preset": preset and preset.value, "train_steps": steps}
    settings = loop.settings.model_copy(update={name: value for name, value in wanted.items() if value})
    with console.progress(f"training {role.value}") as advance:
        version = train_here(
            replace(loop, settings=settings), role.value, lambda p: advance(p.step, p.steps, p.in_words())
        )
    if version is not None:  # under torchrun the first process alone answers
        console.emit({"version": version.id, "role": version.role, "status": version.status.value}, as_json)
