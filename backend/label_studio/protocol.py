"""What crosses the border to Label Studio as JSON: ML-backend calls, webhooks, tasks and annotations.

Fields we do not use are ignored, so that a newer Label Studio that sends more keeps working.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

# Label Studio's uncertainty sampling serves the lowest prediction score first.
UNRANKED_SCORE = 1.0

ANNOTATION_ACTIONS: tuple[str, ...] = (
    "ANNOTATION_CREATED",  # submit, or skip (was_cancelled)
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_CREATED",  # predictions turned into annotations: `annotation` and `task` are lists
    "ANNOTATIONS_DELETED",
)
START_TRAINING = "START_TRAINING"
LARGEST_ID = 2**31 - 1  # as both Label Studio's database and ours have it


def priority_to_score(score: float) -> float:
    """Label Studio's prediction score of an image of this priority (>= 0, highest first): 1 / (1 + priority).

    In (0, 1], so that it reads as a confidence, and strictly falling, so that "lowest score first" is our order.
    """
    if not score >= 0:
        raise ValueError(f"priority: expected a number >= 0, got {score!r}")
    return 1.0 / (1.0 + score)


class Message(BaseModel):
    """Base of everything Label Studio sends."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


# --- calls to an ML backend --------------------------------------------------------------------------------


class SetupRequest(Message):
    """POST /setup. project: "<id>.<unix time of creation>". label_config: sent as `schema`. No field is relied upon.

    The body also holds the access token of the project's creator: not read, not kept.
    """

    project: str = ""
    label_config: str = Field("", alias="schema")
    hostname: str = ""

    @property
    def project_id(self) -> int | None:
        """The project's id, None when the field does not hold one."""
        return project_id(self.project)


class PredictTask(Message):
    """A task to predict. data: as imported, e.g. {"image": "/data/local-files/?d=images/ab/x.png"}."""

    id: int | None = Field(None, le=LARGEST_ID)
    data: dict[str, Any]


class PredictParams(Message):
    """context: the regions on the screen when the expert asked for help; None in batch calls."""

    context: dict[str, Any] | None = None


class PredictRequest(Message):
    """POST /predict: one task when it is opened, all selected ones (1,500 in one body) by "Retrieve predictions"."""

    tasks: list[PredictTask]
    project: str = ""
    label_config: str = ""
    params: PredictParams = PredictParams()

    @property
    def project_id(self) -> int | None:
        """The project's id, None when the field does not hold one."""
        return project_id(self.project)


def project_id(text: str) -> int | None:
    """The id in Label Studio's "<id>.<unix time>"."""
    head = re.match(r"[0-9]{1,10}(?=\.|$)", text)
    return int(head[0]) if head is not None and int(head[0]) <= LARGEST_ID else None


class Event(Message):
    """POST /webhook: what happened, and to what (see `wake_up`)."""

    action: str = Field(pattern=r"^[A-Z][A-Z_]{0,63}$")
    project: Any = None
    task: Any = None
    annotation: Any = None
    annotations: Any = None


# --- tasks and annotations ---------------------------------------------------------------------------------


class Annotation(Message):
    """An annotation as polling and webhooks give it. completed_by: a user's id. lead_time: seconds at work.

    Deleting a prediction sets `parent_prediction` of its annotations to None, so it must be read before.
    """

    id: int
    task: int | None = None
    completed_by: int | None = None
    result: list[Any] = []
    was_cancelled: bool = False
    ground_truth: bool = False
    lead_time: float | None = None
    parent_prediction: int | None = None
    created_at: datetime
    updated_at: datetime

    @field_validator("completed_by", mode="before")
    @classmethod
    def _user_id(cls, value: Any) -> Any:
        return value.get("id") if isinstance(value, dict) else value  # a single task's annotations hold the user


class Prediction(Message):
    """A prediction as Label Studio holds it."""

    id: int
    task: int | None = None
    model_version: str | None = None
    score: float | None = None
    result: list[Any] = []


class Task(Message):
    """A task with its annotations, skipped ones included. `predictions` only where they were asked for."""

    id: int
    data: dict[str, Any] = {}
    updated_at: datetime | None = None
    annotations: list[Annotation] = []
    predictions: list[Prediction] = []


class User(Message):
    """A user of Label Studio."""

    id: int
    email: str


class Project(Message):
    """A project. model_version: whose predictions are shown and ordered by."""

    id: int
    title: str
    label_config: str = ""
    model_version: str | None = None
    sampling: str | None = None
    show_collab_predictions: bool | None = None


def wake_up(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What is worth keeping of a webhook's body: {"project": id, "tasks": ids, "annotations": ids}.

    The whole body repeats the regions, which polling reads for certain, and the project's invitation token.
    `annotation` is one object, or a list of objects (ANNOTATIONS_CREATED), or of ids (ANNOTATIONS_DELETED).
    """
    return {
        "project": next(iter(_ids(payload.get("project"))), None),
        "tasks": _ids(payload.get("task")),
        "annotations": _ids(payload.get("annotation")) + _ids(payload.get("annotations")),
    }


def _ids(value: Any) -> list[int]:
    if isinstance(value, list):
        return [number for item in value for number in _ids(item)]
    if isinstance(value, dict):
        value = value.get("id")
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []
