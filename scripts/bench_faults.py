"""The verb `cellloop bench faults`: break a whole installation on purpose, again and again; nothing may be lost."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from scripts import console


class Studio(StrEnum):
    """Which Label Studio the rounds are played with."""

    stand_in = "stand-in"
    real = "real"


def faults(
    rounds: Annotated[int, typer.Option(help="How many; 25 have every kind of fault in them.", min=1)] = 25,
    seed: Annotated[int, typer.Option(help="Everything that is drawn follows from it.")] = 1,
    only: Annotated[int | None, typer.Option(help="Play only this one of the rounds.", min=1)] = None,
    database_url: Annotated[
        str, typer.Option(help="An empty PostgreSQL database; default: SQLite in a temporary folder.")
    ] = "",
    restart_database: Annotated[
        str, typer.Option(help="The command that restarts that PostgreSQL; without one, its connections break.")
    ] = "",
    label_studio: Annotated[
        Studio, typer.Option(help="The real one restarts in seconds, the stand-in in no time.")
    ] = Studio.stand_in,
    soak: Annotated[bool, typer.Option(help="Ask the server 1000 times afterwards: it may keep nothing.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Kill processes, cut connections, damage files while an expert works; then mend it and look whether all is right.

    Exit code 1 when a round left something lost, doubled or stuck; it says how to replay that round.

    Example: cellloop bench faults --rounds 200 --seed 7
    """
    import shlex
    import tempfile
    from pathlib import Path

    import torch

    from al_loop.faults.bench import bench_faults
    from scripts.composition import label_studio_program
    from scripts.faults_process import MODULES, run

    torch.set_num_threads(1)
    program = label_studio_program() if label_studio == Studio.real else None
    if label_studio == Studio.real and program is None:
        console.fail("--label-studio real: expected Label Studio beside us; `bash scripts/demo.sh` installs it")
    with tempfile.TemporaryDirectory(prefix="cellloop-faults-") as folder, console.progress("playing") as advance:
        settled = bench_faults(
            *(Path(folder), rounds, run),
            modules=MODULES,
            seed=seed,
            only=only,
            database_url=database_url,
            restart_database=shlex.split(restart_database),
            label_studio=program,
            soaks=soak and only is None,
            on_progress=console.reporter(advance),
        )
    if not as_json:
        console.table(("fault", "rounds", "violations", "observed"), settled.observed(), f"seed {seed}")
    console.emit(settled.to_json(), as_json)
    if settled.to_json()["violations"]:
        raise typer.Exit(1)
