"""Cross-validation: each fold's two detectors, trained without its images, and what they see in them.

All that a process writes lies in OUT/fold-K and bears its role's name, so folds and roles can be trained side by side.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from al_loop.crossval_config import STEPS, crossval_config, differences, overrule
from al_loop.crossval_folds import VALIDATION_SHARE, Fold, Source, make_fold
from al_loop.crossval_views import SeenImage, load_views, save_views
from al_loop.dataset import content_hash
from al_loop.labelled_files import LabelledFile, read_labelled, training_samples
from al_loop.rendered import write_coco_folder, write_once
from al_loop.train import CHECKPOINT, WEIGHTS, Progress, train
from al_loop.train_config import TrainingConfig
from al_loop.train_model import FEATURES, FrozenTrunk
from al_loop.train_provenance import environment
from backend.detect import Detector, load_detector, pick_device
from backend.errors import NoTrainedModel, SettingRefused
from backend.images import read_image
from backend.pairs import read_card, weights_name
from backend.store import sha256_of

Report = Callable[[int, int, str], None]  # done, total, a word on what is being done
RENDERED_SEED = 977  # not one that tests or demonstrations render with


def _silent(done: int, total: int, note: str) -> None:
    """Nobody is watching."""


@dataclass(frozen=True)
class CrossValidation:
    """What is to be done, whatever the fold and the role.

    train_on: folders among `data` that are trained on (default: all; every one is tested on). rendered: how many
    rendered fields each training gets in addition. settings: "name=value" put over the recipe.
    shared_trunk: `infected` takes over the trunk of the fold's `all_cells`, frozen.
    base: folder of a pair whose weights training begins with, which must not have learned from what is held out.
    """

    data: tuple[Path, ...]
    out: Path
    folds: int = 5
    steps: int = STEPS
    train_on: tuple[Path, ...] | None = None
    rendered: int = 0
    settings: tuple[str, ...] = ()
    shared_trunk: bool = False
    base: Path | None = None
    validation_share: float = VALIDATION_SHARE
    device: str = "auto"

    def config(self, role: str, number: int) -> TrainingConfig:
        """The recipe of one training. Raises SettingRefused, NoTrainedModel when the trunk to share is not there."""
        config = overrule(crossval_config(role, self.steps), self.settings)
        trunk, base = self.trunk(role, number), self.base_weights(role)
        if base is not None:
            config = replace(config, base=sha256_of(base))
        return config if trunk is None else replace(config, trunk=sha256_of(trunk.weights))

    def trunk(self, role: str, number: int) -> FrozenTrunk | None:
        """The trunk this training takes over, if any. Raises NoTrainedModel when it is not there."""
        if not self.shared_trunk or role == "all_cells":
            return None
        weights = self.folder(number, "all_cells") / WEIGHTS
        if not weights.exists():
            raise NoTrainedModel(f"--shared-trunk: expected {weights}, found none; train all_cells of this fold first")
        return FrozenTrunk(weights)

    def base_weights(self, role: str) -> Path | None:
        """The weight file this role's trainings begin with, if any."""
        return None if self.base is None else self.base / weights_name(role)

    def folder(self, number: int, role: str) -> Path:
        """Where one training keeps its checkpoint and weights."""
        return self.out / f"fold-{number}" / role

    def views(self, number: int, role: str, validation: bool = False) -> Path:
        """Where the detections of one training go."""
        return self.out / f"fold-{number}" / f"{role}{'-validation' if validation else ''}.npz"


def read_sources(folders: Sequence[Path]) -> list[Source]:
    """The labelled images of each folder, named after it; an image that comes twice counts once.

    Raises UnusableAnnotations when a folder has none.
    """
    names = Counter[str]()
    known: set[str] = set()
    sources = []
    for folder in folders:
        found, _ = read_labelled(folder)
        files = {file.labelled.sha256: file for file in found if file.labelled.sha256 not in known}
        known |= files.keys()
        name = folder.resolve().name
        names[name] += 1
        sources.append(Source(name if names[name] == 1 else f"{name}-{names[name]}", tuple(files.values())))
    return sources


def train_folds(
    plan: CrossValidation, numbers: Iterable[int], roles: Sequence[str], report: Report = _silent
) -> list[Path]:
    """Train and detect these folds and roles, one after the other; the files of detections. What is done is kept.

    Raises NotEnoughData, UnusableAnnotations, SettingRefused, NoTrainedModel, TrainingDiverged.
    """
    numbers = list(numbers)
    if bad := [number for number in numbers if not 0 <= number < plan.folds]:
        raise SettingRefused(f"--fold: expected numbers from 0 to {plan.folds - 1}, got {bad[0]}")
    sources = read_sources(plan.data)
    chosen = None
    if plan.train_on is not None:
        by_folder = {folder.resolve(): source.name for folder, source in zip(plan.data, sources, strict=True)}
        if strange := [folder for folder in plan.train_on if folder.resolve() not in by_folder]:
            raise SettingRefused(f"--train-on {strange[0]}: expected one of the folders given with --data")
        chosen = [by_folder[folder.resolve()] for folder in plan.train_on]
    written = []
    for number in numbers:
        fold = make_fold(sources, number, plan.folds, train_on=chosen, validation_share=plan.validation_share)
        require_unseen(plan, fold)
        written += [train_fold(plan, fold, role, report) for role in roles]
    return written


