"""Single values as annotation files write them: numbers, names, moments. What cannot be understood becomes None."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

from backend.label_studio.label_config import KINDS

Box = tuple[float, float, float, float]  # xyxy px

LONGEST_NAME = 200
SAME_PX = 1e-6  # exact corners must be those of the box they stand beside, which some other program may have moved


def read_box(values: object) -> Box | None:
    """Four finite floats from a sequence of numbers or numeric strings, or None."""
    if not isinstance(values, (list, tuple)) or len(values) != 4:
        return None
    try:
        a, b, c, d = (float(v) for v in values)
    except (TypeError, ValueError):
        return None
    if not all(abs(n) < 1e7 for n in (a, b, c, d)):  # also refuses NaN and infinities
        return None
    return a, b, c, d


def exact_box(corners: object, box: Box) -> Box:
    """The corners as written where they are those of `box` up to rounding, else `box`.

    Formats that store a width instead of a corner round the last digit; the corners beside it bring that back.
    """
    exact = read_box(corners)
    if exact is None or any(abs(a - b) > SAME_PX for a, b in zip(exact, box, strict=True)):
        return box
    return exact


def read_size(value: object) -> int | None:
    """A positive whole number of pixels, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**6 else None


def read_checksum(value: object) -> str | None:
    """An md5 or a sha256 as lower case hex digits, or None."""
    found = re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{64}", value.strip().lower()) if isinstance(value, str) else None
    return found and found[0]


def read_name(value: object) -> str | None:
    """A name of something (slide, patient, person) from text or a whole number, or None where there is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of numbers with gaps is read as floats
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value).strip()[:LONGEST_NAME] or None


def read_shape(value: object) -> str | None:
    """What was drawn, as Label Studio's controls name it, or None."""
    return value if isinstance(value, str) and value in KINDS else None


def read_moment(value: object) -> datetime | None:
    """A moment in UTC from a datetime or ISO 8601 text, or None. Without a zone it is UTC, without a time midnight.

    Accepts "20260131", "2026-01-31", "2026-01-31 12:00:00", "2026-01-31T12:00:00+02:00".
    """
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def is_blank(value: object) -> bool:
    """Whether a value says nothing: None, empty text, NaN (how tables of numbers spell a gap)."""
    return (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    )


def official_split(annotation: str) -> str | None:
    """The split that words promise: test.json, valid/_annotations.json, instances_train2017.json, or just "test"."""
    words = re.findall("[a-z]+", annotation.lower())
    for split, names in (("test", {"test"}), ("validation", {"val", "valid", "validation"})):
        if names & set(words):
            return split
    return "train" if {"train", "training"} & set(words) else None


def as_list(value: Any) -> list[Any]:
    """The value when it is a list, else an empty one: a record without objects is an image without cells."""
    return value if isinstance(value, list) else []
