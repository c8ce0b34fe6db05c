"""A new pair that experts correct significantly more goes back by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from al_loop.watch_canary import FEWEST, LOOKS, compare_live, watch_canary
from backend.errors import StoredFileCorrupt
from backend.store import weights_file
from db import canaries, versions
from db.session import Database
from tests.al_loop.deciding import undo
from tests.al_loop.workshop import Workshop, open_workshop
from tests.builders import add_active_pair, add_version
from tests.random_slots import answer


def promoted(home: Path, database: Database, kind: str = "gate", old: int = FEWEST) -> Workshop:
    """A pair with `old` answered random fields of one correction each, replaced by a new infected version."""
    workshop = open_workshop(home, database)
    stored = workshop.store.put_bytes("weights", b"of the version before", ".safetensors")
    with database.session() as session:
        first = add_active_pair(session)
        before = add_version(session, weights_sha256=stored.sha256)
        versions.activate(session, before.id, kind="person", reasons=["whose weights are there"])
        pair = versions.active_pair(session)
        assert pair is not None
        assert pair.id != first.id
        for number in range(old):
            answer(session, pair, number % 3)
        versions.activate(session, add_version(session).id, kind=kind, reasons=["not worse"])
        versions.active_pair(session)
    return workshop


def answered(workshop: Workshop, corrected: list[int]) -> None:
    with workshop.database.session() as session:
        pair = versions.active_pair(session)
        assert pair is not None
        for number in corrected:
            answer(session, pair, number)


def test_a_pair_that_is_corrected_significantly_more_rolls_back_once(tmp_path: Path, database: Database) -> None:
    workshop = promoted(tmp_path, database)
    answered(workshop, [5, 6, 7, 4, 5, 6, 8, 5, 6])
    assert not watch_canary(workshop), "one field too few for the first look"
    answered(workshop, [5])
    assert watch_canary(workshop)
    with database.session(read_only=True) as session:
        decision = versions.decisions(session)[-1]
        assert (decision.kind, decision.promote) == ("canary", True)
        assert "significantly more" in decision.reasons[0]
        assert "experts corrected 5.70 cells each, 0.90 in 10 fields of the pair before" in decision.reasons[0]
        serving = versions.active(session, "infected")
        assert serving is not None
        assert decision.version_id == serving.id
        [check] = canaries.checks(session)
        assert (check.kind, check.verdict, check.numbers["look"]) == ("live", "rolled_back", 10)
    assert not watch_canary(workshop), "a pair that came back is not watched"
    assert undo(database, "infected").version_id != decision.replaced_id, "the refused one does not come back"


def test_a_pair_as_good_is_looked_at_four_times_and_stays(tmp_path: Path, sqlite_database: Database) -> None:
    workshop = promoted(tmp_path, sqlite_database)
    have = 0
    for look in LOOKS:
        answered(workshop, [number % 3 for number in range(have, look - 1)])
        assert not watch_canary(workshop)
        answered(workshop, [1])
        assert watch_canary(workshop)
        assert not watch_canary(workshop), "a look is taken once"
        have = look
    answered(workshop, [1, 1])
    assert not watch_canary(workshop)
    with sqlite_database.session(read_only=True) as session:
        assert [check.verdict for check in canaries.checks(session)] == ["watching"] * 3 + ["passed"]
        assert versions.decisions(session)[-1].kind == "gate"


@pytest.mark.parametrize(("kind", "old"), [("person", FEWEST), ("gate", FEWEST - 1)])
def test_neither_a_persons_choice_is_undone_nor_one_without_a_comparison(
    tmp_path: Path, sqlite_database: Database, kind: str, old: int
) -> None:
    workshop = promoted(tmp_path, sqlite_database, kind, old)
    answered(workshop, [6] * 10)
    assert watch_canary(workshop) == (kind == "gate")
    with sqlite_database.session(read_only=True) as session:
        assert versions.decisions(session)[-1].kind == kind


def test_who_could_not_serve_is_not_brought_back(tmp_path: Path, sqlite_database: Database) -> None:
    workshop = promoted(tmp_path, sqlite_database)
    with sqlite_database.session(read_only=True) as session:
        before = versions.previous(session, "infected")
    assert before is not None
    workshop.store.path(weights_file(before.weights_sha256)).unlink()
    answered(workshop, [6] * 10)
    with pytest.raises(StoredFileCorrupt):
        watch_canary(workshop)
    with sqlite_database.session(read_only=True) as session:
        assert versions.decisions(session)[-1].kind == "gate"
        assert canaries.checks(session) == [], "it is tried again"


def test_all_looks_together_rarely_condemn_a_pair_as_good() -> None:
    rng = np.random.default_rng(5)
    condemned = 0
    for _ in range(40):
        old, new = (rng.negative_binomial(1, 0.2, LOOKS[-1]).tolist() for _ in range(2))
        condemned += any(not compare_live(old, new[:look]).promote for look in LOOKS)
    assert condemned <= 6  # 5 % and three standard errors
