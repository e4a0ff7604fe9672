from __future__ import annotations

import numpy as np
import pytest

from benchmarks.reader import decided_rate, lag_slope, percentiles


def samples(lags, *, per_s=1_000, step_s=1.0):
    return [
        (i * step_s, int(i * step_s * per_s), int(i * step_s * per_s) - lag)
        for i, lag in enumerate(lags)
    ]


def test_percentiles_of_one_to_a_thousand():
    found = percentiles(np.arange(1, 1_001))
    assert found == {
        "p50": 500.5,
        "p95": 950.0,
        "p99": 990.0,
        "p999": 999.0,
        "max": 1000,
    }


def test_no_decisions_have_no_percentiles():
    assert percentiles(np.empty(0)) == {}


def test_a_lag_that_grows_by_ten_a_second():
    assert lag_slope(samples([10 * i for i in range(30)])) == pytest.approx(10.0)


def test_a_pause_in_between_is_no_growth():
    lags = [100] * 30
    lags[4], lags[27] = 5_000, 9_000
    assert lag_slope(samples(lags)) == 0.0


def test_too_few_samples_show_no_growth():
    assert lag_slope(samples([1, 2, 3])) == 0.0


def test_decided_per_second_from_first_sample_to_last():
    assert decided_rate(samples([0, 0, 0, 300])) == pytest.approx(900.0)
    assert decided_rate([]) == 0.0
