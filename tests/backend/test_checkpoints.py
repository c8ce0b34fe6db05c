from pathlib import Path

import pytest
import torch

from backend.checkpoints import load_strictly, load_weights, save_weights
from backend.errors import WeightsCorrupt
from backend.store import sha256_of


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a": torch.randn(4, 3, generator=generator),
        "b": torch.arange(5),
        "c": torch.randn(6, 2, generator=generator).T,
    }


def test_weights_and_metadata_round_trip(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    sha256 = save_weights(state, path, {"role": "infected", "sizes": [[40, 56]]})
    assert sha256 == sha256_of(path)
    loaded, metadata = load_weights(path, sha256)
    assert metadata == {"role": "infected", "sizes": [[40, 56]]}
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_half_precision_halves_the_file_and_keeps_integers(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    big = {"weight": torch.randn(1000, generator=torch.Generator().manual_seed(1)), "steps": torch.tensor([70_000])}
    full, half = tmp_path / "full", tmp_path / "half"
    save_weights(big, full, {})
    sha256 = save_weights(big, half, {}, half=True)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    loaded, _ = load_weights(half, sha256)
    assert loaded["weight"].dtype == torch.float32
    torch.testing.assert_close(loaded["weight"], big["weight"], rtol=1e-3, atol=1e-3)
    assert loaded["steps"].tolist() == [70_000]


def test_the_same_weights_give_the_same_hash(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    assert save_weights(state, tmp_path / "1", {"x": 1, "y": 2}) == save_weights(
        state, tmp_path / "2", {"y": 2, "x": 1}
    )


def test_corrupt_files_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    sha256 = save_weights(state, path, {})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsCorrupt, match="expected sha256"):
        load_weights(path, sha256)
    for damaged in (bytes(data[:40]), b"", b"not tensors at all", b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(WeightsCorrupt, match="expected safetensors"):
            load_weights(path)
    with pytest.raises(WeightsCorrupt, match="cannot read"):
        load_weights(tmp_path / "none")
    save_weights({"a": torch.tensor([1.0, float("nan")])}, path, {})
    with pytest.raises(WeightsCorrupt, match="NaN"):
        load_weights(path)


def test_loading_is_strict_and_all_or_nothing() -> None:
    model = torch.nn.Linear(3, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    good = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    for bad in ({"weight": good["weight"]}, good | {"extra": torch.ones(1)}, good | {"bias": torch.ones(3)}):
        with pytest.raises(WeightsCorrupt, match=r"w\.safetensors: expected the 2 tensors"):
            load_strictly(model, bad, "w.safetensors")
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    load_strictly(model, good, "w.safetensors")
    assert torch.equal(model.weight, good["weight"])
