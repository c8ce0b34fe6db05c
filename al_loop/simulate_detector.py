"""The detector of the simulation: it has learned from rendered smears only, so no real label is in what it sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from al_loop.labelled_files import read_labelled, training_samples
from al_loop.recipe import recipe
from al_loop.rendered import write_coco_folder, write_once
from al_loop.train import WEIGHTS, Progress, train
from al_loop.train_config import TrainingConfig
from backend.detect import DetectorConfig, pick_device

Report = Callable[[int, int, str], None]  # done, total, a word on what is being done


@dataclass(frozen=True)
class RenderedTraining:
    """What decides the weights: rendered fields, as large and crowded as real ones but sicker, and so many steps.

    infected, leukocytes, difficult: shares of the cells. One cell in eight is infected, so that the classifier meets
    every stage in a few hundred steps; how often they are infected in real smears is for the experts' answers to say.
    """

    fields: int = 60
    steps: int = 600
    seed: int = 2041
    size: tuple[int, int] = (1200, 1600)
    cells: tuple[int, int] = (40, 120)
    infected: float = 0.12
    leukocytes: float = 0.01
    difficult: float = 0.0

    def config(self) -> TrainingConfig:
        """The product's recipe, shorter."""
        return replace(recipe(DetectorConfig(role="all_cells"), self.steps), seed=self.seed)

    def key(self) -> str:
        """Names the weights: twelve hex digits over everything that decides them."""
        decides = json.dumps([asdict(self), self.config().to_json()], sort_keys=True)
        return hashlib.sha256(decides.encode()).hexdigest()[:12]


def rendered_weights(cache: Path, plan: RenderedTraining, report: Report, device: str = "cpu") -> Path:
    """The weight file of a detector trained on rendered fields, below `cache`; made at the first call.

    A killed training goes on where it stopped. Raises TrainingDiverged.
    """
    folder = cache / f"rendered-only-{plan.key()}"
    if (folder / WEIGHTS).exists():
        return folder / WEIGHTS

    def draw(out: Path) -> Path:
        return write_coco_folder(
            out,
            plan.fields,
            plan.seed,
            size=plan.size,
            cells=plan.cells,
            infected=plan.infected,
            leukocytes=plan.leukocytes,
            difficult=plan.difficult,
            on_progress=lambda done, total: report(done, total, "rendering fields"),
        )

    def tell(progress: Progress) -> None:
        report(progress.step, progress.steps, f"training on rendered fields: {progress.in_words()}")

    files, _ = read_labelled(write_once(folder / "fields", draw))
    samples = training_samples(files, "all_cells")
    trained = train(
        plan.config(), samples, out=folder, on_progress=tell, device=pick_device(device), about={"data": "rendered"}
    )
    assert trained is not None  # nobody asked it to stop
    return trained.weights_path
