"""`cellloop worker`: keep the loop turning."""

from __future__ import annotations


def worker() -> None:
    """Sync reviews, predict what was asked for, retrain when enough was reviewed; until Ctrl-C or SIGTERM.

    Example: cellloop worker
    """
    import logging
    import signal
    import threading

    from al_loop.jobs import leave
    from al_loop.worker import run_worker
    from scripts.composition import open_loop

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for chatty in ("httpx", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_worker(open_loop(), stop)
    leave()
