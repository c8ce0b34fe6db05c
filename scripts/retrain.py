"""`cellloop retrain`: one turn of the loop, because a person wants one."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from scripts import console


def retrain(
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "a person asked",
    here: Annotated[bool, typer.Option("--here", help="Run it in this process; no worker may be running.")] = False,
    wait: Annotated[bool, typer.Option(help="Stay until it is decided.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Retrain `infected` on all reviewed labels, in the worker; the gate decides whether the candidate serves.

    Example: cellloop retrain --reason "a new stain" --no-wait
    """
    import threading

    from al_loop.jobs import TRAIN, worker_in_the_way, worker_lives
    from al_loop.trigger import ask_for_retraining
    from al_loop.worker import run_worker
    from db import runs
    from scripts.composition import open_loop

    loop = open_loop()
    if wait and not here and not worker_lives(loop, TRAIN):
        console.fail("expected a running worker to retrain in; start `cellloop worker`, or add --here or --no-wait")
    if here and worker_in_the_way(loop):
        console.fail("--here: expected no running worker, one is running and can retrain; leave --here out")
    run_id = ask_for_retraining(loop, reason)
    if run_id is None:
        with loop.database.session(read_only=True) as session:
            run = runs.open_of(session, "infected")
        console.fail(f"expected no open retraining, run {run.id if run else '?'} is open: wait for it")
    stop = threading.Event()
    thread = threading.Thread(target=run_worker, args=(loop, stop), daemon=True)
    if here:
        thread.start()
    with loop.database.session(read_only=True) as session:
        run = runs.get(session, run_id)
    with console.progress(f"run {run_id}") as advance:
        while (wait or here) and run.finished_at is None:
            time.sleep(0.5)
            with loop.database.session(read_only=True) as session:
                run = runs.get(session, run_id)
            advance(run.step, run.steps, run.message or "waiting for a worker")
    stop.set()
    if here:
        thread.join()
    if run.error:
        console.fail(f"run {run_id} failed: {run.error}")
    console.emit({"run": run_id, "status": run.status.value, "version": run.version_id, "note": run.message}, as_json)
