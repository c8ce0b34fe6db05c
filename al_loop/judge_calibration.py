"""Does a probability mean what it says? What is claimed of the detections of an evaluation, and how often it is so."""

from __future__ import annotations

from collections.abc import Sequence

from al_loop.judge_cells import Assigned
from al_loop.judge_counts import Reliability
from backend.instances import CLASSES

SUSPECTED = 0.05  # P(infected) from which a cell is not plainly healthy


def calibration(assigned: Sequence[Assigned], known: Sequence[str]) -> dict[str, Reliability]:
    """Is P(infected) right, and that where infection is not plainly absent ("suspected", harder); P(the class that a
    detection is called) ("top"); and P(there is a cell) ("cell"), which a detector that does not know all classes has
    no word on. known: its classes.
    """
    counted = [image.counted for image in assigned]
    suspected = [image.counted & (image.infected >= SUSPECTED) for image in assigned]
    sick = [image.is_infected() for image in assigned]
    infected = [image.infected for image in assigned]
    groups = {
        "infected": (infected, counted, sick),
        "suspected": (infected, suspected, sick),
        "top": ([a.called for a in assigned], counted, [a.true_class() == a.labels for a in assigned]),
        "cell": ([a.presence for a in assigned], counted, [a.truth >= 0 for a in assigned]),
    }
    if len(known) < len(CLASSES):
        groups.pop("cell")
    return {
        name: Reliability.of(
            [claim[keep] for claim, keep in zip(claims, among, strict=True)],
            [so[keep] for so, keep in zip(truth, among, strict=True)],
        )
        for name, (claims, among, truth) in groups.items()
    }
