"""Random stories of cases, told to the operator in frames and to objects one by one."""

import random

import numpy as np
import pyarrow as pa
import pytest

from automl.keys import key_of, text_keys
from automl.registry import load_manifest
from connectors.origins import Origins
from connectors.records import MODALITIES, Place
from connectors.rows import CASE_KEY, EventRows
from pipelines.operators.aggregate import windows_column
from pipelines.operators.assemble import Case, Landing, land, release
from pipelines.operators.score import ScoreCases
from pipelines.operators.undecided import of_pending
from pipelines.scorer import Scorer

AT_MS = 1_760_000_000_000
WIDTH, FEATURES = 16, 6
TICK_MS, WAIT_MS = 1000, 5000
WINDOWS = {windows_column("customer"): 3, windows_column("terminal"): 1}


@pytest.fixture(scope="module")
def scorer(model_folder):
    return Scorer.load(model_folder)


def content_of(event):
    """What an event says: drawn by its id, so that a repeat says the same."""
    modality, event_id = event[1:]
    draw = np.random.default_rng(int(key_of(event_id)) % 2**32)
    if modality == "tabular":
        return draw.uniform(0, 100, FEATURES)
    return draw.normal(size=WIDTH).astype(np.float32)


def frame_of(events, fingerprints):
    """Events `(case, modality, id)`, all tabular or all media, as they reach it."""
    count = len(events)
    cases = pa.array([event[0] for event in events])
    contents = np.stack([content_of(event) for event in events])
    tabular = events[0][1] == "tabular"
    if tabular:
        contents[:, 1] = 0.0  # hour<=6, which the operator makes of the time
        contents[:, 2:5], contents[:, 5] = 50.0, 50.0
        columns = {"amount": contents[:, 0]}
        columns |= {n: np.full((count, width), 50.0) for n, width in WINDOWS.items()}
    else:
        names = [event[1] for event in events]
        columns = {
            "modality": pa.array(names),
            "fingerprint": pa.array([fingerprints[name] for name in names]),
            "vector": contents,
        }
    place = Place(topic="t", partition=0, offset=7)
    return EventRows(
        modality="tabular" if tabular else "embedding",
        event_id=pa.array([event[2] for event in events]),
        case_id=cases,
        event_time_ms=np.full(count, AT_MS),
        created_ms=np.zeros(count, dtype=np.int64),
        origins=Origins.of_frame(place, np.arange(count, dtype=np.int32)),
        columns={CASE_KEY: text_keys(cases), **columns},
    )


class Objects:
    """Every case an object, every event by itself: what the operator has to equal."""

    def __init__(self, scorer):
        self.scorer = scorer
        self.cases, self.held_since = {}, {}
        self.decisions, self.alerts = {}, []

    def give(self, events, clock_ms):
        for event in events:
            case_id, modality, event_id = event
            content = content_of(event)
            if modality == "tabular":
                content = np.array([content[0], 0.0, 50.0, 50.0, 50.0, 50.0])
            number = MODALITIES.index(modality)
            key = int(key_of(event_id))
            case = self.cases.setdefault(case_id, Case(case_id))
            self._decide(land(case, Landing(event_id, key, number, AT_MS, 0, content)))
            self.held_since.pop(case_id, None)
            if case.held:
                self.held_since[case_id] = clock_ms

    def wait(self, clock_ms, until_ms):
        for tick in range((clock_ms // TICK_MS + 1) * TICK_MS, until_ms + 1, TICK_MS):
            for case_id, since_ms in [*self.held_since.items()]:
                if tick - since_ms >= WAIT_MS:
                    del self.held_since[case_id]
                    self._decide(release(self.cases[case_id]))

    def _decide(self, pending):
        for one in pending:
            given = of_pending([one], features=FEATURES, width=WIDTH)
            scored = self.scorer.score(given.x, given.vectors, given.mask)
            place = (one.case.case_id, one.revision)
            assert place not in self.decisions
            self.decisions[place] = (one.landing.event_id, scored.score[0])
            if bool(scored.alert[0]) != one.case.alerted:
                one.case.alerted = bool(scored.alert[0])
                self.alerts.append((*place, one.case.alerted))


def story(draw):
    """Steps: frames of events, waits in milliseconds, and None for a restart."""
    cases = [f"k{n}" for n in range(draw.choice([1, 3, 8]))]
    pool = [
        (case, modality, f"{case}.{modality}.{n}" if draw.random() < 0.7 else f"e{n}")
        for case in cases
        for modality in ("tabular", "tabular", "text", "image")
        for n in range(draw.randint(1, 2))
    ]
    for _ in range(draw.randint(3, 12)):
        kind = draw.random()
        if kind < 0.12:
            yield None
        elif kind < 0.3:
            yield draw.choice([1, 400, 1000, 4700, 7000])
        else:
            tabular = draw.random() < 0.5
            fitting = [event for event in pool if (event[1] == "tabular") == tabular]
            yield draw.choices(fitting, k=draw.randint(1, 9))
    yield 12_000


@pytest.mark.parametrize("seed", range(60))
def test_frames_tell_what_objects_tell(
    seed, new_runtime, settings, scorer, tables, model_folder
):
    fingerprints = load_manifest(model_folder).fingerprints
    runtime, reference = new_runtime(), Objects(scorer)
    operator, out = runtime.open(ScoreCases(settings)), []
    for step in story(random.Random(seed)):
        if step is None:
            operator = runtime.open(ScoreCases(settings))
        elif isinstance(step, int):
            reference.wait(runtime.clock_ms, runtime.clock_ms + step)
            out += runtime.wait(operator, step)
        else:
            reference.give(step, runtime.clock_ms)
            out += runtime.give(operator, 0, frame_of(step, fingerprints))
    found = tables(out)
    made = found.get("run.decisions", [])
    by_place = {
        (d["case_id"], d["revision"]): (d["event_id"], d["score"]) for d in made
    }
    assert len(by_place) == len(made)
    assert {p: event for p, (event, _) in by_place.items()} == {
        place: event for place, (event, _) in reference.decisions.items()
    }
    for place, (_, score) in by_place.items():
        assert score == pytest.approx(reference.decisions[place][1], abs=2e-6)
    told = [
        (a["case_id"], a["revision"], a["alert"]) for a in found.get("run.alerts", [])
    ]
    assert sorted(told) == sorted(reference.alerts)
    assert len(found.get("run.features", [])) == sum(
        d["modality"] == "tabular" for d in made
    )
