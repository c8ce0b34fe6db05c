"""Patterns of file names: what they say overrules records, what they do not is counted, bad ones are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from al_loop.formats.name_pattern import NamePattern
from al_loop.formats.opener import FolderOpener
from al_loop.formats.records import SourceImage
from backend.errors import SettingRefused

PATTERN = r"^(?P<patient>P\d+)(_(?P<slide>S\d+))?(_(?P<taken>[\d-]+))?\.png$"


def named(name: str, **changes: str) -> SourceImage:
    return SourceImage(name, None, FolderOpener(Path()), **changes)  # type: ignore[arg-type]  # names only


def test_names_tell_patient_slide_and_day() -> None:
    images = [
        named("P1_S2_20260131.png", group="block"),
        named("P1_2026-02-01.png", group="block", patient="somebody"),
        named("P2.png"),
        named("P3_20261331.png"),
        named("other.png", patient="kept"),
        named(""),
    ]
    told, problems = NamePattern.of(PATTERN).tell(images)
    assert [(image.patient, image.group, image.taken_at) for image in told] == [
        ("P1", "P1/S2", datetime(2026, 1, 31, tzinfo=UTC)),
        ("P1", "block", datetime(2026, 2, 1, tzinfo=UTC)),
        ("P2", None, None),
        ("P3", None, None),
        ("kept", None, None),
        (None, None, None),
    ]
    assert [(problem.kind, problem.detail) for problem in problems] == [
        ("unreadable moment", "P3_20261331.png: 20261331"),
        ("name that does not fit", "other.png"),
    ]


def test_a_slide_may_come_without_a_patient() -> None:
    (told,), problems = NamePattern.of("(?P<slide>S[0-9])").tell([named("xS4y.png")])
    assert (told.patient, told.group, problems) == (None, "S4", [])


@pytest.mark.parametrize("text", ["(", r"P\d+", "", r"(?P<who>P\d+)", r"(?P<patient>P)(?P<day>\d+)", "(?P<patient>x"])
def test_a_pattern_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(SettingRefused, match=r"--name-pattern: expected .*\(\?P<patient>") as caught:
        NamePattern.of(text)
    assert repr(text) in str(caught.value)
