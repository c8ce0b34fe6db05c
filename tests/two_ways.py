"""Both ways of reviewing in a real Label Studio with two experts, over predictions that need no trained model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from al_loop.connect import connect
from al_loop.formats.detect import truth_by_sha256
from al_loop.import_images import import_images
from al_loop.push import push
from al_loop.rendered import write_coco_folder
from al_loop.sync import sync
from backend.label_studio.cell_config import parse_cells, result_of
from backend.label_studio.expert import ExpertSession
from backend.label_studio.protocol import Task
from db import images, labels, predictions, projects, queue, versions
from db.models import Project, ReviewItem, Slot, Way
from db.queue import QueueEntry
from tests import builders
from tests.label_studio_fixture import RunningLabelStudio
from tests.story import Story, open_story

FIELDS = 4


@dataclass
class TwoWays:
    """A story with its project of cells and a second expert."""

    story: Story
    ada: ExpertSession
    ben: ExpertSession

    @property
    def cells(self) -> Project:
        with self.story.loop.database.session(read_only=True) as session:
            found = projects.project(session, self.story.label_studio.url, way=Way.cell)
        assert found is not None
        return found

    def pool(self) -> list[int]:
        """Images with at least four predicted cells."""
        with self.story.loop.database.session(read_only=True) as session:
            pair = versions.active_pair(session)
            assert pair is not None
            stored = predictions.by_pair(session, pair.id)
            return [i for i, p in sorted(stored.items()) if len(predictions.predicted_cells(session, p.id)) >= 4]

    def wait(self, *images: int, count: int = 4, slot: Slot = Slot.acquisition, readers: Sequence[str] = ()) -> None:
        """Let so many cells of each of these images wait, and nothing else; push."""
        with self.story.loop.database.session() as session:
            pair = versions.active_pair(session)
            assert pair is not None
            entries = []
            for image_id in images:
                prediction = predictions.get_prediction(session, image_id, pair.id)
                assert prediction is not None
                for cell, _ in predictions.predicted_cells(session, prediction.id)[:count]:
                    entries.append(
                        QueueEntry(
                            image_id, 9.0 - 0.01 * len(entries), {}, way=Way.cell, slot=slot, cell_id=cell.cell_id,
                            predicted_cell_id=cell.id, reason=f"{cell.label} or not?", readers=tuple(readers),
                        )
                    )  # fmt: skip
            queue.replace_queue(session, queue.add_ranking(session, pair.id, {}).id, entries)
        self.push()

    def push(self) -> None:
        for project in (self.story.project, self.cells):
            push(self.story.loop, self.story.loop.label_studio(), project)

    def sync(self) -> None:
        for project in (self.story.project, self.cells):
            sync(self.story.loop, self.story.loop.label_studio(), project)

    def next_cell(self, expert: ExpertSession) -> Task | None:
        return expert.next_task(self.cells.ls_project_id)

    def answer(self, expert: ExpertSession, task: Task, answer: str) -> int:
        """This expert's answer; the cell it is about."""
        result = result_of(answer, parse_cells(self.cells.label_config))
        expert.submit(task.id, result, lead_time_s=1.5)
        with self.story.loop.database.session(read_only=True) as session:
            return session.get_one(ReviewItem, task.data["item"]).cell_id or 0

    def said(self, image_id: int) -> dict[int, tuple[str | None, tuple[int, ...] | None, str]]:
        """Cell -> current label, box in whole px, expert."""
        with self.story.loop.database.session(read_only=True) as session:
            return {
                live.cell_id: (live.label, live.box and tuple(round(v) for v in live.box), live.expert)
                for live in labels.current_labels(session, [image_id])
            }


@contextmanager
def open_two_ways(label_studio: RunningLabelStudio, folder: Path, title: str) -> Iterator[TwoWays]:
    """Rendered smears whose every cell is predicted as a red blood cell, both projects connected; the backend is up."""
    with open_story(label_studio, folder, title, None) as story:
        loop = story.loop
        source = write_coco_folder(folder / "rendered", FIELDS)
        import_images(loop.database, loop.store, source, label_share=0.0)
        truth = truth_by_sha256(source)
        with loop.database.session() as session:
            pair = builders.add_active_pair(session)
            for image in images.pool(session):
                objects, _ = truth[image.sha256].usable_objects(image.width, image.height)
                rows = [builders.cell_row(thing.box, score=0.7) for thing in objects]
                predictions.add_prediction(session, image.id, pair.id, rows, seconds=0.1)
        story.serve()
        connect(loop, loop.label_studio())
        ways = TwoWays(story, label_studio.expert(), label_studio.second_expert())
        ways.push()
        yield ways
