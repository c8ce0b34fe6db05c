"""Faults from inside one of our processes: the product knows nothing of them, its process is started with them.

A control file says what is to happen; it is looked at whenever the process is about to have an effect. So a fault is
armed while the process works, and can be as exact as "just before the third commit inside the step `evaluate`".
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

OUR_PACKAGES = ("al_loop", "backend", "db", "scripts", "dbos")


class Control:
    """What is armed now, from the control file. effects: how many there were since then.

    {"die_at": k, "step": name or ""}: kill -9 before the k-th effect, inside that step, or at its end at the latest.
    {"out_of_memory": k}: of the next k crops that are trained on. {"clock_s": s}: the clock is that far off.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen = -1
        self._lock = threading.RLock()
        self._steps: list[str] = []
        self.armed: dict[str, Any] = {}
        self.effects = 0

    def look(self) -> dict[str, Any]:
        """What is armed, read again if it has changed."""
        try:
            changed = os.stat(self._file).st_mtime_ns
            if changed != self._seen:
                self.armed, self._seen, self.effects = json.loads(self._file.read_text()), changed, 0
        except (OSError, ValueError):
            pass  # none yet, or just being written
        return self.armed

    def effect(self) -> None:
        """Something is about to be written for good: die now, if it is time."""
        with self._lock:
            armed = self.look()
            if "die_at" in armed and (not armed.get("step") or armed["step"] in self._steps):
                self.effects += 1
                if self.effects >= armed["die_at"]:
                    die()

    @contextmanager
    def inside(self, step: str) -> Iterator[None]:
        """Inside the block, this step of a workflow runs."""
        self._steps.append(step)
        try:
            yield
            with self._lock:
                armed = self.look()
                if "die_at" in armed and armed.get("step") == step:
                    die()
        finally:
            self._steps.remove(step)

    def out_of_memory(self) -> bool:
        """Whether the device has no room now."""
        with self._lock:
            if self.effects < self.look().get("out_of_memory", 0):
                self.effects += 1
                return True
            return False


def die() -> None:
    """As if by kill -9 from outside."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def install(file: Path) -> None:
    """Let this process obey the control file."""
    control = Control(file)
    event.listen(Engine, "commit", lambda connection: control.effect())
    for name in ("replace", "fsync", "link"):
        setattr(os, name, _announced(getattr(os, name), control))
    for module in (_loaded("al_loop.cycle"), _loaded("al_loop.follow")):
        for name, step in list(vars(module).items()) if module else ():
            if "." not in getattr(step, "dbos_function_name", "."):  # workflows bear a version: turn.v1
                setattr(module, name, _step(step, name, control))
    training = _loaded("al_loop.train")
    if training is not None:
        vars(training)["losses_on"] = _cramped(vars(training)["losses_on"], control)
    _let_the_clock_jump(control)


def _loaded(name: str) -> ModuleType | None:
    return sys.modules.get(name)


def _announced(function: Callable[..., Any], control: Control) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        control.effect()
        return function(*args, **kwargs)

    return call


def _step(step: Callable[..., Any], name: str, control: Control) -> Callable[..., Any]:
    @wraps(step)
    def call(*args: Any, **kwargs: Any) -> Any:
        with control.inside(name):
            return step(*args, **kwargs)

    return call


def _cramped(losses_on: Callable[..., Any], control: Control) -> Callable[..., Any]:
    """Training whose device has no room while `control` says so."""
    import torch

    def cramped_losses_on(*args: Any, **kwargs: Any) -> Any:
        losses_of = losses_on(*args, **kwargs)

        def losses(*crops: Any, **more: Any) -> Any:
            if control.out_of_memory():
                raise torch.OutOfMemoryError("CUDA out of memory (injected)")
            return losses_of(*crops, **more)

        return losses

    return cramped_losses_on


def _let_the_clock_jump(control: Control) -> None:
    honest_time, honest = time.time, datetime

    class _AnyDatetime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, honest)

    class JumpingDatetime(datetime, metaclass=_AnyDatetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return honest.now(tz) + timedelta(seconds=control.look().get("clock_s", 0.0))

    time.time = lambda: honest_time() + control.look().get("clock_s", 0.0)
    for name, module in list(sys.modules.items()):
        if name.startswith(OUR_PACKAGES) and getattr(module, "datetime", None) is honest:
            module.datetime = JumpingDatetime  # type: ignore[attr-defined]
