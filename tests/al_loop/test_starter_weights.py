"""The shipped weights on smears of a laboratory they never saw: what a first user gets before any retraining."""

from pathlib import Path

import pytest

from al_loop.judge_files import judge_files
from al_loop.labelled_files import read_labelled
from backend.pairs import load_pair, read_card


@pytest.mark.realdata
def test_a_laboratory_they_never_saw_gets_useful_pre_annotations(data_root: Path) -> None:
    files = read_labelled(data_root / "iml")[0][::30]  # nine fields, spread over all that were taken
    assert not {file.labelled.sha256 for file in files} & set(read_card().about["trained_on"])
    fused = judge_files(load_pair(), files, ["fused"], resamples=20).judgement.verdicts["fused"]
    assert fused.value("ap50", "red blood cell") > 0.9
    assert fused.value("pooled_infected_ap50") > 0.7
    assert fused.value("parasitaemia", "mae") < 1
    assert fused.value("calibration_error", "infected") < 0.02
