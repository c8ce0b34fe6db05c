"""Labels that two pairs contradict alike."""

from __future__ import annotations

import numpy as np
import pytest

from al_loop.label_audit import Contradictions, audit, contradictions
from backend.instances import CLASS_INDEX, Instances

SIZE = (100, 1000)
RED, RING, SCHIZONT, TROPHOZOITE = (CLASS_INDEX[name] for name in ("red blood cell", "ring", "schizont", "trophozoite"))
NOTHING = np.zeros((0, 4), dtype=np.float32)


def cells(*named: tuple[int, int], score: float = 0.9) -> Instances:
    """(place, class) of cells in a row."""
    boxes = np.array([(60 * place, 10, 60 * place + 30, 40) for place, _ in named], dtype=np.float32).reshape(-1, 4)
    labels = np.array([label for _, label in named], dtype=np.int64)
    return Instances.of(SIZE, boxes, labels, np.full(len(named), score, dtype=np.float32))


def counted(truth: Instances, first: Instances, second: Instances, ignored: np.ndarray = NOTHING) -> tuple[int, int]:
    found = contradictions([truth], [ignored], [first], [second])
    return int(found.asked[0]), int(found.contradicted[0])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (cells((0, RING)), cells((0, RING)), (1, 0)),  # as labelled
        (cells((0, SCHIZONT)), cells((0, SCHIZONT)), (1, 1)),  # both name another stage
        (cells((0, SCHIZONT)), cells((0, TROPHOZOITE)), (1, 0)),  # they do not agree on what else it is
        (cells((0, RED)), cells(), (1, 1)),  # neither sees an infected cell
        (cells((0, RED)), cells((0, RING)), (1, 0)),  # the candidate has learned it
        (cells((0, RING), (3, RING)), cells((0, RING), (3, SCHIZONT)), (2, 1)),  # both see one where no label is
        (cells((0, RING), (3, RING)), cells((0, RING)), (1, 0)),
        (cells((0, RING), score=0.4), cells((0, RING), score=0.4), (1, 1)),  # not sure enough to say so
    ],
)
def test_only_what_both_contradict_in_the_same_way_counts(
    first: Instances, second: Instances, expected: tuple[int, int]
) -> None:
    assert counted(cells((0, RING), (1, RED)), first, second) == expected


def test_where_labels_leave_it_open_nothing_is_contradicted() -> None:
    seen = cells((0, RING), (3, RING))
    assert counted(cells((0, RING)), seen, seen, ignored=seen.boxes[1:]) == (1, 0)


def test_shares_are_compared_by_resampling_images() -> None:
    rng = np.random.default_rng(0)
    asked = np.full(40, 3)
    clean, flipped = (Contradictions(asked, rng.binomial(3, share, 40)) for share in (0.05, 0.35))
    found = audit(flipped, clean)
    assert (found.asked, found.test_asked) == (120, 120)
    assert found.share is not None
    assert found.test_share is not None
    assert found.low is not None
    assert 0.1 < found.low < found.share - found.test_share
    same = audit(clean, clean)
    assert same.low is not None
    assert same.low < 0
    none = Contradictions(np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64))
    assert (audit(none, clean).share, audit(none, clean).low) == (None, None)
