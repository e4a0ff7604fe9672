"""What only the future knows is worth nothing in the training set."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from automl.arrival import backfill
from automl.evaluate import auc
from automl.task import TaskSpec

ROWS, DAY_MS, START_MS = 24_000, 86_400_000, 1_760_000_000_000
WEEK_MS = 7 * DAY_MS
#: Features on the label: of the case itself alone, of its card, and of everything.
PLANTED = ("own", "card", "all")


@pytest.fixture(scope="module")
def spec() -> TaskSpec:
    """Each asks for the label of the rows in the window, the current one included."""
    same = {"agg": "last", "column": "label", "window": "30d"}
    features = [{"name": name, "entity": name, **same} for name in PLANTED]
    features += ["clue"]
    entities = {"own": "own_id", "card": "card_id", "all": "all_id"}
    kinds = {column: "string" for column in entities.values()} | {"clue": "number"}
    task = {"name": "planted", "entities": entities, "features": features}
    return TaskSpec.from_json(task).resolve(kinds)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 2, ROWS)


@pytest.fixture(scope="module")
def archive(truth: np.ndarray) -> pa.Table:
    """Ninety days of payments; nothing but `clue` has to do with the label."""
    draw = np.random.default_rng(4)
    times = START_MS + np.sort(draw.choice(90 * DAY_MS, ROWS, replace=False))
    ids = [f"k{i:05d}" for i in range(ROWS)]
    return pa.table(
        {
            "event_id": ids,
            "case_id": ids,
            "event_time": pa.array(times).cast(pa.timestamp("ms", "UTC")),
            "own_id": ids,
            "card_id": [f"c{x}" for x in draw.integers(0, 200, ROWS)],
            "all_id": ["everything"] * ROWS,
            "clue": truth + draw.normal(0, 1, ROWS),
        }
    )


def labels(archive: pa.Table, truth: np.ndarray, delay_ms: int) -> pa.Table:
    times = pc.add(archive.column("event_time").cast(pa.int64()), delay_ms)
    return pa.table(
        {
            "case_id": archive.column("case_id"),
            "label_time": times.cast(pa.timestamp("ms", "UTC")),
            "label": pa.array(truth.astype(np.int8)),
        }
    )


def score(table: pa.Table, name: str, truth: np.ndarray) -> float:
    """The AUC of one feature by itself; where it says nothing it says one half."""
    values = table.column(name).to_numpy()
    return float(auc(truth, np.where(np.isnan(values), 0.5, values)))


@pytest.fixture(scope="module")
def training_set(spec, archive, truth) -> pa.Table:
    return backfill(spec, archive, labels(archive, truth, WEEK_MS))


@pytest.mark.parametrize("name", PLANTED)
def test_a_label_that_is_known_a_week_later_says_nothing_before(
    training_set, truth, name
) -> None:
    assert training_set.num_rows == ROWS >= 20_000
    assert abs(score(training_set, name, truth) - 0.5) <= 0.02


def test_labels_that_are_known_are_counted(training_set) -> None:
    """The feature is not empty: of labels that are a week old it does tell."""
    known = np.isfinite(training_set.column("all").to_numpy())
    times = training_set.column("event_time").cast(pa.int64()).to_numpy()
    assert known[times >= START_MS + 8 * DAY_MS].all()
    assert not np.isfinite(training_set.column("own").to_numpy()).any()


@pytest.mark.parametrize("name", PLANTED)
def test_computed_wrongly_it_would_tell_everything(spec, archive, truth, name) -> None:
    """So the test above can fail: labels as if known when the event came."""
    wrong = backfill(spec, archive, labels(archive, truth, 0))
    assert score(wrong, name, truth) == 1.0


def test_a_label_one_millisecond_after_its_event_is_not_there(
    spec, archive, truth
) -> None:
    found = backfill(spec, archive, labels(archive, truth, 1))
    assert not np.isfinite(found.column("own").to_numpy()).any()
    assert abs(score(found, "card", truth) - 0.5) <= 0.02


def test_labels_drawn_at_random_say_nothing(spec, archive, truth) -> None:
    drawn = np.random.default_rng(9).integers(0, 2, ROWS)
    found = backfill(spec, archive, labels(archive, drawn, 0))
    for name in PLANTED:
        assert abs(score(found, name, truth) - 0.5) <= 0.02


def test_what_is_known_in_time_keeps_its_worth(training_set, truth) -> None:
    assert score(training_set, "clue", truth) > 0.7
