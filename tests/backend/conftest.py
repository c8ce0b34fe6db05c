"""Fixtures of the server's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.backend.server import Bench


@pytest.fixture
def bench(tmp_path: Path, sqlite_url: str) -> Iterator[Bench]:
    """A home without images or models."""
    bench = Bench(tmp_path / "home", sqlite_url)
    yield bench
    bench.database.dispose()


@pytest.fixture
def client(bench: Bench) -> Iterator[TestClient]:
    """A client of the server on that home."""
    with bench.client() as client:
        yield client
