"""`cellloop starter`: weights to begin with, made of BBBC041 and rendered smears only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from scripts import console
from scripts.options import Role

LINE_SECONDS = 30.0

app = typer.Typer(help="Train, describe or install the starter weights.", no_args_is_help=True)


@app.command("train")
def train(
    bbbc041: Annotated[Path, typer.Option(help="Folder of BBBC041, or of a part of it.")],
    out: Annotated[Path, typer.Option(help="Folder for the work; the pair comes to lie in OUT/pair.")],
    rendered: Annotated[int | None, typer.Option(min=0, help="Rendered fields; default: by their share.")] = None,
    rendered_share: Annotated[float, typer.Option(help="Share of rendered fields among all.")] = 0.3,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps of each detector.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is random.")] = 0,
    folds: Annotated[int, typer.Option(min=2, help="Parts the images are divided into.")] = 5,
    fold: Annotated[int | None, typer.Option(min=0, help="Train without this part, and look at it.")] = None,
    role: Annotated[list[Role] | None, typer.Option(help="Only this one; both may be given.")] = None,
    shared_trunk: Annotated[
        bool, typer.Option("--shared-trunk", help="infected keeps the trunk of all_cells.")
    ] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE over the recipe.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Train both detectors, fit their fusion, write the pair and its card. A killed run goes on where it stopped.

    With every --fold trained before, the fusion is fitted on what each fold's detectors saw in the images held out
    (`cellloop crossval score OUT` scores them); without, a part of the images is kept for it.

    Example: cellloop starter train --bbbc041 ~/BBBC041 --out starter --fold 0
    """
    from al_loop.starter import StarterPlan, train_starter

    plan = StarterPlan(
        bbbc041=bbbc041,
        out=out,
        rendered=rendered,
        rendered_share=rendered_share,
        steps=steps,
        seed=seed,
        folds=folds,
        fold=fold,
        shared_trunk=shared_trunk,
        settings=tuple(settings or ()),
        device=device,
    )
    with console.progress("starter weights") as advance:
        report = advance if sys.stderr.isatty() else _lines()
        folder = train_starter(plan, [chosen.value for chosen in (role or Role)], report)
    print(folder)


def _lines() -> Callable[[int, int, str], None]:
    """Progress as a line on stderr now and then, where a bar cannot be drawn: trainings take hours."""
    last = 0.0

    def report(done: int, total: int, note: str) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            print(f"{time.strftime('%H:%M:%S')} {note} ({done} of {total})", file=sys.stderr, flush=True)

    return report


@app.command("card")
def card(
    folder: Annotated[Path, typer.Argument(help="Folder of the pair.")],
    scores: Annotated[Path, typer.Option(help="Numbers as `cellloop evaluate --json` writes them.")],
    on: Annotated[str, typer.Option(help="What they were measured on, in words.")],
) -> None:
    """Put measured scores into pair.json and CARD.md.

    Example: cellloop starter card starter/pair --scores scores.json --on "BBBC041 in five folds"
    """
    from al_loop.starter_card import add_scores

    print(add_scores(folder, scores, on))


@app.command("install")
def install(
    weights: Annotated[Path | None, typer.Option(help="Folder of a pair; default: the one that came along.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Let the starter weights serve in every role without a version, so that pre-annotations need no training.

    Example: cellloop starter install
    """
    from al_loop.starter_install import install_starter
    from backend.pairs import STARTER
    from scripts.composition import open_loop

    serving = install_starter(open_loop(), STARTER if weights is None else weights)
    console.emit({version.role: f"version {version.id}" for version in serving}, as_json)
