"""What the record knows, as Prometheus reads it: asked of SQL at each scrape, in one read-only transaction."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import product
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError

from backend.last_backup import last_backup
from db.models import now
from db.operations import Operations, living, operations
from db.session import Database

log = logging.getLogger(__name__)

# Counters begin at 0, each of them: an increase is only seen from a number to a number.
ROLES = ("all_cells", "infected")
ENDS = ("succeeded", "failed", "cancelled")
KINDS = ("first", "gate", "person", "canary", "rollback")


class RecordCollector(Collector):
    """Numbers of one installation. Where the database does not answer, `cellloop_record_up` is 0 and others are absent.

    home: its folder, for the room left on its disk and its last backup.
    """

    def __init__(self, database: Database, home: Path) -> None:
        self.database = database
        self.home = home

    def collect(self) -> Iterator[Metric]:
        """All families, freshly read."""
        yield from self._home()
        try:
            with self.database.session(read_only=True) as session:
                found = operations(session)
        except DBAPIError as error:
            log.error("metrics without the record: the database failed: %s", error.orig)
            yield _gauge("record_up", "Whether the database answered this scrape.", 0)
            return
        yield _gauge("record_up", "Whether the database answered this scrape.", 1)
        moment = now()
        yield from _waiting(found, moment)
        yield from _work(found, moment)
        yield from _models(found)

    def _home(self) -> Iterator[Metric]:
        disk = shutil.disk_usage(self.home)
        yield _gauge("disk_free_bytes", "Room left on the home folder's disk.", disk.free)
        yield _gauge("disk_size_bytes", "Size of the home folder's disk.", disk.total)
        made = last_backup(self.home)
        if made is not None:
            yield _gauge("backup_age_seconds", "Since the last backup made from this home.", _since(made, now()))


def _waiting(found: Operations, moment: datetime) -> Iterator[Metric]:
    inbox, oldest = found.inbox
    yield _gauge("inbox_waiting", "Webhook calls that no worker has acted on.", inbox)
    yield _gauge("inbox_oldest_seconds", "How long the oldest of them has waited.", _since(oldest, moment))
    requests, oldest = found.requests
    yield _gauge("prediction_requests", "Images somebody opened that no worker has predicted yet.", requests)
    yield _gauge("prediction_request_oldest_seconds", "How long the first has waited.", _since(oldest, moment))
    queue = [
        ((way, state), n) for way, all_, held in found.queue for state, n in (("waiting", all_), ("in_hand", held))
    ]
    yield _family(GaugeMetricFamily, "queue_items", "Items in the review queue.", ("way", "state"), queue)
    yield _counter("reviews", "Reviews recorded (the newest one's id).", found.newest_review)
    yield _counter("label_revisions", "Answers about cells recorded (the newest one's id).", found.newest_revision)
    ages = [((title,), _since(at or made, moment)) for title, at, made in found.synced]
    about = "Since a project was last read to the end."
    yield _family(GaugeMetricFamily, "sync_age_seconds", about, ("project",), ages)


def _work(found: Operations, moment: datetime) -> Iterator[Metric]:
    labels = ("role", "status", "stage")
    runs = [((run.role, run.status, run.stage), run) for run in found.open_runs]
    age = [(key, _since(run.created_at, moment)) for key, run in runs]
    yield _family(GaugeMetricFamily, "open_run_seconds", "Age of each training run not ended.", labels, age)
    silent = [(key, _since(run.updated_at, moment)) for key, run in runs]
    yield _family(GaugeMetricFamily, "open_run_silent_seconds", "Since each last told of progress.", labels, silent)
    ended = dict.fromkeys(product(ROLES, ENDS), 0) | {(role, end): many for role, end, many in found.ended_runs}
    yield _family(CounterMetricFamily, "ended_runs", "Training runs that ended.", ("role", "status"), ended.items())
    alive = living(found, moment)
    many = [((name,), sum(name in worker.queues for worker in alive)) for name in ("train", "predict", "sync")]
    yield _family(GaugeMetricFamily, "workers_alive", "Workers that take from a queue and beat.", ("queue",), many)


def _models(found: Operations) -> Iterator[Metric]:
    active = [((role, str(version)), 1) for role, version in sorted(found.active.items())]
    yield _family(GaugeMetricFamily, "active_version_info", "Which version serves.", ("role", "version"), active)
    pair = [] if found.pair is None else [((found.pair,), 1)]
    yield _family(GaugeMetricFamily, "active_pair_info", "Which pair serves.", ("pair",), pair)
    told = {(role, kind, "yes" if promote else "no"): many for role, kind, promote, many in found.decisions}
    decided = dict.fromkeys(product(ROLES, KINDS, ("yes", "no")), 0) | told
    about = "Promotions (yes), refusals (no) and rollbacks, by who decided."
    yield _family(CounterMetricFamily, "decisions", about, ("role", "kind", "promoted"), decided.items())


def _since(moment: datetime | None, present: datetime) -> float:
    return 0.0 if moment is None else max(0.0, (present - moment).total_seconds())


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"cellloop_{name}", about, value=value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"cellloop_{name}", about, value=value)


def _family(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    about: str,
    labels: tuple[str, ...],
    values: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    family = kind(f"cellloop_{name}", about, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family
