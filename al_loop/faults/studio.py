"""The Label Studio of an installation under test, reached directly: the real one, or the stand-in."""

from __future__ import annotations

import os
import secrets
import signal
from abc import ABC, abstractmethod
from pathlib import Path

import httpx

from al_loop.faults.children import Child, any_port, wait_until
from al_loop.faults.stand_in import stand_in_server
from backend.label_studio.client import LabelStudio
from backend.label_studio.expert import ExpertSession
from backend.label_studio.server import LabelStudioServer
from backend.label_studio.transport import trusted

START_S = 120.0


class Studio(ABC):
    """A Label Studio on a port of its own. token: of the user our processes act as, and the expert."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token
        self.url = f"http://127.0.0.1:{port}"

    @abstractmethod
    def start(self) -> None:
        """Start it unless it runs, and wait until it answers."""

    @abstractmethod
    def kill(self) -> None:
        """kill -9."""

    @abstractmethod
    def jump(self, seconds: float) -> None:
        """Let its clock be that far off, where that can be done."""

    @property
    def client(self) -> LabelStudio:
        """What the harness asks what Label Studio holds, past every fault."""
        return LabelStudio(self.url, self.token)

    @property
    def expert(self) -> ExpertSession:
        """What the expert's editor does."""
        return ExpertSession(self.url, self.token, timeout_s=20.0)

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            return httpx.get(f"{self.url}/health", timeout=2.0, trust_env=False, verify=trusted()).status_code == 200
        except httpx.HTTPError:
            return False


class StandIn(Studio):
    """The stand-in, as a process of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(any_port(), secrets.token_hex(20))
        file = folder / "label-studio.sqlite"
        control = folder / "label-studio.control.json"
        self.child = Child("label-studio", folder, _serve, (str(file), self.port, {self.token: 1}, str(control)))

    def start(self) -> None:
        self.child.start()
        wait_until(self.answers, START_S, "the stand-in for Label Studio answers")

    def kill(self) -> None:
        self.child.kill()

    def jump(self, seconds: float) -> None:
        self.child.arm(clock_s=seconds)


def _serve(file: str, port: int, tokens: dict[str, int], control: str) -> None:
    from al_loop.faults import hooks

    hooks.install(Path(control))
    stand_in_server(Path(file), port, tokens).serve_forever(0.05)


class Real(Studio):
    """A real Label Studio, started from its own virtual environment."""

    def __init__(self, server: LabelStudioServer) -> None:
        super().__init__(server.config.port, server.config.token)
        self.server = server

    def start(self) -> None:
        if self.server.pid is None:
            self.server.start()

    def kill(self) -> None:
        group = self.server.pid
        if group is not None:
            os.killpg(group, signal.SIGKILL)
        self.server.stop()

    def jump(self, seconds: float) -> None:
        """Its clock is the machine's."""
