"""`cellloop bench`: how fast it is, always beside the plain way of doing the same on the same machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts import console
from scripts.bench_faults import faults
from scripts.bench_poison import poison
from scripts.options import Engine, Preset

app = typer.Typer(help="Measure speed: beside the plain torchvision way, or as the pool grows.", no_args_is_help=True)
app.command("faults")(faults)
app.command("poison")(poison)

Images = Annotated[Path | None, typer.Option(help="Folder of labelled smears; default: rendered ones.")]
Annotations = Annotated[Path | None, typer.Option(help="Its annotation file, when it lies elsewhere.")]
Size = Annotated[str, typer.Option(help="Height x width in px of rendered fields.")]
Device = Annotated[str, typer.Option(help="auto | cpu | cuda | mps")]
Threads = Annotated[int, typer.Option(help="Threads on the CPU; on a busy machine one is fastest.", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def _height_width(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and min(int(height), int(width)) >= 32):
        console.fail(f"--size: expected HEIGHTxWIDTH of at least 32 px each, as in 1200x1600, got {text!r}")
    return int(height), int(width)


@app.command("detect")
def detect(
    weights: Annotated[Path | None, typer.Option(help="Folder of a pair; default: the starter weights.")] = None,
    images: Images = None,
    annotations: Annotations = None,
    fields: Annotated[int, typer.Option(help="Fields to measure on.", min=1)] = 8,
    size: Size = "1200x1600",
    cells: Annotated[int, typer.Option(help="Cells per rendered field.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of the first rendered field.")] = 900_000,
    device: Device = "auto",
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Pre-annotate fields with a pair, with masks and without, beside two plain torchvision models.

    Example: cellloop bench detect --device cpu
    """
    import torch

    from al_loop.benchmark_detect import benchmark_detect, labelled_fields, rendered_fields
    from backend.detect import pick_device
    from backend.pairs import STARTER, read_card

    torch.set_num_threads(threads)
    folder = weights or STARTER
    read_card(folder)  # says what is missing before anything is rendered
    if images is None:
        chosen = rendered_fields(fields, seed, _height_width(size), cells)
    else:
        chosen = labelled_fields(images, annotations, fields)
    with console.progress("detecting both ways") as advance:
        console.emit(benchmark_detect(folder, chosen, pick_device(device), advance), as_json)


