"""The stage of a simulation: the cells of all images, the truth about each, and who is reviewed and who is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from al_loop.crossval_folds import Source
from al_loop.dataset import LabelledImage
from al_loop.metrics import MATCH_IOU, POOLED, average_precision, channel_members, match_channel
from al_loop.simulate_features import Proposals
from al_loop.simulate_heads import NO_CELL, UNDECIDED, inputs_of
from al_loop.splits import Group, assign_splits
from backend.errors import NotEnoughData
from backend.instances import CLASSES, INFECTED, INFECTED_INDEX, Instances
from backend.overlap import intersection_over_area, iou_matrix, match_one_to_one

DIMENSIONS = 128  # that the features are reduced to
BUCKETS = 100  # of cells that look alike


@dataclass(frozen=True)
class Scene:
    """Everything known of all images, by image. truths: without difficult cells, whose boxes are in `ignored`.

    answers: (N_i,) int64, what an expert who knows the truth would say of each proposal (`simulate_heads.ANSWERS`).
    groups: the slide or block each image belongs to.
    """

    groups: tuple[str, ...]
    proposals: tuple[Proposals, ...]
    truths: tuple[Instances, ...]
    ignored: tuple[NDArray[np.float32], ...]
    answers: tuple[NDArray[np.int64], ...]

    def infected_recall(self) -> float:
        """The share of true infected cells that some proposal stands for."""
        found = sum(int(np.isin(each, INFECTED_INDEX).sum()) for each in self.answers)
        return found / max(1, sum(int(channel_members(truth, POOLED).sum()) for truth in self.truths))


def make_scene(sources: Sequence[Source], proposals: Sequence[Proposals]) -> Scene:
    """proposals: of the images of all sources, in their order. Images without a proposal stay in."""
    files = [(source.name, file) for source in sources for file in source.files]
    images = [file.labelled for _, file in files]
    return Scene(
        groups=tuple(f"{name}/{file.group or file.labelled.sha256}" for name, file in files),
        proposals=tuple(proposals),
        truths=tuple(image.truth() for image in images),
        ignored=tuple(image.ignore_boxes() for image in images),
        answers=tuple(answers_to(each.boxes, image) for each, image in zip(proposals, images, strict=True)),
    )


def answers_to(boxes: NDArray[np.float32], image: LabelledImage) -> NDArray[np.int64]:
    """(N,) int64: what the truth says of boxes (N, 4) xyxy px: the class of the cell it is matched with, one to one
    at IoU .5; undecided on one that is difficult; no cell where there is none, or another box has it already.
    """
    truth, difficult = image.truth(), image.ignore_boxes()
    answers = np.full(len(boxes), NO_CELL, dtype=np.int64)
    answers[(intersection_over_area(boxes, difficult) >= MATCH_IOU).any(axis=1)] = UNDECIDED
    for row, cell in match_one_to_one(iou_matrix(boxes, truth.boxes), MATCH_IOU):
        answers[row] = truth.labels[cell]
    return answers


def as_instances(
    image_size: tuple[int, int], boxes: NDArray[np.float32], probabilities: NDArray[np.float64]
) -> Instances:
    """Proposals, boxes (N, 4) xyxy px, with what is said of them, (N, len(CLASSES)), each as its likeliest class."""
    return Instances(
        image_size=image_size,
        boxes=boxes,
        labels=probabilities.argmax(axis=1).astype(np.int64),
        scores=probabilities.max(axis=1, initial=0.0).astype(np.float32),
        probabilities=probabilities.astype(np.float32),
    )


@dataclass(frozen=True)
class Exam:
    """The images that are measured. inputs: (M, D) of their proposals, image after image."""

    truths: tuple[Instances, ...]
    proposals: tuple[Proposals, ...]
    overlaps: tuple[NDArray[np.float32], ...]
    ignored: tuple[NDArray[np.bool_], ...]
    inputs: NDArray[np.float64]

    def score(self, probabilities: NDArray[np.float64]) -> dict[str, float]:
        """AP50 of each channel that occurs, by the product's own metric. probabilities: (M, len(CLASSES))."""
        ends = np.cumsum([len(each) for each in self.proposals])[:-1]
        seen = [
            as_instances(truth.image_size, each.boxes, part)
            for truth, each, part in zip(self.truths, self.proposals, np.split(probabilities, ends), strict=True)
        ]
        once = np.ones((1, len(self.truths)), dtype=np.int64)
        found = {}
        for channel in (*INFECTED, POOLED):
            matches = match_channel(channel, self.truths, seen, self.overlaps, self.ignored)
            found[channel] = float(average_precision(matches, once)[0])
        return {name: value for name, value in found.items() if not np.isnan(value)}


