"""What was measured: evaluations of model pairs, and their numbers as rows for questions over time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.errors import NotFound
from db.models import Evaluation, Metric


@dataclass(frozen=True)
class MetricRow:
    """One number with its 95 % interval; None where undefined (NaN is taken for None)."""

    name: str
    value: float | None
    n: int
    class_name: str = ""  # "" for pooled numbers
    low: float | None = None
    high: float | None = None


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def add_evaluation(
    session: Session,
    pair_id: int,
    split: str,
    split_sha256: str,
    report: dict[str, Any],
    metrics: Iterable[MetricRow],
) -> Evaluation:
    """Store what a pair scored on a split, with its numbers as rows for questions over time."""
    evaluation = Evaluation(pair_id=pair_id, split=str(split), split_sha256=split_sha256, report=report)
    session.add(evaluation)
    session.flush()
    session.add_all(
        Metric(
            evaluation_id=evaluation.id,
            name=metric.name,
            class_name=metric.class_name,
            value=_number(metric.value),
            low=_number(metric.low),
            high=_number(metric.high),
            n=int(metric.n),
        )
        for metric in metrics
    )
    session.flush()
    return evaluation


def evaluation_of(session: Session, pair_id: int, split_sha256: str) -> Evaluation | None:
    """The newest evaluation of this pair on exactly this split, so that none is computed twice."""
    query = select(Evaluation).where(Evaluation.pair_id == pair_id, Evaluation.split_sha256 == split_sha256)
    return session.scalar(query.order_by(Evaluation.id.desc()).limit(1))


def metrics_of(session: Session, evaluation_id: int) -> dict[tuple[str, str], MetricRow]:
    """The numbers of an evaluation by (name, class name)."""
    rows = session.scalars(select(Metric).where(Metric.evaluation_id == evaluation_id).order_by(Metric.id))
    return {
        (row.name, row.class_name): MetricRow(row.name, row.value, row.n, row.class_name, row.low, row.high)
        for row in rows
    }


def reliability_of(session: Session, evaluation_id: int) -> dict[str, dict[str, list[float]]]:
    """Reliability curves of an evaluation by group ("infected", "suspected", "top", "cell"), without its whole report.

    Of each: "claimed" (mean probability), "observed" (share that it was so) and "n" (detections), by bin of equal mass.
    Empty where none were stored, as in evaluations of earlier times. Raises NotFound.
    """
    query = select(Evaluation.report["reliability"]).where(Evaluation.id == evaluation_id)
    found = session.execute(query).one_or_none()
    if found is None:
        raise NotFound(f"expected an evaluation with id {evaluation_id}, found none")
    return found[0] or {}


def newest_evaluation(session: Session, pair_id: int) -> Evaluation | None:
    """The newest evaluation of this pair on any split."""
    query = select(Evaluation).where(Evaluation.pair_id == pair_id).order_by(Evaluation.id.desc()).limit(1)
    return session.scalar(query)


def get_evaluation(session: Session, evaluation_id: int) -> Evaluation:
    """The evaluation with this id. Raises NotFound."""
    evaluation = session.get(Evaluation, evaluation_id)
    if evaluation is None:
        raise NotFound(f"expected an evaluation with id {evaluation_id}, found none")
    return evaluation
