"""The stream's clock: moved by many events, not by one."""

import numpy as np

from automl.stream_clock import BLOCK, StreamClock


def at(*times_ms: int) -> np.ndarray:
    return np.repeat(np.array(times_ms, dtype=np.int64), BLOCK)


def test_it_moves_to_the_median_after_every_block_and_never_back() -> None:
    clock = StreamClock().observe(at(500, 700, 100, 0))
    assert clock[0] < -(2**60)
    assert clock[BLOCK::BLOCK].tolist() == [500, 700, 700]


def test_an_outlier_does_not_move_it_and_a_gap_is_passed() -> None:
    times = at(500, 10**12)
    times[:100] = 10**15
    clock = StreamClock()
    clock.observe(times[:BLOCK])
    assert clock.now_ms == 500
    clock.observe(times[BLOCK:])
    assert clock.now_ms == 10**12


def test_frames_and_a_restart_make_no_difference() -> None:
    times = np.random.default_rng(0).integers(0, 10**6, 1_000)
    whole, clock, parts = StreamClock().observe(times), StreamClock(), []
    for first in range(0, 1_000, 77):
        parts.append(clock.observe(times[first : first + 77]))
        clock = StreamClock.from_bytes(clock.to_bytes())
    assert np.concatenate(parts).tolist() == whole.tolist()