@app.command("train")
def train(
    images: Images = None,
    annotations: Annotations = None,
    fields: Annotated[int, typer.Option(help="Fields to train on.", min=1)] = 8,
    size: Size = "1200x1600",
    cells: Annotated[int, typer.Option(help="Cells per rendered field.", min=1)] = 66,
    steps: Annotated[int, typer.Option(help="Steps to measure on each side.", min=1)] = 6,
    preset: Annotated[Preset, typer.Option(help="Size of the detectors.")] = Preset.lite,
    device: Device = "auto",
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Train both detectors for a few steps, on whole fields and on crops, beside torchvision's reference loop.

    Example: cellloop bench train --device cpu --steps 10
    """
    import tempfile

    import torch

    from al_loop.benchmark_train import benchmark_train
    from al_loop.rendered import write_coco_folder
    from backend.detect import DetectorConfig, pick_device

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch, console.progress("training both ways") as advance:
        if images is None:
            images = write_coco_folder(Path(scratch) / "fields", fields, size=_height_width(size), cells=cells)
        detector = DetectorConfig(preset=preset.value)
        report = benchmark_train(
            *(images, annotations, fields, detector, steps),
            *(pick_device(device), Path(scratch), advance),
        )
    console.emit(report, as_json)


@app.command("rank")
def rank(
    cells: Annotated[
        int, typer.Option(help="Cells of the largest pool; a tenth and a hundredth show how cost grows.", min=1000)
    ] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Rank a made-up pool, from SQL to the written queue, and follow single labels, at three sizes.

    Example: cellloop bench rank --json
    """
    from al_loop.benchmark_rank import benchmark_rank

    sizes = [size for size in (cells // 100, cells // 10, cells) if size >= 1000]
    with console.progress("building and ranking pools") as advance:
        found = benchmark_rank(sizes, on_progress=advance)
    console.emit({**found[-1], "sizes": found}, as_json)


@app.command("queue")
def queue(
    database: Annotated[str, typer.Option(help="An empty database, as postgresql://user@host/name.")],
    experts: Annotated[int, typer.Option(help="Experts who ask at the same moment.", min=1)] = 50,
    rounds: Annotated[int, typer.Option(help="How often they do.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """Let many experts ask for their next item at the same moment: waiting times, and items given twice.

    Example: cellloop bench queue --database postgresql://postgres@localhost/empty
    """
    from al_loop.benchmark_queue import benchmark_queue

    with console.progress("asking") as advance:
        console.emit(benchmark_queue(database, experts, rounds, advance), as_json)


@app.command("parasitaemia")
def parasitaemia(
    repeats: Annotated[int, typer.Option(help="Made-up slides of each kind.", min=10)] = 2000,
    as_json: AsJson = False,
) -> None:
    """How often 95 % intervals of parasitaemia hold the truth where cells of a field are alike: ours beside others.

    Example: cellloop bench parasitaemia --json
    """
    from al_loop.benchmark_intervals import benchmark_intervals

    console.emit(benchmark_intervals(repeats), as_json)


@app.command("serve")
def serve(
    experts: Annotated[int, typer.Option(help="Experts at work at the same time.", min=2, max=64)] = 64,
    seconds: Annotated[float, typer.Option(help="How long.", min=1)] = 60.0,
    compared: Annotated[float, typer.Option(help="Seconds at each of the three servers; 0: none.", min=0)] = 30.0,
    weights: Annotated[Path | None, typer.Option(help="Folder of a pair; default: the starter weights.")] = None,
    fields: Annotated[int, typer.Option(help="Fields that are rendered and detected.", min=1)] = 16,
    size: Size = "1200x1600",
    cells: Annotated[int, typer.Option(help="Cells per rendered field.", min=1)] = 80,
    hurry: Annotated[float, typer.Option(help="Think so many times faster than 8 s a field, 2 s a cell.")] = 1.0,
    database: Annotated[str, typer.Option(help="An empty database, as postgresql://user@host/name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Put the real server under many experts and a running sync: waiting times, losses, and the plain way beside it.

    Example: cellloop bench serve --json
    """
    import tempfile

    from al_loop.benchmark_serve import Load, benchmark_serve
    from al_loop.load_experts import Pace
    from backend.pairs import STARTER, read_card

    folder = weights or STARTER
    read_card(folder)  # says what is missing before anything is rendered
    pace = Pace(Pace.field_s / hurry, Pace.cell_s / hurry)
    load = Load(experts, seconds, compared, fields, _height_width(size), cells, pace)
    with tempfile.TemporaryDirectory() as scratch, console.progress("experts") as advance:
        told = console.reporter(advance)
        console.emit(benchmark_serve(Path(scratch) / "home", database, folder, load, told), as_json)


@app.command("history")
def history(
    cells: Annotated[
        int, typer.Option(help="Cells of the history; all else grows with them.", min=10_000)
    ] = 10_000_000,
    engine: Annotated[Engine, typer.Option(help="Where the record lives.")] = Engine.sqlite,
    database: Annotated[
        str | None, typer.Option(help="An empty database, as postgresql://user@host/name; SQLite: a temporary file.")
    ] = None,
    keep: Annotated[bool, typer.Option(help="Leave the history in that database.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fill an empty record with years of labels, then ask it: rows taken in per second, and times of answers.

    Example: cellloop bench history --cells 1000000
    """
    import tempfile

    from al_loop.benchmark_history import benchmark_history, remove_history
    from scripts.first_page import first_page

    with tempfile.TemporaryDirectory() as scratch, console.progress("") as advance:
        if database is None and (engine == Engine.postgres or keep):
            console.fail("--database: expected the address of an empty database for PostgreSQL or --keep, got none")
        url = database or f"sqlite:///{Path(scratch) / 'history.db'}"
        told = console.reporter(advance)
        report = benchmark_history(url, engine, cells, lambda at: first_page(at, Path(scratch) / "home"), told)
        if not keep:
            remove_history(url)
    console.emit(report, as_json)