def require_unseen(plan: CrossValidation, fold: Fold) -> None:
    """Raise SettingRefused when the base has learned from an image that this fold holds out."""
    if plan.base is None:
        return
    if plan.shared_trunk:
        raise SettingRefused("--base: expected no --shared-trunk beside it: its heads belong to its own trunk")
    seen = set(read_card(plan.base).about.get("trained_on", ()))
    if known := sum(file.labelled.sha256 in seen for files in fold.held_out.values() for file in files):
        raise SettingRefused(
            f"--base {plan.base}: expected weights that never saw the images that fold {fold.number} holds out, they "
            f"learned from {known} of them; leave those out of --data"
        )


def train_fold(plan: CrossValidation, fold: Fold, role: str, report: Report = _silent) -> Path:
    """One detector trained without the fold's images, and its detections in them and in the validation images.

    Goes on where a killed process stopped; a finished one of the same recipe is kept.
    Raises SettingRefused when the folder holds one of another recipe, and as `train_folds`.
    """
    title = f"fold {fold.number} {role}"
    config = plan.config(role, fold.number)
    recipe = _recipe(plan, fold, config)
    out, validation_out = plan.views(fold.number, role), plan.views(fold.number, role, validation=True)
    if out.exists():
        if unlike := differences(load_views(out)[1].get("recipe", {}), recipe):
            raise SettingRefused(f"{out}: {'; '.join(unlike[:5])}; take another --out, or delete this file")
        report(1, 1, f"{title}: done before")
        return out
    files = [file for part in fold.training.values() for file in part]
    if plan.rendered:
        files += read_labelled(rendered_fields(plan.out, plan.rendered))[0]
    samples = training_samples(files, role, lambda done, total: report(done, total, f"{title}: masks"))
    folder = plan.folder(fold.number, role)
    device = pick_device(plan.device)

    def tell(progress: Progress) -> None:
        report(progress.step, progress.steps, f"{title}: {progress.in_words()}")

    trunk = plan.trunk(role, fold.number)
    trained = train(
        config, samples, out=folder, on_progress=tell, device=device, trunk=trunk, base=plan.base_weights(role)
    )
    assert trained is not None  # nobody asked it to stop
    detector = load_detector(trained.weights_path, trained.sha256, device)
    about = {
        "recipe": recipe,
        "weights_sha256": trained.sha256,
        "loss": trained.loss,
        "seconds": trained.seconds,
        "environment": environment(device),
    }
    for path, parts in ((validation_out, fold.validation), (out, fold.held_out)):
        save_views(path, look(detector, parts, lambda done, total: report(done, total, f"{title}: detecting")), about)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(folder / FEATURES, ignore_errors=True)
    return out


def look(
    detector: Detector, parts: dict[str, tuple[LabelledFile, ...]], on_progress: Callable[[int, int], None]
) -> list[SeenImage]:
    """What a detector sees in these images, by source."""
    wanted = [(source, file.labelled) for source, files in parts.items() for file in files]
    views = []
    for source, image in wanted:
        seen = detector.detect(read_image(Path(image.file)))
        views.append(SeenImage(image.sha256, source, image.truth(), image.ignore_boxes(), seen))
        on_progress(len(views), len(wanted))
    return views


def rendered_fields(out: Path, count: int) -> Path:
    """A folder of rendered fields below `out`, made at the first call; processes may ask at once."""
    folder = out / f"rendered-{count}"
    return write_once(folder, lambda fields: write_coco_folder(fields, count, RENDERED_SEED))


def _recipe(plan: CrossValidation, fold: Fold, config: TrainingConfig) -> dict[str, Any]:
    """Everything that decides what a fold's detections are."""
    parts = {"training": fold.training, "validation": fold.validation, "held_out": fold.held_out}
    return {
        "fold": fold.number,
        "folds": plan.folds,
        "rendered": plan.rendered,
        "shared_trunk": plan.shared_trunk,
        "config": config.to_json(),
        "images": {name: {source: len(files) for source, files in part.items()} for name, part in parts.items()},
        "labels_sha256": {
            name: content_hash([file.labelled for files in part.values() for file in files])
            for name, part in parts.items()
        },
    }
