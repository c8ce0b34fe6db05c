"""Train a version: the labels as they are now, one detector, its weights in the store, a row that says all of it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version as package_version
from typing import Any

import torch

from al_loop.context import Loop
from al_loop.dataset import DatasetManifest, samples, snapshot
from al_loop.train import Progress, TrainingConfig, train
from backend.detect import DetectorConfig, pick_device
from backend.settings import Settings
from db import runs, versions
from db.models import RunStatus

# Infected cells are rare: most crops of `infected` are centred on one, half of those of `all_cells` on a rare class.
RARE_SHARE = {"all_cells": 0.5, "infected": 0.75}
PACKAGES = ("torch", "torchvision", "timm", "numpy")


class RunCancelled(Exception):
    """Somebody cancelled the run while it trained; its checkpoint stays."""


def training_config(settings: Settings, role: str) -> TrainingConfig:
    """What the installation's settings mean for a training of this role."""
    detector = DetectorConfig(role=role, preset=settings.preset, short_side=settings.short_side)
    return TrainingConfig(
        detector=detector,
        steps=settings.train_steps,
        batch_size=settings.train_batch,
        crop=settings.train_crop,
        rare_share=RARE_SHARE[role],
    )


def environment(device: torch.device) -> dict[str, Any]:
    """What a training ran on, stored with its version."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
    }


def take_snapshot(loop: Loop, run_id: int) -> DatasetManifest:
    """The labels this run trains on: everything recorded when it was opened, however often it is asked."""
    with loop.database.session(read_only=True) as session:
        run = runs.get(session, run_id)
        return snapshot(session, run.role, run.newest_revision_id)


def retrain(loop: Loop, run_id: int, on_progress: Callable[[Progress], None] = lambda progress: None) -> int:
    """Train this run's detector and record it as a candidate version; its id.

    Resumes from the run's checkpoint. Repeating it after the end gives the same version. Raises NotEnoughData,
    TrainingDiverged, RunCancelled.
    """
    manifest = take_snapshot(loop, run_id)
    config = training_config(loop.settings, manifest.role)
    device = pick_device(loop.settings.device)
    alive = True

    def report(progress: Progress) -> None:
        nonlocal alive
        with loop.database.session() as session:
            alive = runs.progress(session, run_id, progress.step, progress.steps, progress.in_words())
        on_progress(progress)

    trained = train(
        config,
        samples(manifest, loop.store),
        out=loop.run_folder(run_id),
        on_progress=report,
        should_stop=lambda: not alive,
        device=device,
    )
    if trained is None:
        raise RunCancelled(f"training run {run_id} was cancelled")
    stored = loop.store.put_file("weights", trained.weights_path)
    with loop.database.session() as session:
        known = versions.with_weights(session, manifest.role, stored.sha256, manifest.sha256)
        if known is not None:
            return known.id
        return versions.add_version(
            session,
            role=manifest.role,
            weights_sha256=stored.sha256,
            config=config.to_json(),
            manifest=manifest.to_json(),
            manifest_sha256=manifest.sha256,
            environment=environment(device) | {"loss": trained.loss, "seconds": trained.seconds},
        ).id


def clean_up(loop: Loop, run_id: int) -> None:
    """Remove an ended run's checkpoints; the weights are in the store. A cancelled or failed run keeps them."""
    with loop.database.session(read_only=True) as session:
        ended = runs.get(session, run_id).status == RunStatus.succeeded
    if ended:
        shutil.rmtree(loop.run_folder(run_id), ignore_errors=True)
