"""What we ask of Label Studio: projects, tasks and predictions.

Built on httpx and not on label-studio-sdk: the SDK has no call for the next task, for deleting a version's predictions
or for turning an annotation into a draft, the text of its errors is the answer's raw headers and body, it reports
an import of no predictions as success, and importing its client takes 1.1 s of processor time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from backend.errors import LabelStudioRefused
from backend.label_studio.pages import task_filter, task_pages
from backend.label_studio.placing import Placing
from backend.label_studio.protocol import Prediction, Project, Task, User
from backend.label_studio.transport import Transport

PAGE = 100  # tasks with their regions: 28 kB each at 100 cells
IDS_PAGE = 2000
PREDICTIONS_PER_IMPORT = 200  # 28 kB each; an import is one request and one transaction of Label Studio's
RESCORERS = 4  # 200 scores: 16.6 s one after another, 7.7 s by four


class LabelStudio(Placing):
    """One Label Studio, as the user of this token. Usable from several threads.

    Every method raises LabelStudioUnavailable when nobody answers or the server fails, and LabelStudioRefused when the
    token or the request is not accepted; the messages hold no secret.
    """

    def __init__(self, url: str, token: str, timeout_s: float = 60.0, rotated: Callable[[], str] | None = None) -> None:
        self.transport = Transport(url, token, timeout_s, rotated)
        self.url = self.transport.url

    def __repr__(self) -> str:
        return f"LabelStudio({self.url!r})"

    # --- who and what ---------------------------------------------------------------------------------------

    @property
    def answered_at(self) -> datetime | None:
        """What its clock said in its last answer, to the second; None when it does not tell."""
        return self.transport.answered_at

    def version(self) -> str:
        """Release of the server, e.g. "1.23.2"."""
        return str(self.transport.get("/api/version").get("release", "unknown"))

    def whoami(self) -> User:
        """The user this token belongs to: the cheapest way to find out that it is accepted."""
        return User.model_validate(self.transport.get("/api/current-user/whoami"))

    def new_token(self) -> str:
        """Have Label Studio make another legacy token for our user; the one we have ends at once."""
        return str(self.transport.post("/api/current-user/reset-token/", {})["token"])

    def users(self) -> dict[int, str]:
        """E-mail addresses of the organization's users by id; annotations name their author by id only."""
        return {user["id"]: user["email"] for user in self.transport.get("/api/users/")}

    # --- projects -------------------------------------------------------------------------------------------

    def projects(self, title: str) -> list[Project]:
        """Projects of exactly this title, oldest first (Label Studio's own filter matches parts of it)."""
        answer = self.transport.get("/api/projects/", title=title, page_size=1000)
        found = [Project.model_validate(item) for item in answer["results"] if item["title"] == title]
        return sorted(found, key=lambda project: project.id)

    def project(self, project_id: int) -> Project:
        """One project."""
        return Project.model_validate(self.transport.get(f"/api/projects/{project_id}/"))

    def has_project(self, project_id: int) -> bool:
        """Whether the project is there: people delete projects."""
        return self.transport.request("GET", f"/api/projects/{project_id}/", none_on_404=True) is not None

    def create_project(self, title: str, label_config: str, **fields: Any) -> Project:
        """A project that serves the lowest prediction score first and shows predictions as pre-annotations.

        title: 3 to 50 characters. fields: of a project, in place of these.
        """
        body = {
            "title": title,
            "label_config": label_config,
            # Lowest score of the predictions whose version is the project's; works although the page hides it.
            "sampling": "Uncertainty sampling",
            # Puts the version's prediction on the screen when a task opens.
            "show_collab_predictions": True,
            # Would ask the backend for whole pages of tasks whenever a list is opened; predictions are pushed.
            "evaluate_predictions_automatically": False,
            # A task that one expert skips is offered to the others, never again to them.
            "skip_queue": "REQUEUE_FOR_OTHERS",
            "maximum_annotations": 1,
            **fields,
        }
        return Project.model_validate(self.transport.post("/api/projects/", body))

    def update_project(self, project_id: int, **fields: Any) -> Project:
        """Change fields of a project."""
        return Project.model_validate(self.transport.patch(f"/api/projects/{project_id}/", fields))

    def delete_project(self, project_id: int) -> None:
        """Delete a project with all its tasks and annotations."""
        self.transport.request("DELETE", f"/api/projects/{project_id}/")

    def set_model_version(self, project_id: int, name: str) -> None:
        """Make this the version whose predictions are shown, and by whose scores tasks are served.

        Push its predictions first: Label Studio refuses (400) a version that no prediction has, and tasks without a
        prediction of it wait until all the others are done, then come in random order.
        """
        self.update_project(project_id, model_version=name)

    # --- tasks ----------------------------------------------------------------------------------------------

    def import_tasks(self, project_id: int, data: Sequence[Mapping[str, Any]]) -> list[int]:
        """Make one task of each item (e.g. {"image": "/data/local-files/?d=images/ab/x.png"}); ids in the same order.

        Not idempotent. 1,500 tasks take 0.2 s.
        """
        if not data:
            return []
        body = [{"data": dict(item)} for item in data]
        answer = self.transport.request(
            "POST", f"/api/projects/{project_id}/import", params={"return_task_ids": "true"}, body=body
        )
        ids = list(answer.get("task_ids", []))
        if len(ids) != len(data):
            raise LabelStudioRefused(f"import of tasks: expected {len(data)} tasks, Label Studio made {len(ids)}")
        return ids

    def task_ids(self, project_id: int) -> set[int]:
        """Ids of all tasks: to find out which were deleted."""
        return set(self.task_times(project_id))

    def task_times(self, project_id: int) -> dict[int, datetime]:
        """When each task changed last (`updated_at`, see `tasks_since`), by its id."""
        pages = self._pages(project_id, [], {"include": "id,updated_at"}, IDS_PAGE)
        return {item["id"]: datetime.fromisoformat(item["updated_at"]) for item in pages}

    def tasks_since(self, project_id: int, since: datetime | None = None) -> Iterator[Task]:
        """Tasks that changed at or after `since` (all when None), by id, with their annotations but no predictions.

        `updated_at` (microseconds, UTC, Label Studio's clock) moves when an annotation is submitted, skipped, updated,
        deleted (also in bulk), turned into a draft or made from a prediction, when the task's data change, and when a
        single prediction is patched or deleted. It does not move for a draft, and not for imports or bulk deletions
        of predictions, so pushing causes no needless sync.
        """
        filters = []
        if since is not None:
            # Anything but this exact format is answered with a server error.
            moment = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            filters.append(task_filter("updated_at", "greater_or_equal", "Datetime", moment))
        # `include` also prunes the objects inside: it leaves the predictions out, which are most of the bytes.
        names = ["id", "data", "updated_at", "annotations", *_ANNOTATION_FIELDS]
        for item in self._pages(project_id, filters, {"fields": "all", "include": ",".join(names)}, PAGE):
            yield Task.model_validate(item)

    def _pages(
        self, project_id: int, filters: list[dict[str, Any]], params: dict[str, Any], size: int
    ) -> Iterator[dict[str, Any]]:
        return task_pages(self.transport, project_id, filters, params, size)

    def task(self, task_id: int) -> Task | None:
        """One task with its annotations and all its predictions; None when it was deleted.

        A task without any prediction makes Label Studio ask the connected backend for one.
        """
        answer = self.transport.request("GET", f"/api/tasks/{task_id}/", none_on_404=True)
        return None if answer is None else Task.model_validate(answer)

    # --- predictions ----------------------------------------------------------------------------------------

    def import_predictions(self, project_id: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        """Add predictions {task, model_version, score, result}; how many there are now more.

        Not idempotent: a repeated item is stored twice, so ask `prediction_ids` what is there before repeating a push.
        Label Studio leaves invalid items out (a control or label that the configuration does not have, a score outside
        [0, 1]) and still answers 201: refused here, though the valid ones of the block are stored.
        """
        for start in range(0, len(predictions), PREDICTIONS_PER_IMPORT):
            block = [dict(item) for item in predictions[start : start + PREDICTIONS_PER_IMPORT]]
            answer = self.transport.post(f"/api/projects/{project_id}/import/predictions", block)
            if answer.get("created") != len(block):
                raise LabelStudioRefused(
                    f"import of predictions: expected {start + len(block)} to be stored so far, Label Studio stored "
                    f"{start + answer.get('created', 0)}; do their controls and labels exist in the project's "
                    f"labelling configuration?"
                )
        return len(predictions)

    def prediction_ids(self, project_id: int, version: str) -> dict[int, int]:
        """Prediction id by task id, of this version; the newest where there are several. Imports return no ids."""
        params = {"fields": "all", "include": "id,predictions,model_version"}
        found: dict[int, int] = {}
        for item in self._pages(project_id, [], params, PAGE):
            ids = [p["id"] for p in item["predictions"] if p.get("model_version") == version]
            if ids:
                found[item["id"]] = max(ids)
        return found

    def prediction(self, prediction_id: int) -> Prediction | None:
        """One prediction; None when it was deleted."""
        answer = self.transport.request("GET", f"/api/predictions/{prediction_id}/", none_on_404=True)
        return None if answer is None else Prediction.model_validate(answer)

    def set_scores(self, scores: Mapping[int, float]) -> list[int]:
        """Give predictions new scores, by prediction id; the ids that are gone. 38 ms each.

        Re-ranking patches and never deletes: Submit in an editor whose prediction was deleted fails, and an
        annotation loses its `parent_prediction`. It moves `updated_at` of each task.
        """

        def rescore(item: tuple[int, float]) -> int | None:
            path, body = f"/api/predictions/{item[0]}/", {"score": item[1]}
            return item[0] if self.transport.request("PATCH", path, body=body, none_on_404=True) is None else None

        with ThreadPoolExecutor(RESCORERS) as pool:
            return [gone for gone in pool.map(rescore, scores.items()) if gone is not None]

    def model_versions(self, project_id: int) -> dict[str, int]:
        """How many predictions there are of each version."""
        return dict(self.transport.get(f"/api/projects/{project_id}/model-versions/"))

    def delete_version(self, project_id: int, version: str) -> int:
        """Delete all predictions of a version; how many. Empties the project's model_version when it is this one.

        Whoever has one of them open can no longer submit (400), and their annotations lose `parent_prediction`: only
        for versions that nobody looks at any more.
        """
        path = f"/api/projects/{project_id}/model-versions/"
        return int(self.transport.request("DELETE", path, body={"model_version": version})["deleted_predictions"])


_ANNOTATION_FIELDS = (
    "completed_by",
    "result",
    "was_cancelled",
    "ground_truth",
    "lead_time",
    "parent_prediction",
    "created_at",
)
