"""What all formats share: names of categories, clipping, and the counting of problems."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from al_loop.formats.records import (
    PROBLEMS,
    SourceImage,
    SourceObject,
    canonical_label,
    clip_box,
    read_objects,
)
from backend.instances import CLASSES, DIFFICULT


@pytest.mark.parametrize("name", [*CLASSES, DIFFICULT])
def test_our_own_names_are_known_however_they_are_spelt(name: str) -> None:
    for spelt in (name, name.upper(), name.replace(" ", "_"), f"  {name.title()} ", name + "s"):
        assert canonical_label(spelt) == name


@pytest.mark.parametrize(
    ("spelt", "label"),
    [("RBC", "red blood cell"), ("WBC", "leukocyte"), ("leucocytes", "leukocyte"), ("Uninfected", "red blood cell")],
)
def test_aliases(spelt: str, label: str) -> None:
    assert canonical_label(spelt) == label


@pytest.mark.parametrize("unknown", ["platelet", "", "ringer", None, 3, ["ring"]])
def test_other_names_are_unknown(unknown: object) -> None:
    assert canonical_label(unknown) is None


@given(st.tuples(*[st.floats(-200, 300)] * 4))
def test_a_clipped_box_is_inside_and_two_pixels_wide_or_dropped(box: tuple[float, float, float, float]) -> None:
    clipped, changed = clip_box(box, 100, 80)
    if clipped is None:
        width, height = min(100, box[2]) - max(0, box[0]), min(80, box[3]) - max(0, box[1])
        assert min(width, height) < 2
        return
    x1, y1, x2, y2 = clipped
    assert 0 <= x1 <= x2 - 2 <= 98
    assert 0 <= y1 <= y2 - 2 <= 78
    assert changed == (max(abs(a - b) for a, b in zip(box, clipped, strict=True)) > 0.5)


def test_every_bad_object_is_counted_and_the_others_stay() -> None:
    things = [
        {"c": "ring", "b": [0, 0, 9, 9]},
        {"c": "platelet", "b": [0, 0, 9, 9]},
        {"c": "ring", "b": [0, 0, "x", 9]},
        {"c": "ring"},
        "nonsense",
        None,
    ]
    objects, problems = read_objects("a.png", things, lambda thing: (thing["c"], thing["b"]))
    assert objects == (SourceObject("ring", (0.0, 0.0, 9.0, 9.0)),)
    kinds = [problem.kind for problem in problems]
    assert kinds == ["unknown category", "unreadable box", "unreadable box", "unreadable box", "unreadable box"]
    assert problems[0].detail == "platelet"
    assert set(kinds) <= set(PROBLEMS)


def test_objects_are_clipped_or_dropped_against_the_real_image() -> None:
    boxes = [(10.0, 10.0, 30.0, 30.0), (-5.0, 10.0, 20.0, 30.0), (10.0, 10.0, 11.0, 30.0), (200.0, 0.0, 220.0, 20.0)]
    image = SourceImage("a.png", None, None, objects=tuple(SourceObject("ring", box) for box in boxes))  # type: ignore[arg-type]
    kept, problems = image.usable_objects(100, 80)
    assert [thing.box for thing in kept] == [(10, 10, 30, 30), (0, 10, 20, 30)]
    assert [problem.kind for problem in problems] == ["box outside the image", "degenerate box", "degenerate box"]
    with pytest.raises(FileNotFoundError, match=r"a\.png"), image.open():
        pass
