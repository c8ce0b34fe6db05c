"""The worker: keeps the loop turning. Reads facts from SQL, acts, and sleeps while there is nothing to do.

A webhook's wake-up is acted on within a fraction of a second; without any, Label Studio is asked every few seconds.
Retrainings and predictions of the pool run on DBOS's threads, so that reviews keep coming in while one trains. Of all
workers with the queue `sync`, on however many machines, one is the steward and ticks; the others stand by.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from dbos import DBOS, SetWorkflowID, WorkflowHandle
from sqlalchemy.exc import SQLAlchemyError

from al_loop.context import Loop
from al_loop.cycle import TURN, turn
from al_loop.first_models import COMMAND
from al_loop.follow import follow
from al_loop.jobs import QUEUES, SYNC, TRAIN, durable, runtime
from al_loop.preannotate_pool import preannotate_images
from al_loop.push import push
from al_loop.rank import rank
from al_loop.rerank import rerank
from al_loop.sync import pause_after, sync
from al_loop.trigger import ask_for_retraining, open_when_due
from al_loop.watch_canary import watch_canary
from al_loop.watch_drift import check_drift_when_due
from backend.errors import CellloopError
from backend.instances import ROLES
from backend.label_studio.client import LabelStudio
from backend.label_studio.protocol import START_TRAINING
from backend.locks import Occupied
from backend.serving import PairCache, active_pair, spare_the_collector
from db import inbox, predictions, projects, queue, runs
from db.errors import RecordError
from db.models import Project, ReviewStatus, RunStatus, now

log = logging.getLogger("cellloop.worker")

SWEEP_EVERY = 6  # polls between two looks for deleted tasks, and for what a wrong clock hid
RETRAINED_ROLE = "infected"
# Reviews that give something back to the pool: only a ranking finds it again.
RETURNING = {ReviewStatus.skipped.value, ReviewStatus.withdrawn.value}
FOLLOW_AGAIN = 3  # polls of rest after trouble with following: each attempt leaves a workflow's rows behind
READ_AGAIN = 30  # polls between two attempts at images that could not be read
STAND_BY_S = 1.0  # how often a worker that is not the steward asks whether it should be
# What DBOS calls a workflow that does not go on.
ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
CLEAR_AWAY_EVERY_S = 3600.0
WORKFLOWS_KEPT = timedelta(days=30)  # DBOS's rows of what has ended; runs, their logs and all facts are kept for good
LOOK_AFTER_RUNS_S = 5.0  # how often the steward asks whether every open run still has a workflow


class Worker:
    """One worker's view of the loop between two ticks. `tick` does whatever is due now. pairs: shared with its jobs."""

    def __init__(self, loop: Loop, pairs: PairCache | None = None) -> None:
        self.loop = loop
        self.studio: LabelStudio = loop.label_studio()
        self.pairs = pairs or PairCache(loop.database, loop.store, loop.settings.device)
        self._next_poll = 0.0
        self._polls = 0
        self._named: dict[
            int, set[int]
        ] = {}  # Label Studio's project -> tasks that webhooks named, until they are read
        self._following: WorkflowHandle[dict[str, Any]] | None = None
        self._unreadable: set[int] = set()
        self._read_again = 0.0  # when what could not be predicted is tried again
        self._shown: dict[int, str] = {}  # project -> the pair whose predictions Label Studio has
        self._ordered: dict[int, int] = {}  # project -> the ranking whose order Label Studio has
        self._looked_after = -LOOK_AFTER_RUNS_S
        self._cleared_away = time.monotonic()
        self._rests_until: dict[str, float] = {}
        self._complaints: dict[str, str] = {}

    def tick(self) -> None:
        """Reviews in, predictions somebody waits for, order out, and a retraining when it is due.

        Trouble with one of them (Label Studio is away, a weight file is damaged) keeps none of the others.
        """
        came = self._sync()
        predicted = self._attempt("predictions on request", self._predict_requested)
        if (came or predicted) and active_pair(self.loop.database) is not None:
            self._order(pool_changed=predicted or bool(came & RETURNING))
        if came:
            self._attempt("canary", lambda: watch_canary(self.loop))
        self._push_order()
        self._attempt("drift", lambda: check_drift_when_due(self.loop))
        for role in ROLES:
            open_when_due(self.loop, role)
        self._look_after_runs()
        if time.monotonic() - self._cleared_away >= CLEAR_AWAY_EVERY_S:
            self._cleared_away = time.monotonic()
            clear_away(now() - WORKFLOWS_KEPT)
            self.loop.store.clear_unfinished()
        self._attempt("following the serving pair", self._follow_pair, rest_s=FOLLOW_AGAIN * self.loop.settings.poll_s)

    def _order(self, pool_changed: bool) -> None:
        """Follow new labels where the waiting batch can; rank the pool where it has changed, or the batch is used."""
        if pool_changed or rerank(self.loop.database) is None:
            rank(self.loop.database)
        self._ordered.clear()  # a batch that was only rescored is the same ranking in another order

    def _attempt(self, what: str, part: Callable[[], bool], rest_s: float = 0.0) -> bool:
        """Do a part of the tick, unless it rests after trouble. Complains once, not at every tick."""
        if time.monotonic() < self._rests_until.get(what, 0.0):
            return False
        try:
            done = part()
        except Occupied:
            return False
        except (CellloopError, RecordError) as error:
            rest_s = max(rest_s, self.loop.settings.poll_s)
            self._rests_until[what] = time.monotonic() + rest_s
            if str(error) != self._complaints.get(what):
                self._complaints[what] = str(error)
                log.warning("%s: %s; nothing is lost, trying again every %g s", what, error, rest_s)
            return False
        if done and what in self._complaints:
            del self._complaints[what]
            log.info("%s: works again", what)
        return done

    def _sync(self) -> set[str]:
        """What became of annotations since the last time: statuses of reviews; empty when nothing is due or new."""
        with self.loop.database.session(read_only=True) as session:
            events = [(event.id, event.action) for event in inbox.unhandled(session)]
            asked = inbox.asked(session)
            known = projects.projects(session, self.studio.url)
        if not events and time.monotonic() < self._next_poll:
            return set()
        sweep = any("DELETED" in action for _, action in events) or self._polls % SWEEP_EVERY == 0
        if any(action == START_TRAINING for _, action in events):
            ask_for_retraining(self.loop, "Start training was pressed", RETRAINED_ROLE, "label-studio")
        if asked is not None:
            why = f"{asked.payload['why']} ({asked.payload['by']})"
            ask_for_retraining(self.loop, why, RETRAINED_ROLE)
        came: set[str] = set()
        for project in known:

            def read(project: Project = project) -> bool:
                report = sync(self.loop, self.studio, project, sweep=sweep)
                if report.deleted:  # what still waits gets a new task, whether or not anybody answers anything soon
                    self._ordered.pop(project.id, None)
                if report.changed:
                    came.update(report.reviews)
                    log.info("synced %s", report.to_json())
                return True

            self._attempt(f"reviews of {project.title}", read)
        # Events only wake us. Where reading failed, the next poll reads from the same cursor on.
        with self.loop.database.session() as session:
            inbox.handle(session, [event_id for event_id, _ in events])
        self._polls += 1
        self._next_poll = time.monotonic() + self.loop.settings.poll_s
        return came

    def _predict_requested(self) -> bool:
        with self.loop.database.session(read_only=True) as session:
            asked = predictions.requests(session)
        if not asked or active_pair(self.loop.database) is None:
            return False
        return preannotate_images(self.loop, self.pairs.current(), asked, lambda done, total: None) > 0

    def _push_order(self) -> None:
        """Push a new ranking where Label Studio has the pair's predictions; showing a pair first is `follow`'s job."""
        pair = active_pair(self.loop.database)
        with self.loop.database.session(read_only=True) as session:
            ranking = queue.latest_ranking(session)
            known = projects.projects(session, self.studio.url)
        if pair is None or ranking is None or ranking.pair_id != pair.id:
            return
        for project in known:
            if self._shown.get(project.id) != pair.name or self._ordered.get(project.id) == ranking.id:
                continue

            def order(project: Project = project, ranking_id: int = ranking.id) -> bool:
                push(self.loop, self.studio, project, wait=False)
                self._ordered[project.id] = ranking_id
                return True

            self._attempt(f"order of {project.title}", order)

    def _look_after_runs(self) -> None:
        """Give every queued run its workflow; fail one whose workflow has ended and left it open."""
        with self.loop.database.session(read_only=True) as session:
            ours = [run for run in runs.all_open(session) if run.trigger != COMMAND]
        overdue = time.monotonic() - self._looked_after >= LOOK_AFTER_RUNS_S
        if overdue:
            self._looked_after = time.monotonic()
        for run in ours:
            if run.status == RunStatus.queued or overdue:
                workflow = f"{TURN}-{run.id}"
                known = DBOS.get_workflow_status(workflow)
                if known is None:
                    with SetWorkflowID(workflow):  # an id that exists is not started twice
                        DBOS.enqueue_workflow(TRAIN, turn, run.id)
                elif known.status in ENDED:
                    self._fail_left_open(run.id, known.status)

    def _fail_left_open(self, run_id: int, status: str) -> None:
        with self.loop.database.session() as session:
            if runs.get(session, run_id).finished_at is None:
                runs.fail(session, run_id, f"its workflow ended as {status}; cellloop runs retry {run_id} tries again")
                log.error("training run %d was left open by its workflow, which ended as %s", run_id, status)

    def _follow_pair(self) -> bool:
        """Predict, rank and show what the serving pair has not: after an import, a rollback, a person's promotion.

        True when everything had followed. Also what a turn could not push while Label Studio was away.
        """
        if self._following is not None:
            status = self._following.get_status().status
            if status in ("PENDING", "ENQUEUED"):
                return False
            ended, self._following = self._following, None
            crashed: dict[str, Any] = {"pushed": [], "trouble": [f"its workflow ended as {status}"]}
            outcome = ended.get_result() if status == "SUCCESS" else crashed
            self._shown.update({report["project"]: report["model_version"] for report in outcome["pushed"]})
            if outcome["trouble"]:
                raise CellloopError("; ".join(outcome["trouble"]))
            log.info("everything follows the serving pair")
            self._unreadable = self._unpredicted()  # what is missing after the attempt cannot be predicted yet
            self._read_again = time.monotonic() + READ_AGAIN * self.loop.settings.poll_s
        pair = active_pair(self.loop.database)
        with self.loop.database.session(read_only=True) as session:
            busy = runs.open_of(session, RETRAINED_ROLE) is not None
            ranking = queue.latest_ranking(session)
            known = projects.projects(session, self.studio.url)
        if pair is None or busy:
            return False
        if time.monotonic() >= self._read_again:
            self._unreadable.clear()  # somebody may have mended their files
        behind = ranking is None or ranking.pair_id != pair.id or bool(self._unpredicted() - self._unreadable)
        if behind or any(self._shown.get(project.id) != pair.name for project in known):
            self._following = DBOS.enqueue_workflow(SYNC, follow, None)
            return False
        return True

    def _unpredicted(self) -> set[int]:
        pair = active_pair(self.loop.database)
        with self.loop.database.session(read_only=True) as session:
            return {image.id for image in predictions.missing(session, pair.id)} if pair is not None else set()


