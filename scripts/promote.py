"""`cellloop promote`: a person lets a version serve."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts import console


def promote(
    version: Annotated[int, typer.Argument(help="Id of the model version.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "a person decided",
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Let a version serve in its role, whatever the gate said. The server follows by itself, without a restart.

    Example: cellloop promote 7 --reason "better on thin smears"
    """
    from al_loop import calibrate_pair
    from al_loop import promote as promoting
    from db import versions
    from scripts.composition import open_loop

    loop = open_loop()
    calibrate_pair.fit_future_pair(loop, version)
    decision = promoting.promote(loop.database, version, reason=reason, store=loop.store)
    with loop.database.session(read_only=True) as session:
        role = versions.get(session, version).role
    console.emit(
        {"role": role, "active": version, "replaced": decision.replaced_id, "reasons": decision.reasons}, as_json
    )
