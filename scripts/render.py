"""`cellloop render`: smears out of nothing, with exact truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts import console


def render(
    out: Annotated[Path, typer.Argument(help="Folder for images/ and annotations.json.")],
    fields: Annotated[int, typer.Option(min=1, help="How many fields of view.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="The same seed renders the same bytes.")] = 0,
    size: Annotated[str, typer.Option(help="Height x width in px.")] = "1200x1600",
    cells: Annotated[int, typer.Option(min=1, help="Cells per field.")] = 100,
    infected: Annotated[float, typer.Option(min=0, max=1, help="Share of infected cells.")] = 0.15,
    sheet: Annotated[bool, typer.Option("--sheet", help="Also a contact sheet of every class: OUT/sheet.png.")] = False,
    beside: Annotated[Path | None, typer.Option(help="Labelled smears shown beside them on the sheet.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Render Giemsa-like smears as a COCO folder, which `cellloop import` takes: to try things out, never as evidence.

    Example: cellloop render ~/rendered --fields 8 --seed 1 --sheet
    """
    import cv2

    from al_loop.labelled_files import read_labelled
    from al_loop.render_sheet import contact_sheet
    from al_loop.rendered import write_coco_folder

    height, _, width = size.partition("x")
    if not (height.isdigit() and width.isdigit() and min(int(height), int(width)) >= 32):
        console.fail(f"--size: expected HEIGHTxWIDTH of at least 32 px each, as in 1200x1600, got {size!r}")
    with console.progress("rendering") as advance:
        write_coco_folder(
            out,
            fields,
            seed,
            size=(int(height), int(width)),
            cells=cells,
            infected=infected,
            on_progress=lambda done, total: advance(done, total, ""),
        )
    report = {"folder": str(out), "fields": fields, "seed": seed}
    if sheet or beside is not None:
        left, _ = read_labelled(out, dataset="coco")
        right = read_labelled(beside)[0] if beside is not None else []
        cv2.imwrite(str(out / "sheet.png"), contact_sheet(left, right)[..., ::-1])
        report["sheet"] = str(out / "sheet.png")
    console.emit(report, as_json)
