"""What the demonstration prints: where to look, and what a decided retraining came to."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import Session

from al_loop.context import Loop
from backend.credentials import credentials_file
from backend.instances import DIFFICULT, INFECTED
from db import evaluations, labels, projects, reviews, versions
from db.models import Project, PromotionDecision, TrainingRun, Way


def print_addresses(loop: Loop, project: Project, token: str) -> None:
    """The addresses, the generated login, and the dashboard's token."""
    settings, credentials = loop.settings, loop.credentials
    with loop.database.session(read_only=True) as session:
        cells = projects.project(session, project.url, way=Way.cell)
    page = f"one by one    {settings.label_studio_url}/projects/{cells.ls_project_id}/data\n" if cells else ""
    print(
        f"\nLabel Studio  {settings.label_studio_url}/projects/{project.ls_project_id}/data\n{page}"
        f"  login       {credentials.label_studio_email}\n"
        f"  password    {credentials.label_studio_password}\n"
        f"backend       {settings.backend_url}\n"
        f"dashboard     {settings.public_url}/dashboard\n"
        f"  token       {token}\n"
        f"secrets       {credentials_file(settings.home)} (only you can read it)\n"
        f"data, logs    {settings.home}\n"
        'Open a project and press "Label All Tasks": the most valuable smear, or cell, comes first.\n',
        flush=True,
    )


def print_summary(loop: Loop, project: Project, run: TrainingRun) -> None:
    """One table: what experts did, the two models, the gate's decision, what Label Studio got."""
    with loop.database.session(read_only=True) as session:
        rows = _reviewed(session) + _decided(session, run) + _pushed(session, project)
    table = Table("", "", title="One turn of the loop", show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name, str(value))
    Console(width=110).print(table)


def _reviewed(session: Session) -> list[tuple[str, Any]]:
    found = [label for label in labels.current_labels(session) if label.expert != reviews.IMPORT_EXPERT]
    by_action: dict[str, int] = {}
    for label in found:
        by_action[label.action.value] = by_action.get(label.action.value, 0) + 1
    rare = {name: sum(label.label == name for label in found) for name in (*INFECTED, DIFFICULT)}
    return [
        ("images reviewed", reviews.expert_reviews_count(session, Way.field)),
        ("cells reviewed one by one", reviews.expert_reviews_count(session, Way.cell)),
        ("cells reviewed", f"{len(found)}: " + ", ".join(f"{n} {what}" for what, n in sorted(by_action.items()))),
        ("infected and difficult among them", ", ".join(f"{n} {name}" for name, n in rare.items())),
        ("labels in SQL", sum(labels.class_counts(session).values())),
    ]


def _decided(session: Session, run: TrainingRun) -> list[tuple[str, Any]]:
    decisions: list[PromotionDecision] = [d for d in versions.decisions(session) if d.run_id == run.id]
    if not decisions:
        return [("gate", "no decision")]
    decision = decisions[-1]
    metrics = evaluations.metrics_of(session, decision.evaluation_id) if decision.evaluation_id else {}
    recall = metrics.get(("infected_recall_at_0.5fp", ""))
    serving = versions.active(session, run.role)
    return [
        ("retrained because of", f"{run.trigger} {run.detail}"),
        ("new model", f"{run.role} version {decision.version_id}"),
        ("its infected recall at 0.5 FP/image", "undefined" if recall is None else f"{recall.value} (n = {recall.n})"),
        ("serves now", f"{run.role} version {serving.id}" if serving else "none"),
        ("gate", "promoted" if decision.promote else "refused"),
        *[("" if i else "reasons", f"{reason}") for i, reason in enumerate(decision.reasons)],
    ]


def _pushed(session: Session, project: Project) -> list[tuple[str, Any]]:
    pushes = projects.pushes(session, project.id)
    predictions, rescored = sum(p.predictions for p in pushes), sum(p.rescored for p in pushes)
    return [("pushed to Label Studio", f"{predictions} predictions, {rescored} new scores, in {len(pushes)} pushes")]
