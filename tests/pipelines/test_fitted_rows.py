import numpy as np

from pipelines import fitted_rows as module
from pipelines.fitted_rows import ROWS_FILE, FittedRows


def rows(*values):
    x = np.array([[v, np.nan] for v in values])
    return x, np.arange(len(values)) % 2, np.array([int(10 * v) for v in values])


def test_rows_come_back_from_their_folder_to_the_bit(tmp_path):
    FittedRows(*rows(0.1, 2.0, 3.0)).write(tmp_path)
    found = FittedRows.read(tmp_path)
    x, y, times = rows(0.1, 2.0, 3.0)
    assert found.x.tobytes() == x.tobytes()
    assert found.x.dtype == np.float64
    assert found.y.tolist() == y.tolist()
    assert found.event_time_ms.tolist() == times.tolist()
    assert [path.name for path in tmp_path.iterdir()] == [ROWS_FILE]


def test_later_rows_come_after_the_known_ones():
    first = FittedRows(*rows(1, 2))
    found = first.extended(*rows(3))
    assert found.x[:, 0].tolist() == [1, 2, 3]
    assert found.y.tolist() == [0, 1, 0]
    assert found.event_time_ms.tolist() == [10, 20, 30]
    assert len(first.y) == 2


def test_the_oldest_rows_are_forgotten_first(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 3)
    found = FittedRows(*rows(1, 2)).extended(*rows(3, 4))
    assert found.x[:, 0].tolist() == [2, 3, 4]
    assert found.y.tolist() == [1, 0, 1]
    assert found.event_time_ms.tolist() == [20, 30, 40]
