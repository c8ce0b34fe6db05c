"""Starter weights: both detectors trained on BBBC041 and rendered smears only, so that they may be passed on.

The fusion is never fitted on images that a detector learned from: its scores there say nothing about others. With all
folds trained before, it is fitted on what each fold's detectors saw in the images held out; without them, a part of
the images is kept for it.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from al_loop.crossval_config import differences, overrule
from al_loop.crossval_folds import Fold, Source, make_fold
from al_loop.crossval_views import SeenImage, load_views, save_views
from al_loop.labelled_files import LabelledFile, read_labelled, training_samples
from al_loop.recipe import recipe
from al_loop.rendered import write_once, write_training_fields
from al_loop.starter_card import BBBC041, write_card
from al_loop.train import WEIGHTS, Progress, train
from al_loop.train_config import TrainingConfig
from al_loop.train_model import FrozenTrunk
from backend.calibrate import fit_fusion
from backend.checkpoints import load_weights
from backend.detect import DetectorConfig, load_detector, pick_device
from backend.errors import NotEnoughData, SettingRefused
from backend.fuse import FusionConfig
from backend.images import read_image
from backend.instances import ROLES
from backend.pairs import save_pair

Report = Callable[[int, int, str], None]  # done, total, a word on what is being done
NAME = "starter"
PAIR = "pair"  # the folder below OUT that is shipped
SOURCE = "bbbc041"
RENDERED_SEED = 4041
STEPS = 600


def starter_config(role: str) -> TrainingConfig:
    """The recipe of the starter weights."""
    return recipe(DetectorConfig(role=role), STEPS)


@dataclass(frozen=True)
class StarterPlan:
    """What is to be trained. fold: hold this one of `folds` out and train without it; None: train what is shipped.

    rendered: how many rendered fields to add; None: as many as make up `rendered_share` of all fields. validation_share
    of the images are kept to fit the fusion on while not all folds are trained. settings: "name=value" over the recipe.
    """

    bbbc041: Path
    out: Path
    rendered: int | None = None
    rendered_share: float = 0.3
    steps: int | None = None
    seed: int = 0
    folds: int = 5
    fold: int | None = None
    validation_share: float = 0.15
    shared_trunk: bool = False
    settings: tuple[str, ...] = ()
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.rendered_share < 1:
            raise SettingRefused(f"--rendered-share: expected a share from 0 to below 1, got {self.rendered_share}")
        if self.fold is not None and not 0 <= self.fold < self.folds:
            raise SettingRefused(f"--fold: expected a number from 0 to {self.folds - 1}, got {self.fold}")

    @property
    def folder(self) -> Path:
        """Where this training keeps its weights."""
        return self.out / ("whole" if self.fold is None else f"fold-{self.fold}")

    def config(self, role: str, trunk: Path | None) -> TrainingConfig:
        """The recipe of one training. trunk: the weights whose trunk `infected` takes over. Raises SettingRefused."""
        config = replace(starter_config(role), seed=self.seed)
        if self.steps is not None:
            config = replace(config, steps=self.steps)
        if trunk is not None:
            config = replace(config, trunk=hashlib.sha256(trunk.read_bytes()).hexdigest())
        return overrule(config, self.settings)

    def fields(self, real: int) -> int:
        """How many rendered fields go with so many real ones."""
        share = self.rendered_share
        return round(real * share / (1 - share)) if self.rendered is None else self.rendered

    def command(self) -> str:
        """The command that repeats this training, with names instead of this machine's folders."""
        words = ["cellloop", "starter", "train", "--bbbc041", "BBBC041", "--out", "OUT", "--seed", str(self.seed)]
        words += ["--rendered-share", f"{self.rendered_share:g}"] if self.rendered is None else []
        words += ["--rendered", str(self.rendered)] if self.rendered is not None else []
        words += ["--steps", str(self.steps)] if self.steps is not None else []
        words += ["--shared-trunk"] if self.shared_trunk else []
        return shlex.join([*words, *(word for setting in self.settings for word in ("--set", setting))])


