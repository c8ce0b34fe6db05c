"""What the gate lets serve, on many deals of labelled smears: two heads over a detector's features learn in a second.

The same deals and poisons as `al_loop/benchmark_poison.py`, the same gate; instead of a training, the heads of the
simulation (`al_loop/simulate_heads.py`) learn from what one detector proposes. So hundreds of turns can be judged, and
how often each is promoted gets an interval. Two turns more show the ruler alone: a candidate as good as its incumbent,
which has learned from as many other fields, and a worse one, which has learned from fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.benchmark_poison import Dealt, Shares, deal, poisoned
from al_loop.dataset import LabelledImage
from al_loop.evaluate import reliability, score
from al_loop.gate import Judged, gate
from al_loop.label_audit import Claims, audit, claims
from al_loop.labelled_files import LabelledFile
from al_loop.simulate_features import Proposals, propose_all
from al_loop.simulate_heads import Heads, fit_heads, inputs_of, prior
from al_loop.simulate_pool import Reduction, answers_to, as_instances
from backend.errors import NotEnoughData
from backend.history.intervals import wilson
from backend.instances import Instances

Report = Callable[[int, int, str], None]  # done, total, a word on what is being done

ARMS = ("clean", "flipped", "healthy", "stages", "rings")
RULER_ONLY = ("equal", "worse")
DECAY = 20.0  # of the heads; the simulation chooses among decays of this size


class Field:
    """One labelled image with what the detector proposes in it. inputs: (N, D) for the heads."""

    def __init__(self, image: LabelledImage, proposals: Proposals, shape: Reduction) -> None:
        self.image, self.proposals = image, proposals
        described = len(proposals) > 0
        features = shape(proposals.features) if described else np.zeros((0, len(shape.axes[0])), dtype=np.float32)
        self.inputs = inputs_of(features, proposals.probabilities)

    def seen(self, heads: Heads) -> Instances:
        """What these heads make of the proposals."""
        size = (self.image.height, self.image.width)
        return as_instances(size, self.proposals.boxes, heads.look(self.inputs).probabilities)


def benchmark_heads(
    files: Sequence[LabelledFile],
    weights: Path,
    cache: Path,
    seeds: Sequence[int],
    shares: Shares | None = None,
    report: Report = lambda done, total, note: None,
    arms: Sequence[str] = ARMS,
) -> dict[str, Any]:
    """These kinds of labels for every seed; plain values, for JSON. weights: of the detector that proposes. cache:
    where its features are kept.

    Raises NotEnoughData.
    """
    proposals = propose_all([file.labelled for file in files], weights, cache, report)
    found = [each.features for each in proposals if len(each)]
    if not found:
        raise NotEnoughData(f"bench poison: expected cells in the images, the detector proposes none in {len(files)}")
    shape = Reduction.of(np.concatenate(found))
    fields = {
        file.labelled.sha256: Field(file.labelled, each, shape) for file, each in zip(files, proposals, strict=True)
    }
    turns: list[dict[str, Any]] = []
    for number, seed in enumerate(seeds):
        report(number, len(seeds), f"seed {seed}")
        turns += _turns(fields, deal(files, shares or Shares(), seed), seed, arms)
    report(len(seeds), len(seeds), "done")
    return {"seeds": len(seeds), "images": len(files), "promoted": _counts(turns), "arms": turns}


def _turns(fields: dict[str, Field], dealt: Dealt, seed: int, arms: Sequence[str]) -> list[dict[str, Any]]:
    test, known, new = (
        [fields[file.labelled.sha256] for file in part] for part in (dealt.test, dealt.known, dealt.new)
    )
    width = test[0].inputs.shape[1]
    incumbent = _learned(width, known, [field.image for field in known])
    before = _judged(incumbent, test)
    trusted = _claims(incumbent, test, [field.image for field in test])
    turns, after_clean = [], before
    for arm in arms:
        rng = np.random.default_rng([seed, ARMS.index(arm)])
        arrived = [poisoned(field.image, arm, rng) for field in new]
        changed = sum(_changed(image, field.image) for image, field in zip(arrived, new, strict=True))
        candidate = _learned(width, known + new, [field.image for field in known] + arrived)
        labels = audit(_claims(incumbent, new, arrived), trusted)
        judged = _judged(candidate, test)
        after_clean = judged if arm == "clean" else after_clean
        verdict = gate(before, Judged(judged.report, judged.calibration, labels))
        ruler = gate(before, judged).promote
        turns.append({"seed": seed, "labels": arm, "changed": changed, "ruler": ruler} | asdict(verdict))
    if known:
        others = new[: len(known)]
        equal = _judged(_learned(width, others, [field.image for field in others]), test)
        for arm, verdict in (("equal", gate(before, equal)), ("worse", gate(after_clean, before))):
            turns.append({"seed": seed, "labels": arm, "changed": 0, "ruler": verdict.promote} | asdict(verdict))
    return turns


def _changed(image: LabelledImage, before: LabelledImage) -> int:
    return sum(a.label != b.label for a, b in zip(image.cells, before.cells, strict=True))


def _learned(width: int, fields: Sequence[Field], labels: Sequence[LabelledImage]) -> Heads:
    """Heads that know these labels of these fields; what the detector says where there are none."""
    if not fields:
        return prior(np.zeros((0, width)))
    answers = [answers_to(field.proposals.boxes, image) for field, image in zip(fields, labels, strict=True)]
    return fit_heads(np.concatenate([field.inputs for field in fields]), np.concatenate(answers), DECAY)


def _judged(heads: Heads, test: Sequence[Field]) -> Judged:
    images, seen = [field.image for field in test], [field.seen(heads) for field in test]
    return Judged(score(images, seen), reliability(images, seen))


def _claims(heads: Heads, fields: Sequence[Field], labels: Sequence[LabelledImage]) -> Claims:
    ignored: list[NDArray[np.float32]] = [image.ignore_boxes() for image in labels]
    return claims([image.truth() for image in labels], ignored, [field.seen(heads) for field in fields])


def _counts(turns: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By kind of labels: how many of how many turns were promoted, its 95 % interval, and by the ruler alone."""
    counts = {}
    for arm in (*ARMS, *RULER_ONLY):
        mine = [turn for turn in turns if turn["labels"] == arm]
        if mine:
            promoted = sum(bool(turn["promote"]) for turn in mine)
            low, high = wilson(np.array([promoted / len(mine)]), np.array([float(len(mine))]))
            interval = [round(float(low[0]), 3), round(float(high[0]), 3)]
            ruler = sum(bool(turn["ruler"]) for turn in mine)
            counts[arm] = {"promoted": promoted, "of": len(mine), "interval": interval, "by_the_ruler_alone": ruler}
    return counts
