"""The picture of what experts confuse."""

from datetime import UTC, datetime, timedelta

from al_loop.agreement_plot import confusion_plot
from backend.history.agreement import Readings, agreement

START = datetime(2026, 1, 30, 12, 0, tzinfo=UTC)


def test_the_picture_holds_every_count(tmp_path):
    moments = [START, START + timedelta(days=1), START, START + timedelta(days=9)]
    found = agreement(Readings([1, 1, 2, 2], ["ada", "bob"] * 2, ["ring", None, "ring", "ring"], moments), "month")
    figure = confusion_plot(found)
    figure.savefig(tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    panels = figure.axes
    assert [panel.get_title().split(":")[0] for panel in panels] == ["2026-01", "2026-02"]
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["ring", "no cell"]
    assert [[text.get_text() for text in panel.texts] for panel in panels] == [["1"], ["1"]]
    confusion_plot([]).savefig(tmp_path / "none.png")
