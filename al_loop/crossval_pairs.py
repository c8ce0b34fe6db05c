"""A cross-validation's detectors as pairs that `cellloop evaluate --weights` and `cellloop bench` take."""

from __future__ import annotations

from pathlib import Path

from al_loop.crossval_score import ALL, Comparison, read_folds
from al_loop.train import WEIGHTS
from backend.errors import SettingRefused
from backend.instances import ROLES
from backend.pairs import save_pair


def write_pairs(out: Path, comparison: Comparison) -> list[Path]:
    """Each scored fold's detectors with the fusion fitted for them, in OUT/fold-K/pair.

    What a pair has seen is what the other scored folds hold out. Raises WeightsCorrupt when weights are gone,
    SettingRefused where each source has a fusion of its own.
    """
    held_out = {fold.number: {first.sha256 for first, _ in fold.held_out} for fold in read_folds(out)[0]}
    written = []
    for (number, source), fusion in comparison.fusions.items():
        if source != ALL:
            raise SettingRefused("--pairs: expected one fusion for all sources, as a pair has; leave out --by-source")
        folder = out / f"fold-{number}"
        seen = set().union(*held_out.values()) - held_out[number]
        about = {"fusion_fitted_on": comparison.fit, "trained_on": sorted(seen)}
        all_cells, infected = (folder / role / WEIGHTS for role in ROLES)
        save_pair(folder / "pair", all_cells, infected, fusion, f"{out.name}-fold-{number}", about)
        written.append(folder / "pair")
    return written