@dataclass(frozen=True)
class Round:
    """One assignment of images. Columns for the N cells of the pool, and the exam.

    answers: (N,) int64, the truth; only reviewing reveals it. detector: (N, len(CLASSES)) what the detector says.
    inputs: (N, D) for the heads. embeddings: (N, DIMENSIONS) float32 of unit length. image, slide, bucket: (N,) int64
    numbers; a bucket holds cells that look alike.
    """

    answers: NDArray[np.int64]
    detector: NDArray[np.float32]
    inputs: NDArray[np.float64]
    embeddings: NDArray[np.float32]
    image: NDArray[np.int64]
    slide: NDArray[np.int64]
    bucket: NDArray[np.int64]
    exam: Exam

    def __len__(self) -> int:
        return len(self.answers)


def deal(scene: Scene, seed: int) -> Round:
    """Part the images by slides into pool and exam, about three to one, both with every stage if that is possible.

    Raises NotEnoughData when one of them has no infected cell.
    """
    groups = [Group(name, scene.groups.count(name), _stages(scene, name)) for name in sorted(set(scene.groups))]
    splits = assign_splits(groups, seed)
    tested = [index for index, name in enumerate(scene.groups) if splits[name] == "test"]
    pool = [index for index, name in enumerate(scene.groups) if splits[name] != "test" and len(scene.proposals[index])]
    for part, indices in (("measured", tested), ("reviewed", pool)):
        if not sum(int(channel_members(scene.truths[index], POOLED).sum()) for index in indices):
            raise NotEnoughData(
                f"simulation: expected infected cells among the images to be {part}, got none in {len(indices)}; "
                "add labelled smears"
            )
    shape = Reduction.of(np.concatenate([scene.proposals[index].features for index in pool]))
    return _round(scene, pool, tested, shape)


def _stages(scene: Scene, group: str) -> Counter[str]:
    members = [truth for truth, name in zip(scene.truths, scene.groups, strict=True) if name == group]
    return Counter(CLASSES[label] for truth in members for label in truth.labels.tolist())


@dataclass(frozen=True)
class Reduction:
    """Principal components, fitted on the pool's cells without any label. mean, scale: (F,); axes: (F, DIMENSIONS)."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    axes: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[np.float32], dimensions: int = DIMENSIONS) -> Reduction:
        """Of features (N, F). Columns count alike, and so do components: what tells a parasite is seldom what varies
        most.
        """
        mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64) + 1e-6
        scaled = np.clip((features - mean) / scale, -8, 8)
        values, axes = np.linalg.eigh(scaled.T @ scaled / len(scaled))
        best = np.argsort(-values)[:dimensions]
        return cls(mean, scale, axes[:, best] / np.sqrt(np.maximum(values[best], 1e-3)))

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, DIMENSIONS) float32."""
        return (np.clip((features - self.mean) / self.scale, -8, 8) @ self.axes).astype(np.float32)


def _round(scene: Scene, pool: Sequence[int], tested: Sequence[int], shape: Reduction) -> Round:
    proposals = [scene.proposals[index] for index in pool]
    detector = np.concatenate([each.probabilities for each in proposals])
    reduced = shape(np.concatenate([each.features for each in proposals]))
    counts = [len(each) for each in proposals]
    names = sorted({scene.groups[index] for index in pool})
    embeddings = reduced / np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-6)
    clusters = min(BUCKETS, len(embeddings))
    alike = MiniBatchKMeans(clusters, random_state=0, n_init=1, batch_size=4096).fit_predict(embeddings)
    return Round(
        answers=np.concatenate([scene.answers[index] for index in pool]),
        detector=detector,
        inputs=inputs_of(reduced, detector),
        embeddings=embeddings,
        image=np.repeat(np.array(pool, dtype=np.int64), counts),
        slide=np.repeat(np.array([names.index(scene.groups[index]) for index in pool], dtype=np.int64), counts),
        bucket=alike.astype(np.int64),
        exam=_exam(scene, tested, shape),
    )


def _exam(scene: Scene, tested: Sequence[int], shape: Reduction) -> Exam:
    proposals = tuple(scene.proposals[index] for index in tested)
    truths = tuple(scene.truths[index] for index in tested)
    regions = [scene.ignored[index] for index in tested]
    inside = [intersection_over_area(p.boxes, r) >= MATCH_IOU for p, r in zip(proposals, regions, strict=True)]
    some = [each for each in proposals if len(each)]
    return Exam(
        truths=truths,
        proposals=proposals,
        overlaps=tuple(iou_matrix(p.boxes, truth.boxes) for p, truth in zip(proposals, truths, strict=True)),
        ignored=tuple(np.asarray(each.any(axis=1)) for each in inside),
        inputs=inputs_of(
            shape(np.concatenate([each.features for each in some])),
            np.concatenate([each.probabilities for each in some]),
        ),
    )
