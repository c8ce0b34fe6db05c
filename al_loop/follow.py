"""Let everything follow the pair that serves: the pool's predictions, suspicions, the order, and Label Studio.

After a turn's decision, an import, a rollback, or a person's promotion. The pool is predicted in shards that spread
over all workers with the queue `predict`; the rest happens on a worker with the queue `sync`, which reaches Label
Studio. Every step only adds what is missing.
"""

from __future__ import annotations

import logging
from typing import Any

from dbos import DBOS

from al_loop import push as pushing
from al_loop import rank as ranking
from al_loop import suspect as suspecting
from al_loop.jobs import LOOK_EVERY_S, PREDICT, runtime
from al_loop.preannotate_pool import preannotate_images, waiting
from al_loop.stages import follow_stage, note
from backend.errors import CellloopError
from backend.logs import about
from db import projects

log = logging.getLogger("cellloop.cycle")

# Half a minute of work on two CPU cores, seconds on a GPU: small enough to spread, and to lose little with a worker.
SHARD = 32


@DBOS.workflow(name="follow.v2", max_recovery_attempts=20)
def follow(run_id: int | None) -> dict[str, Any]:
    """{"pushed": reports, "trouble": what is left for later}. run_id: of the turn that this ends, if any."""
    trouble = []
    try:
        shards = [DBOS.enqueue_workflow(PREDICT, predict_shard, pair, ids, run_id) for pair, ids in shard(run_id)]
        for handle in shards:
            trouble += handle.get_result(polling_interval_sec=LOOK_EVERY_S)
        suspect(run_id)
        rank(run_id)
        pushed = push(run_id)
    except CellloopError as error:
        return {"pushed": [], "trouble": [*trouble, str(error)]}
    return {"pushed": pushed["pushed"], "trouble": trouble + pushed["trouble"]}


@DBOS.step()
def shard(run_id: int | None) -> list[tuple[int, list[int]]]:
    """What the active pair has not predicted yet, in shards: its id with ids of images."""
    with follow_stage(run_id, "preannotate", "looking for what the pair has not predicted") as here:
        pair, missing = waiting(here.loop)
        ids = [image.id for image in missing]
        if ids:
            note(run_id, f"{len(ids)} images wait for a worker that predicts")
        return [(pair.id, ids[start : start + SHARD]) for start in range(0, len(ids), SHARD)] if pair else []


@DBOS.workflow(name="predict-shard.v1", max_recovery_attempts=20)
def predict_shard(pair_id: int, image_ids: list[int], run_id: int | None) -> list[str]:
    """One shard of the pool; what kept it from being predicted, if anything did."""
    return predict_images(pair_id, image_ids, run_id)


@DBOS.step()
def predict_images(pair_id: int, image_ids: list[int], run_id: int | None) -> list[str]:
    """Predict these images, unless they are or another pair serves by now. Files that are away undo no turn."""
    here = runtime()
    pair, missing = waiting(here.loop)
    if pair is None or pair.id != pair_id:
        return []
    wanted = set(image_ids)
    mine = [image for image in missing if image.id in wanted]
    if not mine:
        return []
    others = len(missing) - len(mine)

    def tell(done: int, total: int) -> None:
        note(run_id, f"predicting, {others + total - done} images to go")

    with about(run=run_id, stage="preannotate"):
        try:
            preannotate_images(here.loop, here.pairs.of(pair), mine, tell)
        except CellloopError as error:
            log.warning("%d images are predicted later: %s", len(mine), error)
            return [str(error)]
    return []


@DBOS.step()
def suspect(run_id: int | None) -> int:
    """Labels in doubt, by what models that never trained on them have seen. Returns how many are new."""
    with follow_stage(run_id, "suspect", "looking for labels that may be wrong") as here:
        return suspecting.suspect(here.loop.database).added


@DBOS.step()
def rank(run_id: int | None) -> int:
    """The next batch of fields and cells by what they are worth now. Returns how many images wait."""
    with follow_stage(run_id, "rank", "ranking the pool") as here:
        return ranking.rank(here.loop.database).images


@DBOS.step()
def push(run_id: int | None) -> dict[str, Any]:
    """Predictions and order into every project: {"pushed": reports, "trouble": what kept the other projects from it}.

    A Label Studio that is away does not undo a turn: the worker lets it follow when it is back.
    """
    with follow_stage(run_id, "push", "pushing predictions and order") as here:
        studio = here.loop.label_studio()
        with here.loop.database.session(read_only=True) as session:
            known = projects.projects(session, studio.url)
        pushed, trouble = [], []
        for project in known:
            try:
                pushed.append({"project": project.id} | pushing.push(here.loop, studio, project).to_json())
            except CellloopError as error:
                trouble.append(f"{project.title} gets its predictions later: {error}")
        return {"pushed": pushed, "trouble": trouble}
