"""A real Label Studio as a child process: started headless, known to be the one that answers, stopped as a whole."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from backend.errors import LabelStudioUnavailable, PortInUse
from backend.label_studio.cell_config import editor_keymap
from backend.locks import Occupied, exclusive

FIRST_START_S = 300.0  # with migrations, where there is no empty database to copy: minutes on busy processors
STOP_S = 10.0
POLL_S = 0.1
LOG_LINES = 15


@dataclass(frozen=True)
class LabelStudioConfig:
    """How to run a Label Studio of our own.

    executable: the `label-studio` command of its virtual environment. home: our home folder; Label Studio keeps its
    data in `label-studio/` and shows images below `files/`. email, password, token: of the user made at the first
    start (later ones keep what there is); token: 40 hex digits.
    """

    executable: Path
    home: Path
    email: str
    password: str
    token: str
    port: int = 8080
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    @property
    def data(self) -> Path:
        """Label Studio's own folder: database, uploads, log."""
        return self.home / "label-studio"

    @property
    def database(self) -> Path:
        """Everything it knows."""
        return self.data / "label_studio.sqlite3"

    @property
    def empty_database(self) -> Path:
        """Where scripts/environment.sh leaves a migrated database that knows nobody: a first start takes a copy."""
        return self.executable.parent.parent / "empty.sqlite3"

    @property
    def document_root(self) -> Path:
        """Folder that `/data/local-files/?d=` is relative to."""
        return self.home / "files"

    @property
    def log(self) -> Path:
        """Everything it prints."""
        return self.data / "label-studio.log"

    def __repr__(self) -> str:
        return f"LabelStudioConfig({self.url}, home={str(self.home)!r})"


def environment(config: LabelStudioConfig) -> dict[str, str]:
    """The environment Label Studio runs in. Secrets go this way, for arguments can be read by every user."""
    own = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(config.data),
        "LABEL_STUDIO_USERNAME": config.email,
        "LABEL_STUDIO_PASSWORD": config.password,
        "LABEL_STUDIO_USER_TOKEN": config.token,
        # Acts only when the organization is made, at the first start.
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_HOST": config.url,
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(config.document_root),
        # Our ML backend and webhook are on this machine, where the protection would forbid them. This leaves the
        # protection on, without its list of private networks.
        "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS": "false",
        # For every expert here: one key answers a cell, submits, and brings the next.
        "LABEL_STUDIO_EDITOR_KEYMAP": editor_keymap(),
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "false",
        "PYTHONUNBUFFERED": "1",
    }
    # Settings meant for another Label Studio, or another Django, would change this one's database or address.
    foreign = ("LABEL_STUDIO_", "DJANGO_", "POSTGRE_", "CELLLOOP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    for name in ("HOST", "PORT", "PYTHONPATH", "PYTHONHOME", "DEBUG"):
        kept.pop(name, None)
    return kept | own


class LabelStudioServer:
    """A Label Studio process group. Use as a context manager, or call `start` and `stop`."""

    def __init__(self, config: LabelStudioConfig) -> None:
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._home = ExitStack()  # holds the lock of the data folder

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.config.url

    @property
    def pid(self) -> int | None:
        """Leader of the process group, None while it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, timeout_s: float = FIRST_START_S, on_wait: Callable[[float], None] | None = None) -> None:
        """Start and wait until it answers; `on_wait` is told the seconds waited so far, for a progress bar.

        Raises PortInUse when somebody listens already (Label Studio would take the next port without a word), Occupied
        when another one starts or runs on the same data (both would migrate it at once), and LabelStudioUnavailable
        with the end of its log when it dies or does not answer in time.
        """
        config = self.config
        if port_taken(config.host, config.port):
            raise PortInUse(
                f"port {config.port} on {config.host}: expected it free for Label Studio, but somebody listens; "
                f"stop them or choose another port"
            )
        if not config.executable.is_file():
            raise LabelStudioUnavailable(
                f"{config.executable}: expected Label Studio's executable, found none; make its environment: "
                f"python3 -m venv .venv-label-studio && .venv-label-studio/bin/pip install label-studio "
                f"-c scripts/constraints-label-studio.txt"
            )
        config.data.mkdir(parents=True, exist_ok=True)
        self.stop()  # one of ours that ended by itself still holds the lock
        try:
            self._home.enter_context(exclusive(config.data / "running.lock", wait=False))
        except Occupied:
            raise Occupied(
                f"{config.data}: expected no other Label Studio on this data, one runs; stop it first"
            ) from None
        (config.document_root / "images").mkdir(parents=True, exist_ok=True)
        if config.empty_database.is_file() and not config.database.exists():
            copy = Path(shutil.copyfile(config.empty_database, config.database.with_suffix(".new")))
            copy.replace(config.database)  # whole or not at all
        command = [str(config.executable), "start", "--no-browser"]
        command += ["--internal-host", config.host, "--port", str(config.port)]
        with config.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=environment(config),
                cwd=config.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its own process group, which stop() ends as a whole
            )
        try:
            self._wait(self._process, timeout_s, on_wait)
        except BaseException:
            self.stop()
            raise

    def _wait(
        self, process: subprocess.Popen[bytes], timeout_s: float, on_wait: Callable[[float], None] | None
    ) -> None:
        began = time.monotonic()
        with httpx.Client(base_url=self.url, timeout=2.0, trust_env=False) as http:
            while (waited := time.monotonic() - began) < timeout_s:
                if process.poll() is not None:
                    raise LabelStudioUnavailable(
                        f"Label Studio ended with status {process.returncode} while starting; "
                        f"the end of {self.config.log}:\n{self.log_tail()}"
                    )
                if _healthy(http) and self._listens(process):
                    return
                if on_wait is not None:
                    on_wait(waited)
                time.sleep(POLL_S)
        raise LabelStudioUnavailable(
            f"Label Studio does not answer on {self.url} after {timeout_s:.0f} s; "
            f"the end of {self.config.log}:\n{self.log_tail()}"
        )

    def _listens(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it is our process that answers on the port, where the system can tell (Linux)."""
        if not sys.platform.startswith("linux"):
            return True
        return listens(process.pid, self.config.port)

    def log_tail(self) -> str:
        """The last lines of its log."""
        try:
            with self.config.log.open(encoding="utf-8", errors="replace") as log:
                return "".join(deque(log, maxlen=LOG_LINES))
        except OSError:
            return "(no log)"

    def stop(self) -> None:
        """End the whole process group: asked first, killed after 10 s. Nothing happens when it is not running."""
        process, self._process = self._process, None
        with self._home:  # let go of the data when nothing of it runs any more
            if process is not None:
                self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        for number, patience in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                process.poll()  # reaps the leader, which would otherwise count as alive
                if not group_alive(process.pid):
                    break
                time.sleep(POLL_S / 2)
            else:
                continue
            break
        process.wait(timeout=STOP_S)


def _healthy(http: httpx.Client) -> bool:
    try:
        response = http.get("/health")
        return response.status_code == 200 and response.json().get("status") == "UP"
    except (httpx.HTTPError, ValueError):
        return False


def group_alive(group: int) -> bool:
    """Whether any process of this group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def port_taken(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def listens(pid: int, port: int) -> bool:
    """Whether this process holds a listening TCP socket on the port (Linux)."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            parts = row.split()
            if parts[3] == "0A" and int(parts[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{parts[9]}]")
    try:
        held = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return False
    return bool(inodes & held)
