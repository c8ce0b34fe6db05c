"""Fixtures shared by every room: databases on both engines, and real smears where there are some."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from backend.logs import JsonLines, TextLines
from db.migrate import upgrade
from db.models import Base
from db.session import Database, make_engine

pytest_plugins = ["tests.label_studio_fixture", "tests.story", "tests.trouble"]


# They take minutes: first, so that no process is left alone with one of them while the other has nothing to do.
LONGEST_FIRST = (
    "test_bench_faults.py",
    "test_demo.py",
    "test_loop.py",
    "test_train_distributed.py",
    "test_takeover.py",
    "test_train_checkpoint.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others in their order."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Commands that run in this process set up its log; the next test's stderr is not theirs."""
    yield
    for handler in list(logging.root.handlers):
        if isinstance(handler.formatter, TextLines | JsonLines):
            logging.root.removeHandler(handler)
            logging.root.setLevel(logging.WARNING)


def _postgres_tools() -> Path | None:
    """The folder with initdb and pg_ctl: on the PATH, or where Debian keeps the newest version."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(versions, key=lambda path: int(path.parent.parent.name.split(".")[0]))
    return newest[-1].parent if newest else None


def _memory() -> str | None:
    """A folder that lives in memory and has room for some databases, else None: the default."""
    shared = "/dev/shm"
    return shared if os.path.isdir(shared) and shutil.disk_usage(shared).free > 2 * 1024**3 else None


@dataclass(frozen=True)
class PostgresServer:
    """url: of its database for administration. restart: the command that lets it crash and come back."""

    url: str
    restart: list[str]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL server of our own, reachable through a socket in its own folder."""
    tools = _postgres_tools()
    if tools is None:
        missing = "no PostgreSQL server here: expected initdb on the PATH or in /usr/lib/postgresql"
        # A green run of continuous integration must mean that both engines were asked.
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    folder = Path(tempfile.mkdtemp(prefix="cellloop-pg-", dir=_memory()))
    as_root = os.geteuid() == 0  # PostgreSQL refuses to run as root
    if as_root:
        shutil.chown(folder, "postgres")

    prefix = ["runuser", "-u", "postgres", "--"] if as_root else []

    def run(*command: str) -> None:
        done = subprocess.run(
            [*prefix, *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stdout}")

    data, log = folder / "data", folder / "log"
    settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c autovacuum=off"
    try:
        run(str(tools / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync")  # fmt: skip
        run(str(tools / "pg_ctl"), "-D", str(data), "-l", str(log), "-w", "-o", settings, "start")
        try:
            again = [
                *prefix,
                str(tools / "pg_ctl"),
                "-D",
                str(data),
                "-l",
                str(log),
                "-m",
                "immediate",
                "-w",
                "restart",
            ]
            yield PostgresServer(f"postgresql+psycopg://postgres@/postgres?host={folder}", again)
        finally:
            run(str(tools / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """Address of that server."""
    return postgres_server.url


@pytest.fixture(scope="session")
def new_postgres_database(postgres_url: str) -> Iterator[Callable[[], str]]:
    """A function that creates an empty PostgreSQL database and gives its address."""
    numbers = itertools.count(1)
    engine = make_engine(postgres_url)
    administrator = engine.execution_options(isolation_level="AUTOCOMMIT")

    def create() -> str:
        name = f"cellloop_{next(numbers)}"
        with administrator.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
        return postgres_url.replace("/postgres?", f"/{name}?")

    yield create
    engine.dispose()


@pytest.fixture(scope="session")
def _migrated_postgres(new_postgres_database: Callable[[], str]) -> str:
    """Address of one migrated PostgreSQL database, emptied before every test that uses it."""
    url = new_postgres_database()
    upgrade(url)
    return url


def _empty(url: str) -> None:
    """Delete every row. Twenty times faster than TRUNCATE for a few rows; ids go on counting."""
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # what guards facts must let go
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()


@pytest.fixture(scope="session")
def _migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    file = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(_migrated_sqlite: Path, tmp_path: Path) -> str:
    """Address of a fresh migrated SQLite database."""
    return f"sqlite:///{shutil.copy(_migrated_sqlite, tmp_path / 'cellloop.db')}"


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    """A fresh migrated database on SQLite."""
    database = Database(sqlite_url)
    yield database
    database.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """Address of an empty migrated database, once per engine."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    url = str(request.getfixturevalue("_migrated_postgres"))
    _empty(url)
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty migrated database, once per engine."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a database that was never migrated, once per engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return str(request.getfixturevalue("new_postgres_database")())


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real smears: CELLLOOP_DATA, else ../shared/data beside the repository; skips without it."""
    repository = Path(__file__).resolve().parent.parent
    root = Path(os.environ.get("CELLLOOP_DATA") or repository.parent / "shared" / "data")
    if not (root / "bbbc041").is_dir():
        pytest.skip(f"no real smears in {root}: set CELLLOOP_DATA to a folder with bbbc041/ and iml/")
    return root


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, as it was before, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level