def _silent(done: int, total: int, note: str) -> None:
    """Nobody is watching."""


def train_starter(plan: StarterPlan, roles: Sequence[str] = ROLES, report: Report = _silent) -> Path:
    """Train what the plan says, going on where a killed process stopped; where the pair or the fold's detections lie.

    roles: some of them only, so that two processes may train side by side; the pair is made by whoever finds both.
    Raises UnusableAnnotations, NotEnoughData, SettingRefused, TrainingDiverged, and NotEnoughData when the other
    role's weights are needed and not there yet.
    """
    source = Source(SOURCE, tuple(_distinct(read_labelled(plan.bbbc041, dataset=SOURCE)[0])))
    # A role with all its folds learns from all images, whether or not the other one's folds are through by now.
    by_folds = plan.fold is None and all(fold_views(plan, source, role) is not None for role in roles)
    fold = _parts(plan, source, keep=not by_folds)
    training = list(fold.training[SOURCE])
    rendered = write_rendered(plan, plan.fields(len(training)), report)
    files = training + (read_labelled(rendered)[0] if rendered else [])
    for role in roles:
        train_role(plan, role, files, report)
    for role in roles:
        _look(plan, role, fold, report)
    if plan.fold is not None or not all((plan.folder / role / WEIGHTS).exists() for role in ROLES):
        return plan.folder  # of the pair, the other role is being trained elsewhere
    kept = [_views(plan, role, validation=True) for role in ROLES]
    if by_folds:
        known = [side for role in ROLES if (side := fold_views(plan, source, role)) is not None]
    else:
        known = [load_views(path)[0] for path in kept if path.exists()]
    if len(known) < len(ROLES):
        return plan.folder  # one role has its folds, the other not yet: nothing to fit the fusion on
    calibration = _views_of(*known)
    told = f"all {len(calibration)} images, each seen by detectors of the fold trained without it"
    if not by_folds:
        told = f"{len(calibration)} images kept for it"
    return _write_pair(plan, source, rendered, fit_fusion(calibration), told)


def _distinct(files: Sequence[LabelledFile]) -> list[LabelledFile]:
    return list({file.labelled.sha256: file for file in files}.values())


def _parts(plan: StarterPlan, source: Source, keep: bool) -> Fold:
    """Which images are trained on, kept for the fusion, and held out."""
    if plan.fold is not None:
        # The other folds' detections are what the fusion is fitted on: nothing has to be kept for it.
        return make_fold([source], plan.fold, plan.folds, validation_share=0.0, seed=plan.seed)
    if not keep:
        return Fold(-1, {SOURCE: source.files}, {SOURCE: ()}, {SOURCE: ()})
    # One of so many folds is the share asked for, dealt out so that rare stages are in it.
    count = max(2, round(1 / plan.validation_share))
    part = make_fold([source], 0, count, validation_share=0.0, seed=plan.seed)
    return Fold(-1, part.training, part.held_out, {SOURCE: ()})


def write_rendered(plan: StarterPlan, count: int, report: Report = _silent) -> Path | None:
    """A folder of rendered fields below `out`, made at the first call; processes may ask at once. None for none."""
    if not count:
        return None
    folder = plan.out / f"rendered-{count}-{plan.seed}"
    seed = RENDERED_SEED + plan.seed
    return write_once(
        folder, lambda fields: write_training_fields(fields, count, seed, lambda a, b: report(a, b, "rendering"))
    )


