"""The share of wrong labels, estimated from what the incumbent claims, and what is shown of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from al_loop.label_audit import OTHER, STAGES, Claims, audit, claims
from backend.instances import CLASS_INDEX, Instances

SIZE = (100, 1000)
RED, RING, SCHIZONT = (CLASS_INDEX[name] for name in ("red blood cell", "ring", "schizont"))
NOTHING = np.zeros((0, 4), dtype=np.float32)
MOST = 0.2


def cells(*named: tuple[int, int], score: float = 0.8) -> Instances:
    """(place, class) of cells in a row."""
    boxes = np.array([(60 * place, 10, 60 * place + 30, 40) for place, _ in named], dtype=np.float32).reshape(-1, 4)
    labels = np.array([label for _, label in named], dtype=np.int64)
    return Instances.of(SIZE, boxes, labels, np.full(len(named), score, dtype=np.float32))


@pytest.mark.parametrize(
    ("truth", "seen", "answers", "labelled"),
    [
        (cells((0, RING), (1, RED)), cells((0, RING), (1, RED)), ["ring"], 1),
        (cells((0, SCHIZONT)), cells((0, RING)), ["schizont"], 1),
        (cells((0, RED)), cells((0, RING)), ["other"], 0),
        (cells(), cells((0, RING)), ["other"], 0),
        (cells((0, RING)), cells((0, RED)), [], 1),  # it does not call it infected
        (cells((0, RING)), cells((0, RING), score=0.1), [], 1),  # nor here
    ],
)
def test_cells_that_are_called_infected_are_asked_about(
    truth: Instances, seen: Instances, answers: list[str], labelled: int
) -> None:
    found = claims([truth], [NOTHING], [seen])
    assert [(*STAGES, "other")[answer] for answer in found.answers] == answers
    assert found.labelled == labelled
    assert found.claimed.sum(axis=1) == pytest.approx(np.ones(len(answers)))
    if answers:
        assert found.claimed[0, STAGES.index("ring")] == pytest.approx(0.8, abs=1e-6)


def test_where_labels_leave_it_open_nothing_is_asked() -> None:
    seen = cells((0, RING), (3, RING))
    found = claims([cells((0, RING))], [seen.boxes[1:]], [seen])
    assert len(found.answers) == 1


def drawn(count: int, seed: int, sharpness: float = 3.0) -> tuple[Claims, np.random.Generator]:
    """Claims that hold: every answer is drawn from what is claimed."""
    rng = np.random.default_rng(seed)
    logits = sharpness * np.eye(OTHER + 1)[rng.integers(0, OTHER, count)] + rng.normal(0, 1, (count, OTHER + 1))
    claimed = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = np.array([rng.choice(OTHER + 1, p=row) for row in claimed], dtype=np.int64)
    return Claims(answers, claimed, count), rng


def flipped(clean: Claims, rng: np.random.Generator, to_other: float) -> Claims:
    """Three labels of ten are another."""
    answers = clean.answers.copy()
    for row in np.flatnonzero((answers < OTHER) & (rng.random(len(answers)) < 0.3)):
        stages = [stage for stage in range(OTHER) if stage != answers[row]]
        answers[row] = OTHER if rng.random() < to_other else rng.choice(stages)
    return replace(clean, answers=answers)


@pytest.mark.parametrize(("to_other", "missed", "renamed"), [(1.0, 0.3, 0.0), (0.0, 0.0, 0.3), (0.5, 0.15, 0.15)])
def test_the_share_of_flipped_labels_is_found_again(to_other: float, missed: float, renamed: float) -> None:
    found = audit(flipped(*drawn(2000, 1), to_other), drawn(500, 2)[0])
    assert (found.missed, found.renamed) == (pytest.approx(missed, abs=0.06), pytest.approx(renamed, abs=0.06))
    assert found.missed + found.renamed < found.high < 0.4
    sentence, bad = found.sentence(MOST)
    assert bad
    assert "many look wrong; have them read again" in sentence


def test_of_a_hundred_cells_flipped_labels_are_refused_and_right_ones_pass() -> None:
    passed = {"clean": 0, "flipped": 0}
    for seed in range(30):
        clean, rng = drawn(100, seed)
        test = drawn(100, 1000 + seed)[0]
        for kind, new in (("clean", clean), ("flipped", flipped(clean, rng, 0.5))):
            passed[kind] += not audit(new, test).sentence(MOST)[1]
    assert passed["clean"] >= 27
    assert passed["flipped"] == 0


def test_a_few_cells_show_nothing_and_none_at_all_need_not() -> None:
    test = drawn(100, 1)[0]
    few = audit(drawn(4, 3)[0], test)
    assert few.sentence(MOST) == (few.sentence(MOST)[0], True)
    assert "review more cells" in few.sentence(MOST)[0]
    unseen = audit(Claims(np.zeros(0, dtype=np.int64), np.zeros((0, OTHER + 1)), 5), test)
    assert unseen.high == 1
    assert unseen.sentence(MOST)[1], "infected by the labels, and the pair sees none of them"
    nothing = audit(Claims(np.zeros(0, dtype=np.int64), np.zeros((0, OTHER + 1)), 0), test)
    assert not nothing.sentence(MOST)[1]


def test_a_pair_that_names_stages_otherwise_is_understood_and_one_that_knows_none_shows_nothing() -> None:
    """The first calls every ring a trophozoite, in the test split too; the second guesses."""
    swapped = [1, 0, *range(2, OTHER + 1)]
    test, new = (replace(each, claimed=each.claimed[:, swapped]) for each in (drawn(200, 1)[0], drawn(100, 2)[0]))
    assert not audit(new, test).sentence(MOST)[1]
    rng = np.random.default_rng(0)
    test, new = (replace(each, answers=rng.integers(0, OTHER, len(each.answers))) for each in (test, new))
    found = audit(new, test)
    assert found.high > 0.8
    assert found.sentence(MOST)[1]


def test_labels_wrong_all_in_the_same_way_stand_out_among_the_cells_called_so() -> None:
    clean, _ = drawn(400, 1)
    ring, schizont = STAGES.index("ring"), STAGES.index("schizont")
    few = np.flatnonzero(clean.named() != ring)[:260]
    rings = np.flatnonzero(clean.named() == ring)[:20]
    rows = np.concatenate([few, rings])
    renamed = np.where(clean.answers == ring, schizont, clean.answers)[rows]
    found = audit(Claims(renamed, clean.claimed[rows], len(rows)), drawn(300, 2)[0])
    assert found.high < MOST, "one label in fourteen would pass"
    assert (found.stage, found.stage_asked) == ("ring", 20)
    sentence, bad = found.sentence(MOST)
    assert bad
    assert "of 20 that it calls ring" in sentence
    assert not found.sentence(1.0)[1], "who lets any share pass means this one, too"
