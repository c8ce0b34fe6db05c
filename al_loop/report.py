"""A judgement as a page to look at: self-contained HTML, and every picture beside it as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from al_loop.judge import FUSED
from al_loop.judge_numbers import Judgement, Verdict
from al_loop.report_drawing import Pixels, crop, inline, png
from al_loop.report_fields import choose_fields, panels, row_of
from al_loop.report_mistakes import KINDS, mistakes, said_about
from al_loop.report_plots import figures, order
from al_loop.report_tables import alt_texts, class_table, headline_table
from backend.images import CLASS_COLOURS
from backend.instances import CLASSES, Instances
from backend.store import replace_atomically

PAGE = "report.html"
FIELDS = 8
WORST = 12  # of each kind of mistake

Report = Callable[[int, int, str], None]


def _silent(done: int, total: int, note: str) -> None:
    """Nobody is watching."""


@dataclass(frozen=True)
class Subject:
    """What a report is about. names, truths, and each of `views`: per image, in the same order.

    read: pixels (h, w, 3) uint8 RGB of the image at an index. closer: what the views see in an image, with masks.
    """

    names: Sequence[str]
    truths: Sequence[Instances]
    views: Mapping[str, Sequence[Instances]]
    judgement: Judgement
    read: Callable[[int], Pixels]
    closer: Callable[[Pixels], Mapping[str, Instances]]

    def main(self) -> str:
        """The view whose mistakes are shown: fused where it was judged, as that is what the expert meets."""
        return FUSED if FUSED in self.views else order(list(self.views))[-1]

    def verdict(self) -> Verdict:
        """The verdict on `main`."""
        return self.judgement.verdicts[self.main()]


def write_report(folder: Path, subject: Subject, weights: str, on_progress: Report = _silent) -> Path:
    """Write `report.html`, plots, fields/ and mistakes/ into `folder` (made when missing); the page's path.

    weights: name of the pair. Files of an earlier report are replaced where the names agree.
    """
    chosen = choose_fields(subject.truths, subject.verdict(), FIELDS)
    total = len(chosen) + 2
    plots = []
    verdicts = {view: subject.judgement.verdicts[view] for view in order(list(subject.views))}
    for name, figure in figures(verdicts).items():
        data = _drawn(figure)
        replace_atomically(folder / f"{name}.png", (data,))
        plots.append({"name": name, "source": "data:image/png;base64," + base64.b64encode(data).decode("ascii")})
    on_progress(1, total, "curves")
    fields = []
    for done, (index, why) in enumerate(chosen, start=2):
        fields.append(_field(folder, subject, index, why))
        on_progress(done, total, subject.names[index])
    worst = _mistakes(folder, subject)
    page = _template().render(
        images=subject.judgement.images,
        cells={name: count for name, count in subject.judgement.cells.items() if count},
        weights=weights,
        main=subject.main(),
        threshold=subject.verdict().decisions.threshold,
        headlines=headline_table(verdicts),
        classes=class_table(verdicts),
        views=list(verdicts),
        plots=plots,
        alts=alt_texts(verdicts),
        colours={name: f"#{bytes(colour).hex()}" for name, colour in zip(CLASSES, CLASS_COLOURS, strict=True)},
        fields=fields,
        kinds=KINDS,
        worst=worst,
    )
    replace_atomically(folder / PAGE, (page.encode("utf-8"),))
    on_progress(total, total, PAGE)
    return folder / PAGE


def _template() -> Any:
    folder = Path(__file__).resolve().parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _drawn(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _field(folder: Path, subject: Subject, index: int, why: str) -> dict[str, Any]:
    """One field's pictures, side by side as a PNG, and one by one for the page."""
    image = subject.read(index)
    thresholds = {view: verdict.decisions.threshold for view, verdict in subject.judgement.verdicts.items()}
    drawn = panels(image, subject.truths[index], subject.closer(image), thresholds)
    name = f"{index:04d}-{_plain(subject.names[index])}.png"
    replace_atomically(folder / "fields" / name, (png(row_of(drawn)),))
    pictures = [{"name": panel, "source": inline(pixels), "says": says} for panel, (pixels, says) in drawn.items()]
    return {"name": subject.names[index], "why": why, "pictures": pictures}


def _mistakes(folder: Path, subject: Subject) -> dict[str, list[dict[str, Any]]]:
    """Crops of the worst mistakes by kind, as PNGs and for the page."""
    verdict = subject.verdict()
    threshold = verdict.decisions.threshold
    found = mistakes(subject.truths, subject.views[subject.main()], verdict.assigned, threshold, WORST)
    pixels: dict[int, Pixels] = {}
    shown: dict[str, list[dict[str, Any]]] = {}
    for kind, each in found.items():
        shown[kind] = []
        for number, mistake in enumerate(each):
            if mistake.image not in pixels:
                pixels = {mistake.image: subject.read(mistake.image)}  # one image in memory at a time
            name = mistake.truth if mistake.truth in CLASSES else mistake.called
            picture = crop(pixels[mistake.image], mistake.box, CLASS_COLOURS[CLASSES.index(name)])
            file = subject.names[mistake.image]
            replace_atomically(folder / "mistakes" / f"{kind}-{number:02d}-{_plain(file)}.png", (png(picture),))
            views = {view: subject.views[view][mistake.image] for view in order(list(subject.views))}
            shown[kind].append(
                {
                    "source": inline(picture),
                    "truth": mistake.truth,
                    "called": mistake.called,
                    "file": file,
                    "said": said_about(mistake.box, views),
                }
            )
    return shown


def _plain(name: str) -> str:
    """An image's name as part of a file name."""
    stem = Path(name).stem
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in stem)[:60]
