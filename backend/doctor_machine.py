"""The doctor on the machine: Python, torch, the home folder, its secrets, and the ports."""

from __future__ import annotations

import base64
import http.client
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path

from backend.credentials import Credentials, credentials_file, load_credentials
from backend.errors import CredentialsUnusable, FileStoreUnavailable
from backend.findings import Finding, broken, notice, ok
from backend.settings import Settings
from backend.store import FileStore

MIN_FREE_BYTES = 500 * 2**20  # a checkpoint, a weight file and some images
GOOD_FREE_BYTES = 5 * 2**30


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """The interpreter's version."""
    shown = ".".join(map(str, version))
    if (3, 11) <= version[:2] < (3, 13):
        return ok("python", shown)
    return broken(
        "python", f"{shown}; expected 3.11 or 3.12", "make .venv again with another Python: bash scripts/test.sh"
    )


def check_torch(device: str = "auto") -> Finding:
    """torch and torchvision with its compiled operators, and the device that would be used."""
    mend = "install the pinned versions: .venv/bin/pip install -c scripts/constraints.txt torch torchvision"
    try:
        import torch
        import torchvision
        from torchvision.ops import nms

        # A torchvision whose operators do not fit torch imports well enough and fails at the first image.
        kept = nms(torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]), torch.tensor([0.9, 0.8]), 0.5)
    except (ImportError, OSError, RuntimeError, NotImplementedError) as error:
        return broken("torch", f"does not work together with torchvision: {_first_line(error)}", mend)
    if len(kept) != 1:
        return broken("torch", "torchvision's operators give wrong answers", mend)
    gpu = "CUDA" if torch.cuda.is_available() else "MPS" if torch.backends.mps.is_available() else ""
    found = f"torch {torch.__version__}, torchvision {torchvision.__version__}, {gpu or 'no GPU: training takes long'}"
    if device not in ("auto", "cpu") and device.split(":")[0] != gpu.lower():
        return broken(
            "torch", f"{found}; CELLLOOP_DEVICE={device}", "set CELLLOOP_DEVICE=auto, or mend the GPU's driver"
        )
    return ok("torch", found)


def check_home(home: Path) -> Finding:
    """Whether the home folder can be written, and how much room is left."""
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return broken(
            "home", f"{existing}: cannot be written: {error.strerror}", "set CELLLOOP_HOME to a folder of yours"
        )
    free = shutil.disk_usage(existing).free
    found = f"{home}, {free / 2**30:.1f} GiB free"
    if free < MIN_FREE_BYTES:
        return broken("home", found, "free some space, or set CELLLOOP_HOME to a folder on another disk")
    return notice("home", found, "free some space soon") if free < GOOD_FREE_BYTES else ok("home", found)


def check_files(store: FileStore) -> Finding:
    """Where the files lie, and whether a store that several machines share can be read and written."""
    if store.far is None:
        return ok("files", f"{store.root}, on this machine only")
    try:
        store.far.check()
    except FileStoreUnavailable as error:
        return broken("files", str(error).split("; ")[0], "mend CELLLOOP_FILES_URL, its credentials or the network")
    return ok("files", f"{store.far.name} can be read and written; copies in {store.root}")


def check_credentials(home: Path) -> Finding:
    """The file of secrets: its mode and its content. It is not made here."""
    file = credentials_file(home)
    if not file.exists():
        return ok("credentials", "none yet; made at the first start")
    try:
        found = load_credentials(home)
    except CredentialsUnusable as error:
        return broken(
            "credentials", str(error).split("; ")[0], f"chmod 600 {file}, or move it away to have new ones made"
        )
    if found.former_basic_password:
        return notice(
            "credentials",
            "a rotation was begun; the secrets before it are still good",
            "run: cellloop label-studio rotate",
        )
    return ok("credentials", f"{file}, mode {stat.S_IMODE(file.stat().st_mode):04o}")


def check_port(settings: Settings, credentials: Credentials | None) -> Finding:
    """Our port: free, or held by the backend of this very home, which knows the secrets in it."""
    address = f"{settings.host}:{settings.port}"
    if not _listens(settings.host, settings.port):
        return ok("port", f"{address} is free; the backend does not run")
    if credentials is not None and _knows(credentials, settings.host, settings.port):
        return ok("port", f"our backend answers at {address}")
    return broken("port", f"{address} is held by another program", "stop it, or set CELLLOOP_PORT to a free port")


def check_exposure(settings: Settings) -> Finding:
    """Whether anybody beyond this machine can reach the backend."""
    if settings.host in ("127.0.0.1", "::1", "localhost"):
        return ok("exposure", "the backend listens on loopback only")
    return notice(
        "exposure",
        f"the backend listens on {settings.host}: others on the network can reach it",
        "put a proxy with TLS before it, or unset CELLLOOP_HOST",
    )


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((_reachable(host), port), timeout=1).close()
    except OSError:
        return False
    return True


def _knows(credentials: Credentials, host: str, port: int) -> bool:
    """Whether a backend answers there that lets these secrets in."""
    secret = base64.b64encode(f"{credentials.basic_user}:{credentials.basic_password}".encode()).decode()
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=2)
    try:
        connection.request("GET", "/health", headers={"Authorization": f"Basic {secret}"})
        response = connection.getresponse()
        return response.status == 200 and b'"UP"' in response.read(1000)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
