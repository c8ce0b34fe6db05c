"""Single values: numbers and moments as text, names as numbers, and exact corners beside rounded ones."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest

from al_loop.formats.values import exact_box, is_blank, official_split, read_box, read_checksum, read_moment, read_name


def test_boxes_are_four_finite_numbers_or_nothing() -> None:
    assert read_box(["1", 2.5, "3e1", 40]) == (1.0, 2.5, 30.0, 40.0)
    for bad in ([1, 2, 3], [1, 2, 3, "wide"], [1, 2, 3, None], [0, 0, math.inf, 1], ["nan", 0, 1, 1], "1234", None):
        assert read_box(bad) is None


def test_exact_corners_count_only_beside_the_same_box() -> None:
    box, exact = (1.0, 2.0, 3.0, 4.0), (1.0, 2.0, math.nextafter(3.0, 4.0), 4.0)
    assert exact_box(list(exact), box) == exact
    for other in ((1.0, 2.0, 3.1, 4.0), None, [1, 2, 3], "1234"):
        assert exact_box(other, box) == box


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("20260131", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31 12:30:00", datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
        (" 2026-01-31T12:30:00+02:00 ", datetime(2026, 1, 31, 10, 30, tzinfo=UTC)),
        (datetime(2026, 1, 31, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2026, 1, 31, tzinfo=UTC)),
        (20260131, datetime(2026, 1, 31, tzinfo=UTC)),
        ("20260132", None),
        ("0001-01-01T00:00+05:00", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_moments_are_utc(written: object, moment: datetime | None) -> None:
    assert read_moment(written) == moment


def test_names_are_text_or_whole_numbers() -> None:
    named = [read_name(value) for value in (" P1 ", 17, 17.0, 1.5, "", "  ", None, True, math.nan, ["P1"])]
    assert named == ["P1", "17", "17"] + [None] * 7
    assert [is_blank(value) for value in (None, "", " ", math.nan, 0, "0", False)] == [True] * 4 + [False] * 3


def test_checksums_are_md5_or_sha256() -> None:
    assert read_checksum("A" * 32) == "a" * 32
    assert read_checksum("0" * 64) == "0" * 64
    assert [read_checksum(value) for value in ("a" * 33, "g" * 32, 5, None)] == [None] * 4


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("test.json", "test"),
        ("training.json", "train"),
        ("valid/_annotations.coco.json", "validation"),
        ("annotations/instances_val2017.json", "validation"),
        ("annotations.json", None),
        ("latest.json", None),
    ],
)
def test_file_names_promise_a_split(file: str, split: str | None) -> None:
    assert official_split(file) == split
