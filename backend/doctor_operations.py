"""The doctor on what runs unattended: workers, training runs, clocks, tokens and backups."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from backend.findings import Finding, notice, ok
from backend.last_backup import last_backup
from db.models import RunStatus, now
from db.operations import Operations, database_now, living, operations, tokens_ending
from db.session import Database

STUCK = timedelta(minutes=15)  # a run tells of each step, of each image predicted and of each stage
APART = timedelta(seconds=5)  # clocks kept by NTP are milliseconds apart
TOKENS_END = timedelta(days=14)
BACKUP_OLD = timedelta(days=7)


def check(database: Database, home: Path) -> Iterator[Finding]:
    """One finding each; nothing here is broken by itself, but somebody should know."""
    with database.session(read_only=True) as session:
        found = operations(session)
        theirs, ours = database_now(session), now()
        ending = [(token.name, token.expires_at) for token in tokens_ending(session, ours + TOKENS_END)]
    yield check_workers(found, ours)
    yield check_runs(found, ours)
    yield check_clock(theirs, ours)
    yield check_tokens(ending, ours)
    yield check_backup(last_backup(home), ours)


def check_workers(found: Operations, moment: datetime) -> Finding:
    """Whether somebody takes from each queue."""
    workers = living(found, moment)
    queues = {name for worker in workers for name in worker.queues}
    idle = [name for name in ("train", "predict", "sync") if name not in queues]
    if idle:
        return notice("workers", f"none takes from {', '.join(idle)}", "run: cellloop worker")
    return ok("workers", ", ".join(f"{worker.name} ({', '.join(worker.queues)})" for worker in workers))


def check_runs(found: Operations, moment: datetime) -> Finding:
    """Whether an open training run has stopped telling of progress."""
    silent = [run for run in found.open_runs if moment - run.updated_at > STUCK]
    if not silent:
        return ok("runs", f"{len(found.open_runs)} open")
    run = silent[0]
    doing = "has waited" if run.status == RunStatus.queued else f"has told nothing ({run.stage or 'begun'})"
    told = f"run {run.id} of {run.role} {doing} for {_spoken(moment - run.updated_at)}"
    return notice("runs", told, "see that a worker lives, and read its log; cancel the run if it hangs")


def check_clock(theirs: datetime, ours: datetime) -> Finding:
    """Whether the database's clock and this machine's agree: leases, schedules and cooldowns compare the two."""
    apart = abs(theirs - ours)
    if apart > APART:
        return notice("clock", f"the database's is {_spoken(apart)} off this machine's", "let NTP set both machines")
    return ok("clock", "the database's agrees with this machine's")


def check_tokens(ending: list[tuple[str, datetime | None]], moment: datetime) -> Finding:
    """Tokens that end within two weeks, or have ended."""
    if not ending:
        return ok("tokens", f"none ends within {TOKENS_END.days} days")
    name, ends = ending[0]
    assert ends is not None
    when = f"ended {_spoken(moment - ends)} ago" if ends <= moment else f"ends in {_spoken(ends - moment)}"
    others = f", and {len(ending) - 1} more" if len(ending) > 1 else ""
    return notice("tokens", f"{name!r} {when}{others}", "make new ones, then revoke these: docs/security.md")


def check_backup(made: datetime | None, moment: datetime) -> Finding:
    """How old the last backup made from this home is."""
    mend = "run: cellloop backup FILE"
    if made is None:
        return notice("backup", "none was made from this home", mend)
    told = f"of {_spoken(moment - made)} ago"
    return notice("backup", told, mend) if moment - made > BACKUP_OLD else ok("backup", told)


def _spoken(time: timedelta) -> str:
    seconds = time.total_seconds()
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
