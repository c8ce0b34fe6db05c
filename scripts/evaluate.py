"""`cellloop evaluate`: a version on the frozen test split."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from scripts import console


def evaluate(
    version: Annotated[int | None, typer.Option(help="Id of a version; default: the active `infected`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Measure the pair a version makes with the other role's active one; numbers with their 95 % intervals.

    Example: cellloop evaluate --version 7
    """
    from al_loop.evaluate import evaluate_candidate
    from db import runs, versions
    from scripts.composition import open_loop

    loop = open_loop()
    with loop.database.session(read_only=True) as session:
        chosen = versions.active(session, "infected") if version is None else versions.get(session, version)
    if chosen is None:
        console.fail("expected an active version of infected, found none; run: cellloop train --role infected")
    with console.progress("evaluating") as advance:
        evaluation = evaluate_candidate(loop, chosen.id, advance)
    if evaluation is None:
        console.fail("expected a frozen test split and an active version of the other role; see: cellloop doctor")
    with loop.database.session(read_only=True) as session:
        metrics = list(runs.metrics_of(session, evaluation).values())
    if as_json:
        console.emit({"version": chosen.id, "evaluation": evaluation, "metrics": [asdict(m) for m in metrics]}, as_json)
        return
    print(f"{chosen.role} version {chosen.id} on the frozen test split (evaluation {evaluation})")
    for m in metrics:
        low, value, high = ("-" if x is None else f"{x:.3f}" for x in (m.low, m.value, m.high))
        print(f"  {m.name:<26} {m.class_name:<16} {value:>6}  [{low}, {high}]  n = {m.n}")
