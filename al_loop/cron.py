"""Cron times: five fields (minute, hour, day, month, weekday), always in UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from croniter import CroniterError, croniter

from backend.errors import SettingRefused

FIELDS = 5
HORIZON_YEARS = 5  # 29 February comes every four years; a date that never comes is refused


def checked(cron: str) -> str:
    """The expression with single blanks. Raises SettingRefused for one that is none, or whose time never comes."""
    expression = " ".join(cron.split())
    try:
        if len(expression.split(" ")) != FIELDS:
            raise ValueError(f"{len(expression.split())} fields")
        following(expression, datetime.now(UTC))
    except (CroniterError, ValueError) as error:
        raise SettingRefused(
            f'--cron: expected five fields like "0 3 * * *" (minute, hour, day, month, weekday; UTC), '
            f"got {cron!r}: {error}"
        ) from None
    return expression


def following(cron: str, at: datetime) -> datetime:
    """The first cron time after `at`. Raises croniter.CroniterError when there is none for years."""
    times = croniter(cron, at.astimezone(UTC), max_years_between_matches=HORIZON_YEARS)
    return times.get_next(datetime)


def latest(cron: str, at: datetime) -> datetime:
    """The last cron time that is not later than `at`."""
    # A whole second later, since get_prev looks for a time strictly before.
    start = at.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    return croniter(cron, start, max_years_between_matches=HORIZON_YEARS).get_prev(datetime)
