"""One process of a retraining that runs in several: started by `torchrun` for a worker. No command of its own.

Usage: torchrun --nproc-per-node 2 -m scripts.train_share RUN WORKER
"""

from __future__ import annotations

import sys

from scripts import console


def main(run_id: int, worker_id: int) -> None:
    """Train this process's share of the run."""
    from al_loop.retrain import RunCancelled
    from al_loop.train_together import CANCELLED, share
    from backend.logs import set_up
    from scripts.composition import open_loop

    loop = open_loop()
    set_up(loop.settings.log_format)
    try:
        share(loop, run_id, worker_id)
    except RunCancelled:
        sys.exit(CANCELLED)
    except Exception as error:
        message = console.expected(error)
        if message is None:
            raise
        console.fail(message)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
