"""`cellloop schedule`: when a detector is retrained without anybody asking."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scripts import console
from scripts.options import Role

app = typer.Typer(help="When a detector is retrained without anybody asking.", no_args_is_help=True)

Which = Annotated[Role, typer.Option(help="Which of the two detectors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command("show")
def show(role: Which = Role.infected, as_json: AsJson = False) -> None:
    """What triggers a retraining, how far each trigger is, and what the last run was for.

    Example: cellloop schedule show
    """
    from al_loop.outlook import outlook
    from scripts.composition import open_loop

    loop = open_loop()
    with loop.database.session(read_only=True) as session:
        found = outlook(session, loop.settings, role.value)
    console.emit(found.to_json() if as_json else dict(found.lines()), as_json)


@app.command("set")
def set_schedule(
    role: Which = Role.infected,
    retrain_after: Annotated[
        float | None, typer.Option(help="Weighted count of new reviewed infected or difficult cells.")
    ] = None,
    never_for_reviews: Annotated[bool, typer.Option("--never-for-reviews", help="However many are reviewed.")] = False,
    cron: Annotated[str | None, typer.Option(help='Five fields, UTC: "0 3 * * *" is three at night.')] = None,
    never_by_clock: Annotated[bool, typer.Option("--never-by-clock", help="At no cron time.")] = False,
    on_drift: Annotated[bool | None, typer.Option(help="When recent fields differ from those of before.")] = None,
    cooldown: Annotated[float | None, typer.Option(help="Seconds that must pass between two runs.")] = None,
    by: Annotated[str, typer.Option(help="Who decided so, for the record.")] = "a person",
    as_json: AsJson = False,
) -> None:
    """Change when a detector is retrained; what no option names stays as it is. A worker follows at once.

    Example: cellloop schedule set --cron "0 3 * * *" --retrain-after 25 --cooldown 3600
    """
    from al_loop.reschedule import reschedule
    from scripts.composition import open_loop

    if never_for_reviews and retrain_after is not None:
        console.fail("--never-for-reviews: expected no --retrain-after beside it, got both; leave one out")
    if never_by_clock and cron is not None:
        console.fail("--never-by-clock: expected no --cron beside it, got both; leave one out")
    asked: dict[str, Any] = {"threshold": retrain_after, "cron": cron, "on_drift": on_drift, "cooldown_s": cooldown}
    never = [name for name, so in (("threshold", never_for_reviews), ("cron", never_by_clock)) if so]
    changes = {name: value for name, value in asked.items() if value is not None or name in never}
    reschedule(open_loop(), role.value, changes, by)
    show(role, as_json)
