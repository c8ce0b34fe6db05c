"""The interval of parasitaemia that is used holds the truth as often as it says; the naive one does not."""

from __future__ import annotations

import pytest

from al_loop.benchmark_intervals import FIELDS, SLIDES, USED, benchmark_intervals


def test_what_is_used_covers_and_the_naive_interval_does_not() -> None:
    found = benchmark_intervals(repeats=400)
    used, naive = found["slides"][USED], found["slides"]["Wilson, cells independent"]
    assert used["coverage"] >= 0.93
    assert naive["coverage"] < 0.93
    for fields in FIELDS:
        assert used["by_fields"][fields] >= 0.93, fields
        assert naive["by_fields"][fields] < 0.93, fields
    assert naive["by_correlation"][0.0] == pytest.approx(0.95, abs=0.02)  # where cells are independent, it is right
    for slides in SLIDES:
        assert found["periods"]["slides"][slides] >= 0.91, slides
        assert found["periods"]["fields"][slides] < 0.85, slides