def train_role(plan: StarterPlan, role: str, files: Sequence[LabelledFile], report: Report = _silent) -> Path:
    """Train one detector on these files; its weight file. A finished training of the same recipe is kept."""
    trunk = plan.folder / "all_cells" / WEIGHTS if plan.shared_trunk and role == "infected" else None
    if trunk is not None and not trunk.exists():
        raise NotEnoughData(f"--shared-trunk: expected {trunk}, found none; train all_cells first")
    config = plan.config(role, trunk)
    samples = training_samples(files, role, lambda done, total: report(done, total, f"{role}: masks"))

    def tell(progress: Progress) -> None:
        report(progress.step, progress.steps, f"{role}: {progress.in_words()}")

    trained = train(
        config,
        samples,
        out=plan.folder / role,
        on_progress=tell,
        device=pick_device(plan.device),
        trunk=None if trunk is None else FrozenTrunk(trunk),
        about={"data": f"{BBBC041} and rendered smears", "command": plan.command()},
    )
    assert trained is not None  # nobody asked it to stop
    return trained.weights_path


def _views(plan: StarterPlan, role: str, validation: bool = False) -> Path:
    """Where detections go; of folds as `cellloop crossval score` expects them."""
    return plan.folder / f"{role}{'-validation' if validation else ''}.npz"


def _look(plan: StarterPlan, role: str, fold: Fold, report: Report) -> None:
    """Keep what the detector sees in the images it did not learn from."""
    weights = plan.folder / role / WEIGHTS
    detector = load_detector(weights, None, pick_device(plan.device))
    _, metadata = load_weights(weights)
    images = {name: {SOURCE: len(part[SOURCE])} for name, part in vars(fold).items() if name != "number"}
    recipe = {
        "fold": fold.number,
        "folds": plan.folds,
        "rendered": plan.fields(images["training"][SOURCE]),
        "shared_trunk": plan.shared_trunk,
        "config": metadata["training"]["config"],
        "images": images,
    }
    about = {"recipe": recipe, "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    for validation, part in ((True, fold.validation), (False, fold.held_out)):
        found = []
        for file in part[SOURCE]:
            image = file.labelled
            seen = detector.detect(read_image(Path(image.file)))
            found.append(SeenImage(image.sha256, SOURCE, image.truth(), image.ignore_boxes(), seen))
            report(len(found), len(part[SOURCE]), f"{role}: detecting")
        if found:
            save_views(_views(plan, role, validation), found, about)


def fold_views(plan: StarterPlan, source: Source, role: str) -> list[SeenImage] | None:
    """What the folds' detectors of this role saw in the images held out; None while some fold lacks.

    Raises SettingRefused when the folds were trained with another recipe.
    """
    seen: list[SeenImage] = []
    for number in range(plan.folds):
        path = _views(replace(plan, fold=number), role)
        if not path.exists():
            return None
        views, about = load_views(path)
        wanted = {k: v for k, v in plan.config(role, None).to_json().items() if k != "trunk"}
        if unlike := differences(about["recipe"]["config"], wanted):
            raise SettingRefused(f"{path}: {'; '.join(unlike[:5])}; train the folds again, or take another --out")
        seen += views
    complete = {view.sha256 for view in seen} == {file.labelled.sha256 for file in source.files}
    return seen if complete else None


def _views_of(all_cells: Sequence[SeenImage], infected: Sequence[SeenImage]) -> list[Any]:
    other = {view.sha256: view.seen for view in infected}
    return [(view.seen, other[view.sha256], view.truth) for view in all_cells]


def _write_pair(plan: StarterPlan, source: Source, rendered: Path | None, fusion: FusionConfig, told: str) -> Path:
    """The shipped folder: weights, pair.json and the card."""
    weights = {role: plan.folder / role / WEIGHTS for role in ROLES}
    recipes = {role: load_weights(path)[1]["training"] for role, path in weights.items()}
    about = {
        "trained_on": sorted(file.labelled.sha256 for file in source.files),
        "data": BBBC041,
        "images": len(source.files),
        "rendered": 0 if rendered is None else len(list((rendered / "images").iterdir())),
        "fusion_fitted_on": told,
        "command": plan.command(),
        "training": {role: {k: recipe[k] for k in ("config", "data_sha256")} for role, recipe in recipes.items()},
    }
    folder = plan.out / PAIR
    save_pair(folder, weights["all_cells"], weights["infected"], fusion, NAME, about)
    write_card(folder)
    return folder
