"""`cellloop worker`: keep the loop turning."""

from __future__ import annotations

from typing import Annotated

import typer


def worker(
    queues: Annotated[
        str, typer.Option(help="Which work to take: some of train, predict, sync.")
    ] = "train,predict,sync",
) -> None:
    """Sync reviews, predict the pool, retrain when it is due; until Ctrl-C or SIGTERM.

    Any number of workers may run where PostgreSQL holds the record, on any machine that reaches it and the file store:
    one of those with `sync` ticks, a dead one's work goes on in another.

    Example: cellloop worker --queues train,predict
    """
    import signal
    import threading

    from al_loop.jobs import checked
    from al_loop.pulse import leave
    from al_loop.worker import run_worker
    from backend.logs import set_up
    from scripts.composition import open_loop

    loop = open_loop()
    set_up(loop.settings.log_format)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_worker(loop, stop, checked([name.strip() for name in queues.split(",") if name.strip()]))
    leave()
