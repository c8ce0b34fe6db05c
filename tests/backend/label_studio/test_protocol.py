"""Messages as the real server sends them, and the order that scores mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.label_studio.protocol import PredictRequest, SetupRequest, Task, priority_to_score, wake_up


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_higher_priority_is_a_lower_score(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 < priority_to_score(high) <= priority_to_score(low) <= 1
    if high - low > 1e-6 * (1 + high):
        assert priority_to_score(high) < priority_to_score(low)


@pytest.mark.parametrize("wrong", [-0.1, math.nan])
def test_no_score_without_a_priority(wrong: float) -> None:
    with pytest.raises(ValueError, match="priority"):
        priority_to_score(wrong)


def test_setup_as_sent() -> None:
    body = {
        "project": "6.1795397901",
        "schema": "<View/>",
        "hostname": "http://127.0.0.1:8080",
        "access_token": "secret",
        "extra_params": None,
    }
    setup = SetupRequest.model_validate(body)
    assert (setup.project_id, setup.label_config) == (6, "<View/>")
    assert "secret" not in repr(setup)
    assert SetupRequest.model_validate({}).project_id is None


def test_predict_as_sent() -> None:
    task = {"id": 251, "data": {"image": "/data/local-files/?d=images/ab/x.png"}, "meta": {}, "is_labeled": False}
    body: dict[str, Any] = {
        "tasks": [task],
        "model_version": None,
        "project": "6.1795397901",
        "label_config": "<View/>",
        "params": {"login": None, "password": None, "context": None},
    }
    request = PredictRequest.model_validate(body)
    assert (request.project_id, request.tasks[0].id, request.params.context) == (6, 251, None)
    body["params"] = {"context": {"result": [{"id": "a"}]}}
    assert PredictRequest.model_validate(body).params.context == {"result": [{"id": "a"}]}


def test_a_task_without_annotations_or_with_unknown_fields() -> None:
    task = Task.model_validate({"id": 1, "data": {}, "updated_at": "2026-11-23T01:38:21.319529Z", "new": 1})
    assert task.annotations == []
    assert task.updated_at is not None
    assert task.updated_at.microsecond == 319529


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (
            {"action": "ANNOTATION_CREATED", "annotation": {"id": 37, "result": [{}]}, "task": {"id": 250, "data": {}},
             "project": {"id": 6, "token": "t"}},
            {"project": 6, "tasks": [250], "annotations": [37]},
        ),
        (
            {"action": "ANNOTATIONS_CREATED", "annotation": [{"id": 1}, {"id": 2}], "task": [{"id": 3}, {"id": 4}],
             "project": {"id": 6}},
            {"project": 6, "tasks": [3, 4], "annotations": [1, 2]},
        ),
        (
            {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 5}, 6], "project": {"id": 6}},
            {"project": 6, "tasks": [], "annotations": [5, 6]},
        ),
        ({"action": "START_TRAINING", "project": {"id": 6}}, {"project": 6, "tasks": [], "annotations": []}),
        ({"action": "X", "project": "six", "task": None, "annotation": True},
         {"project": None, "tasks": [], "annotations": []}),
    ],
)  # fmt: skip
def test_only_ids_are_kept_of_a_webhook(body: dict[str, object], kept: dict[str, object]) -> None:
    assert wake_up(body) == kept
