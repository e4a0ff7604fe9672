from __future__ import annotations

from pipelines.operators.pace import Pace


def waits(*at_ms: int) -> list[int]:
    pace = Pace(20)
    return [pace.arrived(at) for at in at_ms]


def test_nothing_is_known_of_the_first():
    assert waits(5) == [20]


def test_what_comes_fast_waits():
    assert waits(*range(0, 200, 10)) == [20] * 20


def test_what_comes_alone_does_not_wait():
    assert waits(*range(0, 5000, 500))[3:] == [0] * 7


def test_a_burst_after_a_pause_waits_again():
    pause = [500 * n for n in range(6)]
    burst = [2500 + n for n in range(1, 8)]
    assert waits(*pause, *burst)[-1] == 20


def test_a_clock_that_goes_back_is_no_gap():
    assert waits(1000, 500, 500) == [20, 20, 20]
