"""A weight file says where it comes from, and the same training gives the same file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from al_loop.train import train
from al_loop.train_config import data_hash
from backend.checkpoints import load_weights
from tests.al_loop.tiny_training import TINY, two_fields
from tests.threads import one_thread


def test_the_same_seed_gives_the_same_bytes_and_they_say_what_was_used(tmp_path: Path) -> None:
    config = replace(TINY, steps=2, seed=3)
    samples = two_fields(tmp_path)
    with one_thread():
        first, again = (
            train(config, samples, out=tmp_path / name, about={"manifest_sha256": "f" * 64}) for name in "ab"
        )
    assert first is not None
    assert again is not None
    assert first.sha256 == again.sha256
    _, metadata = load_weights(first.weights_path, first.sha256)
    said = metadata["training"]
    assert said["config"]["learning_rate"] == config.learning_rate
    assert (said["seed"], said["data_sha256"], said["manifest_sha256"]) == (3, data_hash(samples), "f" * 64)
    used = said["environment"]
    assert (used["device"], used["threads"], used["processes"]) == ("cpu", 1, 1)
    assert {"python", "cellloop", "torch", "torchvision", "timm", "numpy"} <= used.keys()


def test_another_mask_is_other_data(tmp_path: Path) -> None:
    samples = two_fields(tmp_path)
    bare = replace(samples[0], masks=(None, *samples[0].masks[1:]))
    assert data_hash(samples) != data_hash([bare, samples[1]])