def clear_away(before: datetime) -> int:
    """Remove DBOS's rows of workflows that ended before this moment; how many, some hundreds at most."""
    until = before.isoformat()
    ended = DBOS.list_workflows(
        status=list(ENDED), completed_before=until, limit=500, load_input=False, load_output=False
    )
    DBOS.delete_workflows([workflow.workflow_id for workflow in ended])
    return len(ended)


def run_worker(loop: Loop, stop: threading.Event, queues: Sequence[str] = tuple(QUEUES)) -> None:
    """Take work from these queues until `stop` is set; with `sync` among them, tick while nobody else does.

    What is in progress then is continued at its last step by another worker, or the next one.
    """
    with durable(loop, queues):
        spare_the_collector()
        log.info("worker is up, queues: %s", ", ".join(queues))
        while not stop.is_set():
            if SYNC in queues:
                _be_steward(loop, stop)
            stop.wait(STAND_BY_S)
    log.info("worker stopped")


def _be_steward(loop: Loop, stop: threading.Event) -> None:
    """Tick until `stop` is set or the lock is lost; return at once while another worker holds it."""
    try:
        with loop.alone("steward", wait=False) as held:
            worker = Worker(loop, runtime().pairs)
            log.info("this worker syncs, ranks and starts retrainings")
            while not stop.is_set() and held():
                began = time.monotonic()
                worker.tick()
                stop.wait(pause_after(time.monotonic() - began))
    except Occupied:
        return
    except SQLAlchemyError as error:
        log.warning("the database does not answer: %s; nothing is lost, trying again", str(error).split("\n")[0])
