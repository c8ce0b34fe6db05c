"""What the stand-in answers to each request of our client and of an expert's editor, as the real Label Studio does.

Facts it keeps: which actions move a task's `updated_at`, imports are not idempotent, an annotation loses its
`parent_prediction` with the prediction, the order of the next task and its locks, imported cancelled annotations close
a task until one of them is saved again, and which action calls which webhook.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from al_loop.faults.stand_in_store import Document, StandInStore, moment

OK, CREATED, EMPTY, REFUSED, ABSENT = 200, 201, 204, 400, 404
Reply = tuple[int, Any]


@dataclass
class Call:
    """One request: who asks, with which parameters and body. events: webhooks to call once it is committed."""

    store: StandInStore
    user: int
    params: Mapping[str, str]
    body: Any
    events: list[tuple[int, Document]] = field(default_factory=list)

    def tell(self, action: str, project: int, **payload: Any) -> None:
        """Have the project's webhooks called."""
        self.events.append((project, {"action": action, "project": {"id": project}, **payload}))


def _absent(what: str) -> Reply:
    return ABSENT, {"detail": f"No {what} matches the given query."}


# --- who, and documents that are only kept -----------------------------------------------------------------


def version(call: Call) -> Reply:
    return OK, {"release": "stand-in"}


def whoami(call: Call) -> Reply:
    return OK, {"id": call.user, "email": f"user{call.user}@cellloop.test"}


def users(call: Call) -> Reply:
    return OK, [{"id": number, "email": f"user{number}@cellloop.test"} for number in (1, 2, 3)]


def listed(kind: str) -> Callable[[Call], Reply]:
    """Answer with a project's documents of this kind."""
    return lambda call: (OK, call.store.below(kind, int(call.params["project"])))


def added(kind: str) -> Callable[[Call], Reply]:
    """Keep a document of a project."""
    return lambda call: (CREATED, call.store.add(kind, int(call.body["project"]), call.body))


def changed(kind: str) -> Callable[[Call, int], Reply]:
    """Change a document."""

    def answer(call: Call, number: int) -> Reply:
        held = call.store.change(kind, number, **call.body)
        return (OK, held) if held is not None else _absent(kind)

    return answer


def removed(kind: str) -> Callable[[Call, int], Reply]:
    """Forget a document."""
    return lambda call, number: (EMPTY, None) if call.store.remove(kind, number) else _absent(kind)


# --- projects ----------------------------------------------------------------------------------------------


def projects(call: Call) -> Reply:
    found = [p for p in call.store.below("project") if call.params.get("title", "") in p["title"]]
    return OK, {"count": len(found), "results": found}


def add_project(call: Call) -> Reply:
    return CREATED, call.store.add("project", 0, {"model_version": None, **call.body})


def project(call: Call, number: int) -> Reply:
    held = call.store.get("project", number)
    return (OK, held) if held is not None else _absent("Project")


def change_project(call: Call, number: int) -> Reply:
    wanted = call.body.get("model_version")
    if wanted and wanted not in _versions(call, number):
        return REFUSED, {"validation_errors": {"model_version": [f"Model version {wanted} is not there"]}}
    return changed("project")(call, number)


def _predictions(call: Call, project_id: int) -> list[Document]:
    tasks = {task["id"] for task in call.store.below("task", project_id)}
    return [held for held in call.store.below("prediction") if held["task"] in tasks]


def _versions(call: Call, project_id: int) -> dict[str, int]:
    names = [held["model_version"] for held in _predictions(call, project_id)]
    return {name: names.count(name) for name in names}


def versions(call: Call, number: int) -> Reply:
    return OK, _versions(call, number)


# --- tasks -------------------------------------------------------------------------------------------------


def import_tasks(call: Call, number: int) -> Reply:
    ids, predictions = [], 0
    for item in call.body:
        noted = item.get("annotations", [])
        body = {"data": item["data"], "updated_at": moment(), "project": number, "closed": bool(noted)}
        task = call.store.add("task", number, body)
        ids.append(task["id"])
        for held in item.get("predictions", []):
            call.store.add("prediction", task["id"], {**held, "task": task["id"]})
            predictions += 1
        for held in noted:
            _annotate(call, task["id"], held, int(held["completed_by"]))
    return CREATED, {"task_count": len(ids), "prediction_count": predictions, "task_ids": ids}


def import_predictions(call: Call, number: int) -> Reply:
    here = {task["id"] for task in call.store.below("task", number)}
    if unknown := [item["task"] for item in call.body if item["task"] not in here]:
        return REFUSED, {"detail": f"task ID {unknown[0]} not found in project {number}"}
    for item in call.body:
        call.store.add("prediction", item["task"], item)
    return CREATED, {"created": len(call.body)}


def tasks(call: Call) -> Reply:
    wanted = json.loads(call.params["query"])
    found = call.store.below("task", int(call.params["project"]))
    for item in wanted["filters"]["items"]:
        column = item["filter"].rpartition(":")[2]
        if item["operator"] == "greater":
            found = [task for task in found if task[column] > item["value"]]
        else:
            found = [task for task in found if task[column] >= item["value"]]
    shown = set(call.params.get("include", "").split(","))
    page = found[: int(call.params["page_size"])]
    return OK, {"total": len(found), "tasks": [_full(call, task, shown) for task in page]}


