"""Pages of tasks, as Label Studio's data manager gives them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from backend.label_studio.transport import Transport


def task_pages(
    transport: Transport,
    project_id: int,
    filters: list[dict[str, Any]],
    params: dict[str, Any],
    size: int,
    after: int = 0,
) -> Iterator[dict[str, Any]]:
    """Tasks with a higher id than `after` that pass the filters, by id, asked for `size` at a time."""
    # By id and not by page number: pages shift when a task enters or leaves the filter between two requests.
    last = after
    while True:
        later = task_filter("id", "greater", "Number", last)
        query = {"filters": {"conjunction": "and", "items": [later, *filters]}, "ordering": ["tasks:id"]}
        page = transport.get("/api/tasks/", project=project_id, page_size=size, query=json.dumps(query), **params)
        yield from page["tasks"]
        if len(page["tasks"]) < size:
            return
        last = page["tasks"][-1]["id"]


def task_filter(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    """One condition of a filter of tasks."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}
