"""Labels as Label Studio imports them: tasks.json with one annotation per image, and config.xml, which can show them.

Boxes are rectangles, outlines are brushes; beside each stands what it was drawn from, under `EXACT` of
`al_loop/formats/label_studio.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from al_loop.export_json import json_list
from al_loop.export_report import ExportedCell, ExportedImage
from al_loop.formats.label_studio import EXACT, value_sha256
from backend.label_studio.label_config import LabelConfig, default_config, parse
from backend.label_studio.regions import RegionCell, to_regions

LACKS: tuple[str, ...] = ()


def write(folder: Path, images: Iterable[ExportedImage]) -> None:
    """Write tasks.json and config.xml into the folder."""
    xml = default_config(outlines=True)
    (folder / "config.xml").write_text(xml, encoding="utf-8")
    config = parse(xml)
    with json_list(folder / "tasks.json") as tasks:
        for image in images:
            tasks.add(_task(image, config))


def _task(image: ExportedImage, config: LabelConfig) -> dict[str, Any]:
    data = {
        config.value_key: f"images/{image.file}",
        "sha256": image.checksum,
        "width": image.width,
        "height": image.height,
        "dataset": image.dataset,
        "group": image.group,
        "patient": image.patient,
        "taken_at": image.taken_at.isoformat() if image.taken_at else None,
        "split": image.split,
    }
    return {
        "data": {name: value for name, value in data.items() if value is not None},
        "annotations": [{"result": [_region(cell, image, config) for cell in image.cells]}],
    }


def _region(cell: ExportedCell, image: ExportedImage, config: LabelConfig) -> dict[str, Any]:
    size = (image.height, image.width)
    mask = None if cell.mask is None else {"size": list(size), "counts": cell.mask.encode("ascii")}
    drawn = RegionCell(cell.key, cell.box, cell.label, 1.0, mask=mask)
    (region,) = to_regions([drawn], config, size, "rectangle" if mask is None else "brush")
    del region["score"]  # a model's, not an expert's
    exact = {
        "value_sha256": value_sha256(region["value"]),
        "box": list(cell.box),
        "shape": cell.shape,
        "mask": cell.mask,
        "expert": cell.expert,
        "decided_at": cell.decided_at.isoformat(),
    }
    return region | {EXACT: {name: value for name, value in exact.items() if value is not None}}
