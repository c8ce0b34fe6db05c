"""The training recipe of a cross-validation, and how single settings of it are overruled from the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from al_loop.recipe import recipe
from al_loop.train_config import TrainingConfig
from backend.detect import DetectorConfig
from backend.errors import SettingRefused

STEPS = 2000  # about 8 passes over 240 fields


def crossval_config(role: str, steps: int = STEPS) -> TrainingConfig:
    """The recipe a fold is trained with."""
    return recipe(DetectorConfig(role=role), steps)


def overrule(config: TrainingConfig, settings: Sequence[str]) -> TrainingConfig:
    """The configuration with "name=value" settings put in: its own fields, or those of the dataclasses inside it.

    Values are JSON, or plain text: crop=448, preset=resnet50, scale=[0.8,1.25], bf16=null.
    Raises SettingRefused for a name there is not, or a value of another type.
    """
    for setting in settings:
        name, equals, value = setting.partition("=")
        try:
            changed = _put(config, name, value) if equals else None
        except (ValidationError, ValueError) as error:
            raise SettingRefused(f"--set {setting}: {error}") from error
        if changed is None:
            raise SettingRefused(
                f"--set {setting}: expected NAME=VALUE with one of {', '.join(sorted(_names(config)))}"
            )
        config = changed
    return config


def _put(config: Any, name: str, value: str) -> Any:
    """The dataclass with one field replaced, its own before those of dataclasses inside; None if there is none."""
    own = {field.name: getattr(config, field.name) for field in fields(config)}
    if name in own and not is_dataclass(own[name]):
        return replace(config, **{name: TypeAdapter(get_type_hints(type(config))[name]).validate_python(_parse(value))})
    for inner, part in own.items():
        if is_dataclass(part) and (changed := _put(part, name, value)) is not None:
            return replace(config, **{inner: changed})
    return None


def _parse(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _names(config: Any) -> set[str]:
    found: set[str] = set()
    for field in fields(config):
        value = getattr(config, field.name)
        found |= _names(value) if is_dataclass(value) else {field.name}
    return found


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings that two recipes both know and disagree on, in words; a setting only one knows is no disagreement."""
    found: list[str] = []
    for name in [key for key in wanted if key in stored]:
        there, here = stored[name], wanted[name]
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            found += differences(there, here, f"{prefix}{name}.")
        elif json.dumps(there) != json.dumps(here):
            found.append(f"{prefix}{name} was {there}, now {here}")
    return found
