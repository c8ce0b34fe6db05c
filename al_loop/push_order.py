"""What pushes of either way share: their report, and which scores in Label Studio are worth correcting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# Label Studio takes 38 ms to rescore a prediction. Only the head of the order is what experts are about to get, so
# a re-ranking rescores the head, and whatever would otherwise be served before it.
HEAD = 100
SAME_SCORE = 1e-6


@dataclass(frozen=True)
class PushReport:
    """What a push did. tasks: created. predictions: created. rescored: got a new score. waiting: not predicted.

    model_version: the pair whose predictions, or whose order of cells, Label Studio now has.
    """

    model_version: str
    tasks: int
    predictions: int
    rescored: int
    waiting: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def to_rescore(wanted: Mapping[int, float], pushed: Mapping[int, float | None]) -> list[int]:
    """Tasks whose score in Label Studio is wrong and matters now. wanted, pushed: score (lowest first) by task."""
    if not wanted:
        return []
    head = sorted(wanted.values())[:HEAD][-1]
    return [
        task
        for task, score in wanted.items()
        if ((held := pushed.get(task)) is None or abs(held - score) > SAME_SCORE)
        and min(score, 0.0 if held is None else held) <= head
    ]
