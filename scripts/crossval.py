"""`cellloop crossval`: how good the recipe is on smears its detectors have not seen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scripts import console
from scripts.options import Role

LINE_SECONDS = 30.0  # between two lines of progress where a bar cannot be drawn


class Fit(StrEnum):
    """Where a fold's fusion is fitted; a test compares them with `al_loop.crossval_score.FITS`."""

    validation = "validation"
    other_folds = "other-folds"
    none = "none"


app = typer.Typer(help="Train without some images, look at those, and compare ways to fuse.", no_args_is_help=True)


@app.command("train")
def train(
    data: Annotated[list[Path], typer.Option(help="Folder of labelled smears; several may be given.")],
    out: Annotated[Path, typer.Option(help="Folder for weights and detections.")],
    folds: Annotated[int, typer.Option(help="Parts each source is divided into.")] = 5,
    fold: Annotated[list[int] | None, typer.Option(help="Only this fold, from 0; several may be given.")] = None,
    role: Annotated[list[Role] | None, typer.Option(help="Only this role; both may be given.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of each detector.")] = None,
    rendered: Annotated[int, typer.Option(help="Rendered fields to train on as well.")] = 0,
    train_on: Annotated[
        list[Path] | None, typer.Option(help="Train on these folders of --data only; test on all.")
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of the training images to calibrate on instead.")] = 0.12,
    shared_trunk: Annotated[
        bool, typer.Option("--shared-trunk", help="infected keeps the trunk of the fold's all_cells.")
    ] = False,
    base: Annotated[Path | None, typer.Option(help="Folder of a pair to begin with, e.g. backend/starter.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE over the recipe, e.g. crop=448; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Train both detectors of each fold and keep what they see in the images held out. Finished ones are kept.

    Example: cellloop crossval train --data ~/bbbc041 --data ~/iml --out crossval --fold 0 --role infected
    """
    from al_loop.crossval import CrossValidation, train_folds
    from al_loop.crossval_config import STEPS

    plan = CrossValidation(
        data=tuple(data),
        out=out,
        folds=folds,
        steps=STEPS if steps is None else steps,
        train_on=tuple(train_on) if train_on else None,
        rendered=rendered,
        settings=tuple(settings or ()),
        shared_trunk=shared_trunk,
        base=base,
        validation_share=validation,
        device=device,
    )
    roles = [chosen.value for chosen in (role or Role)]
    with console.progress("cross-validation") as advance:
        report = advance if sys.stderr.isatty() else _lines()
        written = train_folds(plan, range(folds) if fold is None else fold, roles, report)
    for path in written:
        print(path)


def _lines() -> Callable[[int, int, str], None]:
    """Progress as lines on stderr, one at each end of a stage and now and then between."""
    last = 0.0

    def report(done: int, total: int, note: str) -> None:
        nonlocal last
        if done < total and time.monotonic() - last < LINE_SECONDS:
            return
        last = time.monotonic()
        print(f"{time.strftime('%H:%M:%S')} {note} ({done} of {total})", file=sys.stderr, flush=True)

    return report


@app.command("score")
def score(
    out: Annotated[Path, typer.Argument(help="Folder that `crossval train` wrote.")],
    as_json: Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables with intervals to this file.")] = None,
    fit: Annotated[Fit, typer.Option(help="What a fold's fusion is fitted on.")] = Fit.validation,
    by_source: Annotated[bool, typer.Option("--by-source", help="Fit a fusion for each source by itself.")] = False,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap samples.")] = 1000,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Write each fold's detectors as a pair, to evaluate or to bench.")
    ] = False,
) -> None:
    """Both detectors alone, other ways to fuse and ours, on the images held out from them, folds pooled.

    Example: cellloop crossval score crossval --markdown fusion.md --json fusion.json
    """
    import json

    from al_loop.compare_table import tell
    from al_loop.crossval_pairs import write_pairs
    from al_loop.crossval_score import score as score_folds

    comparison = score_folds(out, fit=fit.value, by_source=by_source, resamples=resamples)
    if as_json is not None:
        as_json.write_text(json.dumps(comparison.to_json(), indent=1) + "\n", encoding="utf-8")
    if markdown is not None:
        markdown.write_text(tell(comparison), encoding="utf-8")
    print(tell(comparison, intervals=False))
    if pairs:
        for folder in write_pairs(out, comparison):
            print(folder)
