"""The doctor on Label Studio: is it there, does it know us, may it call us, and does it serve in our order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from backend.credentials import Credentials
from backend.errors import LabelStudioRefused, LabelStudioUnavailable
from backend.findings import Finding, broken, notice, ok
from backend.label_studio.transport import Transport
from backend.settings import Settings

ANSWER_S = 5.0
SAMPLING = "Uncertainty sampling"
CONNECT = "run: cellloop label-studio connect"
SSRF = (
    "Label Studio refuses private addresses unless it was started with LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS=false "
    "(`cellloop label-studio start` does that); start the backend with `cellloop serve`, then " + CONNECT
)


def check(
    settings: Settings,
    credentials: Credentials | None,
    program: Path | None,
    project_ids: list[int],
    cell_project_ids: Sequence[int] = (),
) -> Iterator[Finding]:
    """Everything about Label Studio. project_ids: the Label Studio ids of the projects the record knows there.

    cell_project_ids: those of them that call no backend, for single cells have nothing to predict.
    """
    if program is not None:
        yield ok("label studio program", str(program))
    else:
        yield notice("label studio program", "not on this machine", "bash scripts/demo.sh brings it")
    token = settings.label_studio_token or (credentials.label_studio_token if credentials else None)
    if token is None:
        yield notice("label studio", "no token yet", "run: cellloop label-studio start")
        return
    with Transport(settings.label_studio_url, token, timeout_s=ANSWER_S) as label_studio:
        answer = check_token(label_studio, expected_up=bool(project_ids))
        yield answer
        if answer.state != "ok":
            return
        for project_id in project_ids:
            yield from check_project(label_studio, settings, project_id, calls_us=project_id not in cell_project_ids)


def check_token(label_studio: Transport, expected_up: bool) -> Finding:
    """Whether Label Studio answers and accepts our token. It may be down as long as nothing is connected."""
    try:
        user = label_studio.request("GET", "/api/current-user/whoami")
    except LabelStudioUnavailable as error:
        make = broken if expected_up else notice
        return make("label studio", str(error).split(";")[0], "run: cellloop label-studio start")
    except LabelStudioRefused as error:
        mend = "set CELLLOOP_LABEL_STUDIO_TOKEN to a token of Account & Settings > Personal Access Token"
        return broken("label studio", str(error).split(";")[0], mend)
    return ok("label studio", f"{label_studio.url} answers and knows {user.get('email')}")


def check_project(
    label_studio: Transport, settings: Settings, project_id: int, *, calls_us: bool = True
) -> Iterator[Finding]:
    """One connected project: its order, the backend it calls, and the webhook that wakes us."""
    about = f"project {project_id}"
    try:
        project = label_studio.request("GET", f"/api/projects/{project_id}/", none_on_404=True)
        if project is None:
            yield broken(about, "deleted in Label Studio, or not ours to see", CONNECT)
            return
        backends = label_studio.request("GET", "/api/ml/", params={"project": project_id})
        hooks = label_studio.request("GET", "/api/webhooks/", params={"project": project_id})
    except (LabelStudioUnavailable, LabelStudioRefused) as error:
        yield broken(about, str(error).split(";")[0], "see the line on label studio above")
        return
    if project.get("sampling") == SAMPLING:
        yield ok(about, f"{project.get('title')!r}, served in our order")
    else:
        yield broken(about, f"tasks come by {project.get('sampling')!r}, not in our order", CONNECT)
    if calls_us:
        yield _backend(backends, settings, f"{about} backend")
    ours = [hook for hook in hooks if hook.get("is_active") and hook.get("url", "").startswith(settings.backend_url)]
    if ours:
        yield ok(f"{about} webhook", ours[0]["url"])
    else:
        yield notice(f"{about} webhook", "none wakes us: reviews arrive only when the worker polls", CONNECT)


def _backend(backends: list[dict[str, str]], settings: Settings, about: str) -> Finding:
    ours = [backend for backend in backends if backend.get("url", "").rstrip("/") == settings.backend_url]
    if not ours:
        others = ", ".join(str(backend.get("url")) for backend in backends) or "none"
        return broken(about, f"{settings.backend_url} is not connected (found: {others})", SSRF)
    state, message = ours[0].get("state"), ours[0].get("error_message")
    if state in ("ER", "DI"):
        return broken(
            about, f"Label Studio cannot talk to {settings.backend_url}: {message or 'no answer'}"[:300], SSRF
        )
    return ok(about, settings.backend_url)
