"""Transactions: who commits, who waits, who may only read."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from db import images, inbox, reviews
from db.errors import UnusableDatabase
from db.models import Cell, InboxEvent
from db.session import GAP_S, LONG_S, Database, parse_url
from tests import builders


def fail_half_way(database: Database) -> None:
    with database.session() as session:
        builders.add_image(session, "lost.png")
        raise UnusableDatabase("in the middle")


def test_session_commits_on_success_and_rolls_back_on_error(database: Database) -> None:
    with database.session() as session:
        builders.add_image(session, "kept.png")
    with pytest.raises(UnusableDatabase):
        fail_half_way(database)
    with database.session(read_only=True) as session:
        assert [image.name for image in images.pool(session)] == ["kept.png"]


def test_rows_stay_readable_after_the_commit(database: Database) -> None:
    with database.session() as session:
        image = builders.add_image(session, "a.png")
    assert (image.name, image.split.value) == ("a.png", "train")


def test_a_read_only_session_is_refused_writes(database: Database) -> None:
    with pytest.raises(DBAPIError), database.session(read_only=True) as session:
        builders.add_image(session)
    with database.session() as session:  # the same pooled connection may write again
        builders.add_image(session)


def test_a_read_only_session_sees_one_moment(database: Database) -> None:
    with database.session(read_only=True) as reading:
        assert images.pool(reading) == []
        with database.session() as session:
            builders.add_image(session)
        assert images.pool(reading) == []
    with database.session(read_only=True) as reading:
        assert len(images.pool(reading)) == 1


def test_four_threads_that_read_and_then_write_lose_nothing(database: Database) -> None:
    """The pattern that fails with "database is locked" when SQLite begins deferred."""

    def count_up(worker: int) -> None:
        for step in range(25):
            with database.session() as session:
                session.scalar(select(func.count()).select_from(InboxEvent))
                inbox.receive(session, "ANNOTATION_CREATED", {"worker": worker, "step": step})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_up, range(4)))
    with database.session() as session:
        assert len(inbox.unhandled(session)) == 100


def test_sqlite_write_transactions_begin_immediate(sqlite_database: Database) -> None:
    """A second writer waits from its very beginning, so what it reads can never be stale."""
    with sqlite_database.engine.connect() as first:
        first.execute(text("SELECT 1"))  # has only read, and holds the write lock all the same
        with sqlite_database.engine.connect() as second:
            raw = second.connection.driver_connection
            assert raw is not None
            raw.execute("PRAGMA busy_timeout = 0")
            with pytest.raises(DBAPIError, match="locked"):
                second.execute(text("SELECT 1"))
            raw.execute("PRAGMA busy_timeout = 30000")
        with sqlite_database.session(read_only=True) as reader:  # a reader never waits
            assert images.counts(reader)["train"] == 0


def test_on_sqlite_who_wrote_for_long_lets_others_write_before_it_writes_again(sqlite_database: Database) -> None:
    with sqlite_database.session() as session:
        enough = time.monotonic() + 2 * LONG_S
        while time.monotonic() < enough:
            session.execute(text("SELECT 1"))
        ending = time.monotonic()
    with sqlite_database.session() as session:
        builders.add_image(session, "two.png")
        assert time.monotonic() - ending >= GAP_S


def test_sqlite_settings(sqlite_database: Database) -> None:
    with sqlite_database.session() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30_000}


def test_foreign_keys_are_enforced(database: Database) -> None:
    with pytest.raises(IntegrityError), database.session() as session:
        session.add(Cell(image_id=builders.NOBODY, key="nobody"))


def test_not_a_number_is_refused_in_json_on_both_engines(database: Database) -> None:
    with pytest.raises((StatementError, ValueError)), database.session() as session:
        images.add_import(session, source="x", dataset="coco", report={"share": float("nan")})


def test_naive_datetimes_are_refused(database: Database) -> None:
    naive = builders.START.replace(tzinfo=None)
    with database.session() as session:
        image = builders.add_image(session)
    with pytest.raises(StatementError, match="time zone"), database.session() as session:
        builders.add_review(session, image, revised_at=naive)


def test_moments_come_back_in_utc(database: Database) -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    with database.session() as session:
        image = builders.add_image(session)
        builders.add_review(session, image, revised_at=datetime(2026, 3, 1, 2, 15, 0, 123456, tzinfo=zone))
    with database.session() as session:
        (review,) = reviews.live_reviews(session, image.id)
        assert review.revised_at == datetime(2026, 2, 28, 20, 45, 0, 123456, tzinfo=UTC)
        assert review.revised_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "not an address"])
def test_unusable_addresses_are_named(url: str) -> None:
    with pytest.raises(UnusableDatabase, match="expected"):
        parse_url(url)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_postgresql_is_spoken_through_psycopg(scheme: str) -> None:
    assert parse_url(f"{scheme}://me@host/name").drivername == "postgresql+psycopg"
