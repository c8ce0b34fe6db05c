"""What a project needs beside its tasks: a storage that shows images, our ML backend, and a webhook. All idempotent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backend.label_studio.client import LabelStudio
from backend.label_studio.protocol import ANNOTATION_ACTIONS


def ensure_image_storage(studio: LabelStudio, project_id: int, folder: Path, title: str = "cellloop") -> int:
    """Let the project show `/data/local-files/?d=<path>` of files in this folder; id of the storage.

    folder: a strict sub-folder of Label Studio's document root, as Label Studio sees it; `d` is relative to that
    root. Without this row every such path answers 404. It is never synced: that would import the tasks again.
    """
    for storage in studio.transport.get("/api/storages/localfiles/", project=project_id):
        if storage["path"].rstrip("/") == str(folder).rstrip("/"):
            return int(storage["id"])
    body = {"project": project_id, "path": str(folder), "title": title, "use_blob_urls": True}
    return int(studio.transport.post("/api/storages/localfiles/", body)["id"])


def ensure_ml_backend(
    studio: LabelStudio, project_id: int, url: str, user: str, password: str, title: str = "cellloop"
) -> int:
    """Connect our server by Basic auth, or renew the connection; id of the backend. It must be up: it is called.

    Connecting sets an empty model_version of the project to the backend's title, which makes the order of the tasks
    random; a version that is set stays. So the version is put back here, and a push sets it anyway. Surplus connections
    to the same address are removed. Label Studio makes a webhook to <url>/webhook of its own, for START_TRAINING,
    and leaves it behind when the backend is removed.
    """
    body = {
        "project": project_id,
        "url": url,
        "title": title,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": user,
        "basic_auth_pass": password,
        "is_interactive": False,
    }
    version = studio.project(project_id).model_version
    known = studio.transport.get("/api/ml/", project=project_id)
    ours = [item["id"] for item in known if item["url"].rstrip("/") == url.rstrip("/")]
    for surplus in ours[1:]:
        studio.transport.delete(f"/api/ml/{surplus}")
    # A PATCH without the address is a server error, so everything is sent.
    send = studio.transport.patch if ours else studio.transport.post
    answer = send(f"/api/ml/{ours[0]}" if ours else "/api/ml/", body)
    if studio.project(project_id).model_version != version:
        studio.update_project(project_id, model_version=version)
    return int(answer["id"])


def ensure_webhook(studio: LabelStudio, project_id: int, url: str, headers: Mapping[str, str]) -> int:
    """Have annotation events posted to this address with these headers; id of the webhook.

    Run it after `ensure_ml_backend`, whose webhook to <backend>/webhook knows no header: a webhook to the same address
    is taken over, so that START_TRAINING and the annotation events come by one, authenticated.
    """
    body = {
        "project": project_id,
        "url": url,
        "headers": dict(headers),
        "actions": list(ANNOTATION_ACTIONS),
        "send_for_all_actions": False,
        "send_payload": True,
        "is_active": True,
    }
    known = studio.transport.get("/api/webhooks/", project=project_id)
    ours = [item["id"] for item in known if item["url"] == url]
    for surplus in ours[1:]:
        studio.transport.delete(f"/api/webhooks/{surplus}/")
    if ours:
        answer = studio.transport.patch(f"/api/webhooks/{ours[0]}/", body)
    else:
        answer = studio.transport.post("/api/webhooks/", body)
    return int(answer["id"])
