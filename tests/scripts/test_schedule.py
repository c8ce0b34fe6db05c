"""`cellloop schedule`: set in steps, shown for people and for programs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from al_loop.trigger import ask_for_retraining
from db import drift
from scripts import cli
from scripts.composition import open_loop
from tests.builders import add_active_pair, add_cell, add_image, say


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main(["schedule", *arguments])
    assert (left.value.code or 0) == code
    shown = capsys.readouterr()
    return shown.err if code else shown.out


def test_set_and_show(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path))
    monkeypatch.setenv("CELLLOOP_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("CELLLOOP_RETRAIN_AFTER", "25")
    shown = run(capsys, "show")
    assert "the settings" in shown
    assert "0 of 25 (none)" in shown
    assert "not checked yet" in shown
    run(capsys, "set", "--cron", "30 2 * * 1", "--retrain-after", "12", "--by", "ada")
    answer = json.loads(run(capsys, "set", "--no-on-drift", "--cooldown", "90", "--by", "ben", "--json"))
    assert (answer["retrain_after"], answer["cron"], answer["cooldown_s"]) == (12.0, "30 2 * * 1", 90.0)
    assert (answer["on_drift"], answer["set_by"], answer["due"], answer["last_run"]) == (False, "ben", [], None)
    assert datetime.fromisoformat(answer["next_cron"]).strftime("%a %H:%M %z") == "Mon 02:30 +0000"

    loop = open_loop()
    with loop.database.session() as session:
        for number in range(4):
            say(session, add_cell(session, add_image(session)), "schizont", f"ls:1:{number}")
        drift.add_check(session, add_active_pair(session).id, drifted=True, reasons=["stain: darker"], numbers={})
    answer = json.loads(run(capsys, "show", "--json"))
    assert (answer["weighted"], answer["due"]) == (12.0, ["reviews"])
    assert answer["drift"]["reasons"] == ["stain: darker"]
    ask_for_retraining(loop, "a new stain")
    shown = run(capsys, "show")
    assert "1, queued: person (a new stain) and reviews worth 12 of 12" in shown
    assert "never; drifted at" in shown
    answer = json.loads(run(capsys, "set", "--never-for-reviews", "--never-by-clock", "--json"))
    assert (answer["retrain_after"], answer["cron"], answer["next_cron"], answer["due"]) == (None, None, None, [])
    assert "12, no matter" in run(capsys, "show")

    for wrong, said in (
        (["--cron", "at night"], "expected five fields"),
        (["--cron", "0 3 * * *", "--never-by-clock"], "leave one out"),
        (["--retrain-after", "3", "--never-for-reviews"], "leave one out"),
        (["--retrain-after", "0"], "--never-for-reviews switches it off"),
    ):
        assert said in run(capsys, "set", *wrong, code=1)
