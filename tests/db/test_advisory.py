"""A lock among all machines that reach one PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from db.advisory import advisory, holds
from db.session import Database

pytestmark = pytest.mark.postgres


def test_one_holds_it_at_a_time_and_it_goes_with_the_connection(postgres_url: str) -> None:
    one, other = Database(postgres_url), Database(postgres_url)
    with advisory(one.engine, "push") as mine:
        assert mine is not None
        assert holds(mine)
        with advisory(other.engine, "push", wait=False) as theirs:
            assert theirs is None
        with advisory(one.engine, "push", wait=False) as again:
            assert again is None, "a thread of the same process is another, too"
        with advisory(other.engine, "another", wait=False) as free:
            assert free is not None
        pid = mine.scalar(text("SELECT pg_backend_pid()"))
        with other.engine.connect() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with advisory(other.engine, "push") as theirs:
            assert theirs is not None
        assert not holds(mine)
    with advisory(one.engine, "push", wait=False) as free:
        assert free is not None
    one.dispose()
    other.dispose()
