"""`/dashboard`: what to see in the morning."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from backend.api.dashboard.charts import Chart
from backend.api.dashboard.model_charts import learning_curve
from backend.api.dashboard.people_charts import labels_per_day
from backend.api.dashboard.queue_items import head
from backend.api.dashboard.view import age, number, render
from backend.api.deps import ServerDep
from backend.api.live import Live, present
from db import drift, inbox
from db import overview as newest
from db.answers import ServingPair, serving_pair
from db.models import RunStatus

router = APIRouter()

ITEMS = 6  # of the queue
DAYS = 30
EVALUATIONS = 20
RECENT = timedelta(days=7)  # what happened before is no news


@dataclass(frozen=True)
class Tile:
    """One number to see at a glance, and a word about it."""

    title: str
    value: str
    note: str
    link: str


@router.get("")
def overview(request: Request, server: ServerDep) -> HTMLResponse:
    """The page. Whatever the size of the record, it reads only what is newest, and what waits."""
    today = datetime.now(UTC).date()
    with server.database.session(read_only=True) as session:
        live = present(session)
        curve = learning_curve(newest.metrics(session, newest.newest_evaluations(session, EVALUATIONS)))
        answers = newest.labels_per_day(session, today, DAYS)
        pair = serving_pair(session)
        return render(
            request,
            "overview.html.j2",
            live=live,
            tiles=[*_models(pair, curve), *_work(answers, today, live)],
            news=_news(session, live, answers, pair),
            curve=curve,
            per_day=labels_per_day(answers, today, DAYS, classes=False),
            items=head(session, ITEMS),
            wish=inbox.asked(session),
        )


def _models(pair: ServingPair | None, curve: Chart) -> list[Tile]:
    recall = curve.series[0].points
    promoted = [place for place, mark in enumerate(curve.marks) if mark == "promoted"]
    found = recall[promoted[-1]] if promoted else None
    return [
        Tile("Serves", pair.name if pair else "nothing", "the pair that pre-annotates", "/dashboard/models"),
        Tile(
            "Infected cells found",
            number(found.value if found else None),
            f"{number(found.low)} to {number(found.high)}, at 0.5 false positives per image"
            if found
            else "not measured yet",
            "/dashboard/models",
        ),
    ]


def _work(answers: newest.Rows, today: date, live: Live) -> list[Tile]:
    week = (today - timedelta(days=6)).isoformat()
    of_today = sum(row["answers"] for row in answers if row["day"] == today.isoformat())
    of_week = sum(row["answers"] for row in answers if row["day"] >= week)
    waiting = f"{number(live.waiting['field'])} + {number(live.waiting['cell'])}"
    return [
        Tile("Answers today", number(of_today), f"{number(of_week)} in seven days", "/dashboard/experts"),
        Tile("Waiting", waiting, f"fields + single cells, {number(live.in_hand)} in hand", "/dashboard/queue"),
    ]


def _news(session: Session, live: Live, answers: newest.Rows, pair: ServingPair | None) -> list[str]:
    """What somebody should know, in sentences, the most urgent first."""
    since = datetime.now(UTC) - RECENT
    found = [
        f"Run {run.id} of {run.role} failed {age(run.updated_at)} ago: {run.error or 'no reason was noted'}"
        for run in newest.runs(session, 5)
        if run.status == RunStatus.failed and run.updated_at > since
    ]
    check = drift.newest_check(session, pair.id) if pair is not None else None
    if pair is not None and check is not None and check.drifted:
        why = "; ".join(map(str, check.reasons))
        found.append(
            f"Recent fields differ from those {pair.name} was accepted on, seen {age(check.created_at)} ago: {why}"
        )
    if not any(live.waiting.values()):
        found.append("Nothing waits in the queue: run `cellloop rank`, or import more smears.")
    if not answers:
        found.append(f"No expert has answered anything for {DAYS} days.")
    for row in newest.decisions(session, 3):
        if row["decided_at"] > since:
            verdict = "was promoted" if row["promoted"] else "was refused"
            why = f": {row['reasons'][0]}" if row["reasons"] else ""
            found.append(f"Version {row['version_id']} of {row['role']} {verdict} {age(row['decided_at'])} ago{why}")
    return found
