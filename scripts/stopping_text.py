"""What a command that asks when to stop shows: the sentence, and what it rests on."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from al_loop.stopping import Stopping, StoppingFacts, when_to_stop
from scripts import console


def answer(facts: StoppingFacts, as_json: bool) -> None:
    """Print whether to stop, as JSON or for a person."""
    found = when_to_stop(facts)
    if as_json:
        console.emit(found.to_json(), as_json)
        return
    print(found.sentence)
    if found.unseen is not None:
        Console(width=100).print(_strata(found))


def _strata(found: Stopping) -> Table:
    table = Table("P(infected) from", title="cells shown at random", title_justify="left")
    for name in ("reviewed", "infected", "share", "still waiting"):
        table.add_column(name, justify="right")
    for stratum in found.unseen.strata if found.unseen is not None else ():
        share = f"{stratum.infected / stratum.reviewed:.1%}"
        counts = (str(stratum.reviewed), str(stratum.infected), share, f"{stratum.waiting:,}")
        table.add_row(f"{stratum.lowest:.2f}", *counts)
    return table
