"""When a worker takes another for dead, by its own clock alone."""

from __future__ import annotations

from al_loop.pulse import DEAD_AFTER_S, Watch


def test_a_beat_that_rests_is_noticed_and_one_that_grows_is_not() -> None:
    now = [100.0]
    watch = Watch(lambda: now[0])
    for second in range(int(DEAD_AFTER_S)):
        assert watch.resting({1: 7, 2: second}) == [], "not before the time is over"
        now[0] += 1
    assert watch.resting({1: 7, 2: 99}) == [1]
    assert watch.resting({2: 99}) == []
    assert watch.resting({1: 7, 2: 99}) == [], "back again, it gets the whole time"


def test_time_in_which_nobody_could_look_counts_against_nobody() -> None:
    now = [100.0]
    watch = Watch(lambda: now[0])
    watch.resting({1: 7})
    now[0] += 10 * DEAD_AFTER_S  # the database was away, or we slept
    assert watch.resting({1: 7}) == []
    now[0] += DEAD_AFTER_S / 2
    assert watch.resting({1: 7}) == []
    now[0] += DEAD_AFTER_S / 2
    assert watch.resting({1: 7}) == [1]
