import json

import pytest

from automl.registry import Registry
from pipelines import demo_run, stack
from pipelines.cli import main


@pytest.fixture
def registered(tmp_path):
    """Registers a version of a model in the home folder."""
    registry = Registry(tmp_path / "home" / "models")
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "tree.txt").write_text("a tree")

    def save(name, *, promoted=True):
        version = registry.save(
            name,
            stage,
            parent=None,
            task={},
            features=["amount"],
            width=16,
            modalities=["tabular"],
            fingerprints={},
            threshold=0.5,
            prior_logit=-2.0,
            metrics={},
            created_at="2026-01-01T00:00:00+00:00",
        )
        if promoted:
            registry.promote(name, version.version)
        return version

    return save


@pytest.fixture
def fitted(monkeypatch, registered):
    """The seeds that a first model was fitted with; no stack may be touched."""
    seeds = []

    def fit(home, seed):
        seeds.append(seed)
        return registered("demo")

    monkeypatch.setattr(demo_run, "fit_first_model", fit)
    monkeypatch.delattr(stack, "find")
    monkeypatch.delattr(stack, "start")
    return seeds


@pytest.fixture
def fit_only(tmp_path, capsys):
    def run(*more):
        home = str(tmp_path / "home")
        assert main(["demo", "--fit-only", "--home", home, *more]) == 0
        return capsys.readouterr().out

    return run


def test_the_first_model_is_fitted_once(fitted, fit_only):
    shown = {"name": "demo", "version": 1}
    assert json.loads(fit_only("--json", "--seed", "3")) == {**shown, "fitted": True}
    assert json.loads(fit_only("--json", "--seed", "4")) == {**shown, "fitted": False}
    assert fitted == [3]


def test_a_model_of_ones_own_is_taken_as_it_is(fitted, fit_only, registered):
    registered("fraud")
    assert fit_only().startswith("fraud v1 is there, nothing to fit: ")
    assert fitted == []


def test_a_version_nobody_put_in_charge_is_no_model_to_start_with(
    fitted, fit_only, registered
):
    registered("demo", promoted=False)
    assert fit_only().startswith("demo v2 fitted and registered: ")
    assert fitted == [0]
