"""What an expert did, cell by cell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from al_loop.revise import Answer, Change, Shown, box_iou, revise
from db.models import Action

BOX = (10.0, 10.0, 50.0, 50.0)
FAR = (100.0, 100.0, 140.0, 140.0)
PREDICTED = {"a": Shown(BOX, "red blood cell"), "b": Shown(FAR, "ring")}


def actions(changes: list[Change]) -> dict[str, Action]:
    return {change.key: change.action for change in changes}


def test_first_submission_answers_every_predicted_cell() -> None:
    changes = revise(
        PREDICTED,
        {},
        [Answer("a", BOX, "trophozoite"), Answer("new", (200.0, 10.0, 240.0, 50.0), "schizont")],
    )
    assert actions(changes) == {"a": Action.relabelled, "new": Action.added, "b": Action.deleted}


def test_an_untouched_cell_is_accepted_and_a_dragged_one_moved() -> None:
    dragged = (FAR[0] + 8, FAR[1], FAR[2] + 8, FAR[3])
    changes = revise(PREDICTED, {}, [Answer("a", BOX, "red blood cell"), Answer("b", dragged, "ring")])
    assert actions(changes) == {"a": Action.accepted, "b": Action.moved}
    moved = next(c for c in changes if c.key == "b")
    assert moved.predicted_iou is not None
    assert abs(moved.predicted_iou - 32 / 48) < 1e-9


def test_rounding_of_percent_is_not_a_move() -> None:
    rounded = (BOX[0] + 0.4, BOX[1], BOX[2] - 0.4, BOX[3])
    assert actions(revise({"a": PREDICTED["a"]}, {}, [Answer("a", rounded, "red blood cell")])) == {
        "a": Action.accepted
    }


def test_an_outline_redrawn_within_its_box_is_a_revision() -> None:
    before = {"a": Shown(BOX, "ring", b"old")}
    assert actions(revise({}, before, [Answer("a", BOX, "ring", "brush", b"new")])) == {"a": Action.moved}
    assert revise({}, before, [Answer("a", BOX, "ring", "brush", b"old")]) == []


def test_an_update_records_only_what_changed() -> None:
    before = {"a": Shown(BOX, "red blood cell"), "b": None}
    changes = revise(PREDICTED, before, [Answer("a", BOX, "difficult")])
    assert actions(changes) == {"a": Action.relabelled}


def test_a_deleted_cell_that_comes_back_is_answered_again() -> None:
    before = {"a": Shown(BOX, "red blood cell"), "b": None}
    answers = [Answer("a", BOX, "red blood cell"), Answer("b", FAR, "ring")]
    assert actions(revise(PREDICTED, before, answers)) == {"b": Action.accepted}


BOXES = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(5, 40), st.integers(5, 40)).map(
    lambda t: (float(t[0]), float(t[1]), float(t[0] + t[2]), float(t[1] + t[3]))
)
SHOWN = st.builds(Shown, BOXES, st.sampled_from(["ring", "red blood cell", "difficult"]))


@given(st.dictionaries(st.sampled_from("abcdef"), SHOWN), st.dictionaries(st.sampled_from("abcdefgh"), SHOWN))
def test_replaying_the_changes_gives_the_submitted_state_and_repeating_adds_nothing(
    predicted: dict[str, Shown], submitted: dict[str, Shown]
) -> None:
    answers = [Answer(key, s.box, s.label) for key, s in submitted.items()]
    changes = revise(predicted, {}, answers)
    state = {c.key: None if c.answer is None else Shown(c.answer.box, c.answer.label) for c in changes}
    assert {k: v for k, v in state.items() if v is not None} == submitted
    assert set(state) == set(predicted) | set(submitted)
    assert revise(predicted, state, answers) == []


@given(BOXES, BOXES)
def test_iou_is_symmetric_and_bounded(a: tuple, b: tuple) -> None:
    assert box_iou(a, b) == box_iou(b, a)
    assert 0 <= box_iou(a, b) <= 1
    assert box_iou(a, a) == 1
