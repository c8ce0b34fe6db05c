"""What a training ran on and with, kept in the weight file and in the version's row."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Any

import torch

from al_loop.train_config import TrainingConfig
from al_loop.train_distributed import Ranks

PACKAGES = ("cellloop", "torch", "torchvision", "timm", "numpy", "opencv-python-headless")


def environment(device: torch.device, ranks: Ranks | None = None) -> dict[str, Any]:
    """Device, threads, processes, and the versions of Python and of the packages that decide what a training gives."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": 1 if ranks is None else ranks.world,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return package_version(package)
    except PackageNotFoundError:  # run from its sources, without being installed
        return "unknown"


def provenance(
    config: TrainingConfig, data_sha256: str, device: torch.device, ranks: Ranks, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything a training used; no times and no results, so that the same training gives the same bytes."""
    return {
        "config": config.to_json(),
        "seed": config.seed,
        "data_sha256": data_sha256,
        "environment": environment(device, ranks),
        **about,
    }
