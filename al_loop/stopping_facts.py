"""What `al_loop/stopping.py` answers from, read from the record."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from al_loop.pool_columns import Known, columns
from al_loop.stopping import CurvePoint, StoppingFacts
from backend.errors import NoTrainedModel
from backend.instances import INFECTED, INFECTED_INDEX
from db.labels import class_counts
from db.models import Split
from db.packed import PackedCells, cell_dtype
from db.pool import called_difficult, reviewed_cells, waiting_images
from db.random_readings import learning_curve, random_readings
from db.versions import active_pair

METRIC = "pooled_infected_ap50"


def stopping_facts(session: Session) -> StoppingFacts:
    """Random readings so far, the cells that wait, and what every retraining scored on the test split.

    Raises NoTrainedModel before both roles have an active version.
    """
    pair = active_pair(session)
    if pair is None:
        raise NoTrainedModel("expected two active models, which the estimate is stratified by; run: cellloop train")
    nothing = PackedCells(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=cell_dtype(0)))
    known = Known(reviewed_cells(session), called_difficult(session), nothing)
    waiting, _ = columns(waiting_images(session, pair.id).cells, known)
    readings = random_readings(session)
    counts = class_counts(session, Split.train)
    draws = np.array([reading.draw for reading in readings], dtype=np.int64)
    return StoppingFacts(
        infected=np.array([reading.label in INFECTED for reading in readings], dtype=bool),
        waiting=_infected(np.asarray(waiting.probabilities, dtype=np.float64)),
        found=sum(counts.get(name, 0) for name in INFECTED),
        labels=sum(counts.values()),
        probability=np.array([_of(reading.probabilities) for reading in readings], dtype=np.float64),
        fields=draws if len(np.unique(draws)) < len(draws) else None,
        curve=[CurvePoint(*point) for point in learning_curve(session, Split.test.value, METRIC)],
    )


def _infected(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return probabilities[:, INFECTED_INDEX].sum(axis=1).clip(0, 1)


def _of(shares: object) -> float:
    """P(infected) of one cell; what the models did not see was to them no parasite."""
    return 0.0 if shares is None else float(_infected(np.asarray([shares], dtype=np.float64))[0])
