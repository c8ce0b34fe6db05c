"""`cellloop demo`: the whole loop on this machine, from nothing."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Expert(StrEnum):
    """Who reviews: you in the browser, or a script that knows the truth of the data."""

    you = "you"
    auto = "auto"


def demo(
    data: Annotated[Path | None, typer.Option(help="BBBC041, IML or COCO folder or zip; default: rendered.")] = None,
    expert: Annotated[Expert, typer.Option(help="Who reviews.")] = Expert.you,
    once: Annotated[bool, typer.Option("--once", help="With --expert auto: end after one decided retraining.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; default CELLLOOP_TRAIN_STEPS.")] = None,
    train_first: Annotated[
        bool, typer.Option("--train-first", help="Train the first models here, without starter weights.")
    ] = False,
    port: Annotated[int | None, typer.Option(help="Port of the backend; default 9090 or a free one.")] = None,
    label_studio_port: Annotated[int | None, typer.Option(help="Label Studio's; default 8080 or a free one.")] = None,
) -> None:
    """Label Studio, backend and worker on loopback, with smears, first models, predictions and order in place.

    Example: cellloop demo --data ~/BBBC041 --expert auto --once
    """
    import signal

    from scripts.demonstration import Wishes, demonstrate

    # A polite kill ends the children too; and Ctrl-C must, even where a shell started us in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    demonstrate(
        Wishes(
            data=data,
            scripted=expert is Expert.auto,
            once=once,
            steps=steps,
            port=port,
            label_studio_port=label_studio_port,
            train_first=train_first,
        )
    )
