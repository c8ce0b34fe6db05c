"""Planted errors come first: wrong classes, boxes around nothing, cells without label, boxes beside their cell."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from al_loop.suspicion import UNDECIDED, LabelledField, SuspicionConfig, suspects, suspicion
from backend.instances import CLASS_INDEX, SOURCES, FusedInstances, Instances

RED, TROPHOZOITE, RING = (CLASS_INDEX[name] for name in ("red blood cell", "trophozoite", "ring"))
SHARES = (0.8, 0.1, 0.06, 0.04)


def noisy(seed: int, count: int = 1500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells of four classes, one common and three rare, of which 10 % are mislabelled: truth, labels, features."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(len(SHARES), count, p=SHARES)
    features = rng.normal(size=(count, 6)) + 2.5 * np.eye(6)[truth]
    wrong = rng.uniform(size=count) < 0.1
    labels = np.where(wrong, (truth + rng.integers(1, len(SHARES), count)) % len(SHARES), truth)
    return truth, labels, features


def out_of_fold(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    model = LogisticRegression(max_iter=500)
    return np.asarray(cross_val_predict(model, features, labels, cv=5, method="predict_proba"))


@pytest.mark.parametrize("seed", range(3))
def test_most_wrong_labels_are_among_the_first_fifth(seed):
    truth, labels, features = noisy(seed)
    scores = suspicion(labels, out_of_fold(features, labels))
    wrong = labels != truth
    first = np.argsort(-scores, kind="stable")[: len(labels) // 5]
    assert wrong[first].sum() >= 0.7 * wrong.sum()
    assert scores[wrong].mean() > scores[~wrong].mean() + 0.3


def test_right_labels_of_a_badly_known_class_are_not_all_suspicious():
    """The models give rings .3 and never more: a ring with .3 is as well known as rings are."""
    labels = np.array([0] * 200 + [1] * 20)
    probabilities = np.tile([0.95, 0.05], (220, 1))
    probabilities[200:] = [0.7, 0.3]
    probabilities[219] = [0.95, 0.05]  # and this one is red
    scores = suspicion(labels, probabilities)
    assert scores[200] < 0.5 < 0.7 < scores[219]
    assert scores[0] < 0.2


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), row=st.integers(0, 29), left=st.floats(0, 1), to=st.integers(0, 6))
def test_less_probability_for_a_label_is_never_less_suspicious(seed, row, left, to):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(7, 0.4), 30)[:, :6]
    labels = rng.integers(0, 6, 30)
    before = suspicion(labels, probabilities)
    moved = probabilities.copy()
    lost = moved[row, labels[row]] * (1 - left)
    moved[row, labels[row]] -= lost
    if to < 6 and to != labels[row]:
        moved[row, to] += lost  # to another class; else to "no cell"
    after = suspicion(labels, moved)
    assert after[row] >= before[row] - 1e-9
    assert ((before >= 0) & (before <= 1)).all()
    order = rng.permutation(30)
    assert suspicion(labels[order], probabilities[order]) == pytest.approx(before[order])


def test_what_does_not_fit_is_refused():
    assert suspicion(np.zeros(0, np.int64), np.zeros((0, 6))).shape == (0,)
    with pytest.raises(ValueError, match="got shapes"):
        suspicion(np.zeros(3, np.int64), np.zeros((2, 6)))
    with pytest.raises(ValueError, match=r"labels 0\.\.5"):
        suspicion(np.array([6]), np.zeros((1, 6)))
    with pytest.raises(ValueError, match="finite"):
        suspicion(np.array([0]), np.full((1, 6), np.nan))


def box(column: int, row: int, shift: float = 0.0) -> list[float]:
    return [100 * column + 20 + shift, 100 * row + 20, 100 * column + 80 + shift, 100 * row + 80]


def field(*cells: tuple[list[float] | None, int, list[float] | None, int, float], image: int = 1) -> LabelledField:
    """Rows of (labelled box, label, seen box, its class, its probability); None: not there. 800 x 600 px."""
    labelled = [(row[0], row[1]) for row in cells if row[0] is not None]
    seen = [(row[2], row[3], row[4]) for row in cells if row[2] is not None]
    boxes = np.array([row[0] for row in seen], np.float32).reshape(-1, 4)
    scores = np.array([row[2] for row in seen], np.float32)
    found = Instances.of((600, 800), boxes, np.array([row[1] for row in seen], np.int64), scores)
    both = np.isin(found.labels, [TROPHOZOITE, RING])
    return LabelledField(
        image=image,
        boxes=np.array([row[0] for row in labelled], np.float32).reshape(-1, 4),
        labels=np.array([row[1] for row in labelled], np.int64),
        seen=FusedInstances(
            cells=found,
            score_all_cells=scores,
            score_infected=np.where(both, scores, np.nan).astype(np.float32),
            sources=np.where(both, SOURCES.index("both"), SOURCES.index("all_cells")).astype(np.int64),
            pair_iou=np.where(both, 0.9, np.nan).astype(np.float32),
            disputed=np.zeros(len(seen), dtype=bool),
        ),
    )


GOOD = [(box(c, r), RED, box(c, r, 2), RED, 0.97) for c in range(7) for r in range(4)]


def test_a_field_without_errors_has_no_suspects():
    assert suspects([field(*GOOD)]) == []
    assert suspects([]) == []
    assert suspects([field()]) == []


def test_each_kind_of_error_is_found_with_its_reason():
    errors = field(
        *GOOD,
        (box(0, 4), RED, box(0, 4), RING, 0.93),
        (box(1, 4), RED, None, 0, 0),
        (None, 0, box(2, 4), TROPHOZOITE, 0.9),
        (box(3, 4), RING, box(3, 4, 28), RING, 0.95),
    )
    found = {suspect.kind: suspect for suspect in suspects([errors])}
    assert len(suspects([errors])) == 4
    assert found["label"].cell == len(GOOD)
    assert found["label"].reason == "Labelled red blood cell; the models say ring 0.93"
    assert found["nothing"].cell == len(GOOD) + 1
    assert found["nothing"].reason == "Labelled red blood cell; the models, which see 97% of these, see no cell"
    assert errors.seen.cells.boxes[found["overlooked"].cell].tolist() == box(2, 4)
    assert found["overlooked"].reason == "No label here; the models say trophozoite 0.90"
    assert found["misplaced"].cell == len(GOOD) + 2
    assert found["misplaced"].score == pytest.approx(0.9 * (1 - 32 / 88), abs=1e-3)
    assert "overlaps 0.36" in found["misplaced"].reason


def test_the_most_suspicious_of_all_images_comes_first():
    doubtful = field(*GOOD, (None, 0, box(0, 4), RING, 0.7), image=3)
    certain = field(*GOOD, (None, 0, box(0, 4), RING, 0.99), image=8)
    found = suspects([doubtful, certain])
    assert [suspect.image for suspect in found] == [8, 3]
    assert all(0 <= suspect.score <= 1 for suspect in found)
    assert suspects([doubtful, certain], SuspicionConfig(least=found[0].score)) == found[:1]


def test_difficult_labels_cannot_be_wrong_but_are_labels():
    undecided = field(*GOOD, (box(0, 4), UNDECIDED, box(0, 4), RING, 0.99), (box(1, 4), UNDECIDED, None, 0, 0))
    assert suspects([undecided]) == []


def test_cells_cut_by_the_edge_are_neither_overlooked_nor_nothing():
    cut = [0.0, 520.0, 30.0, 580.0]
    assert suspects([field(*GOOD, (None, 0, cut, RED, 0.99)), field(*GOOD, (cut, RED, None, 0, 0))]) == []


def test_scores_need_no_order_of_cells():
    errors = field(*GOOD, (box(0, 4), RED, box(0, 4), RING, 0.93), (box(1, 4), RED, None, 0, 0))
    order = np.random.default_rng(0).permutation(len(errors.labels))
    shuffled = dataclasses.replace(errors, boxes=errors.boxes[order], labels=errors.labels[order])
    again = [(s.kind, order[s.cell], s.score) for s in suspects([shuffled])]
    assert again == [(s.kind, s.cell, s.score) for s in suspects([errors])]
