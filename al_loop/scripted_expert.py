"""An expert who knows the truth: reviews tasks through Label Studio's own API, as a person would by hand.

For the demo, the story test and simulations. It works on what Label Studio serves next, keeps predicted cells
that are right, corrects the class or box of those that are not, deletes what is no cell and adds what was missed.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from al_loop.formats.records import SourceObject
from al_loop.revise import Answer
from backend.overlap import iou_matrix, match_one_to_one

MATCH_IOU = 0.5  # the field's usual criterion for "the same cell"
KEEP_IOU = 0.75  # a person leaves a box alone that fits about this well

# Seconds per decision, so that lead times have a sensible order of magnitude: a glance at an accepted cell, a
# class key for a wrong one, dragging a box. Guesses of ours; real lead times replace them when real experts work.
SECONDS = {"accepted": 0.15, "relabelled": 2.0, "moved": 3.0, "added": 4.0, "deleted": 1.0}


@dataclass(frozen=True)
class Opinion:
    """What the expert submits for one image, and how long it would have taken."""

    answers: list[Answer]
    lead_time_s: float


def answer_with_truth(truth: Sequence[SourceObject], predicted: Sequence[Answer]) -> Opinion:
    """The truth, expressed as corrections of `predicted`: a matched cell keeps its key, the rest get new ones.

    truth: objects with boxes clipped to the image (xyxy px). predicted: the cells as Label Studio shows them.
    """
    truth_boxes = np.array([t.box for t in truth], dtype=np.float32).reshape(-1, 4)
    boxes = np.array([p.box for p in predicted], dtype=np.float32).reshape(-1, 4)
    overlap = iou_matrix(truth_boxes, boxes)
    matches = dict(match_one_to_one(overlap, MATCH_IOU))
    answers: list[Answer] = []
    seconds = SECONDS["deleted"] * (len(predicted) - len(matches))
    for i, thing in enumerate(truth):
        j = matches.get(i)
        if j is None:
            answers.append(Answer(uuid.uuid4().hex[:10], thing.box, thing.label))
            seconds += SECONDS["added"]
            continue
        shown = predicted[j]
        fits = overlap[i, j] >= KEEP_IOU
        answers.append(Answer(shown.key, shown.box if fits else thing.box, thing.label))
        seconds += SECONDS["accepted" if shown.label == thing.label else "relabelled"]
        seconds += 0 if fits else SECONDS["moved"]
    return Opinion(answers, seconds)
