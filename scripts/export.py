"""`cellloop export`: the current labels, or those of a moment, in somebody else's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts import console
from scripts.options import ExportFormat, Split


def export(
    format: Annotated[ExportFormat, typer.Argument(help="What to write; `cellloop import` reads each of them.")],
    out: Annotated[Path, typer.Argument(help="Folder to make; it appears when it is whole.")],
    as_of: Annotated[str | None, typer.Option(help="A moment in ISO 8601, UTC without a zone; default: now.")] = None,
    split: Annotated[Split | None, typer.Option(help="Only images of this split; default: all.")] = None,
    group: Annotated[str | None, typer.Option(help="Only images of this group (slide).")] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Copy the image files, too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Write the labels of completely labelled images and say what was left out, and what the format cannot carry.

    Example: cellloop export coco labels-in-june --as-of 2026-06-30T18:00 --split train
    """
    from al_loop.export import export as export_to
    from db.exports import Scope
    from scripts.composition import open_loop

    loop = open_loop()
    scope = Scope.of(split and split.value, group, as_of)
    with console.progress("exporting") as advance:
        report = export_to(loop.database, loop.store, format.value, out, scope, with_images=images, on_progress=advance)
    if as_json:
        console.emit(report.to_json(), as_json)
    else:
        print(*report.lines(), sep="\n")
