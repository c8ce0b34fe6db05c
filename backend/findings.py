"""What a check of the installation found, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "notice", "broken"]


@dataclass(frozen=True)
class Finding:
    """One answer of the doctor.

    about: what was looked at. state: `ok`; `notice`, which works but somebody should know; `broken`, which will
    fail. found: what is there, in words. mend: what to do about it, empty when there is nothing to do.
    """

    about: str
    state: State
    found: str
    mend: str = ""

    def __post_init__(self) -> None:
        if self.state == "broken" and not self.mend:
            raise ValueError(f"{self.about}: whatever is broken must come with how to mend it")


def ok(about: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(about, "ok", found)


def notice(about: str, found: str, mend: str = "") -> Finding:
    """Works, but somebody should know."""
    return Finding(about, "notice", found, mend)


def broken(about: str, found: str, mend: str) -> Finding:
    """Will fail until it is mended."""
    return Finding(about, "broken", found, mend)
