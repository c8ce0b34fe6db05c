"""What an expert's editor does through Label Studio's API: take the next task, submit, skip, change, withdraw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.label_studio.protocol import Annotation, Task
from backend.label_studio.transport import Transport


class ExpertSession:
    """One expert at work, for scripted experts and tests: the requests are those of the editor.

    Raises LabelStudioUnavailable and LabelStudioRefused like `LabelStudio`.
    """

    def __init__(self, url: str, token: str, timeout_s: float = 60.0) -> None:
        self.transport = Transport(url, token, timeout_s)

    def next_task(self, project_id: int) -> Task | None:
        """The task "Label All Tasks" gives this expert, locked for them; None when there is nothing left.

        Lowest score first among predictions of the project's model_version. The same task comes again, whatever its
        score becomes, until they submit or skip it. `predictions` holds those of that version only.
        """
        answer = self.transport.request("GET", f"/api/projects/{project_id}/next", none_on_404=True)
        return None if answer is None else Task.model_validate(answer)

    def submit(
        self,
        task_id: int,
        result: Sequence[Any],
        *,
        parent_prediction: int | None = None,
        lead_time_s: float | None = None,
        was_cancelled: bool = False,
    ) -> Annotation:
        """Submit an annotation. Refused when `parent_prediction` was deleted meanwhile."""
        body = {
            "result": list(result),
            "was_cancelled": was_cancelled,
            "lead_time": lead_time_s,
            "parent_prediction": parent_prediction,
        }
        return Annotation.model_validate(self.transport.post(f"/api/tasks/{task_id}/annotations/", body))

    def skip(self, task_id: int, lead_time_s: float | None = None) -> Annotation:
        """Skip a task: an empty annotation with `was_cancelled`."""
        return self.submit(task_id, [], lead_time_s=lead_time_s, was_cancelled=True)

    def update(self, annotation_id: int, result: Sequence[Any], lead_time_s: float | None = None) -> Annotation:
        """Change a submitted annotation; keeps its id and creation time."""
        body: dict[str, Any] = {"result": list(result)}
        if lead_time_s is not None:
            body["lead_time"] = lead_time_s
        return Annotation.model_validate(self.transport.patch(f"/api/annotations/{annotation_id}/", body))

    def delete(self, annotation_id: int) -> None:
        """Delete an annotation."""
        self.transport.delete(f"/api/annotations/{annotation_id}/")

    def convert_to_draft(self, annotation_id: int) -> int:
        """Turn an annotation back into a draft, which deletes the annotation; id of the draft."""
        return int(self.transport.post(f"/api/annotations/{annotation_id}/convert-to-draft", {})["id"])

    def save_draft(self, task_id: int, result: Sequence[Any]) -> int:
        """Save unsubmitted work, as the editor does every few seconds; id of the draft."""
        body = {"result": list(result), "lead_time": 1.0}
        return int(self.transport.post(f"/api/tasks/{task_id}/drafts", body)["id"])
