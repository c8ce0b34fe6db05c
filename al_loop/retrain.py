"""Train a version: the labels as they are now, one detector, its weights in the store, a row that says all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from al_loop.context import Loop
from al_loop.dataset import DatasetManifest, samples
from al_loop.recipe import recipe
from al_loop.run_checkpoints import Checkpoints
from al_loop.snapshot import snapshot
from al_loop.train import Progress, TrainedModel, train
from al_loop.train_config import TrainingConfig
from al_loop.train_distributed import current_ranks, joined
from al_loop.train_model import FrozenTrunk
from al_loop.train_provenance import environment
from backend.checkpoints import load_weights
from backend.detect import DetectorConfig, pick_device
from backend.errors import NoTrainedModel
from backend.pairs import STARTER, read_card, weights_name
from backend.settings import Settings
from backend.store import weights_file
from db import run_events, runs, versions
from db.models import RunStatus, now


class RunCancelled(Exception):
    """Somebody cancelled the run while it trained; its checkpoint stays."""


def training_config(settings: Settings, role: str) -> TrainingConfig:
    """What the installation's settings mean for a training of this role: the recipe, but for what they overrule."""
    detector = DetectorConfig(role=role, preset=settings.preset, short_side=settings.short_side)
    config = replace(recipe(detector, settings.train_steps), accumulate=settings.train_accumulate)
    if settings.train_batch is not None:
        config = replace(config, batch_size=settings.train_batch)
    return config if settings.train_crop is None else replace(config, crop=settings.train_crop)


def take_snapshot(loop: Loop, run_id: int) -> DatasetManifest:
    """The labels this run trains on: everything recorded when it was opened, however often it is asked."""
    with loop.database.session(read_only=True) as session:
        run = runs.get(session, run_id)
        return snapshot(session, run.role, run.newest_revision_id)


def chosen_trunk(loop: Loop, config: TrainingConfig) -> tuple[TrainingConfig, FrozenTrunk | None]:
    """The configuration with the trunk its settings ask for: that of the all_cells version that serves, or an own one.

    Before the first all_cells version, `infected` has an own trunk whatever the settings say.
    """
    if config.detector.role != "infected" or loop.settings.infected_trunk == "own":
        return config, None
    with loop.database.session(read_only=True) as session:
        serving = versions.active(session, "all_cells")
    if serving is None:
        return config, None
    weights = loop.store.verify(weights_file(serving.weights_sha256), serving.weights_sha256)
    trunk = FrozenTrunk(weights, loop.features, loop.settings.trunk_cache_bytes)
    return replace(config, trunk=serving.weights_sha256), trunk


def chosen_base(loop: Loop, config: TrainingConfig) -> tuple[TrainingConfig, Path | None]:
    """The configuration with what training begins from: the starter weights of its role, where they fit, or nothing.

    Always the same ones, never what serves now: a candidate learns from all labels afresh (warm starts from version to
    version generalise worse: Ash and Adams, arXiv 1910.08475).
    """
    role = config.detector.role
    if config.trunk is not None or loop.settings.train_from == "scratch":
        return config, None
    try:
        card = read_card(STARTER)
    except NoTrainedModel:
        return config, None
    sha256 = card.sha256[role]
    stored = loop.store.put_file("weights", STARTER / weights_name(role))
    path = loop.store.path(stored.file)
    if load_weights(path, sha256)[1].get("detector", {}).get("preset") != config.detector.preset:
        return config, None
    return replace(config, base=sha256), path


def seen_by_base(config: TrainingConfig) -> dict[str, list[str]]:
    """{"trained_on": sha256 of the images that the base had learned from}; nothing without one."""
    return {} if config.base is None else {"trained_on": sorted(read_card(STARTER).about.get("trained_on", []))}


def train_run(
    loop: Loop,
    run_id: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    worker_id: int | None = None,
) -> tuple[TrainingConfig, DatasetManifest, TrainedModel]:
    """Train this run's detector, or this process's share of it; what with, on what, and the weights in its folder.

    Resumes from the run's checkpoint, fetched from the store that several machines share where another one wrote it.
    Only the leading process writes to the record, as worker_id if that is given. Raises NotEnoughData,
    TrainingDiverged, OutOfMemory, RunCancelled, TakenOver.
    """
    manifest = take_snapshot(loop, run_id)
    config, trunk = chosen_trunk(loop, training_config(loop.settings, manifest.role))
    config, base = chosen_base(loop, config)
    checkpoints = Checkpoints(loop, run_id, worker_id)
    with loop.database.session(read_only=True) as session:
        afterwards = run_events.seconds_after(session, manifest.role, "train")
    alive = True

    def report(progress: Progress) -> None:
        nonlocal alive
        left = progress.seconds_left + (afterwards or 0.0)
        with loop.database.session() as session:
            alive = runs.progress(
                session,
                run_id,
                progress.step,
                progress.steps,
                progress.in_words(),
                worker_id=worker_id,
                ends_at=now() + timedelta(seconds=left),
            )
        on_progress(progress)

    with joined(pick_device(loop.settings.device)) as (_, device):
        trained = train(
            config,
            samples(manifest, loop.store),
            out=checkpoints.bring(),
            on_progress=report,
            on_checkpoint=checkpoints.share,
            should_stop=lambda: not alive,
            device=device,
            trunk=trunk,
            base=base,
            about={"manifest_sha256": manifest.sha256},
        )
    if trained is None:
        raise RunCancelled(f"training run {run_id} was cancelled")
    return config, manifest, trained


def retrain(
    loop: Loop,
    run_id: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    worker_id: int | None = None,
) -> int:
    """Train this run's detector and record it as a candidate version; its id.

    Repeating it after the end gives the same version. Raises what `train_run` raises.
    """
    config, manifest, trained = train_run(loop, run_id, on_progress, worker_id)
    stored = loop.store.put_file("weights", trained.weights_path)
    used = environment(pick_device(loop.settings.device), current_ranks())
    with loop.database.session() as session:
        if worker_id is not None:
            runs.enter_stage(session, run_id, "train", worker_id)  # refuses a worker that was taken for dead
        known = versions.with_weights(session, manifest.role, stored.sha256, manifest.sha256)
        if known is not None:
            return known.id
        return versions.add_version(
            session,
            role=manifest.role,
            weights_sha256=stored.sha256,
            config=config.to_json(),
            manifest=manifest.to_json() | seen_by_base(config),
            manifest_sha256=manifest.sha256,
            environment=used | {"seed": config.seed, "loss": trained.loss, "seconds": trained.seconds},
        ).id


def clean_up(loop: Loop, run_id: int) -> None:
    """Remove an ended run's checkpoints; the weights are in the store. A cancelled or failed run keeps them."""
    with loop.database.session(read_only=True) as session:
        ended = runs.get(session, run_id).status == RunStatus.succeeded
    if ended:
        Checkpoints(loop, run_id).remove()
