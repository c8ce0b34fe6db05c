"""`cellloop runs`: what trains, what trained, what each said; cancel and retry."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from scripts import console

app = typer.Typer(help="Training runs: list, show, log, cancel, retry.", no_args_is_help=False)
RunId = Annotated[int, typer.Argument(help="Number of the run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.callback(invoke_without_command=True)
def runs(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Training runs, newest first: what began them, how far they are, on which worker, and when they will end.

    Example: cellloop runs
    """
    if context.invoked_subcommand is None:
        from scripts.composition import open_loop
        from scripts.runs_table import emit_runs

        emit_runs(open_loop(), limit, as_json)


@app.command()
def show(run_id: RunId, as_json: AsJson = False) -> None:
    """Everything about one run: why, with which labels, its stages, its last lines, its outcome.

    Example: cellloop runs show 12
    """
    from scripts.composition import open_loop
    from scripts.runs_table import emit_run

    emit_run(open_loop(), run_id, as_json)


@app.command()
def log(
    run_id: RunId, follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the run ends.")] = False
) -> None:
    """What a run said, from whichever worker.

    Example: cellloop runs log 12 --follow
    """
    from scripts.composition import open_loop
    from scripts.runs_table import print_log

    loop, last, ended = open_loop(), 0, False
    while True:
        ended_before = ended
        last, ended = print_log(loop, run_id, last)
        if not follow or ended_before:  # one more look after the end: its last lines may have come later
            return
        time.sleep(0.5)


@app.command()
def cancel(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "a person cancelled it",
    as_json: AsJson = False,
) -> None:
    """End a queued or running training. Its checkpoint stays, and its labels count for the next one.

    Example: cellloop runs cancel 12 --reason "wrong labels"
    """
    from db import runs as record
    from scripts.composition import open_loop

    loop = open_loop()
    with loop.database.session() as session:
        run = record.cancel(session, run_id, reason)
    console.emit({"run": run.id, "status": run.status.value, "reason": run.message}, as_json)


@app.command()
def retry(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "a person retried it",
    as_json: AsJson = False,
) -> None:
    """Queue a run that failed or was cancelled again: same labels, from its last checkpoint.

    Example: cellloop runs retry 12
    """
    from db import runs as record
    from scripts.composition import open_loop

    loop = open_loop()
    with loop.database.session() as session:
        again = record.retry(session, run_id, reason)
    if again is None:
        console.fail("expected no open run of this role, one is queued or running: wait for it, or cancel it")
    console.emit({"run": again.id, "retry_of": run_id, "status": again.status.value}, as_json)
