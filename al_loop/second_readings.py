"""What should be read again by somebody else: cells called difficult, labels that may be wrong, and a fair sample.

A second reading shows neither what the models nor what the first reader said, and never goes to that reader. Its
value is the doubt about the label times the rarity of what the cell may be, on the same scale as a first reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from al_loop.batch import Place
from backend.instances import CLASS_INDEX, INFECTED_INDEX
from db.models import Slot, Way
from db.queue import QueueEntry
from db.second_readings import Question, fair_sample, questions


@dataclass(frozen=True)
class SecondReadings:
    """places: best first, each with the cell's id in `cells`. entries: by that id, ready for the queue."""

    places: list[Place] = field(default_factory=list)
    entries: dict[int, QueueEntry] = field(default_factory=dict)


def second_readings(
    session: Session,
    pair_id: int,
    weights: NDArray[np.float64],
    seconds: float,
    among: Sequence[int] | None = None,
    fair: int = 0,
) -> SecondReadings:
    """All that may be read again at present. weights: (len(CLASSES),) rarity. seconds: one crop takes.

    among: only about these cells. fair: so many more that nobody doubts, of value 0, to measure agreement by.
    """
    found = SecondReadings()
    asked = questions(session, pair_id, among)
    doubted = {question.cell_id for question in asked}
    asked += [question for question in fair_sample(session, pair_id, fair) if question.cell_id not in doubted]
    for question in asked:
        doubt = question.score
        value = doubt * _weight(question, weights)
        terms: Mapping[str, object] = {
            "value": value,
            "seconds": seconds,
            "doubt": doubt,
            "weight": value / doubt if doubt else 0.0,
            "kind": question.kind,
        }
        found.places.append(
            Place(Way.cell, Slot.second_reading, question.image_id, value, seconds, (question.cell_id,), terms)
        )
        found.entries[question.cell_id] = QueueEntry(
            *(question.image_id, value / seconds, dict(terms), Way.cell, Slot.second_reading),
            cell_id=question.cell_id,
            predicted_cell_id=question.predicted_cell_id,
            reason=question.reason,
            readers=question.readers,
        )
    found.places.sort(key=lambda place: (-place.score, place.cells))
    return found


def _weight(question: Question, weights: NDArray[np.float64]) -> float:
    """Rarity of what is at stake: the rarer of the label and what the models say; of "difficult", any stage."""
    named = [CLASS_INDEX[name] for name in (question.label, question.predicted) if name in CLASS_INDEX]
    if question.kind == "difficult":
        return float(weights[INFECTED_INDEX].mean())
    return float(weights[named].max()) if named else float(weights.min())
