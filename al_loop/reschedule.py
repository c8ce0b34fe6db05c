"""Change when a role is retrained: what is not named stays as it is, and what cannot be meant is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from al_loop import cron
from al_loop.context import Loop
from al_loop.trigger import TriggerConfig, trigger_config
from backend.errors import SettingRefused
from db import schedules


def reschedule(loop: Loop, role: str, changes: Mapping[str, Any], set_by: str) -> TriggerConfig:
    """Append a schedule: the one that counts, with these fields of TriggerConfig changed. Raises SettingRefused."""
    with loop.database.session() as session:
        schedules.hold(session, role)  # of two people at the same time, the second builds on what the first said
        config = checked(replace(trigger_config(session, loop.settings, role), **changes))
        schedules.add_schedule(
            session,
            role,
            retrain_after=config.threshold,
            cron=config.cron,
            on_drift=config.on_drift,
            cooldown_s=config.cooldown_s,
            set_by=set_by,
        )
    return config


def checked(config: TriggerConfig) -> TriggerConfig:
    """The same with its cron expression in one form. Raises SettingRefused, naming the option at fault."""
    if config.threshold is not None and not 0 < config.threshold < math.inf:
        raise SettingRefused(
            f"--retrain-after: expected a count above 0, got {config.threshold:g}; --never-for-reviews switches it off"
        )
    if not 0 <= config.cooldown_s < math.inf:
        raise SettingRefused(f"--cooldown: expected seconds from 0 up, got {config.cooldown_s:g}")
    return config if config.cron is None else replace(config, cron=cron.checked(config.cron))
