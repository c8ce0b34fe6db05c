"""How many of the new labels are wrong? By what the incumbent, which never saw them, claims of cells it calls infected.

An infected cell that it claims to be a ring at 0.8 has another label in two cases of ten although all labels are right.
If a share of the labels is wrong, others are contradicted as well, and those of cells it is sure of tell most. So the
share is estimated by maximum likelihood in a mixture: labels as the claims say, infected cells called something else
(`missed`), and infected cells called another stage (`renamed`). The claims are calibrated on the test split, whose
labels are trusted, by a linear map of their logarithms (Dirichlet calibration: Kull et al. 2019, arXiv 1910.12656):
what a pair that never saw this laboratory takes for trophozoites may all be its rings. A pair that knows little claims
little then, and nothing can be shown by it. Hard cells, which reviewing prefers, are no excess: there it claims less.

It must be shown that few are wrong: the upper bound of the share has to clear a limit. Bounds are by profile likelihood
(Wilks 1938). That a candidate does well in the test split is no excuse: with a third of the new labels flipped it
may still be better than a weak incumbent (docs/results/gate.md). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from al_loop.metrics import MATCH_IOU
from al_loop.softmax_regression import fit_softmax
from backend.instances import CLASSES, INFECTED_INDEX, Instances
from backend.overlap import intersection_over_area, iou_matrix, match_one_to_one

Floats = NDArray[np.float64]
CALLED = 0.2  # P(infected) from which a cell is asked about
LEAST = 5  # cells of one stage without which it is not looked at by itself
STAGES = tuple(CLASSES[index] for index in INFECTED_INDEX)
OTHER = len(STAGES)  # an answer: any other class, or no cell at all
ANSWER = np.full(len(CLASSES) + 1, OTHER, dtype=np.int64)  # by class; the last one is for no cell
ANSWER[INFECTED_INDEX] = np.arange(OTHER)
SURE = 2.71  # twice the log likelihood lost at a one-sided bound of 95 %: the 90 % quantile of chi-square, 1 degree
VERY_SURE = 5.41  # at 99 %: of each single stage
MOST_OF_STAGE = 0.5  # share of one stage's labels from which they are wrong all in the same way
FLOOR = 1e-3  # of a claim, so that one cell never decides alone
OFF_DIAGONAL = 16.0  # how firmly a claim about one stage is believed to say nothing of another; all else: 1
SHARES = np.linspace(0.0, 1.0, 101)  # the likelihood is concave and of two shares: a grid finds its maximum

# What becomes of a cell, by what it is (rows: the stages, then OTHER): called no infected cell, called another stage.
MISSED = np.zeros((OTHER + 1, OTHER + 1))
MISSED[:, OTHER] = 1.0
RENAMED = np.zeros((OTHER + 1, OTHER + 1))
RENAMED[:OTHER, :OTHER] = (1 - np.eye(OTHER)) / (OTHER - 1)
RENAMED[OTHER, OTHER] = 1.0


@dataclass(frozen=True)
class Claims:
    """N cells that the incumbent calls infected. answers: (N,) int64, what the labels say: an index into STAGES, or
    OTHER. claimed: (N, len(STAGES) + 1), its probabilities. labelled: infected cells by the labels, called so or not.
    """

    answers: NDArray[np.int64]
    claimed: Floats
    labelled: int

    def named(self) -> NDArray[np.int64]:
        """(N,) the stage that it names."""
        return self.claimed[:, :OTHER].argmax(axis=1)


@dataclass(frozen=True)
class LabelAudit:
    """What the new labels look like. asked: cells the incumbent calls infected; labelled: infected by the labels.

    missed, renamed: estimated shares of them. high: upper bound (95 %) of both together; 1 when nothing was asked.
    stage: the one whose labels look worst by themselves, "" when none has enough cells: how many it names so, the
    share of wrong labels among them, and its lower bound (99 %). test_asked: cells the claims were calibrated on.
    """

    asked: int
    labelled: int
    missed: float
    renamed: float
    high: float
    test_asked: int
    stage: str = ""
    stage_asked: int = 0
    stage_wrong: float = 0.0
    stage_low: float = 0.0

    def sentence(self, most: float) -> tuple[str, bool]:
        """What is to be said, and whether it speaks against promotion: not shown that less than `most` is wrong."""
        if not self.asked and not self.labelled:
            return "new labels: no infected cell in them, by the serving pair or by the labels", False
        wrong = self.missed + self.renamed
        said = (
            f"new labels: of {self.asked} cells that the serving pair calls infected, {wrong:.0%} seem to be labelled "
            f"wrong ({self.missed:.0%} not as infected, {self.renamed:.0%} as another stage), at most {self.high:.0%}"
        )
        if self.stage_low > max(most, MOST_OF_STAGE):
            return (
                f"{said}; of {self.stage_asked} that it calls {self.stage}, {self.stage_wrong:.0%}, at least "
                f"{self.stage_low:.0%}: many look wrong; have them read again (cellloop suspicious), or promote by hand"
            ), True
        if self.high <= most:
            return f"{said}: shown to be less than {most:.0%}", False
        if wrong > most:
            return f"{said}: many look wrong; have them read again (cellloop suspicious), or promote by hand", True
        return f"{said}: not shown to be less than {most:.0%}; review more cells, or promote by hand", True


def claims(truths: Sequence[Instances], ignored: Sequence[NDArray[np.float32]], seen: Sequence[Instances]) -> Claims:
    """What labels say of the cells called infected. truths: the labels; ignored: (K, 4) boxes that say nothing; seen:
    what the incumbent sees; one of each for every image.
    """
    answers: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    claimed: list[Floats] = [np.zeros((0, OTHER + 1))]
    labelled = 0
    for truth, open_boxes, cells in zip(truths, ignored, seen, strict=True):
        called = cells.select(np.asarray(cells.probabilities[:, INFECTED_INDEX].sum(axis=1) >= CALLED))
        labels = np.full(len(called), -1, dtype=np.int64)  # no cell
        for row, column in match_one_to_one(iou_matrix(called.boxes, truth.boxes), MATCH_IOU):
            labels[row] = truth.labels[column]
        left_open = (labels < 0) & (intersection_over_area(called.boxes, open_boxes) >= MATCH_IOU).any(axis=1)
        stages = called.probabilities[:, INFECTED_INDEX].astype(np.float64)
        answers.append(ANSWER[labels[~left_open]])
        claimed.append(np.column_stack([stages, 1 - stages.sum(axis=1)])[~left_open])
        labelled += int(np.isin(truth.labels, INFECTED_INDEX).sum())
    return Claims(np.concatenate(answers), np.concatenate(claimed), labelled)


def audit(new: Claims, test: Claims) -> LabelAudit:
    """How much of the new labels is wrong, by claims that were calibrated on the test split."""
    shares = calibrate(new.claimed, calibrated(test))
    surface = likelihood(new.answers, shares)
    missed, renamed = np.unravel_index(int(surface.argmax()), surface.shape)
    worst: tuple[float, float, int, str] = (0.0, 0.0, 0, "")
    named = new.named()
    for stage, name in enumerate(STAGES):
        mine = named == stage
        if mine.sum() >= LEAST:
            wrong, low = at_least(likelihood(new.answers[mine], shares[mine]))
            worst = max(worst, (low, wrong, int(mine.sum()), name))
    return LabelAudit(
        asked=len(new.answers),
        labelled=new.labelled,
        missed=float(SHARES[missed]),
        renamed=float(SHARES[renamed]),
        high=at_most(surface),
        test_asked=len(test.answers),
        stage=worst[3],
        stage_asked=worst[2],
        stage_wrong=worst[1],
        stage_low=worst[0],
    )


def calibrated(test: Claims) -> Floats:
    """(len(STAGES) + 2, len(STAGES) + 1) weights of the logarithms of claims, and of a constant, that fit these labels
    best; those that leave claims as they are without a cell.
    """
    as_they_are = np.eye(OTHER + 2, OTHER + 1)
    firmly = np.where(np.eye(OTHER + 2, OTHER + 1) == 1, 1.0, OFF_DIAGONAL)
    firmly[-1] = 1.0
    once = np.ones(len(test.answers))
    return fit_softmax(_logarithms(test.claimed), test.answers, once, as_they_are, as_they_are, firmly)


def calibrate(claimed: Floats, weights: Floats) -> Floats:
    """(N, len(STAGES) + 1) what claims mean, none of them less than about FLOOR."""
    shares = np.maximum(softmax(_logarithms(claimed) @ weights, axis=1), FLOOR)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _logarithms(claimed: Floats) -> Floats:
    return np.column_stack([np.log(np.maximum(claimed, FLOOR)), np.ones(len(claimed))])


def likelihood(answers: NDArray[np.int64], shares: Floats) -> Floats:
    """(S, S) log likelihood by the shares missed and renamed in SHARES; -inf where they are more than all labels."""
    rows = np.arange(len(answers))
    right, missed, renamed = (matrix[rows, answers] for matrix in (shares, shares @ MISSED, shares @ RENAMED))
    surface = np.full((len(SHARES), len(SHARES)), -np.inf)
    for place, share in enumerate(SHARES):
        others = SHARES[: len(SHARES) - place][:, None]
        mixed = right + share * (missed - right) + others * (renamed - right)
        surface[place, : len(others)] = np.log(np.maximum(mixed, 1e-12)).sum(axis=1)
    return surface


def at_most(surface: Floats) -> float:
    """Upper bound of both shares together: the greatest that is likely enough; 1 where nothing was asked."""
    return float(_together()[surface >= surface.max() - SURE / 2].max())


def at_least(surface: Floats) -> tuple[float, float]:
    """The likeliest share of both together, and its lower bound."""
    together = _together()
    return float(together.ravel()[surface.argmax()]), float(together[surface >= surface.max() - VERY_SURE / 2].min())


def _together() -> Floats:
    return SHARES[:, None] + SHARES
