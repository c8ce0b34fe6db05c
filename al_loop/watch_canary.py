"""Once a new pair serves: do experts correct it more than the pair before, in fields that chance put before them?

Both are counted as experts really worked: cells they added, deleted, moved or called otherwise. It is looked at so many
answered fields and never in between; each look spends its share of the error that all of them together may make
(Bonferroni: valid however the looks depend on each other). A pair that is corrected significantly more goes back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from al_loop.canary import ALLOWED, ALPHA
from al_loop.context import Loop
from al_loop.gate import Verdict
from al_loop.permutation import mean_excess, two_samples
from al_loop.promote import check_weights
from db import canaries, schedules, versions
from db.answers import serving_pair

log = logging.getLogger("cellloop.canary")

LOOKS = (10, 20, 40, 80)  # answered random fields of the new pair
FEWEST = 10  # of the pair before, without which there is nothing to compare


@dataclass(frozen=True)
class Watched:
    """A pair that the gate let serve, the pair it replaced, and the next look: so many answered random fields."""

    role: str
    pair_id: int
    before_id: int
    look: int


def watch_canary(loop: Loop) -> bool:
    """Take the look that is due, if one is, and roll back where experts correct significantly more. True: it looked.

    Only a pair that the gate let serve is watched: a person who promoted by hand has decided. Repeated, it looks once.
    Raises StoredFileCorrupt when the version before could not serve.
    """
    with loop.database.session(read_only=True) as session:
        watched = _watched(session)
        if watched is None or len(canaries.random_fields(session, watched.look, watched.pair_id)) < watched.look:
            return False
    with loop.database.session() as session:
        schedules.hold(session, watched.role)
        if _watched(session) != watched:
            return False  # another worker was faster, or a person
        fields = canaries.random_fields(session, 10 * LOOKS[-1], watched.pair_id)[::-1][: watched.look]
        before = canaries.random_fields(session, LOOKS[-1], watched.before_id)
        verdict = compare_live([field.corrected for field in before], [field.corrected for field in fields])
        word = "rolled_back" if not verdict.promote else "passed" if watched.look == LOOKS[-1] else "watching"
        canaries.add_check(
            session,
            watched.pair_id,
            watched.before_id,
            kind="live",
            verdict=word,
            reasons=verdict.reasons,
            numbers=verdict.numbers | {"look": watched.look},
        )
        if not verdict.promote:
            versions.roll_back(
                session,
                watched.role,
                verdict.reasons,
                lambda version: check_weights(loop.store, version),
                kind="canary",
            )
            log.warning("%s: rolled back: %s", watched.role, verdict.reasons[0])
    return True


def _watched(session: Session) -> Watched | None:
    pair, decision = serving_pair(session), canaries.newest_activation(session)
    if pair is None or decision is None or decision.kind != "gate" or decision.replaced_id is None:
        return None
    role = "all_cells" if decision.version_id == pair.all_cells_id else "infected"
    ids = {"all_cells": pair.all_cells_id, "infected": pair.infected_id} | {role: decision.replaced_id}
    before = canaries.known_pair(session, ids["all_cells"], ids["infected"])
    last = canaries.newest_check(session, pair.id, "live")
    if before is None or (last is not None and last.verdict != "watching"):
        return None
    seen = 0 if last is None else int(last.numbers["look"])
    look = next((each for each in LOOKS if each > seen), None)
    return None if look is None else Watched(role, pair.id, before.id, look)


def compare_live(before: Sequence[int], after: Sequence[int]) -> Verdict:
    """Corrected cells per field of the pair before and of the new one, in fields of their own: at one of the looks."""
    numbers = {"before": list(before), "after": list(after)}
    if len(before) < FEWEST:
        said = f"canary: the pair before has {len(before)} answered random fields, fewer than {FEWEST}"
        return Verdict(True, [f"{said}: nothing to compare"], numbers)
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    values = np.concatenate([ALLOWED * old, new])
    p = two_samples(len(old), len(new), mean_excess(values))
    more = p < ALPHA / len(LOOKS)
    reason = (
        f"canary: in {len(new)} random fields experts corrected {new.mean():.2f} cells each, {old.mean():.2f} in "
        f"{len(old)} fields of the pair before (p = {p:.4f}): {'significantly' if more else 'not shown to be'} more"
    )
    return Verdict(not more, [reason], numbers | {"p": p})
