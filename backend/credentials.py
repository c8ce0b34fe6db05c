"""Secrets of one installation: made at first use, kept in a file that only its owner can read."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from backend.errors import CredentialsUnusable
from backend.locks import exclusive

LOCK = "credentials.lock"


@dataclass(frozen=True, repr=False)
class Credentials:
    """Every generated secret. No repr, so that none of them ends in a log.

    label_studio_email, label_studio_password: the login of the generated user.
    label_studio_token: 40 hex digits, the form Label Studio demands of a legacy token. basic_user, basic_password:
    what Label Studio sends to the ML backend. webhook_secret: value of the webhook's header. crop_secret,
    session_secret: 64 hex digits. former_token_sha256: of the one API token that older installations kept here in
    plain text; today's tokens are in SQL, by their hashes (`backend/tokens.py`). former_basic_password,
    former_webhook_secret: still accepted, until Label Studio knows the new ones (`backend/rotation.py`).
    """

    label_studio_email: str
    label_studio_password: str
    label_studio_token: str
    basic_user: str
    basic_password: str
    webhook_secret: str
    crop_secret: str
    session_secret: str
    former_token_sha256: str = ""
    former_basic_password: str = ""
    former_webhook_secret: str = ""

    @property
    def webhook_headers(self) -> dict[str, str]:
        """What Label Studio must send with every webhook."""
        return {"Authorization": f"Bearer {self.webhook_secret}"}

    @property
    def crop_key(self) -> bytes:
        """Signs the addresses of crops."""
        return bytes.fromhex(self.crop_secret)

    @property
    def session_key(self) -> bytes:
        """Signs the dashboard's sessions and their forms; another one ends all of them."""
        return bytes.fromhex(self.session_secret)

    @classmethod
    def generate(cls) -> Credentials:
        """A fresh set from the operating system's random source."""
        return cls(
            label_studio_email="expert@cellloop.local",
            label_studio_password=secrets.token_urlsafe(12),
            label_studio_token=secrets.token_hex(20),
            basic_user="label-studio",
            basic_password=secrets.token_urlsafe(24),
            webhook_secret=secrets.token_urlsafe(32),
            crop_secret=secrets.token_hex(32),
            session_secret=secrets.token_hex(32),
        )


def credentials_file(home: Path) -> Path:
    """Where the secrets of this home lie."""
    return home / "credentials.json"


def load_credentials(home: Path) -> Credentials:
    """The secrets of this home, generated when there are none yet; safe when several processes start at once.

    A file of an older version is brought up to date: the API token in it is replaced by its hash.

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
    content = _read(path)
    if "api_token" in content:
        with exclusive(home / LOCK):
            content = _read(path)  # another process may have been faster
            if "api_token" in content:
                content = _without_token(content)
                os.replace(_written(path.parent, content), path)
    try:
        credentials = Credentials(**content)
    except TypeError as error:
        raise _damaged(path, error) from error
    for each in fields(Credentials):
        value = getattr(credentials, each.name)
        if not isinstance(value, str) or not (value or each.default == ""):
            raise CredentialsUnusable(f"{path}: expected a non-empty text for {each.name}, got {value!r:.20}")
        if each.name in ("crop_secret", "session_secret") and not re.fullmatch(r"[0-9a-f]{64}", value):
            raise CredentialsUnusable(f"{path}: expected 64 hex digits for {each.name}, got something else")
    return credentials


def change_credentials(home: Path, change: Callable[[Credentials], dict[str, str]]) -> Credentials:
    """Put what `change` gives for today's secrets in their place; one process at a time."""
    load_credentials(home)  # which brings an older file up to date, under the same lock
    path = credentials_file(home)
    with exclusive(home / LOCK):
        content = _read(path)
        os.replace(_written(path.parent, content | change(load_credentials(home))), path)
    return load_credentials(home)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise _damaged(path, TypeError(f"got {type(content).__name__}"))
    return content


def _damaged(path: Path, error: Exception) -> CredentialsUnusable:
    return CredentialsUnusable(
        f"{path}: expected a JSON object with {', '.join(f.name for f in fields(Credentials))}; {error}; "
        f"restore it from a backup, or move it away to have new secrets generated"
    )


def _without_token(content: dict[str, Any]) -> dict[str, Any]:
    """The same secrets without the plain API token. Addresses of crops were signed with a key made of it: it stays."""
    token = str(content["api_token"]).encode()
    return {name: value for name, value in content.items() if name != "api_token"} | {
        "crop_secret": hmac.new(token, b"cellloop crops", hashlib.sha256).hexdigest(),
        "session_secret": secrets.token_hex(32),
        "former_token_sha256": hashlib.sha256(token).hexdigest(),
    }


def _create(path: Path, credentials: Credentials) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # link() makes the whole file appear at once, and only one of several starting processes wins: the others read
    # the winner's.
    temporary = _written(path.parent, asdict(credentials))
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink()


def _written(folder: Path, content: dict[str, Any]) -> Path:
    """A file with these secrets that is yet to get its name; nobody else can read it at any moment."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=".credentials-")  # mode 0600 from the start
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)
