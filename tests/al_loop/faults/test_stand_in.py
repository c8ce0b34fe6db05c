"""The stand-in keeps the facts that the real Label Studio was asked for: the same questions, by the same client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from al_loop.faults.stand_in import stand_in_server
from backend.errors import LabelStudioRefused
from backend.label_studio.client import LabelStudio
from backend.label_studio.expert import ExpertSession
from tests.backend.label_studio import test_client
from tests.backend.label_studio.projects import small_project
from tests.trouble import answering

TOKENS = {"a" * 40: 1, "b" * 40: 2}


@dataclass(frozen=True)
class RunningStandIn:
    """As the fixture of the real one."""

    url: str

    def client(self) -> LabelStudio:
        return LabelStudio(self.url, "a" * 40)

    def expert(self) -> ExpertSession:
        return ExpertSession(self.url, "a" * 40)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[RunningStandIn]:
    server = stand_in_server(tmp_path / "stand-in.sqlite", 0, TOKENS)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield RunningStandIn(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


FACTS = (
    test_client.test_next_task_is_the_lowest_score_of_the_projects_version,
    test_client.test_the_version_is_refused_before_its_predictions_are_there,
    test_client.test_a_patched_score_changes_the_order_but_not_an_open_task,
)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.__name__.removeprefix("test_"))
def test_what_is_true_of_the_real_one(fact: Callable[..., None], stand_in: RunningStandIn) -> None:
    fact(stand_in)  # asserts
    assert stand_in.client().version() == "stand-in", "and not the real one was asked"


def test_two_experts_never_have_the_same_task(stand_in: RunningStandIn) -> None:
    project = small_project(stand_in, 2)  # type: ignore[arg-type]
    project.serve("pair-1", {task: 0.1 * n for n, task in enumerate(project.tasks, start=1)})
    second = ExpertSession(stand_in.url, "b" * 40)
    opened = [expert.next_task(project.id) for expert in (project.expert, second)]
    assert [task.id for task in opened if task is not None] == project.tasks
    project.expert.submit(project.tasks[0], [])
    assert project.expert.next_task(project.id) is None
    with pytest.raises(LabelStudioRefused, match="401"):
        LabelStudio(stand_in.url, "c" * 40).whoami()


def test_webhooks_are_called_once_with_their_headers(stand_in: RunningStandIn) -> None:
    called: list[str] = []
    project = small_project(stand_in, 1)  # type: ignore[arg-type]
    with answering(lambda method, path: (called.append(f"{method} {path}"), (500, {}))[1]) as url:
        hook = {"project": project.id, "url": f"{url}/webhook", "headers": {}, "actions": ["ANNOTATION_CREATED"]}
        project.studio.transport.post("/api/webhooks/", hook)
        made = project.expert.submit(project.tasks[0], [])
        project.expert.delete(made.id)  # nobody asked to be told
    assert called == ["POST /webhook"]
    assert httpx.get(f"{stand_in.url}/health").json() == {"status": "UP"}
    assert project.state(project.tasks[0]).annotations == []
