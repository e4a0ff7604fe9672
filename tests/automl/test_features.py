"""Features that need no other row, and the kinds of columns."""

import numpy as np

from automl.features import row_features
from tests.automl.drawn import resolved


def test_calendar_features_are_utc_with_monday_0() -> None:
    # 2018-05-12 is a Saturday; 1969-12-31 a Wednesday
    stamps = ["2018-05-12T06:59:59.999", "2018-05-12T07:00", "1969-12-31T23:00"]
    times_ms = np.array(stamps, dtype="datetime64[ms]").astype(np.int64)
    spec = resolved("hour<=6", "weekday>=5", "hour", "weekday", "hour==7")
    assert row_features(spec, times_ms, {}).tolist() == [
        [1, 1, 6, 5, 0],
        [0, 1, 7, 5, 1],
        [0, 0, 23, 2, 0],
    ]
