"""Four looks at recent fields: silent under chance, and where a difference is small; loud where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from al_loop.drift import LEAST, LOOKS, Sample, compare, look

FIELDS, PER_SLIDE = 48, 4


def fields(rng: np.random.Generator, shift: float = 0.0, width: int = 3, count: int = FIELDS) -> Sample:
    """Fields of slides: two thirds of the variance lie between slides."""
    slides = np.repeat(rng.normal(0, np.sqrt(2), (count // PER_SLIDE, width)), PER_SLIDE, axis=0)
    units = [f"slide-{number // PER_SLIDE}" for number in range(count)]
    return Sample(slides + rng.normal(0, 1, slides.shape) + shift * np.sqrt(3), units)


def test_chance_is_called_drift_no_more_often_than_said_although_fields_of_a_slide_are_alike() -> None:
    rng = np.random.default_rng(8)
    alarms = 0
    for _ in range(60):
        before, recent = ({name: fields(rng) for name in LOOKS} for _ in range(2))
        alarms += bool(compare(before, recent)[1])
    assert alarms <= 3  # 1 % and three standard errors


@pytest.mark.parametrize("name", list(LOOKS))
def test_a_large_difference_in_one_look_is_seen_and_named(name: str) -> None:
    rng = np.random.default_rng(9)
    before, recent = ({each: fields(rng) for each in LOOKS} for _ in range(2))
    recent[name] = fields(rng, shift=3.0)
    looks, speaking = compare(before, recent)
    assert [each.name for each in looks] == list(LOOKS)
    assert [each.name for each in speaking] == [name]
    assert speaking[0].in_words().startswith(LOOKS[name])


def test_a_small_difference_is_none_however_many_fields_show_it() -> None:
    rng = np.random.default_rng(10)
    found = look("stain", fields(rng, count=2000), fields(rng, shift=0.4, count=2000))
    assert found.p is not None
    assert found.p < 0.001
    before, recent = ({name: fields(rng, shift, count=2000) for name in LOOKS} for shift in (0.0, 0.4))
    assert compare(before, recent)[1] == []


def test_a_new_slide_is_no_drift() -> None:
    rng = np.random.default_rng(11)
    one = Sample(rng.normal(9, 1, (40, 2)), ["the new slide"] * 40)
    found = look("stain", fields(rng, width=2), one)
    assert (found.recent, found.d, found.p) == (1, None, None)
    assert f"fewer than {LEAST}" in found.in_words()
    empty = Sample(np.zeros((0, 2)), [])
    assert look("stain", fields(rng, width=2), empty).p is None
