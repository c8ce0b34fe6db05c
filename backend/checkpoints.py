"""Weight files: safetensors (no code inside), addressed by sha256, loaded strictly or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from backend.errors import WeightsCorrupt
from backend.store import replace_atomically

_METADATA_KEY = "cellloop"


def save_weights(
    state: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, Any], *, half: bool = False
) -> str:
    """Write tensors and JSON-able metadata to `path` atomically; gives the sha256 of the file.

    half=True stores floating tensors as float16: half the disk, and detections that differ by far less than noise.
    """
    tensors = {}
    for name, value in state.items():
        tensor = value.detach().to("cpu")
        if half and tensor.is_floating_point():
            tensor = tensor.to(torch.float16)
        tensors[name] = tensor.clone(memory_format=torch.contiguous_format)
    data = safetensors.torch.save(tensors, {_METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)})
    return replace_atomically(path, (data,))


def _metadata(data: bytes) -> dict[str, Any]:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header.get("__metadata__", {}).get(_METADATA_KEY, "{}"))


def load_weights(path: Path, sha256: str | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors (on the CPU, floating ones as float32) and metadata of a weight file.

    Raises WeightsCorrupt: the file is missing, is not the one `sha256` names, is not safetensors, or holds a NaN.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise WeightsCorrupt(f"{Path(path).name}: expected a weight file, cannot read it ({error.strerror})") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise WeightsCorrupt(
            f"{Path(path).name}: expected sha256 {sha256[:12]}..., got {hashlib.sha256(data).hexdigest()[:12]}...; "
            "restore the file from a backup, or roll back to the previous version"
        )
    try:
        stored, metadata = safetensors.torch.load(data), _metadata(data)
    except (SafetensorError, ValueError) as error:
        raise WeightsCorrupt(f"{Path(path).name}: expected safetensors, got something else ({error})") from error
    state = {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsCorrupt(f"{Path(path).name}: tensor {name} holds NaN or infinity; train again")
    return state, metadata


def load_strictly(model: torch.nn.Module, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Copy `state` into `model`; every tensor must be there, and none may be left over.

    Raises WeightsCorrupt naming what does not fit; the model is then unchanged. `name` says whose weights these are.
    """
    expected = model.state_dict()
    missing, surplus = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    reshaped = [key for key in sorted(expected.keys() & state.keys()) if expected[key].shape != state[key].shape]
    if missing or surplus or reshaped:
        example = (missing + surplus + reshaped)[0]
        raise WeightsCorrupt(
            f"{name}: expected the {len(expected)} tensors of this configuration, got {len(missing)} missing, "
            f"{len(surplus)} unknown and {len(reshaped)} of another shape (first: {example})"
        )
    model.load_state_dict(dict(state), strict=True)
