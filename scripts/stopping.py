"""`cellloop stopping`: whether more reviewing is worth an expert's time."""

from __future__ import annotations

from typing import Annotated

import typer


def stopping(as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False) -> None:
    """How many infected cells are still unseen, and what the next reviews would bring, from cells shown at random.

    Example: cellloop stopping
    """
    from al_loop.stopping_facts import stopping_facts
    from scripts.composition import open_loop
    from scripts.stopping_text import answer

    with open_loop().database.session(read_only=True) as session:
        facts = stopping_facts(session)
    answer(facts, as_json)
