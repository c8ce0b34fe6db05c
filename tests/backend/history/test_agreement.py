"""Agreement of experts: numbers from textbooks and scikit-learn, intervals that cover, and periods."""

import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from backend.history.agreement import ANSWERS, Readings, agreement
from backend.history.kappa import cohen_kappa, fleiss_kappa, krippendorff_alpha, pair_tables, pooled_kappa

START = datetime(2026, 1, 30, 12, 0, tzinfo=UTC)


def readings(*rows: tuple[int, str, str | None, float]) -> Readings:
    """(cell, expert, label, days after the start) each."""
    cells, experts, labels, days = zip(*rows, strict=True)
    return Readings(cells, experts, labels, [START + timedelta(days=day) for day in days])


def two_readers(count: int, seed: int, agree: float = 0.8) -> Readings:
    """Two experts on `count` cells; the second repeats the first with probability `agree`, else says anything."""
    rng = np.random.default_rng(seed)
    first = rng.choice(3, count, p=[0.5, 0.3, 0.2])
    second = np.where(rng.uniform(size=count) < agree, first, rng.choice(3, count, p=[0.5, 0.3, 0.2]))
    rows = [(cell, "ada", ANSWERS[label], 0.0) for cell, label in enumerate(first)]
    return readings(*rows, *((cell, "bob", ANSWERS[label], 1.0) for cell, label in enumerate(second)))


def test_fleiss_own_example():
    """Ten subjects, fourteen raters, five categories; kappa .210 (Fleiss' kappa, Wikipedia)."""
    given_ = np.array(
        [
            [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
        ]
    )  # fmt: skip
    assert fleiss_kappa(given_, np.ones((1, 10)))[0] == pytest.approx(0.210, abs=5e-4)


def test_krippendorffs_own_example():
    """Four observers, twelve units, missing answers; alpha .743 (Krippendorff 2011, part C)."""
    said = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    given_ = np.stack([(np.array(said) == answer).sum(axis=0) for answer in range(1, 6)], axis=1)
    given_ = given_[given_.sum(axis=1) > 1]
    assert krippendorff_alpha(given_, np.ones((1, len(given_))))[0] == pytest.approx(0.743, abs=5e-4)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 60), raters=st.integers(2, 5))
def test_one_kappa_against_the_other(seed, count, raters):
    rng = np.random.default_rng(seed)
    said = rng.integers(0, 4, (count, raters))
    said[:, 1:] = np.where(rng.uniform(size=(count, raters - 1)) < 0.5, said[:, :1], said[:, 1:])
    weights = np.ones((1, count))
    tables = pair_tables(said[:, :2], weights, 4)
    ours = cohen_kappa(tables)[0]
    if np.isfinite(ours):
        assert ours == pytest.approx(cohen_kappa_score(said[:, 0], said[:, 1]))
        assert pooled_kappa(np.stack([tables, tables]))[0] == pytest.approx(ours)
    given_ = np.stack([(said == answer).sum(axis=1) for answer in range(4)], axis=1)
    fleiss, alpha = fleiss_kappa(given_, weights)[0], krippendorff_alpha(given_, weights)[0]
    assert np.isfinite(fleiss) == np.isfinite(alpha)
    if np.isfinite(fleiss):  # with as many readers of every cell, alpha is kappa corrected for few answers
        assert alpha == pytest.approx(1 - (1 - fleiss) * (count * raters - 1) / (count * raters))
        assert fleiss <= 1 + 1e-12


def test_weights_count_cells_as_often():
    rng = np.random.default_rng(0)
    said, weights = rng.integers(0, 3, (8, 3)), rng.integers(0, 4, 8)
    many = np.repeat(said, weights, axis=0)

    def numbers(answers: np.ndarray, times: np.ndarray) -> list[float]:
        given_ = np.stack([(answers == k).sum(axis=1) for k in range(3)], axis=1)
        kappa = cohen_kappa(pair_tables(answers[:, :2], times, 3))
        return [float(found[0]) for found in (kappa, fleiss_kappa(given_, times), krippendorff_alpha(given_, times))]

    assert numbers(said, weights[None].astype(float)) == pytest.approx(numbers(many, np.ones((1, len(many)))))


