"""An installation beside a Label Studio in memory, with a pool whose predictions need no detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from al_loop.context import Loop
from al_loop.push import push
from al_loop.rank import rank
from backend.credentials import load_credentials
from backend.label_studio.client import LabelStudio
from backend.label_studio.label_config import default_config, parse
from backend.label_studio.protocol import Annotation
from backend.label_studio.regions import RegionCell, to_regions
from backend.settings import Settings
from backend.store import FileStore
from db import labels, predictions, projects, versions
from db.models import Project
from db.session import Database
from tests import builders
from tests.fake_expert import FakeExpert
from tests.fake_label_studio import URL, FakeLabelStudio

SIZE = (480, 640)
CONFIG = parse(default_config())
Box = tuple[float, float, float, float]
BOXES: tuple[Box, ...] = ((20.0, 20.0, 60.0, 60.0), (100.0, 20.0, 140.0, 60.0), (180.0, 20.0, 220.0, 60.0))
Cells = set[tuple[str, tuple[int, ...]]]  # (label, box in whole px)


@dataclass(frozen=True)
class Workshop(Loop):
    """A loop whose Label Studio is `fake`."""

    fake: FakeLabelStudio

    def label_studio(self) -> LabelStudio:
        return self.fake

    @property
    def project(self) -> Project:
        """Our project, freshly read."""
        with self.database.session(read_only=True) as session:
            found = projects.project(session, self.fake.url)
        assert found is not None
        return found

    @property
    def expert(self) -> FakeExpert:
        """The first user."""
        return FakeExpert(self.fake, 1)


def open_workshop(home: Path, database: Database, **settings: Any) -> Workshop:
    """An installation with a connected, empty project."""
    url = database.engine.url.render_as_string(hide_password=False)
    values = {"home": home, "database_url": url, "label_studio_url": URL, "device": "cpu", **settings}
    configured = Settings(**values)
    fake = FakeLabelStudio()
    ls_project_id = fake.create_project("cellloop", default_config()).id
    with database.session() as session:
        projects.upsert_project(
            session, url=fake.url, ls_project_id=ls_project_id, title="cellloop", label_config=default_config()
        )
    return Workshop(configured, database, FileStore(configured.files), load_credentials(configured.home), fake)


def add_pool(workshop: Workshop, count: int) -> list[int]:
    """Train images that nobody has predicted; their ids."""
    with workshop.database.session() as session:
        return [builders.add_image(session).id for _ in range(count)]


def new_pair(workshop: Workshop, image_ids: Sequence[int], boxes: Sequence[Box] = BOXES) -> int:
    """A new pair that serves and has seen red blood cells in these boxes of these images; its id.

    The further down the list an image is, the surer the pair, so that a ranking gives this order.
    """
    with workshop.database.session() as session:
        role = "infected" if versions.active(session, "infected") else None
        if role is None:
            pair = builders.add_active_pair(session)
        else:
            versions.activate(session, builders.add_version(session, role).id, kind="person", reasons=["for a test"])
            found = versions.active_pair(session)
            assert found is not None
            pair = found
    predict(workshop, pair.id, image_ids, boxes)
    return pair.id


def predict(workshop: Workshop, pair_id: int, image_ids: Sequence[int], boxes: Sequence[Box] = BOXES) -> None:
    """What this pair sees in these images."""
    with workshop.database.session() as session:
        for place, image_id in enumerate(image_ids):
            sure = 0.6 + 0.39 * place / max(1, len(image_ids))
            probabilities = [sure, 1.0 - sure, 0.0, 0.0, 0.0, 0.0]
            rows = [builders.cell_row(box, score=sure, probabilities=probabilities) for box in boxes]
            predictions.add_prediction(session, image_id, pair_id, rows, seconds=0.1)


def pushed_workshop(home: Path, database: Database, count: int = 1, **settings: Any) -> Workshop:
    """`count` images predicted, ranked and pushed: an expert may begin."""
    workshop = open_workshop(home, database, **settings)
    new_pair(workshop, add_pool(workshop, count))
    rank(database)
    push(workshop, workshop.fake, workshop.project)
    return workshop


def region(key: str, box: Box, label: str = "ring", origin: str = "manual") -> dict[str, Any]:
    """One region as the editor would submit it."""
    return to_regions([RegionCell(key, box, label, 1.0)], CONFIG, SIZE)[0] | {"origin": origin}


def relabelled(result: Sequence[dict[str, Any]], index: int, label: str) -> list[dict[str, Any]]:
    """The result with one region of another class."""
    changed = [dict(item) for item in result]
    changed[index]["value"] = {**changed[index]["value"], "rectanglelabels": [label]}
    return changed


def submit_next(workshop: Workshop, change: Any = None) -> Annotation:
    """The expert submits the next task's prediction, changed by `change` when given."""
    task = workshop.expert.next_task(workshop.project.ls_project_id)
    assert task is not None
    prediction = task.predictions[-1]
    result = change(prediction.result) if change else prediction.result
    return workshop.expert.submit(task.id, result, parent_prediction=prediction.id)


def said(workshop: Workshop, image_id: int | None = None) -> Cells:
    """The current labels in SQL; of one image when given. Rejected cells are left out."""
    with workshop.database.session(read_only=True) as session:
        live = labels.current_labels(session, None if image_id is None else [image_id])
    return {(item.label, tuple(round(v) for v in item.box)) for item in live if item.label and item.box}


def newest_revision(workshop: Workshop) -> int:
    """Id of the newest label revision."""
    with workshop.database.session(read_only=True) as session:
        return labels.newest_revision_id(session)
