"""`cellloop bench faults` as people run it: rounds with every kind of fault in them, and nothing lost."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from al_loop.faults.rounds import FAULTS, dealt
from tests.conftest import PostgresServer

ROOT = Path(__file__).resolve().parents[2]
RIGHT = {"lost": 0, "doubled": 0, "stuck": 0, "violations": 0}


def play(*arguments: str) -> dict[str, Any]:
    """Play rounds in processes of their own; the report."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CELLLOOP_")}
    command = [sys.executable, "-m", "scripts.cli", "bench", "faults", *arguments, "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550, check=False
    )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert {name: report[name] for name in RIGHT} == RIGHT, report["found"]
    assert done.returncode == 0
    return dict(report)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_every_kind_of_fault_is_in_25_rounds(engine: str) -> None:
    for seed in range(20):
        names = {fault.name for hand in dealt(25, seed, engine) for fault in hand}
        assert names == {fault.name for fault in FAULTS if fault.engine in ("", engine)}
        for hand in dealt(25, seed, engine):
            assert len({fault.on for fault in hand}) == len(hand), "nothing is broken in two ways at once"


ON_SQLITE, ON_POSTGRESQL = 22, 3  # 25 together, with every kind of fault in them; the server is soaked once


def test_rounds_of_every_fault_leave_everything_right() -> None:
    report = play("--rounds", str(ON_SQLITE), "--seed", "6")
    assert report["rounds"] == ON_SQLITE
    assert set(report["faults"]) == {fault.name for fault in FAULTS if fault.engine != "postgresql"}
    assert report["server"]["failed"] == 0


@pytest.mark.postgres
def test_rounds_on_postgresql_with_two_workers(
    new_postgres_database: Callable[[], str], postgres_server: PostgresServer
) -> None:
    engine = create_engine(postgres_server.url)

    def started() -> datetime:
        engine.dispose()
        with engine.connect() as connection:
            return connection.execute(text("SELECT pg_postmaster_start_time()")).scalar_one()

    before = started()
    report = play(
        *("--rounds", str(ON_POSTGRESQL), "--seed", "11", "--no-soak"),
        *("--database-url", new_postgres_database(), "--restart-database", shlex.join(postgres_server.restart)),
    )
    assert (report["rounds"], report["engine"]) == (ON_POSTGRESQL, "postgresql")
    assert set(report["faults"]) >= {fault.name for fault in FAULTS if fault.engine == "postgresql"}
    assert started() > before, "it was PostgreSQL itself that went down"


@pytest.mark.label_studio
def test_rounds_with_a_real_label_studio() -> None:
    assert play("--rounds", "1", "--seed", "6", "--no-soak", "--label-studio", "real")["rounds"] == 1
