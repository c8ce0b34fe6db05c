"""The gate alone decides, without a canary: for tests of what comes before and after."""

from __future__ import annotations

from al_loop.context import Loop
from al_loop.gate import Verdict
from al_loop.promote import judge, settle


def decide(loop: Loop, version_id: int, evaluation_id: int | None, run_id: int | None = None) -> Verdict:
    """Judge the candidate and let what follows happen."""
    return settle(loop, version_id, evaluation_id, run_id, [judge(loop, version_id, evaluation_id)])
