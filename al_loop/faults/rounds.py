"""Rounds of the fault harness: an expert works, something breaks, it is mended, and everything must be right again."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from al_loop.faults.damages import DAMAGES
from al_loop.faults.deaths import DEATHS
from al_loop.faults.diary import DiaryExpert
from al_loop.faults.fault import Fault
from al_loop.faults.installation import Installation
from al_loop.faults.invariants import unrest, violations
from al_loop.faults.scene import Scene
from al_loop.faults.troubles import TROUBLES
from al_loop.faults.violation import Violation
from al_loop.trigger import ask_for_retraining
from db.models import Way

PATIENCE_S = 90.0  # from the end of the mending until everything is right again
TRAINS = 0.25  # share of rounds with a training under way, beside those whose fault needs one
FAULTS = (*DEATHS, *TROUBLES, *DAMAGES)
STANDING = {Way.field: 5, Way.cell: 12}  # answers that stand at a time: the pool never runs dry


@dataclass(frozen=True)
class Round:
    """What one round was and what it showed."""

    number: int
    faults: list[str]
    seconds: float
    observed: list[tuple[str, str]]  # (fault, what), the fault "" when it belongs to none
    violations: list[Violation]


def dealt(rounds: int, seed: int, engine: str) -> list[list[Fault]]:
    """The faults of every round: each kind as often as any other, and at least once in 25 rounds."""
    kinds = [fault for fault in FAULTS if fault.engine in ("", engine)]
    per_round = -(-len(kinds) // 25)
    rng, deck, hands = random.Random(seed), list[Fault](), list[list[Fault]]()
    for _ in range(rounds):
        hand: list[Fault] = []
        while len(hand) < per_round:
            taken = {fault.on for fault in hand}
            fault = next((fault for fault in deck if fault.on not in taken), None)
            if fault is None:
                deck += rng.sample(kinds, len(kinds))
                continue
            deck.remove(fault)
            hand.append(fault)
        hands.append(hand)
    return hands


def play(
    installation: Installation,
    expert: DiaryExpert,
    number: int,
    faults: Sequence[Fault],
    seed: int,
    patience_s: float = PATIENCE_S,
) -> Round:
    """One round. seed: of the whole; what this round draws follows from it and from its number alone."""
    began = time.monotonic()
    installation.clocks_right()
    scene = Scene(installation, expert, random.Random(f"{seed}/{number}"))
    rng, expert.rng = scene.rng, random.Random(f"{seed}/{number}/expert")
    act(scene)
    if any(fault.trains for fault in faults) or rng.random() < TRAINS:
        ask_for_retraining(installation.loop, "a round of the fault harness")
        reached = rng.randint(0, 3)
        scene.wait(lambda: (run := scene.run()) is None or run.step >= reached, 10.0)
    with ExitStack() as struck:
        for fault in faults:
            struck.enter_context(fault.strike(replace(scene, fault=fault.name)))
        for _ in range(rng.randint(1, 3)):
            act(scene)
    installation.start()
    found = scene.wrong + settled(scene, patience_s)
    names = [fault.name for fault in faults]
    return Round(number, names, time.monotonic() - began, scene.observed, found)


def act(scene: Scene) -> None:
    """The expert does something, mostly about whole fields."""
    way = Way.field if scene.rng.random() < 0.75 else Way.cell
    for project in scene.installation.projects:
        if project.way == way:
            scene.expert.act(project, STANDING[way])


def settled(scene: Scene, patience_s: float) -> list[Violation]:
    """What is still not right when patience ends; empty as soon as everything is."""
    deadline = time.monotonic() + patience_s
    while True:
        late = time.monotonic() > deadline
        try:
            found = []
            if scene.expert.finish():
                # Everything is asked only when nothing is open: asking takes as much time as the work waited for.
                found = [] if late else unrest(scene.installation)
                found = found or violations(scene.installation, scene.expert.diary)
            if not found and not scene.expert.unfinished:
                return []
        except Exception as error:
            found = [Violation("stuck", f"{type(error).__name__}: {error}")]
        if late:
            return found or [Violation("stuck", "the expert cannot finish")]
        for name in scene.installation.start():
            scene.note(f"{name} ended by itself", "any")
        time.sleep(0.1)
