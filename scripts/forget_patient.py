"""`cellloop forget-patient`: the one lawful removal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from scripts import console


def forget_patient(
    patient: Annotated[str | None, typer.Argument(help="Id of the patient, as in the record.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record; without names.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    every: Annotated[bool, typer.Option("--list", help="What was forgotten so far, when and why.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Remove a patient's images, crops and labels for good, keep a tombstone, and name the models that had seen them.

    Killed, or while Label Studio is away: the same command again goes on. Exit code 1 as long as something is left.

    Example: cellloop forget-patient P0012 --reason "consent withdrawn" --dry-run
    """
    from al_loop.forget import forget
    from al_loop.forget_report import look
    from scripts import forgettings
    from scripts.composition import open_loop

    if (patient is None) != every:
        console.fail("expected a patient's id, or --list")
    if not every and not dry_run and not reason.strip():
        console.fail("--reason: expected why, for the record: nothing is removed silently")
    loop = open_loop()
    if patient is None:
        forgettings.show(loop, as_json)
        return
    if dry_run:
        console.emit(look(loop, patient).to_json(), as_json)
        return
    if sys.stdin.isatty() and not yes:
        console.emit(look(loop, patient).to_json(), as_json=False)
        typer.confirm("Remove all of this for good?", abort=True)
    with console.progress("forgetting") as advance:
        report = forget(loop, patient, reason, advance)
    console.emit(report.to_json(), as_json)
    if not report.finished:
        raise typer.Exit(1)
