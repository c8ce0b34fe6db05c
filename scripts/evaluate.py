"""`cellloop evaluate`: a version on the frozen test split, or a pair of weights on any labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts import console, evaluations
from scripts.options import Format, View

ALL = list(View)


def evaluate(
    version: Annotated[int | None, typer.Option(help="Id of a version; default: the active `infected`.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of images outside of the record.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Their annotations; default: found in the folder.")] = None,
    dataset: Annotated[Format | None, typer.Option("--format", help="Default: recognised.")] = None,
    role: Annotated[list[View], typer.Option(help="Repeat for several.")] = ALL,
    weights: Annotated[Path | None, typer.Option(help="Folder of a pair; default: the starter weights.")] = None,
    json_file: Annotated[str, typer.Option("--json", help="Write the numbers there; `-`: print them as JSON.")] = "",
    report: Annotated[Path | None, typer.Option(help="Folder for an HTML report and its pictures.")] = None,
) -> None:
    """Measure detectors: AP, infected recall, F1, calibration, parasitaemia, each with its 95 % interval.

    Without --images: the pair that a version makes with the other role's active one, on the frozen test split.

    Example: cellloop evaluate --images DIR --annotations DIR/test.json --format bbbc041 --json out.json --report out
    """
    if images is None:
        outside = {"--annotations": annotations, "--format": dataset, "--weights": weights, "--report": report}
        surplus = [name for name, value in outside.items() if value is not None]
        if surplus or role != ALL:
            console.fail(f"{' '.join(surplus) or '--role'}: only together with --images, got no --images")
        evaluations.of_version(version, json_file)
        return
    if version is not None:
        console.fail("--version or --images: expected one of them, got both; a version is measured on its own split")
    evaluations.of_files(
        images, annotations, dataset and dataset.value, [view.value for view in dict.fromkeys(role)], weights,
        json_file, report,
    )  # fmt: skip
