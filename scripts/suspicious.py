"""`cellloop suspicious`: labels that may be wrong, by models that never trained on them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from scripts import console


def suspicious(
    predict: Annotated[
        bool, typer.Option("--predict", help="First predict labelled images that no honest model has seen.")
    ] = False,
    show: Annotated[int, typer.Option(help="How many to list, the most suspicious first.", min=0)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Look for wrong, missing and badly placed labels; they come back for a second reading.

    Example: cellloop suspicious --predict
    """
    from al_loop.suspect import predict_labelled, suspect
    from db.images import by_ids
    from db.suspicions import open_suspicions
    from scripts.composition import open_loop

    loop = open_loop()
    if predict:
        with console.progress("predicting labelled images") as advance:
            predict_labelled(loop, advance)
    report = suspect(loop.database)
    with loop.database.session(read_only=True) as session:
        found = [each for each, _ in open_suspicions(session)]
        names = {id: image.name for id, image in by_ids(session, [each.image_id for each in found]).items()}
    rows = [(each.cell_id, names[each.image_id], each.kind, f"{each.score:.2f}", each.reason) for each in found[:show]]
    if as_json:
        heads = ("cell", "image", "kind", "score", "reason")
        listed = [dict(zip(heads, row, strict=True)) for row in rows]
        console.emit({**asdict(report), "open": len(found), "suspicious": listed}, as_json)
        return
    console.table(
        ("cell", "image", "kind", "score", "reason"),
        rows,
        title=f"{len(found)} labels in doubt, {report.added} of them new; {report.images} images looked at",
    )
