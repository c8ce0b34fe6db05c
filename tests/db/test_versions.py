"""Versions: one serves per role, every change of mind is recorded, and every step is legal."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError

from db import runs, versions
from db.errors import IllegalTransition, NotFound, RecordError
from db.models import VERSION_TRANSITIONS, ModelVersion, VersionStatus
from db.session import Database
from tests.builders import NOBODY, add_active_pair, add_image, add_prediction, add_version


def statuses(database: Database) -> list[str]:
    with database.session() as session:
        return [version.status.value for version in versions.versions(session, "infected")]


def test_activating_retires_the_incumbent_and_says_why(database: Database) -> None:
    with database.session() as session:
        old, new, other = add_version(session), add_version(session), add_version(session, "all_cells")
        assert versions.active(session, "infected") is None
        first = versions.activate(session, old.id, kind="first", reasons=["nothing served yet"])
        versions.activate(session, other.id, kind="first", reasons=[])
        second = versions.activate(session, new.id, kind="gate", reasons=["+0.1 infected AP"])
        assert (first.replaced_id, second.replaced_id) == (None, old.id)
        assert (second.kind, second.promote, second.reasons) == ("gate", True, ["+0.1 infected AP"])
        assert versions.active(session, "infected") is new
        assert versions.active(session, "all_cells") is other
        assert versions.decisions(session, new.id) == [second]
        assert len(versions.decisions(session)) == 3
    assert statuses(database) == ["retired", "active"]


def test_the_engine_itself_allows_one_active_version_per_role(database: Database) -> None:
    with database.session() as session:
        add_active_pair(session)
        rival = add_version(session)
    with pytest.raises(IntegrityError), database.session() as session:
        session.get_one(ModelVersion, rival.id).status = VersionStatus.active


def test_rejecting_leaves_the_incumbent_alone(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        candidate = add_version(session)
        decision = versions.reject(session, candidate.id, reasons=["-0.2 infected AP"])
        assert (decision.promote, decision.kind, decision.replaced_id) == (False, "gate", None)
        assert versions.active_pair(session) is pair
    assert statuses(database) == ["active", "rejected"]


@pytest.mark.parametrize(
    ("before", "after"), list(itertools.product(VersionStatus, (VersionStatus.active, VersionStatus.rejected)))
)
def test_only_listed_steps_are_taken(sqlite_database: Database, before: VersionStatus, after: VersionStatus) -> None:
    with sqlite_database.session() as session:
        version = add_version(session)
        version.status = before
        session.flush()

        def step() -> None:
            if after is VersionStatus.active:
                versions.activate(session, version.id, kind="person", reasons=[])
            else:
                versions.reject(session, version.id, reasons=[])

        if after in VERSION_TRANSITIONS[before]:
            step()
            assert version.status is after
        else:
            with pytest.raises(IllegalTransition, match=f"is {before.value}: "):
                step()
            assert version.status is before
            assert not versions.decisions(session)


def test_a_repeated_job_step_decides_once(database: Database) -> None:
    with database.session() as session:
        add_active_pair(session)
        run = runs.open_run(session, "infected", "person", {}, {})
        assert run is not None
        candidate, loser = add_version(session), add_version(session)
        first = versions.activate(session, candidate.id, kind="gate", reasons=["a"], run_id=run.id)
        again = versions.activate(session, candidate.id, kind="gate", reasons=["b"], run_id=run.id)
        assert (again.id, again.reasons) == (first.id, ["a"])
        refused = versions.reject(session, loser.id, reasons=["c"], run_id=run.id)
        assert versions.reject(session, loser.id, reasons=["d"], run_id=run.id).id == refused.id
    assert statuses(database) == ["retired", "active", "rejected"]


def test_rollbacks_go_back_one_by_one(database: Database) -> None:
    with database.session() as session:
        one, two, three = (add_version(session) for _ in range(3))
        assert versions.previous(session, "infected") is None
        for version in (one, two, three):
            versions.activate(session, version.id, kind="gate", reasons=[])
        for expected in (two, one):
            assert versions.previous(session, "infected") is expected
            versions.activate(session, expected.id, kind="rollback", reasons=["a person asked"])
        assert versions.previous(session, "infected") is None
        versions.activate(session, three.id, kind="person", reasons=[])
        assert versions.previous(session, "infected") is one
    assert statuses(database) == ["retired", "retired", "active"]


def test_four_threads_promoting_at_once_leave_one_active(database: Database) -> None:
    with database.session() as session:
        add_active_pair(session)
        candidates = [add_version(session).id for _ in range(4)]

    def promote(version_id: int) -> None:
        with database.session() as session:
            versions.activate(session, version_id, kind="person", reasons=[])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(promote, candidates))
    assert sorted(statuses(database)) == ["active", "retired", "retired", "retired", "retired"]
    with database.session() as session:  # every decision names the one it really replaced
        chain = [decision.replaced_id for decision in versions.decisions(session) if decision.kind == "person"]
        assert len(set(chain)) == 4


def test_the_active_pair_is_named_after_its_versions(database: Database) -> None:
    with database.session() as session:
        assert versions.active_pair(session) is None
        all_cells = add_version(session, "all_cells")
        versions.activate(session, all_cells.id, kind="first", reasons=[])
        assert versions.active_pair(session) is None
        infected = add_version(session)
        versions.activate(session, infected.id, kind="first", reasons=[])
        pair = versions.active_pair(session, {"match_iou": 0.5})
        assert pair is not None
        assert pair.name == f"cellloop-{all_cells.id}.{infected.id}"
        assert pair.fusion == {"match_iou": 0.5}
        assert versions.active_pair(session) is pair
        assert versions.pair(session, pair.id) is pair
        assert versions.pair_named(session, pair.name) is pair


def test_a_pair_keeps_its_fusion_once_it_has_any_or_was_used(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        assert versions.active_pair(session, {"match_iou": 0.5}) is pair
        versions.active_pair(session, {"match_iou": 0.6})
        assert pair.fusion == {"match_iou": 0.5}
        used = versions.pair_of(session, pair.all_cells_id, add_version(session).id)
        add_prediction(session, add_image(session), used)
        versions.pair_of(session, used.all_cells_id, used.infected_id, {"match_iou": 0.7})
        assert used.fusion == {}


def test_a_pair_needs_one_version_of_each_role(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        with pytest.raises(RecordError, match="role infected, got all_cells"):
            versions.pair_of(session, pair.all_cells_id, pair.all_cells_id)
        with pytest.raises(NotFound):
            versions.pair_of(session, pair.all_cells_id, NOBODY)
        with pytest.raises(NotFound):
            versions.pair(session, NOBODY)


def test_roles_are_two(database: Database) -> None:
    with pytest.raises(IntegrityError), database.session() as session:
        add_version(session, "leukocytes")
