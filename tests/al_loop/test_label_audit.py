"""Labels that contradict the incumbent more often than it claims itself."""

from __future__ import annotations

import numpy as np
import pytest

from al_loop.label_audit import GROUPS, Contradictions, audit, contradictions
from backend.instances import CLASS_INDEX, Instances

SIZE = (100, 1000)
RED, RING, SCHIZONT = (CLASS_INDEX[name] for name in ("red blood cell", "ring", "schizont"))
NOTHING = np.zeros((0, 4), dtype=np.float32)


def cells(*named: tuple[int, int], score: float = 0.8) -> Instances:
    """(place, class) of cells in a row."""
    boxes = np.array([(60 * place, 10, 60 * place + 30, 40) for place, _ in named], dtype=np.float32).reshape(-1, 4)
    labels = np.array([label for _, label in named], dtype=np.int64)
    return Instances.of(SIZE, boxes, labels, np.full(len(named), score, dtype=np.float32))


@pytest.mark.parametrize(
    ("truth", "seen", "expected"),
    [
        (cells((0, RING), (1, RED)), cells((0, RING), (1, RED)), (1, 0, 0.2)),
        (cells((0, SCHIZONT)), cells((0, RING)), (1, 1, 0.2)),  # another stage
        (cells((0, RED)), cells((0, RING)), (1, 1, 0.2)),  # a healthy cell
        (cells(), cells((0, RING)), (1, 1, 0.2)),  # none at all
        (cells((0, RING)), cells((0, RED)), (0, 0, 0.0)),  # it does not call it infected
        (cells((0, RING)), cells((0, RING), score=0.2), (0, 0, 0.0)),  # nor here
    ],
)
def test_cells_that_are_called_infected_are_asked_about(
    truth: Instances, seen: Instances, expected: tuple[int, int, float]
) -> None:
    found = contradictions([truth], [NOTHING], [seen])
    counts = (found.asked[0, 0], found.contradicted[0, 0], found.expected[0, 0])
    assert counts == pytest.approx(expected, abs=1e-6)


def test_where_labels_leave_it_open_nothing_is_contradicted() -> None:
    seen = cells((0, RING), (3, RING))
    found = contradictions([cells((0, RING))], [seen.boxes[1:]], [seen])
    assert (found.asked[0, 0], found.contradicted[0, 0]) == (1, 0)


def counts(share: float, claimed: float, images: int = 40, seed: int = 0, rings: float | None = None) -> Contradictions:
    """Three cells on each image, one of each of three stages; so many are contradicted where `claimed` was expected.

    rings: the share among those called rings, when it is another.
    """
    asked = np.tile([3.0, 1.0, 1.0, 1.0, 0.0], (images, 1))
    shares = [share if kind != "ring" or rings is None else rings for kind in GROUPS[1:4]]
    wrong = np.random.default_rng(seed).binomial(1, shares, (images, 3)).astype(np.float64)
    contradicted = np.concatenate([wrong.sum(axis=1, keepdims=True), wrong, np.zeros((images, 1))], axis=1)
    return Contradictions(asked, contradicted, claimed * asked)


def test_an_excess_over_what_the_pair_claims_is_seen_and_hard_cells_are_none() -> None:
    test = counts(0.1, 0.1)
    flipped = audit(counts(0.4, 0.1, seed=1), test)
    assert flipped.low is not None
    assert 0.1 < flipped.low < 0.3
    sentence, bad = flipped.sentence(0.02)
    assert bad
    assert "by its own claims 10% were expected" in sentence
    hard = audit(counts(0.4, 0.4, seed=2), test)
    assert hard.low is not None
    assert hard.low < 0.05
    assert not hard.sentence(0.05)[1]
    nothing = audit(Contradictions(*np.zeros((3, 4, 5))), test)
    assert nothing.low is None
    assert not nothing.sentence(0.05)[1]


def test_a_pair_whose_claims_do_not_hold_is_no_witness() -> None:
    found = audit(counts(0.8, 0.3, seed=1), counts(0.5, 0.3, seed=2))
    assert found.low is None


def test_right_labels_are_rarely_called_wrong() -> None:
    called = 0
    for seed in range(100):
        found = audit(counts(0.2, 0.2, 30, seed), counts(0.2, 0.2, 30, 1000 + seed), resamples=200)
        called += found.sentence(0.05)[1]
    assert called <= 4


def test_labels_wrong_all_in_the_same_way_stand_out_among_the_cells_called_so() -> None:
    found = audit(counts(0.2, 0.2, rings=0.9), counts(0.2, 0.2, seed=5))
    assert found.kind == "ring"
    assert found.asked == 40
    sentence, bad = found.sentence(0.02)
    assert bad
    assert sentence.startswith("new labels: of 40 cells that the serving pair calls ring they contradict")
