import json

import pytest

from automl.explain import reasons


def test_the_strongest_that_raised_the_score_come_first() -> None:
    found = reasons(
        ["amount", "night", "count"],
        [250.0, 1.0, float("nan")],
        [1.5, -2.0, 0.25],
        {"text": 0.75, "image": -0.5},
    )
    assert found == [
        {"kind": "feature", "name": "amount", "value": 250.0, "effect": 1.5},
        {"kind": "modality", "name": "text", "value": None, "effect": 0.75},
        {"kind": "feature", "name": "count", "value": None, "effect": 0.25},
    ]
    json.dumps(found, allow_nan=False)


def test_no_more_than_k_and_none_when_nothing_raised_it() -> None:
    assert len(reasons(["a", "b"], [1, 2], [1.0, 2.0], {"text": 3.0}, k=2)) == 2
    assert reasons(["a"], [1], [-1.0], {"text": 0.0}) == []


def test_equal_effects_keep_one_order() -> None:
    one = reasons(["b", "a"], [1, 2], [1.0, 1.0], {})
    other = reasons(["a", "b"], [2, 1], [1.0, 1.0], {})
    assert one == other


def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 names, 1 values"):
        reasons(["a", "b"], [1], [1.0, 2.0], {})
