"""An expert who knows the truth: reviews tasks through Label Studio's own API, as a person would by hand.

For the demo, the story test and simulations. It works on what Label Studio serves next, keeps predicted cells
that are right, corrects the class or box of those that are not, deletes what is no cell and adds what was missed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from al_loop.formats.records import SourceImage, SourceObject
from al_loop.revise import Answer
from backend.label_studio.expert import ExpertSession
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.regions import RegionCell, from_regions, to_regions
from backend.overlap import iou_matrix, match_one_to_one
from db.models import Project

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


def review_next(
    expert: ExpertSession, project: Project, config: LabelConfig, truth: Mapping[str, SourceImage]
) -> int | None:
    """Answer the task Label Studio serves next with the truth of its image; the task's id, None when none is left.

    truth: source images by sha256 (`al_loop.formats.detect.truth_by_sha256`). A task whose image is not among them
    is skipped, as by an expert who cannot judge it.
    """
    task = expert.next_task(project.ls_project_id)
    if task is None:
        return None
    source = truth.get(str(task.data.get("sha256")))
    if source is None:
        expert.skip(task.id, lead_time_s=SECONDS["deleted"])
        return task.id
    size = (int(source.height or task.data["height"]), int(source.width or task.data["width"]))
    prediction = task.predictions[-1] if task.predictions else None
    regions = from_regions(prediction.result, config, size).regions if prediction else []
    shown = [Answer(region.key, region.box, region.label, region.shape) for region in regions]
    objects, _ = source.usable_objects(size[1], size[0])
    opinion = answer_with_truth(objects, shown)
    cells = [RegionCell(answer.key, answer.box, answer.label, score=1.0) for answer in opinion.answers]
    expert.submit(
        task.id,
        to_regions(cells, config, size, kind="rectangle"),
        parent_prediction=prediction.id if prediction else None,
        lead_time_s=opinion.lead_time_s,
    )
    return task.id
