"""When to stop: the slope of a learning curve with an interval that holds, and a plain sentence."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from al_loop.stopping import NORMAL, CurvePoint, StoppingFacts, next_gain, when_to_stop
from scripts.stopping_text import answer

LABELS = (200, 400, 700, 1100, 1600, 2400)


def curve(slope: float, seed: int | None = None, noise: float = 0.02, said: float | None = None) -> list[CurvePoint]:
    """Values on a straight line over log(labels), with noise and the intervals that go with it (or as `said`)."""
    rng = np.random.default_rng(seed)
    half = NORMAL * (noise if said is None else said)
    values = [0.2 + slope * np.log(n) + (0 if seed is None else rng.normal(0, noise)) for n in LABELS]
    return [CurvePoint(n, v, v - half, v + half) for n, v in zip(LABELS, values, strict=True)]


def test_a_straight_curve_gives_its_slope():
    gain = next_gain(curve(0.05), labels=2400)
    assert gain is not None
    assert gain.slope == pytest.approx(0.05)
    assert gain.expected == pytest.approx(0.05 * np.log(2500 / 2400))
    assert gain.low < gain.expected < gain.high
    assert gain.points == len(LABELS)


def test_the_interval_contains_the_true_gain_about_as_often_as_it_says():
    truth, inside = 0.04 * np.log(2500 / 2400), 0
    for seed in range(400):
        gain = next_gain(curve(0.04, seed), labels=2400)
        assert gain is not None
        inside += gain.low <= truth <= gain.high
    assert 0.93 <= inside / 400 <= 0.995


def test_intervals_that_promise_too_much_are_not_believed():
    """Points scatter three times as far as their intervals say."""
    truth, inside = 0.04 * np.log(2500 / 2400), 0
    for seed in range(400):
        gain = next_gain(curve(0.04, seed, noise=0.03, said=0.01), labels=2400)
        assert gain is not None
        inside += gain.low <= truth <= gain.high
    assert inside / 400 >= 0.82  # 0.49 without


def test_exact_points_count_more():
    points = [*curve(0.05), CurvePoint(2000, 0.9, 0.0, 1.0)]
    gain = next_gain(points, labels=2400)
    assert gain is not None
    assert gain.slope == pytest.approx(0.05, abs=0.005)


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 0.5)), max_size=8),
    labels=st.integers(0, 10_000),
)
def test_any_curve_gives_an_ordered_interval_or_none(points, labels):
    gain = next_gain([CurvePoint(n, v, v - w, v + w) for n, v, w in points], labels)
    assert (gain is None) == (len({n for n, _, _ in points}) < 2)
    if gain is not None:
        assert np.isfinite([gain.low, gain.expected, gain.high]).all()
        assert gain.low <= gain.expected <= gain.high


def facts(infected: int, reviewed: int, waiting: int, found: int, slope: float, noise: float = 0.002) -> StoppingFacts:
    return StoppingFacts(np.arange(reviewed) < infected, waiting, found, 2400, curve=curve(slope, noise=noise))


def test_go_on_while_much_is_unseen_or_much_is_gained():
    both = when_to_stop(facts(20, 400, 10_000, 100, slope=0.2))
    assert both.stop is False
    assert both.sentence.startswith("Go on: about 500 infected cells [")
    assert "among 10,000 that wait, and the next 100 reviews are expected to bring +0.008 [" in both.sentence
    assert both.sentence.endswith("both are worth your time.")
    assert when_to_stop(facts(20, 400, 10_000, 100, slope=0.0)).sentence.endswith("the first is worth your time.")
    assert when_to_stop(facts(0, 400, 100, 900, slope=0.2)).sentence.endswith("the second is worth your time.")


def test_stop_when_even_the_upper_ends_are_small():
    found = when_to_stop(facts(0, 400, 2000, 900, slope=0.01))
    assert found.stop is True
    assert found.sentence.startswith("You may stop: about 0 infected cells [0, ")
    assert json.loads(json.dumps(found.to_json()))["stop"] is True


def test_what_is_not_known_is_said():
    nothing = when_to_stop(StoppingFacts(np.zeros(0, bool), 500, 0, 0))
    assert (nothing.stop, nothing.unseen, nothing.gain) == (None, None, None)
    assert nothing.sentence == "It cannot be told yet: no cell drawn at random was reviewed."
    half = when_to_stop(StoppingFacts(np.arange(100) < 10, 500, 40, 300, curve=curve(0.1)[:1]))
    assert half.stop is None
    assert half.sentence.startswith("It cannot be told yet: fewer than two models were evaluated; about 50 infected")


def test_points_without_a_number_are_left_out_and_impossible_ones_refused():
    undefined = CurvePoint(500, float("nan"), float("nan"), float("nan"))
    assert next_gain([*curve(0.05), undefined], 2400) == next_gain(curve(0.05), 2400)
    with pytest.raises(ValueError, match="at least 1 label"):
        next_gain([CurvePoint(0, 0.5, 0.4, 0.6), *curve(0.05)], 2400)
    with pytest.raises(ValueError, match="low <= high"):
        next_gain([CurvePoint(10, 0.5, 0.6, 0.4)], 2400)


def test_a_person_reads_a_sentence_and_a_program_json(capsys):
    given_facts = StoppingFacts(
        np.arange(100) % 10 == 0,
        np.linspace(0, 0.9, 3000),
        found=40,
        labels=2400,
        probability=np.where(np.arange(100) % 10 == 0, 0.6, 0.02),
        curve=curve(0.1),
    )
    answer(given_facts, as_json=False)
    shown = capsys.readouterr().out
    assert shown.startswith("Go on: ")
    assert "still waiting" in shown
    answer(given_facts, as_json=True)
    assert json.loads(capsys.readouterr().out)["unseen"]["reviewed"] == 100
    answer(StoppingFacts(np.zeros(0, bool), 500, 0, 0), as_json=False)
    assert capsys.readouterr().out == "It cannot be told yet: no cell drawn at random was reviewed.\n"
