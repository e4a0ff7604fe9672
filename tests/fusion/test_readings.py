import numpy as np
import pytest

from fusion.readings import Curve, read_agreement, read_embedding


def counted(
    items: int, rows: int, *, seed: int, said: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that share few items; half of the items are bad, and 30 % of the 1s' are."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(items, 16)).astype(np.float32)
    bad = np.arange(items) % 2 == 1
    x[bad, 0] += 3.0 if said else 0.0
    y = (draw.random(rows) < 0.1).astype(np.int64)
    want_bad = draw.random(rows) < np.where(y == 1, 0.9, 0.1)
    item = 2 * draw.integers(items // 2, size=rows) + want_bad
    return x[item], y, bad[item]


def test_a_curve_of_no_rise_says_nothing() -> None:
    assert Curve()(np.array([-3.0, 0.0, 7.0])).tolist() == [0.0, 0.0, 0.0]


def test_a_curve_goes_from_low_to_low_and_rise() -> None:
    ends = Curve(low=-1.0, rise=3.0, slope=2.0, turn=0.0)(np.array([-50.0, 50.0]))
    assert ends.tolist() == pytest.approx([-1.0, 2.0])


def test_evidence_is_the_log_of_how_much_likelier_a_1_is() -> None:
    x, y, bad = counted(400, 6000, seed=0)
    line = read_embedding(x, y, seed=0)
    said = line.curve(x @ line.weights + line.bias)
    # log(0.9 / 0.1) and log(0.1 / 0.9), less what some readings leave in doubt
    assert np.median(said[bad]) == pytest.approx(2.2, abs=0.5)
    assert np.median(said[~bad]) == pytest.approx(-2.2, abs=0.5)


def test_rows_of_one_payload_are_never_read_by_a_line_that_saw_it() -> None:
    x, y, _ = counted(40, 4000, seed=1, said=False)
    line = read_embedding(x, y, seed=0)
    # forty payloads could be learnt by heart: each has its own share of 1s
    assert (line.curve, line.weights.any()) == (Curve(), False)


def test_the_same_payload_always_has_the_same_unseen_reading() -> None:
    x, y, _ = counted(100, 2000, seed=2)
    line = read_embedding(x, y, seed=0)
    for row in range(0, 2000, 100):
        same = (x == x[row]).all(axis=1)
        assert len(np.unique(line.unseen[same])) == 1


@pytest.mark.parametrize("ones", [0, 1, 3])
def test_too_few_ones_say_nothing(ones: int) -> None:
    x, y, _ = counted(50, 300, seed=3)
    y[:] = 0
    y[:ones] = 1
    assert read_embedding(x, y, seed=0).curve == Curve()


def test_an_empty_modality_says_nothing() -> None:
    line = read_embedding(np.zeros((0, 8), np.float32), np.zeros(0, int), seed=0)
    assert line.weights.tolist() == [0.0] * 8
    assert line.unseen.shape == (0,)


def test_low_cosines_that_go_with_ones_become_evidence() -> None:
    draw = np.random.default_rng(0)
    y = (draw.random(4000) < 0.05).astype(np.int64)
    clash = draw.random(4000) < np.where(y == 1, 0.6, 0.03)
    cosine = np.where(clash, 0.0, 0.8) + 0.1 * draw.normal(size=4000)
    curve = read_agreement(cosine, draw.permutation(cosine), y, seed=0)
    low, high = curve(np.array([0.0, 0.8]))
    assert low == pytest.approx(np.log(0.6 / 0.03), abs=0.6)
    assert high == pytest.approx(np.log(0.4 / 0.97), abs=0.3)
    assert read_agreement(cosine, cosine, y, seed=0) == Curve()
    noise = draw.normal(size=4000)
    assert read_agreement(noise, draw.permutation(noise), y, seed=0) == Curve()
