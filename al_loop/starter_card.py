"""The card of the starter weights: what they are made of, who must be named, what they must not be used for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.errors import UnusableAnnotations
from backend.instances import CLASSES
from backend.pairs import CARD, read_card, weights_name
from backend.store import replace_atomically

CARD_TEXT = "CARD.md"
BBBC041 = "BBBC041v1"
LICENCE = "CC BY-NC-SA 3.0"
CITATION = (
    "Broad Bioimage Benchmark Collection image set BBBC041v1 (Ljosa et al., Nature Methods, 2012); "
    "Hung et al., arXiv 1804.09548"
)
HEADLINES = {
    "pooled_infected_ap50": "pooled infected AP50",
    "infected_recall_at_0.5fp": "infected recall at 0.5 false positives per image",
}


def write_card(folder: Path) -> Path:
    """Write CARD.md of the pair in this folder from its pair.json. Raises NoTrainedModel, WeightsCorrupt."""
    card = read_card(folder)
    sizes = {role: (folder / weights_name(role)).stat().st_size / 2**20 for role in ("all_cells", "infected")}
    about = card.about
    lines = [
        "# Starter weights",
        "",
        f"Two Mask R-CNNs, `all_cells` ({sizes['all_cells']:.1f} MiB) and `infected` ({sizes['infected']:.1f} MiB), "
        "half precision, and the fusion of what they see (`pair.json`). They give the first pre-annotations, so that "
        "an expert corrects instead of drawing; the loop then retrains `infected` on the corrections.",
        "",
        "## Not for diagnosis",
        "They must not be used to diagnose or to treat anybody, nor to decide anything about a person. They have "
        "learned from few slides of one species (*P. vivax*) and will be wrong on other stains, microscopes, species.",
        "",
        "## Data and licence",
        f"* {about.get('images', '?')} images of {CITATION}. Licence: {LICENCE}.",
        f"* {about.get('rendered', '?')} rendered smears (`cellloop render`), made by this project.",
        "* Nothing else, apart from the ImageNet weights of the trunk (EfficientNet-Lite0, Apache-2.0).",
        f"* The weights are passed on under the licence of the images: {LICENCE}, thus not for commercial use.",
        "",
        "## Recipe",
        f"Fusion fitted on {about.get('fusion_fitted_on', '?')}. Made by",
        "",
        "```bash",
        str(about.get("command", "?")),
        "```",
        "",
        *_recipe(about.get("training", {})),
        "",
        "## Scores",
        *_scores(about.get("scores")),
        "",
        "## Files",
        f"* `{weights_name('all_cells')}`: sha256 `{card.all_cells_sha256}`",
        f"* `{weights_name('infected')}`: sha256 `{card.infected_sha256}`",
    ]
    replace_atomically(folder / CARD_TEXT, ("\n".join(lines).encode("utf-8") + b"\n",))
    return folder / CARD_TEXT


def add_scores(folder: Path, scores: Path, said: str) -> Path:
    """Put the numbers of `cellloop evaluate --json` or `cellloop crossval score` into pair.json and the card.

    said: on what they were measured, in words. Raises UnusableAnnotations when the file is something else.
    """
    try:
        document = json.loads(scores.read_text(encoding="utf-8"))
        numbers = {view: document[view] for view in ("fused", "all_cells", "infected") if view in document}
        if not all(isinstance(value.get("ap50"), dict) for value in numbers.values()) or not numbers:
            raise ValueError("no view with ap50 in it")
    except (OSError, ValueError, AttributeError) as error:
        raise UnusableAnnotations(
            f"{scores}: expected the JSON of `cellloop evaluate --json`, with ap50 below fused, all_cells or infected, "
            f"got: {error}"
        ) from error
    card = read_card(folder)
    kept = {view: {key: value[key] for key in ("ap50", *HEADLINES) if key in value} for view, value in numbers.items()}
    changed = card.to_json()
    changed["about"] = {**card.about, "scores": {"measured_on": said, **kept}}
    text = json.dumps(changed, indent=2, ensure_ascii=False) + "\n"
    replace_atomically(folder / CARD, (text.encode("utf-8"),))
    return write_card(folder)


def _recipe(training: Mapping[str, Any]) -> list[str]:
    lines = []
    for role, made in training.items():
        config = made["config"]
        crops = config["batch_size"] * config.get("accumulate", 1)
        trunk = "with the frozen trunk of `all_cells`" if config.get("trunk") else "with a trunk of its own"
        lines.append(
            f"* `{role}`: preset {config['detector']['preset']}, short side {config['detector']['short_side']} px, "
            f"{config['steps']} steps of {crops} crops of {config['crop']} px, {trunk}; all settings: `pair.json`."
        )
    return lines


def _scores(scores: Mapping[str, Any] | None) -> list[str]:
    if not scores:
        return ["Not measured yet: `cellloop starter card DIR --scores FILE --on TEXT` puts them here."]
    views = [view for view in ("fused", "all_cells", "infected") if view in scores]
    lines = [
        f"Measured on {scores['measured_on']}.",
        "",
        "| | " + " | ".join(views) + " |",
        "|---" * (len(views) + 1) + "|",
    ]
    rows = [(f"AP50 {name}", [scores[view]["ap50"].get(name) for view in views]) for name in CLASSES]
    rows += [(title, [scores[view].get(key) for view in views]) for key, title in HEADLINES.items()]
    for title, values in rows:
        if any(value is not None for value in values):
            shown = " | ".join("-" if value is None else f"{value:.3f}" for value in values)
            lines.append(f"| {title} | {shown} |")
    return lines
