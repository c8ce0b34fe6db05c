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
    heads: Annotated[bool, typer.Option(help="Heads that learn in a second instead of trainings: many deals.")] = False,
    first_seed: Annotated[int, typer.Option(help="Of the deals.", min=0)] = 0,
    known: Annotated[float, typer.Option(help="Share of the smears that the incumbent knows.", min=0, max=0.4)] = 0.2,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Clean labels, a third of the infected ones flipped, every ring called schizont: which does the gate let serve?

    Example: cellloop bench poison --images bbbc041 --heads --seeds 50
    """
    import tempfile

    from al_loop.benchmark_poison import Shares, benchmark_poison
    from al_loop.benchmark_poison_heads import benchmark_heads
    from al_loop.labelled_files import read_labelled
    from al_loop.rendered import write_coco_folder
    from backend.home import prepare_home
    from backend.pairs import STARTER, weights_name
    from scripts.composition import read_settings

    trunk = "shared" if shared_trunk else "own"
    with tempfile.TemporaryDirectory() as scratch, console.progress("poison") as advance:
        folder = images or write_coco_folder(Path(scratch) / "fields", 80, size=(600, 800), infected=0.3)
        files = read_labelled(folder, annotations)[0]
        told, deals, shares = console.reporter(advance), range(first_seed, first_seed + seeds), Shares(known=known)
        if heads:
            home = read_settings().home
            prepare_home(home)
            report = benchmark_heads(files, STARTER / weights_name("all_cells"), home / "simulate", deals, shares, told)
        else:
            settings = {"train_steps": steps, "infected_trunk": trunk}
            report = benchmark_poison(files, Path(scratch) / "homes", deals, settings, shares, told)
    if as_json:
        console.emit(report, as_json)
        return
    for arm in report["arms"]:
        print(f"seed {arm['seed']}, {arm['labels']} labels: {'promoted' if arm['promote'] else 'refused'}")
        print("".join(f"  - {reason}\n" for reason in arm["reasons"]), end="")
    console.emit({"seeds": report["seeds"], "promoted": report["promoted"]}, as_json)
