"""`cellloop import`: images and their known labels into the record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts import console


def import_images(
    source: Annotated[
        Path,
        typer.Argument(help="Folder, zip or annotation file: BBBC041, IML, COCO, Label Studio's JSON, csv or parquet."),
    ],
    dataset: Annotated[str | None, typer.Option(help="Name kept with each image; default: the format's.")] = None,
    label_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the training images whose labels come in too.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Chooses which images those are.")] = 0,
    name_pattern: Annotated[
        str | None, typer.Option(help="Regular expression with groups patient, slide, taken, found in file names.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Store images once by their sha256, with splits by group and patient; list whatever is wrong with the rest.

    Example: cellloop import ~/BBBC041.zip --label-share 0.2

    Example: cellloop import DIR --name-pattern '(?P<patient>P[0-9]+)_(?P<slide>S[0-9]+)_(?P<taken>[0-9]{8})'
    """
    from al_loop.import_images import import_images as import_into
    from scripts.composition import open_loop

    loop = open_loop()
    with console.progress("importing") as advance:
        report = import_into(
            loop.database,
            loop.store,
            source,
            dataset,
            label_share=label_share,
            seed=seed,
            name_pattern=name_pattern,
            on_progress=advance,
        )
    if as_json:
        console.emit(report.to_json(), as_json)
    else:
        print(*report.lines(), sep="\n")