def test_the_interval_contains_the_truth_about_as_often_as_it_says():
    """agree = .8 and the same shares for both: kappa is .8 exactly."""
    inside = 0
    for seed in range(200):
        [found] = agreement(two_readers(150, seed), resamples=200, seed=seed)
        assert found.cohen.low is not None
        assert found.cohen.high is not None
        inside += found.cohen.low <= 0.8 <= found.cohen.high
    assert 0.89 <= inside / 200 <= 0.99


def test_everything_about_a_period():
    [found] = agreement(
        readings(
            (1, "ada", "ring", 0), (1, "bob", "ring", 1), (1, "eve", "trophozoite", 2),
            (2, "bob", None, 0), (2, "ada", "red blood cell", 1),
            (3, "ada", "ring", 0), (3, "bob", "ring", 0),
            (4, "ada", "difficult", 0),
        )
    )  # fmt: skip
    assert (found.period, found.cells, found.readings, found.experts) == ("all", 3, 7, ("ada", "bob", "eve"))
    assert [(pair.first, pair.second, pair.cells) for pair in found.pairs] == [
        ("ada", "bob", 3),
        ("ada", "eve", 1),
        ("bob", "eve", 1),
    ]
    assert found.pairs[0].same == pytest.approx(2 / 3)
    assert found.pairs[0].kappa.value == pytest.approx(cohen_kappa_score([2, 0, 2], [2, 7, 2]))
    assert found.same == pytest.approx(2 / 5)
    index = {name: number for number, name in enumerate(ANSWERS)}
    confusion = np.array(found.confusion)
    assert confusion[index["ring"], index["ring"]] == 2
    assert confusion[index["ring"], index["trophozoite"]] == 1
    assert confusion[index["no cell"], index["red blood cell"]] == 1  # bob was first
    assert confusion.sum() == 4
    assert found.specific["ring"] == pytest.approx(4 / 6)
    assert found.specific["trophozoite"] == 0
    assert "schizont" not in found.specific
    assert json.loads(json.dumps(found.to_json()))["answers"] == list(ANSWERS)


@pytest.mark.parametrize(
    ("period", "names"),
    [
        ("all", ["all"]),
        ("month", ["2026-01", "2026-02"]),
        ("week", ["2026-W05", "2026-W06"]),
        ("day", ["2026-01-31", "2026-02-02", "2026-02-03"]),
    ],
)
def test_a_cell_belongs_to_the_period_of_its_second_reading(period, names):
    rows = [(cell, "ada", "ring", 0) for cell in range(3)]
    found = agreement(readings(*rows, (0, "bob", "ring", 1), (1, "bob", None, 3), (2, "bob", "ring", 4)), period)
    assert [each.period for each in found] == names
    assert sum(each.cells for each in found) == 3


def test_periods_are_in_utc_whatever_the_zone():
    late = datetime(2026, 2, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))  # still January in UTC
    both = Readings([1, 1], ["ada", "bob"], ["ring", "ring"], [START, late])
    assert [each.period for each in agreement(both, "month")] == ["2026-01"]


def test_the_newest_answer_of_an_expert_counts():
    [found] = agreement(readings((1, "ada", "schizont", 5), (1, "ada", "ring", 0), (1, "bob", "schizont", 1)))
    assert found.same == 1
    assert found.readings == 2


def test_when_everybody_always_says_the_same_kappa_is_undefined():
    rows = [(cell, expert, "ring", 0) for cell in range(5) for expert in ("ada", "bob")]
    [found] = agreement(readings(*rows))
    assert found.same == 1
    assert [found.cohen.value, found.fleiss.value, found.alpha.value, found.pairs[0].kappa.value] == [None] * 4


def test_nothing_to_compare():
    assert agreement(Readings([], [], [], [])) == []
    assert agreement(readings((1, "ada", "ring", 0), (2, "bob", "ring", 0))) == []


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="day, week, month, all"):
        agreement(readings((1, "ada", "ring", 0)), "year")
    with pytest.raises(ValueError, match="elephant"):
        agreement(readings((1, "ada", "elephant", 0)))


def test_the_same_again_in_any_order():
    once = two_readers(80, 3)
    order = np.random.default_rng(1).permutation(160)
    columns = (once.cells, once.experts, once.labels, once.moments)
    shuffled = Readings(*([column[k] for k in order] for column in columns))
    assert agreement(shuffled) == agreement(once)
