"""`cellloop bench faults`: rounds of faults on one installation, what they showed, and the server afterwards."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from al_loop.faults.children import Run, any_port, preload
from al_loop.faults.diary import DiaryExpert
from al_loop.faults.installation import Installation
from al_loop.faults.rounds import Round, dealt, play
from al_loop.faults.soak import REQUESTS, Soaked, soak
from al_loop.faults.studio import Real, StandIn, Studio
from backend.errors import CellloopError
from backend.label_studio.server import LabelStudioConfig, LabelStudioServer
from db.migrate import downgrade, pending
from db.session import parse_url

Told = Callable[[int, int, str], None]
FAILED = ("lost", "doubled", "stuck")


@dataclass(frozen=True)
class Settled:
    """What all rounds showed. soaked: None when the server was not asked for its memory."""

    seed: int
    engine: str
    rounds: Sequence[Round]
    soaked: Soaked | None

    def to_json(self) -> dict[str, Any]:
        """rounds, lost, doubled, stuck, violations: counts. found: every violation, with what replays its round."""
        found = [(played, violation) for played in self.rounds for violation in played.violations]
        kinds = Counter(violation.kind for _, violation in found)
        more = self.soaked.violations if self.soaked is not None else []
        return {
            "rounds": len(self.rounds),
            **{kind: kinds[kind] for kind in FAILED},
            "violations": len(found) + len(more),
            "seed": self.seed,
            "engine": self.engine,
            "median_s": round(median(played.seconds for played in self.rounds), 1),
            "faults": self.by_fault(),
            "found": [
                f"round {played.number} ({', '.join(played.faults)}): {violation.kind}: {violation.what}; replay with "
                f"--seed {self.seed} --only {played.number}"
                for played, violation in found
            ]
            + [violation.what for violation in more],
            "server": {} if self.soaked is None else vars(self.soaked),
        }

    def by_fault(self) -> dict[str, int]:
        """Rounds by the fault that was in them."""
        return dict(sorted(Counter(name for played in self.rounds for name in played.faults).items()))

    def observed(self) -> list[tuple[str, int, int, str]]:
        """By fault: rounds, violations, and what was observed how often."""
        rows = []
        for fault, count in self.by_fault().items():
            mine = [played for played in self.rounds if fault in played.faults]
            told = Counter(note for played in mine for name, note in played.observed if name == fault)
            common = "; ".join(f"{note} ({n})" for note, n in told.most_common(4))
            rows.append((fault, count, sum(len(played.violations) for played in mine), common))
        return rows


def bench_faults(
    folder: Path,
    rounds: int,
    run: Run,
    *,
    modules: Sequence[str] = (),
    seed: int = 1,
    only: int | None = None,
    database_url: str = "",
    restart_database: Sequence[str] = (),
    label_studio: Path | None = None,
    soaks: bool = True,
    on_progress: Told = lambda done, total, note: None,
    on_round: Callable[[Round], None] = lambda played: None,
) -> Settled:
    """Play the rounds, or only one of them, in this folder.

    run, modules: how our processes are started, and what they begin with. database_url: of an empty PostgreSQL
    database, emptied again afterwards; "" for SQLite. restart_database: the command that does it to that PostgreSQL;
    () where only its connections are cut. label_studio: the real one's program; the stand-in without.
    soaks: whether the server is asked for its memory afterwards.
    Raises CellloopError when the database is not empty, or when something never comes up.
    """
    preload(modules)
    home = folder / "home"
    url = database_url or f"sqlite:///{home / 'cellloop.sqlite'}"
    engine = parse_url(url).get_backend_name()
    if database_url and not pending(url):
        raise CellloopError("expected an empty database, got one with tables of ours; give the address of another")
    studio = StandIn(folder) if label_studio is None else _real(label_studio, home)
    installation = Installation(folder, url, studio, run, restart_database)
    try:
        on_progress(0, rounds, "preparing an installation")
        installation.prepare()
        expert = DiaryExpert(studio.expert, studio.client, studio.client.whoami().id)
        played = []
        for number, faults in enumerate(dealt(rounds, seed, engine), start=1):
            if only is None or number == only:
                on_progress(number - 1, rounds, ", ".join(fault.name for fault in faults))
                played.append(play(installation, expert, number, faults, seed))
                on_round(played[-1])
        if not soaks:
            return Settled(seed, engine, played, None)
        on_progress(rounds, rounds, f"asking the server {REQUESTS} times")
        return Settled(seed, engine, played, soak(installation))
    finally:
        installation.close()
        if database_url:
            downgrade(url, "base")


def _real(program: Path, home: Path) -> Studio:
    token = secrets.token_hex(20)
    config = LabelStudioConfig(program, home, "expert@cellloop.test", secrets.token_hex(8), token, port=any_port())
    return Real(LabelStudioServer(config))
