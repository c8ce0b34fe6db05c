"""A step's gradients: the same in one part or in several, and in smaller ones when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from al_loop import train as train_module
from al_loop.dataset import TrainingSample
from al_loop.train import Progress, train
from al_loop.train_batches import Shown, ahead, as_shown, as_tensors, draw_crops
from al_loop.train_checkpoint import Standing
from al_loop.train_config import CLASS_WEIGHTS, class_weights
from al_loop.train_images import load_images
from al_loop.train_model import losses_on, start_model
from al_loop.train_step import MovingAverage, gradients
from backend.backbones import LITE_FROZEN
from backend.errors import OutOfMemory
from backend.instances import role_classes
from tests.al_loop.tiny_training import TINY, two_fields
from tests.threads import one_thread

FOUR = replace(TINY, steps=2, batch_size=4, crop=64)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def samples(tmp_path: Path) -> list[TrainingSample]:
    return two_fields(tmp_path)


def step_gradients(samples: list[TrainingSample], micro_batch: int) -> tuple[list[Tensor], dict[str, float]]:
    """Gradients and losses of the first step of FOUR, so many crops at a time."""
    model = start_model(FOUR, samples, None, torch.device("cpu"))
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shown = [as_shown(drawn) for drawn in draw_crops(FOUR, load_images(FOUR, samples), 0)]
    values = gradients(losses_on(model, FOUR, None, Path()), learned, shown, 4, Standing(0, micro_batch))
    found = [parameter.grad for parameter in learned if parameter.grad is not None]
    assert len(found) == len(learned)
    return found, {name: float(value) for name, value in values.items()}


def test_accumulated_parts_learn_what_one_batch_learns(samples: list[TrainingSample]) -> None:
    whole, losses = step_gradients(samples, 4)
    parts, losses_of_parts = step_gradients(samples, 2)
    assert losses_of_parts == pytest.approx(losses, rel=1e-4)
    for one, other in zip(whole, parts, strict=True):
        assert float((one - other).norm()) <= 1e-3 * float(one.norm()) + 1e-7


def test_accumulated_batches_see_the_crops_of_one_batch(samples: list[TrainingSample], tmp_path: Path) -> None:
    runs: list[list[float]] = []
    for index, changes in enumerate(({"batch_size": 4}, {"batch_size": 2, "accumulate": 2}, {"seed": 1})):
        seen: list[Progress] = []
        train(replace(FOUR, **changes), samples, out=tmp_path / str(index), on_progress=seen.append)
        runs.append([progress.loss for progress in seen])
    assert runs[1] == pytest.approx(runs[0], rel=2e-3)
    assert runs[2] != pytest.approx(runs[0], rel=2e-3)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_without_memory_the_step_is_repeated_in_smaller_parts(error: Exception) -> None:
    asked: list[int] = []

    def losses_of(crops: Sequence[Shown]) -> dict[str, Tensor]:
        asked.append(len(crops))
        if len(crops) > 1:
            raise error
        return {"loss": weight.square().sum()}

    weight = nn.Parameter(torch.tensor([3.0]))
    crop = Shown(torch.zeros(3, 8, 8, dtype=torch.uint8), {})
    standing = Standing(0, micro_batch=4)
    values = gradients(losses_of, [weight], [crop] * 4, 4, standing)
    assert asked == [4, 2, 1, 1, 1, 1]
    assert standing.micro_batch == 1
    assert float(values["loss"]) == pytest.approx(9.0)
    assert weight.grad is not None
    assert float(weight.grad) == pytest.approx(6.0)  # as of the whole step at once
    gradients(losses_of, [weight], [crop] * 4, 4, standing)
    assert asked[6:] == [1, 1, 1, 1]  # it does not try again what failed


def test_memory_for_not_even_one_crop_is_said_and_other_errors_stay() -> None:
    def failing(error: Exception) -> Callable[[Sequence[Shown]], dict[str, Tensor]]:
        def losses_of(crops: Sequence[Shown]) -> dict[str, Tensor]:
            raise error

        return losses_of

    crops = [Shown(torch.zeros(3, 8, 8, dtype=torch.uint8), {})] * 2
    with pytest.raises(OutOfMemory, match="CELLLOOP_TRAIN_CROP"):
        gradients(failing(MemoryError()), [], crops, 2, Standing(0, 2))
    with pytest.raises(RuntimeError, match="shape"):
        gradients(failing(RuntimeError("wrong shape")), [], crops, 2, Standing(0, 2))


def test_no_memory_for_the_detector_itself_is_said_too(
    samples: list[TrainingSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception) -> None:
        def start(*args: object) -> None:
            raise error

        monkeypatch.setattr(train_module, "start_model", start)

    failing(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 14.00 MiB"))
    with pytest.raises(OutOfMemory, match=r"the detector and its optimizer.*14\.00 MiB"):
        train(TINY, samples, out=tmp_path)
    failing(RuntimeError("wrong shape"))
    with pytest.raises(RuntimeError, match="wrong shape"):
        train(TINY, samples, out=tmp_path)


def test_the_smaller_batch_outlives_a_kill(
    samples: list[TrainingSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = losses_on

    def tight(*args: object) -> Callable[[Sequence[Shown]], dict[str, Tensor]]:
        losses_of = real(*args)  # type: ignore[arg-type]

        def limited(crops: Sequence[Shown]) -> dict[str, Tensor]:
            sizes.append(len(crops))
            if len(crops) > 1:
                raise torch.OutOfMemoryError("no room")
            return losses_of(crops)

        return limited

    monkeypatch.setattr(train_module, "losses_on", tight)
    config = replace(FOUR, batch_size=2)
    assert train(config, samples, out=tmp_path, should_stop=lambda: True) is None
    assert sizes == [2, 1, 1]
    train(config, samples, out=tmp_path)
    assert sizes[3:] == [1, 1]


def test_crops_prepared_ahead_are_those_prepared_in_turn(samples: list[TrainingSample]) -> None:
    images = load_images(FOUR, samples)
    in_turn = [draw_crops(FOUR, images, step) for step in range(2, 6)]
    prepared = list(ahead(lambda step: draw_crops(FOUR, images, step), range(2, 6)))
    for one, other in zip(in_turn, prepared, strict=True):
        assert [drawn.seed for drawn in one] == [drawn.seed for drawn in other]
        assert all((a.crop.pixels == b.crop.pixels).all() for a, b in zip(one, other, strict=True))
    shares = [draw_crops(FOUR, images, 3, share) for share in (range(0, 4, 2), range(1, 4, 2))]
    assert [drawn.seed for share in shares for drawn in share] == [in_turn[1][index].seed for index in (0, 2, 1, 3)]
    assert list(ahead(lambda step: step, range(3, 3))) == []


def test_the_trunk_computes_with_channels_last(samples: list[TrainingSample]) -> None:
    model = start_model(FOUR, samples, None, torch.device("cpu"))
    shown = [as_shown(drawn) for drawn in draw_crops(FOUR, load_images(FOUR, samples), 0)]
    images, targets = as_tensors(shown, torch.device("cpu"))
    assert images[0].permute(1, 2, 0).is_contiguous()
    assert targets[0]["masks"].shape[1:] == images[0].shape[1:]
    inner: list[Tensor] = []
    learned = model.backbone.trunk.blocks[LITE_FROZEN]
    first = next(module for module in learned.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda module, args, output: inner.append(output))
    with torch.no_grad():
        model.backbone(model.transform(images)[0].tensors)
    assert inner[0].is_contiguous(memory_format=torch.channels_last)


def test_rare_stages_weigh_more_within_limits(samples: list[TrainingSample]) -> None:
    config = replace(TINY, detector=replace(TINY.detector, role="infected"))
    assert class_weights(config, samples) is None
    counts = {"trophozoite": 900, "ring": 100, "schizont": 100, "gametocyte": 1}
    labels = tuple(name for name, count in counts.items() for _ in range(count))
    weights = class_weights(replace(config, class_balance=0.5), [replace(samples[0], labels=labels)])
    assert weights is not None
    order = role_classes("infected")
    trophozoite, ring, schizont, gametocyte = (float(weights[1 + order.index(name)]) for name in counts)
    assert float(weights[0]) == 1
    assert ring == schizont == pytest.approx(3 * trophozoite, rel=0.01)
    assert ring < gametocyte < CLASS_WEIGHTS[1] * 1.1
    mean = (900 * trophozoite + 100 * ring + 100 * schizont + gametocyte) / 1101
    assert mean == pytest.approx(1)


def test_the_average_moves_by_its_share() -> None:
    model = nn.BatchNorm1d(2)
    average = MovingAverage(model)
    with torch.no_grad():
        model.weight.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    average.update(0.75)
    assert average.state["weight"].tolist() == [1.5, 1.5]
    assert int(average.state["num_batches_tracked"]) == 7
