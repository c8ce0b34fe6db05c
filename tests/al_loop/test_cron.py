"""Cron times in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from al_loop import cron
from backend.errors import SettingRefused

NIGHT = "0 3 * * *"
THREE = datetime(2026, 3, 29, 3, 0, tzinfo=UTC)  # many clocks are put forward in this night


@pytest.mark.parametrize(("late", "days"), [(-0.1, 1), (0.0, 0), (0.1, 0), (59.0, 0), (86399.9, 0), (86400.0, -1)])
def test_the_latest_time_is_never_later_than_now(late: float, days: int) -> None:
    assert cron.latest(NIGHT, THREE + timedelta(seconds=late)) == THREE - timedelta(days=days)


def test_times_are_utc_whatever_zone_is_asked_in() -> None:
    elsewhere = THREE.astimezone(timezone(timedelta(hours=9)))
    assert cron.latest(NIGHT, elsewhere) == THREE
    assert cron.following(NIGHT, elsewhere) == THREE + timedelta(days=1)
    assert cron.following(NIGHT, elsewhere).utcoffset() == timedelta(0)


def test_blanks_do_not_matter_and_rare_days_may_be_meant() -> None:
    assert cron.checked("  0  3 * *\t* ") == NIGHT
    assert cron.checked("0 3 29 2 *") == "0 3 29 2 *"


@pytest.mark.parametrize("text", ["", "daily", "* * *", "0 0 3 * * *", "61 * * * *", "0 3 30 2 *", "a b c d e"])
def test_what_is_no_cron_time_is_refused(text: str) -> None:
    with pytest.raises(SettingRefused, match=r'expected five fields like "0 3 \* \* \*"'):
        cron.checked(text)
