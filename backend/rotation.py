"""Other secrets for Label Studio's calls without downtime: old and new ones are good until it knows the new ones.

The server reads the file of secrets again whenever it has changed, so no rotation needs a restart.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

from backend.credentials import Credentials, change_credentials, credentials_file, load_credentials
from backend.errors import CredentialsUnusable

log = logging.getLogger(__name__)


def begin_rotation(home: Path) -> Credentials:
    """A new Basic password and a new webhook secret; those before them stay good. Begun already, nothing changes."""

    def change(now: Credentials) -> dict[str, str]:
        if now.former_basic_password:
            return {}
        return {
            "former_basic_password": now.basic_password,
            "former_webhook_secret": now.webhook_secret,
            "basic_password": secrets.token_urlsafe(24),
            "webhook_secret": secrets.token_urlsafe(32),
        }

    return change_credentials(home, change)


def end_rotation(home: Path) -> Credentials:
    """The secrets before are good no longer."""
    return change_credentials(home, lambda _now: {"former_basic_password": "", "former_webhook_secret": ""})


class CurrentCredentials:
    """The secrets as the file has them now. Thread-safe: what is kept is replaced as a whole."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = credentials_file(home)
        self._kept = (self._state(), load_credentials(home))

    def read(self) -> Credentials:
        """Today's secrets, for the price of asking when the file was written.

        A file that became unusable changes nothing: who is served goes on being served.
        """
        state, known = self._kept
        if (found := self._state()) == state:
            return known
        try:
            known = load_credentials(self._home) if self._path.exists() else known
        except CredentialsUnusable as error:
            log.error("the secrets stay as they were: %s", error)
        self._kept = (found, known)
        return known

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_mode
