"""Decisions without what surrounds them: the gate alone, and a rollback's row change alone."""

from __future__ import annotations

from al_loop.context import Loop
from al_loop.gate import Verdict
from al_loop.promote import judge, settle
from db.models import PromotionDecision
from db.session import Database
from db.versions import roll_back


def decide(loop: Loop, version_id: int, evaluation_id: int | None, run_id: int | None = None) -> Verdict:
    """Judge the candidate and let what follows happen."""
    return settle(loop, version_id, evaluation_id, run_id, [judge(loop, version_id, evaluation_id)])


def undo(database: Database, role: str = "infected") -> PromotionDecision:
    """The row change of a rollback alone, as the dashboard makes it: all else is left to the worker."""
    with database.session() as session:
        return roll_back(session, role, ["for a test"], lambda before: None)
