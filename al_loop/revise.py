"""What an expert did, cell by cell: one annotation's new state against what was shown and what they said before.

Pure. `al_loop/sync.py` feeds it and stores what comes out as append-only label revisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from db.models import Action

Box = tuple[float, float, float, float]

# Label Studio stores percent of the image, and its editor rounds: a corner that moved less than this was not moved.
MOVED_PX = 1.0


@dataclass(frozen=True)
class Answer:
    """One cell as an annotation holds it. box: xyxy px. mask: COCO RLE counts when the expert drew an outline."""

    key: str
    box: Box
    label: str
    shape: str = "rectangle"
    mask: bytes | None = None


@dataclass(frozen=True)
class Shown:
    """One cell as the expert found it: predicted, or as their own previous answer left it (with what they drew)."""

    box: Box
    label: str
    mask: bytes | None = None


@dataclass(frozen=True)
class Change:
    """One revision to append. `answer` is None exactly for deletions; `predicted_iou` compares with what was shown."""

    key: str
    action: Action
    answer: Answer | None
    predicted_iou: float | None


def box_iou(a: Box, b: Box) -> float:
    """IoU of two xyxy boxes in px."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union


def _moved(a: Box, b: Box) -> bool:
    return max(abs(p - q) for p, q in zip(a, b, strict=True)) > MOVED_PX


def _differs(answer: Answer, other: Shown) -> Action | None:
    if answer.label != other.label:
        return Action.relabelled
    redrawn = answer.mask is not None and answer.mask != other.mask
    return Action.moved if redrawn or _moved(answer.box, other.box) else None


def revise(
    predicted: Mapping[str, Shown], before: Mapping[str, Shown | None], answers: Iterable[Answer]
) -> list[Change]:
    """The revisions that turn one annotation's previous state into `answers`.

    predicted: the pre-annotation the expert saw, by cell key (empty when they started from nothing).
    before: this annotation's previous state by cell key, None for a cell it had already deleted; empty for its
    first submission, which therefore answers every predicted cell: kept ones as accepted, missing ones as deleted.
    Submitting the same state twice changes nothing.
    """
    changes: list[Change] = []
    seen: set[str] = set()
    for answer in answers:
        seen.add(answer.key)
        shown = predicted.get(answer.key)
        previous = before.get(answer.key)
        if previous is not None:
            action = _differs(answer, previous)
        elif shown is not None:
            action = _differs(answer, shown) or Action.accepted
        else:
            action = Action.added
        if action is not None:
            iou = box_iou(answer.box, shown.box) if shown is not None else None
            changes.append(Change(answer.key, action, answer, iou))
    expected = before if before else predicted
    for key, previous in expected.items():
        if key not in seen and previous is not None:
            changes.append(Change(key, Action.deleted, None, None))
    return changes
