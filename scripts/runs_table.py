"""What `cellloop runs` shows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from al_loop.context import Loop
from db import run_events, runs, workers
from db.models import RunEvent, TrainingRun, now
from scripts import console

LAST_LINES = 15
COLUMNS = ("run", "role", "because of", "state", "stage", "progress", "worker", "began", "ends", "outcome")


def emit_runs(loop: Loop, limit: int, as_json: bool) -> None:
    """The newest runs: a table for people, a list for programs."""
    with loop.database.session(read_only=True) as session:
        found = [_as_dict(session, run) for run in runs.recent(session, limit)]
    if as_json:
        console.emit({"runs": found}, as_json=True)
    elif found:
        console.table(COLUMNS, [_row(run) for run in found], "Training runs")
    else:
        print("No training has run yet; `cellloop retrain` asks for one, `cellloop schedule show` says what waits.")


def emit_run(loop: Loop, run_id: int, as_json: bool) -> None:
    """One run with its stages and the last lines of its log. Raises NotFound."""
    with loop.database.session(read_only=True) as session:
        run = runs.get(session, run_id)
        lines = run_events.events(session, run_id)
        answer = _as_dict(session, run) | {
            "detail": run.detail,
            "labels_up_to_revision": run.newest_revision_id,
            "attempts": run.attempt,
            "retry_of": run.retry_of,
            "stages": _stages(run, lines),
            "log": [_line(session, event) for event in lines[-LAST_LINES:]],
        }
    console.emit(answer, as_json)


def print_log(loop: Loop, run_id: int, after: int) -> tuple[int, bool]:
    """Print the lines with an id above `after`: (the last one's id, whether the run had ended). Raises NotFound."""
    with loop.database.session(read_only=True) as session:
        ended = runs.get(session, run_id).finished_at is not None
        lines = run_events.events(session, run_id, after)
        for event in lines:
            print(_line(session, event), flush=True)
    return (lines[-1].id if lines else after), ended


def _line(session: Session, event: RunEvent) -> str:
    worker = workers.named(session, event.worker_id) or "-"
    level = "" if event.level in ("info", run_events.STAGE) else f"{event.level}: "
    return f"{event.at:%Y-%m-%d %H:%M:%S} {worker} {event.stage}: {level}{event.message}"


def _stages(run: TrainingRun, lines: Any) -> list[str]:
    """Each stage with when it began and how long it took, over all workers."""
    begun = [event for event in lines if event.level == run_events.STAGE]
    ends = [event.at for event in begun[1:]] + [run.finished_at]
    return [
        f"{event.stage} from {event.at:%H:%M:%S}" + (f", {_duration(end - event.at)}" if end is not None else "")
        for event, end in zip(begun, ends, strict=True)
    ]


def _as_dict(session: Session, run: TrainingRun) -> dict[str, Any]:
    return {
        "run": run.id,
        "role": run.role,
        "trigger": run.trigger,
        "status": run.status.value,
        "stage": run.stage,
        "step": run.step,
        "steps": run.steps,
        "message": run.message,
        "worker": workers.named(session, run.worker_id),
        "created_at": run.created_at,
        "started_at": run.started_at,
        "ends_at": run.ends_at,
        "finished_at": run.finished_at,
        "version": run.version_id,
        "error": run.error,
    }


def _row(run: dict[str, Any]) -> list[Any]:
    steps = f"{run['step'] / run['steps']:.0%}" if run["steps"] else ""
    ends: Any = run["finished_at"] or ""
    if run["finished_at"] is None and run["ends_at"] is not None:
        left = run["ends_at"] - now()
        ends = f"in {_duration(left)}" if left > timedelta(0) else "any moment"
    outcome = run["error"] or run["message"]
    if run["version"] is not None:
        outcome = f"version {run['version']} {outcome}"
    began: datetime | str = run["started_at"] or "waits"
    names = (run["run"], run["role"], run["trigger"], run["status"], run["stage"], steps, run["worker"])
    return [*names, began, ends, outcome]


def _duration(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    if seconds < 60:
        return f"{max(seconds, 0)} s"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