def _full(call: Call, task: Document, shown: set[str]) -> Document:
    parts = {"annotations": "annotation", "predictions": "prediction"}
    lists = {name: call.store.below(kind, task["id"]) for name, kind in parts.items() if name in shown}
    return {**task, **lists}


def task(call: Call, number: int) -> Reply:
    held = call.store.get("task", number)
    return _absent("Task") if held is None else (OK, _full(call, held, {"annotations", "predictions"}))


def change_task(call: Call, number: int) -> Reply:
    held = call.store.change("task", number, **call.body, updated_at=moment())
    return _absent("Task") if held is None else (OK, held)


def delete_tasks(call: Call) -> Reply:
    for number in call.body["selectedItems"]["included"]:
        for kind in ("annotation", "prediction"):
            for held in call.store.below(kind, number):
                call.store.remove(kind, held["id"])
        call.store.remove("task", number)
    return OK, {"processed_items": len(call.body["selectedItems"]["included"])}


def next_task(call: Call, number: int) -> Reply:
    """The locked one, else the lowest score of the project's version among those that nobody else has open."""
    served = (call.store.get("project", number) or {}).get("model_version")
    waiting = {task["id"]: task for task in call.store.below("task", number) if _open(call, task)}
    locks = {lock["user"]: lock for lock in call.store.below("lock", number)}
    mine = locks.pop(call.user, None)
    if mine is None or mine["task"] not in waiting:
        scores: dict[int, float] = {}
        for held in _predictions(call, number):
            if held["model_version"] == served and held["task"] in waiting:
                scores[held["task"]] = min(scores.get(held["task"], 1.0), held["score"] or 0.0)
        taken = {lock["task"] for lock in locks.values()}
        free = sorted((t for t in waiting if t not in taken), key=lambda t: (scores.get(t, 2.0), t))
        if not free:
            return _absent("Task")
        if mine is not None:
            call.store.remove("lock", mine["id"])
        mine = call.store.add("lock", number, {"user": call.user, "task": free[0]})
    shown = [held for held in call.store.below("prediction", mine["task"]) if held["model_version"] == served]
    return OK, {**_full(call, waiting[mine["task"]], {"annotations"}), "predictions": shown}


def _open(call: Call, task: Document) -> bool:
    there = call.store.below("annotation", task["id"])
    mine = any(held["completed_by"] == call.user for held in there)
    return not task["closed"] and not mine and all(held["was_cancelled"] for held in there)


# --- annotations and predictions ---------------------------------------------------------------------------


def _annotate(call: Call, task_id: int, body: Document, user: int) -> Document:
    at = moment()
    kept = {"ground_truth": False, "lead_time": None, "parent_prediction": None, **body}
    stamps = {"task": task_id, "completed_by": user, "created_at": at, "updated_at": at}
    return call.store.add("annotation", task_id, {**kept, **stamps})


def submit(call: Call, number: int) -> Reply:
    there = call.store.get("task", number)
    if there is None:
        return _absent("Task")
    parent = call.body.get("parent_prediction")
    if parent and call.store.get("prediction", parent) is None:
        return REFUSED, {"validation_errors": {"parent_prediction": [f'Invalid pk "{parent}"']}}
    held = _annotate(call, number, call.body, int(call.body.get("completed_by") or call.user))
    call.store.change("task", number, updated_at=moment())
    for lock in call.store.below("lock", there["project"]):
        if (lock["user"], lock["task"]) == (call.user, number):
            call.store.remove("lock", lock["id"])
    call.tell("ANNOTATION_CREATED", there["project"], task={"id": number}, annotation=held)
    return CREATED, held


def change_annotation(call: Call, number: int) -> Reply:
    held = call.store.change("annotation", number, **call.body, updated_at=moment())
    if held is None:
        return _absent("Annotation")
    there = call.store.change("task", held["task"], updated_at=moment(), closed=False) or {}
    call.tell("ANNOTATION_UPDATED", there["project"], task={"id": held["task"]}, annotation=held)
    return OK, held


def delete_annotation(call: Call, number: int) -> Reply:
    held = call.store.remove("annotation", number)
    if held is None:
        return _absent("Annotation")
    there = call.store.change("task", held["task"], updated_at=moment()) or {}
    call.tell("ANNOTATIONS_DELETED", there["project"], annotations=[{"id": number}])
    return EMPTY, None


def draft(call: Call, number: int) -> Reply:
    held = call.store.remove("annotation", number)
    if held is None:
        return _absent("Annotation")
    call.store.change("task", held["task"], updated_at=moment())
    return CREATED, call.store.add("draft", held["task"], {"result": held["result"]})


def prediction(call: Call, number: int) -> Reply:
    held = call.store.get("prediction", number)
    return _absent("Prediction") if held is None else (OK, held)


def change_prediction(call: Call, number: int) -> Reply:
    held = call.store.change("prediction", number, **call.body)
    if held is None:
        return _absent("Prediction")
    call.store.change("task", held["task"], updated_at=moment())
    return OK, held
