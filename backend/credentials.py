"""Secrets of one installation: made at first use, kept in a file that only its owner can read."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from backend.errors import CredentialsUnusable


@dataclass(frozen=True, repr=False)
class Credentials:
    """Every generated secret. No repr, so that none of them ends in a log.

    label_studio_email, label_studio_password: the login of the generated user.
    label_studio_token: 40 hex digits, the form Label Studio demands of a legacy token.
    api_token: Bearer token of our own API. basic_user, basic_password: what Label Studio sends to the ML
    backend. webhook_secret: value of the webhook's header.
    """

    label_studio_email: str
    label_studio_password: str
    label_studio_token: str
    api_token: str
    basic_user: str
    basic_password: str
    webhook_secret: str

    @property
    def webhook_headers(self) -> dict[str, str]:
        """What Label Studio must send with every webhook."""
        return {"Authorization": f"Bearer {self.webhook_secret}"}

    @property
    def crop_key(self) -> bytes:
        """Signs the addresses of crops. Derived, so that credentials made before there were crops keep working."""
        return self._derived(b"cellloop crops")

    @property
    def session_key(self) -> bytes:
        """Signs the dashboard's sessions; another token ends all of them."""
        return self._derived(b"cellloop sessions")

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.new(self.api_token.encode(), purpose, hashlib.sha256).digest()

    @classmethod
    def generate(cls) -> Credentials:
        """A fresh set from the operating system's random source."""
        return cls(
            label_studio_email="expert@cellloop.local",
            label_studio_password=secrets.token_urlsafe(12),
            label_studio_token=secrets.token_hex(20),
            api_token=secrets.token_urlsafe(32),
            basic_user="label-studio",
            basic_password=secrets.token_urlsafe(24),
            webhook_secret=secrets.token_urlsafe(32),
        )


def credentials_file(home: Path) -> Path:
    """Where the secrets of this home lie."""
    return home / "credentials.json"


def load_credentials(home: Path) -> Credentials:
    """The secrets of this home, generated when there are none yet; safe when several processes start at once.

    Raises CredentialsUnusable when the file can be read by others, or is damaged.
    """
    path = credentials_file(home)
    if not path.exists():
        _create(path, Credentials.generate())
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise CredentialsUnusable(
            f"{path}: expected a file only its owner can read, got mode {mode:04o}; run: chmod 600 {path}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        credentials = Credentials(**content)
    except (OSError, ValueError, TypeError) as error:
        raise CredentialsUnusable(
            f"{path}: expected a JSON object with {', '.join(f.name for f in fields(Credentials))}; {error}; "
            f"restore it from a backup, or move it away to have new secrets generated"
        ) from error
    for name, value in asdict(credentials).items():
        if not isinstance(value, str) or not value:
            raise CredentialsUnusable(f"{path}: expected a non-empty text for {name}, got {value!r:.20}")
    return credentials


def _create(path: Path, credentials: Credentials) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp gives mode 0600 from the start; link() makes the whole file appear at once, and only one
    # of several starting processes wins: the others read the winner's.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".credentials-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(asdict(credentials), stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        os.unlink(temporary)
