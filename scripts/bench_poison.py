"""The verb `cellloop bench poison`: labels that are wrong on purpose, real retrainings, and the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts import console


def poison(
    images: Annotated[Path | None, typer.Option(help="Folder of labelled smears; default: rendered ones.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Its annotation file, when it lies elsewhere.")] = None,
    seeds: Annotated[int, typer.Option(help="How often the smears are dealt anew.", min=1)] = 3,
    steps: Annotated[int, typer.Option(help="Of each training.", min=1)] = 300,
    shared_trunk: Annotated[bool, typer.Option(help="Train on the trunk of all_cells: faster on a CPU.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Clean labels, a third of the infected ones flipped, every ring called schizont: which does the gate let serve?

    Example: cellloop bench poison --images bbbc041 --seeds 3
    """
    import tempfile

    from al_loop.benchmark_poison import benchmark_poison
    from al_loop.labelled_files import read_labelled
    from al_loop.rendered import write_coco_folder

    trunk = "shared" if shared_trunk else "own"
    with tempfile.TemporaryDirectory() as scratch, console.progress("poison") as advance:
        folder = images or write_coco_folder(Path(scratch) / "fields", 80, size=(600, 800), infected=0.3)
        files = read_labelled(folder, annotations)[0]
        settings = {"train_steps": steps, "infected_trunk": trunk}
        told = console.reporter(advance)
        report = benchmark_poison(files, Path(scratch) / "homes", range(seeds), settings, report=told)
    if as_json:
        console.emit(report, as_json)
        return
    for arm in report["arms"]:
        print(f"seed {arm['seed']}, {arm['labels']} labels: {'promoted' if arm['promote'] else 'refused'}")
        print("".join(f"  - {reason}\n" for reason in arm["reasons"]), end="")
    console.emit({"seeds": report["seeds"], "promoted": report["promoted"]}, as_json)
